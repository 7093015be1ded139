//! What is sent once more, how often, when and where, and what that may cost.

use crate::world::{Does, Seen, World, ms, run, set};
use policy::{
    BackendSettings, Reason, Settings,
    settings::{Retry, RetryBudget, Timeouts},
};
use std::time::Duration;

fn retries(retry: Retry) -> Settings {
    Settings { retry, ..Settings::default() }
}

fn on_503(attempts: u32) -> Retry {
    Retry { http_codes: set(vec![503]), attempts: set(attempts), ..Retry::default() }
}

/// Fails so often, then not.
fn fails(times: usize, how: Does) -> impl Fn(&World, &Seen) -> Does + 'static {
    move |world, _| if world.count() <= times { how.clone() } else { Does::Status(200) }
}

#[test]
fn a_status_that_a_rule_names_is_hidden_from_the_client() {
    for (method, attempts, times, expected, seen) in [
        ("GET", 3, 2, 200, 3),
        // The user said so, of every method.
        ("POST", 3, 2, 200, 3),
        ("GET", 1, 2, 503, 2),
        ("GET", 0, 2, 503, 1),
    ] {
        let does = fails(times, Does::Status(503));
        run(2, retries(on_503(attempts)), BackendSettings::default(), does, |world| async move {
            let body = if method == "POST" { "body" } else { "" };
            let heard = world.ask(method, body).await;
            assert_eq!((heard.status, world.count()), (expected, seen), "{method} {attempts}: {heard:?}");
            // The last answer, as it is.
            assert!(heard.text.contains("X-Endpoint: ") && !heard.text.contains("Proxy-Status"), "{heard:?}");
            assert!(world.seen().iter().all(|seen| seen.body == body.as_bytes()));
            assert_eq!(world.metric("weft_retries_total", "repeated"), seen as u64 - 1);
            assert_eq!(world.lines()[0]["weft.attempts"], seen);
        });
    }
}

#[test]
fn other_statuses_and_requests_without_a_rule_are_sent_once() {
    for settings in [retries(on_503(3)), Settings::default()] {
        run(
            2,
            settings,
            BackendSettings::default(),
            |_, _| Does::Status(500),
            |world| async move {
                assert_eq!((world.get().await.status, world.count()), (500, 1));
            },
        );
    }
}

#[test]
fn another_endpoint_is_tried_unless_a_rule_says_otherwise() {
    run(
        3,
        retries(on_503(2)),
        BackendSettings::default(),
        |_, _| Does::Status(503),
        |world| async move {
            world.get().await;
            let mut endpoints: Vec<_> = world.seen().iter().map(|seen| seen.endpoint).collect();
            endpoints.sort();
            assert_eq!(endpoints, [0, 1, 2]);
        },
    );
    let same = Retry { other_host: set(false), ..on_503(9) };
    run(
        2,
        retries(same),
        BackendSettings::default(),
        |_, _| Does::Status(503),
        |world| async move {
            world.get().await;
            let seen = world.seen();
            assert!(seen.windows(2).any(|two| two[0].endpoint == two[1].endpoint), "{seen:?}");
        },
    );
}

#[test]
fn pauses_are_at_least_as_long_as_asked_and_grow_by_chance() {
    let retry =
        Retry { backoff_base: set(ms(100)), backoff_max: set(ms(500)), other_host: set(false), ..on_503(6) };
    let ample = BackendSettings {
        budget: set(RetryBudget { min_count: 1_000, ..RetryBudget::default() }),
        ..BackendSettings::default()
    };
    run(
        1,
        retries(retry),
        ample,
        |_, _| Does::Status(503),
        |world| async move {
            let mut longest = Duration::ZERO;
            for _ in 0..50 {
                let before = world.count();
                world.get().await;
                let seen = &world.seen()[before..];
                assert_eq!(seen.len(), 7);
                for (number, two) in seen.windows(2).enumerate() {
                    let pause = two[1].at - two[0].at;
                    let most = ms((100 << (number + 1)).min(500)) + ms(1);
                    assert!(pause >= ms(100) && pause <= most, "{pause:?} after {number}");
                    longest = longest.max(pause);
                }
            }
            assert!(longest > ms(400), "{longest:?}");
        },
    );
}

#[test]
fn a_body_that_is_too_long_is_sent_once() {
    for (limit, length, seen) in [
        (None, 64 * 1024, 2),
        (None, 64 * 1024 + 1, 1),
        (Some(10), 10, 2),
        (Some(10), 11, 1),
        (Some(1 << 20), 1 << 19, 2),
    ] {
        let retry = Retry { body_limit: limit.and_then(set), ..on_503(1) };
        run(
            1,
            retries(retry),
            BackendSettings::default(),
            fails(1, Does::Status(503)),
            move |world| async move {
                let body = "b".repeat(length);
                let heard = world.post(&body).await;
                assert_eq!(world.count(), seen, "{limit:?} {length}");
                assert_eq!(heard.status, if seen == 2 { 200 } else { 503 });
                assert!(world.seen().iter().all(|seen| seen.body == body.as_bytes()));
            },
        );
    }
}

