//! The set of endpoints and the choice among them.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{BuildHasherDefault, Hash};
use std::time::Instant;

use crate::{Accrual, InFlight, Load, Rng, Switched};

/// The endpoints of one backend, as one worker sees them.
///
/// `E` is what makes an endpoint itself: its address and the identity expected there, since pod addresses are
/// used again. A different identity is another endpoint.
#[derive(Debug)]
pub struct Balancer<E> {
    slots: Vec<Slot<E>>,
    /// A breaker may be open: without one, none is looked at.
    tripped: bool,
}

#[derive(Debug)]
struct Slot<E> {
    endpoint: E,
    load: Load,
}

/// The choice for one attempt.
#[derive(Debug)]
pub struct Picked<'a, E> {
    /// Where it goes.
    pub endpoint: &'a E,
    /// To be told of it, by [`Load::start`].
    pub load: Load,
}

/// Why none was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoChoice {
    /// There is no endpoint.
    Empty,
    /// The breakers of all are open, so many.
    Open(usize),
}

impl<E> Default for Balancer<E> {
    fn default() -> Self {
        Self { slots: Vec::new(), tripped: false }
    }
}

impl<E: Clone + Eq + Hash> Balancer<E> {
    /// Takes the endpoints that there are from now on. Those that stay keep what is known of them; those that
    /// left are returned, for their pools to be dropped. An endpoint named twice is one.
    pub fn update(&mut self, endpoints: impl Iterator<Item = E>) -> Vec<E> {
        let before = std::mem::take(&mut self.slots);
        // A hasher with a fixed key: the endpoints come from the control plane, and equal runs stay equal.
        let mut places: HashMap<E, usize, BuildHasherDefault<DefaultHasher>> = HashMap::default();
        for endpoint in endpoints {
            if let Entry::Vacant(place) = places.entry(endpoint) {
                let slot = Slot { endpoint: place.key().clone(), load: Load::default() };
                place.insert(self.slots.len());
                self.slots.push(slot);
            }
        }
        let mut removed = Vec::new();
        for slot in before {
            match places.get(&slot.endpoint) {
                Some(&place) => self.slots[place] = slot,
                None => removed.push(slot.endpoint),
            }
        }
        removed
    }

