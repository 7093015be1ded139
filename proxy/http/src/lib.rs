//! HTTP on the wire: connections and pools, bodies with back-pressure, tunnels, `weft/1` between proxies.
//!
//! ```text
//! HTTP/1 client ─ Connection ┐                   ┌ Streams ─ weft/1 ── Accepted ┐
//! HTTP/2 client ─ Served ────┼ Client ─ exchange ┼ Streams ─ HTTP/2 program     ├ Client ─ exchange ─ …
//!                            │                   └ Plain ─── HTTP/1 program     │
//! peer proxy ──── Accepted ──┘                                                  ┘
//! ```
//!
//! `exchange` carries one request and its response, `tunnel` one TCP connection; both are two `body::pump`s. Here is no
//! choice of endpoints, no policy, no retry: a `Failed` says what may be tried again, and `proxy-app` decides.

pub mod accept;
pub mod body;
pub mod bounds;
mod case;
pub mod client;
pub mod connection;
pub mod copy;
mod dial;
pub mod exchange;
pub mod failed;
mod frames;
mod gather;
pub mod grpc;
pub mod head;
pub mod idle_age;
pub mod inflow;
pub mod kept;
pub mod next_hop;
mod origination;
pub mod plain;
mod pulse;
mod read_ahead;
pub mod served;
pub mod slow;
pub mod streams;
pub mod tcp;
pub mod tunnel;
mod websocket;
mod windows;

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
