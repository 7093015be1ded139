//! What is asked, what is believed, and what an ill control can do to it: nothing.

use crate::fake::{Authority, Calls, Fake, next};
use policy::{
    Endpoint, Inbound, Outbound, Protocol, ServiceName, ServicePort, Target, WorkloadName,
    limits::{DISCOVERY_WAIT, WATCH_IDLE, WATCHES},
};
use proxy_app::{
    control::Control,
    discovery::{Discovery, Watched},
};
use proxy_wire::{checksum, v1};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

pub fn target(last: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (last >> 8) as u8, last as u8], 80))
}

pub fn cart() -> ServicePort {
    ServiceName::new("shop", "cart").port(80)
}

pub fn service(name: &str) -> Outbound {
    let target = Target::Service(ServiceName::new("shop", name).port(80));
    Outbound::new(target, Protocol::Http1)
}

pub fn endpoint(last: u16) -> Endpoint {
    Endpoint::plain(target(last))
}

pub fn says(policy: &Outbound) -> v1::OutboundUpdate {
    v1::OutboundUpdate { version: 1, policy: Some(policy.into()), ..Default::default() }
}

pub fn heartbeat(policy: &Outbound) -> v1::OutboundUpdate {
    let checksum = checksum(&v1::OutboundPolicy::from(policy));
    v1::OutboundUpdate { version: 1, policy: None, checksum, instance: 0 }
}

/// Endpoints, as the run `instance` of control says them.
pub fn set(instance: u64, endpoints: &[Endpoint]) -> v1::EndpointsUpdate {
    v1::EndpointsUpdate { version: 1, endpoints: Some(endpoints.into()), checksum: 0, instance }
}

pub fn start() -> (Fake, Calls, Discovery) {
    let authority = Authority::new("root");
    let (fake, calls) = Fake::new(&authority);
    let discovery = discover(&fake, &authority);
    (fake, calls, discovery)
}

pub fn discover(fake: &Fake, authority: &Authority) -> Discovery {
    let control = Control::start(fake.dial(), authority.trust());
    Discovery::start(control, WorkloadName::new("shop", "order-1"))
}

