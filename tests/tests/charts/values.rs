//! The chart's values: documented, held by a schema, and each of them read.

use crate::{PROFILES, helm, root, said, template};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs};

/// Objects whose keys are the user's own, so that the schema names none.
const OPEN: &[&str] = &["commonLabels", "nodeSelector", "affinity", "podLabels", "podAnnotations", "labels"];

/// Values, and what Helm says about them.
const REFUSED: &[(&str, &str)] = &[
    ("--set=trustdomain=a", "trustdomain"),
    ("--set=control.replica=2", "replica"),
    ("--set=control.resources.limit.memory=1Gi", "limit"),
    ("--set=proxy.resources.cpuRequests=1", "cpuRequests"),
    ("--set=image.pullSecrets[0].secret=a", "secret"),
    ("--set=cni.enabled=yes", "/cni/enabled"),
    ("--set=control.replicas=0", "/control/replicas"),
    ("--set=control.logLevel=verbose", "/control/logLevel"),
    ("--set=image.prefix=registry.example/weft/", "/image/prefix"),
    ("--set=image.pullPolicy=always", "/image/pullPolicy"),
    ("--set=injector.failurePolicy=fail", "/injector/failurePolicy"),
    ("--set=certificateLifetime=1d", "/certificateLifetime"),
    ("--set=proxy.accessLog=on", "/proxy/accessLog"),
    ("--set=proxy.sidecar=Native", "/proxy/sidecar"),
    ("--set=proxy.drainTimeout=30", "/proxy/drainTimeout"),
    ("--set=proxy.resources.memoryLimit=64MB", "/proxy/resources/memoryLimit"),
    ("--set=proxy.skipInboundPorts=80:90", "/proxy/skipInboundPorts"),
    ("--set=proxy.skipOutboundSubnets=10.0.0.1", "/proxy/skipOutboundSubnets"),
    ("--set=cni.binDir=opt/cni/bin", "/cni/binDir"),
    ("--set=commonLabels.team=a b", "/commonLabels/team"),
];

#[test]
fn what_is_misspelt_is_refused() {
    for (flag, word) in REFUSED {
        let output = helm(&["template", "weft", "charts/weft", flag]);
        let said = said(&output);
        assert!(!output.status.success() && said.contains(word), "{flag}: {said}");
    }
}

#[test]
fn what_users_set_is_taken() {
    for flag in [
        "--set=global.anything=1",
        "--set=proxy.skipInboundPorts=22\\,9000-9010",
        "--set=proxy.skipOutboundSubnets=10.0.0.0/8\\,fd00::/8",
        "--set=certificateLifetime=1h30m",
        "--set=image.prefix=registry.example:5000/mirror/weft,image.tag=v1.2.3-rc.1",
        "--set=control.resources.limits.cpu=2,control.resources.limits.memory=null",
        "--set=proxy.resources.cpuLimit=1500m,proxy.resources.memoryRequest=",
    ] {
        let output = helm(&["template", "weft", "charts/weft", flag]);
        assert!(output.status.success(), "{flag}: {}", said(&output));
    }
}

#[test]
fn the_schema_names_what_values_yaml_names() {
    let text = fs::read_to_string(root().join("charts/weft/values.schema.json")).expect("a schema");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let text = fs::read_to_string(root().join("charts/weft/values.yaml")).expect("values.yaml");
    let values: Value = serde_saphyr::from_str(&text).expect("YAML");
    let mut breaches = Vec::new();
    compare(&schema, &schema, &values, "", &mut breaches);
    assert!(breaches.is_empty(), "\n  {}\n", breaches.join("\n  "));
}

/// Each object of `values` is closed in the schema, and has the same keys there.
fn compare(root: &Value, schema: &Value, values: &Value, path: &str, breaches: &mut Vec<String>) {
    let name = path.rsplit('.').next().unwrap_or_default();
    let Value::Object(values) = values else { return };
    // Amounts by resource: the schema names all of requests and limits, and a profile only some.
    if OPEN.contains(&name) || path.ends_with(".resources.requests") || path.ends_with(".resources.limits") {
        return;
    }
    let schema = resolve(root, schema);
    if schema["additionalProperties"] != Value::Bool(false) {
        breaches.push(format!("{path}: the schema takes what it does not name"));
    }
    let named: BTreeSet<_> =
        schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key).collect();
    let unread = ["global", "claims"];
    for key in named.iter().filter(|key| !values.contains_key(**key) && !unread.contains(&key.as_str())) {
        breaches.push(format!("{path}.{key} stands in the schema alone"));
    }
    for (key, value) in values {
        if !named.contains(key) {
            breaches.push(format!("{path}.{key} stands in values.yaml alone"));
        }
        compare(root, &schema["properties"][key], value, &format!("{path}.{key}"), breaches);
    }
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let Some(reference) = schema["$ref"].as_str() else { return schema };
    root.pointer(reference.trim_start_matches('#')).expect(reference)
}

