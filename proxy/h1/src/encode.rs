//! Writes heads and chunked bodies: plain copies into a `BytesMut` or `Vec<u8>`, nothing is formatted.
//!
//! What is written has been parsed before (by this crate, or as `http::HeaderValue`), so it cannot hold a CR or LF that would
//! split the message; debug builds assert it. Not here: which fields to write (`hop`).

use bytes::BufMut;

use crate::Version;

/// `GET /path HTTP/1.1`
pub fn write_request_line(out: &mut impl BufMut, method: &[u8], target: &[u8], version: Version) {
    debug_assert!(is_one_line(method) && is_one_line(target));
    out.put_slice(method);
    out.put_slice(b" ");
    out.put_slice(target);
    out.put_slice(b" ");
    out.put_slice(version.as_bytes());
    out.put_slice(b"\r\n");
}

/// `HTTP/1.1 200 OK`; `status` has three digits, `reason` may be empty.
pub fn write_status_line(out: &mut impl BufMut, version: Version, status: u16, reason: &[u8]) {
    debug_assert!((100..=999).contains(&status) && is_one_line(reason));
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    out.put_slice(version.as_bytes());
    out.put_slice(&[b' ', digit(100), digit(10), digit(1), b' ']);
    out.put_slice(reason);
    out.put_slice(b"\r\n");
}

/// `Name: value`, in a head or in trailers.
pub fn write_field(out: &mut impl BufMut, name: &[u8], value: &[u8]) {
    debug_assert!(is_one_line(name) && is_one_line(value));
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// The empty line after the last field of a head, or after the trailers.
pub fn write_end(out: &mut impl BufMut) {
    out.put_slice(b"\r\n");
}

/// The size line of a chunk of `len` bytes. Zero would end the body: that is [`write_last_chunk`].
pub fn write_chunk_head(out: &mut impl BufMut, len: usize) {
    debug_assert!(len > 0);
    const DIGITS: usize = size_of::<usize>() * 2;
    let mut line = [b'0'; DIGITS + 2];
    line[DIGITS..].copy_from_slice(b"\r\n");
    let (mut at, mut left) = (DIGITS, len);
    while left > 0 {
        at -= 1;
        line[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
    }
    out.put_slice(&line[at..]);
}

/// After a chunk's data.
pub fn write_chunk_end(out: &mut impl BufMut) {
    out.put_slice(b"\r\n");
}

/// The end of a chunked body: then trailers by [`write_field`], if any, then [`write_end`].
pub fn write_last_chunk(out: &mut impl BufMut) {
    out.put_slice(b"0\r\n");
}

fn is_one_line(text: &[u8]) -> bool {
    memchr::memchr2(b'\r', b'\n', text).is_none()
}
