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
//! | `weft-failed` | on any other response of the peer proxy itself: why | it is the application's |
//!
//! None of them is believed from an application, and none reaches one: `proxy-h1` drops every `weft-*` of a message, HTTP/2's
//! are dropped here, and only the fields named above are read, from a connection whose peer is verified.
//!
//! Here is a head as it came, and what can be asked of it; `stream` writes it as a stream's, `bytes` as HTTP/1.1's.

mod bytes;
mod edited;
mod received;
mod stream;

pub use self::bytes::{ClientFraming, Following};
pub use self::edited::is_fixed;
pub use self::received::StreamRequest;
pub(crate) use self::{
    bytes::{write_interim, write_switching},
    stream::to_map,
};

use self::{
    bytes::{is_chunked, write_request},
    stream::{program_request, stream_response, wire_request},
};
use crate::{failed::Failed, websocket};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, response};
use policy::Reason;
use proxy_h1::{BodyLength, RequestHead, ResponseHead, TargetForm, Version};
use std::borrow::Cow;

const WEFT_HTTP: HeaderName = HeaderName::from_static("weft-http");
const WEFT_TARGET: HeaderName = HeaderName::from_static("weft-target");
const WEFT_METHOD: HeaderName = HeaderName::from_static("weft-method");
const WEFT_UPGRADE: HeaderName = HeaderName::from_static("weft-upgrade");
const WEFT_REASON: HeaderName = HeaderName::from_static("weft-reason");
const WEFT_UNTOUCHED: HeaderName = HeaderName::from_static("weft-untouched");
const WEFT_FAILED: HeaderName = HeaderName::from_static("weft-failed");

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
    /// The head in the form of a stream's, to be changed.
    pub(crate) fn into_parts(self) -> response::Parts {
        match self {
            Self::Http1(head, method) => stream_response(head, method, true, false).into_parts().0,
            Self::Http2(parts) => {
                let (mut taken, ()) = Response::new(()).into_parts();
                taken.status = parts.status;
                taken.headers = std::mem::take(&mut parts.headers);
                taken
            }
        }
    }

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

/// Marks any other answer of a proxy's own, so that it is not taken for the application's.
pub fn mark_failed(headers: &mut HeaderMap, failed: &Failed) {
    headers.insert(WEFT_FAILED, HeaderValue::from_static(failed.reason.as_str()));
}

/// Why a peer proxy has answered by itself, if it has.
pub(crate) fn failed(head: &ResponseRef<'_>) -> Option<Reason> {
    Reason::of(std::str::from_utf8(head.field(&WEFT_FAILED)?).ok()?)
}

/// What a peer proxy says by an answer that it marked as untouched. A reason that this version does not know leaves it an ordinary one.
pub(crate) fn untouched(headers: &HeaderMap) -> Option<Failed> {
    let (word, detail) = headers.get(WEFT_UNTOUCHED)?.to_str().ok()?.split_once("; ")?;
    let failed = Failed::untouched(Reason::of(word)?, detail.to_owned());
    Some(Failed { by_peer: true, ..failed })
}

/// Path and query of an HTTP/1 request, whatever the form of its target.
pub(crate) fn origin(head: &RequestHead) -> Cow<'_, [u8]> {
    match head.target_form() {
        TargetForm::Absolute => Cow::Owned(stream::origin_form(head)),
        _ => Cow::Borrowed(head.target()),
    }
}

/// Drops what only proxies may say.
fn strip(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| name.as_str().starts_with("weft-")).cloned() {
        headers.remove(name);
    }
}
