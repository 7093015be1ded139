//! Every bound of control's own, each with a metric or a status when hit.

use std::time::Duration;

/// Watches of one connection: each destination that a proxy may watch, its endpoints, and the proxy's own ports.
pub const WATCHES_PER_CONNECTION: usize = 2 * policy::limits::WATCHES + 512;
/// Streams of one connection: more than its watches, so that a proxy that opens too many is told so.
pub const STREAMS_PER_CONNECTION: u32 = WATCHES_PER_CONNECTION as u32 + 64;
/// Connections of proxies; over it, new ones wait to be accepted.
pub const CONNECTIONS: usize = 10_000;
/// Bytes of one request.
pub const REQUEST_BYTES: usize = 64 * 1024;
/// Wait for a TLS handshake.
pub const HANDSHAKE_WAIT: Duration = policy::limits::HANDSHAKE_WAIT;
/// Between pings on a connection, and the wait for their answer: a proxy that hangs is found.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
pub const PING_WAIT: Duration = Duration::from_secs(10);
/// At the end, the wait for connections to close.
pub const DRAIN_WAIT: Duration = Duration::from_secs(2);
