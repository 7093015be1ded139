//! Heads as the bytes of HTTP/1.1: responses to a client, requests to a program.

use super::{ResponseRef, StreamRequest, WEFT_REASON, WEFT_UPGRADE, upgrade};
use crate::{case::Case, websocket};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    response,
    uri::Authority,
};
use proxy_h1::{BodyLength, RequestHead, ResponseHead, Version};

/// How a response goes to a client that speaks HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFraming {
    pub version: Version,
    /// The client lets us keep the connection.
    pub keep_alive: bool,
    /// The request's method was HEAD: no body, whatever the fields say.
    pub head: bool,
}

/// What follows a response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    pub chunked: bool,
    /// Another request may come on the connection.
    pub keep_alive: bool,
}

impl ClientFraming {
    pub fn of(head: &RequestHead) -> Self {
        let method = head.method();
        Self { version: head.version(), keep_alive: head.keep_alive(), head: method == "HEAD" }
    }

    /// The connection ends with this response, if `last`.
    pub fn last_if(self, last: bool) -> Self {
        Self { keep_alive: self.keep_alive && !last, ..self }
    }

    /// For a response with this status; `length`: Content-Length is among its fields.
    fn following(self, status: u16, length: bool) -> Following {
        let bodiless = self.head || matches!(status, 100..=199 | 204 | 304);
        let chunked = !bodiless && !length && self.version == Version::Http11;
        let until_close = !bodiless && !length && !chunked;
        Following { chunked, keep_alive: self.keep_alive && !until_close }
    }

    fn write_framing(self, out: &mut Vec<u8>, following: Following, case: &Case<'_>) {
        if following.chunked {
            case.write(out, &TRANSFER_ENCODING, b"chunked");
        }
        match (following.keep_alive, self.version) {
            (false, Version::Http11) => case.write(out, &CONNECTION, b"close"),
            (true, Version::Http10) => case.write(out, &CONNECTION, b"keep-alive"),
            _ => {}
        }
        proxy_h1::write_end(out);
    }

    /// Writes a response's head; `body`: what follows it, where the response says so.
    pub fn write_response(self, out: &mut Vec<u8>, head: &ResponseRef<'_>, body: BodyLength) -> Following {
        match head {
            ResponseRef::Http1(head, method) => self.write_plain_response(out, head, method, body),
            ResponseRef::Http2(parts) => self.write_stream_response(out, parts),
        }
    }

    /// Writes the head of a stream's response.
    fn write_stream_response(self, out: &mut Vec<u8>, parts: &response::Parts) -> Following {
        let following = self.following(parts.status.as_u16(), parts.headers.contains_key(CONTENT_LENGTH));
        let case = Case::of(&parts.headers);
        write_status(out, parts.status, parts.headers.get(WEFT_REASON).map(HeaderValue::as_bytes));
        write_fields(out, &parts.headers, &case, &[]);
        self.write_framing(out, following, &case);
        following
    }

    /// Writes the head of a plain connection's response.
    fn write_plain_response(
        self,
        out: &mut Vec<u8>,
        head: &ResponseHead,
        method: &str,
        body: BodyLength,
    ) -> Following {
        let length = head.end_to_end(method).any(|field| field.name.eq_ignore_ascii_case(b"content-length"));
        let mut following = self.following(head.status(), length);
        following.keep_alive &= body != BodyLength::UntilClose || following.chunked;
        proxy_h1::write_status_line(out, Version::Http11, head.status(), head.reason());
        for field in head.end_to_end(method) {
            proxy_h1::write_field(out, field.name, field.value);
        }
        self.write_framing(out, following, &Case::TITLE);
        following
    }
}

/// Writes an interim response (1xx), or the head of a response that opens a CONNECT's tunnel.
pub(crate) fn write_interim(out: &mut Vec<u8>, head: &ResponseRef<'_>) {
    match head {
        ResponseRef::Http1(head, method) => {
            proxy_h1::write_status_line(out, Version::Http11, head.status(), head.reason());
            for field in head.end_to_end(method) {
                proxy_h1::write_field(out, field.name, field.value);
            }
        }
        ResponseRef::Http2(parts) => {
            write_status(out, parts.status, parts.headers.get(WEFT_REASON).map(HeaderValue::as_bytes));
            write_fields(out, &parts.headers, &Case::of(&parts.headers), &[]);
        }
    }
    proxy_h1::write_end(out);
}

