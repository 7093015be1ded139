//! How the names of a message's fields were written: HTTP/2 has them in lower case, HTTP/1.1 programs see what was said.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proxy_h1::Field;

pub(crate) const WEFT_CASE: HeaderName = HeaderName::from_static("weft-case");

/// How the names of a message were written. Nothing for lower case, as in most programs' own HTTP/2.
pub(crate) fn case_of<'a>(fields: impl Iterator<Item = Field<'a>> + Clone) -> Option<HeaderValue> {
    let is_lower = |name: &[u8]| !name.iter().any(u8::is_ascii_uppercase);
    let lower = fields.clone().next().is_none_or(|field| is_lower(field.name));
    let mut odd =
        fields.filter(|field| if lower { !is_lower(field.name) } else { !is_title(field.name) }).peekable();
    if odd.peek().is_none() {
        return (!lower).then(|| HeaderValue::from_static("t"));
    }
    let mut text = vec![if lower { b'l' } else { b't' }];
    for field in odd {
        text.push(b';');
        text.extend_from_slice(field.name);
    }
    Some(HeaderValue::from_maybe_shared(Bytes::from(text)).expect("names and semicolons make a value"))
}

/// `Content-Type`: each word begins with a capital and has no other.
fn is_title(name: &[u8]) -> bool {
    let mut start = true;
    name.iter().all(|byte| {
        let fits = if start { !byte.is_ascii_lowercase() } else { !byte.is_ascii_uppercase() };
        start = *byte == b'-';
        fits
    })
}

/// How names are to be written again.
pub(crate) struct Case<'a> {
    title: bool,
    odd: &'a [u8],
}

impl<'a> Case<'a> {
    pub(crate) const TITLE: Case<'static> = Case { title: true, odd: b"" };

    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let text = headers.get(WEFT_CASE).map_or(&b""[..], HeaderValue::as_bytes);
        let (first, odd) = text.split_first().unwrap_or((&b'l', b""));
        Self { title: *first == b't', odd: odd.get(1..).unwrap_or_default() }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
        let lower = name.as_str().as_bytes();
        if !self.odd.is_empty()
            && let Some(odd) =
                self.odd.split(|byte| *byte == b';').find(|odd| odd.eq_ignore_ascii_case(lower))
        {
            return proxy_h1::write_field(out, odd, value);
        }
        let start = out.len();
        proxy_h1::write_field(out, lower, value);
        if self.title {
            let mut first = true;
            for byte in &mut out[start..start + lower.len()] {
                if first {
                    byte.make_ascii_uppercase();
                }
                first = *byte == b'-';
            }
        }
    }
}