/// What a value is stands above it. Kubernetes' own fields (requests, limits) are Kubernetes' to explain.
#[test]
fn every_value_is_explained() {
    let text = fs::read_to_string(root().join("charts/weft/values.yaml")).expect("values.yaml");
    let (mut commented, mut count, mut own) = (false, 0, usize::MAX);
    for (number, line) in (1..).zip(text.lines()) {
        let indent = line.len() - line.trim_start().len();
        own = if indent <= own { usize::MAX } else { own };
        if line.trim_start().starts_with('#') {
            commented = true;
            continue;
        }
        let key = line.trim_start().split_once(':').map(|(key, _)| key).filter(|key| !key.starts_with('-'));
        if let Some(key) = key.filter(|_| own == usize::MAX) {
            assert!(commented, "values.yaml:{number}: {key} is not explained");
            count += 1;
            // Below these, keys are Kubernetes'.
            let theirs = ["resources", "nodeSelector", "tolerations"].contains(&key) && indent > 0;
            own = if theirs && !line.contains('#') && !next_is_comment(&text, number) { indent } else { own };
        }
        commented = false;
    }
    assert!(count > 50, "{count} values were found");
}

fn next_is_comment(text: &str, number: usize) -> bool {
    text.lines().nth(number).is_some_and(|line| line.trim_start().starts_with('#'))
}

/// Whatever is set changes something: no value stands there for show.
#[test]
fn every_value_is_read() {
    let text = fs::read_to_string(root().join("charts/weft/values.schema.json")).expect("a schema");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let (_, everything) = PROFILES[3];
    let before = template("weft-system", everything);
    let mut leaves = Vec::new();
    collect(&schema, &schema, String::new(), &mut leaves);
    assert!(leaves.len() > 50, "{} values were found", leaves.len());
    for (path, value) in leaves {
        let set = format!("--set-json={path}={value}");
        let output =
            helm(&[&["template", "weft", "charts/weft", "-n=weft-system", &set], everything].concat());
        assert!(output.status.success(), "{set}: {}", said(&output));
        assert!(before.as_bytes() != output.stdout, "{set} changes nothing");
    }
}

/// The path of each value, with one that it may have and is not likely to have.
fn collect(root: &Value, schema: &Value, path: String, leaves: &mut Vec<(String, Value)>) {
    for (key, value) in schema["properties"].as_object().expect("an object's schema") {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let closed = value["properties"].is_object();
        match key.as_str() {
            "global" => {}
            _ if closed => collect(root, value, path, leaves),
            _ => leaves.push((path, other(key, value["$ref"].as_str(), resolve(root, value)))),
        }
    }
}

fn other(key: &str, reference: Option<&str>, schema: &Value) -> Value {
    if let Some(choices) = schema["enum"].as_array() {
        let usual = ["info", "off", "native", "Fail", "IfNotPresent"];
        return choices
            .iter()
            .find(|one| !usual.contains(&one.as_str().expect("a word")))
            .expect(key)
            .clone();
    }
    match (key, reference.unwrap_or_default().rsplit('/').next().unwrap_or_default()) {
        ("enabled" | "proxies", _) => json!(false),
        ("removeOnExit", _) => json!(true),
        ("replicas", _) => json!(7),
        ("affinity", _) => json!({"nodeAffinity": {}}),
        ("pullSecrets", _) => json!([{"name": "other"}]),
        ("interval" | "drainTimeout" | "certificateLifetime", _) => json!("77m"),
        ("skipOutboundSubnets", _) => json!("192.0.2.0/24"),
        (_, "resources") => json!({"limits": {"cpu": "7"}}),
        (_, "labels" | "annotations") => json!({"other": "one"}),
        (_, "objects") => json!([{"key": "other"}]),
        (_, "quantity" | "ports") => json!("77"),
        (_, "path") => json!("/other"),
        _ => json!("other"),
    }
}
