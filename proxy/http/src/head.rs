//! Message heads between HTTP/1.1 and the wire `weft/1`, both ways, with nothing lost that an application could see.
//!
//! | field | says | absent |
//! |---|---|---|
//! | `weft-http` | the version that the client speaks: `1.0`, `1.1` | the stream carries a TCP connection |
//! | `weft-case` | `t` for Title-Case or `l` for lower case, then `;` and the names that differ, as they were | all lower case |
//! | `weft-target` | the request-target, where `:path` cannot say it | it is `:path` |
//! | `weft-method` | the method of a request to upgrade | GET |
//! | `weft-upgrade` | on a response: the upgrade is accepted, to this protocol | not accepted |
//! | `weft-reason` | the reason phrase, where it is not the usual one | the usual one |
//!
//! None of them is believed from an application, and none reaches one: `proxy-h1` drops every `weft-*` of a message, and
//! here only the fields named above are read, from a connection whose peer is verified.

use bytes::Bytes;
use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    request, response,
};
use proxy_h1::{BodyLength, Field, RequestHead, ResponseHead, TargetForm, Version};

const WEFT_HTTP: HeaderName = HeaderName::from_static("weft-http");
const WEFT_CASE: HeaderName = HeaderName::from_static("weft-case");
const WEFT_TARGET: HeaderName = HeaderName::from_static("weft-target");
const WEFT_METHOD: HeaderName = HeaderName::from_static("weft-method");
const WEFT_UPGRADE: HeaderName = HeaderName::from_static("weft-upgrade");
const WEFT_REASON: HeaderName = HeaderName::from_static("weft-reason");

/// The protocols that a request asks to change to, unless it has a body: that would have to arrive before the change
/// (RFC 9110 §7.8), and programs that ask so, as some do on any first request, mean it as an offer.
pub fn upgrade(head: &RequestHead, body: BodyLength) -> Option<&[u8]> {
    head.upgrade().filter(|_| matches!(body, BodyLength::None | BodyLength::Fixed(0)))
}

/// A request of a client as the head of a stream.
pub fn to_stream_request(head: &RequestHead, body: BodyLength) -> Request<()> {
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
            Uri::from_maybe_shared(head.target_bytes())
                .ok()
                .and_then(|uri| Uri::try_from(uri.path_and_query().map_or("/", |path| path.as_str())).ok())
        }
        TargetForm::Authority | TargetForm::Asterisk => None,
    };
    let uri = uri.unwrap_or_else(|| {
        let target = HeaderValue::from_maybe_shared(head.target_bytes()).expect("a parsed target is a value");
        headers.insert(WEFT_TARGET, target);
        if head.target_form() == TargetForm::Authority {
            Uri::from_static("connect.invalid:1")
        } else {
            Uri::from_static("/")
        }
    });
    *request.uri_mut() = uri;
}

/// A response of an application as the head of a stream. `upgraded`: it accepts the upgrade that was asked for.
pub fn to_stream_response(head: &ResponseHead, method: &str, upgraded: bool) -> Response<()> {
    let mut response = Response::new(());
    let mut headers = to_map(head.end_to_end(method));
    let status = StatusCode::from_u16(head.status()).expect("a parsed status has three digits");
    if upgraded {
        let protocol = head.upgrade().and_then(|protocol| HeaderValue::from_bytes(protocol).ok());
        headers.insert(WEFT_UPGRADE, protocol.unwrap_or_else(|| HeaderValue::from_static("")));
        *response.status_mut() = StatusCode::OK;
    } else {
        *response.status_mut() = status;
    }
    if head.reason() != status.canonical_reason().unwrap_or_default().as_bytes()
        && let Ok(reason) = HeaderValue::from_bytes(head.reason())
    {
        headers.insert(WEFT_REASON, reason);
    }
    if let Some(case) = case_of(head.end_to_end(method)) {
        headers.insert(WEFT_CASE, case);
    }
    *response.headers_mut() = headers;
    response
}

/// Field lines as a map; the values share the head's bytes.
pub fn to_map<'a>(fields: impl Iterator<Item = Field<'a>>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(16);
    for field in fields {
        let name = HeaderName::from_bytes(field.name).expect("a parsed name is a token");
        let value = HeaderValue::from_maybe_shared(field.value_bytes())
            .expect("a parsed value has no control character");
        map.append(name, value);
    }
    map
}

/// A request from a stream, as it is to be written to an HTTP/1.1 application.
pub struct StreamRequest {
    pub parts: request::Parts,
    pub version: Version,
    /// The method as the client said it, also where the stream's is CONNECT for an upgrade.
    pub method: Method,
    /// The protocol to upgrade to.
    pub upgrade: Option<Protocol>,
}

