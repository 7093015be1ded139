//! The form of texts that end up in messages: proxies refuse an answer in which one has another form, so a route or policy
//! that has one is left out before it spoils the answers of others.

use policy::names::is_subdomain;

/// The name of a field of HTTP, of a cookie, or a method (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The value of a field (RFC 9110 §5.5): nothing that ends a line, no space around it.
pub(crate) fn is_value(text: &str) -> bool {
    text.trim_matches([' ', '\t']).len() == text.len()
        && text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
}

/// A part of a path, without a query.
pub(crate) fn is_path_part(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}

/// An absolute path, without a query.
pub(crate) fn is_path(text: &str) -> bool {
    text.starts_with('/') && is_path_part(text)
}

/// A hostname without a port.
pub(crate) fn is_hostname(text: &str) -> bool {
    is_subdomain(text)
}

/// A hostname, or `*.` before one.
pub(crate) fn is_hostname_pattern(text: &str) -> bool {
    is_subdomain(text.strip_prefix("*.").unwrap_or(text))
}

/// An origin of a web page, or a pattern of some.
pub(crate) fn is_origin(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
