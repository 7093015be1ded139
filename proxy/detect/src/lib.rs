//! What does a new TCP connection speak? Here are the two halves of the answer, both pure: [`client`] reads the
//! client's first bytes, and [`Detector`] adds the rules of time and of who speaks first.
//!
//! Not here: sockets, clocks and peeking (the caller's loop), the parsing of requests (`proxy-h1`), the
//! termination of TLS (`proxy-tls`), and the memory of what a port spoke before (the caller's; it starts a
//! detector by [`Detector::remembering_server_first`]).
//!
//! ```
//! use proxy_detect::{Verdict, client};
//!
//! assert_eq!(client(b"GET /cart HT"), Verdict::NeedMore);
//! assert_eq!(client(b"GET /cart HTTP/1.1\r\n"), Verdict::Http1);
//! assert_eq!(client(b"SSH-2.0-OpenSSH_9.2\r\n"), Verdict::Opaque);
//! ```

mod detector;
mod http;
mod tls;

pub use detector::{CLIENT_SILENCE, Detector, HOLD_LIMIT, How, Protocol, Step, TLS_HOLD_LIMIT};
pub use http::MAX_REQUEST_LINE;
pub use tls::{ClientHello, MAX_CLIENT_HELLO, MAX_HELLO_RECORDS};

/// No verdict needs more of the client's bytes than this; a caller's peek buffer never grows beyond it.
pub const MAX_PEEK: usize =
    if MAX_CLIENT_HELLO > MAX_REQUEST_LINE { MAX_CLIENT_HELLO } else { MAX_REQUEST_LINE };

/// What the client's first bytes say. All but [`Verdict::NeedMore`] are final: more bytes never change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Several protocols begin like this.
    NeedMore,
    /// A whole TLS ClientHello (RFC 8446 §4.1.2).
    Tls(ClientHello),
    /// A request line of HTTP/1.x (RFC 9112 §3), or as much of one as no other protocol has.
    Http1,
    /// The connection preface of HTTP/2 with prior knowledge (RFC 9113 §3.4).
    Http2,
    /// None of these: bytes to be carried as they are.
    Opaque,
}

/// Reads the first bytes of a client, all that have come so far.
///
/// Call it again with the longer prefix when more have come; what was said of a prefix stays true.
#[must_use]
pub fn client(bytes: &[u8]) -> Verdict {
    match look(bytes) {
        Look::Partial(_) => Verdict::NeedMore,
        Look::Tls(hello) => Verdict::Tls(hello),
        Look::Http1 => Verdict::Http1,
        Look::Http2 => Verdict::Http2,
        Look::Opaque => Verdict::Opaque,
    }
}

/// A [`Verdict`] that also knows what an unfinished prefix looks like.
enum Look {
    Partial(Lean),
    Tls(ClientHello),
    Http1,
    Http2,
    Opaque,
}

/// What an unfinished prefix will most likely become; it decides when the time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lean {
    /// The beginning of a ClientHello: nobody can answer before it is whole.
    Tls,
    /// (Part of) a registered method, so a slow HTTP client.
    Http1,
    /// At least `PRI `.
    Http2,
    /// Nothing yet, or what may still be anything.
    Unknown,
}

fn look(bytes: &[u8]) -> Look {
    match bytes.first() {
        None => Look::Partial(Lean::Unknown),
        Some(&tls::HANDSHAKE_RECORD) => tls::look(bytes),
        Some(_) => http::look(bytes),
    }
}
