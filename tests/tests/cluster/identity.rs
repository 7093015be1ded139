//! Who gets a certificate, and what happens when the root changes.

use std::{fs, process::Command, time::Duration};
use tests::cluster::{
    Cluster, SYSTEM,
    load::Load,
    namespace::{Namespace, name},
    workloads,
};

/// As long as a root is told before an issuer below it signs, and as long again for everyone's renewal.
const ROTATED: Duration = Duration::from_secs(180);

/// A proxy alone with a token that a Secret holds. It says on `/ready` what control has against it.
fn proxy(name: &str, account: &str, workload: &str, secret: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: NAMESPACE}}
spec:
  serviceAccountName: {account}
  containers:
  - name: app
    image: weft.mesh/proxy:0.1.0
    env:
    - {{name: WEFT_PROXY_WORKLOAD, value: {workload}}}
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
    let namespace = Namespace::labelled(cluster, "tokens", "{weft.mesh/inject: enabled}");
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
    // The Secret's name, whose account's token it holds, for what audience, bound to its pod or not.
    let tokens: [(&str, &str, &str, &[&str]); 4] = [
        ("other-audience", "thief", "https://kubernetes.default.svc.cluster.local", &[]),
        ("stolen", "victim", "identity.weft.mesh", &[]),
        ("stolen-bound", "victim", "identity.weft.mesh", &bound),
        ("forged", "", "", &[]),
    ];
    for (secret, account, audience, bound) in tokens {
        let token = if account.is_empty() {
            "eyJhbGciOiJub25lIn0.e30.".to_owned()
        } else {
            namespace.kubectl(&[&["create", "token", account, "--audience", audience], bound].concat())
        };
        namespace.kubectl(&[
            "create",
            "secret",
            "generic",
            secret,
            &format!("--from-literal=token={}", token.trim()),
        ]);
        let workload =
            if secret == "stolen-bound" { "tokens/bearer".to_owned() } else { format!("tokens/{secret}") };
        let pod = proxy(secret, "thief", &workload, secret);
        namespace.apply(
            &pod.replace(
                "namespace: NAMESPACE}",
                "namespace: NAMESPACE, labels: {weft.mesh/inject: disabled}}",
            ),
        );
    }
    for (secret, ..) in tokens {
        let refused = namespace.eventually(Duration::from_secs(60), || {
            let log = namespace.try_kubectl(&["logs", secret])?;
            let line = log.lines().find(|line| {
                line.contains("certificate") || line.contains("token") || line.contains("identity")
            });
            line.map(str::to_owned).ok_or(format!("no word on its identity in {log:?}"))
        });
        println!("identity: {secret}: {refused}");
    }
    // None of them ever gets one, though they go on asking.
    std::thread::sleep(Duration::from_secs(15));
    for (secret, ..) in tokens {
        let log = namespace.kubectl(&["logs", secret]);
        assert!(!log.contains("ready: "), "{secret} has a certificate: {log}");
        let why = cluster.fetch("tokens", secret, 4291, "/ready").expect_err("it is not ready");
        println!("identity: {secret}: {why}");
    }
    namespace.kubectl(&["exec", "bearer", "-c", "app", "--", "/echo", "get", "http://localhost:4291/ready"]);
}

pub fn roots_change_under_load(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "roots");
    namespace.apply(&workloads::server("server", 2));
    namespace.ready(&["deployment/server"]);
    let load = Load::start(&namespace, "load", 100, "http://server/");
    let old = issuer(cluster, "ca\\.pem");
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
    let fingerprint = new.lines().nth(1).expect("base64").to_owned();
    namespace.eventually(ROTATED, || {
        namespace.kubectl(&["delete", "pod", "late", "--ignore-not-found", "--grace-period=1"]);
        namespace.apply(&workloads::client("late"));
        namespace.ready(&["pod/late"]);
        let (_, text) = cluster.weft(&["identity", "late", "-n", "roots", "-o", "json"]);
        if text.contains("weft-next-root") {
            Ok(())
        } else {
            Err(format!("not signed by the new root ({fingerprint}): {text}"))
        }
    });
    namespace.get("late", "http://server/");
    namespace.assert_mtls("late", "outbound", "server");
    let report = load.assert_faultless(1_000);
    for pod in namespace.pods("app in (server, load)") {
        let metrics = namespace.metrics(name(&pod));
        let failed: Vec<_> = metrics
            .series_of("weft_handshakes_total")
            .into_iter()
            .filter(|one| one.labels["outcome"] != "ok" && one.value > 0.0)
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
    let template = format!("go-template={{{{index .data \"{}\" | base64decode}}}}", key.replace('\\', ""));
    let text = cluster.kubectl(&["-n", SYSTEM, "get", "secret", "weft-identity-issuer", "-o", &template]);
    text.unwrap_or_else(|error| panic!("{error}"))
}

/// A key and a root of its own.
fn new_root(key: &std::path::Path, certificate: &std::path::Path) {
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
        .args(["-subj", "/CN=weft-next-root", "-addext", "subjectAltName=URI:spiffe://cluster.local"])
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
