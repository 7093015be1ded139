//! Who gets a certificate, and what happens when the root changes.

use serde_json::Value;
use std::{fs, path::Path, process::Command, thread, time::Duration};
use tests::{
    cluster::{
        Cluster, SYSTEM,
        load::Load,
        namespace::{Namespace, name},
        workloads,
    },
    holds,
    pod::ADMIN_PORT,
};

/// As long as a root is told before an issuer below it signs, and as long again for everyone's renewal.
const ROTATED: Duration = Duration::from_secs(180);

const NEXT_ROOT: &str = "weft-next-root";

/// A token that a pod of the account `thief` shows, and what it is told.
struct Stolen {
    name: &'static str,
    /// Whose token it is; one that nobody signed when there is none.
    account: Option<&'static str>,
    audience: &'static str,
    /// Bound to the pod of its account.
    bound: bool,
    refusal: &'static str,
}

const AUDIENCE: &str = "identity.weft.mesh";
const STOLEN: &[Stolen] = &[
    Stolen {
        name: "other-audience",
        account: Some("thief"),
        audience: "https://kubernetes.default.svc.cluster.local",
        bound: false,
        refusal: "not valid for the audience",
    },
    Stolen {
        name: "unbound",
        account: Some("victim"),
        audience: AUDIENCE,
        bound: false,
        refusal: "not bound to a Pod",
    },
    Stolen {
        name: "bound",
        account: Some("victim"),
        audience: AUDIENCE,
        bound: true,
        refusal: "must show its own token",
    },
    Stolen {
        name: "forged",
        account: None,
        audience: AUDIENCE,
        bound: false,
        refusal: "not valid for the audience",
    },
];

/// A proxy alone with a token that a Secret holds. It says on `/ready` what control has against it.
fn proxy(name: &str, account: &str, secret: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: NAMESPACE, labels: {{weft.mesh/inject: disabled}}}}
spec:
  serviceAccountName: {account}
  containers:
  - name: app
    image: weft.mesh/proxy:0.1.0
    env:
    - {{name: WEFT_PROXY_WORKLOAD, value: NAMESPACE/{name}}}
    - {{name: WEFT_PROXY_CONTROL, value: "weft-control.weft-system.svc.cluster.local:8486"}}
    - {{name: WEFT_PROXY_TRUST_ANCHORS, value: /roots/ca.pem}}
    - {{name: WEFT_PROXY_TOKEN_FILE, value: /token/token}}
    volumeMounts: [{{name: roots, mountPath: /roots}}, {{name: token, mountPath: /token}}]
  volumes:
  - {{name: roots, configMap: {{name: weft-trust-roots}}}}
  - {{name: token, secret: {{secretName: {secret}}}}}
"#
    )
}

pub fn tokens_that_are_not_ones_own(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "tokens");
    for account in ["victim", "thief"] {
        namespace.apply(&format!(
            "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {account}, namespace: NAMESPACE}}}}"
        ));
    }
    let manifest =
        workloads::client("bearer").replace("serviceAccountName: bearer", "serviceAccountName: victim");
    namespace.apply(&manifest);
    namespace.ready(&["pod/bearer"]);
    let bound = ["--bound-object-kind=Pod", "--bound-object-name=bearer"];
    for stolen in STOLEN {
        let token = match stolen.account {
            None => "eyJhbGciOiJub25lIn0.e30.".to_owned(),
            Some(account) => {
                let bound: &[&str] = if stolen.bound { &bound } else { &[] };
                namespace
                    .kubectl(&[&["create", "token", account, "--audience", stolen.audience], bound].concat())
            }
        };
        let literal = format!("--from-literal=token={}", token.trim());
        namespace.kubectl(&["create", "secret", "generic", stolen.name, &literal]);
        namespace.apply(&proxy(stolen.name, "thief", stolen.name));
    }
    for stolen in STOLEN {
        namespace.eventually(Duration::from_secs(60), || {
            let log = namespace.try_kubectl(&["logs", stolen.name])?;
            holds(log.contains(stolen.refusal), format!("{}: no {:?} in {log}", stolen.name, stolen.refusal))
        });
    }
    // None of them ever gets one, though they go on asking. Who shows his own has one.
    thread::sleep(Duration::from_secs(15));
    for stolen in STOLEN {
        let log = namespace.kubectl(&["logs", stolen.name]);
        assert!(!log.contains("ready: "), "{} has a certificate: {log}", stolen.name);
        let ready = cluster.fetch("tokens", stolen.name, ADMIN_PORT, "/ready");
        assert!(ready.is_err(), "{} is ready: {ready:?}", stolen.name);
    }
    cluster.fetch("tokens", "bearer", ADMIN_PORT, "/ready").expect("a proxy with its own token is ready");
}

