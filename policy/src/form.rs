//! The form of texts that end up in messages: who compiles a policy leaves out what has another one, and who reads an answer
//! refuses it, so that no policy can write a line of its own into a message. Both ask here.

use crate::names::is_subdomain;

/// The name of a field, of a cookie, or a method: a token (RFC 9110 §5.6.2).
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The value of a field (RFC 9110 §5.5): nothing that ends a line, no space around it.
pub fn is_field_value(text: &str) -> bool {
    text.trim_matches([' ', '\t']).len() == text.len()
        && text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
}

/// A part of a path, without a query: visible characters of ASCII.
pub fn is_path_part(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}

/// An absolute path, without a query.
pub fn is_path(text: &str) -> bool {
    text.starts_with('/') && is_path_part(text)
}

/// A hostname, or `*.` before one.
pub fn is_hostname_pattern(text: &str) -> bool {
    is_subdomain(text.strip_prefix("*.").unwrap_or(text))
}

/// An origin of a web page, or a pattern of some.
pub fn is_origin(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_own_characters() {
        type Form = fn(&str) -> bool;
        let table: [(Form, &[&str], &[&str]); 6] = [
            (is_token, &["x-a", "GET", "a!"], &["", "a b", "a:", "é"]),
            (is_field_value, &["", "a b", "a\tb", "é"], &[" a", "a ", "a\nb", "a\rb", "\u{7f}"]),
            (is_path_part, &["", "x", "/%20"], &["a b", "a?b", "a#b", "é"]),
            (is_path, &["/", "/a"], &["", "a", "/a b"]),
            (is_hostname_pattern, &["a.example", "*.example"], &["*", "*.", "A b", "a.*"]),
            (is_origin, &["*", "https://*.example"], &["", "a b"]),
        ];
        for (form, fit, unfit) in table {
            fit.iter().for_each(|text| assert!(form(text), "{text:?}"));
            unfit.iter().for_each(|text| assert!(!form(text), "{text:?}"));
        }
    }
}
