//! The certificate through its life, by a clock that the test moves.

use crate::{api::Api, trust};
use hyper::StatusCode;
use injector::webhook::{
    Metrics,
    keeper::{Keeper, KeeperError, Slot},
};
use rustls_pki_types::CertificateDer;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::advance;

const DAY: u64 = 24 * 3600;
const SPREAD: Duration = Duration::from_secs(10);

/// An API server, a clock, and replicas.
struct World {
    api: Api,
    seconds: Arc<AtomicU64>,
}

struct Replica {
    keeper: Keeper,
    slot: Arc<Slot>,
    metrics: Arc<Metrics>,
}

impl World {
    fn new() -> Self {
        World { api: Api::new(), seconds: Arc::new(AtomicU64::new(20_000 * DAY)) }
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.seconds.load(Ordering::Relaxed))
    }

    fn pass(&self, days: u64) {
        self.seconds.fetch_add(days * DAY, Ordering::Relaxed);
    }

    fn replica(&self) -> Replica {
        let (slot, metrics, seconds) =
            (Arc::new(Slot::default()), Arc::new(Metrics::default()), self.seconds.clone());
        let clock = Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed)));
        let names = vec![trust::NAME.to_owned()];
        let keeper =
            Keeper::new(&self.api.client(), "weft-system", names, clock, slot.clone(), metrics.clone());
        Replica { keeper, slot, metrics }
    }

    /// What a replica shows, if the API server believes it.
    async fn shown(&self, replica: &Replica) -> Option<CertificateDer<'static>> {
        trust::shown(&self.api, &replica.slot, self.now()).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_replica_makes_it_and_says_so() {
    let world = World::new();
    let mut replica = world.replica();
    assert!(!replica.slot.is_filled());
    replica.keeper.look().await.unwrap();
    let secret = world.api.secret().unwrap();
    assert_eq!(secret["type"], "kubernetes.io/tls");
    assert_eq!(secret["metadata"]["labels"]["app.kubernetes.io/part-of"], "weft");
    for webhook in world.api.webhooks().as_array().unwrap() {
        assert_eq!(webhook["clientConfig"]["caBundle"], secret["data"]["ca.crt"]);
    }
    assert!(world.shown(&replica).await.is_some());
    assert!(replica.metrics.text().contains("weft_injector_certificate_expiry_seconds 1735776000"));
    let writes = world.api.writes();
    replica.keeper.look().await.unwrap();
    assert_eq!(world.api.writes(), writes, "what is right is not written again");
}

