//! When an answer of control takes effect: at once, at a pace, or after a grace. Decided purely: the time is an argument.
//!
//! What the run of control that we know says is believed at once: a Service that is scaled to nothing is that. Another
//! run that takes everything away may be one that was restarted over an empty or half-read source, so what is known
//! stays in effect until that run has said so for a while. Anything else that it says is believed.

use policy::limits::{CHANGE_INTERVAL, CHANGES_AT_ONCE, EMPTIED_GRACE};
use std::time::Duration;
use tokio::time::Instant;

/// What an answer does to the one in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing, or there is none yet.
    None,
    News,
    /// There was something, and now there is nothing.
    Emptied,
}

/// When an answer takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    AtOnce,
    /// Then, as there have been too many changes; the newest answer counts.
    Paced(Instant),
    /// Then, if the same run of control still says so.
    Withheld(Instant),
}

/// The answers to one question, over all conversations about it.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// The run of control whose answer is in effect.
    believed: Option<u64>,
    /// A run that says that there is nothing, and since when.
    doubted: Option<(u64, Instant)>,
    /// Time that the changes taken so far still cost, as of then.
    debt: Option<(Duration, Instant)>,
}

impl Intake {
    /// What is to be done with an answer of the run `instance`.
    pub fn weigh(&mut self, instance: u64, change: Change, now: Instant) -> Effect {
        let stranger = self.believed.is_some_and(|believed| believed != instance);
        if change == Change::Emptied && stranger {
            let since = match self.doubted {
                Some((doubted, since)) if doubted == instance => since,
                _ => now,
            };
            self.doubted = Some((instance, since));
            return Effect::Withheld(since + EMPTIED_GRACE);
        }
        self.doubted = None;
        let room = CHANGE_INTERVAL * (CHANGES_AT_ONCE - 1);
        match self.debt(now).saturating_sub(room) {
            wait if wait.is_zero() || change == Change::None => Effect::AtOnce,
            wait => Effect::Paced(now + wait),
        }
    }

    /// An answer has taken effect.
    pub fn taken(&mut self, instance: u64, change: Change, now: Instant) {
        self.believed = Some(instance);
        if change != Change::None {
            self.debt = Some((self.debt(now) + CHANGE_INTERVAL, now));
        }
    }

    fn debt(&self, now: Instant) -> Duration {
        self.debt
            .map_or(Duration::ZERO, |(debt, then)| debt.saturating_sub(now.saturating_duration_since(then)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Change::*, Effect::*, *};

    /// What each answer says, when (s), and when it takes effect (s); `x` is where it does not.
    #[test]
    fn another_run_that_takes_everything_away_is_doubted_for_a_while() {
        const GRACE: u64 = EMPTIED_GRACE.as_secs();
        type Step = (u64, u64, Change, u64);
        let table: [(&str, &[Step]); 9] = [
            ("a first answer, even an empty one", &[(1, 0, None, 0)]),
            ("the same run may empty it", &[(1, 0, News, 0), (1, 5, Emptied, 5)]),
            ("another run may not at once", &[(1, 0, News, 0), (2, 5, Emptied, 5 + GRACE)]),
            ("another run may change it", &[(1, 0, News, 0), (2, 5, News, 5), (2, 6, Emptied, 6)]),
            (
                "a run that says the same is believed from then on",
                &[(1, 0, News, 0), (2, 5, None, 5), (2, 6, Emptied, 6)],
            ),
            (
                "over another stream of the same run the time goes on",
                &[(1, 0, News, 0), (2, 5, Emptied, 5 + GRACE), (2, 50, Emptied, 5 + GRACE)],
            ),
            (
                "each run is doubted for itself",
                &[(1, 0, News, 0), (2, 5, Emptied, 5 + GRACE), (3, 50, Emptied, 50 + GRACE)],
            ),
            (
                "something ends the doubt",
                &[(1, 0, News, 0), (2, 5, Emptied, 5 + GRACE), (2, 8, News, 8), (2, 9, Emptied, 9)],
            ),
            (
                "the run of before ends the doubt",
                &[(1, 0, News, 0), (2, 5, Emptied, 5 + GRACE), (1, 8, None, 8), (2, 9, Emptied, 9 + GRACE)],
            ),
        ];
        for (case, steps) in table {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let mut intake = Intake::default();
            for (instance, second, change, effect) in steps {
                let expected = match effect == second {
                    true => AtOnce,
                    false => Withheld(at(*effect)),
                };
                assert_eq!(intake.weigh(*instance, *change, at(*second)), expected, "{case}, at {second} s");
                if expected == AtOnce {
                    intake.taken(*instance, *change, at(*second));
                }
            }
        }
    }

    #[test]
    fn too_many_changes_are_taken_at_a_pace() {
        let mut intake = Intake::default();
        let mut now = Instant::now();
        for change in 0..CHANGES_AT_ONCE {
            assert_eq!(intake.weigh(1, News, now), AtOnce, "change {change}");
            intake.taken(1, News, now);
        }
        assert_eq!(intake.weigh(1, News, now), Paced(now + CHANGE_INTERVAL));
        assert_eq!(intake.weigh(1, News, now), Paced(now + CHANGE_INTERVAL), "the newest, at the same time");
        assert_eq!(intake.weigh(1, None, now), AtOnce, "what changes nothing costs nothing");
        now += CHANGE_INTERVAL;
        assert_eq!(intake.weigh(1, News, now), AtOnce);
        intake.taken(1, News, now);
        assert_eq!(intake.weigh(1, News, now), Paced(now + CHANGE_INTERVAL));
        now += CHANGE_INTERVAL * CHANGES_AT_ONCE;
        for change in 0..CHANGES_AT_ONCE {
            assert_eq!(intake.weigh(1, News, now), AtOnce, "change {change} after a rest");
            intake.taken(1, News, now);
        }
    }
}
