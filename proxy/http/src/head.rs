//! Message heads between HTTP/1.1 and HTTP/2, the wire `weft/1` included, each way, with nothing lost that an application could
//! see.
//!
//! | field | says | absent |
//! |---|---|---|
//! | `weft-http` | the version that the client speaks: `1.0`, `1.1`, `2` | the stream carries a TCP connection |
//! | `weft-case` | `t` for Title-Case or `l` for lower case, then `;` and the names that differ, as they were | all lower case |
//! | `weft-target` | the request-target, where `:path` cannot say it | it is `:path` |
//! | `weft-method` | the method of a request to upgrade | GET |
//! | `weft-upgrade` | on a response: the upgrade is accepted, to this protocol | not accepted |
//! | `weft-reason` | the reason phrase, where it is not the usual one | the usual one |
//! | `weft-untouched` | on a response of the peer proxy itself: why, and that nothing of the request has reached the application | it may have |
//!
//! None of them is believed from an application, and none reaches one: `proxy-h1` drops every `weft-*` of a message, HTTP/2's
//! are dropped here, and only the fields named above are read, from a connection whose peer is verified.

use crate::{
    case::{Case, WEFT_CASE, case_of},
    failed::Failed,
    websocket,
};
use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    request, response,
    uri::{Authority, PathAndQuery, Scheme},
};
use policy::Reason;
use proxy_h1::{BodyLength, Field, RequestHead, ResponseHead, TargetForm, Version};

const WEFT_HTTP: HeaderName = HeaderName::from_static("weft-http");
const WEFT_TARGET: HeaderName = HeaderName::from_static("weft-target");
const WEFT_METHOD: HeaderName = HeaderName::from_static("weft-method");
const WEFT_UPGRADE: HeaderName = HeaderName::from_static("weft-upgrade");
const WEFT_REASON: HeaderName = HeaderName::from_static("weft-reason");
const WEFT_UNTOUCHED: HeaderName = HeaderName::from_static("weft-untouched");

