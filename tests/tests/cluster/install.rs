//! Installing and uninstalling, by Helm and by `weft`: quick, whole, and without trace.

use std::time::{Duration, Instant};
use tests::cluster::{
    Cluster, SYSTEM,
    namespace::{Namespace, is_meshed},
    workloads,
};

/// From `helm install` to all pods of the control plane Ready.
const INSTALLED: Duration = Duration::from_secs(30);

pub fn helm_installs_in_time(cluster: &Cluster) {
    let begun = Instant::now();
    helm_install(cluster, &[]);
    cluster.rolled_out(SYSTEM, INSTALLED);
    let took = begun.elapsed();
    println!("helm install: ready within {took:.1?}");
    assert!(took < INSTALLED, "ready only after {took:?}\n{}", cluster.story(SYSTEM));
    checked(cluster);
}

fn helm_install(cluster: &Cluster, more: &[&str]) {
    let chart = cluster.root().join("charts/weft");
    let args = [
        "upgrade",
        "--install",
        "weft",
        chart.to_str().expect("UTF-8"),
        "--namespace",
        SYSTEM,
        "--create-namespace",
    ];
    cluster.helm(&[&args, more].concat()).unwrap_or_else(|error| panic!("{error}"));
}

/// `weft check` has nothing against the mesh, once what begins has begun.
fn checked(cluster: &Cluster) {
    cluster.eventually(SYSTEM, Duration::from_secs(30), || match cluster.weft(&["check"]) {
        (0, _) => Ok(()),
        (code, text) => Err(format!("weft check ends with {code}:\n{text}")),
    });
}

pub fn helm_leaves_nothing_behind(cluster: &Cluster) {
    cluster
        .helm(&["uninstall", "weft", "--namespace", SYSTEM, "--wait"])
        .unwrap_or_else(|error| panic!("{error}"));
    gone(cluster);
}

pub fn weft_installs_the_same(cluster: &Cluster) {
    let (code, text) = cluster.weft(&["install"]);
    assert_eq!(code, 0, "weft install: {text}");
    cluster.rolled_out(SYSTEM, INSTALLED);
    checked(cluster);
}

pub fn weft_leaves_nothing_behind(cluster: &Cluster) {
    let (code, text) = cluster.weft(&["uninstall", "--purge", "--force"]);
    assert_eq!(code, 0, "weft uninstall: {text}");
    gone(cluster);
    if cluster.json(&["namespace", SYSTEM])["status"]["phase"] == "Terminating" {
        let namespace = format!("namespace/{SYSTEM}");
        let gone = cluster.kubectl(&["wait", "--for=delete", &namespace, "--timeout=60s"]);
        gone.unwrap_or_else(|error| panic!("{error}\n{}", cluster.story(SYSTEM)));
    }
    let left = cluster
        .kubectl(&["-n", SYSTEM, "get", "secrets,leases", "-o", "name", "--ignore-not-found"])
        .unwrap();
    assert!(!left.contains("weft"), "still there: {left}");
}

/// Nothing of the mesh runs any more, nobody has rights any more, and no webhook stands in the way of pods.
fn gone(cluster: &Cluster) {
    let kinds =
        "deployments,daemonsets,services,serviceaccounts,poddisruptionbudgets,configmaps,roles,rolebindings";
    let cluster_kinds = "mutatingwebhookconfigurations,clusterroles,clusterrolebindings";
    let ours = ["-l", "app.kubernetes.io/part-of=weft", "-o", "name", "--ignore-not-found"];
    cluster.eventually(SYSTEM, Duration::from_secs(30), || {
        let left = cluster.kubectl(&[&["-n", SYSTEM, "get", kinds], &ours[..]].concat())?;
        let others = cluster.kubectl(&[&["get", cluster_kinds], &ours[..]].concat())?;
        // The roots stay in a namespace until it is unlabelled: pods that still run have them mounted.
        let left: Vec<_> =
            left.lines().chain(others.lines()).filter(|name| !name.ends_with("weft-trust-roots")).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("still there: {left:?}")) }
    });
    let namespace = Namespace::meshed(cluster, "after");
    namespace.apply(&workloads::client("pod"));
    namespace.ready(&["pod/pod"]);
    assert!(!is_meshed(&namespace.json(&["pod/pod"])), "who injected it?");
}

/// The CNI mode: pods are meshed without any capability of theirs, so a namespace may enforce the restricted Pod Security.
pub fn pods_without_capabilities(cluster: &Cluster) {
    helm_install(cluster, &["--set", "cni.enabled=true"]);
    cluster.rolled_out(SYSTEM, INSTALLED);
    let agents = cluster.kubectl(&["-n", SYSTEM, "rollout", "status", "daemonset/weft-cni", "--timeout=60s"]);
    agents.unwrap_or_else(|error| panic!("{error}\n{}", cluster.story(SYSTEM)));
    let labels = "{weft.mesh/inject: enabled, pod-security.kubernetes.io/enforce: restricted}";
    let namespace = Namespace::labelled(cluster, "cni", labels);
    namespace.apply(&workloads::restricted(&workloads::server("server", 2)));
    namespace.apply(&workloads::restricted(&workloads::client("client")));
    namespace.ready(&["deployment/server", "pod/client"]);
    namespace.get("client", "http://server/");
    namespace.assert_mtls("client", "outbound", "server");
    drop(namespace);
    helm_leaves_nothing_behind(cluster);
}
