//! The rules of time and of who speaks first, as a state machine without a clock: every event brings the time
//! that has passed since the connection was accepted.
//!
//! ```text
//!                  client's bytes say it ────────────────────────────────► ClientBytes
//! silent, no upstream ── 50 ms ──► silent, upstream ── server speaks ────► ServerFirst | Remembered
//!        │ first bytes                  │ first bytes
//!        └───────────► undecided bytes held ◄──┘ ──── server speaks ─────► ServerFirst | Remembered
//!                          └── 300 ms (3 s inside a ClientHello) ────────► HoldLimit
//!                  client closes, anywhere ──────────────────────────────► ClientClosed
//! ```
//!
//! Two sides that are both silent are no reason to decide anything, since nobody's bytes wait: a pool may open a
//! connection minutes before its first request, and that request is HTTP all the same.

use std::time::Duration;

use crate::{ClientHello, Lean, Look, look};

/// A client that has said nothing for this long may be waiting for the server to speak first.
pub const CLIENT_SILENCE: Duration = Duration::from_millis(50);

/// No byte of a client is held back longer than this, from the first one on.
pub const HOLD_LIMIT: Duration = Duration::from_millis(300);

/// How long an unfinished ClientHello is held. Nobody can answer it before it is whole, so holding it delays
/// nothing; and a lost segment of a post-quantum hello comes again only after 1 s, or 3 s when it is lost twice
/// (RFC 6298 §2.1, §5.5).
pub const TLS_HOLD_LIMIT: Duration = Duration::from_millis(3_300);

/// What a connection carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// TLS from the client on, with the ClientHello that it began with.
    Tls(ClientHello),
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// Bytes, carried as they are.
    Opaque,
}

impl Protocol {
    /// The word for metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Protocol::Tls(_) => "tls",
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Opaque => "opaque",
        }
    }
}

/// Why a connection is taken for what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// The Service's `appProtocol` says so. The caller knows that without a detector.
    AppProtocol,
    /// The client's first bytes say so.
    ClientBytes,
    /// The server spoke before the client had said enough.
    ServerFirst,
    /// The client's bytes could not be held any longer.
    HoldLimit,
    /// As it was remembered of the port: the server spoke first and nobody waited for [`CLIENT_SILENCE`], or the client's
    /// undecided bytes were not held.
    Remembered,
    /// The client ended its side before it had said enough.
    ClientClosed,
}

impl How {
    /// Every value, so that a caller can make its metrics beforehand.
    pub const ALL: [How; 6] = [
        How::AppProtocol,
        How::ClientBytes,
        How::ServerFirst,
        How::HoldLimit,
        How::Remembered,
        How::ClientClosed,
    ];

    /// The word for metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            How::AppProtocol => "app_protocol",
            How::ClientBytes => "client_bytes",
            How::ServerFirst => "server_first",
            How::HoldLimit => "hold_limit",
            How::Remembered => "remembered",
            How::ClientClosed => "client_closed",
        }
    }
}

/// What the caller does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for the next event; when none has come for this long, call [`Detector::on_client_silent`].
    Wait(Duration),
    /// Connect to the upstream if that has not been done yet, then wait for either side without a timer.
    ConnectUpstream,
    /// The end. All bytes peeked are still to be carried; the detector is to be dropped.
    Decided(Protocol, How),
}

/// Detects the protocol of one connection.
///
/// Begin with [`on_client`](Detector::on_client) when bytes are there already, else with
/// [`on_client_silent`](Detector::on_client_silent) at zero. Once [`Step::ConnectUpstream`] was returned, both
/// sides are listened to until the end, also while a [`Step::Wait`] runs.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    server_first_remembered: bool,
    opaque_remembered: bool,
    /// When the oldest of the held bytes came, and what they look like.
    held: Option<(Duration, Lean)>,
}

impl Detector {
    /// A detector for a port of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A detector for a port whose server has been seen to speak first: the upstream is connected at once. A
    /// client that speaks first nevertheless is read as everywhere, so a stale memory costs a connect at most.
    #[must_use]
    pub fn remembering_server_first() -> Self {
        Self { server_first_remembered: true, ..Self::default() }
    }

    /// A detector for a port whose clients have been seen to begin with bytes that stay undecided: they are not held again.
    /// A client whose first bytes do say something is read as everywhere.
    #[must_use]
    pub fn remembering_opaque() -> Self {
        Self { opaque_remembered: true, ..Self::default() }
    }

    /// The client has sent something: `bytes` are all that have come since the connection was accepted.
    pub fn on_client(&mut self, bytes: &[u8], elapsed: Duration) -> Step {
        let protocol = match look(bytes) {
            Look::Partial(Lean::Unknown) if self.opaque_remembered && !bytes.is_empty() => {
                return Step::Decided(Protocol::Opaque, How::Remembered);
            }
            Look::Partial(lean) => {
                if !bytes.is_empty() {
                    let since = self.held.map_or(elapsed, |(since, _)| since);
                    self.held = Some((since, lean));
                }
                return self.on_client_silent(elapsed);
            }
            Look::Tls(hello) => Protocol::Tls(hello),
            Look::Http1 => Protocol::Http1,
            Look::Http2 => Protocol::Http2,
            Look::Opaque => Protocol::Opaque,
        };
        Step::Decided(protocol, How::ClientBytes)
    }

    /// The client has sent nothing new until now. Calling it early does no harm.
    pub fn on_client_silent(&self, elapsed: Duration) -> Step {
        match self.held {
            Some((since, lean)) => held(since, lean, elapsed),
            None if self.server_first_remembered || elapsed >= CLIENT_SILENCE => Step::ConnectUpstream,
            None => Step::Wait(CLIENT_SILENCE - elapsed),
        }
    }

    /// The server has spoken, and the client has not said enough to know what it speaks.
    pub fn on_server_first(&self) -> Step {
        let how = if self.server_first_remembered { How::Remembered } else { How::ServerFirst };
        Step::Decided(Protocol::Opaque, how)
    }

    /// The client has closed its side, and what it sent is not enough to know what it speaks. The server may
    /// still have something to say, as `daytime` has.
    pub fn on_client_eof(&self) -> Step {
        Step::Decided(Protocol::Opaque, How::ClientClosed)
    }
}

/// Undecided bytes wait until their time is over; then they are what they look like most.
fn held(since: Duration, lean: Lean, elapsed: Duration) -> Step {
    let (limit, protocol) = match lean {
        Lean::Tls => (TLS_HOLD_LIMIT, Protocol::Opaque),
        Lean::Http1 => (HOLD_LIMIT, Protocol::Http1),
        Lean::Http2 => (HOLD_LIMIT, Protocol::Http2),
        Lean::Unknown => (HOLD_LIMIT, Protocol::Opaque),
    };
    let left = (since + limit).saturating_sub(elapsed);
    if left.is_zero() { Step::Decided(protocol, How::HoldLimit) } else { Step::Wait(left) }
}
