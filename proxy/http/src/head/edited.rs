//! A request's head that a rule changes: a copy, in the form of a stream's, whatever its client speaks. What goes on is the
//! copy; the head as it came stays for the next decision.

use super::{
    RequestRef, StreamRequest, WEFT_TARGET,
    stream::{escaped, wire_request},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::HOST,
    uri::{Authority, PathAndQuery},
};

impl StreamRequest {
    /// The copy.
    pub(crate) fn copy_of(head: RequestRef<'_>) -> Self {
        match head {
            RequestRef::Http1(head, body) => {
                let (parts, ()) = wire_request(head, body).into_parts();
                let copy =
                    Self::wire(parts).unwrap_or_else(|_| unreachable!("it says what its client speaks"));
                Self { wire: false, ..copy }
            }
            RequestRef::Http2(request) => Self {
                parts: request.parts.clone(),
                version: request.version,
                method: request.method.clone(),
                upgrade: request.upgrade.clone(),
                wire: request.wire,
            },
        }
    }

    /// The fields. A name that an HTTP/1 client wrote in its own case keeps it; others follow the client's style.
    pub fn fields(&mut self) -> &mut HeaderMap {
        &mut self.parts.headers
    }

    /// Puts `path` in the place of the target's path; its query stays. What can stand in no target is percent-encoded.
    pub fn set_path(&mut self, path: &str) {
        let target = self.path();
        let query = target.iter().position(|byte| *byte == b'?').map(|at| &target[at..]);
        let target = [&escaped(path.as_bytes()), query.unwrap_or_default()].concat();
        let Ok(target) = PathAndQuery::try_from(target) else { return };
        self.parts.headers.remove(WEFT_TARGET);
        let mut uri = std::mem::take(&mut self.parts.uri).into_parts();
        uri.path_and_query = Some(target);
        self.parts.uri = Uri::from_parts(uri).expect("only its path is another one");
    }

    /// Puts `host` in the place of whom the request is for: Host, or `:authority`.
    pub fn set_authority(&mut self, host: &str) {
        let (Ok(value), Ok(authority)) = (HeaderValue::try_from(host), Authority::try_from(host)) else {
            return;
        };
        if self.version != http::Version::HTTP_2 || self.parts.headers.contains_key(HOST) {
            self.parts.headers.insert(HOST, value);
        }
        if self.parts.uri.authority().is_some() && self.version == http::Version::HTTP_2 {
            let mut uri = std::mem::take(&mut self.parts.uri).into_parts();
            uri.authority = Some(authority);
            self.parts.uri = Uri::from_parts(uri).expect("only its authority is another one");
        }
    }
}

/// The names of fields that nobody may edit: they frame the message or belong to a connection.
pub fn is_fixed(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    ) || name.as_str().starts_with("weft-")
}
