//! What the visitors saw: counts, failures by kind, and latencies in a histogram of fixed size. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Kinds of failure told apart; what comes above it is counted as `other`.
const KINDS_LIMIT: usize = 64;

#[derive(Default)]
pub struct Tally {
    whole: Count,
    /// Since the last line of progress.
    recent: Count,
    steps: BTreeMap<&'static str, u64>,
    failures: BTreeMap<String, u64>,
    late: u64,
}

#[derive(Default)]
struct Count {
    requests: u64,
    failed: u64,
    latency: Latency,
}

/// The end of a run. Times are in milliseconds, from the start of a request to the last byte of its answer; they
/// cover failed requests too.
#[derive(Serialize)]
pub struct Report {
    pub requests: u64,
    pub failed: u64,
    /// By kind: a status with who is to blame and why, or what became of the connection.
    pub failures: BTreeMap<String, u64>,
    /// Requests that started well after their turn: the rate was not held.
    pub late: u64,
    /// Turns that were not taken at all.
    pub skipped: u64,
    pub seconds: f64,
    pub rps: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    /// Requests by step.
    pub steps: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn count(&mut self, step: &'static str, took: Duration, late: bool, failure: Option<&String>) {
        for count in [&mut self.whole, &mut self.recent] {
            count.requests += 1;
            count.failed += u64::from(failure.is_some());
            count.latency.record(took);
        }
        *self.steps.entry(step).or_default() += 1;
        self.late += u64::from(late);
        if let Some(kind) = failure {
            let known = self.failures.len() < KINDS_LIMIT || self.failures.contains_key(kind);
            *self.failures.entry(if known { kind.clone() } else { "other".into() }).or_default() += 1;
        }
    }

    /// A line on what happened since the last one.
    pub fn progress(&mut self, elapsed: Duration) -> String {
        let Count { requests, failed, latency } = std::mem::take(&mut self.recent);
        format!(
            "{:>5} s  {requests:>6} requests  {failed:>4} failed  p50 {:.1} ms  p99 {:.1} ms",
            elapsed.as_secs(),
            latency.quantile_ms(500),
            latency.quantile_ms(990),
        )
    }

    pub fn report(&self, elapsed: Duration, skipped: u64) -> Report {
        let Count { requests, failed, latency } = &self.whole;
        let seconds = elapsed.as_secs_f64();
        let rps = if seconds > 0.0 { *requests as f64 / seconds } else { 0.0 };
        Report {
            requests: *requests,
            failed: *failed,
            failures: self.failures.clone(),
            late: self.late,
            skipped,
            seconds: rounded(seconds),
            rps: rounded(rps),
            p50_ms: latency.quantile_ms(500),
            p95_ms: latency.quantile_ms(950),
            p99_ms: latency.quantile_ms(990),
            steps: self.steps.clone(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, failed, seconds, rps, p50_ms, p95_ms, p99_ms, .. } = self;
        write!(f, "{requests} requests in {seconds} s ({rps} a second), {failed} failed; ")?;
        write!(f, "p50 {p50_ms} ms, p95 {p95_ms} ms, p99 {p99_ms} ms")?;
        for (kind, count) in &self.failures {
            write!(f, "\n{count:>8}  {kind}")?;
        }
        Ok(())
    }
}

/// To three digits after the point.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

/// Microseconds in log-linear buckets: exact below 32, above it 32 buckets for each doubling, so within 1/32.
struct Latency {
    buckets: Box<[u32; Latency::BUCKETS]>,
}

impl Latency {
    /// log2 of the buckets of each doubling.
    const BITS: u32 = 5;
    const PER_DOUBLING: u64 = 1 << Self::BITS;
    /// Up to 2^26 µs, over a minute; longer ones fall into the last bucket.
    const BUCKETS: usize = (22 << Self::BITS) as usize;

    fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = &mut self.buckets[Self::index(micros)];
        *bucket = bucket.saturating_add(1);
    }

    fn index(micros: u64) -> usize {
        if micros < Self::PER_DOUBLING {
            return micros as usize;
        }
        let shift = micros.ilog2() - Self::BITS;
        let index = u64::from(shift) * Self::PER_DOUBLING + (micros >> shift);
        (index as usize).min(Self::BUCKETS - 1)
    }

    /// The longest time that falls into the bucket.
    fn upper(index: usize) -> u64 {
        let index = index as u64;
        if index < Self::PER_DOUBLING {
            return index;
        }
        let shift = index / Self::PER_DOUBLING - 1;
        let mantissa = Self::PER_DOUBLING + index % Self::PER_DOUBLING;
        ((mantissa + 1) << shift) - 1
    }

    /// The time within which `permille` of the requests were answered; 0 if there were none.
    fn quantile_ms(&self, permille: u64) -> f64 {
        let total: u64 = self.buckets.iter().map(|&count| u64::from(count)).sum();
        let wanted = (total * permille).div_ceil(1_000);
        let mut seen = 0;
        for (index, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if count > 0 && seen >= wanted {
                return Self::upper(index) as f64 / 1_000.0;
            }
        }
        0.0
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: Box::new([0; Self::BUCKETS]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_gapless_and_within_a_thirty_second() {
        let mut lower = 0;
        for index in 0..Latency::BUCKETS {
            let upper = Latency::upper(index);
            assert_eq!((Latency::index(lower), Latency::index(upper)), (index, index));
            assert!(upper - lower <= lower / 32, "bucket {index}: {lower} to {upper}");
            lower = upper + 1;
        }
        assert_eq!(lower, 1 << 26);
        assert_eq!(Latency::index(u64::MAX), Latency::BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_one_to_a_hundred() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_ms(500), 0.0);
        (1..=100).for_each(|ms| latency.record(Duration::from_millis(ms)));
        for (permille, ms) in [(500, 50.0), (950, 95.0), (990, 99.0), (1_000, 100.0)] {
            let found = latency.quantile_ms(permille);
            assert!((ms..=ms * 33.0 / 32.0).contains(&found), "{permille}: {found}");
        }
    }

    #[test]
    fn failures_are_counted_by_kind_and_the_kinds_are_bounded() {
        let mut tally = Tally::default();
        tally.count("front", Duration::from_millis(1), false, None);
        for kind in 0..2 * KINDS_LIMIT {
            tally.count("list", Duration::from_millis(1), true, Some(&format!("kind_{kind}")));
        }
        tally.count("list", Duration::from_millis(1), false, Some(&"kind_0".to_owned()));
        assert!(tally.progress(Duration::from_secs(1)).contains(" 130 requests   129 failed"));
        assert!(tally.progress(Duration::from_secs(2)).contains("   0 requests     0 failed"));
        let report = tally.report(Duration::from_secs(2), 7);
        assert_eq!((report.requests, report.failed, report.late, report.skipped), (130, 129, 128, 7));
        assert_eq!((report.failures["kind_0"], report.failures["other"]), (2, KINDS_LIMIT as u64));
        assert_eq!((report.rps, report.steps["list"]), (65.0, 129));
    }
}
