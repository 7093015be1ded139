//! What a worker knows of one endpoint: how fast it answers, how much it has to do, whether it can be reached.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::breaker::Breaker;

/// The time in which the memory of a latency fades to 1/e (τ of the moving average).
pub const DECAY: Duration = Duration::from_secs(10);

/// How long an endpoint stands behind the others after its first failed connect; doubled by each further one.
pub const MIN_PENALTY: Duration = Duration::from_secs(1);

/// The longest penalty, before jitter.
pub const MAX_PENALTY: Duration = Duration::from_secs(60);

/// A penalty is longer by a random part of this share, so that proxies do not all come back at once.
pub const PENALTY_JITTER: f64 = 0.5;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered. Its time counts, and a penalty ends.
    Answered,
    /// The endpoint was reached but failed. Its time counts only when it was slow: a quick failure must not make
    /// an endpoint look fast.
    Failed,
    /// No connection came about: the endpoint stands behind the others for a while.
    ConnectFailed,
}

/// The load of one endpoint, as the balancer sees it. Cloning it is cheap.
#[derive(Debug, Clone, Default)]
pub struct Load(Rc<State>);

#[derive(Debug, Default)]
struct State {
    in_flight: Cell<u32>,
    /// Peak EWMA in seconds; `None` until the first answer.
    latency: Cell<Option<f64>>,
    /// When `latency` was last measured.
    measured: Cell<Option<Instant>>,
    /// When the endpoint was last measured or given a request; from then on its latency fades.
    touched: Cell<Option<Instant>>,
    connect_failures: Cell<u32>,
    penalized_until: Cell<Option<Instant>>,
    /// From 0 up to 1: the jitter of the next penalty.
    jitter: Cell<f64>,
    breaker: Breaker,
}

impl Load {
    /// A request, a stream or a connection is given to this endpoint.
    pub fn start(&self, now: Instant) -> InFlight {
        let state = &self.0;
        state.in_flight.set(state.in_flight.get().saturating_add(1));
        state.touched.set(Some(now));
        InFlight { state: Rc::clone(state), since: now, measured: false, probe: None }
    }

    /// How many have started and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.0.in_flight.get()
    }

    /// The latency that is expected now; `None` when no answer has been seen yet.
    ///
    /// It fades while the endpoint is left alone, so that each is tried again some time. One request that is
    /// under way brings it back: until its answer, nobody knows that the endpoint has become any faster.
    #[must_use]
    pub fn latency(&self, now: Instant) -> Option<Duration> {
        self.seconds(now).map(Duration::from_secs_f64)
    }

    /// Until when it stands behind the others, if it does.
    #[must_use]
    pub fn penalized_until(&self, now: Instant) -> Option<Instant> {
        self.0.penalized_until.get().filter(|&until| now < until)
    }

    /// It has failed too often, and gets nothing but a probe.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.breaker.is_open()
    }

    pub(crate) fn breaker(&self) -> &Breaker {
        &self.0.breaker
    }

    /// Whether this one is at most as loaded as the other: latency times what would be in flight.
    ///
    /// An endpoint without a measurement is taken to be as fast as the one it is compared with. A fixed default
    /// would either starve newcomers (30 ms beside 1 ms takes half a minute to fade) or flood them (1 ms beside
    /// 30 ms); this way they get an even share, and no more than that while they have not answered.
    pub(crate) fn lighter(&self, other: &Load, now: Instant) -> bool {
        let (here, there) = match (self.seconds(now), other.seconds(now)) {
            (Some(here), Some(there)) => (here, there),
            _ => (1.0, 1.0),
        };
        here * (f64::from(self.in_flight()) + 1.0) <= there * (f64::from(other.in_flight()) + 1.0)
    }

    /// Throws the dice for the failure that may come; [`InFlight::finish`] has none.
    pub(crate) fn prepare_jitter(&self, fraction: f64) {
        self.0.jitter.set(fraction);
    }

    fn seconds(&self, now: Instant) -> Option<f64> {
        let latency = self.0.latency.get()?;
        Some(latency * memory(self.0.touched.get(), now))
    }
}

/// How much of what was known at `then` is left `now`, from 1 down to 0.
fn memory(then: Option<Instant>, now: Instant) -> f64 {
    let elapsed = then.map_or(Duration::ZERO, |then| now.saturating_duration_since(then));
    (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

impl State {
    /// Peak EWMA: a higher latency is believed at once, a lower one by and by.
    fn measure(&self, now: Instant, seconds: f64) {
        let latency = match self.latency.get() {
            Some(known) if seconds < known => {
                let memory = memory(self.measured.get(), now);
                known * memory + seconds * (1.0 - memory)
            }
            _ => seconds,
        };
        self.latency.set(Some(latency));
        self.measured.set(Some(now));
        self.touched.set(Some(now));
    }

    fn forgive(&self) {
        self.connect_failures.set(0);
        self.penalized_until.set(None);
    }

    /// Attempts that were under way together fail together: what fails during a penalty does not add to it.
    fn penalize(&self, now: Instant) {
        if self.penalized_until.get().is_some_and(|until| now < until) {
            return;
        }
        let before = self.connect_failures.get();
        self.connect_failures.set(before.saturating_add(1));
        let doubled = MIN_PENALTY.saturating_mul(2u32.saturating_pow(before)).min(MAX_PENALTY);
        let penalty = doubled.mul_f64(1.0 + PENALTY_JITTER * self.jitter.get());
        self.penalized_until.set(Some(now + penalty));
    }
}

/// Something that an endpoint has to do. Dropping it ends it without a judgement, as when the client has gone.
#[derive(Debug)]
#[must_use = "dropping it at once says that nothing is in flight"]
pub struct InFlight {
    state: Rc<State>,
    since: Instant,
    measured: bool,
    /// It tries an endpoint whose breaker is open: the number of the probe.
    probe: Option<u32>,
}

impl InFlight {
    /// A connection had to be made first and now stands; the latency is measured from here. Otherwise one
    /// handshake would make a new endpoint look slow for many seconds.
    pub fn connected(&mut self, now: Instant) {
        self.since = now;
    }

    /// Its outcome is to be judged: where the endpoint's breaker is open, it is the one request that tries it.
    pub fn probe(&mut self, now: Instant) {
        self.probe = self.probe.or_else(|| self.state.breaker.probe(now));
    }

    pub(crate) fn probe_number(&self) -> Option<u32> {
        self.probe
    }

    pub(crate) fn breaker(&self) -> &Breaker {
        &self.state.breaker
    }

    /// The first sign of an answer: a response's head, or the handshake of a TCP connection. It is measured, and
    /// a penalty ends; the request stays in flight. Only the first call counts.
    pub fn answered(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.measured, true) {
            self.state.measure(now, self.seconds(now));
            self.state.forgive();
            self.state.breaker.probe_answered(self.probe, now);
        }
    }

    /// The end. What was [`answered`](InFlight::answered) is not measured again.
    pub fn finish(mut self, now: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Answered => self.answered(now),
            Outcome::Failed => {
                let seconds = self.seconds(now);
                if !self.measured && self.state.latency.get().is_some_and(|known| known < seconds) {
                    self.state.measure(now, seconds);
                }
            }
            Outcome::ConnectFailed => self.state.penalize(now),
        }
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.since).as_secs_f64()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.breaker.probe_ended(self.probe);
        // Cannot go below zero: each `InFlight` was counted by the `start` that made it.
        self.state.in_flight.set(self.state.in_flight.get().saturating_sub(1));
    }
}
