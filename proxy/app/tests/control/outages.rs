//! Control that loses its words, is emptied, lies: what is known stays, and what is true is found.

use crate::{
    discovery::{SOON, becomes, cart, discover, endpoint, says, service, set, start, target},
    fake::{Authority, Call, Fake, next},
};
use policy::{
    Endpoint, Outbound, Target,
    limits::{CHANGE_INTERVAL, CHANGES_AT_ONCE, DISCOVERY_WAIT, EMPTIED_GRACE},
};
use proxy_app::discovery::Discovery;
use proxy_wire::{checksum, v1};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, interval, sleep, timeout},
};

const HEARTBEAT: Duration = Duration::from_secs(20);

type EndpointsCall = Call<v1::EndpointsTarget, v1::EndpointsUpdate>;

/// The endpoints of one run of control, as its streams tell them.
struct Run {
    instance: u64,
    now: watch::Sender<Vec<Endpoint>>,
    /// Messages so far, of which each third is lost if `lossy`; begins at 0, 1 or 2.
    messages: AtomicUsize,
    lossy: bool,
}

impl Run {
    fn new(instance: u64, endpoints: &[Endpoint]) -> Arc<Self> {
        let now = watch::Sender::new(endpoints.to_vec());
        Arc::new(Self { instance, now, messages: AtomicUsize::new(0), lossy: false })
    }

    /// Serves one stream as control does, until it ends.
    fn serve(self: &Arc<Self>, call: EndpointsCall) {
        let run = Arc::clone(self);
        tokio::spawn(async move {
            let mut now = run.now.subscribe();
            now.mark_changed();
            let mut beat = interval(HEARTBEAT);
            beat.reset();
            loop {
                let update = tokio::select! {
                    () = call.closed() => return,
                    changed = now.changed() => {
                        changed.expect("the run holds the sender");
                        beat.reset();
                        set(run.instance, &now.borrow_and_update())
                    }
                    _ = beat.tick() => {
                        let held = v1::EndpointSet::from(now.borrow().as_slice());
                        v1::EndpointsUpdate { endpoints: None, checksum: checksum(&held), ..set(run.instance, &[]) }
                    }
                };
                let number = run.messages.fetch_add(1, Relaxed);
                if !run.lossy || number % 3 != 2 {
                    call.say(update).await;
                }
            }
        });
    }
}

fn endpoints(numbers: std::ops::Range<u16>) -> Vec<Endpoint> {
    numbers.map(endpoint).collect()
}

#[tokio::test(start_paused = true)]
async fn with_one_in_three_messages_lost_endpoints_converge_within_65_seconds() {
    for begin in 0..3 {
        let (fake, mut calls, discovery) = start();
        let now = watch::Sender::new(endpoints(0..1));
        let run = Arc::new(Run { instance: 1, now, messages: AtomicUsize::new(begin), lossy: true });
        let serving = Arc::clone(&run);
        tokio::spawn(async move {
            while let Some(call) = calls.endpoints.recv().await {
                serving.serve(call);
            }
        });
        let watched = discovery.endpoints(&cart());
        for number in 1..=60 {
            let value = endpoints(number..number + 3);
            run.now.send_replace(value.clone());
            if number % 7 == 0 {
                fake.cut();
            }
            if number % 20 == 0 {
                fake.go();
                sleep(Duration::from_secs(20)).await;
                fake.come_back();
            }
            becomes(&watched, value, Duration::from_secs(65)).await;
            // Not in step with the heartbeats.
            sleep(Duration::from_millis(u64::from(number) * 377)).await;
        }
        assert!(discovery.figures().asked > 10, "losses were found by asking anew");
    }
}

/// A proxy that knows three endpoints of the run 1, which has just been lost.
async fn known() -> (Fake, crate::fake::Calls, Discovery, Arc<proxy_app::discovery::Watched<Vec<Endpoint>>>) {
    let (fake, mut calls, discovery) = start();
    let watched = discovery.endpoints(&cart());
    let call = next(&mut calls.endpoints).await;
    call.say(set(1, &endpoints(0..3))).await;
    becomes(&watched, endpoints(0..3), SOON).await;
    fake.cut();
    call.closed().await;
    (fake, calls, discovery, watched)
}

