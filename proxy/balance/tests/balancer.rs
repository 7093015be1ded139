//! The rules one by one: who stays, who is avoided, what a failure costs, what is measured.

#![allow(clippy::disallowed_methods, reason = "an Instant to count from; no other is read")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proxy_balance::{
    Balancer, DECAY, InFlight, Load, MAX_PENALTY, MIN_PENALTY, Outcome, PENALTY_JITTER, Rng,
};

const MS: Duration = Duration::from_millis(1);

fn balancer(endpoints: &[u16]) -> Balancer<u16> {
    let mut balancer = Balancer::default();
    balancer.update(endpoints.iter().copied());
    balancer
}

fn load(balancer: &Balancer<u16>, endpoint: u16) -> Load {
    balancer.iter().find(|(known, _)| **known == endpoint).expect("it is there").1.clone()
}

/// The endpoints that 200 picks give.
fn picks(balancer: &mut Balancer<u16>, now: Instant, avoid: &[u16]) -> BTreeSet<u16> {
    let mut rng = Rng::new(9);
    (0..200).filter_map(|_| balancer.pick(now, &mut rng, avoid).map(|picked| *picked.endpoint)).collect()
}

/// One attempt to connect that fails, with the jitter that the seed throws.
fn fail(balancer: &mut Balancer<u16>, endpoint: u16, now: Instant, seed: u64) {
    let others: Vec<u16> =
        balancer.iter().map(|(known, _)| *known).filter(|known| *known != endpoint).collect();
    let picked = balancer.pick(now, &mut Rng::new(seed), &others).expect("it is there");
    assert_eq!(*picked.endpoint, endpoint);
    picked.load.start(now).finish(now, Outcome::ConnectFailed);
}

#[test]
fn none_of_none_and_one_of_one() {
    let (mut rng, now) = (Rng::new(1), Instant::now());
    assert!(balancer(&[]).pick(now, &mut rng, &[]).is_none());

    let mut one = balancer(&[7]);
    assert_eq!(*one.pick(now, &mut rng, &[7]).expect("the only one").endpoint, 7);
    fail(&mut one, 7, now, 1);
    assert_eq!(*one.pick(now, &mut rng, &[]).expect("the only one").endpoint, 7);
    assert_eq!(rng.bits(), Rng::new(1).bits(), "no dice for one");
}

#[test]
fn an_update_keeps_what_is_known_and_returns_who_left() {
    let now = Instant::now();
    let mut balancer = balancer(&[1, 2, 3]);
    load(&balancer, 2).start(now).finish(now + 5 * MS, Outcome::Answered);
    let gone = load(&balancer, 3).start(now);
    let running = load(&balancer, 2).start(now + 5 * MS);

    assert_eq!(balancer.update([4, 2, 2, 4].into_iter()), [1, 3]);
    assert_eq!(balancer.iter().map(|(endpoint, _)| *endpoint).collect::<Vec<_>>(), [4, 2]);
    assert_eq!(load(&balancer, 2).latency(now + 5 * MS), Some(5 * MS));
    assert_eq!(load(&balancer, 2).in_flight(), 1);
    assert_eq!(load(&balancer, 4).latency(now), None);
    running.finish(now + 6 * MS, Outcome::Answered);
    assert_eq!(load(&balancer, 2).in_flight(), 0);

    // Who left and comes again begins anew, and what it still had to do ends in peace.
    assert_eq!(balancer.update([3].into_iter()), [4, 2]);
    assert_eq!(load(&balancer, 3).in_flight(), 0);
    gone.finish(now + 9 * MS, Outcome::Answered);
    assert_eq!(load(&balancer, 3).latency(now + 9 * MS), None);
    assert_eq!(balancer.update(std::iter::empty()), [3]);
    assert!(balancer.is_empty());
}

#[test]
fn the_avoided_are_the_last_resort() {
    let now = Instant::now();
    let mut balancer = balancer(&[1, 2, 3]);
    assert_eq!(picks(&mut balancer, now, &[]), BTreeSet::from([1, 2, 3]));
    assert_eq!(picks(&mut balancer, now, &[2]), BTreeSet::from([1, 3]));
    assert_eq!(picks(&mut balancer, now, &[2, 1]), BTreeSet::from([3]));
    assert_eq!(picks(&mut balancer, now, &[2, 1, 3]), BTreeSet::from([1, 2, 3]));
    assert_eq!(picks(&mut balancer, now, &[8]), BTreeSet::from([1, 2, 3]));

    fail(&mut balancer, 3, now, 1);
    assert_eq!(picks(&mut balancer, now, &[]), BTreeSet::from([1, 2]));
    assert_eq!(picks(&mut balancer, now, &[1, 2]), BTreeSet::from([3]), "penalized, but not tried yet");
    assert_eq!(picks(&mut balancer, now, &[1, 2, 3]), BTreeSet::from([1, 2]));
}

