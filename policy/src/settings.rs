//! How a request is carried: times, repetition, faults and limits, each with the object that set it. What nobody set has
//! the default that stands beside its field.

use crate::{Reason, ValueMatch, filter::Share, outbound::CONNECT_TIMEOUT};
use std::{fmt, sync::Arc, time::Duration};

/// A value, and who said so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Set<T> {
    pub value: T,
    pub by: Origin,
}

/// The object that set something: `TrafficPolicy shop/slow`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(Arc<str>);

/// What holds for the requests of a rule, or of a destination that has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    pub timeouts: Timeouts,
    pub retry: Retry,
    pub hedge: Option<Set<Hedge>>,
    pub fault: Option<Set<Fault>>,
    pub direct_response: Option<Set<DirectResponse>>,
}

/// Zero: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// One attempt to connect (1 s).
    pub connect: Option<Set<Duration>>,
    /// The whole exchange, with all its attempts, from the request's head to the response's end (none). GEP-1742.
    pub request: Option<Set<Duration>>,
    /// One attempt, from the request's head to the response's head... end (none). GEP-1742.
    pub backend_request: Option<Set<Duration>>,
    /// A TCP connection on which nothing moves (none: TCP's own keep-alive finds peers that have gone).
    pub idle: Option<Set<Duration>>,
    /// A request or response body, or tunnel, on which nothing moves (none).
    pub stream_idle: Option<Set<Duration>>,
    /// An exchange, a tunnel or a TCP connection as a whole (none).
    pub max_stream_duration: Option<Set<Duration>>,
}

/// When a request is sent once more. Whatever stands here, one of which nothing was executed may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Retry {
    /// Statuses of responses, 400 to 599 (none).
    pub http_codes: Option<Set<Vec<u16>>>,
    /// Outcomes of gRPC calls (none).
    pub grpc_codes: Option<Set<Vec<u16>>>,
    /// What a proxy answers by itself (none): they hold for every method. Without them an idempotent request is sent again after
    /// a connection that broke or an attempt that took too long, and no other one is.
    pub reasons: Option<Set<Vec<Reason>>>,
    /// Times that it is sent once more (1 where there is a code or a reason).
    pub attempts: Option<Set<u32>>,
    /// As `backend_request`, and it goes before that.
    pub per_try_timeout: Option<Set<Duration>>,
    /// Between two attempts at least (25 ms). By chance more: up to twice as much for each attempt before.
    pub backoff_base: Option<Set<Duration>>,
    /// And at most (ten times the least).
    pub backoff_max: Option<Set<Duration>>,
    /// Bytes of a body that are kept for it (64 KiB); a longer one is sent once.
    pub body_limit: Option<Set<u64>>,
    /// Another endpoint is chosen if there is one (true).
    pub other_host: Option<Set<bool>>,
}

/// A second request while the first is not answered: the first answer wins. Only of idempotent methods without a body.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hedge {
    pub delay: Duration,
    /// How many besides the first.
    pub max: u32,
}

/// Faults on purpose, for a share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Only requests with these fields.
    pub headers: Vec<ValueMatch>,
    pub delay: Option<(Duration, Share)>,
    pub abort: Option<(Abort, Share)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abort {
    Http(u16),
    Grpc(u16),
}

/// An answer of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DirectResponse {
    pub status: u16,
    pub body: Arc<str>,
}

/// What holds for the traffic to one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BackendSettings {
    pub limits: Limits,
    pub accrual: Option<Set<FailureAccrual>>,
    pub budget: Option<Set<RetryBudget>>,
    pub session: Option<Set<SessionPersistence>>,
}

/// Of one proxy to all endpoints of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// TCP connections of clients, or requests with a tunnel (none).
    pub max_connections: Option<Set<u32>>,
    /// Requests that wait for a connection (none).
    pub max_pending_requests: Option<Set<u32>>,
    /// Requests under way (none).
    pub max_requests: Option<Set<u32>>,
}

