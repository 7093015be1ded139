//! The plain connections of this thread whose readers are slow: whether one is alive and may take its time, or has vanished.
//!
//! `TCP_USER_TIMEOUT` finds vanished peers, but the kernel applies it also to one that is alive and acknowledges each probe of its
//! closed window, because its program does not read: a cursor, a pause, a full queue. So as long as one gives signs of life, its
//! time is extended. Connections between proxies are not among them: what reads there never waits for a program.

use policy::limits;
use proxy_transport::{Backlog, Stream};
use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    time::Duration,
};
use tokio::time::Instant;

/// A live peer acknowledges more often: the kernel asks it again before its time is over.
const ALIVE: Duration = Duration::from_secs(60);

thread_local! {
    static SLOW: RefCell<Vec<Slow>> = const { RefCell::new(Vec::new()) };
}

struct Slow {
    stream: Weak<Stream>,
    stall: Stall,
}

/// For how long nothing was taken.
#[derive(Clone, Copy)]
struct Stall {
    acknowledged: u64,
    since: Instant,
}

/// A write has to wait for the reader.
pub(crate) fn add(stream: &Rc<Stream>) {
    if stream.is_newly_slow() {
        let stall = Stall { acknowledged: 0, since: Instant::now() };
        SLOW.with_borrow_mut(|slow| slow.push(Slow { stream: Rc::downgrade(stream), stall }));
    }
}

/// Looks at all. To be called several times in each `limits::USER_TIMEOUT`: that is how long the kernel waits by itself.
pub fn sweep(now: Instant) {
    SLOW.with_borrow_mut(|slow| slow.retain_mut(|one| one.tend(now)));
}

impl Slow {
    /// False when it is slow no more.
    fn tend(&mut self, now: Instant) -> bool {
        let Some(stream) = self.stream.upgrade() else { return false };
        let Ok(backlog) = stream.backlog() else { return false };
        if backlog.queued == 0 {
            stream.forgive();
            return false;
        }
        if let Some(time) = self.stall.time(&backlog, now) {
            stream.give_time(time);
        }
        true
    }
}

impl Stall {
    /// The time that the kernel is to wait since the last progress; none when what it was told stands.
    fn time(&mut self, backlog: &Backlog, now: Instant) -> Option<Duration> {
        if backlog.acknowledged != self.acknowledged {
            *self = Self { acknowledged: backlog.acknowledged, since: now };
        }
        let stalled = (now - self.since).min(limits::STALLED_READER);
        (backlog.silent < ALIVE).then_some(stalled + limits::USER_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_lives_has_time_and_one_that_vanished_has_not() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let begin = Instant::now();
        // At which time: bytes acknowledged, seconds of silence, and how much longer than `USER_TIMEOUT` it has.
        let table: &[(u64, u64, u64, Option<Duration>)] = &[
            (0, 1, 0, Some(minutes(0))),
            (1, 1, 10, Some(minutes(1))),
            (2, 1, 59, Some(minutes(2))),
            (3, 1, 61, None),
            (4, 1, 0, Some(minutes(4))),
            (5, 2, 0, Some(minutes(0))),
            (6, 2, 0, Some(minutes(1))),
            (60, 2, 0, Some(limits::STALLED_READER)),
        ];
        let mut stall = Stall { acknowledged: 0, since: begin };
        for (at, acknowledged, silent, more) in table {
            let backlog =
                Backlog { queued: 1, acknowledged: *acknowledged, silent: Duration::from_secs(*silent) };
            let time = stall.time(&backlog, begin + minutes(*at));
            assert_eq!(time, more.map(|more| more + limits::USER_TIMEOUT), "after {at} minutes");
        }
    }
}