    /// Chooses the endpoint for one attempt; `None` only when there is no endpoint.
    ///
    /// `avoid` are those that this request has tried already. First come those that are neither avoided nor
    /// penalized, by the power of two choices; then the penalized; then the avoided, since to try again where it
    /// failed is better than not to try.
    pub fn pick(&mut self, now: Instant, rng: &mut Rng, avoid: &[E]) -> Option<Picked<'_, E>> {
        let index = match self.slots.len() {
            0 => return None,
            1 => 0,
            count => {
                let index = self.choose(count, |at| at, now, rng, avoid);
                self.slots[index].load.prepare_jitter(rng.fraction());
                index
            }
        };
        let Slot { endpoint, load } = &self.slots[index];
        Some(Picked { endpoint, load: load.clone() })
    }

    /// The same, of those whose breakers are closed. One whose pause is over gets this request, if no other one tries it already: it
    /// is to be told so, by [`InFlight::probe`].
    pub fn pick_closed(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        avoid: &[E],
        accrual: &Accrual,
    ) -> Result<Picked<'_, E>, NoChoice> {
        self.close_lasting(now, accrual);
        if !self.tripped {
            return self.pick(now, rng, avoid).ok_or(NoChoice::Empty);
        }
        let due = |slot: &Slot<E>| slot.load.breaker().is_due(now);
        let probe = self.slots.iter().position(|slot| due(slot) && !avoid.contains(&slot.endpoint));
        let index = match probe {
            Some(index) => index,
            None => {
                let closed: Vec<usize> =
                    (0..self.slots.len()).filter(|&at| !self.slots[at].load.is_open()).collect();
                match closed[..] {
                    [] => self.slots.iter().position(due).ok_or(NoChoice::Open(self.slots.len()))?,
                    [only] => only,
                    _ => self.choose(closed.len(), |at| closed[at], now, rng, avoid),
                }
            }
        };
        let Slot { endpoint, load } = &self.slots[index];
        load.prepare_jitter(rng.fraction());
        Ok(Picked { endpoint, load: load.clone() })
    }

    /// Tells the breaker of a request's endpoint how it has ended, before that is over. What has become of the breaker, if anything.
    pub fn judge(
        &mut self,
        request: &InFlight,
        good: bool,
        now: Instant,
        accrual: &Accrual,
        rng: &mut Rng,
    ) -> Option<Switched> {
        let breaker = request.breaker();
        if good {
            return breaker.succeeded(request.probe_number());
        }
        let slots = &self.slots;
        let may_open = || {
            let open = slots.iter().filter(|slot| slot.load.is_open()).count();
            open < accrual.most(slots.len())
        };
        let switched = breaker.failed(now, request.probe_number(), accrual, rng, may_open);
        self.tripped |= breaker.is_open();
        switched
    }

    /// Closes the breakers whose probes are answered for long, and takes note when none is open any more.
    fn close_lasting(&mut self, now: Instant, accrual: &Accrual) {
        if self.tripped {
            for slot in &self.slots {
                if slot.load.breaker().lasts(now, accrual) {
                    slot.load.breaker().close();
                }
            }
            self.tripped = self.slots.iter().any(|slot| slot.load.is_open());
        }
    }

    /// The endpoints and what is known of them, in the order of the last update.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&E, &Load)> {
        self.slots.iter().map(|slot| (&slot.endpoint, &slot.load))
    }

    /// How many endpoints there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// One of `count` slots, which are at least 2; `slot` says which the first is, and so on.
    fn choose(
        &self,
        count: usize,
        slot: impl Fn(usize) -> usize,
        now: Instant,
        rng: &mut Rng,
        avoid: &[E],
    ) -> usize {
        let (one, other) = two_below(count, rng);
        let (one, other) = (slot(one), slot(other));
        let rank = |index: usize| Rank::of(&self.slots[index], now, avoid);
        // Nearly always both are good, and nothing more is looked at.
        if rank(one) == Rank::Good && rank(other) == Rank::Good {
            return self.lighter(one, other, now);
        }
        let all = || (0..count).map(&slot);
        let best = all().map(rank).min().expect("there are at least two");
        let nth = |n| all().filter(|&index| rank(index) == best).nth(n).expect("n is below their count");
        match all().filter(|&index| rank(index) == best).count() {
            1 => nth(0),
            equals if best.penalized() => nth(rng.below(equals)), // Their latency says nothing now.
            equals => {
                let (one, other) = two_below(equals, rng);
                self.lighter(nth(one), nth(other), now)
            }
        }
    }

    fn lighter(&self, one: usize, other: usize, now: Instant) -> usize {
        if self.slots[one].load.lighter(&self.slots[other].load, now) { one } else { other }
    }
}

/// Two different numbers below `count`, which is at least 2, in random order.
fn two_below(count: usize, rng: &mut Rng) -> (usize, usize) {
    let one = rng.below(count);
    let other = rng.below(count - 1);
    (one, if other < one { other } else { other + 1 })
}

/// The better comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Good,
    Penalized,
    Avoided,
    AvoidedAndPenalized,
}

impl Rank {
    fn of<E: Eq>(slot: &Slot<E>, now: Instant, avoid: &[E]) -> Self {
        match (avoid.contains(&slot.endpoint), slot.load.penalized_until(now).is_some()) {
            (false, false) => Rank::Good,
            (false, true) => Rank::Penalized,
            (true, false) => Rank::Avoided,
            (true, true) => Rank::AvoidedAndPenalized,
        }
    }

    fn penalized(self) -> bool {
        matches!(self, Rank::Penalized | Rank::AvoidedAndPenalized)
    }
}
