//! Settings as a list: the field's name as it is written in a policy, its value, and who set it. What nobody set stands there with
//! its default, where that is something.

use policy::{
    BackendSettings, Set, Settings,
    settings::{
        Abort, FailureAccrual, Fault, Limits, Retry, RetryBudget, SessionKind, SessionPersistence, Timeouts,
    },
};
use serde::Serialize;
use std::{fmt::Display, time::Duration};

/// What stands where there is no limit.
pub(crate) const NONE: &str = "none";

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// `timeouts.request`
    pub name: &'static str,
    /// `3s`
    pub value: String,
    /// `TrafficPolicy shop/slow`; `None`: it is the default.
    pub by: Option<String>,
}

/// How the requests of a rule are carried.
pub fn of_requests(settings: &Settings) -> Vec<Setting> {
    let mut list = timeouts(&settings.timeouts);
    list.extend(retry(&settings.retry));
    list.extend(given("hedge", &settings.hedge, |hedge| {
        format!("{} more, each after {}", hedge.max, time(hedge.delay))
    }));
    list.extend(given("fault", &settings.fault, fault));
    list.extend(given("directResponse", &settings.direct_response, |response| {
        format!("{}, {} bytes", response.status, response.body.len())
    }));
    list
}

/// What holds for the traffic to a backend.
pub fn of_backend(settings: &BackendSettings) -> Vec<Setting> {
    let BackendSettings { limits, accrual, budget, session } = settings;
    let Limits { max_connections, max_pending_requests, max_requests } = limits;
    let count = |name, set: &Option<Set<u32>>| {
        given(name, set, ToString::to_string).unwrap_or_else(|| default(name, NONE))
    };
    let mut list = vec![
        count("limits.maxConnections", max_connections),
        count("limits.maxPendingRequests", max_pending_requests),
        count("limits.maxRequests", max_requests),
        given("failureAccrual", accrual, breaker).unwrap_or_else(|| default("failureAccrual", NONE)),
        given("retryBudget", budget, share_of_retries)
            .unwrap_or_else(|| default("retryBudget", share_of_retries(&RetryBudget::default()))),
    ];
    list.extend(given("sessionPersistence", session, kept));
    list
}

fn timeouts(timeouts: &Timeouts) -> Vec<Setting> {
    let Timeouts { connect, request, backend_request, idle, stream_idle, max_stream_duration } = timeouts;
    let limit = |name, set: &Option<Set<Duration>>| {
        given(name, set, |value| time(*value)).unwrap_or_else(|| default(name, NONE))
    };
    let connect = match connect {
        None => default("timeouts.connect", time(timeouts.connect())),
        some => limit("timeouts.connect", some),
    };
    vec![
        connect,
        limit("timeouts.request", request),
        limit("timeouts.backendRequest", backend_request),
        limit("timeouts.idle", idle),
        limit("timeouts.streamIdle", stream_idle),
        limit("timeouts.maxStreamDuration", max_stream_duration),
    ]
}

/// Where nobody asks for it, one line says what happens anyway.
fn retry(retry: &Retry) -> Vec<Setting> {
    let Retry { http_codes, grpc_codes, reasons, attempts, per_try_timeout, .. } = retry;
    let Retry { backoff_base, backoff_max, body_limit, other_host, .. } = retry;
    if *retry == Retry::default() {
        return vec![default("retry", "only what was not executed")];
    }
    let times = match attempts {
        None => default("retry.attempts", retry.attempts()),
        some => given("retry.attempts", some, ToString::to_string)
            .unwrap_or_else(|| default("retry.attempts", retry.attempts())),
    };
    let given = [
        given("retry.httpCodes", http_codes, |codes| joined(codes)),
        given("retry.grpcCodes", grpc_codes, |codes| joined(codes)),
        given("retry.reasons", reasons, |reasons| joined(reasons)),
        Some(times),
        given("retry.perTryTimeout", per_try_timeout, |value| time(*value)),
        given("retry.backoff.base", backoff_base, |value| time(*value)),
        given("retry.backoff.max", backoff_max, |value| time(*value)),
        given("retry.bodyLimit", body_limit, |bytes| format!("{bytes} bytes")),
        given("retry.otherHost", other_host, ToString::to_string),
    ];
    given.into_iter().flatten().collect()
}

fn fault(fault: &Fault) -> String {
    let Fault { headers, delay, abort } = fault;
    let delay = delay.map(|(delay, share)| format!("delay {} for {share}", time(delay)));
    let abort = abort.map(|(abort, share)| match abort {
        Abort::Http(status) => format!("answer {status} for {share}"),
        Abort::Grpc(status) => format!("answer gRPC {status} for {share}"),
    });
    let when = headers.iter().map(|header| format!("where {}={}", header.name, header.value));
    delay.into_iter().chain(abort).chain(when).collect::<Vec<_>>().join(", ")
}

fn breaker(accrual: &FailureAccrual) -> String {
    let FailureAccrual { max_failures, min_penalty, max_penalty, jitter, max_ejection } = accrual;
    format!(
        "{max_failures} in a row, then a pause of {} to {} (jitter {} %), at most {max_ejection} % of the endpoints",
        time(*min_penalty),
        time(*max_penalty),
        f64::from(*jitter) / 100.0
    )
}

fn share_of_retries(budget: &RetryBudget) -> String {
    let RetryBudget { percent, interval, min_count, min_interval } = budget;
    format!("{percent} % of {}, or {min_count} in {}", time(*interval), time(*min_interval))
}

fn kept(session: &SessionPersistence) -> String {
    let SessionPersistence { kind, name, absolute_timeout, idle_timeout } = session;
    let kind = match kind {
        SessionKind::Cookie { permanent: true } => "permanent cookie",
        SessionKind::Cookie { permanent: false } => "cookie",
        SessionKind::Header => "header",
    };
    let absolute = absolute_timeout.map(|limit| format!(", at most {}", time(limit)));
    let idle = idle_timeout.map(|limit| format!(", idle {}", time(limit)));
    format!("{kind} {name}{}{}", absolute.unwrap_or_default(), idle.unwrap_or_default())
}

fn given<T>(name: &'static str, set: &Option<Set<T>>, value: impl Fn(&T) -> String) -> Option<Setting> {
    let set = set.as_ref()?;
    Some(Setting { name, value: value(&set.value), by: Some(set.by.to_string()) })
}

fn default(name: &'static str, value: impl Display) -> Setting {
    Setting { name, value: value.to_string(), by: None }
}

fn joined<T: Display>(values: &[T]) -> String {
    match values {
        [] => NONE.into(),
        values => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    }
}

/// As Gateway API writes durations (GEP-2257).
fn time(time: Duration) -> String {
    if time.is_zero() {
        return NONE.into();
    }
    let ms = time.as_millis();
    let parts = [(ms / 3_600_000, "h"), (ms / 60_000 % 60, "m"), (ms / 1_000 % 60, "s"), (ms % 1_000, "ms")];
    parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_gateway_api_does() {
        for (ms, text) in
            [(0, "none"), (250, "250ms"), (1_000, "1s"), (90_500, "1m30s500ms"), (3_600_000, "1h")]
        {
            assert_eq!(time(Duration::from_millis(ms)), text);
        }
    }
}
