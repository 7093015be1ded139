//! Texts that have a form: tokens and values of HTTP, names, paths. What ends up in a message that a proxy writes is checked here, so
//! that no policy can write a line of its own into it.

use crate::{Malformed, Problem};
use policy::{
    form::{is_field_value, is_hostname_pattern, is_origin, is_path, is_path_part, is_token},
    names::is_subdomain,
};
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
    check(field, text, is_field_value(text), "the value of an HTTP field")
}

/// A path without its query: visible characters of ASCII after a slash.
pub(super) fn path(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    check(field, text, is_path(text), "a path that begins with /")
}

/// What stands in the place of a prefix: a path, or nothing.
pub(super) fn prefix(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    check(field, text, is_path_part(text), "a part of a path")
}

pub(super) fn hostname(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    check(field, text, is_subdomain(text), "a hostname")
}

/// A hostname; with `*.` before it, those that end so.
pub(super) fn hostname_pattern(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    check(field, text, is_hostname_pattern(text), "a hostname or *. before one")
}

/// An origin of a web page, or a pattern of some.
pub(super) fn origin(field: &str, text: &str) -> Result<Arc<str>, Malformed> {
    check(field, text, is_origin(text), "an origin")
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
