//! Things broken on purpose: events, refusals and `weft check` name each of them.

use std::time::Duration;
use tests::cluster::{
    Cluster, SYSTEM,
    namespace::{Namespace, READY, is_meshed},
    workloads,
};

const SOON: Duration = Duration::from_secs(45);

/// Pods of a labelled namespace that run without a proxy have an event that says why.
pub fn events_say_why_a_pod_has_no_proxy(cluster: &Cluster) {
    let namespace = Namespace::plain(cluster, "unmeshed");
    namespace.apply(&workloads::client("early"));
    namespace.ready(&["pod/early"]);
    namespace.kubectl(&["label", "namespace", "unmeshed", "weft.mesh/inject=enabled"]);
    let host = workloads::client("host").replace("spec:\n", "spec:\n  hostNetwork: true\n");
    let out = workloads::client("out").replace("labels: {app", "labels: {weft.mesh/inject: disabled, app");
    let told =
        workloads::client("told").replace("labels:", "annotations: {weft.mesh/inject: disabled}, labels:");
    for manifest in [host, out, told] {
        namespace.apply(&manifest);
    }
    namespace.ready(&["pod/host", "pod/out", "pod/told"]);
    for (pod, kind, word) in [
        ("early", "Warning", "rollout restart"),
        ("host", "Warning", "hostNetwork"),
        ("out", "Normal", "weft.mesh/inject"),
        ("told", "Normal", "weft.mesh/inject"),
    ] {
        assert!(!is_meshed(&namespace.json(&[&format!("pod/{pod}")])), "{pod} has a proxy");
        namespace.eventually(SOON, || {
            let selector = format!("reason=NotMeshed,involvedObject.name={pod}");
            let events = namespace.json(&["events", "--field-selector", &selector]);
            let found = events["items"].as_array().is_some_and(|all| {
                all.iter().any(|one| {
                    one["type"] == kind && one["message"].as_str().unwrap_or_default().contains(word)
                })
            });
            if found {
                Ok(())
            } else {
                Err(format!("no event NotMeshed ({kind}, {word:?}) on {pod}: {}", events["items"]))
            }
        });
    }
    let (code, text) = cluster.weft(&["check"]);
    assert!(
        code == 1 && text.contains("early") && text.contains("host"),
        "weft check ({code}) does not name them:\n{text}"
    );
}

/// A setting that cannot be read is refused with its name, its value and the form that is wanted.
pub fn admission_refuses_what_it_cannot_read(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "refusals");
    for (annotation, value) in [
        ("weft.mesh/skip-inbound-ports", "80-"),
        ("weft.mesh/opaque-ports", "70000"),
        ("weft.mesh/sidecar", "modern"),
        ("weft.mesh/access-log", "loud"),
        ("weft.mesh/inject", "yes"),
    ] {
        let manifest = workloads::client("pod")
            .replace("labels:", &format!("annotations: {{{annotation}: '{value}'}}, labels:"));
        let refused = cluster.try_apply(&namespace.within(&manifest)).expect_err(annotation);
        assert!(
            refused.contains(annotation) && refused.contains(value),
            "it does not say {annotation}, {value}: {refused}"
        );
    }
}

/// What is broken, how it is mended, and what `weft check` must say of it.
type Fault<'a> = (&'a str, Vec<Vec<&'a str>>, Vec<Vec<&'a str>>, &'a str);

pub fn check_names_what_is_broken(cluster: &Cluster) {
    let webhook = "mutatingwebhookconfiguration/weft-injector";
    let faults: Vec<Fault<'_>> = vec![
        (
            "the injector is away",
            vec![vec!["-n", SYSTEM, "scale", "deployment/weft-injector", "--replicas=0"]],
            vec![vec!["-n", SYSTEM, "scale", "deployment/weft-injector", "--replicas=1"]],
            "weft-injector",
        ),
        (
            "control may not read endpoints",
            vec![vec![
                "patch",
                "clusterrole",
                "weft-control",
                "--type=json",
                "-p",
                r#"[{"op": "replace", "path": "/rules", "value": []}]"#,
            ]],
            vec![],
            "endpointslices",
        ),
        ("no webhook", vec![vec!["delete", webhook]], vec![], "webhook"),
    ];
    for (what, breaks, mends, word) in faults {
        for args in breaks {
            cluster.kubectl(&args).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        cluster.eventually(SYSTEM, SOON, || match cluster.weft(&["check"]) {
            (1, text) if text.contains(word) => Ok(()),
            (code, text) => {
                Err(format!("{what}: weft check ends with {code} and does not say {word:?}:\n{text}"))
            }
        });
        for args in &mends {
            cluster.kubectl(args).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        if mends.is_empty() {
            let chart = cluster.root().join("charts/weft");
            let args = [
                "upgrade",
                "weft",
                chart.to_str().expect("UTF-8"),
                "--namespace",
                SYSTEM,
                "--force-conflicts",
            ];
            cluster.helm(&args).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        cluster.rolled_out(SYSTEM, READY);
    }
    cluster.eventually(SYSTEM, SOON, || match cluster.weft(&["check"]) {
        (0, _) => Ok(()),
        (code, text) => Err(format!("all is mended, but weft check ends with {code}:\n{text}")),
    });
}