/// Writes the 101 of an accepted upgrade.
pub(crate) fn write_switching(out: &mut Vec<u8>, head: &ResponseRef<'_>) {
    match head {
        ResponseRef::Http1(head, method) => {
            proxy_h1::write_status_line(out, Version::Http11, head.status(), head.reason());
            for field in head.end_to_end(method) {
                proxy_h1::write_field(out, field.name, field.value);
            }
            proxy_h1::write_field(out, b"Connection", b"Upgrade");
            proxy_h1::write_field(out, b"Upgrade", head.upgrade().unwrap_or_default());
        }
        ResponseRef::Http2(parts) => {
            let case = Case::of(&parts.headers);
            let reason = parts.headers.get(WEFT_REASON).map(HeaderValue::as_bytes);
            write_status(out, StatusCode::SWITCHING_PROTOCOLS, reason);
            write_fields(out, &parts.headers, &case, &[]);
            case.write(out, &CONNECTION, b"Upgrade");
            let protocol = parts.headers.get(WEFT_UPGRADE).map(HeaderValue::as_bytes);
            case.write(out, &UPGRADE, protocol.unwrap_or(websocket::PROTOCOL.as_bytes()));
        }
    }
    proxy_h1::write_end(out);
}

impl StreamRequest {
    /// Writes the head to an HTTP/1 program; `ended` says that no body follows. True when the body is to be chunked.
    /// `key`: of a WebSocket whose client has none.
    pub(super) fn write(&self, out: &mut Vec<u8>, ended: bool, key: Option<&str>) -> bool {
        let headers = &self.parts.headers;
        let version = if self.version == http::Version::HTTP_10 { Version::Http10 } else { Version::Http11 };
        let method = if self.upgrade.is_some() && key.is_some() { "GET" } else { self.method.as_str() };
        let authority = self
            .parts
            .uri
            .authority()
            .map(Authority::as_str)
            .filter(|_| self.version == http::Version::HTTP_2);
        let target = match authority {
            // RFC 9110 §9.3.6: a CONNECT's target is the authority.
            Some(authority) if method == "CONNECT" => authority.as_bytes(),
            _ => self.path(),
        };
        proxy_h1::write_request_line(out, method.as_bytes(), target, version);
        let case = Case::of(headers);
        if let Some(authority) = authority
            && !headers.contains_key(HOST)
        {
            case.write(out, &HOST, authority.as_bytes());
        }
        if self.version == http::Version::HTTP_2 {
            write_fields(out, headers, &case, &[TE, COOKIE]);
            // HTTP/2 clients may cut it into pieces (RFC 9113 §8.2.3).
            let pieces: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
            if !pieces.is_empty() {
                case.write(out, &COOKIE, &pieces.join(&b"; "[..]));
            }
        } else {
            // `TE` belongs to this hop.
            write_fields(out, headers, &case, &[TE]);
        }
        if headers.contains_key(TE) {
            case.write(out, &TE, b"trailers");
            if self.upgrade.is_none() {
                case.write(out, &CONNECTION, b"TE");
            }
        }
        if let Some(protocol) = &self.upgrade {
            case.write(out, &CONNECTION, b"Upgrade");
            case.write(out, &UPGRADE, protocol.as_str().as_bytes());
            if let Some(key) = key {
                case.write(out, &websocket::KEY, key.as_bytes());
            }
        }
        let chunked = !ended && self.upgrade.is_none() && !headers.contains_key(CONTENT_LENGTH);
        if chunked && self.method != Method::CONNECT {
            case.write(out, &TRANSFER_ENCODING, b"chunked");
        }
        proxy_h1::write_end(out);
        chunked
    }
}

/// Writes an HTTP/1 client's request to a plain connection.
pub(super) fn write_request(out: &mut Vec<u8>, head: &RequestHead, body: BodyLength) {
    proxy_h1::write_request_line(out, head.method().as_bytes(), head.target(), head.version());
    for field in head.fields().end_to_end() {
        proxy_h1::write_field(out, field.name, field.value);
    }
    if head.fields().accepts_trailers() {
        proxy_h1::write_field(out, b"TE", b"trailers");
    }
    match upgrade(head, body) {
        Some(protocol) => {
            proxy_h1::write_field(out, b"Connection", b"Upgrade");
            proxy_h1::write_field(out, b"Upgrade", protocol);
        }
        None if head.fields().accepts_trailers() => proxy_h1::write_field(out, b"Connection", b"TE"),
        None => {}
    }
    if is_chunked(head, body) {
        proxy_h1::write_field(out, b"Transfer-Encoding", b"chunked");
    }
    proxy_h1::write_end(out);
}

/// What follows a CONNECT is no body (RFC 9110 §9.3.6).
pub(super) fn is_chunked(head: &RequestHead, body: BodyLength) -> bool {
    body == BodyLength::Chunked && head.method() != "CONNECT"
}

fn write_status(out: &mut Vec<u8>, status: StatusCode, reason: Option<&[u8]>) {
    let usual = status.canonical_reason().unwrap_or_default().as_bytes();
    proxy_h1::write_status_line(out, Version::Http11, status.as_u16(), reason.unwrap_or(usual));
}

/// All fields but the wire's own and those to skip. `Connection`-like ones never cross the wire.
fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap, case: &Case<'_>, skip: &[HeaderName]) {
    for (name, value) in headers {
        if name.as_str().starts_with("weft-") || skip.contains(name) {
            continue;
        }
        case.write(out, name, value.as_bytes());
    }
}
