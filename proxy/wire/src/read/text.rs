//! Texts that have a form: tokens and values of HTTP, names, paths. What ends up in a message that a proxy writes is checked here, so
//! that no policy can write a line of its own into it.

use crate::{Malformed, Problem};
use policy::names::is_subdomain;
use std::sync::Arc;

/// A method, or the name of a cookie: a token (RFC 9110 §5.6.2).
pub(super) fn token(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    check(field, text, is_token(text), "a token of HTTP")
}

/// The name of a field, in lower case.
pub(super) fn field_name(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    let fits = is_token(text) && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    check(field, text, fits, "the name of an HTTP field in lower case")
}

/// The value of a field (RFC 9110 §5.5): no control characters, no space around it.
pub(super) fn field_value(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    let fits = !text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t')
        && text.trim_matches([' ', '\t']).len() == text.len();
    check(field, text, fits, "the value of an HTTP field")
}

/// A path without its query: visible characters of ASCII after a slash.
pub(super) fn path(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    check(field, text, text.starts_with('/') && is_plain(text), "a path that begins with /")
}

/// What stands in the place of a prefix: a path, or nothing.
pub(super) fn prefix(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    check(field, text, is_plain(text), "a part of a path")
}

pub(super) fn hostname(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    check(field, text, is_subdomain(text), "a hostname")
}

/// A hostname; with `*.` before it, those that end so.
pub(super) fn hostname_pattern(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    let fits = is_subdomain(text.strip_prefix("*.").unwrap_or(text));
    check(field, text, fits, "a hostname or *. before one")
}

pub(super) fn present(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    if text.is_empty() {
        return Err(Malformed::new(field, Problem::Missing));
    }
    Ok(text.into())
}

/// `fits` says whether `text` is `what`.
pub(super) fn check(field: &str, text: &str, fits: bool, what: &'static str) -> Result<Arc<str>, Malformed> {
    match fits {
        true => Ok(text.into()),
        false => Err(Malformed::new(field, Problem::Not(Problem::quote(text), what))),
    }
}

fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}
