//! Every leaf of every input is carried or covered by a finding, whatever the input is.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::tree::Node;

/// The paths of all values that have nothing below them, as reports write them, by an own walk over what was parsed by others.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    let step = |name: &str| match name.contains(['.', '/', '[']) {
        true => format!("{path}[{name}]"),
        false => format!("{path}.{name}"),
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, value)| leaves(value, &step(name), found));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(at, value)| leaves(value, &format!("{path}[{at}]"), found));
        }
        _ => found.push(path.trim_start_matches('.').to_owned()),
    }
}

fn carried(node: &Node, path: &str, found: &mut Vec<String>) {
    if node.is_carried() {
        found.push(path.trim_start_matches('.').to_owned());
    }
    for (step, child) in node.children() {
        carried(child, &format!("{path}{step}"), found);
    }
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!("reviews")),
        Just(json!("5s")),
        Just(json!("")),
        Just(json!(null)),
        Just(json!({})),
        Just(json!([])),
        any::<u32>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        (0.0..200.0).prop_map(Value::from),
    ];
    let names = [
        "hosts",
        "host",
        "http",
        "tls",
        "tcp",
        "match",
        "uri",
        "exact",
        "prefix",
        "route",
        "destination",
        "port",
        "number",
        "weight",
        "headers",
        "request",
        "set",
        "fault",
        "delay",
        "fixedDelay",
        "percentage",
        "value",
        "retries",
        "attempts",
        "timeout",
        "trafficPolicy",
        "connectionPool",
        "subsets",
        "labels",
        "name",
        "servers",
        "ports",
        "endpoints",
        "address",
        "odd.name",
    ];
    leaf.prop_recursive(7, 80, 5, move |inner| {
        let name = proptest::sample::select(names.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            2 => proptest::collection::btree_map(name, inner.clone(), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
            1 => proptest::collection::vec(inner, 0..3).prop_map(Value::from),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_leaf_is_carried_or_reported(
        spec in anything(),
        kind in proptest::sample::select(vec!["VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "Sidecar"]),
    ) {
        let document = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": kind,
            "metadata": {"name": "x", "namespace": "shop"},
            "spec": spec,
        });
        let source = Source { name: "in".into(), text: document.to_string() };
        let objects = object::objects(&source, "shop").unwrap();
        let findings = convert(&objects).findings;
        let mut known = Vec::new();
        carried(&objects[0].root, "", &mut known);
        let mut all = Vec::new();
        leaves(&document, "", &mut all);
        for leaf in all {
            let is_told = findings.iter().any(|finding| {
                let rest = leaf.strip_prefix(&finding.path);
                finding.dropped && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']) || finding.path.is_empty())
            });
            prop_assert!(is_told || known.contains(&leaf), "{leaf} of {document}: {findings:?}");
        }
    }
}
