//! Settings of rules, destinations and backends.

use super::{each, filters::share, option, routes::field_match, text};
use crate::{Malformed, Problem, v1};
use policy::{
    BackendSettings, Origin, Reason, Set, Settings,
    settings::{
        Abort, DirectResponse, FailureAccrual, Fault, Hedge, Limits, Retry, RetryBudget, SessionKind,
        SessionPersistence, Timeouts,
    },
};
use std::{ops::RangeInclusive, time::Duration};

/// A hundred years, more than any duration of Gateway API (GEP-2257): a clock can be added to whatever was read.
const LONGEST_MS: u64 = 100 * 365 * 24 * 3_600_000;

/// Absent: nobody set anything.
pub(super) fn settings(message: Option<&v1::Settings>) -> Result<Settings, Malformed> {
    let Some(message) = message else { return Ok(Settings::default()) };
    Ok(Settings {
        timeouts: Timeouts {
            connect: option("connect", message.connect.as_ref(), time)?,
            request: option("request", message.request.as_ref(), time)?,
            backend_request: option("backend_request", message.backend_request.as_ref(), time)?,
            idle: option("idle", message.idle.as_ref(), time)?,
            stream_idle: option("stream_idle", message.stream_idle.as_ref(), time)?,
            max_stream_duration: option("max_stream_duration", message.max_stream_duration.as_ref(), time)?,
        },
        retry: retry(message)?,
        hedge: message
            .hedge
            .as_ref()
            .map(|one| set(Hedge { delay: Duration::from_millis(one.delay_ms), max: one.max }, &one.by)),
        fault: option("fault", message.fault.as_ref(), fault)?,
        direct_response: option("direct_response", message.direct_response.as_ref(), direct_response)?,
    })
}

/// Absent: nobody set anything.
pub(super) fn backend(message: Option<&v1::BackendSettings>) -> Result<BackendSettings, Malformed> {
    let Some(message) = message else { return Ok(BackendSettings::default()) };
    Ok(BackendSettings {
        limits: Limits {
            max_connections: option("max_connections", message.max_connections.as_ref(), count)?,
            max_pending_requests: option(
                "max_pending_requests",
                message.max_pending_requests.as_ref(),
                count,
            )?,
            max_requests: option("max_requests", message.max_requests.as_ref(), count)?,
        },
        accrual: option("failure_accrual", message.failure_accrual.as_ref(), accrual)?,
        budget: option("retry_budget", message.retry_budget.as_ref(), budget)?,
        session: option("session_persistence", message.session_persistence.as_ref(), session)?,
    })
}

fn retry(message: &v1::Settings) -> Result<Retry, Malformed> {
    let http = |numbers: &v1::Numbers| codes(numbers, 400..=599);
    let grpc = |numbers: &v1::Numbers| codes(numbers, 0..=16);
    let other_host =
        |number: &v1::Number| in_range("value", number.value, 0..=1).map(|value| set(value == 1, &number.by));
    Ok(Retry {
        http_codes: option("retry_http_codes", message.retry_http_codes.as_ref(), http)?,
        grpc_codes: option("retry_grpc_codes", message.retry_grpc_codes.as_ref(), grpc)?,
        reasons: message.retry_reasons.as_ref().map(reasons),
        attempts: option("retry_attempts", message.retry_attempts.as_ref(), count)?,
        per_try_timeout: option("retry_per_try_timeout", message.retry_per_try_timeout.as_ref(), time)?,
        backoff_base: option("retry_backoff_base", message.retry_backoff_base.as_ref(), time)?,
        backoff_max: option("retry_backoff_max", message.retry_backoff_max.as_ref(), time)?,
        body_limit: message.retry_body_limit.as_ref().map(|number| set(number.value, &number.by)),
        other_host: option("retry_other_host", message.retry_other_host.as_ref(), other_host)?,
    })
}

/// A word that this version does not know stands for what this proxy never answers: nothing is lost without it.
fn reasons(words: &v1::Words) -> Set<Vec<Reason>> {
    set(words.values.iter().filter_map(|word| Reason::of(word)).collect(), &words.by)
}

fn codes(numbers: &v1::Numbers, bounds: RangeInclusive<u64>) -> Result<Set<Vec<u16>>, Malformed> {
    let one = |(at, code): (usize, &u32)| status(&format!("values[{at}]"), *code, bounds.clone());
    Ok(set(numbers.values.iter().enumerate().map(one).collect::<Result<_, _>>()?, &numbers.by))
}

