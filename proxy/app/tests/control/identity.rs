//! Getting a certificate, keeping it, and keeping up with the roots.

use crate::fake::{Authority, Calls, DOMAIN, Fake, HOUR, next};
use policy::WorkloadName;
use proxy_app::{
    control::Control,
    identity::{Identity, Settings},
};
use proxy_tls::Trust;
use proxy_wire::v1;
use std::{
    cell::OnceCell,
    fs,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// The time of day by the runtime's clock, so that it can be paused.
fn clock() -> SystemTime {
    thread_local!(static START: OnceCell<(SystemTime, Instant)> = const { OnceCell::new() });
    START.with(|start| {
        let (day, instant) = *start.get_or_init(|| (SystemTime::now(), Instant::now()));
        day + instant.elapsed()
    })
}

struct World {
    authority: Authority,
    fake: Fake,
    calls: Calls,
    control: Control,
    identity: Identity,
    files: TempDir,
}

/// A proxy of the workload shop/cart-1 whose token is `good`.
fn start() -> World {
    let authority = Authority::new("root");
    let (fake, calls) = Fake::new(&authority);
    let files = tempfile::tempdir().expect("a folder");
    fs::write(files.path().join("token"), "good\n").expect("a file");
    let control = Control::start(fake.dial(), authority.trust());
    let settings = Settings {
        workload: WorkloadName::new("shop", "cart-1"),
        token_file: files.path().join("token"),
        anchors: authority.trust(),
        clock,
    };
    let identity = Identity::start(control.clone(), settings);
    World { authority, fake, calls, control, identity, files }
}

impl World {
    /// Answers the next request as it should be.
    async fn certify(&mut self) {
        let call = next(&mut self.calls.certify).await;
        let response = self.authority.certify(&call.question, CART, HOUR);
        call.answer(Ok(response));
    }
}

/// Until the last attempt's failure says this.
async fn fails(identity: &Identity, says: &str) -> String {
    let start = Instant::now();
    loop {
        match identity.failure() {
            Some(failure) if failure.contains(says) => return failure.to_string(),
            other => assert!(start.elapsed() < SOON, "{other:?} does not say {says:?}"),
        }
        sleep(Duration::from_micros(100)).await;
    }
}

const SOON: Duration = Duration::from_secs(20);

fn roots(authorities: &[&Authority]) -> v1::TrustUpdate {
    v1::TrustUpdate { roots: authorities.iter().map(|one| one.root().to_vec()).collect() }
}

fn trust(authorities: &[&Authority]) -> Trust {
    let roots = authorities.iter().map(|one| one.root());
    Trust::new(DOMAIN.parse().expect("a trust domain"), roots).expect("roots")
}

#[tokio::test(start_paused = true)]
async fn the_first_certificate_makes_the_proxy_ready() {
    let mut world = start();
    assert!(world.identity.credentials().is_none() && world.identity.expiry().is_none());
    let call = next(&mut world.calls.certify).await;
    assert_eq!(call.question.token, "good", "without the line's end");
    let response = world.authority.certify(&call.question, CART, HOUR);
    call.answer(Ok(response));
    let credentials = timeout(HOUR, world.identity.ready()).await.expect("credentials");
    assert_eq!(credentials.certificate().identity().to_string(), CART);
    assert_eq!(world.identity.expiry(), Some(credentials.certificate().not_after()));
    assert_eq!((world.identity.renewals(), world.identity.failure()), ((1, 0), None));
}

#[tokio::test(start_paused = true)]
async fn the_token_is_read_at_each_attempt() {
    let mut world = start();
    let file = world.files.path().join("token");
    let refusal = || Err(Status::unauthenticated("the token has expired"));
    next(&mut world.calls.certify).await.answer(refusal());
    let failure = fails(&world.identity, "the token has expired").await;
    assert!(failure.contains("Unauthenticated"), "{failure}");

    fs::remove_file(&file).expect("a file");
    // One more attempt may have read the file before.
    let calls = &mut world.calls.certify;
    tokio::select! {
        _ = fails(&world.identity, "cannot be read") => {}
        () = async { while let Some(call) = calls.recv().await { call.answer(refusal()) } } => {}
    }

    fs::write(&file, "better").expect("a file");
    let call = next(&mut world.calls.certify).await;
    assert_eq!(call.question.token, "better");
    let response = world.authority.certify(&call.question, CART, HOUR);
    call.answer(Ok(response));
    timeout(HOUR, world.identity.ready()).await.expect("credentials");
    assert_eq!(world.identity.failure(), None);
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_between_30_and_50_percent() {
    let mut world = start();
    world.certify().await;
    let mut before = world.identity.ready().await;
    for _ in 0..5 {
        let start = Instant::now();
        let call = timeout(HOUR, world.calls.certify.recv()).await.expect("in time").expect("a call");
        let share = start.elapsed().as_secs_f64() / HOUR.as_secs_f64();
        assert!((0.28..=0.52).contains(&share), "renewed at {share}");
        // The clock of certificates is the machine's, which does not move here: their lifetimes begin anew each.
        let response = world.authority.certify(&call.question, CART, clock_offset() + HOUR);
        call.answer(Ok(response));
        sleep(Duration::from_secs(1)).await;
        let after = world.identity.credentials().expect("credentials");
        assert_ne!(after.certificate().not_after(), before.certificate().not_after());
        before = after;
    }
}

/// How far the test's time of day is ahead of the machine's.
fn clock_offset() -> Duration {
    clock().duration_since(SystemTime::now()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn an_issuer_of_short_lives_is_not_stormed() {
    let mut world = start();
    for _ in 0..20 {
        let call = next(&mut world.calls.certify).await;
        let response = world.authority.certify(&call.question, CART, Duration::from_secs(1));
        call.answer(Ok(response));
        let start = Instant::now();
        while world.identity.renewals().0 == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(500)).await;
        assert!(world.calls.certify.try_recv().is_err(), "asked again after {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_control_should_not_have_signed_is_refused() {
    let mut world = start();
    let foreign = Authority::new("foreign");
    let elsewhere = "spiffe://cluster.local/ns/bank/sa/cart";
    type Answer<'a> = &'a dyn Fn(&v1::CertifyRequest) -> v1::CertifyResponse;
    let authority = &world.authority;
    let table: [(Answer<'_>, &str); 6] = [
        (&|request| foreign.certify(request, CART, HOUR), "of no root that is trusted"),
        (&|request| authority.certify(request, elsewhere, HOUR), "for the workload shop/cart-1"),
        (
            &|request| authority.certify(request, "spiffe://other/ns/shop/sa/cart", HOUR),
            "another trust domain",
        ),
        (&|request| authority.certify(request, "https://shop", HOUR), "not an identity of the mesh"),
        (&|_| v1::CertifyResponse::default(), "the chain is empty"),
        (
            &|_| {
                let own = proxy_tls::Request::new().expect("a request");
                let request = v1::CertifyRequest { csr: own.csr().to_vec(), token: String::new() };
                authority.certify(&request, CART, HOUR)
            },
            "keys may not be consistent",
        ),
    ];
    for (answer, says) in table {
        let call = next(&mut world.calls.certify).await;
        let response = answer(&call.question);
        call.answer(Ok(response));
        fails(&world.identity, says).await;
        assert!(world.identity.credentials().is_none());
    }
    world.certify().await;
    timeout(HOUR, world.identity.ready()).await.expect("credentials");
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_the_lifetime_heals() {
    let mut world = start();
    world.certify().await;
    let old = world.identity.ready().await;
    world.fake.go();
    sleep(3 * HOUR).await;
    let held = world.identity.credentials().expect("what was known stays");
    assert_eq!(held.certificate().not_after(), old.certificate().not_after());
    world.fake.come_back();
    let call = next(&mut world.calls.certify).await;
    let response = world.authority.certify(&call.question, CART, clock_offset() + HOUR);
    call.answer(Ok(response));
    sleep(Duration::from_secs(1)).await;
    assert!(world.identity.expiry() > Some(clock()));
}

#[tokio::test(start_paused = true)]
async fn whatever_the_outage_was_a_new_certificate_comes_within_30_seconds() {
    type Outage = fn(&Fake);
    let table: [(&str, Outage, Duration); 4] = [
        ("refuses connections", Fake::go, HOUR),
        ("refuses connections, for longer than the lifetime", Fake::go, 3 * HOUR),
        ("frozen", Fake::freeze, HOUR),
        ("frozen, for longer than the lifetime", Fake::freeze, 3 * HOUR),
    ];
    let mut world = start();
    world.certify().await;
    world.identity.ready().await;
    for (case, begin, lasts) in table {
        // The last answers come anew: the source of control is read while proxies ask already.
        for refusals in [0, 2] {
            begin(&world.fake);
            sleep(lasts).await;
            while world.calls.certify.try_recv().is_ok() {}
            world.fake.cut();
            world.fake.come_back();
            let back = Instant::now();
            let renewals = world.identity.renewals().0;
            for _ in 0..refusals {
                next(&mut world.calls.certify).await.answer(Err(Status::unauthenticated("who is that?")));
            }
            let call = next(&mut world.calls.certify).await;
            let response = world.authority.certify(&call.question, CART, clock_offset() + HOUR);
            call.answer(Ok(response));
            while world.identity.renewals().0 == renewals {
                sleep(Duration::from_millis(10)).await;
            }
            assert!(
                back.elapsed() < Duration::from_secs(30),
                "{case}, {refusals} refusals: {:?}",
                back.elapsed()
            );
            assert!(world.identity.expiry() > Some(clock()), "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streamed_roots_make_new_credentials_at_once() {
    let mut world = start();
    world.certify().await;
    assert_eq!(*world.identity.ready().await.trust(), world.authority.trust());
    let new = Authority::new("new");
    let call = next(&mut world.calls.trust).await;

    call.say(roots(&[&world.authority, &new])).await;
    sleep(Duration::from_secs(1)).await;
    let both = world.identity.credentials().expect("credentials");
    assert_eq!(*both.trust(), trust(&[&world.authority, &new]));

    // Nothing new, and nonsense: nothing changes.
    call.say(roots(&[&new, &world.authority])).await;
    call.say(v1::TrustUpdate { roots: vec![] }).await;
    call.say(v1::TrustUpdate { roots: vec![vec![1, 2, 3], new.root().to_vec()] }).await;
    sleep(Duration::from_secs(1)).await;
    let same = world.identity.credentials().expect("credentials");
    assert!(std::sync::Arc::ptr_eq(&both, &same));
    assert!(world.calls.certify.try_recv().is_err(), "the certificate is still good");

    // The old root goes: the certificate with it.
    call.say(roots(&[&new])).await;
    let call = next(&mut world.calls.certify).await;
    let response = new.certify(&call.question, CART, HOUR);
    call.answer(Ok(response));
    sleep(Duration::from_secs(1)).await;
    let renewed = world.identity.credentials().expect("credentials");
    assert_eq!(*renewed.trust(), new.trust());
    renewed.certificate().check(&new.trust()).expect("a certificate of the new root");
}

#[tokio::test(start_paused = true)]
async fn control_is_found_under_a_new_root_that_it_announced() {
    let mut world = start();
    world.certify().await;
    let new = Authority::new("new");
    let before = next(&mut world.calls.trust).await;
    before.say(roots(&[&world.authority, &new])).await;
    sleep(Duration::from_secs(1)).await;
    world.fake.certificate(new.control());
    world.fake.cut();
    before.closed().await;
    next(&mut world.calls.trust).await;
    assert!(world.control.is_up());
    assert_eq!(world.control.failure(), None);
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_roots_is_opened_anew_when_it_is_silent_and_from_time_to_time() {
    let mut world = start();
    world.certify().await;
    let _silent = next(&mut world.calls.trust).await;
    let asked = Instant::now();
    let call =
        timeout(Duration::from_secs(50), world.calls.trust.recv()).await.expect("in time").expect("a call");
    assert!(asked.elapsed() > Duration::from_secs(41), "not before two repetitions are overdue");
    let again = async {
        loop {
            call.say(roots(&[&world.authority])).await;
            sleep(Duration::from_secs(20)).await;
        }
    };
    let asked = Instant::now();
    tokio::select! {
        () = again => {}
        next = timeout(Duration::from_secs(700), world.calls.trust.recv()) => drop(next.expect("in time")),
    }
    assert!(asked.elapsed() > Duration::from_secs(590), "{:?}", asked.elapsed());
}
