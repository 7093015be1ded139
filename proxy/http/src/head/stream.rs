//! Heads as those of streams of HTTP/2: to a peer proxy, and to a program.

use super::{StreamRequest, WEFT_HTTP, WEFT_METHOD, WEFT_REASON, WEFT_TARGET, WEFT_UPGRADE, strip, upgrade};
use crate::{
    case::{WEFT_CASE, case_of},
    websocket,
};
use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{HOST, TE},
    uri::{Authority, PathAndQuery, Scheme},
};
use proxy_h1::{BodyLength, Field, RequestHead, ResponseHead, TargetForm, Version};

/// A request of an HTTP/1 client as the head of a stream to a peer proxy.
pub(super) fn wire_request(head: &RequestHead, body: BodyLength) -> Request<()> {
    let mut request = Request::new(());
    let upgrade = upgrade(head, body);
    let mut headers = to_map(head.fields().end_to_end());
    let method = Method::from_bytes(head.method().as_bytes()).expect("a parsed method is a token");
    set_target(&mut request, &mut headers, head);
    if let Some(protocol) = upgrade {
        if method != Method::GET {
            headers.insert(WEFT_METHOD, HeaderValue::from_str(method.as_str()).expect("a token is a value"));
        }
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from(String::from_utf8_lossy(protocol).as_ref()));
    } else {
        *request.method_mut() = method;
    }
    let version = if head.version() == Version::Http10 { "1.0" } else { "1.1" };
    headers.insert(WEFT_HTTP, HeaderValue::from_static(version));
    if head.fields().accepts_trailers() {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(case) = case_of(head.fields().end_to_end()) {
        headers.insert(WEFT_CASE, case);
    }
    *request.headers_mut() = headers;
    request
}

/// The target travels as `:path` (origin form) with Host beside it; what does not fit there as `weft-target`.
fn set_target(request: &mut Request<()>, headers: &mut HeaderMap, head: &RequestHead) {
    let uri = match head.target_form() {
        TargetForm::Origin => Uri::from_maybe_shared(head.target_bytes()).ok(),
        TargetForm::Absolute => {
            // RFC 9112 §3.2.2: Host is what the target says. An origin server gets origin form (§3.2.1).
            let authority = HeaderValue::from_bytes(head.authority()).expect("a parsed authority is a value");
            headers.insert(HOST, authority);
            Uri::try_from(origin_form(head)).ok()
        }
        TargetForm::Authority | TargetForm::Asterisk => None,
    };
    let uri = uri.unwrap_or_else(|| {
        let target = match head.target_form() {
            TargetForm::Absolute => origin_form(head).into(),
            _ => head.target_bytes(),
        };
        let target = HeaderValue::from_maybe_shared(target).expect("a parsed target is a value");
        headers.insert(WEFT_TARGET, target);
        if head.target_form() == TargetForm::Authority {
            Uri::from_static("connect.invalid:1")
        } else {
            Uri::from_static("/")
        }
    });
    *request.uri_mut() = uri;
}

/// What an absolute target is to its origin server: path and query, of which the path is never empty (RFC 9112 §3.2.1).
pub(super) fn origin_form(head: &RequestHead) -> Vec<u8> {
    let target = head.target();
    let scheme = target.iter().position(|byte| *byte == b':').unwrap_or_default();
    let path = target.get(scheme + "://".len() + head.authority().len()..).unwrap_or_default();
    let slash = if path.starts_with(b"/") { &b""[..] } else { b"/" };
    [slash, path].concat()
}

/// A request of an HTTP/1 client as the head of a stream to a program.
pub(super) fn program_request(head: &RequestHead, body: BodyLength) -> Request<()> {
    let mut request = Request::new(());
    *request.headers_mut() = to_map(head.fields().end_to_end());
    if head.target_form() == TargetForm::Absolute {
        // RFC 9112 §3.2.2: Host is what the target says.
        let authority = HeaderValue::from_bytes(head.authority()).expect("a parsed authority is a value");
        request.headers_mut().insert(HOST, authority);
    }
    *request.method_mut() = Method::from_bytes(head.method().as_bytes()).expect("a parsed method is a token");
    let path = match head.target_form() {
        TargetForm::Absolute => origin_form(head),
        _ => head.target().to_vec(),
    };
    *request.uri_mut() = program_uri(request.method(), head.authority(), &path);
    if head.fields().accepts_trailers() {
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    }
    for_program(&mut request, upgrade(head, body));
    request
}