#[tokio::test(start_paused = true)]
async fn replicas_that_begin_at_once_agree() {
    let world = World::new();
    let mut replicas = [(); 3].map(|()| world.replica());
    let [one, two, three] = &mut replicas;
    let looks = tokio::join!(one.keeper.look(), two.keeper.look(), three.keeper.look());
    // Who was late with caBundle hears of it by its version, and looks again.
    for look in [looks.0, looks.1, looks.2] {
        assert!(matches!(look, Ok(_) | Err(KeeperError::Configuration { .. })), "{look:?}");
    }
    let mut shown = Vec::new();
    for replica in &mut replicas {
        replica.keeper.look().await.unwrap();
        shown.push(world.shown(replica).await.unwrap());
    }
    assert!(shown.iter().all(|leaf| *leaf == shown[0]));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_shown_what_he_does_not_know_while_it_rotates() {
    let world = World::new();
    let [mut one, mut two] = [(); 2].map(|()| world.replica());
    for replica in [&mut one, &mut two] {
        replica.keeper.look().await.unwrap();
    }
    let first = world.shown(&one).await.unwrap();
    world.pass(61);
    one.keeper.look().await.unwrap();
    assert_eq!(world.shown(&one).await.as_ref(), Some(&first), "the API server has just been told");
    assert_eq!(world.shown(&two).await.as_ref(), Some(&first));
    advance(SPREAD).await;
    one.keeper.look().await.unwrap();
    let second = world.shown(&one).await.expect("believed");
    assert_ne!(second, first);
    // The other replica, which saw it later, is believed before, meanwhile and after.
    assert_eq!(two.keeper.look().await.unwrap(), SPREAD);
    assert_eq!(world.shown(&two).await, Some(first));
    advance(SPREAD).await;
    two.keeper.look().await.unwrap();
    assert_eq!(world.shown(&two).await, Some(second.clone()));
    // A replica that begins serves at once with what there is.
    let mut three = world.replica();
    three.keeper.look().await.unwrap();
    assert_eq!(world.shown(&three).await, Some(second));
}

#[tokio::test(start_paused = true)]
async fn two_that_rotate_at_once_make_one() {
    let world = World::new();
    let [mut one, mut two] = [(); 2].map(|()| world.replica());
    for replica in [&mut one, &mut two] {
        replica.keeper.look().await.unwrap();
    }
    world.pass(61);
    let _ = tokio::join!(one.keeper.look(), two.keeper.look());
    for replica in [&mut one, &mut two] {
        replica.keeper.look().await.unwrap();
    }
    advance(SPREAD).await;
    for replica in [&mut one, &mut two] {
        replica.keeper.look().await.unwrap();
    }
    assert_eq!(world.shown(&one).await.unwrap(), world.shown(&two).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_written_again_as_it_was() {
    let world = World::new();
    let mut replica = world.replica();
    replica.keeper.look().await.unwrap();
    let (secret, shown) = (world.api.secret().unwrap(), world.shown(&replica).await.unwrap());
    world.api.delete_secret();
    replica.keeper.look().await.unwrap();
    assert_eq!(world.api.secret().unwrap()["data"], secret["data"], "deleted");
    world.api.change_secret(|secret| secret["data"]["tls.key"] = "bm9uZQ==".into());
    replica.keeper.look().await.unwrap();
    assert_eq!(world.api.secret().unwrap()["data"], secret["data"], "broken");
    world.api.change_secret(|secret| drop(secret["data"].take()));
    replica.keeper.look().await.unwrap();
    assert_eq!(world.api.secret().unwrap()["data"], secret["data"], "emptied");
    for text in [None, Some("bm9uZQ==")] {
        world.api.overwrite_bundles(text);
        assert_eq!(world.shown(&replica).await, None);
        replica.keeper.look().await.unwrap();
        assert_eq!(world.shown(&replica).await.as_ref(), Some(&shown), "caBundle {text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_injector_that_was_away_too_long_is_believed_at_once() {
    let world = World::new();
    let mut replica = world.replica();
    replica.keeper.look().await.unwrap();
    world.pass(100);
    assert_eq!(world.shown(&replica).await, None, "expired");
    replica.keeper.look().await.unwrap();
    assert!(world.shown(&replica).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn clocks_may_differ() {
    let world = World::new();
    let mut replica = world.replica();
    replica.keeper.look().await.unwrap();
    let late = world.now() - Duration::from_secs(50 * 60);
    assert!(trust::shown(&world.api, &replica.slot, late).await.is_some());
    // One that is written by a replica whose clock is days ahead is none for the others.
    let mut other =
        World { api: world.api.clone(), seconds: Arc::new(AtomicU64::new(20_070 * DAY)) }.replica();
    other.keeper.look().await.unwrap();
    replica.keeper.look().await.unwrap();
    advance(SPREAD).await;
    replica.keeper.look().await.unwrap();
    assert!(world.shown(&replica).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_way_is_named_and_what_is_held_stays() {
    let world = World::new();
    let mut replica = world.replica();
    world.api.refuse(Some(StatusCode::FORBIDDEN));
    let error = replica.keeper.look().await.unwrap_err();
    assert_eq!(error.to_string(), "Secret weft-injector-tls cannot be read");
    world.api.refuse(None);
    replica.keeper.look().await.unwrap();
    world.api.refuse(Some(StatusCode::INTERNAL_SERVER_ERROR));
    world.pass(61);
    replica.keeper.look().await.unwrap_err();
    assert!(world.shown(&replica).await.is_some());
    world.api.refuse(None);
    world.api.delete_configuration();
    let error = replica.keeper.look().await.unwrap_err();
    assert!(error.to_string().contains("install the chart"), "{error}");
}
