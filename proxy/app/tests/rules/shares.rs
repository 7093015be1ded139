//! Shares of many requests: weights, copies, and sessions, which go before the weights.

use crate::{
    client::Client,
    world::{World, run, service},
    written::Case,
};
use std::{collections::HashMap, rc::Rc};

const REQUESTS: u64 = 10_000;

pub fn case(rules: &str) -> Case {
    let text = format!("routes: HTTP\nrules:\n{rules}\nask: []\n");
    serde_saphyr::from_str(&text).expect("a case")
}

/// How often a pod was asked since the last call.
fn counts(world: &World) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for (pod, _) in world.programs.saw.take() {
        *counts.entry(pod).or_default() += 1;
    }
    counts
}

fn about(counted: u64, percent: u64) {
    let expected = REQUESTS * percent / 100;
    assert!(counted.abs_diff(expected) <= REQUESTS / 100, "{counted} instead of {expected}");
}

/// Of each hundred requests so many come to `v1` and `v2`; the rest, of a backend that leads nowhere, gets a 500.
#[test]
fn weights_are_kept() {
    let case = case(
        "- {backends: [{to: v1, weight: 70}, {to: v2, weight: 20}, {to: gone, weight: 10}, {to: pair, weight: 0}]}",
    );
    run(|| async move {
        let world = World::new(false);
        world.declare(case.policy());
        let mut client = Client::new(&world, false);
        let mut refused = 0;
        for _ in 0..REQUESTS {
            refused += u64::from(client.ask("GET / HTTP/1.1\nHost: shop\n").await.contains(" 500 "));
        }
        let counts = counts(&world);
        about(counts["v1-1"], 70);
        about(counts["v2-1"], 20);
        about(refused, 10);
        assert_eq!(counts.values().sum::<u64>() + refused, REQUESTS);
    });
}

#[test]
fn a_share_is_copied() {
    let case = case("- {filters: [mirror: [v2, 30]], backends: [v1]}");
    run(|| async move {
        let world = World::new(false);
        world.declare(case.policy());
        let mut client = Client::new(&world, false);
        for _ in 0..REQUESTS {
            client.ask("GET / HTTP/1.1\nHost: shop\n").await;
        }
        let counts = counts(&world);
        assert_eq!(counts["v1-1"], REQUESTS);
        about(counts["v2-1"], 30);
    });
}

const SPLIT: &str = "- {session: {cookie: shop}, backends: [v1, {to: pair, weight: 2}, {to: v2, weight: 0}]}";

/// The cookie that an answer sets.
fn cookie(answer: &str) -> Option<String> {
    let lower = answer.to_ascii_lowercase();
    let (_, rest) = lower.split_once("set-cookie: ")?;
    Some(rest.split(';').next().expect("a pair").to_owned())
}

async fn asked(world: &Rc<World>, client: &mut Client, cookie: &str) -> (String, String) {
    let answer = client.ask(&format!("GET / HTTP/1.1\nHost: shop\nCookie: {cookie}\n")).await;
    let [(pod, _)] = &world.programs.saw.take()[..] else { panic!("one is asked") };
    (pod.clone(), answer)
}

/// Each of many sessions stays where it began, whoever carries it; another proxy knows it as well.
#[test]
fn a_session_stays_where_it_began() {
    let case = case(SPLIT);
    run(|| async move {
        let (world, other) = (World::new(true), World::new(true));
        let mut clients = [Client::new(&world, false), Client::new(&other, true)];
        let worlds = [world, other];
        worlds.iter().for_each(|world| world.declare(case.policy()));
        let mut pods: HashMap<String, u64> = HashMap::new();
        for _ in 0..60 {
            let (began, answer) = asked(&worlds[0], &mut clients[0], "none=1").await;
            let cookie = cookie(&answer).expect("a new session is told");
            for (at, world) in [0, 1, 0, 1, 1].map(|at| (at, &worlds[at])) {
                let (pod, answer) = asked(world, &mut clients[at], &cookie).await;
                assert_eq!(pod, began);
                assert!(!answer.to_ascii_lowercase().contains("set-cookie"), "{answer}");
            }
            *pods.entry(began).or_default() += 1;
        }
        // They began by the weights.
        assert_eq!(pods.len(), 3, "{pods:?}");
        assert!(pods.values().all(|count| *count >= 8), "{pods:?}");
    });
}

/// Until its endpoint goes; and one whose backend has a weight no more goes on.
#[test]
fn a_session_ends_with_its_endpoint_and_not_with_the_weight() {
    let (split, none) =
        (case(SPLIT), case("- {session: {cookie: shop}, backends: [v1, {to: pair, weight: 0}]}"));
    run(|| async move {
        let world = World::new(true);
        world.declare(split.policy());
        let mut client = Client::new(&world, false);
        let (pod, cookie) = loop {
            let (pod, answer) = asked(&world, &mut client, "none=1").await;
            if pod.starts_with("pair") {
                break (pod, cookie(&answer).expect("a cookie"));
            }
        };
        world.declare(none.policy());
        for _ in 0..20 {
            assert_eq!(asked(&world, &mut client, &cookie).await.0, pod);
        }
        let gone = service("pair");
        world.script.endpoints(&gone, world.endpoints(&gone, |name| name != pod));
        let (next, answer) = asked(&world, &mut client, &cookie).await;
        assert_ne!(next, pod);
        let renewed = self::cookie(&answer).expect("a new session is told");
        assert_ne!(renewed, cookie);
        assert_eq!(asked(&world, &mut client, &renewed).await.0, next);
        // Made up, or of another rule: nobody is hurt.
        let other = format!("shop={}", "f".repeat(48));
        for wrong in [&other[..], "shop=", "shop=x", "shop", "shop==", ";;,="] {
            let (_, answer) = asked(&world, &mut client, wrong).await;
            assert!(self::cookie(&answer).is_some(), "{wrong}: {answer}");
        }
    });
}
