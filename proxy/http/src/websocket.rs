//! A WebSocket between HTTP/1.1, where a key proves that the server understood (RFC 6455 §4), and HTTP/2, where the settings do
//! (RFC 8441 §5): where the two meet, the proxy is the one that asks or that proves.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::hash::{BuildHasher, RandomState};

pub(crate) const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
pub(crate) const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
pub(crate) const PROTOCOL: &str = "websocket";

/// What a key is joined with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key: 16 bytes that no cache has seen. It protects nothing else (RFC 6455 §10.3).
pub(crate) fn key() -> String {
    let mut bytes = [0; 16];
    for half in bytes.chunks_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(0u8).to_ne_bytes());
    }
    STANDARD.encode(bytes)
}

/// The proof that belongs to a key.
pub(crate) fn accept(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()))
}

/// Gives the response of an HTTP/2 server the proof that an HTTP/1.1 client waits for.
pub(crate) fn prove(headers: &mut HeaderMap, key: &[u8]) {
    let proof = HeaderValue::try_from(accept(key)).expect("base64 is a value");
    headers.insert(ACCEPT, proof);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_rfc() {
        // RFC 6455 §1.3.
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_16_bytes_and_differ() {
        let (one, other) = (key(), key());
        assert_ne!(one, other);
        assert_eq!(STANDARD.decode(one).map(|bytes| bytes.len()), Ok(16));
    }
}