fn fault(message: &v1::Fault) -> Result<Set<Fault>, Malformed> {
    use v1::fault::Abort as Wire;
    let delay = duration("delay_ms", message.delay_ms)?;
    let delay = option("delay_share", message.delay_share.as_ref(), share)?.map(|share| (delay, share));
    let abort = match (option("abort_share", message.abort_share.as_ref(), share)?, message.abort.as_ref()) {
        (None, _) => None,
        (Some(_), None) => return Err(Malformed::new("abort", Problem::Missing)),
        (Some(share), Some(Wire::HttpStatus(code))) => {
            Some((Abort::Http(status("http_status", *code, 200..=599)?), share))
        }
        (Some(share), Some(Wire::GrpcStatus(code))) => {
            Some((Abort::Grpc(status("grpc_status", *code, 0..=16)?), share))
        }
    };
    let headers = each("headers", &message.headers, field_match)?;
    Ok(set(Fault { headers, delay, abort }, &message.by))
}

fn direct_response(message: &v1::DirectResponse) -> Result<Set<DirectResponse>, Malformed> {
    let status = status("status", message.status, 200..=599)?;
    Ok(set(DirectResponse { status, body: message.body.as_str().into() }, &message.by))
}

fn accrual(message: &v1::FailureAccrual) -> Result<Set<FailureAccrual>, Malformed> {
    in_range("max_failures", message.max_failures.into(), 1..=u64::MAX)?;
    in_range("max_ejection", message.max_ejection.into(), 0..=100)?;
    in_range("jitter", message.jitter.into(), 0..=10_000)?;
    let accrual = FailureAccrual {
        max_failures: message.max_failures,
        min_penalty: duration("min_penalty_ms", message.min_penalty_ms)?,
        max_penalty: duration("max_penalty_ms", message.max_penalty_ms)?,
        jitter: message.jitter,
        max_ejection: message.max_ejection,
    };
    Ok(set(accrual, &message.by))
}

fn budget(message: &v1::RetryBudget) -> Result<Set<RetryBudget>, Malformed> {
    in_range("percent", message.percent.into(), 0..=100)?;
    in_range("interval_ms", message.interval_ms, 1..=LONGEST_MS)?;
    in_range("min_interval_ms", message.min_interval_ms, 1..=LONGEST_MS)?;
    let budget = RetryBudget {
        percent: message.percent,
        interval: duration("interval_ms", message.interval_ms)?,
        min_count: message.min_count,
        min_interval: duration("min_interval_ms", message.min_interval_ms)?,
    };
    Ok(set(budget, &message.by))
}

fn session(message: &v1::SessionPersistence) -> Result<Set<SessionPersistence>, Malformed> {
    let timeout =
        |field: &str, ms: u64| duration(field, ms).map(|time| Some(time).filter(|time| !time.is_zero()));
    let session = SessionPersistence {
        kind: match message.header {
            true => SessionKind::Header,
            false => SessionKind::Cookie { permanent: message.permanent },
        },
        name: text::token("name", &message.name)?,
        absolute_timeout: timeout("absolute_timeout_ms", message.absolute_timeout_ms)?,
        idle_timeout: timeout("idle_timeout_ms", message.idle_timeout_ms)?,
    };
    Ok(set(session, &message.by))
}

fn set<T>(value: T, by: &str) -> Set<T> {
    Set { value, by: Origin::of(by) }
}

fn time(message: &v1::Time) -> Result<Set<Duration>, Malformed> {
    Ok(set(duration("ms", message.ms)?, &message.by))
}

fn duration(field: &str, ms: u64) -> Result<Duration, Malformed> {
    in_range(field, ms, 0..=LONGEST_MS).map(Duration::from_millis)
}

fn count(message: &v1::Number) -> Result<Set<u32>, Malformed> {
    let value = in_range("value", message.value, 0..=u32::MAX.into())?;
    Ok(set(u32::try_from(value).unwrap_or(u32::MAX), &message.by))
}

fn status(field: &str, code: u32, bounds: RangeInclusive<u64>) -> Result<u16, Malformed> {
    let code = in_range(field, code.into(), bounds)?;
    Ok(u16::try_from(code).expect("bounds of codes are below 1000"))
}

fn in_range(field: &str, value: u64, bounds: RangeInclusive<u64>) -> Result<u64, Malformed> {
    match bounds.contains(&value) {
        true => Ok(value),
        false => Err(Malformed::new(field, Problem::Range(value, bounds))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_a_later_version_is_passed_over() {
        let words = v1::Words { values: vec!["circuit_open".into(), "sunspots".into()], by: "x".into() };
        assert_eq!(reasons(&words), set(vec![Reason::CircuitOpen], "x"));
    }
}
