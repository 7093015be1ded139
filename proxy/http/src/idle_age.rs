//! For how long a server keeps an idle connection: learned from when it closes them, or announced by it. Here is no socket and
//! no clock: ages and `now` are arguments.

use policy::limits;
use std::time::Duration;
use tokio::time::Instant;

/// Share of a server's idle age up to which we use its connections: what is sent then has gone before the server closes.
const USED_SHARE: f64 = 0.8;
/// A connection that is open at this multiple of the learned age shows that something else had closed the others.
const CONTRADICTED: f64 = 1.25;

/// Can the message be sent again if the connection turns out to be closing?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// A race with the server's closing costs nothing but time.
    Possible,
    /// A race is an error for the client.
    Impossible,
}

/// What is known of one server.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdleAge {
    /// `Keep-Alive: timeout=N`.
    announced: Option<Duration>,
    /// The least age at which it has closed a connection, and when that was last so.
    closed: Option<(Duration, Instant)>,
}

impl IdleAge {
    /// A connection that has been idle for less than this may carry a message.
    ///
    /// What cannot be sent again is careful: while nothing is known, it goes only over connections that served another message
    /// within the last second, or over a new one. Servers close at 5 s (Node.js, Apache) and later; one that closes sooner has
    /// shown it soon, and no lower bound holds then. For all else there is one: a server that once closed at once, as for a
    /// restart, is not thought to do so always.
    pub fn usable(&self, now: Instant, repeat: Repeat) -> Duration {
        let Some(known) = self.known(now) else {
            return match repeat {
                Repeat::Possible => limits::IDLE_CONNECTION_AGE,
                Repeat::Impossible => limits::UNKNOWN_IDLE_AGE,
            };
        };
        let used = known.mul_f64(USED_SHARE).min(limits::IDLE_CONNECTION_AGE);
        match repeat {
            Repeat::Possible => used.max(limits::MIN_IDLE_AGE),
            Repeat::Impossible => used,
        }
    }

    /// The server closed a connection that had been idle for `age`.
    pub fn closed(&mut self, age: Duration, now: Instant) {
        let least = self.learned(now).map_or(age, |known| known.min(age));
        if least == age {
            self.closed = Some((age, now));
        }
    }

    /// A connection that has been idle for `age` is open.
    pub fn open(&mut self, age: Duration) {
        // The next that closes is learned of anew.
        self.closed = self.closed.filter(|(known, _)| age <= known.mul_f64(CONTRADICTED));
    }

    /// The server says itself how long it will wait.
    pub fn announced(&mut self, age: Duration) {
        self.announced = Some(age);
    }

    fn known(&self, now: Instant) -> Option<Duration> {
        match (self.learned(now), self.announced) {
            (Some(learned), Some(announced)) => Some(learned.min(announced)),
            (learned, announced) => learned.or(announced),
        }
    }

    fn learned(&self, now: Instant) -> Option<Duration> {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < limits::IDLE_EVIDENCE;
        self.closed.filter(|(_, at)| recent(at)).map(|(age, _)| age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Closed(u64),
        Open(u64),
        Announced(u64),
        /// Time passes.
        Passes(u64),
    }

    #[test]
    fn what_is_used_follows_what_was_seen() {
        // Milliseconds: what was seen, then what may be used for messages that can be sent again, and that cannot.
        let table: &[(&[Event], u64, u64)] = &[
            (&[], 45_000, 1_000),
            (&[Closed(5_000)], 4_000, 4_000),
            (&[Announced(5_000)], 4_000, 4_000),
            (&[Announced(120_000)], 45_000, 45_000),
            (&[Announced(0)], 500, 0),
            // The least counts, whoever says it.
            (&[Closed(5_000), Closed(9_000)], 4_000, 4_000),
            (&[Closed(9_000), Closed(5_000)], 4_000, 4_000),
            (&[Closed(5_000), Announced(10_000)], 4_000, 4_000),
            (&[Closed(9_000), Announced(5_000)], 4_000, 4_000),
            // A restart closes whatever there is; what lives on shows it, and the next sign is taken anew.
            (&[Closed(10)], 500, 8),
            (&[Closed(10), Open(12)], 500, 8),
            (&[Closed(10), Open(400)], 45_000, 1_000),
            (&[Closed(10), Open(400), Closed(5_000)], 4_000, 4_000),
            (&[Closed(10), Announced(5_000), Open(400)], 4_000, 4_000),
            // Servers that look about once a second close a little later or sooner.
            (&[Closed(5_000), Open(6_000), Closed(5_900)], 4_000, 4_000),
            // Old signs fade, unless they are confirmed.
            (&[Closed(5_000), Passes(599_000)], 4_000, 4_000),
            (&[Closed(5_000), Passes(601_000)], 45_000, 1_000),
            (&[Closed(5_000), Passes(599_000), Closed(5_000), Passes(599_000)], 4_000, 4_000),
            (&[Closed(5_000), Passes(601_000), Closed(9_000)], 7_200, 7_200),
        ];
        let begin = Instant::now();
        for (events, possible, impossible) in table {
            let (mut age, mut now) = (IdleAge::default(), begin);
            for event in *events {
                match *event {
                    Closed(ms) => age.closed(Duration::from_millis(ms), now),
                    Open(ms) => age.open(Duration::from_millis(ms)),
                    Announced(ms) => age.announced(Duration::from_millis(ms)),
                    Passes(ms) => now += Duration::from_millis(ms),
                }
            }
            let usable = |repeat| age.usable(now, repeat).as_millis() as u64;
            assert_eq!(usable(Repeat::Possible), *possible, "{events:?}");
            assert_eq!(usable(Repeat::Impossible), *impossible, "{events:?}");
        }
    }
}
