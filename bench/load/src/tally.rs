//! What a run counted. Its `Display` is the one line that `bench/run` reads.

use std::fmt;
use std::time::Duration;

/// Exchanges done, exchanges failed, and how long each one took.
#[derive(Debug, Default)]
pub struct Tally {
    failed: u64,
    latencies_us: Vec<u32>,
    lasted: Duration,
}

impl Tally {
    /// An exchange succeeded, `took` after it began.
    pub fn ok(&mut self, took: Duration) {
        self.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// An exchange failed; its time says nothing.
    pub fn failed(&mut self) {
        self.failed += 1;
    }

    /// The run ended, `lasted` after it began: from here on quantiles can be asked.
    #[must_use]
    pub fn ended(mut self, lasted: Duration) -> Tally {
        self.latencies_us.sort_unstable();
        self.lasted = lasted;
        self
    }

    /// How many exchanges succeeded and how many failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.latencies_us.len() as u64, self.failed)
    }

    /// The latency in microseconds that `share` (0 to 1) of the exchanges stayed within; 0 when there were none.
    fn quantile_us(&self, share: f64) -> u32 {
        let rank = (self.latencies_us.len() as f64 * share).ceil() as usize;
        self.latencies_us.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ok, err) = self.counts();
        let secs = self.lasted.as_secs_f64();
        write!(f, "ok={ok} err={err} secs={secs:.3} rate={:.1}", ok as f64 / secs.max(1e-9))?;
        write!(f, " p50_us={} p99_us={}", self.quantile_us(0.5), self.quantile_us(0.99))
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use std::time::Duration;

    #[test]
    fn quantiles_are_latencies_that_were_seen() {
        let mut tally = Tally::default();
        for us in (1..=200).rev() {
            tally.ok(Duration::from_micros(us));
        }
        tally.failed();
        let line = tally.ended(Duration::from_secs(2)).to_string();
        assert_eq!(line, "ok=200 err=1 secs=2.000 rate=100.0 p50_us=100 p99_us=198");
    }

    #[test]
    fn nothing_done_is_told_as_zeros() {
        let line = Tally::default().ended(Duration::ZERO).to_string();
        assert_eq!(line, "ok=0 err=0 secs=0.000 rate=0.0 p50_us=0 p99_us=0");
    }
}