impl StreamRequest {
    /// `Err` gives the request back: it carries a TCP connection.
    pub fn new(mut parts: request::Parts) -> Result<Self, Box<request::Parts>> {
        let version = match parts.headers.get(WEFT_HTTP).map(HeaderValue::as_bytes) {
            None => return Err(Box::new(parts)),
            Some(b"1.0") => Version::Http10,
            Some(_) => Version::Http11,
        };
        let upgrade = parts.extensions.remove::<Protocol>();
        let method = match (&upgrade, parts.headers.get(WEFT_METHOD)) {
            (None, _) => parts.method.clone(),
            (Some(_), None) => Method::GET,
            (Some(_), Some(method)) => Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET),
        };
        Ok(Self { parts, version, method, upgrade })
    }

    /// Writes the head; `ended` says that no body follows. True when the body is to be chunked.
    pub fn write(&self, out: &mut Vec<u8>, ended: bool) -> bool {
        let headers = &self.parts.headers;
        let path = self.parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let target = headers.get(WEFT_TARGET).map_or(path.as_bytes(), HeaderValue::as_bytes);
        proxy_h1::write_request_line(out, self.method.as_str().as_bytes(), target, self.version);
        let case = Case::of(headers);
        write_fields(out, headers, &case, false);
        if headers.contains_key(TE) {
            case.write(out, &TE, b"trailers");
            if self.upgrade.is_none() {
                case.write(out, &CONNECTION, b"TE");
            }
        }
        if let Some(protocol) = &self.upgrade {
            case.write(out, &CONNECTION, b"Upgrade");
            case.write(out, &UPGRADE, protocol.as_str().as_bytes());
        }
        let chunked = !ended && self.upgrade.is_none() && !headers.contains_key(CONTENT_LENGTH);
        if chunked && self.method != Method::CONNECT {
            case.write(out, &TRANSFER_ENCODING, b"chunked");
        }
        proxy_h1::write_end(out);
        chunked
    }
}

/// How a response goes to a client that speaks HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFraming {
    pub version: Version,
    /// The client lets us keep the connection.
    pub keep_alive: bool,
    /// The request asks for a tunnel: 2xx opens it.
    pub connect: bool,
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
        Self {
            version: head.version(),
            keep_alive: head.keep_alive(),
            connect: method == "CONNECT",
            head: method == "HEAD",
        }
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

    /// Writes the head of a stream's response.
    pub fn write_stream_response(self, out: &mut Vec<u8>, parts: &response::Parts) -> Following {
        let following = self.following(parts.status.as_u16(), parts.headers.contains_key(CONTENT_LENGTH));
        let case = Case::of(&parts.headers);
        write_status(out, parts.status, parts.headers.get(WEFT_REASON).map(HeaderValue::as_bytes));
        write_fields(out, &parts.headers, &case, true);
        self.write_framing(out, following, &case);
        following
    }

    /// Writes the head of a plain connection's response.
    pub fn write_response(
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

/// Writes an interim response of a stream (1xx).
pub fn write_stream_interim(out: &mut Vec<u8>, parts: &response::Parts) {
    write_status(out, parts.status, parts.headers.get(WEFT_REASON).map(HeaderValue::as_bytes));
    write_fields(out, &parts.headers, &Case::of(&parts.headers), true);
    proxy_h1::write_end(out);
}

/// Writes an interim response, or the 101 that accepts an upgrade, of a plain connection.
pub fn write_interim(out: &mut Vec<u8>, head: &ResponseHead, method: &str) {
    proxy_h1::write_status_line(out, Version::Http11, head.status(), head.reason());
    for field in head.end_to_end(method) {
        proxy_h1::write_field(out, field.name, field.value);
    }
    if head.status() == 101 {
        proxy_h1::write_field(out, b"Connection", b"Upgrade");
        proxy_h1::write_field(out, b"Upgrade", head.upgrade().unwrap_or_default());
    }
    proxy_h1::write_end(out);
}

/// Is the upgrade accepted by this response of a stream, and to which protocol?
pub fn accepted_upgrade(parts: &response::Parts) -> Option<&HeaderValue> {
    parts.headers.get(WEFT_UPGRADE)
}

/// Writes the 101 of an accepted upgrade from its stream's response.
pub fn write_switching(out: &mut Vec<u8>, parts: &response::Parts, protocol: &HeaderValue) {
    let case = Case::of(&parts.headers);
    write_status(
        out,
        StatusCode::SWITCHING_PROTOCOLS,
        parts.headers.get(WEFT_REASON).map(HeaderValue::as_bytes),
    );
    write_fields(out, &parts.headers, &case, true);
    case.write(out, &CONNECTION, b"Upgrade");
    case.write(out, &UPGRADE, protocol.as_bytes());
    proxy_h1::write_end(out);
}

/// Writes a client's request to a plain connection.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead, body: BodyLength) {
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
    if body == BodyLength::Chunked {
        proxy_h1::write_field(out, b"Transfer-Encoding", b"chunked");
    }
    proxy_h1::write_end(out);
}

fn write_status(out: &mut Vec<u8>, status: StatusCode, reason: Option<&[u8]>) {
    let usual = status.canonical_reason().unwrap_or_default().as_bytes();
    proxy_h1::write_status_line(out, Version::Http11, status.as_u16(), reason.unwrap_or(usual));
}

/// All fields but the wire's own, and `TE`, which belongs to this hop. `Connection`-like ones never cross the wire.
fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap, case: &Case<'_>, response: bool) {
    for (name, value) in headers {
        if name.as_str().starts_with("weft-") || (!response && name == TE) {
            continue;
        }
        case.write(out, name, value.as_bytes());
    }
}

/// How the names of a message were written. Nothing for lower case, as in most programs' own HTTP/2.
fn case_of<'a>(fields: impl Iterator<Item = Field<'a>> + Clone) -> Option<HeaderValue> {
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
struct Case<'a> {
    title: bool,
    odd: &'a [u8],
}

impl<'a> Case<'a> {
    const TITLE: Case<'static> = Case { title: true, odd: b"" };

    fn of(headers: &'a HeaderMap) -> Self {
        let text = headers.get(WEFT_CASE).map_or(&b""[..], HeaderValue::as_bytes);
        let (first, odd) = text.split_first().unwrap_or((&b'l', b""));
        Self { title: *first == b't', odd: odd.get(1..).unwrap_or_default() }
    }

    fn write(&self, out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
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