#[tokio::test(start_paused = true)]
async fn an_emptied_control_is_doubted_for_a_minute() {
    let (_fake, mut calls, discovery, watched) = known().await;
    let empty = Run::new(2, &[]);
    empty.serve(next(&mut calls.endpoints).await);
    let asked = Instant::now();
    while asked.elapsed() < EMPTIED_GRACE - SOON {
        sleep(SOON).await;
        assert_eq!(*watched.latest().expect("what was known"), endpoints(0..3));
    }
    let figures = discovery.figures();
    assert_eq!(
        (figures.doubted, figures.withheld, figures.asked),
        (1, 1, 2),
        "heartbeats are no new answers"
    );
    assert!(discovery.snapshot()["endpoints"]["cart.shop:80"]["doubted"].is_string());
    assert!(watched.age().expect("known") >= EMPTIED_GRACE - 2 * SOON, "nobody confirmed what is in effect");
    becomes(&watched, vec![], Duration::from_secs(5)).await;
    assert_eq!(discovery.figures().doubted, 0);
    // From now on it is the run that is known.
    empty.now.send_replace(endpoints(3..4));
    becomes(&watched, endpoints(3..4), SOON).await;
    empty.now.send_replace(vec![]);
    becomes(&watched, vec![], SOON).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_an_emptied_control_finds_is_believed_at_once() {
    let (_fake, mut calls, discovery, watched) = known().await;
    let run = Run::new(2, &[]);
    run.serve(next(&mut calls.endpoints).await);
    sleep(EMPTIED_GRACE / 2).await;
    run.now.send_replace(endpoints(2..4));
    becomes(&watched, endpoints(2..4), SOON).await;
    assert_eq!(discovery.figures().doubted, 0);
    // What was withheld does not come back.
    sleep(2 * EMPTIED_GRACE).await;
    assert_eq!(*watched.latest().expect("known"), endpoints(2..4));
    // And a scale-down is believed at once.
    run.now.send_replace(vec![]);
    becomes(&watched, vec![], SOON).await;
}

#[tokio::test(start_paused = true)]
async fn an_emptied_control_must_insist() {
    let (fake, mut calls, discovery, watched) = known().await;
    // It goes again; nobody is there for long.
    Run::new(2, &[]).serve(next(&mut calls.endpoints).await);
    sleep(EMPTIED_GRACE / 2).await;
    fake.go();
    sleep(5 * EMPTIED_GRACE).await;
    assert_eq!(*watched.latest().expect("known"), endpoints(0..3));
    assert_eq!(discovery.figures().doubted, 0);
    // Others, each restarted before its time.
    fake.come_back();
    for instance in 3..10 {
        Run::new(instance, &[]).serve(next(&mut calls.endpoints).await);
        sleep(EMPTIED_GRACE * 2 / 3).await;
        assert_eq!(*watched.latest().expect("known"), endpoints(0..3));
        fake.cut();
    }
    // Streams of one run count together.
    let run = Run::new(10, &[]);
    run.serve(next(&mut calls.endpoints).await);
    sleep(EMPTIED_GRACE * 2 / 3).await;
    fake.cut();
    run.serve(next(&mut calls.endpoints).await);
    becomes(&watched, vec![], EMPTIED_GRACE / 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_does_not_become_nobodys_at_once() {
    let (fake, mut calls, discovery) = start();
    let watched = discovery.outbound(target(1));
    let call = next(&mut calls.outbound).await;
    call.say(v1::OutboundUpdate { instance: 1, ..says(&service("cart")) }).await;
    becomes(&watched, service("cart"), SOON).await;
    fake.cut();
    let call = next(&mut calls.outbound).await;
    call.say(v1::OutboundUpdate { instance: 2, ..says(&Outbound::external()) }).await;
    for _ in 0..2 {
        sleep(HEARTBEAT).await;
        let checksum = checksum(&v1::OutboundPolicy::from(&Outbound::external()));
        call.say(v1::OutboundUpdate { version: 1, policy: None, checksum, instance: 2 }).await;
        assert_eq!(*watched.latest().expect("known"), service("cart"));
    }
    assert_eq!((discovery.figures().doubted, discovery.figures().asked), (1, 2));
    becomes(&watched, Outbound::external(), EMPTIED_GRACE / 2).await;
    // A new question to it is answered at once: nothing is known that could stay.
    let new = discovery.outbound(target(2));
    let call = next(&mut calls.outbound).await;
    call.say(v1::OutboundUpdate { instance: 2, ..says(&Outbound::external()) }).await;
    assert_eq!(*new.first(DISCOVERY_WAIT).await.expect("an answer"), Outbound::external());
}

// ---- lies ----

#[tokio::test(start_paused = true)]
async fn an_answer_to_another_question_is_rejected() {
    let (_fake, mut calls, discovery) = start();
    let watched = discovery.outbound(target(1));
    let call = next(&mut calls.outbound).await;
    let pod = |number| Outbound { target: Target::Workload(endpoint(number)), ..Outbound::external() };
    call.say(says(&pod(1))).await;
    becomes(&watched, pod(1), SOON).await;
    call.say(says(&pod(2))).await;
    sleep(SOON).await;
    assert_eq!((watched.latest().as_deref(), discovery.figures().rejected), (Some(&pod(1)), 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_measure_is_not_taken_in() {
    let (_fake, mut calls, discovery) = start();
    let watched = discovery.endpoints(&cart());
    let call = next(&mut calls.endpoints).await;
    call.say(set(1, &endpoints(0..3))).await;
    becomes(&watched, endpoints(0..3), SOON).await;
    let one =
        v1::Endpoint { workload: format!("shop/{}", "x".repeat(1000)), ..v1::Endpoint::from(&endpoint(1)) };
    let huge = v1::EndpointSet { endpoints: vec![one; 17 * 1024], tls: None };
    let mut call = call;
    for count in 1..=3 {
        call.say(v1::EndpointsUpdate { endpoints: Some(huge.clone()), ..set(1, &[]) }).await;
        call = next(&mut calls.endpoints).await;
        assert_eq!(discovery.figures().rejected, count);
        assert_eq!(*watched.latest().expect("known"), endpoints(0..3));
    }
    call.say(set(1, &endpoints(0..4))).await;
    becomes(&watched, endpoints(0..4), SOON).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_flaps_is_taken_at_a_pace_and_its_last_word_counts() {
    let (_fake, mut calls, discovery) = start();
    let watched = discovery.endpoints(&cart());
    let call = next(&mut calls.endpoints).await;
    let begun = Instant::now();
    for number in 0..5000 {
        call.say(set(1, &endpoints(number..number + 1))).await;
        if number % 500 == 0 {
            sleep(SOON).await;
        }
    }
    becomes(&watched, endpoints(4999..5000), SOON).await;
    let changes = u32::try_from(watched.version()).expect("few");
    let most = CHANGES_AT_ONCE + 2 + (begun.elapsed().as_millis() / CHANGE_INTERVAL.as_millis()) as u32;
    assert!((CHANGES_AT_ONCE..=most).contains(&changes), "{changes}, at most {most}");
    assert!(discovery.figures().paced > 1000);
    // Others are not kept from their answers.
    let other = discovery.outbound(target(1));
    let call = next(&mut calls.outbound).await;
    call.say(says(&service("cart"))).await;
    assert!(other.first(DISCOVERY_WAIT).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn many_that_lost_control_do_not_come_back_as_one() {
    let authority = Authority::new("root");
    let (fake, mut calls) = Fake::new(&authority);
    fake.go();
    let proxies: Vec<_> = (0..50)
        .map(|_| {
            let discovery = discover(&fake, &authority);
            let watched = discovery.outbound(target(1));
            (discovery, watched)
        })
        .collect();
    sleep(Duration::from_secs(120)).await;
    fake.come_back();
    let back = Instant::now();
    let mut arrivals = Vec::new();
    let mut held = Vec::new();
    while held.len() < proxies.len() {
        held.push(timeout(Duration::from_secs(20), calls.outbound.recv()).await.expect("in time"));
        arrivals.push(back.elapsed());
    }
    let mut busiest = 0;
    for from in &arrivals {
        let window = *from..*from + Duration::from_secs(1);
        busiest = busiest.max(arrivals.iter().filter(|arrival| window.contains(*arrival)).count());
    }
    assert!(busiest < proxies.len() / 2, "{busiest} within a second: {arrivals:?}");
}
