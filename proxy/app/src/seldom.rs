//! What happens in storms and is worth a log line only now and then.

use std::{cell::Cell, time::Duration};
use tokio::time::Instant;

/// The least time between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// One kind of event.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Seldom {
    /// It has happened: how often since the last line, if now is the time for one.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let happened = self.unsaid.get() + 1;
        if self.said.get().is_some_and(|said| now.saturating_duration_since(said) < PAUSE) {
            self.unsaid.set(happened);
            return None;
        }
        self.said.set(Some(now));
        self.unsaid.set(0);
        Some(happened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_one_line_and_nothing_is_left_uncounted() {
        let (seldom, begin) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.due(begin), Some(1));
        for ms in [0, 1, 9_999] {
            assert_eq!(seldom.due(begin + Duration::from_millis(ms)), None);
        }
        assert_eq!(seldom.due(begin + PAUSE), Some(4));
        assert_eq!(seldom.due(begin + PAUSE), None);
        assert_eq!(seldom.due(begin + 3 * PAUSE), Some(2));
    }
}
