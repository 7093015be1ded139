//! What is over a limit is refused at once, in the name of who set it.

use crate::world::{Does, Seen, World, ms, run, set};
use policy::{BackendSettings, Protocol, Settings, settings::Limits};
use std::rc::Rc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

fn limits(limits: Limits) -> BackendSettings {
    BackendSettings { limits, ..BackendSettings::default() }
}

#[test]
fn requests_over_the_limit_are_refused() {
    let backend = limits(Limits { max_requests: set(2), ..Limits::default() });
    run(
        1,
        Settings::default(),
        backend,
        |_, _| Does::Late(ms(100), 200),
        |world| async move {
            let three = tokio::join!(world.get(), world.get(), world.get());
            let statuses = [three.0.status, three.1.status, three.2.status];
            assert_eq!(statuses, [200, 200, 503]);
            let refused = three.2;
            assert_eq!(refused.took, ms(0));
            assert!(refused.text.contains("error=request_limit_reached"), "{refused:?}");
            assert!(
                refused.text.contains("limits.maxRequests of TrafficPolicy shop/mine is 2"),
                "{refused:?}"
            );
            assert_eq!(world.metric("weft_reasons_total", "request_limit_reached"), 1);
            // What has ended makes room.
            assert_eq!(world.get().await.status, 200);
        },
    );
}

#[test]
fn requests_that_would_wait_for_a_connection_are_refused_over_the_limit() {
    let backend = limits(Limits { max_pending_requests: set(1), ..Limits::default() });
    let nobody = |_: &World, _: &Seen| -> Does { unreachable!("the endpoint speaks HTTP/2") };
    run(0, Settings::default(), backend.clone(), nobody, |world| async move {
        world.declare_as(Protocol::Http2, Settings::default(), backend);
        crate::calls::serve(&world, Rc::default());
        // All want the connection that is not there yet.
        let (one, other) = tokio::join!(world.get(), world.get());
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 503], "{one:?} {other:?}");
        let refused = if one.status == 503 { one } else { other };
        assert!(refused.text.contains("limits.maxPendingRequests"), "{refused:?}");
        // It is there: nobody waits.
        let (one, other) = tokio::join!(world.get(), world.get());
        assert_eq!([one.status, other.status], [200, 200]);
    });
}

#[test]
fn connections_over_the_limit_are_reset() {
    let backend = limits(Limits { max_connections: set(1), ..Limits::default() });
    run(
        1,
        Settings::default(),
        backend.clone(),
        |_, _| Does::Nothing,
        |world| async move {
            world.declare_as(Protocol::Opaque, Settings::default(), backend);
            let mut first = world.connect();
            first.write_all(b"a").await.expect("the proxy reads");
            sleep(ms(10)).await;
            let mut second = world.connect();
            assert!(second.read(&mut [0]).await.is_err(), "it is reset");
            assert_eq!(world.metric("weft_reasons_total", "connection_limit_reached"), 1);
            drop(first);
            sleep(ms(10)).await;
            let mut third = world.connect();
            third.write_all(b"a").await.expect("the proxy reads");
            let ended = tokio::time::timeout(ms(1_000), third.read(&mut [0])).await;
            assert!(ended.is_err(), "it stands: {ended:?}");
        },
    );
}

#[test]
fn tunnels_count_as_connections() {
    let backend = limits(Limits { max_connections: set(1), ..Limits::default() });
    run(
        1,
        Settings::default(),
        backend,
        |_, _| Does::Switches,
        |world| async move {
            const UPGRADE: &str =
                "GET /a HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n";
            let mut first = world.connect();
            first.write_all(UPGRADE.as_bytes()).await.expect("the proxy reads");
            sleep(ms(10)).await;
            let heard = world.say(&UPGRADE.replace("Upgrade\r\nUpgrade", "Upgrade, close\r\nUpgrade")).await;
            assert_eq!(heard.status, 503, "{heard:?}");
            assert!(heard.text.contains("error=connection_limit_reached"), "{heard:?}");
        },
    );
}
