//! Why an attempt gave no answer, and whether another one may be made.

use crate::body::Failure;
use policy::Reason;
use proxy_transport::descriptors;
use std::{borrow::Cow, io};

/// An attempt that ended without an answer of the application.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Failed {
    pub reason: Reason,
    /// What exactly, for people: printable ASCII without quotes.
    pub detail: Cow<'static, str>,
    pub replay: Replay,
    /// The client has been given a status or bytes: too late to answer anything else.
    pub answered: bool,
    /// The code that the other side reset its stream with: what an HTTP/2 client is to see, too.
    pub reset: Option<h2::Reason>,
    /// The peer proxy met it, not we.
    pub by_peer: bool,
    /// It is the client's own doing, and says nothing of the next hop.
    pub by_client: bool,
    /// What a policy wants to be answered, in the place of what the reason says.
    pub told: Option<Told>,
}

/// An outcome that a policy has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Http(u16),
    Grpc(u16),
}

/// May the request be sent again, on another endpoint if there is one? Only when nothing of it can have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Nothing of it reached the application: no connection, not a byte, or a stream refused (RFC 9113 §8.7).
    Untouched,
    /// A pooled connection died before the first byte of a response: only if the method is idempotent (RFC 9110 §9.2.2).
    IfIdempotent,
    Never,
}

impl Failed {
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            replay: Replay::Never,
            answered: false,
            reset: None,
            by_peer: false,
            by_client: false,
            told: None,
        }
    }

    pub fn untouched(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { replay: Replay::Untouched, ..Self::new(reason, detail) }
    }

    /// The status that an HTTP client is told.
    pub fn status(&self) -> u16 {
        match self.told {
            Some(Told::Http(status)) => status,
            _ => self.reason.status(),
        }
    }

    /// The outcome that a gRPC client is told.
    pub fn grpc_status(&self) -> u16 {
        match self.told {
            Some(Told::Grpc(status)) => status,
            Some(Told::Http(status)) => policy::reason::grpc_status_of(status),
            None => self.reason.grpc_status(),
        }
    }

    /// The client is not there to be answered.
    pub fn client_gone() -> Self {
        let gone = Self::new(Reason::ConnectionTerminated, "the client went away").answered();
        Self { by_client: true, ..gone }
    }

    /// With the code of a reset stream.
    pub fn reset(self, reset: Option<h2::Reason>) -> Self {
        Self { reset, ..self }
    }

    /// After the client has been given a part of an answer.
    pub fn answered(self) -> Self {
        Self { answered: true, replay: Replay::Never, ..self }
    }

    /// A connection that could not be made.
    pub fn connecting(error: &io::Error) -> Self {
        let reason = match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::ConnectionRefused, _) => Reason::ConnectionRefused,
            (io::ErrorKind::TimedOut, _) => Reason::ConnectionTimeout,
            (io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable, _) => {
                Reason::DestinationIpUnroutable
            }
            (io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof, _) => {
                Reason::ConnectionTerminated
            }
            _ if descriptors::are_used_up(error) => Reason::ConnectionLimitReached,
            _ => Reason::ProxyInternalError,
        };
        Self::untouched(reason, error.to_string())
    }

    /// A response that did not come, or not whole.
    pub fn receiving(failure: &Failure) -> Self {
        match failure {
            Failure::Io(error) => Self::new(Reason::ConnectionTerminated, error.to_string()),
            Failure::Stream(error) => Self::stream(error),
            Failure::Refused(_) => {
                Self::new(Reason::ConnectionTerminated, failure.to_string()).reset(failure.reset())
            }
            Failure::Framing(refusal) => Self::new(Reason::HttpProtocolError, refusal.detail()),
            Failure::Truncated => {
                Self::new(Reason::HttpResponseIncomplete, "the connection ended in the body")
            }
        }
    }

    /// A stream that the peer, or its connection, ended.
    pub fn stream(error: &h2::Error) -> Self {
        let reset = error.reason().filter(|_| error.is_reset() && error.is_remote());
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR));
        if refused {
            return Self::untouched(Reason::ConnectionTerminated, "the peer refused the stream").reset(reset);
        }
        if error.is_library() {
            return Self::new(Reason::HttpProtocolError, error.to_string());
        }
        Self::new(Reason::ConnectionTerminated, error.to_string()).reset(reset)
    }
}
