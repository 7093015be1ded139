//! Things broken on purpose: events, refusals and `weft check` name each of them.

use serde_json::{Value, json};
use std::{path::Path, process::Command, time::Duration};
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
            "tokenreviews",
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

/// An issuer that has expired is named.
pub fn an_issuer_that_has_expired(cluster: &Cluster) {
    let secret = ["-n", SYSTEM, "patch", "secret", "weft-identity-issuer", "--type=merge", "-p"];
    let held = cluster.json(&["-n", SYSTEM, "secret/weft-identity-issuer"])["data"].clone();
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let expired = params.self_signed(&key).expect("a certificate").pem();
    let files = json!({"issuer.key": key.serialize_pem(), "issuer.pem": expired, "ca.pem": expired});
    let patch = |patch: Value| cluster.kubectl(&[&secret[..], &[&patch.to_string()]].concat());
    patch(json!({"stringData": files})).unwrap_or_else(|error| panic!("{error}"));
    cluster.eventually(SYSTEM, SOON, || match cluster.weft(&["check"]) {
        (1, text) if text.contains("expired") => Ok(()),
        (code, text) => Err(format!("the issuer has expired, but weft check ends with {code}:\n{text}")),
    });
    patch(json!({"data": held})).unwrap_or_else(|error| panic!("{error}"));
    cluster.eventually(SYSTEM, SOON, || match cluster.weft(&["check"]) {
        (0, _) => Ok(()),
        (code, text) => Err(format!("the issuer is back, but weft check ends with {code}:\n{text}")),
    });
}

/// The Gateway API's definitions are the cluster's: that they are missing is said with how to get them, and nothing of the
/// mesh ever touches them.
pub fn the_gateway_api_is_the_clusters(cluster: &Cluster) {
    const MODULE: &str = "sigs.k8s.io/gateway-api@v1.6.3";
    let (_, text) = cluster.weft(&["check", "--pre"]);
    assert!(text.contains("gateway-api") && text.contains("kubectl apply --server-side"), "{text}");
    let downloaded = Command::new("go").args(["mod", "download", "-json", MODULE]).output().expect("go");
    let module: Value = serde_json::from_slice(&downloaded.stdout).expect("go tells in JSON");
    let folder = module["Dir"].as_str().unwrap_or_else(|| panic!("{MODULE} was not downloaded: {module}"));
    let definitions = Path::new(folder).join("config/crd/standard");
    let applied = cluster.kubectl(&["apply", "--server-side", "-f", definitions.to_str().expect("UTF-8")]);
    applied.unwrap_or_else(|error| panic!("{error}"));
    let (_, text) = cluster.weft(&["check", "--pre"]);
    assert!(!text.contains("kubectl apply --server-side"), "they are there, at the right version: {text}");
    let route = cluster
        .json(&["customresourcedefinition/httproutes.gateway.networking.k8s.io", "--show-managed-fields"]);
    let writers = route["metadata"]["managedFields"].as_array().expect("who wrote what");
    let of_ours =
        writers.iter().filter(|one| one["manager"].as_str().is_some_and(|name| name.contains("weft")));
    assert_eq!(of_ours.count(), 0, "{writers:?}");
}