#[test]
fn attempts_that_take_too_long_are_made_again_within_the_time_of_the_whole() {
    let retry = Retry { attempts: set(3), per_try_timeout: set(ms(1_000)), ..Retry::default() };
    run(2, retries(retry.clone()), BackendSettings::default(), fails(1, Does::Nothing), |world| async move {
        let heard = world.get().await;
        assert!(heard.status == 200 && heard.took < ms(1_100), "{heard:?}");
        assert_eq!(*world.given_up.borrow(), 1);
    });
    // Nobody can tell whether a POST was executed.
    run(2, retries(retry.clone()), BackendSettings::default(), fails(1, Does::Nothing), |world| async move {
        assert_eq!((world.post("b").await.status, world.count()), (504, 1));
    });
    let timeouts = Timeouts { request: set(ms(2_500)), ..Timeouts::default() };
    let settings = Settings { timeouts, ..retries(retry) };
    run(
        2,
        settings,
        BackendSettings::default(),
        |_, _| Does::Nothing,
        |world| async move {
            let heard = world.get().await;
            assert_eq!((heard.status, heard.took), (504, ms(2_500)), "{heard:?}");
            assert!(heard.text.contains("timeouts.request"), "{heard:?}");
            assert_eq!(world.count(), 3);
        },
    );
}

#[test]
fn nothing_is_repeated_once_the_client_has_a_part_of_an_answer() {
    let retry = Retry { reasons: set(Reason::ALL.to_vec()), attempts: set(3), ..Retry::default() };
    let timeouts = Timeouts { stream_idle: set(ms(50)), ..Timeouts::default() };
    let settings = Settings { timeouts, ..retries(retry) };
    run(
        2,
        settings,
        BackendSettings::default(),
        |_, _| Does::Drips(5, ms(100)),
        |world| async move {
            let heard = world.get().await;
            assert!(heard.status == 200 && !heard.whole, "{heard:?}");
            assert_eq!(world.count(), 1);
        },
    );
}

#[test]
fn what_reached_nobody_is_sent_again_whatever_a_rule_says_and_then_by_it() {
    // Two endpoints that nobody listens at, and one that appears later.
    let retry = Retry {
        attempts: set(2),
        backoff_base: set(ms(1_000)),
        reasons: set(vec![Reason::ConnectionRefused]),
        ..Retry::default()
    };
    run(
        1,
        retries(retry),
        BackendSettings::default(),
        |_, _| Does::Status(200),
        |world| async move {
            let nobody: Vec<_> = [7, 8].map(crate::world::address).into();
            world.endpoints(&nobody);
            let come = async {
                tokio::time::sleep(ms(500)).await;
                world.endpoints(&[crate::world::address(0)]);
            };
            let (heard, ()) = tokio::join!(world.post("b"), come);
            assert_eq!((heard.status, world.count()), (200, 1), "{heard:?}");
            assert_eq!(world.metric("weft_replays_total", "connection_refused"), 1);
            assert_eq!(world.metric("weft_retries_total", "repeated"), 1);
            // What a policy has done again is nothing that the proxy has answered.
            assert_eq!(world.metric("weft_reasons_total", ""), 0);
        },
    );
}

#[test]
fn at_total_failure_the_load_stays_within_the_budget() {
    let budget = RetryBudget { min_count: 1, ..RetryBudget::default() };
    let backend = BackendSettings { budget: set(budget), ..BackendSettings::default() };
    run(
        3,
        retries(on_503(5)),
        backend,
        |_, _| Does::Status(503),
        |world| async move {
            let requests = 500;
            for number in 0..requests {
                assert_eq!(world.get().await.status, 503, "{number}");
                tokio::time::sleep(ms(20)).await;
            }
            let seconds = tokio::time::Instant::now();
            let _ = seconds;
            let took = world.seen().last().expect("a request").at.as_secs() as usize + 1;
            let count = world.count();
            assert!(count <= requests * 12 / 10 + took, "{count} in {took} s");
            assert!(count >= requests * 115 / 100, "{count}");
            assert!(world.metric("weft_retries_total", "retry_budget_exhausted") > 100);
            let lines = world.lines();
            let out = lines.iter().filter(|line| line["weft.retry"] == "retry_budget_exhausted").count();
            assert!(out > 100, "{out}");
        },
    );
}

#[test]
fn what_a_rule_sent_elsewhere_comes_back_when_nobody_is_there() {
    // The other endpoint is dead: the answer that there was is better than none.
    run(
        1,
        retries(on_503(2)),
        BackendSettings::default(),
        |_, _| Does::Status(503),
        |world| async move {
            world.endpoints(&[0, 7].map(crate::world::address));
            for _ in 0..20 {
                assert_eq!(world.get().await.status, 503);
            }
        },
    );
}
