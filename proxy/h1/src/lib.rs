//! The HTTP/1.1 engine: heads, framing, chunked bodies and hop-by-hop rules, as functions over bytes.
//!
//! Here is what RFC 9112 (and RFC 9110 §5–7 where fields are concerned) asks of a proxy that reads a message from one
//! connection and re-frames it on another: each conflict is either refused, with a [`Refusal`] that names the rule, or mended.
//! Not here: sockets, timeouts, pools, `http::HeaderMap`, retries. `proxy/http` drives this crate.
//!
//! ```text
//! bytes -> parse_request -> RequestHead -> body() -> BodyLength -> Decoder -> Data.. End -> trailers()
//!          parse_response   ResponseHead                           write_* for the way out
//! ```
//!
//! A head is one frozen `Bytes` split off the read buffer; lines are ranges into it. Nothing is copied, and a head that is
//! used again for the next message allocates nothing. All parsing is incremental: each byte is looked at once, however the
//! input is cut, and how it is cut never changes the result.

mod decode;
mod encode;
mod fields;
mod framing;
mod head;
mod hop;
mod parse;
mod refusal;
mod scan;

pub use decode::{Decoded, Decoder, Truncated};
pub use encode::{
    write_chunk_end, write_chunk_head, write_end, write_field, write_last_chunk, write_request_line,
    write_status_line,
};
pub use fields::{Field, Fields, Iter};
pub use framing::BodyLength;
pub use head::{RequestHead, ResponseHead, TargetForm};
pub use hop::EndToEnd;
pub use parse::{Parse, parse_request, parse_response};
pub use refusal::Refusal;

/// The protocol version of a message, as far as it changes what we do (RFC 9112 §2.3).
///
/// A minor version above 1 is read as 1.1, the highest that we conform to (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `HTTP/1.0`: no chunked coding, no interim responses, closes unless `keep-alive` is said.
    Http10,
    /// `HTTP/1.1`.
    #[default]
    Http11,
}

impl Version {
    /// As it stands on the wire.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
        }
    }
}

/// What a message may hold before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, from the start line to its empty line, and of a trailer section. Over it: 431.
    pub head_bytes: usize,
    /// Field lines of a head or a trailer section. Over it: 431.
    pub fields: usize,
    /// Bytes of a request-target; keep it well below `head_bytes`. Over it: 414.
    pub target_bytes: usize,
    /// Bytes of all chunk extensions of one body together. Over it: 400.
    pub extension_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A target of 65,534 bytes is the most that `http::Uri` can hold.
        Limits { head_bytes: 128 * 1024, fields: 256, target_bytes: 65_534, extension_bytes: 16 * 1024 }
    }
}
