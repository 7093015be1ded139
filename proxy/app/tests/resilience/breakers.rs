//! Endpoints that fail too often get nothing for a while, and then one request.

use crate::world::{Does, Seen, World, ms, run, set};
use policy::{
    BackendSettings, Settings,
    settings::{FailureAccrual, Retry},
};
use std::{cell::Cell, rc::Rc, time::Duration};
use tokio::time::sleep;

fn accrual(max_failures: u32, max_ejection: u32) -> BackendSettings {
    let accrual = FailureAccrual { max_failures, jitter: 0, max_ejection, ..FailureAccrual::default() };
    BackendSettings { accrual: set(accrual), ..BackendSettings::default() }
}

#[test]
fn an_endpoint_that_fails_is_left_out_and_tried_by_one_request() {
    let ill = Rc::new(Cell::new(true));
    let does = {
        let ill = ill.clone();
        move |_: &World, seen: &Seen| match (seen.endpoint, ill.get()) {
            (0, true) => Does::Status(500),
            // Slow enough for others to come meanwhile.
            _ => Does::Late(ms(10), 200),
        }
    };
    run(2, Settings::default(), accrual(3, 50), does, |world| async move {
        for _ in 0..100 {
            world.get().await;
        }
        let of_first = |from: usize| world.seen()[from..].iter().filter(|seen| seen.endpoint == 0).count();
        assert_eq!(of_first(0), 3);
        assert_eq!(world.metric("weft_breakers_open", "10.0.1.1:8080"), 1);
        // The pause ends: of many that come at once, one tries it, and the next pause is longer.
        for (pause, probes) in [(1_100, 1), (1_000, 0), (1_100, 1)] {
            sleep(ms(pause)).await;
            let before = world.count();
            let many: Vec<_> = (0..50).map(|_| world.get()).collect();
            futures_util::future::join_all(many).await;
            assert_eq!(of_first(before), probes, "after {pause} ms");
        }
        ill.set(false);
        sleep(Duration::from_secs(60)).await;
        world.get().await;
        assert_eq!(world.metric("weft_breakers_open", "10.0.1.1:8080"), 0);
        let before = world.count();
        for _ in 0..50 {
            assert_eq!(world.get().await.status, 200);
        }
        assert!(of_first(before) > 5, "it has its share again");
    });
}

#[test]
fn when_nothing_is_left_the_circuit_is_open() {
    run(
        1,
        Settings::default(),
        accrual(3, 50),
        |_, _| Does::Reset,
        |world| async move {
            for _ in 0..3 {
                assert_eq!(world.get().await.status, 502);
            }
            let before = world.count();
            let heard = world.get().await;
            assert_eq!((heard.status, world.count()), (503, before), "{heard:?}");
            assert!(heard.text.contains("error=circuit_open"), "{heard:?}");
            assert!(heard.text.contains("(failureAccrual of TrafficPolicy shop/mine)"), "{heard:?}");
            assert_eq!(world.metric("weft_reasons_total", "circuit_open"), 1);
            // However many wait for the pause to end.
            sleep(ms(1_100)).await;
            let many: Vec<_> = (0..50).map(|_| world.get()).collect();
            let heard = futures_util::future::join_all(many).await;
            assert_eq!(world.count(), before + 1);
            assert_eq!(heard.iter().filter(|heard| heard.status == 503).count(), 49);
        },
    );
}

#[test]
fn what_is_the_callers_fault_or_a_success_breaks_nothing() {
    for status in [200, 404, 429] {
        run(
            1,
            Settings::default(),
            accrual(1, 100),
            move |_, _| Does::Status(status),
            |world| async move {
                for _ in 0..20 {
                    assert_eq!(world.get().await.status, status);
                }
            },
        );
    }
    // Nor does a client that goes away.
    run(
        1,
        Settings::default(),
        accrual(1, 100),
        |_, _| Does::Late(ms(100), 200),
        |world| async move {
            let stream = {
                use tokio::io::AsyncWriteExt;
                let mut stream = world.connect();
                stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.expect("the proxy reads");
                stream
            };
            sleep(ms(10)).await;
            drop(stream);
            sleep(ms(10)).await;
            assert_eq!(world.get().await.status, 200);
        },
    );
}

#[test]
fn a_flaky_endpoint_behind_retries_and_a_breaker_is_not_seen() {
    let retry = Retry { http_codes: set(vec![500]), attempts: set(2), ..Retry::default() };
    let settings = Settings { retry, ..Settings::default() };
    let does = |_: &World, seen: &Seen| Does::Status(if seen.endpoint == 0 { 500 } else { 200 });
    run(3, settings, accrual(3, 50), does, |world| async move {
        for _ in 0..100 {
            assert_eq!(world.get().await.status, 200);
        }
        let failed = world.seen().iter().filter(|seen| seen.endpoint == 0).count();
        assert!(failed < 10, "{failed}");
    });
}

#[test]
fn an_endpoint_that_left_is_no_open_breaker() {
    run(
        2,
        Settings::default(),
        accrual(1, 50),
        |_, _| Does::Status(500),
        |world| async move {
            let open = |world: &World| {
                ["10.0.1.1", "10.0.1.2"]
                    .map(|backend| world.metric("weft_breakers_open", backend))
                    .iter()
                    .sum::<u64>()
            };
            for _ in 0..10 {
                world.get().await;
            }
            assert_eq!(open(&world), 1);
            world.endpoints(&[crate::world::address(5)]);
            world.get().await;
            assert_eq!(open(&world), 0);
        },
    );
}