/// The breaker of each endpoint: after so many failures in a row (a 5xx, a gRPC status of the server's own failing, a connection that
/// broke) it gets nothing for a while; then one request tries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailureAccrual {
    pub max_failures: u32,
    /// The first pause; each further one is twice as long.
    pub min_penalty: Duration,
    pub max_penalty: Duration,
    /// Basis points by which a pause is longer at most.
    pub jitter: u32,
    /// Percent of the endpoints that may be left out at once.
    pub max_ejection: u32,
}

/// What repeated requests may add to the load (GEP-3388).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    /// Of the requests within `interval`, so many may be repetitions.
    pub percent: u32,
    pub interval: Duration,
    /// So many repetitions in `min_interval` are always allowed.
    pub min_count: u32,
    pub min_interval: Duration,
}

/// The requests of a session go to the endpoint that answered its first one (GEP-1619).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionPersistence {
    pub kind: SessionKind,
    /// Of the cookie or the field.
    pub name: Arc<str>,
    pub absolute_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// A cookie; `permanent`: it outlives the client's run.
    Cookie {
        permanent: bool,
    },
    Header,
}

impl Default for FailureAccrual {
    fn default() -> Self {
        Self {
            max_failures: 7,
            min_penalty: Duration::from_secs(1),
            max_penalty: Duration::from_secs(60),
            jitter: 5_000,
            max_ejection: 50,
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: 20,
            interval: Duration::from_secs(10),
            min_count: 10,
            min_interval: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// What holds where nobody says anything.
    pub const DEFAULT: &Settings = &Settings {
        timeouts: Timeouts {
            connect: None,
            request: None,
            backend_request: None,
            idle: None,
            stream_idle: None,
            max_stream_duration: None,
        },
        retry: Retry {
            http_codes: None,
            grpc_codes: None,
            reasons: None,
            attempts: None,
            per_try_timeout: None,
            backoff_base: None,
            backoff_max: None,
            body_limit: None,
            other_host: None,
        },
        hedge: None,
        fault: None,
        direct_response: None,
    };
}

impl<T> Set<T> {
    pub fn new(value: T, by: &Origin) -> Self {
        Self { value, by: by.clone() }
    }
}

impl Timeouts {
    /// How long one attempt to connect may take.
    pub fn connect(&self) -> Duration {
        limit(&self.connect).unwrap_or(CONNECT_TIMEOUT)
    }

    /// `None`: no limit; so for each.
    pub fn request(&self) -> Option<Duration> {
        limit(&self.request)
    }

    pub fn backend_request(&self) -> Option<Duration> {
        limit(&self.backend_request)
    }

    pub fn idle(&self) -> Option<Duration> {
        limit(&self.idle)
    }

    pub fn stream_idle(&self) -> Option<Duration> {
        limit(&self.stream_idle)
    }

    pub fn max_stream_duration(&self) -> Option<Duration> {
        limit(&self.max_stream_duration)
    }
}

fn limit(set: &Option<Set<Duration>>) -> Option<Duration> {
    set.as_ref().map(|set| set.value).filter(|time| !time.is_zero())
}

/// The pause before another attempt, and the longest one, where nobody says.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));

impl Retry {
    /// The least and the longest pause before another attempt. Who asks for a least one that is longer than the longest means it.
    pub fn backoff(&self) -> (Duration, Duration) {
        let or = |set: &Option<Set<Duration>>, default| set.as_ref().map_or(default, |set| set.value);
        let base = or(&self.backoff_base, BACKOFF.0);
        (base, or(&self.backoff_max, BACKOFF.1).max(base))
    }

    /// Times that a request is sent once more for what stands here.
    pub fn attempts(&self) -> u32 {
        match &self.attempts {
            Some(set) => set.value,
            None => u32::from(self.is_asked()),
        }
    }

    /// A policy wants requests repeated.
    pub fn is_asked(&self) -> bool {
        self.http_codes.is_some()
            || self.grpc_codes.is_some()
            || self.reasons.is_some()
            || self.attempts.is_some()
    }
}

impl Origin {
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self(format!("{kind} {namespace}/{name}").into())
    }

    /// As it is printed.
    pub fn of(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
