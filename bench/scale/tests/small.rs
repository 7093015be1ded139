//! The measurement in small, with the real control: nothing about time, but every change must arrive, at whom it concerns and
//! at nobody else, and what each proxy holds in the end is the truth.

#![allow(clippy::unwrap_used)]

use bench_scale::{
    mesh::Size,
    run::{Outcome, Scale, run},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// A Weft program: beside the test's own folder, or in `WEFT_BIN_DIR`.
fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("WEFT_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().unwrap();
        test.parent().and_then(Path::parent).unwrap().into()
    });
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: `cargo build --workspace` makes it", path.display());
    path
}

fn scale(services: usize, rate: f64) -> Scale {
    Scale {
        control: binary("weft-control"),
        control_cpu: None,
        size: Size { services, pods: 4 * services },
        proxies: 10,
        destinations: 8,
        among: 20,
        rate,
        duration: Duration::from_secs(1),
    }
}

async fn measure(scale: Scale) -> Outcome {
    run(&scale).await.unwrap_or_else(|error| panic!("{error:?}"))
}

#[tokio::test]
async fn every_change_arrives_at_whom_it_concerns() {
    let outcome = measure(Scale { among: 50, ..scale(50, 100.0) }).await;
    assert_eq!(outcome.changes, 100);
    assert_eq!(outcome.behind, [], "what is held in the end is the truth");
    // The port that a Service stands before, and the policy and endpoints of each destination.
    assert_eq!(outcome.streams.len(), 10 * (1 + 2 * 8));
    let expected: usize = outcome.streams.iter().map(|(_, changes, _)| changes).sum();
    assert_eq!(outcome.arrivals.len(), expected);
    assert!(expected > 50, "{expected} is too few to mean anything");
    for (subject, changes, tally) in &outcome.streams {
        assert!(
            tally.answers - tally.partial <= *changes as u64,
            "{subject:?}: {changes} changes, but {tally:?}"
        );
    }
}

#[tokio::test]
async fn a_proxys_share_does_not_grow_with_the_mesh() {
    let small = measure(scale(20, 0.0)).await;
    let large = measure(scale(100, 0.0)).await;
    assert_eq!((&small.behind, &large.behind), (&vec![], &vec![]));
    assert_eq!(small.streams.len(), large.streams.len());
    // Names are as long in both; of pods they differ by their numbers alone.
    for (small, large) in small.first_bytes.iter().zip(&large.first_bytes) {
        assert!(small.abs_diff(*large) < small / 10, "{small} bytes at first of 20 Services, {large} of 100");
    }
}

#[tokio::test]
async fn changes_elsewhere_reach_nobody() {
    // One watched Service of a hundred: nearly all of the changes are others'.
    let scale = Scale { proxies: 1, destinations: 1, among: 1, ..scale(100, 100.0) };
    let outcome = measure(scale).await;
    assert_eq!((outcome.behind, outcome.changes), (vec![], 100));
    let concerned: usize = outcome.streams.iter().map(|(_, changes, _)| changes).sum();
    let told: u64 = outcome.tallies.iter().map(|tally| tally.answers - tally.partial).sum();
    assert!(told as usize <= concerned, "{told} answers about {concerned} changes");
    assert!(concerned < 20, "{concerned} of 100 changes are about one of 100 Services");
}