/// The target for a program: `:authority` is what Host said (RFC 9113 §8.3.1).
fn program_uri(method: &Method, authority: &[u8], path: &[u8]) -> Uri {
    let authority = Authority::try_from(authority).ok();
    if let (Some(authority), &Method::CONNECT) = (&authority, method) {
        return Uri::from(authority.clone());
    }
    let path = PathAndQuery::try_from(path)
        .or_else(|_| PathAndQuery::try_from(escaped(path)))
        .unwrap_or_else(|_| PathAndQuery::from_static("/"));
    match authority {
        Some(authority) => Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(authority)
            .path_and_query(path)
            .build()
            .expect("all three parts are there"),
        None => Uri::from(path),
    }
}

/// With what no target may contain (RFC 3986 §2) percent-encoded: programs differ in what they take of it.
pub(super) fn escaped(target: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(target.len() + 16);
    for byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            byte => escaped.push(*byte),
        }
    }
    escaped
}

/// What changes between an HTTP/1.1 client and an HTTP/2 program: Host is in the target, and of upgrades only WebSocket's exists
/// there; any other may be left out (RFC 9110 §7.8).
fn for_program(request: &mut Request<()>, upgrade: Option<&[u8]>) {
    if request.uri().authority().is_some() {
        request.headers_mut().remove(HOST);
    }
    if upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case(websocket::PROTOCOL.as_bytes())) {
        *request.method_mut() = Method::CONNECT;
        request.headers_mut().remove(websocket::KEY);
        request.extensions_mut().insert(Protocol::from_static(websocket::PROTOCOL));
    }
}

impl StreamRequest {
    /// As the head of a stream to a peer proxy: of a client that speaks HTTP/2, or of another one's that was changed, which says so.
    pub(super) fn to_wire(&self) -> Request<()> {
        let mut request = self.copy(self.parts.uri.clone());
        if self.version == http::Version::HTTP_2 {
            request.headers_mut().insert(WEFT_HTTP, HeaderValue::from_static("2"));
        }
        if let Some(protocol) = &self.upgrade {
            request.extensions_mut().insert(protocol.clone());
        }
        request
    }

    /// As the head of a stream to a program.
    pub(super) fn to_program(&self) -> Request<()> {
        if self.version == http::Version::HTTP_2 {
            let mut request = self.copy(self.parts.uri.clone());
            if let Some(protocol) = &self.upgrade {
                request.extensions_mut().insert(protocol.clone());
            }
            strip(request.headers_mut());
            return request;
        }
        let authority = match self.method {
            // Whatever Host says (RFC 9112 §3.2.3).
            Method::CONNECT => self.path(),
            _ => self.parts.headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default(),
        };
        let mut request = self.copy(program_uri(&self.method, authority, self.path()));
        *request.method_mut() = self.method.clone();
        strip(request.headers_mut());
        for_program(&mut request, self.upgrade.as_ref().map(|protocol| protocol.as_str().as_bytes()));
        request
    }

    fn copy(&self, uri: Uri) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.parts.headers.clone();
        request
    }
}

/// A response of an HTTP/1 program as the head of a stream. `upgraded`: it accepts the upgrade that was asked for.
pub(super) fn stream_response(head: &ResponseHead, method: &str, wire: bool, upgraded: bool) -> Response<()> {
    let mut response = Response::new(());
    let mut headers = to_map(head.end_to_end(method));
    let status = StatusCode::from_u16(head.status()).expect("a parsed status has three digits");
    *response.status_mut() = if upgraded { StatusCode::OK } else { status };
    if upgraded && wire {
        let protocol = head.upgrade().and_then(|protocol| HeaderValue::from_bytes(protocol).ok());
        headers.insert(WEFT_UPGRADE, protocol.unwrap_or_else(|| HeaderValue::from_static("")));
    } else if upgraded {
        headers.remove(websocket::ACCEPT);
    }
    if wire {
        if head.reason() != status.canonical_reason().unwrap_or_default().as_bytes()
            && let Ok(reason) = HeaderValue::from_bytes(head.reason())
        {
            headers.insert(WEFT_REASON, reason);
        }
        if let Some(case) = case_of(head.end_to_end(method)) {
            headers.insert(WEFT_CASE, case);
        }
    }
    *response.headers_mut() = headers;
    response
}

/// Field lines as a map; the values share the head's bytes.
pub(crate) fn to_map<'a>(fields: impl Iterator<Item = Field<'a>>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(16);
    for field in fields {
        let name = HeaderName::from_bytes(field.name).expect("a parsed name is a token");
        let value = HeaderValue::from_maybe_shared(field.value_bytes())
            .expect("a parsed value has no control character");
        map.append(name, value);
    }
    map
}
