//! When an endpoint that fails gets nothing for a while, and who tries it then.
//!
//! ```text
//!            so many failures in a row            the pause is over
//!  closed ──────────────────────────────> open ──────────────────────> one request probes it
//!    ^                                      ^                             │          │
//!    │                                      └── it fails: a longer pause ─┘          │
//!    └──────────────────────────────────────────────────────────── it is answered ───┘
//! ```

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::Rng;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accrual {
    /// Failures in a row that open it.
    pub max_failures: u32,
    /// The first pause; each further one without a success between them is twice as long.
    pub min_penalty: Duration,
    /// The longest one, before jitter.
    pub max_penalty: Duration,
    /// Basis points by which a pause is longer at most.
    pub jitter: u32,
    /// Percent of the endpoints that may be out at once; one may always be.
    pub max_ejection: u32,
}

impl Accrual {
    /// How many of so many endpoints may be out at once.
    pub(crate) fn most(&self, endpoints: usize) -> usize {
        (endpoints * self.max_ejection as usize / 100).max(1)
    }

    /// The pause after so many others.
    fn pause(&self, before: u32, rng: &mut Rng) -> Duration {
        let doubled = self.min_penalty.saturating_mul(2u32.saturating_pow(before)).min(self.max_penalty);
        let jitter = f64::from(self.jitter) / 10_000.0;
        doubled.saturating_add(doubled.mul_f64(jitter * rng.fraction()))
    }
}

/// What became of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switched {
    /// Its endpoint gets nothing from now on.
    Opened,
    /// It gets its share again.
    Closed,
}

/// The breaker of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// In a row.
    failures: Cell<u32>,
    /// `None`: closed.
    open_until: Cell<Option<Instant>>,
    /// Pauses since the last success.
    pauses: Cell<u32>,
    /// The request that tries it, by the number of its probe.
    probe: Cell<Option<u32>>,
    /// How many have tried it.
    probes: Cell<u32>,
    /// When that one was answered; its end may be far.
    answered: Cell<Option<Instant>>,
    /// That it opened has been told, and not yet that it closed.
    told: Cell<bool>,
}

impl Breaker {
    pub(crate) fn is_open(&self) -> bool {
        self.open_until.get().is_some()
    }

    /// May a request try it now?
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.probe.get().is_none() && self.open_until.get().is_some_and(|until| until <= now)
    }

    /// A request tries it, if it is time for one: its number.
    pub(crate) fn probe(&self, now: Instant) -> Option<u32> {
        if !self.is_due(now) {
            return None;
        }
        self.probes.set(self.probes.get().wrapping_add(1));
        self.probe.set(Some(self.probes.get()));
        self.answered.set(None);
        self.probe.get()
    }

    fn is_probe(&self, probe: Option<u32>) -> bool {
        probe.is_some() && probe == self.probe.get()
    }

    /// The probe has the head of its answer.
    pub(crate) fn probe_answered(&self, probe: Option<u32>, now: Instant) {
        if self.is_probe(probe) {
            self.answered.set(Some(now));
        }
    }

    /// The probe is over. If nobody has judged it, the next one may try.
    pub(crate) fn probe_ended(&self, probe: Option<u32>) {
        if self.is_probe(probe) {
            self.probe.set(None);
        }
    }

    /// A probe whose answer has gone on for a while without failing is one that has succeeded.
    pub(crate) fn lasts(&self, now: Instant, accrual: &Accrual) -> bool {
        self.probe.get().is_some()
            && self.answered.get().is_some_and(|at| now.saturating_duration_since(at) >= accrual.min_penalty)
    }

    pub(crate) fn close(&self) {
        self.probe.set(None);
        self.failures.set(0);
        self.pauses.set(0);
        self.open_until.set(None);
    }

    /// A request has ended well.
    pub(crate) fn succeeded(&self, probe: Option<u32>) -> Option<Switched> {
        if self.is_open() && !self.is_probe(probe) {
            // It was under way before.
            return None;
        }
        self.close();
        self.told.take().then_some(Switched::Closed)
    }

    /// A request has failed. `may_open`: not too many others are open.
    pub(crate) fn failed(
        &self,
        now: Instant,
        probe: Option<u32>,
        accrual: &Accrual,
        rng: &mut Rng,
        may_open: impl FnOnce() -> bool,
    ) -> Option<Switched> {
        let was_open = self.is_open();
        if was_open && !self.is_probe(probe) {
            return None;
        }
        self.failures.set(self.failures.get().saturating_add(1));
        if !was_open && (self.failures.get() < accrual.max_failures || !may_open()) {
            return None;
        }
        let pause = accrual.pause(self.pauses.get(), rng);
        self.pauses.set(self.pauses.get().saturating_add(1));
        // A pause too long for the clock lasts for as long as it is.
        self.open_until.set(Some(now.checked_add(pause).unwrap_or(now + Accrual::LONGEST)));
        (!self.told.replace(true)).then_some(Switched::Opened)
    }
}

impl Accrual {
    /// A pause that no clock can be asked for is cut to this.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
}
