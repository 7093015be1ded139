//! The control plane away: what runs goes on, what nobody asked to be meshed starts, and what must be meshed is refused clearly.

use std::{env, thread, time::Duration};
use tests::cluster::{
    Cluster, SYSTEM,
    load::Load,
    namespace::{Namespace, READY},
    workloads,
};

/// How long control is away, in seconds; `WEFT_OUTAGE_SECONDS` sets another.
const OUTAGE: u64 = 60;
const PER_SECOND: u32 = 100;

/// Scales a Deployment of the mesh's own, and waits until its pods are there or gone.
fn scale(cluster: &Cluster, name: &str, replicas: &str) {
    let done = cluster.kubectl(&[
        "-n",
        SYSTEM,
        "scale",
        &format!("deployment/{name}"),
        &format!("--replicas={replicas}"),
    ]);
    done.unwrap_or_else(|error| panic!("{error}"));
    if replicas != "0" {
        return cluster.rolled_out(SYSTEM, READY);
    }
    let selector = format!("app.kubernetes.io/component={}", name.trim_start_matches("weft-"));
    cluster.eventually(SYSTEM, READY, || {
        let left = cluster.kubectl(&["-n", SYSTEM, "get", "pods", "-l", &selector, "-o", "name"])?;
        if left.trim().is_empty() { Ok(()) } else { Err(format!("still there: {left}")) }
    });
}

pub fn traffic_without_control(cluster: &Cluster) {
    let seconds = env::var("WEFT_OUTAGE_SECONDS")
        .ok()
        .map_or(OUTAGE, |text| text.parse().expect("a number of seconds"));
    let namespace = Namespace::meshed(cluster, "outage");
    namespace.apply(&workloads::server("server", 2));
    namespace.ready(&["deployment/server"]);
    let load = Load::start(&namespace, "load", PER_SECOND, "http://server/");
    let before = load.report().sent;
    scale(cluster, "weft-control", "0");
    thread::sleep(Duration::from_secs(seconds));
    load.assert_faultless(before + seconds * u64::from(PER_SECOND) * 9 / 10);
    scale(cluster, "weft-control", "1");
    // And it serves again: someone new is found and has an identity.
    namespace.apply(&workloads::client("late"));
    namespace.ready(&["pod/late"]);
    namespace.get("late", "http://server/");
    namespace.assert_mtls("late", "outbound", "server");
    let report = load.assert_faultless(before);
    println!("control outage: {seconds} s, {} requests, {} failed", report.sent, report.failed);
}

pub fn pods_without_the_injector(cluster: &Cluster) {
    scale(cluster, "weft-injector", "0");
    let (plain, meshed) = (Namespace::plain(cluster, "plain"), Namespace::meshed(cluster, "wanting"));
    plain.apply(&workloads::client("pod"));
    plain.ready(&["pod/pod"]);
    let refused =
        cluster.try_apply(&meshed.within(&workloads::client("pod"))).expect_err("a pod that must be meshed");
    assert!(refused.contains("namespace.inject.weft.mesh"), "it does not name the webhook: {refused}");
    let system = cluster.kubectl(&["-n", "kube-system", "rollout", "restart", "deployment/coredns"]);
    system.unwrap_or_else(|error| panic!("{error}"));
    cluster.rolled_out("kube-system", READY);
    scale(cluster, "weft-injector", "1");
    // Who was refused comes by himself once the injector is back: that is what Deployments are for.
    meshed.apply(&workloads::server("server", 1));
    meshed.ready(&["deployment/server"]);
}