#[test]
fn when_all_are_penalized_each_is_tried() {
    let now = Instant::now();
    let mut balancer = balancer(&[1, 2, 3]);
    for endpoint in [1, 2, 3] {
        fail(&mut balancer, endpoint, now, 1);
    }
    assert_eq!(picks(&mut balancer, now, &[]), BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_penalty_doubles_and_ends() {
    let mut now = Instant::now();
    let mut balancer = balancer(&[1, 2]);
    for wanted in [1, 2, 4, 8, 16, 32, 60, 60] {
        let wanted = Duration::from_secs(wanted);
        fail(&mut balancer, 1, now, 5);
        let until = load(&balancer, 1).penalized_until(now).expect("a penalty");
        assert!(
            until - now >= wanted && until - now < wanted.mul_f64(1.0 + PENALTY_JITTER),
            "{:?}",
            until - now
        );
        assert_eq!(picks(&mut balancer, until - MS, &[]), BTreeSet::from([2]));
        assert_eq!(picks(&mut balancer, until, &[]), BTreeSet::from([1, 2]));
        now = until;
    }
    assert_eq!((MIN_PENALTY, MAX_PENALTY), (Duration::from_secs(1), Duration::from_secs(60)));

    // An answer clears all of it: the next penalty is the first again.
    load(&balancer, 1).start(now).finish(now, Outcome::Answered);
    fail(&mut balancer, 1, now, 5);
    let until = load(&balancer, 1).penalized_until(now).expect("a penalty");
    assert!(until - now < 2 * MIN_PENALTY);
    load(&balancer, 1).start(now).finish(now, Outcome::Answered);
    assert_eq!(load(&balancer, 1).penalized_until(now), None);
}

#[test]
fn penalties_differ_by_jitter() {
    let now = Instant::now();
    let lengths: BTreeSet<Duration> = (0..20)
        .map(|seed| {
            let mut balancer = balancer(&[1, 2]);
            fail(&mut balancer, 1, now, seed);
            load(&balancer, 1).penalized_until(now).expect("a penalty") - now
        })
        .collect();
    assert_eq!(lengths.len(), 20);
    assert!(*lengths.last().expect("20") - *lengths.first().expect("20") > 250 * MS);
}

#[test]
fn what_fails_together_counts_once() {
    let now = Instant::now();
    let balancer = balancer(&[1, 2]);
    let load = load(&balancer, 1);
    let together: Vec<InFlight> = (0..10).map(|_| load.start(now)).collect();
    for attempt in together {
        attempt.finish(now + MS, Outcome::ConnectFailed);
    }
    assert_eq!(load.penalized_until(now + MS), Some(now + MS + MIN_PENALTY));
}

#[test]
fn latency_rises_at_once_and_falls_slowly() {
    let now = Instant::now();
    let load = Load::default();
    load.start(now).finish(now + 10 * MS, Outcome::Answered);
    let now = now + 10 * MS;
    assert_eq!(load.latency(now), Some(10 * MS));

    load.start(now).finish(now + 100 * MS, Outcome::Answered);
    let now = now + 100 * MS;
    assert_eq!(load.latency(now), Some(100 * MS), "a peak is believed");

    load.start(now).finish(now + MS, Outcome::Answered);
    let latency = load.latency(now + MS).expect("measured");
    assert!(latency > 99 * MS && latency < 100 * MS, "one quick answer is little: {latency:?}");

    let later = now + DECAY;
    load.start(later).finish(later + MS, Outcome::Answered);
    let latency = load.latency(later + MS).expect("measured");
    // After τ: 100 ms / e + 1 ms (1 - 1 / e).
    assert!((latency.as_secs_f64() - 0.0374).abs() < 0.0002, "{latency:?}");
}

#[test]
fn an_unused_latency_fades_until_one_tries() {
    let now = Instant::now();
    let load = Load::default();
    load.start(now).finish(now + 100 * MS, Outcome::Answered);
    let later = now + 100 * MS + DECAY;
    let faded = load.latency(later).expect("measured");
    assert!((faded.as_secs_f64() - 0.0368).abs() < 0.0001, "{faded:?}");

    let trial = load.start(later);
    assert_eq!(load.latency(later), Some(100 * MS), "nobody follows before the answer");
    trial.finish(later + MS, Outcome::Answered);
    assert!(load.latency(later + MS).expect("measured") < 40 * MS);
}

#[test]
fn only_an_answer_is_measured_and_only_once() {
    let now = Instant::now();
    let load = Load::default();
    drop(load.start(now));
    load.start(now).finish(now + MS, Outcome::Failed);
    load.start(now).finish(now + MS, Outcome::ConnectFailed);
    assert_eq!((load.latency(now + MS), load.in_flight()), (None, 0));

    let mut stream = load.start(now);
    stream.connected(now + 50 * MS);
    stream.answered(now + 52 * MS);
    assert_eq!((load.latency(now + 52 * MS), load.in_flight()), (Some(2 * MS), 1));
    assert_eq!(load.penalized_until(now), None, "an answer ends the penalty");
    stream.answered(now + 90 * MS);
    stream.finish(now + 100 * MS, Outcome::Answered);
    assert_eq!((load.latency(now + 52 * MS), load.in_flight()), (Some(2 * MS), 0));

    let mut broken = load.start(now + 100 * MS);
    broken.answered(now + 102 * MS);
    broken.finish(now + 190 * MS, Outcome::Failed);
    assert!(
        load.latency(now + 102 * MS).expect("measured") <= 2 * MS,
        "the body's time is not the endpoint's"
    );

    let now = now + 200 * MS;
    load.start(now).finish(now + MS, Outcome::Failed);
    assert!(load.latency(now).expect("measured") > MS, "a quick failure is not speed");
    load.start(now).finish(now + 30 * MS, Outcome::Failed);
    assert_eq!(load.latency(now + 30 * MS), Some(30 * MS), "a slow failure is slowness");
}

#[test]
fn clocks_that_step_back_do_no_harm() {
    let now = Instant::now() + DECAY;
    let load = Load::default();
    load.start(now).finish(now + MS, Outcome::Answered);
    load.start(now).finish(now - 5 * MS, Outcome::Answered);
    assert!(load.latency(now - DECAY).expect("measured") <= MS);
}

#[test]
fn the_dice_are_fair() {
    let mut rng = Rng::new(3);
    let mut counts = [0u32; 10];
    for _ in 0..100_000 {
        counts[rng.below(10)] += 1;
        let fraction = rng.fraction();
        assert!((0.0..1.0).contains(&fraction));
    }
    assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
}

#[derive(Debug, Clone)]
enum Act {
    Update(Vec<u16>),
    Pick(Vec<u16>),
    End(prop::sample::Index, Option<Outcome>),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let outcome = prop::sample::select(vec![Outcome::Answered, Outcome::Failed, Outcome::ConnectFailed]);
    prop_oneof![
        1 => prop::collection::vec(0u16..6, 0..6).prop_map(Act::Update),
        6 => prop::collection::vec(0u16..6, 0..4).prop_map(Act::Pick),
        4 => (any::<prop::sample::Index>(), prop::option::of(outcome)).prop_map(|(at, how)| Act::End(at, how)),
        2 => (0u64..5_000).prop_map(Act::Pass),
    ]
}

proptest! {
    /// Against a model that knows the set, and what is in flight where.
    #[test]
    fn whatever_happens(acts in prop::collection::vec(act(), 1..200), seed in any::<u64>()) {
        let (mut rng, mut now) = (Rng::new(seed), Instant::now());
        let mut balancer: Balancer<u16> = Balancer::default();
        let mut set = BTreeSet::new();
        // The load is kept, to tell an endpoint from a later one of the same name.
        let mut running: Vec<(Load, InFlight)> = Vec::new();
        for act in acts {
            match act {
                Act::Update(endpoints) => {
                    let removed = BTreeSet::from_iter(balancer.update(endpoints.iter().copied()));
                    let next = BTreeSet::from_iter(endpoints);
                    prop_assert_eq!(removed, &set - &next);
                    set = next;
                    prop_assert_eq!(balancer.len(), set.len());
                }
                Act::Pick(avoid) => {
                    let penalized: BTreeSet<u16> = balancer
                        .iter()
                        .filter(|(_, load)| load.penalized_until(now).is_some())
                        .map(|(endpoint, _)| *endpoint)
                        .collect();
                    let fresh = &set - &BTreeSet::from_iter(avoid.iter().copied());
                    let Some(picked) = balancer.pick(now, &mut rng, &avoid) else {
                        prop_assert!(set.is_empty());
                        continue;
                    };
                    let endpoint = *picked.endpoint;
                    prop_assert!(set.contains(&endpoint));
                    prop_assert!(fresh.is_empty() || fresh.contains(&endpoint));
                    let pool = if fresh.is_empty() { &set } else { &fresh };
                    prop_assert!(pool.is_subset(&penalized) || !penalized.contains(&endpoint));
                    running.push((picked.load.clone(), picked.load.start(now)));
                }
                Act::End(at, how) if !running.is_empty() => {
                    let (load, request) = running.swap_remove(at.index(running.len()));
                    let before = load.in_flight();
                    match how {
                        Some(outcome) => request.finish(now, outcome),
                        None => drop(request),
                    }
                    prop_assert_eq!(load.in_flight() + 1, before);
                }
                Act::End(..) => {}
                Act::Pass(ms) => now += Duration::from_millis(ms),
            }
            let total: u32 = balancer.iter().map(|(_, load)| load.in_flight()).sum();
            prop_assert!(total as usize <= running.len());
        }
        running.clear();
        prop_assert!(balancer.iter().all(|(_, load)| load.in_flight() == 0));
    }
}
