//! Settings of rules, destinations and backends; those that nobody set are absent, the whole message too.

use super::{filters::share, routes::value_matches};
use crate::v1;
use policy::{
    BackendSettings, Set, Settings,
    settings::{
        Abort, DirectResponse, FailureAccrual, Fault, Hedge, RetryBudget, SessionKind, SessionPersistence,
    },
};
use std::time::Duration;

pub(super) fn settings(settings: &Settings) -> Option<v1::Settings> {
    if *settings == Settings::default() {
        return None;
    }
    let Settings { timeouts, retry, hedge, fault: faults, direct_response: response } = settings;
    Some(v1::Settings {
        connect: timeouts.connect.as_ref().map(time),
        request: timeouts.request.as_ref().map(time),
        backend_request: timeouts.backend_request.as_ref().map(time),
        idle: timeouts.idle.as_ref().map(time),
        stream_idle: timeouts.stream_idle.as_ref().map(time),
        max_stream_duration: timeouts.max_stream_duration.as_ref().map(time),
        retry_http_codes: retry.http_codes.as_ref().map(codes),
        retry_grpc_codes: retry.grpc_codes.as_ref().map(codes),
        retry_reasons: retry.reasons.as_ref().map(|set| v1::Words {
            values: set.value.iter().map(ToString::to_string).collect(),
            by: by(set),
        }),
        retry_attempts: retry.attempts.as_ref().map(number),
        retry_per_try_timeout: retry.per_try_timeout.as_ref().map(time),
        retry_backoff_base: retry.backoff_base.as_ref().map(time),
        retry_backoff_max: retry.backoff_max.as_ref().map(time),
        retry_body_limit: retry.body_limit.as_ref().map(number),
        retry_other_host: retry.other_host.as_ref().map(number),
        hedge: hedge.as_ref().map(|set| {
            let Hedge { delay, max } = set.value;
            v1::Hedge { delay_ms: milliseconds(delay), max, by: by(set) }
        }),
        fault: faults.as_ref().map(fault),
        direct_response: response.as_ref().map(|set| {
            let DirectResponse { status, body } = &set.value;
            v1::DirectResponse { status: (*status).into(), body: body.as_ref().into(), by: by(set) }
        }),
    })
}

pub(super) fn backend(settings: &BackendSettings) -> Option<v1::BackendSettings> {
    if *settings == BackendSettings::default() {
        return None;
    }
    let BackendSettings { limits, accrual: breaker, budget: retries, session: sessions } = settings;
    Some(v1::BackendSettings {
        max_connections: limits.max_connections.as_ref().map(number),
        max_pending_requests: limits.max_pending_requests.as_ref().map(number),
        max_requests: limits.max_requests.as_ref().map(number),
        failure_accrual: breaker.as_ref().map(accrual),
        retry_budget: retries.as_ref().map(budget),
        session_persistence: sessions.as_ref().map(session),
    })
}

fn fault(set: &Set<Fault>) -> v1::Fault {
    let Fault { headers, delay, abort } = &set.value;
    v1::Fault {
        headers: value_matches(headers),
        delay_ms: delay.map(|(delay, _)| milliseconds(delay)).unwrap_or_default(),
        delay_share: delay.map(|(_, part)| share(part)),
        abort: abort.map(|(abort, _)| match abort {
            Abort::Http(status) => v1::fault::Abort::HttpStatus(status.into()),
            Abort::Grpc(status) => v1::fault::Abort::GrpcStatus(status.into()),
        }),
        abort_share: abort.map(|(_, part)| share(part)),
        by: by(set),
    }
}

fn accrual(set: &Set<FailureAccrual>) -> v1::FailureAccrual {
    let FailureAccrual { max_failures, min_penalty, max_penalty, jitter, max_ejection } = set.value;
    v1::FailureAccrual {
        max_failures,
        min_penalty_ms: milliseconds(min_penalty),
        max_penalty_ms: milliseconds(max_penalty),
        jitter,
        max_ejection,
        by: by(set),
    }
}

fn budget(set: &Set<RetryBudget>) -> v1::RetryBudget {
    let RetryBudget { percent, interval, min_count, min_interval } = set.value;
    v1::RetryBudget {
        percent,
        interval_ms: milliseconds(interval),
        min_count,
        min_interval_ms: milliseconds(min_interval),
        by: by(set),
    }
}

fn session(set: &Set<SessionPersistence>) -> v1::SessionPersistence {
    let SessionPersistence { kind, name, absolute_timeout, idle_timeout } = &set.value;
    v1::SessionPersistence {
        header: *kind == SessionKind::Header,
        permanent: *kind == SessionKind::Cookie { permanent: true },
        name: name.as_ref().into(),
        absolute_timeout_ms: absolute_timeout.map(milliseconds).unwrap_or_default(),
        idle_timeout_ms: idle_timeout.map(milliseconds).unwrap_or_default(),
        by: by(set),
    }
}

fn time(set: &Set<Duration>) -> v1::Time {
    v1::Time { ms: milliseconds(set.value), by: by(set) }
}

fn number<T: Copy + Into<u64>>(set: &Set<T>) -> v1::Number {
    v1::Number { value: set.value.into(), by: by(set) }
}

fn codes(set: &Set<Vec<u16>>) -> v1::Numbers {
    v1::Numbers { values: set.value.iter().map(|code| (*code).into()).collect(), by: by(set) }
}

fn by<T>(set: &Set<T>) -> String {
    set.by.to_string()
}

/// Whole ones; of what is shorter than one, one, as zero says that there is no limit.
fn milliseconds(time: Duration) -> u64 {
    match time.is_zero() {
        true => 0,
        false => u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1),
    }
}
