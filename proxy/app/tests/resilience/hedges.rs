//! A second request while the first is not answered.

use crate::world::{Does, Seen, World, ms, run, set};
use policy::{
    BackendSettings, Settings,
    settings::{Hedge, RetryBudget},
};
use tokio::time::sleep;

fn hedge(max: u32) -> Settings {
    Settings { hedge: set(Hedge { delay: ms(100), max }), ..Settings::default() }
}

/// The first request of all is answered only after so long.
fn first_takes(millis: u64) -> impl Fn(&World, &Seen) -> Does + 'static {
    move |world, _| if world.count() == 1 { Does::Late(ms(millis), 200) } else { Does::Status(201) }
}

#[test]
fn a_slow_endpoint_is_overtaken_and_given_up() {
    run(2, hedge(1), BackendSettings::default(), first_takes(10_000), |world| async move {
        let heard = world.get().await;
        assert_eq!((heard.status, heard.took), (201, ms(100)), "{heard:?}");
        let seen = world.seen();
        assert!(seen.len() == 2 && seen[0].endpoint != seen[1].endpoint, "{seen:?}");
        sleep(ms(1)).await;
        assert_eq!(*world.given_up.borrow(), 1);
        assert_eq!(world.metric("weft_retries_total", "hedged"), 1);
        assert_eq!(world.metric("weft_requests_in_flight", ""), 0);
        assert_eq!(world.lines()[0]["weft.attempts"], 2);
        // The next ones find things in order.
        assert_eq!(world.get().await.status, 201);
    });
}

#[test]
fn a_quick_answer_needs_no_second() {
    run(2, hedge(1), BackendSettings::default(), first_takes(99), |world| async move {
        assert_eq!((world.get().await.status, world.count()), (200, 1));
    });
}

#[test]
fn the_first_answer_wins_even_if_it_was_asked_first() {
    let does = |world: &World, _: &Seen| Does::Late(ms(if world.count() == 1 { 150 } else { 100 }), 200);
    run(2, hedge(1), BackendSettings::default(), does, |world| async move {
        let heard = world.get().await;
        assert_eq!((heard.status, heard.took, world.count()), (200, ms(150), 2), "{heard:?}");
        assert_eq!(world.metric("weft_requests_in_flight", ""), 0);
    });
}

#[test]
fn what_may_not_be_executed_twice_is_not_hedged() {
    for (method, body) in [("POST", "b"), ("POST", ""), ("PUT", "b")] {
        run(2, hedge(1), BackendSettings::default(), first_takes(300), move |world| async move {
            assert_eq!((world.ask(method, body).await.status, world.count()), (200, 1), "{method}");
        });
    }
}

#[test]
fn hedges_go_where_no_other_has_gone_and_within_the_budget() {
    let slow = |_: &World, _: &Seen| Does::Late(ms(1_000), 200);
    for (endpoints, max, seen) in [(1, 1, 1), (2, 5, 2), (4, 2, 3)] {
        run(endpoints, hedge(max), BackendSettings::default(), slow, |world| async move {
            let heard = world.get().await;
            assert_eq!(
                (heard.status, heard.took, world.count()),
                (200, ms(1_000), seen),
                "{endpoints} {max}"
            );
            assert_eq!(world.metric("weft_requests_in_flight", ""), 0);
        });
    }
    let none = BackendSettings {
        budget: set(RetryBudget { percent: 0, min_count: 0, ..RetryBudget::default() }),
        ..BackendSettings::default()
    };
    run(2, hedge(1), none, slow, |world| async move {
        assert_eq!((world.get().await.status, world.count()), (200, 1));
        assert_eq!(world.metric("weft_retries_total", "retry_budget_exhausted"), 1);
    });
}

#[test]
fn one_that_fails_leaves_it_to_the_other() {
    let does = |world: &World, _: &Seen| {
        if world.count() == 1 { Does::Late(ms(300), 200) } else { Does::Reset }
    };
    run(2, hedge(1), BackendSettings::default(), does, |world| async move {
        let heard = world.get().await;
        assert_eq!((heard.status, heard.took), (200, ms(300)), "{heard:?}");
    });
    run(
        2,
        hedge(1),
        BackendSettings::default(),
        |_, _| Does::Reset,
        |world| async move {
            assert_eq!((world.get().await.status, world.count()), (502, 1), "before there was a second");
        },
    );
}