pub fn roots_change_under_load(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "roots");
    namespace.apply(&workloads::server("server", 2));
    namespace.ready(&["deployment/server"]);
    let load = Load::start(&namespace, "load", 100, "http://server/");
    let old = issuer(cluster, "ca.pem");
    let folder = tempfile::tempdir().expect("a folder");
    let (key, certificate) = (folder.path().join("issuer.key"), folder.path().join("issuer.pem"));
    new_root(&key, &certificate);
    let new = fs::read_to_string(&certificate).expect("a certificate");
    fs::write(folder.path().join("ca.pem"), format!("{old}{new}")).expect("the roots");
    let file = |name: &str| format!("--from-file={name}={}", folder.path().join(name).display());
    let secret = cluster.kubectl(&[
        "-n",
        SYSTEM,
        "create",
        "secret",
        "generic",
        "weft-identity-issuer",
        "--dry-run=client",
        "-o",
        "yaml",
        &file("issuer.key"),
        &file("issuer.pem"),
        &file("ca.pem"),
    ]);
    cluster.apply(&secret.unwrap_or_else(|error| panic!("{error}")));
    // The roots reach each namespace, and who comes late is signed by the new one and trusted by those of the old one.
    namespace.eventually(Duration::from_secs(60), || {
        let told = cluster.json(&["-n", "roots", "configmap/weft-trust-roots"])["data"]["ca.pem"].clone();
        let both = told.as_str().is_some_and(|told| told.contains(new.trim()) && told.contains(old.trim()));
        if both { Ok(()) } else { Err(format!("the namespace is told of {told}")) }
    });
    namespace.eventually(ROTATED, || {
        namespace.kubectl(&["delete", "pod", "late", "--ignore-not-found", "--grace-period=1"]);
        namespace.apply(&workloads::client("late"));
        namespace.ready(&["pod/late"]);
        let (_, text) = cluster.weft(&["identity", "late", "-n", "roots", "-o", "json"]);
        let identity: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
        let issuer = identity["chain"][0]["issuer"].as_str().unwrap_or_default();
        holds(issuer.contains(NEXT_ROOT), format!("signed by {issuer:?}: {text}"))
    });
    namespace.get("late", "http://server/");
    namespace.assert_mtls("late", "outbound", "server");
    // Those who hold a certificate of the old root meet ever more who hold one of the new.
    namespace.kubectl(&["rollout", "restart", "deployment/server"]);
    namespace.ready(&["deployment/server"]);
    let report = load.assert_faultless(1_000);
    for pod in namespace.pods("app in (server, load)") {
        let metrics = namespace.metrics(name(&pod));
        let failed: Vec<_> = metrics
            .series_of("weft_handshakes_total")
            .into_iter()
            .filter(|one| !["full", "resumed"].contains(&one.labels["outcome"].as_str()) && one.value > 0.0)
            .collect();
        assert!(failed.is_empty(), "{} has failed handshakes: {failed:?}", name(&pod));
        let restarts = pod["status"]["initContainerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one["restartCount"].as_u64().unwrap_or(1));
        assert_eq!(restarts.sum::<u64>(), 0, "{} was restarted", name(&pod));
    }
    println!("root rotation: {} requests, {} failed", report.sent, report.failed);
}

/// One key of the issuer's Secret, as text.
fn issuer(cluster: &Cluster, key: &str) -> String {
    let template = format!("go-template={{{{index .data \"{}\" | base64decode}}}}", key);
    let text = cluster.kubectl(&["-n", SYSTEM, "get", "secret", "weft-identity-issuer", "-o", &template]);
    text.unwrap_or_else(|error| panic!("{error}"))
}

/// A key and a root of its own.
fn new_root(key: &Path, certificate: &Path) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "3650",
        ])
        .args(["-subj", &format!("/CN={NEXT_ROOT}"), "-addext", "subjectAltName=URI:spiffe://cluster.local"])
        .args([
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}
