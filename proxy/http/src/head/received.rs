//! A request that came as a stream, and what it asks for. How it goes on stands beside.

use super::{WEFT_HTTP, WEFT_METHOD, WEFT_TARGET, strip};
use h2::ext::Protocol;
use http::{HeaderValue, Method, request, uri::PathAndQuery};

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
}
