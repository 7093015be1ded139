//! HTTP on the wire: connections and pools, bodies with back-pressure, tunnels, `weft/1` between proxies.
//!
//! ```text
//! client ─ Connection ┐                        ┌ Peer ─ weft/1 stream ── Accepted ┐
//!                     ├ exchange (head, bodies) ┤                                  ├ exchange ─ Plain ─ application
//! peer ── Accepted ───┘                        └ Plain (no proxy there)            ┘
//! ```
//!
//! `exchange` carries one request and its response, `tunnel` one TCP connection; both are two `body::pump`s. Here is no
//! choice of endpoints, no policy, no retry: a `Failed` says what may be tried again, and `proxy-app` decides.

pub mod accept;
pub mod body;
pub mod connection;
pub mod exchange;
pub mod failed;
mod gather;
pub mod head;
pub mod peer;
pub mod plain;
mod read_ahead;
pub mod tcp;
pub mod tunnel;

use failed::Failed;
use policy::Reason;
use std::io;

/// A TLS handshake that failed, on our side or by the peer's alert. Nothing of any request has been sent.
fn tls_failed(error: &io::Error) -> Failed {
    match proxy_tls::tls_error(error) {
        Some(tls) => Failed::untouched(proxy_tls::reason(tls), proxy_tls::detail(tls)),
        None => Failed::untouched(
            Reason::TlsProtocolError,
            format!("the peer broke off the TLS handshake: {error}"),
        ),
    }
}
