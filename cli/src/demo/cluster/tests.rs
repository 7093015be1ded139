//! The stock manifests of the shop, and small ones for what they do not show.

use super::*;
use crate::demo::manifests::STOCK;
use std::time::{Duration, SystemTime};

const SMALL: &str = "
apiVersion: v1
kind: Service
metadata: {name: front, namespace: a}
spec: {selector: {app: front}, ports: [{port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: a}
spec: {clusterIP: None, selector: {app: front}, ports: [{port: 80}]}
---
# nothing
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front, namespace: a}
spec:
  replicas: 2
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec:
      containers:
        - name: front
          image: registry.example:5000/team/shop:1.2@sha256:abc
          args: [--serve]
          env: [{name: ONE, value: '1'}, {name: NONE}]
          ports: [{name: web, containerPort: 8080}]
          readinessProbe: {httpGet: {port: web}}
";

fn small() -> Cluster {
    Cluster::read([("small.yaml", SMALL)], true).unwrap()
}

#[test]
fn the_stock_manifests_become_the_shop() {
    let mut cluster = Cluster::read(STOCK, true).unwrap();
    let pods = cluster.schedule().unwrap();
    let mut apps: Vec<_> = pods.iter().map(Pod::app).collect();
    apps.sort_unstable();
    assert_eq!(apps, ["auth", "cart", "customer", "order", "product", "product", "review", "visitor"]);
    for pod in &pods {
        let manifest = pod.manifest(Condition::Ready).object;
        assert_eq!(manifest.pointer("/metadata/labels/weft.mesh~1injected").unwrap(), "true", "{}", pod.name);
        assert_eq!(pod.program.name, "weft-shop");
        assert_eq!(pod.identity(), format!("spiffe://cluster.local/ns/shop/sa/{}", pod.app()));
        assert_eq!(pod.readiness.is_some(), pod.service.is_some(), "{}", pod.name);
    }
    assert_eq!(pods.last().unwrap().service, None, "clients come last");
    let hosts = cluster.hosts();
    for service in ["auth", "cart", "customer", "order", "product", "review"] {
        assert!(hosts.contains(&format!(" {service}.shop {service}.shop.svc ")), "{hosts}");
    }
}

#[test]
fn the_stock_list_is_the_folder() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/manifests");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    files.sort_unstable();
    assert_eq!(STOCK.map(|(name, _)| name).to_vec(), files);
}

#[test]
fn services_get_addresses_unless_they_want_none() {
    let cluster = small();
    let ips: Vec<_> = cluster
        .manifests()
        .iter()
        .map(|manifest| (manifest.file.clone(), manifest.object["spec"]["clusterIP"].clone()))
        .collect();
    let expected = [("service.a.front.json", "10.43.0.10"), ("service.a.headless.json", "None")];
    assert_eq!(ips, expected.map(|(file, ip)| (file.to_owned(), Value::from(ip))));
    assert!(cluster.hosts().contains("10.43.0.10 front.a front.a.svc front.a.svc.cluster.local\n"));
    assert!(!cluster.hosts().contains("headless"));
}

#[test]
fn a_replica_is_a_pod_with_its_own_name_and_addresses() {
    let mut cluster = small();
    let pods = cluster.schedule().unwrap();
    let [first, second] = &pods[..] else { panic!("two replicas") };
    assert_eq!(first.addresses, ["10.42.0.10".parse::<IpAddr>().unwrap(), "fd42::a".parse().unwrap()]);
    assert_eq!(second.addresses[0], "10.42.0.11".parse::<IpAddr>().unwrap());
    assert!(first.name.starts_with("front-") && first.name.ends_with("-1"), "{}", first.name);
    assert!(second.name.ends_with("-2"));
    assert_eq!(first.account, "default");
    let program = Program {
        name: "shop".into(),
        arguments: vec!["--serve".into()],
        environment: vec![("ONE".into(), "1".into()), ("NONE".into(), String::new())],
    };
    assert_eq!(first.program, program);
    assert_eq!(first.readiness, Some(Probe { port: 8080, path: "/".into() }));
    let third = cluster.replacement(first).unwrap();
    assert!(third.name.ends_with("-3"), "{}", third.name);
    assert_eq!(third.addresses[0], "10.42.0.12".parse::<IpAddr>().unwrap());
}

#[test]
fn the_object_says_in_which_condition_the_pod_is() {
    let pod = small().schedule().unwrap().remove(0);
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let table = [
        (Condition::Starting, "False", Value::Null),
        (Condition::Ready, "True", Value::Null),
        (Condition::Terminating { since }, "False", "2001-09-09T01:46:40Z".into()),
    ];
    for (condition, ready, deleted) in table {
        let manifest = pod.manifest(condition);
        assert_eq!(manifest.file, format!("pod.a.{}.json", pod.name));
        let object = manifest.object;
        assert_eq!(object["status"]["conditions"][0]["status"], ready, "{condition:?}");
        assert_eq!(object["metadata"].get("deletionTimestamp").unwrap_or(&Value::Null), &deleted);
        assert_eq!(object["status"]["podIP"], "10.42.0.10");
        assert_eq!(object["status"]["podIPs"][1]["ip"], "fd42::a");
        assert_eq!(object["kind"], "Pod");
        // The namespace does not ask for the mesh.
        assert_eq!(object["metadata"]["labels"].get("weft.mesh/injected"), None);
    }
}

#[test]
fn what_the_demo_cannot_run_is_refused_with_its_place() {
    let deployment = |container: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: x}}, spec: {{selector: {{}}, \
             template: {{spec: {{containers: [{{name: x, {container}}}]}}}}}}}}"
        )
    };
    let table = [
        ("a: [".into(), "bad.yaml is not YAML"),
        ("a: b".into(), "no kind"),
        ("{apiVersion: v1, kind: Secret, metadata: {name: x}}".into(), "runs no Secret"),
        ("{apiVersion: v1, kind: Service, metadata: {name: x}, spec: 5}".into(), "Service x"),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: x}}".into(), "no Deployment"),
        (deployment("image: 'a:1', env: [{name: X, valueFrom: {}}]"), "cannot fill X"),
        (deployment("image: 'a:1', readinessProbe: {tcpSocket: {port: 1}}"), "httpGet"),
        (deployment("image: 'a:1', readinessProbe: {httpGet: {port: web}}"), "names no port"),
        (deployment("image: 'a:1', command: [/bin/sh]"), "/bin/sh"),
    ];
    for (text, expected) in table {
        let text: String = text;
        let result = Cluster::read([("bad.yaml", text.as_str())], false).and_then(|mut it| it.schedule());
        let error = format!("{:#}", result.expect_err(&text));
        assert!(error.contains(expected), "{text}: {error}");
    }
}
