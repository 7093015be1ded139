//! How long a request may take: which limit is the nearest, and what is said of whoever set it when it is over.

use policy::{Reason, Settings, settings::Set};
use proxy_http::{bounds::Over, failed::Failed, grpc};
use std::{future::Future, time::Duration};
use tokio::time::{Instant, timeout_at};

/// The nearest limit.
#[derive(Clone, Copy)]
pub struct Deadline {
    pub at: Instant,
    limit: Limit,
}

#[derive(Clone, Copy)]
enum Limit {
    /// The caller of a gRPC method gives up.
    Caller,
    Request,
    BackendRequest,
    PerTry,
    StreamDuration,
}

impl Deadline {
    /// Of a request that began then, with all its attempts; `caller`: when that one gives up.
    pub fn of_request(caller: Option<Instant>, settings: &Settings, begun: Instant) -> Option<Self> {
        let times = &settings.timeouts;
        nearest([
            caller.map(|at| Self { at, limit: Limit::Caller }),
            Self::after(begun, times.request(), Limit::Request),
            Self::after(begun, times.max_stream_duration(), Limit::StreamDuration),
        ])
    }

    /// Of one attempt, which begins now.
    pub fn of_attempt(caller: Option<Instant>, settings: &Settings, begun: Instant) -> Option<Self> {
        let (limit, time) = match &settings.retry.per_try_timeout {
            Some(set) => (Limit::PerTry, Some(set.value).filter(|time| !time.is_zero())),
            None => (Limit::BackendRequest, settings.timeouts.backend_request()),
        };
        let attempt = time.and_then(|time| Self::after(Instant::now(), Some(time), limit));
        nearest([Self::of_request(caller, settings, begun), attempt, None])
    }

    /// Of what has become a tunnel.
    pub fn of_tunnel(settings: &Settings, begun: Instant) -> Option<Self> {
        Self::after(begun, settings.timeouts.max_stream_duration(), Limit::StreamDuration)
    }

    fn after(begun: Instant, time: Option<Duration>, limit: Limit) -> Option<Self> {
        Some(Self { at: begun.checked_add(time?)?, limit })
    }

    /// What a request failed of when it has passed.
    pub fn passed(self, settings: &Settings) -> Failed {
        let times = &settings.timeouts;
        let (what, field, set) = match self.limit {
            Limit::Caller => return grpc::overdue(),
            Limit::Request => ("the request", "timeouts.request", &times.request),
            Limit::BackendRequest => ("the attempt", "timeouts.backendRequest", &times.backend_request),
            Limit::PerTry => ("the attempt", "retry.perTryTimeout", &settings.retry.per_try_timeout),
            Limit::StreamDuration => ("the stream", "timeouts.maxStreamDuration", &times.max_stream_duration),
        };
        Failed::new(Reason::HttpResponseTimeout, format!("{what} took longer than {}", said(field, set)))
    }
}

/// What it failed of, when a limit was hit.
pub fn over(over: Over, deadline: Option<Deadline>, begun: Instant, settings: &Settings) -> Failed {
    let deadline = match over {
        Over::Deadline => deadline,
        Over::TunnelDeadline => Deadline::of_tunnel(settings, begun),
        Over::Idle => None,
    };
    match deadline {
        Some(deadline) => deadline.passed(settings),
        None => silent("timeouts.streamIdle", &settings.timeouts.stream_idle),
    }
}

/// Nothing has moved for too long.
pub fn silent(field: &str, set: &Option<Set<Duration>>) -> Failed {
    Failed::new(Reason::ConnectionReadTimeout, format!("nothing moved for {}", said(field, set)))
}

/// `1s (timeouts.request of TrafficPolicy shop/slow)`
pub fn said(field: &str, set: &Option<Set<Duration>>) -> String {
    match set {
        Some(Set { value, by }) => format!("{value:?} ({field} of {by})"),
        None => field.to_owned(),
    }
}

/// Waits no longer than that.
pub async fn within<T>(
    deadline: Option<Deadline>,
    settings: &Settings,
    wait: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    match deadline {
        None => wait.await,
        Some(deadline) => {
            // Boxed: a timer would take room in the future of everything that has none.
            let ended = Box::pin(timeout_at(deadline.at, wait)).await;
            ended.unwrap_or_else(|_| Err(deadline.passed(settings)))
        }
    }
}

fn nearest(deadlines: [Option<Deadline>; 3]) -> Option<Deadline> {
    deadlines.into_iter().flatten().min_by_key(|deadline| deadline.at)
}
