//! Budgets and breakers: what repetitions may add, who is left out, and who tries it then.

#![allow(clippy::disallowed_methods, reason = "an Instant to count from; no other is read")]

use std::time::{Duration, Instant};

use proptest::{collection::vec, prelude::*};
use proxy_balance::{
    Accrual, Balancer, Budget, BudgetLimits, InFlight, Load, NoChoice, Outcome, Rng, Switched,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

const LIMITS: BudgetLimits =
    BudgetLimits { percent: 20, interval: Duration::from_secs(10), min_count: 10, min_interval: SECOND };

const ACCRUAL: Accrual = Accrual {
    max_failures: 3,
    min_penalty: SECOND,
    max_penalty: Duration::from_secs(4),
    jitter: 0,
    max_ejection: 100,
};

#[test]
fn a_fifth_is_repeated_and_a_few_at_any_time() {
    let (begin, mut budget) = (Instant::now(), Budget::new(LIMITS));
    let granted = |budget: &mut Budget, now| (0..1_000).filter(|_| budget.withdraw(now)).count();
    // Without any request, only what is always allowed, once a second.
    assert_eq!(granted(&mut budget, begin), 10);
    assert_eq!(granted(&mut budget, begin + 999 * MS), 0);
    assert_eq!(granted(&mut budget, begin + SECOND), 10);
    let later = begin + 60 * SECOND;
    for _ in 0..1_000 {
        budget.request(later);
    }
    assert_eq!(granted(&mut budget, later), 200);
    // What is always allowed is in the share where that is larger.
    assert_eq!(granted(&mut budget, later + 9 * SECOND), 10);
    assert_eq!(granted(&mut budget, later + 20 * SECOND), 10);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// At total failure each request asks for as many repetitions as it may: the load is never more than 1.2 of what it was, and
    /// the few that are always allowed.
    #[test]
    fn at_total_failure_the_load_stays_within_the_budget(
        percent in 0..100u32, min_count in 0..5u32, gaps in vec((0..3_000u64, 1..60u32), 1..200), attempts in 1..6u32,
    ) {
        let limits = BudgetLimits { percent, min_count, ..LIMITS };
        let (begin, mut budget) = (Instant::now(), Budget::new(limits));
        let (mut now, mut requests, mut repetitions) = (begin, 0u64, 0u64);
        for (gap, burst) in gaps {
            now += Duration::from_millis(gap);
            for _ in 0..burst {
                budget.request(now);
                requests += 1;
                repetitions += (0..attempts).filter(|_| budget.withdraw(now)).count() as u64;
            }
            let seconds = (now - begin).as_secs() + 1;
            let always = u64::from(min_count) * seconds;
            prop_assert!(repetitions * 100 <= requests * u64::from(percent) + always * 100, "{} of {} in {} s", repetitions, requests, seconds);
        }
    }

    /// Whatever happens, nobody is sent to an open breaker but one probe at a time, and not more are out than may be.
    #[test]
    fn an_open_breaker_lets_one_request_through(
        endpoints in 1..6usize, max_ejection in 0..=100u32, seed in any::<u64>(), steps in vec((0..2_000u64, 0..10usize, any::<bool>()), 1..300),
    ) {
        let accrual = Accrual { max_ejection, jitter: 5_000, ..ACCRUAL };
        let mut world = World::new(endpoints, accrual, seed);
        let most = (endpoints * max_ejection as usize / 100).max(1);
        let mut running: Vec<(usize, bool, InFlight)> = Vec::new();
        for (gap, which, good) in steps {
            world.now += Duration::from_millis(gap);
            if which < 5 && which < running.len() {
                let (_, _, request) = running.swap_remove(which);
                world.end(request, good);
            } else if let Ok((endpoint, request)) = world.pick(&[]) {
                let open = world.load(endpoint).is_open();
                let probes = running.iter().filter(|(other, probe, _)| *probe && *other == endpoint).count();
                prop_assert!(!open || probes == 0, "two probes of {}", endpoint);
                running.push((endpoint, open, request));
            }
            // Probes that were answered long ago have closed theirs.
            let open = (0..endpoints).filter(|&endpoint| world.load(endpoint).is_open()).count();
            prop_assert!(open <= most, "{} of {} are out", open, endpoints);
        }
    }
}

struct World {
    balancer: Balancer<usize>,
    accrual: Accrual,
    rng: Rng,
    now: Instant,
}

impl World {
    fn new(endpoints: usize, accrual: Accrual, seed: u64) -> Self {
        let mut balancer = Balancer::default();
        balancer.update(0..endpoints);
        Self { balancer, accrual, rng: Rng::new(seed), now: Instant::now() }
    }

    fn load(&self, endpoint: usize) -> Load {
        self.balancer.iter().find(|(known, _)| **known == endpoint).expect("it is there").1.clone()
    }

    fn pick(&mut self, avoid: &[usize]) -> Result<(usize, InFlight), NoChoice> {
        let picked = self.balancer.pick_closed(self.now, &mut self.rng, avoid, &self.accrual)?;
        let (endpoint, mut request) = (*picked.endpoint, picked.load.start(self.now));
        request.probe(self.now);
        Ok((endpoint, request))
    }

    fn end(&mut self, request: InFlight, good: bool) -> Option<Switched> {
        let switched = self.balancer.judge(&request, good, self.now, &self.accrual, &mut self.rng);
        request.finish(self.now, if good { Outcome::Answered } else { Outcome::Failed });
        switched
    }

    fn fail(&mut self, endpoint: usize) -> Option<Switched> {
        let request = self.load(endpoint).start(self.now);
        self.end(request, false)
    }
}

#[test]
fn failures_in_a_row_open_it_and_pauses_grow_until_a_success() {
    let mut world = World::new(1, ACCRUAL, 1);
    let (_, request) = world.pick(&[]).expect("one");
    assert_eq!([world.fail(0), world.fail(0)], [None; 2]);
    assert_eq!(world.end(request, true), None, "a success ends the row");
    assert_eq!([world.fail(0), world.fail(0), world.fail(0)], [None, None, Some(Switched::Opened)]);
    for pause in [1, 2, 4, 4] {
        assert_eq!(world.pick(&[]).err(), Some(NoChoice::Open(1)));
        world.now += pause * SECOND - MS;
        assert_eq!(world.pick(&[]).err(), Some(NoChoice::Open(1)), "{pause} s are not over");
        world.now += MS;
        let (_, probe) = world.pick(&[]).expect("the pause is over");
        // However many wait.
        assert!((0..100).all(|_| world.pick(&[]).err() == Some(NoChoice::Open(1))));
        assert_eq!(world.end(probe, false), None);
    }
    world.now += 4 * SECOND;
    let (_, probe) = world.pick(&[]).expect("the pause is over");
    drop(probe);
    let (_, probe) = world.pick(&[]).expect("nobody has judged the last one");
    assert_eq!(world.end(probe, true), Some(Switched::Closed));
    assert!((0..100).all(|_| world.pick(&[]).is_ok()));
    // From the beginning.
    assert_eq!([world.fail(0), world.fail(0), world.fail(0)], [None, None, Some(Switched::Opened)]);
    world.now += SECOND;
    assert!(world.pick(&[]).is_ok());
}

#[test]
fn what_was_under_way_before_says_nothing_of_an_open_breaker() {
    let mut world = World::new(2, ACCRUAL, 1);
    let early: Vec<_> = (0..4).map(|_| world.load(0).start(world.now)).collect();
    for _ in 0..3 {
        world.fail(0);
    }
    for (request, good) in early.into_iter().zip([true, false, true, false]) {
        assert_eq!(world.end(request, good), None);
    }
    assert!(world.load(0).is_open());
    for _ in 0..100 {
        assert_eq!(world.pick(&[1]).expect("there is another one").0, 1, "even if it was tried before");
    }
}

#[test]
fn a_probe_whose_answer_goes_on_for_long_has_succeeded() {
    let mut world = World::new(1, ACCRUAL, 1);
    for _ in 0..3 {
        world.fail(0);
    }
    world.now += SECOND;
    let (_, mut probe) = world.pick(&[]).expect("the pause is over");
    probe.answered(world.now);
    world.now += SECOND - MS;
    assert!(world.pick(&[]).is_err());
    world.now += MS;
    assert!(world.pick(&[]).is_ok() && world.pick(&[]).is_ok());
    assert_eq!(world.end(probe, true), Some(Switched::Closed));
}

#[test]
fn not_more_are_out_than_may_be() {
    for (endpoints, max_ejection, most) in [(4, 50, 2), (4, 0, 1), (1, 50, 1), (3, 100, 3), (3, 50, 1)] {
        let mut world = World::new(endpoints, Accrual { max_ejection, ..ACCRUAL }, 1);
        let opened = (0..endpoints)
            .filter(|&endpoint| (0..9).any(|_| world.fail(endpoint) == Some(Switched::Opened)))
            .count();
        assert_eq!(opened, most, "of {endpoints}, {max_ejection} %");
        assert_eq!(world.pick(&[]).is_ok(), most < endpoints);
    }
}