/// Until the value is this, within `limit`.
#[track_caller]
pub fn becomes<T: PartialEq + std::fmt::Debug>(
    watched: &Watched<T>,
    value: T,
    limit: Duration,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while watched.latest().as_deref() != Some(&value) {
            let held = watched.latest();
            assert!(start.elapsed() <= limit, "{caller}: {held:?} does not become {value:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

pub const SOON: Duration = Duration::from_secs(1);

// ---- questions and answers ----

#[tokio::test(start_paused = true)]
async fn each_question_is_put_once_and_its_answers_are_told() {
    let (_fake, mut calls, discovery) = start();
    let (outbound, endpoints, inbound) =
        (discovery.outbound(target(1)), discovery.endpoints(&cart()), discovery.inbound(8080));
    assert!(Arc::ptr_eq(&outbound, &discovery.outbound(target(1))), "one watch a question");
    let mapped = SocketAddr::new("::ffff:10.0.0.1".parse().expect("an address"), 80);
    assert!(
        Arc::ptr_eq(&outbound, &discovery.outbound(mapped)),
        "the same destination, as a dual socket says it"
    );

    let call = next(&mut calls.outbound).await;
    assert_eq!(call.question, v1::OutboundTarget::new(target(1), &WorkloadName::new("shop", "order-1")));
    assert_eq!((outbound.version(), outbound.latest(), outbound.age()), (0, None, None));
    call.say(says(&service("cart"))).await;
    assert_eq!(*outbound.first(SOON).await.expect("an answer"), service("cart"));
    assert_eq!(outbound.version(), 1);

    let call = next(&mut calls.endpoints).await;
    assert_eq!(call.question, v1::EndpointsTarget::new(&cart(), &WorkloadName::new("shop", "order-1")));
    let all = vec![endpoint(1), endpoint(2)];
    call.say(set(1, &all)).await;
    assert_eq!(*endpoints.first(SOON).await.expect("an answer"), all);

    let call = next(&mut calls.inbound).await;
    assert_eq!(call.question, v1::InboundPort { workload: "shop/order-1".into(), port: 8080 });
    let policy = Inbound { protocol: Protocol::Grpc, service: Some(cart()) };
    call.say(v1::InboundUpdate { version: 1, policy: Some((&policy).into()), ..Default::default() }).await;
    assert_eq!(*inbound.first(SOON).await.expect("an answer"), policy);

    assert!(calls.outbound.try_recv().is_err() && calls.endpoints.try_recv().is_err());
    let snapshot = discovery.snapshot();
    assert_eq!(snapshot["control"]["connected"], true);
    assert_eq!(snapshot["outbound"]["10.0.0.1:80"]["answer"]["target"]["service"], "cart.shop:80");
    assert_eq!(snapshot["endpoints"]["cart.shop:80"]["answer"][1]["address"], "10.0.0.2:80");
    assert_eq!(snapshot["inbound"]["8080"]["answer"]["protocol"], "gRPC");
    let figures = discovery.figures();
    assert_eq!((figures.watches, figures.updates, figures.asked, figures.rejected), (3, 3, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn the_version_grows_with_news_alone() {
    let (_fake, mut calls, discovery) = start();
    let watched = discovery.outbound(target(1));
    let call = next(&mut calls.outbound).await;
    for (name, version) in [("cart", 1), ("cart", 1), ("order", 2), ("cart", 3)] {
        call.say(says(&service(name))).await;
        becomes(&watched, service(name), SOON).await;
        assert_eq!(watched.version(), version, "{name}");
    }
}

// ---- waiting ----

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_waited_for_and_the_wait_counts_from_the_question() {
    let (_fake, mut calls, discovery) = start();
    let watched = discovery.outbound(target(1));
    let call = next(&mut calls.outbound).await;
    let asked = Instant::now();
    assert_eq!(watched.first(DISCOVERY_WAIT).await, None);
    let waited = asked.elapsed();
    assert!((DISCOVERY_WAIT / 2..=DISCOVERY_WAIT + SOON / 10).contains(&waited), "{waited:?}");

    let again = Instant::now();
    assert_eq!(watched.first(DISCOVERY_WAIT).await, None);
    assert!(again.elapsed() < SOON / 100, "the next one does not wait again: {:?}", again.elapsed());

    call.say(says(&service("cart"))).await;
    becomes(&watched, service("cart"), SOON).await;
}

#[tokio::test(start_paused = true)]
async fn while_control_is_gone_nobody_waits() {
    let authority = Authority::new("root");
    let (fake, mut calls) = Fake::new(&authority);
    fake.go();
    let discovery = discover(&fake, &authority);
    let start = Instant::now();
    let watched = discovery.outbound(target(1));
    assert_eq!(watched.first(DISCOVERY_WAIT).await, None);
    assert!(
        start.elapsed() < SOON / 10,
        "the first failed attempt is the end of the wait: {:?}",
        start.elapsed()
    );
    assert!(
        discovery.snapshot()["control"]["failure"].as_str().is_some_and(|why| why.contains("cannot connect"))
    );

    for number in 2..20 {
        let start = Instant::now();
        assert_eq!(discovery.outbound(target(number)).first(DISCOVERY_WAIT).await, None);
        assert_eq!(start.elapsed(), Duration::ZERO);
        sleep(SOON).await;
    }

    fake.come_back();
    let call = next(&mut calls.outbound).await;
    call.say(says(&service("cart"))).await;
    let asked = SocketAddr::try_from(call.question.target.as_ref().expect("a target")).expect("an address");
    becomes(&discovery.outbound(asked), service("cart"), SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_control_that_refuses_each_question_makes_nobody_wait_for_long() {
    let (_fake, mut calls, discovery) = start();
    let refuse = tokio::spawn(async move {
        while let Some(call) = calls.outbound.recv().await {
            call.fail(Status::internal("out of order")).await;
        }
    });
    let watched = discovery.outbound(target(1));
    let start = Instant::now();
    assert_eq!(watched.first(DISCOVERY_WAIT).await, None);
    assert!(start.elapsed() < DISCOVERY_WAIT, "{:?}", start.elapsed());
    sleep(Duration::from_secs(300)).await;
    let asked = discovery.figures().asked;
    assert!((40..120).contains(&asked), "backed off to a question each 5 s in the mean: {asked}");
    refuse.abort();
}

// ---- an ill control ----

#[tokio::test(start_paused = true)]
async fn nonsense_is_rejected_and_the_last_good_stays() {
    let (_fake, mut calls, discovery) = start();
    let watched = discovery.outbound(target(1));
    let call = next(&mut calls.outbound).await;
    call.say(says(&service("cart"))).await;
    becomes(&watched, service("cart"), SOON).await;
    let good = v1::OutboundPolicy::from(&service("order"));
    let nonsense = [
        v1::OutboundPolicy { target: None, ..good.clone() },
        v1::OutboundPolicy { protocol: 99, ..good.clone() },
        v1::OutboundPolicy {
            routes: Some(v1::outbound_policy::Routes::Tcp(v1::Rule::default())),
            ..good.clone()
        },
    ];
    for (policy, count) in nonsense.into_iter().zip(1..) {
        call.say(v1::OutboundUpdate { version: 2, policy: Some(policy), ..Default::default() }).await;
        sleep(SOON).await;
        assert_eq!(discovery.figures().rejected, count);
        assert_eq!(*watched.latest().expect("the last good"), service("cart"));
    }
    call.say(says(&service("order"))).await;
    becomes(&watched, service("order"), SOON).await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_confirm_or_uncover_a_loss() {
    let (_fake, mut calls, discovery) = start();
    let watched = discovery.outbound(target(1));
    let call = next(&mut calls.outbound).await;
    call.say(says(&service("cart"))).await;
    becomes(&watched, service("cart"), SOON).await;
    for _ in 0..5 {
        sleep(Duration::from_secs(20)).await;
        assert!(watched.age().expect("known") >= Duration::from_secs(19));
        call.say(heartbeat(&service("cart"))).await;
        sleep(SOON).await;
        assert!(watched.age().expect("known") <= SOON);
    }
    assert_eq!(discovery.figures().asked, 1);

    // Control has moved on, but its word never came.
    call.say(heartbeat(&service("order"))).await;
    let call = next(&mut calls.outbound).await;
    assert_eq!(*watched.latest().expect("the last good"), service("cart"));
    call.say(says(&service("order"))).await;
    becomes(&watched, service("order"), SOON).await;
}

#[tokio::test(start_paused = true)]
async fn the_checksum_that_control_said_is_the_one_to_compare() {
    let (_fake, mut calls, discovery) = start();
    let watched = discovery.outbound(target(1));
    let call = next(&mut calls.outbound).await;
    // A newer control sums up fields that are unknown here.
    call.say(v1::OutboundUpdate { checksum: 42, ..says(&service("cart")) }).await;
    call.say(v1::OutboundUpdate { version: 1, policy: None, checksum: 42, instance: 0 }).await;
    becomes(&watched, service("cart"), SOON).await;
    sleep(SOON).await;
    assert_eq!(discovery.figures().asked, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_is_opened_anew() {
    let (_fake, mut calls, discovery) = start();
    let watched = discovery.outbound(target(1));
    let call = next(&mut calls.outbound).await;
    call.say(says(&service("cart"))).await;
    becomes(&watched, service("cart"), SOON).await;
    let said = Instant::now();
    let again =
        timeout(Duration::from_secs(50), calls.outbound.recv()).await.expect("in time").expect("a call");
    assert!(said.elapsed() > Duration::from_secs(41), "not before two heartbeats are overdue");
    again.say(says(&service("order"))).await;
    becomes(&watched, service("order"), SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_control_is_found_by_ping_and_left() {
    let (fake, mut calls, discovery) = start();
    let watched = discovery.outbound(target(1));
    let call = next(&mut calls.outbound).await;
    call.say(says(&service("cart"))).await;
    becomes(&watched, service("cart"), SOON).await;
    // Minutes of peace: pings are answered.
    for _ in 0..9 {
        sleep(Duration::from_secs(20)).await;
        call.say(heartbeat(&service("cart"))).await;
    }
    assert_eq!(discovery.figures().asked, 1);

    fake.freeze();
    let start = Instant::now();
    while discovery.snapshot()["control"]["connected"] == true {
        assert!(start.elapsed() < Duration::from_secs(16), "a frozen control is not noticed");
        sleep(SOON / 4).await;
    }
    sleep(Duration::from_secs(30)).await;
    let start = Instant::now();
    assert_eq!(discovery.outbound(target(2)).first(DISCOVERY_WAIT).await, None);
    assert_eq!(start.elapsed(), Duration::ZERO, "handshakes fail too, so nobody waits");
    assert_eq!(*watched.latest().expect("the last good"), service("cart"));

    fake.cut();
    fake.come_back();
    let call = next(&mut calls.outbound).await;
    call.say(says(&service("cart"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_loses_nothing_and_a_new_question_waits_for_it() {
    let (fake, mut calls, discovery) = start();
    let watched = discovery.outbound(target(1));
    let before = next(&mut calls.outbound).await;
    before.say(says(&service("cart"))).await;
    becomes(&watched, service("cart"), SOON).await;

    fake.cut();
    before.closed().await;
    let new = discovery.outbound(target(2));
    let first = tokio::spawn(async move { new.first(DISCOVERY_WAIT).await });
    let after = [next(&mut calls.outbound).await, next(&mut calls.outbound).await];
    for call in &after {
        call.say(says(&service("order"))).await;
    }
    assert_eq!(first.await.expect("no panic").as_deref(), Some(&service("order")));
    becomes(&watched, service("order"), SOON).await;
    assert_eq!(watched.version(), 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_control_is_asked_nothing() {
    let (authority, foreign) = (Authority::new("root"), Authority::new("foreign"));
    for (certificate, says) in [
        (foreign.control(), "of no root that is trusted"),
        (
            authority.certificate("spiffe://cluster.local/ns/shop/sa/cart"),
            "expected spiffe://cluster.local/ns/weft-system/sa/weft-control but the peer is",
        ),
    ] {
        let (fake, mut calls) = Fake::with_certificate(certificate);
        let control = Control::start(fake.dial(), authority.trust());
        let discovery = Discovery::start(control.clone(), WorkloadName::new("shop", "order-1"));
        assert_eq!(discovery.outbound(target(1)).first(DISCOVERY_WAIT).await, None);
        let failure = control.failure().expect("a failure");
        assert!(failure.contains(says), "{failure:?} does not say {says:?}");
        sleep(Duration::from_secs(60)).await;
        assert!(calls.outbound.try_recv().is_err());
        let attempts = control.attempts();
        assert!(attempts.connections == 0 && (8..40).contains(&attempts.failures), "{attempts:?}");
    }
}

// ---- bounds ----

#[tokio::test(start_paused = true)]
async fn what_is_not_used_is_forgotten() {
    let (_fake, mut calls, discovery) = start();
    let held = discovery.outbound(target(1));
    let held_call = next(&mut calls.outbound).await;
    drop(discovery.outbound(target(2)));
    let idle_call = next(&mut calls.outbound).await;
    drop(discovery.endpoints(&cart()));
    let asked_call = next(&mut calls.endpoints).await;
    let beats = tokio::spawn(async move {
        loop {
            held_call.say(says(&service("cart"))).await;
            asked_call
                .say(v1::EndpointsUpdate { endpoints: Some(Default::default()), ..Default::default() })
                .await;
            sleep(Duration::from_secs(40)).await;
        }
    });
    let start = Instant::now();
    for _ in 0..25 {
        discovery.endpoints(&cart());
        if start.elapsed() < WATCH_IDLE {
            idle_call.say(says(&service("cart"))).await;
        }
        sleep(Duration::from_secs(40)).await;
    }
    timeout(SOON, idle_call.closed()).await.expect("its stream has ended");
    assert_eq!(discovery.figures().watches, 2, "{}", discovery.snapshot());
    assert!(!held.is_closed());
    assert!(!beats.is_finished());

    // Asked again, it is watched again.
    discovery.outbound(target(2));
    next(&mut calls.outbound).await;
}

#[tokio::test(start_paused = true)]
async fn the_longest_unused_goes_when_there_are_too_many() {
    let (_fake, mut calls, discovery) = start();
    let held = discovery.outbound(target(0));
    sleep(SOON).await;
    let mut all = Vec::new();
    for number in 1..WATCHES {
        all.push(discovery.outbound(target(u16::try_from(number).expect("small"))));
        if number % 100 == 0 {
            sleep(SOON).await;
        }
    }
    assert_eq!(discovery.figures().watches, WATCHES);
    // All are held but two; the earlier used one of the two goes.
    let (one, other) = (target(500), target(501));
    all.retain(|watched| !Arc::ptr_eq(watched, &discovery.outbound(one)));
    all.retain(|watched| !Arc::ptr_eq(watched, &discovery.outbound(other)));
    sleep(SOON).await;
    discovery.outbound(one);
    let new = discovery.outbound(target(5000));
    let figures = discovery.figures();
    assert_eq!((figures.watches, figures.evicted), (WATCHES, 1));
    let text = discovery.snapshot()["outbound"].to_string();
    assert!(text.contains(&format!("\"{one}\"")) && !text.contains(&format!("\"{other}\"")));
    assert!(!held.is_closed() && !new.is_closed());

    // All are held: the longest unused one goes, and its holders can tell.
    all.push(discovery.outbound(one));
    all.push(new);
    discovery.outbound(target(6000));
    assert!(held.is_closed());
    assert_eq!(held.first(DISCOVERY_WAIT).await, None);
    while calls.outbound.try_recv().is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn what_was_detected_is_reported_once() {
    let (_fake, mut calls, discovery) = start();
    for _ in 0..3 {
        discovery.report_detected(&cart(), Protocol::Http1);
    }
    let call = next(&mut calls.detected).await;
    assert_eq!(call.question, v1::DetectedRequest::new(&cart(), Protocol::Http1));
    call.answer(Err(Status::internal("not now")));
    discovery.report_detected(&cart(), Protocol::Opaque);
    let call = next(&mut calls.detected).await;
    assert_eq!(call.question.protocol, v1::Protocol::Opaque as i32);
    call.answer(Ok(v1::DetectedResponse {}));
    sleep(SOON).await;
    assert!(calls.detected.try_recv().is_err());
}

// ---- by hand ----

#[tokio::test(start_paused = true)]
async fn a_script_stands_for_control() {
    let (discovery, script) = Discovery::scripted();
    let before = discovery.outbound(target(1));
    script.outbound(target(1), service("cart"));
    script.endpoints(&cart(), vec![endpoint(1)]);
    script.inbound(80, Inbound::default());
    assert_eq!(before.latest().as_deref(), Some(&service("cart")));
    assert_eq!(discovery.endpoints(&cart()).latest().as_deref(), Some(&vec![endpoint(1)]));
    assert_eq!(discovery.inbound(80).latest().as_deref(), Some(&Inbound::default()));
    script.endpoints(&cart(), vec![]);
    assert_eq!(discovery.endpoints(&cart()).version(), 2);

    let start = Instant::now();
    assert_eq!(discovery.outbound(target(2)).first(DISCOVERY_WAIT).await, None);
    assert_eq!(start.elapsed(), DISCOVERY_WAIT);
    script.unreachable();
    assert_eq!(discovery.outbound(target(3)).first(DISCOVERY_WAIT).await, None);
    assert_eq!(start.elapsed(), DISCOVERY_WAIT);

    discovery.report_detected(&cart(), Protocol::Http2);
    assert_eq!(script.detected(), [(cart(), Protocol::Http2)]);
    assert!(script.detected().is_empty());
}
