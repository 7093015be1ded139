//! Clients and endpoints in simulated time: what share of the requests does each endpoint get?

#![allow(clippy::disallowed_methods, reason = "an Instant to count from; no other is read")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proxy_balance::{Balancer, InFlight, Outcome, Rng};

/// A closed loop: `clients` send one request after another to endpoints that answer after `latency_us`.
struct Simulation {
    balancer: Balancer<usize>,
    rng: Rng,
    start: Instant,
    clients: usize,
    /// Microseconds between an answer and the client's next request.
    pause_us: u64,
    latency_us: fn(usize, &mut Rng) -> u64,
}

enum Event {
    Send,
    Answer(InFlight),
}

impl Simulation {
    fn new(endpoints: usize, clients: usize, latency_us: fn(usize, &mut Rng) -> u64) -> Self {
        let mut balancer = Balancer::default();
        balancer.update(0..endpoints);
        Self { balancer, rng: Rng::new(42), start: Instant::now(), clients, pause_us: 100, latency_us }
    }

    /// Requests each endpoint got until `requests` were sent.
    fn run(&mut self, requests: usize) -> Vec<usize> {
        let mut shares = vec![0; self.balancer.len()];
        // The number breaks ties, so that a run can be repeated.
        let mut events: BTreeMap<(u64, usize), Event> = BTreeMap::new();
        for number in 0..self.clients {
            events.insert((0, number), Event::Send);
        }
        let (mut sent, mut number, mut end) = (0, self.clients, self.start);
        while let Some(((us, _), event)) = events.pop_first() {
            let now = self.start + Duration::from_micros(us);
            number += 1;
            end = now;
            match event {
                Event::Answer(request) => {
                    request.finish(now, Outcome::Answered);
                    events.insert((us + self.pause_us, number), Event::Send);
                }
                Event::Send if sent == requests => {}
                Event::Send => {
                    sent += 1;
                    let picked = self.balancer.pick(now, &mut self.rng, &[]).expect("there are endpoints");
                    let (endpoint, request) = (*picked.endpoint, picked.load.start(now));
                    shares[endpoint] += 1;
                    let answer = us + (self.latency_us)(endpoint, &mut self.rng);
                    events.insert((answer, number), Event::Answer(request));
                }
            }
        }
        self.start = end; // The next run goes on from here.
        assert!(self.balancer.iter().all(|(_, load)| load.in_flight() == 0));
        shares
    }
}

fn assert_even(shares: &[usize], name: &str) {
    let even = shares.iter().sum::<usize>() / shares.len();
    for &share in shares {
        assert!(share.abs_diff(even) * 10 <= even, "{name}: {shares:?} is not within 10 % of {even}");
    }
}

#[test]
fn equals_get_equal_shares() {
    for (endpoints, clients) in [(2, 1), (2, 64), (3, 8), (5, 1), (5, 64), (20, 16)] {
        let shares = Simulation::new(endpoints, clients, |_, _| 1_000).run(10_000);
        assert_even(&shares, &format!("{endpoints} endpoints, {clients} clients"));
    }
}

#[test]
fn equals_that_waver_get_equal_shares() {
    let waver = |_, rng: &mut Rng| 800 + rng.below(400) as u64;
    assert_even(&Simulation::new(5, 16, waver).run(10_000), "±20 %");
}

#[test]
fn a_slow_endpoint_gets_little() {
    let slow = |endpoint, _: &mut Rng| if endpoint == 0 { 20_000 } else { 1_000 };
    for (endpoints, clients) in [(2, 1), (2, 8), (3, 8), (5, 16), (10, 32)] {
        let shares = Simulation::new(endpoints, clients, slow).run(10_000);
        assert!(shares[0] * 20 < 10_000, "{endpoints} endpoints, {clients} clients: {shares:?}");
        assert!(shares[0] > 0, "it is tried: {shares:?}");
    }
}

#[test]
fn a_slow_endpoint_is_tried_again_when_time_has_passed() {
    let mut simulation = Simulation::new(2, 1, |endpoint, _| if endpoint == 0 { 20_000 } else { 1_000 });
    let spoilt = simulation.run(1_000);
    assert!(spoilt[0] < 50, "{spoilt:?}");
    simulation.latency_us = |_, _| 1_000;
    simulation.pause_us = 100_000;
    // 1,000 requests last 100 s, and the memory of 20 ms has faded to 1 ms after 10 s × ln 20 = 30 s.
    let after = simulation.run(1_000);
    assert!(after[0] > 100, "it is tried: {after:?}");
    assert_even(&simulation.run(1_000), "100 s later it has recovered");
}

#[test]
fn a_newcomer_gets_its_share_at_once_and_no_more() {
    let mut simulation = Simulation::new(4, 16, |_, _| 1_000);
    simulation.run(10_000);
    simulation.balancer.update(0..5);
    assert_even(&simulation.run(5_000), "after one more has come");
}

#[test]
fn an_endpoint_that_never_answers_is_left_alone() {
    let mut balancer = Balancer::default();
    balancer.update(0..3);
    let (mut rng, start) = (Rng::new(1), Instant::now());
    let mut hanging = Vec::new();
    for number in 0..10_000 {
        let now = start + Duration::from_millis(number);
        let picked = balancer.pick(now, &mut rng, &[]).expect("there are three");
        let request = picked.load.start(now);
        match picked.endpoint {
            0 => hanging.push(request),
            _ => request.finish(now + Duration::from_micros(500), Outcome::Answered),
        }
    }
    assert!((1..=3).contains(&hanging.len()), "{} requests hang", hanging.len());
}