/// A request's head, as it came.
#[derive(Clone, Copy)]
pub enum RequestRef<'a> {
    Http1(&'a RequestHead, BodyLength),
    Http2(&'a StreamRequest),
}

/// A response's head, as it came. Of HTTP/2's the fields may be taken.
pub enum ResponseRef<'a> {
    /// With the method that it answers.
    Http1(&'a ResponseHead, &'a str),
    Http2(&'a mut response::Parts),
}

/// The protocols that a request asks to change to, unless it has a body: that would have to arrive before the change
/// (RFC 9110 §7.8), and programs that ask so, as some do on any first request, mean it as an offer.
pub(crate) fn upgrade(head: &RequestHead, body: BodyLength) -> Option<&[u8]> {
    // Protocols are tokens; what is none of them cannot travel as `:protocol`.
    head.upgrade()
        .filter(|protocol| protocol.is_ascii() && matches!(body, BodyLength::None | BodyLength::Fixed(0)))
}

/// A request of an HTTP/1 client as the head of a stream to a peer proxy.
fn wire_request(head: &RequestHead, body: BodyLength) -> Request<()> {
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
fn origin_form(head: &RequestHead) -> Vec<u8> {
    let target = head.target();
    let scheme = target.iter().position(|byte| *byte == b':').unwrap_or_default();
    let path = target.get(scheme + "://".len() + head.authority().len()..).unwrap_or_default();
    let slash = if path.starts_with(b"/") { &b""[..] } else { b"/" };
    [slash, path].concat()
}

/// A response of an HTTP/1 program as the head of a stream. `upgraded`: it accepts the upgrade that was asked for.
fn stream_response(head: &ResponseHead, method: &str, wire: bool, upgraded: bool) -> Response<()> {
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

/// A request that came as a stream: from a peer proxy, or from a program that speaks HTTP/2.
pub struct StreamRequest {
    pub parts: request::Parts,
    /// What the client speaks.
    pub version: http::Version,
    /// The method as the client said it, also where the stream's is CONNECT for an upgrade.
    pub method: Method,
    /// The protocol to upgrade to.
    pub upgrade: Option<Protocol>,
    /// It came from a peer proxy.
    pub wire: bool,
}

impl StreamRequest {
    /// Of a peer proxy. `Err` gives the request back: it carries a TCP connection.
    pub fn wire(mut parts: request::Parts) -> Result<Self, Box<request::Parts>> {
        let version = match parts.headers.get(WEFT_HTTP).map(HeaderValue::as_bytes) {
            None => return Err(Box::new(parts)),
            Some(b"1.0") => http::Version::HTTP_10,
            Some(b"2") => http::Version::HTTP_2,
            Some(_) => http::Version::HTTP_11,
        };
        let upgrade = parts.extensions.remove::<Protocol>();
        let method = match (&upgrade, parts.headers.get(WEFT_METHOD)) {
            (None, _) => parts.method.clone(),
            (Some(_), None) => Method::GET,
            (Some(_), Some(method)) => Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET),
        };
        Ok(Self { parts, version, method, upgrade, wire: true })
    }

    /// Of a program.
    pub fn program(mut parts: request::Parts) -> Self {
        let upgrade = parts.extensions.remove::<Protocol>();
        let method = parts.method.clone();
        strip(&mut parts.headers);
        Self { parts, version: http::Version::HTTP_2, method, upgrade, wire: false }
    }

    /// Bytes that are no message will follow, if the other side agrees.
    pub fn opens_tunnel(&self) -> bool {
        self.upgrade.is_some() || self.method == Method::CONNECT
    }

    pub(crate) fn path(&self) -> &[u8] {
        let path = self.parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        self.parts.headers.get(WEFT_TARGET).map_or(path.as_bytes(), HeaderValue::as_bytes)
    }

    /// Writes the head to an HTTP/1 program; `ended` says that no body follows. True when the body is to be chunked.
    /// `key`: of a WebSocket whose client has none.
    fn write(&self, out: &mut Vec<u8>, ended: bool, key: Option<&str>) -> bool {
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

    /// As the head of a stream to a peer proxy, of a client that speaks HTTP/2.
    fn to_wire(&self) -> Request<()> {
        let mut request = self.copy(self.parts.uri.clone());
        request.headers_mut().insert(WEFT_HTTP, HeaderValue::from_static("2"));
        if let Some(protocol) = &self.upgrade {
            request.extensions_mut().insert(protocol.clone());
        }
        request
    }

    /// As the head of a stream to a program.
    fn to_program(&self) -> Request<()> {
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

impl<'a> RequestRef<'a> {
    pub(crate) fn method(self) -> &'a str {
        match self {
            Self::Http1(head, _) => head.method(),
            Self::Http2(request) => request.method.as_str(),
        }
    }

    pub(crate) fn version(self) -> http::Version {
        match self {
            Self::Http1(head, _) if head.version() == Version::Http10 => http::Version::HTTP_10,
            Self::Http1(..) => http::Version::HTTP_11,
            Self::Http2(request) => request.version,
        }
    }

    /// The value of the first field of this name.
    pub(crate) fn field(self, name: &HeaderName) -> Option<&'a [u8]> {
        match self {
            Self::Http1(head, _) => head.fields().first(name.as_str()),
            Self::Http2(request) => request.parts.headers.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// Bytes that are no message will follow, if the other side agrees.
    pub(crate) fn opens_tunnel(self) -> bool {
        match self {
            Self::Http1(head, body) => upgrade(head, body).is_some() || head.method() == "CONNECT",
            Self::Http2(request) => request.opens_tunnel(),
        }
    }

    /// A WebSocket is asked for.
    pub(crate) fn is_websocket(self) -> bool {
        self.upgrade().is_some_and(|protocol| protocol.eq_ignore_ascii_case(websocket::PROTOCOL.as_bytes()))
    }

    /// The protocol that it asks to change to.
    pub(crate) fn upgrade(self) -> Option<&'a [u8]> {
        match self {
            Self::Http1(head, body) => upgrade(head, body),
            Self::Http2(request) => request.upgrade.as_ref().map(|protocol| protocol.as_str().as_bytes()),
        }
    }

    /// Writes the head to an HTTP/1 program; `ended` says that no body follows. True when the body is to be chunked.
    pub fn write(self, out: &mut Vec<u8>, ended: bool, key: Option<&str>) -> bool {
        match self {
            Self::Http1(head, body) => {
                write_request(out, head, body);
                is_chunked(head, body)
            }
            Self::Http2(request) => request.write(out, ended, key),
        }
    }

    /// As the head of a stream, to a peer proxy (`wire`) or to a program.
    pub fn to_stream(self, wire: bool) -> Request<()> {
        match (self, wire) {
            (Self::Http1(head, body), true) => wire_request(head, body),
            (Self::Http1(head, body), false) => program_request(head, body),
            (Self::Http2(request), true) => request.to_wire(),
            (Self::Http2(request), false) => request.to_program(),
        }
    }
}

impl ResponseRef<'_> {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Http1(head, _) => head.status(),
            Self::Http2(parts) => parts.status.as_u16(),
        }
    }

    /// Does it accept the upgrade that was asked for? On a stream of a peer proxy a field says so, on a program's the status.
    pub(crate) fn upgrades(&self, wire: bool) -> bool {
        match self {
            Self::Http1(head, _) => head.status() == 101,
            Self::Http2(parts) if wire => parts.headers.contains_key(WEFT_UPGRADE),
            Self::Http2(parts) => parts.status.is_success(),
        }
    }

    pub(crate) fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        match self {
            Self::Http1(head, _) => head.fields().first(name.as_str()),
            Self::Http2(parts) => parts.headers.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// As the head of a stream, to a peer proxy (`wire`) or to a program. `upgraded`: the protocol it accepts to change to.
    pub fn into_stream(self, wire: bool, upgraded: Option<&str>) -> Response<()> {
        match self {
            Self::Http1(head, method) => stream_response(head, method, wire, upgraded.is_some()),
            Self::Http2(parts) => {
                let mut response = Response::new(());
                *response.status_mut() = parts.status;
                *response.headers_mut() = std::mem::take(&mut parts.headers);
                strip(response.headers_mut());
                match upgraded.map(HeaderValue::from_str) {
                    Some(Ok(protocol)) if wire => _ = response.headers_mut().insert(WEFT_UPGRADE, protocol),
                    Some(_) if !wire => _ = response.headers_mut().remove(websocket::ACCEPT),
                    _ => {}
                }
                response
            }
        }
    }
}

/// Marks a proxy's own answer: nothing of the request has reached the application, and it may be sent elsewhere.
pub fn mark_untouched(headers: &mut HeaderMap, failed: &Failed) {
    let text = format!("{}; {}", failed.reason, failed.detail);
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(WEFT_UNTOUCHED, value);
    }
}

/// What a peer proxy says of itself by such an answer. A reason that this version does not know leaves it an ordinary one.
pub(crate) fn untouched(headers: &HeaderMap) -> Option<Failed> {
    let (word, detail) = headers.get(WEFT_UNTOUCHED)?.to_str().ok()?.split_once("; ")?;
    let failed = Failed::untouched(Reason::of(word)?, detail.to_owned());
    Some(Failed { by_peer: true, ..failed })
}

/// Drops what only proxies may say.
fn strip(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| name.as_str().starts_with("weft-")).cloned() {
        headers.remove(name);
    }
}

/// A request of an HTTP/1 client as the head of a stream to a program.
fn program_request(head: &RequestHead, body: BodyLength) -> Request<()> {
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
fn escaped(target: &[u8]) -> Vec<u8> {
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

/// Writes an HTTP/1 client's request to a plain connection.
fn write_request(out: &mut Vec<u8>, head: &RequestHead, body: BodyLength) {
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
fn is_chunked(head: &RequestHead, body: BodyLength) -> bool {
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
