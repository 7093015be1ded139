//! A fixed rate as turns to be claimed. Pure: time is an argument, counted from the start of the run.

use std::time::Duration;

/// Arrears up to this are made up for at full speed; turns further back are skipped, and counted, so that a stall is
/// not followed by a flood.
const ARREARS: Duration = Duration::from_secs(1);

pub struct Pace {
    rps: u32,
    duration: Option<Duration>,
    /// The turn that the next claim gets.
    next: u64,
    skipped: u64,
}

impl Pace {
    pub fn new(rps: u32, duration: Option<Duration>) -> Self {
        Self { rps, duration, next: 0, skipped: 0 }
    }

    /// When the next request is to start, or `None` when the run is over.
    pub fn claim(&mut self, now: Duration) -> Option<Duration> {
        if self.duration.is_some_and(|end| now >= end) {
            return None;
        }
        if now.saturating_sub(self.due(self.next)) > ARREARS {
            let current = (now.as_nanos() * u128::from(self.rps) / 1_000_000_000) as u64;
            self.skipped += current - self.next;
            self.next = current;
        }
        let due = self.due(self.next);
        if self.duration.is_some_and(|end| due >= end) {
            return None;
        }
        self.next += 1;
        Some(due)
    }

    /// Turns that nobody took.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn due(&self, turn: u64) -> Duration {
        Duration::from_nanos((u128::from(turn) * 1_000_000_000 / u128::from(self.rps)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn turns_are_evenly_spaced_and_end_with_the_run() {
        let mut pace = Pace::new(4, Some(ms(1000)));
        let turns: Vec<_> = std::iter::from_fn(|| pace.claim(ms(0))).collect();
        assert_eq!(turns, [ms(0), ms(250), ms(500), ms(750)]);
        assert_eq!(pace.skipped(), 0);
    }

    #[test]
    fn small_arrears_are_made_up_and_large_ones_skipped() {
        // (now, the turn given, turns skipped so far)
        let cases = [(0, 0, 0), (900, 100, 0), (1100, 200, 0), (5000, 5000, 47), (5050, 5100, 47)];
        let mut pace = Pace::new(10, None);
        for (now, turn, skipped) in cases {
            assert_eq!((pace.claim(ms(now)), pace.skipped()), (Some(ms(turn)), skipped), "at {now}");
        }
    }

    #[test]
    fn a_run_that_is_over_gives_no_turns_even_in_arrears() {
        let mut pace = Pace::new(1000, Some(ms(500)));
        assert_eq!(pace.claim(ms(499)), Some(ms(0)));
        assert_eq!(pace.claim(ms(500)), None);
    }
}
