//! Tells HTTP/1.x and HTTP/2 from everything else by the first line. Nothing is parsed here beyond what that takes.

use crate::{Lean, Look};

/// A request line is looked for in the first 8 KiB.
pub const MAX_REQUEST_LINE: usize = 8 * 1024;

/// The longest method that is looked for; the longest registered one, `UPDATEREDIRECTREF`, has 17 bytes.
const MAX_METHOD: usize = 32;

/// Empty lines before a request line are skipped (RFC 9112 §2.2), this many bytes of them.
const MAX_LEADING_CRLF: usize = 8;

/// RFC 9113 §3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How every version of HTTP/1 stands at the end of a request line.
const VERSION: &[u8] = b" HTTP/1.";

/// The methods of RFC 9110 §9.3 and RFC 5789, and the space that follows them. A line that begins with one is
/// given the benefit of the doubt: an odd target is for the HTTP engine to refuse, not for us to wave through.
const WELL_KNOWN: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];

pub(crate) fn look(bytes: &[u8]) -> Look {
    if bytes.starts_with(H2_PREFACE) {
        return Look::Http2;
    }
    if H2_PREFACE.starts_with(bytes) {
        // `P` and `PR` may still be a POST or a PROPFIND.
        return Look::Partial(if bytes.len() >= 4 { Lean::Http2 } else { lean(bytes) });
    }
    match skip_empty_lines(bytes) {
        Some([]) => Look::Partial(Lean::Unknown),
        Some(line) => request_line(line),
        None => Look::Opaque,
    }
}

/// What follows the empty lines; empty when an end of line is still in the making, `None` when there are too
/// many of them or a CR stands alone.
fn skip_empty_lines(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        rest = match rest {
            [b'\r', b'\n', after @ ..] => after,
            [b'\r'] => return Some(&[]),
            [b'\r', ..] => return None,
            _ => return Some(rest),
        };
        if bytes.len() - rest.len() > MAX_LEADING_CRLF {
            return None;
        }
    }
}

/// `line` is not empty.
fn request_line(line: &[u8]) -> Look {
    let (line, cut) = match line.get(..MAX_REQUEST_LINE) {
        Some(bounded) => (bounded, true),
        None => (line, false),
    };
    if WELL_KNOWN.iter().any(|method| line.starts_with(method)) {
        return known_method(line, cut);
    }
    let Some(space) = line.iter().position(|&byte| !is_token(byte)) else {
        return if line.len() > MAX_METHOD { Look::Opaque } else { Look::Partial(lean(line)) };
    };
    if space == 0 || space > MAX_METHOD || line[space] != b' ' {
        return Look::Opaque;
    }
    other_method(&line[space + 1..], cut)
}

/// A line with a method that everybody knows. RTSP, SIP, NATS and the inline commands of Redis share some of
/// them, so the version must still be seen; but where it may stand is not checked here.
fn known_method(line: &[u8], cut: bool) -> Look {
    let end = line.iter().position(|&byte| byte == b'\n');
    let seen = &line[..end.unwrap_or(line.len())];
    if seen.windows(VERSION.len()).any(|window| window == VERSION) {
        return Look::Http1;
    }
    match (end, cut) {
        (Some(_), _) => Look::Opaque,
        // A target of 8 KiB after `GET `: it is a URI, and the engine's own limits apply.
        (None, true) => Look::Http1,
        (None, false) => Look::Partial(Lean::Http1),
    }
}

/// What follows a token and a space: a target without blanks, then the version, and nothing else.
fn other_method(rest: &[u8], cut: bool) -> Look {
    let Some(target_end) = rest.iter().position(|byte| !byte.is_ascii_graphic()) else {
        return if cut { Look::Opaque } else { Look::Partial(Lean::Unknown) };
    };
    let version = &rest[target_end..];
    if target_end == 0 {
        Look::Opaque
    } else if version.starts_with(VERSION) {
        Look::Http1
    } else if VERSION.starts_with(version) && !cut {
        Look::Partial(Lean::Unknown)
    } else {
        Look::Opaque
    }
}

/// `bytes` are tokens so far, or nothing but a method's beginning.
fn lean(bytes: &[u8]) -> Lean {
    if WELL_KNOWN.iter().any(|method| method.starts_with(bytes)) { Lean::Http1 } else { Lean::Unknown }
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
