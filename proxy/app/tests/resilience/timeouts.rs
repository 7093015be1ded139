//! What happens when something takes too long, and whose limit it was.

use crate::world::{Does, Heard, Seen, World, ms, run, set};
use policy::{
    BackendSettings, Protocol, Settings,
    settings::{Retry, Timeouts},
};
use proxy_transport::Stream;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

fn timeouts(timeouts: Timeouts) -> Settings {
    Settings { timeouts, ..Settings::default() }
}

/// What a GET hears when the only endpoint does this.
fn hears(settings: Settings, does: Does) -> Heard {
    let heard = std::rc::Rc::new(std::cell::RefCell::new(None));
    let slot = heard.clone();
    run(
        1,
        settings,
        BackendSettings::default(),
        move |_, _| does.clone(),
        |world| async move {
            *slot.borrow_mut() = Some(world.get().await);
        },
    );
    heard.take().expect("it was asked")
}

#[test]
fn a_request_that_takes_too_long_is_answered_in_the_name_of_the_limit() {
    let per_try = Retry { per_try_timeout: set(ms(700)), ..Retry::default() };
    let table = [
        (timeouts(Timeouts { request: set(ms(500)), ..Timeouts::default() }), 500, "timeouts.request"),
        (
            timeouts(Timeouts { backend_request: set(ms(600)), ..Timeouts::default() }),
            600,
            "timeouts.backendRequest",
        ),
        (Settings { retry: per_try.clone(), ..Settings::default() }, 700, "retry.perTryTimeout"),
        // It goes before that of the attempt.
        (
            Settings {
                retry: per_try,
                ..timeouts(Timeouts { backend_request: set(ms(600)), ..Timeouts::default() })
            },
            700,
            "retry.perTryTimeout",
        ),
        (
            timeouts(Timeouts {
                max_stream_duration: set(ms(800)),
                request: set(ms(900)),
                ..Timeouts::default()
            }),
            800,
            "timeouts.maxStreamDuration",
        ),
    ];
    for (settings, took, field) in table {
        let heard = hears(settings, Does::Nothing);
        assert_eq!((heard.status, heard.took), (504, ms(took)), "{field}: {heard:?}");
        let said = "error=http_response_timeout; next-hop=\"10.0.1.1:8080\"; details=\"the";
        assert!(
            heard.text.contains(said)
                && heard.text.contains(&format!("({field} of TrafficPolicy shop/mine)")),
            "{heard:?}"
        );
    }
}

#[test]
fn what_is_in_time_is_left_alone_and_zero_is_no_limit() {
    let ample = Timeouts {
        request: set(ms(1_000)),
        backend_request: set(ms(1_000)),
        stream_idle: set(ms(400)),
        max_stream_duration: set(ms(1_000)),
        ..Timeouts::default()
    };
    // Its answer is waited for in silence, which is none of a body's.
    let heard = hears(timeouts(ample), Does::Late(ms(900), 200));
    assert_eq!((heard.status, heard.whole), (200, true), "{heard:?}");
    let zero =
        Timeouts { request: set(Duration::ZERO), stream_idle: set(Duration::ZERO), ..Timeouts::default() };
    let heard = hears(timeouts(zero), Does::Late(Duration::from_secs(1_000), 200));
    assert_eq!((heard.status, heard.whole), (200, true), "{heard:?}");
}

#[test]
fn an_answer_that_has_begun_is_broken_off() {
    let bodies = [
        (
            Timeouts { request: set(ms(500)), ..Timeouts::default() },
            Does::Drips(10, ms(100)),
            500,
            "http_response_timeout",
        ),
        (
            Timeouts { stream_idle: set(ms(150)), ..Timeouts::default() },
            Does::Drips(2, ms(200)),
            150,
            "connection_read_timeout",
        ),
    ];
    for (limit, does, took, word) in bodies {
        run(
            1,
            timeouts(limit),
            BackendSettings::default(),
            move |_, _| does.clone(),
            |world| async move {
                let heard = world.get().await;
                assert!(heard.status == 200 && !heard.whole && heard.took == ms(took), "{heard:?}");
                let lines = world.lines();
                assert_eq!(lines[0]["weft.reason"], word, "{lines:?}");
                sleep(ms(1)).await;
                assert_eq!(*world.given_up.borrow(), 1, "the endpoint goes on for nobody");
            },
        );
    }
    // As long as something moves.
    let heard = hears(
        timeouts(Timeouts { stream_idle: set(ms(150)), ..Timeouts::default() }),
        Does::Drips(10, ms(100)),
    );
    assert!(heard.status == 200 && heard.whole, "{heard:?}");
}

#[test]
fn a_request_whose_body_does_not_come_is_given_up() {
    let limit = timeouts(Timeouts { stream_idle: set(ms(150)), ..Timeouts::default() });
    run(
        1,
        limit,
        BackendSettings::default(),
        |_, _| Does::Status(200),
        |world| async move {
            let heard = world.say("POST /a HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nab").await;
            assert_eq!((heard.status, heard.took), (504, ms(150)), "{heard:?}");
            assert!(heard.text.contains("error=connection_read_timeout"), "{heard:?}");
        },
    );
}

const UPGRADE: &str = "GET /a HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n";

/// How long a connection stands that says this.
async fn stands(world: &World, says: &str) -> Duration {
    let begin = Instant::now();
    let mut stream: Stream = world.connect();
    stream.write_all(says.as_bytes()).await.expect("the proxy reads");
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    begin.elapsed()
}

#[test]
fn tunnels_have_limits_of_their_own() {
    let idle = Timeouts { stream_idle: set(ms(5_000)), request: set(ms(100)), ..Timeouts::default() };
    let long = Timeouts { max_stream_duration: set(ms(7_000)), request: set(ms(100)), ..Timeouts::default() };
    for (limit, took) in [(idle, 5_000), (long, 7_000)] {
        run(
            1,
            timeouts(limit),
            BackendSettings::default(),
            |_, _| Does::Switches,
            move |world| async move {
                assert_eq!(stands(&world, UPGRADE).await, ms(took));
            },
        );
    }
}

#[test]
fn connections_of_bytes_have_limits_of_their_own() {
    let idle = Timeouts { idle: set(ms(5_000)), ..Timeouts::default() };
    let long = Timeouts { max_stream_duration: set(ms(7_000)), ..Timeouts::default() };
    for (limit, took, field) in [(idle, 5_000, "timeouts.idle"), (long, 7_000, "timeouts.maxStreamDuration")]
    {
        let does = |_: &World, _: &Seen| Does::Nothing;
        run(1, Settings::default(), BackendSettings::default(), does, move |world| async move {
            world.declare_as(Protocol::Opaque, timeouts(limit), BackendSettings::default());
            assert_eq!(stands(&world, "GET / HTTP/1.1\r\n\r\n").await, ms(took));
            let lines = world.lines();
            assert!(lines[0]["weft.details"].as_str().is_some_and(|text| text.contains(field)), "{lines:?}");
        });
    }
}
