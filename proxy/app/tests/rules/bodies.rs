//! Bodies of messages that a rule has changed and lets others see: longer than any buffer, both ways; and copies that nobody reads.

use crate::{
    client::Client,
    shares::case,
    world::{Way, World, run},
};
use policy::limits::{MIRROR_BYTES, MIRROR_WAIT};
use tokio::time::{Instant, sleep};

const LONG: usize = 3 * 1024 * 1024;

const COPIED: &str = "- {filters: [requestHeaders: {set: {x-a: b}}, responseHeaders: {set: {x-r: r}}, mirror: [v2, 100]], backends: [v1]}";

/// A text of which no piece is like another.
fn long() -> String {
    let mut text: String = (0..).map(|number: u32| format!("{number}.")).take(LONG / 6).collect();
    text.truncate(LONG);
    text
}

#[test]
fn a_long_body_arrives_whole_and_so_does_its_copy() {
    let case = case(COPIED);
    for way in Way::ALL {
        let policy = case.policy();
        let body = long();
        run(|| async move {
            let world = World::new(way.meshed);
            world.declare(policy);
            for framing in [format!("Content-Length: {}", body.len()), "Transfer-Encoding: chunked".into()] {
                let reply =
                    format!("HTTP/1.1 200 OK\nX-R: not this\nContent-Length: {}\n\n{body}", body.len());
                world.reply(Some(&reply));
                let mut client = Client::new(&world, way.http2);
                let got = client.exchange(&format!("POST / HTTP/1.1\nHost: shop\n{framing}\n\n{body}")).await;
                let got = got.expect("an answer");
                assert_eq!(
                    (got.field("x-r"), got.body == body),
                    (Some("r"), true),
                    "{} {framing}",
                    way.name()
                );
                sleep(MIRROR_WAIT / 2).await;
                let bodies = world.programs.bodies.take();
                let pods: Vec<_> = bodies.iter().map(|(pod, _)| &**pod).collect();
                assert!(pods.contains(&"v1-1") && pods.contains(&"v2-1"), "{}: {pods:?}", way.name());
                assert!(bodies.iter().all(|(_, seen)| *seen == body), "{} {framing}", way.name());
            }
            assert_eq!(world.metric("weft_mirrors_total{outcome=\"answered\""), 2, "{}", way.name());
        });
    }
}

/// A copy for a program that reads nothing: neither is its original held up, nor is its body held.
#[test]
fn a_copy_that_nobody_reads_holds_nothing_up() {
    let case = case(COPIED);
    for way in Way::ALL {
        let policy = case.policy();
        let body = long();
        assert!(body.len() > 2 * MIRROR_BYTES);
        run(|| async move {
            let world = World::new(way.meshed);
            world.declare(policy);
            world.programs.silent.borrow_mut().push("v2-1");
            let begin = Instant::now();
            let mut client = Client::new(&world, way.http2);
            let ask = format!("POST / HTTP/1.1\nHost: shop\nContent-Length: {}\n\n{body}", body.len());
            let got = client.exchange(&ask).await.expect("an answer");
            assert!(got.start.contains(" 200"), "{got}");
            assert!(client.exchange("GET / HTTP/1.1\nHost: shop\n").await.is_ok());
            assert!(begin.elapsed().as_millis() < 100, "{}: {:?}", way.name(), begin.elapsed());
            sleep(2 * MIRROR_WAIT).await;
            let outcome = |word: &str| world.metric(&format!("weft_mirrors_total{{outcome=\"{word}\""));
            // Of the long one; the other has nothing to fall behind with.
            assert_eq!(
                (outcome("behind") + outcome("slow"), outcome("slow") > 0),
                (2, true),
                "{}",
                way.name()
            );
            assert_eq!(world.outbound.copies.get(), 0, "{}", way.name());
            assert_eq!(world.metric("weft_requests_in_flight"), 0, "{}", way.name());
            assert_eq!(world.programs.bodies.take().len(), 2, "{}", way.name());
        });
    }
}

/// A copy of what never came whole is broken off.
#[test]
fn a_client_that_breaks_off_breaks_its_copy_off() {
    let case = case(COPIED);
    for meshed in [true, false] {
        let policy = case.policy();
        run(|| async move {
            let world = World::new(meshed);
            world.declare(policy);
            let mut stream = world.dial();
            let head = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\n\r\nonly so much";
            tokio::io::AsyncWriteExt::write_all(&mut stream, head).await.expect("the proxy reads");
            sleep(MIRROR_WAIT / 10).await;
            drop(stream);
            sleep(MIRROR_WAIT / 10).await;
            assert!(world.programs.saw.take().is_empty(), "nobody has seen a whole request");
            assert_eq!(world.metric("weft_mirrors_total{outcome=\"failed\""), 1);
            assert_eq!(world.metric("weft_requests_in_flight"), 0);
        });
    }
}
