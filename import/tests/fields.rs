//! Nothing is dropped in silence: each field of the pairs' inputs, and of inputs at random, is carried or reported. That a
//! field is carried is not believed because it was read: another value in it must make a difference.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{fs, path::Path};

use import::{Finding, Imported, Source};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// What says nothing that could be carried: what an API server writes, and what an object is found by.
const SILENT: &[&str] = &[
    "apiVersion",
    "kind",
    "status",
    "metadata.uid",
    "metadata.resourceVersion",
    "metadata.generation",
    "metadata.creationTimestamp",
    "metadata.managedFields",
    "metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]",
];

fn cases() -> Vec<(String, Vec<Value>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".in.yaml") {
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap();
            let flat = documents.into_iter().flat_map(|document| match document["items"].as_array() {
                Some(items) => items.clone(),
                None => vec![document],
            });
            cases.push((name, flat.collect()));
        }
    }
    cases.sort_by(|(one, _), (two, _)| one.cmp(two));
    cases
}

fn import(documents: &[Value]) -> Imported {
    let texts: Vec<String> = documents.iter().map(Value::to_string).collect();
    import::istio(&[Source { name: "in".into(), text: texts.join("\n---\n") }], "shop").unwrap()
}

/// A way into a document: fields and places of items.
type Way = Vec<Step>;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Item(usize),
}

/// As reports write it.
fn written(way: &[Step]) -> String {
    let steps = way.iter().map(|step| match step {
        Step::Item(at) => format!("[{at}]"),
        Step::Field(name) if name.contains(['.', '/', '[']) => format!("[{name}]"),
        Step::Field(name) => format!(".{name}"),
    });
    steps.collect::<String>().trim_start_matches('.').to_owned()
}

fn ways(value: &Value, way: &mut Way, found: &mut Vec<Way>) {
    found.push(way.clone());
    let below: Vec<(Step, &Value)> = match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (Step::Field(name.clone()), value)).collect()
        }
        Value::Array(items) => items.iter().enumerate().map(|(at, value)| (Step::Item(at), value)).collect(),
        _ => Vec::new(),
    };
    for (step, value) in below {
        way.push(step);
        ways(value, way, found);
        way.pop();
    }
}

fn all_ways(document: &Value) -> Vec<Way> {
    let mut found = Vec::new();
    ways(document, &mut Vec::new(), &mut found);
    found
}

fn at<'a>(document: &'a mut Value, way: &[Step]) -> &'a mut Value {
    way.iter().fold(document, |value, step| match step {
        Step::Field(name) => &mut value[name.as_str()],
        Step::Item(at) => &mut value[*at],
    })
}

fn title(document: &Value) -> String {
    let namespace = document["metadata"]["namespace"].as_str().unwrap_or("shop");
    format!(
        "{} {namespace}/{}",
        document["kind"].as_str().unwrap(),
        document["metadata"]["name"].as_str().unwrap()
    )
}

fn is_istio(document: &Value) -> bool {
    document["apiVersion"].as_str().unwrap().contains("istio.io")
}

/// Whether a path is another one, or leads into it.
fn leads(path: &str, into: &str) -> bool {
    let rest = into.strip_prefix(path);
    path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether the report says that this is lost, by itself or with all that it stands in, or that it was left out on purpose.
fn is_reported(findings: &[Finding], title: &str, way: &[Step]) -> bool {
    let path = written(way);
    findings.iter().any(|finding| {
        let is_meant = finding.dropped || finding.path == path || finding.why.contains("left out");
        finding.object == title && is_meant && leads(&finding.path, &path)
    })
}

#[test]
fn unknown_fields_are_reported_wherever_they_stand() {
    let mut tried = 0;
    for (case, documents) in cases() {
        let before = import(&documents);
        for (number, document) in documents.iter().enumerate().filter(|(_, document)| is_istio(document)) {
            for mut way in all_ways(document) {
                let mut changed = documents.clone();
                let Some(fields) = at(&mut changed[number], &way).as_object_mut() else { continue };
                fields.insert("unheard".into(), 7.into());
                way.push(Step::Field("unheard".into()));
                if SILENT.iter().any(|silent| leads(silent, &written(&way))) {
                    continue;
                }
                let after = import(&changed);
                // In mappings of names everything is known.
                let is_told = is_reported(&after.findings, &title(document), &way);
                assert!(is_told || after.objects != before.objects, "{case}: {}: silence", written(&way));
                tried += 1;
            }
        }
    }
    assert!(tried > 500, "{tried} fields");
}

/// Another value of the same form.
fn other(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Bool(truth) => (!truth).into(),
        Value::Number(number) => match number.as_u64() {
            Some(number) => (number + 1).into(),
            None => (number.as_f64()? + 1.0).into(),
        },
        Value::String(text) => match text.as_str() {
            "" => "other".into(),
            text => match text.strip_suffix('s').map(str::parse::<f64>) {
                Some(Ok(seconds)) => format!("{}s", seconds + 1.0).into(),
                _ => format!("x{text}").into(),
            },
        },
        Value::Object(fields) if fields.is_empty() => json!({"unheard": 7}),
        Value::Array(items) if items.is_empty() => json!([{"unheard": 7}]),
        _ => return None,
    })
}

#[test]
fn what_is_not_reported_makes_a_difference() {
    let mut tried = 0;
    let mut silent = Vec::new();
    for (case, documents) in cases() {
        let before = import(&documents);
        for (number, document) in documents.iter().enumerate().filter(|(_, document)| is_istio(document)) {
            for way in all_ways(document) {
                let path = written(&way);
                if SILENT.iter().any(|silent| leads(silent, &path))
                    || is_reported(&before.findings, &title(document), &way)
                {
                    continue;
                }
                let mut changed = documents.clone();
                let value = at(&mut changed[number], &way);
                let Some(another) = other(value) else { continue };
                *value = another;
                tried += 1;
                if import(&changed) == before {
                    silent.push(format!("{case}: {}: {path}", title(document)));
                }
            }
        }
    }
    assert!(tried > 500, "{tried} values");
    assert_eq!(silent, [""; 0], "what stands there is neither carried nor reported");
}

/// Field names of Istio's, to be put together as nobody would.
const VOCABULARY: &[&str] = &[
    "abort",
    "add",
    "address",
    "allowOrigins",
    "attempts",
    "backoff",
    "baseEjectionTime",
    "connectTimeout",
    "connectionPool",
    "consecutive5xxErrors",
    "corsPolicy",
    "credentialName",
    "delay",
    "delegate",
    "destination",
    "directResponse",
    "endpoints",
    "exact",
    "exportTo",
    "fault",
    "fixedDelay",
    "gateways",
    "headers",
    "host",
    "hosts",
    "hosts",
    "http",
    "http",
    "httpRedirect",
    "httpStatus",
    "labels",
    "loadBalancer",
    "match",
    "match",
    "maxConnections",
    "method",
    "mirror",
    "mirrorPercentage",
    "mode",
    "name",
    "number",
    "outlierDetection",
    "percentage",
    "port",
    "portLevelSettings",
    "ports",
    "prefix",
    "protocol",
    "queryParams",
    "redirect",
    "regex",
    "remove",
    "request",
    "resolution",
    "response",
    "retries",
    "retryOn",
    "rewrite",
    "route",
    "route",
    "selector",
    "servers",
    "set",
    "simple",
    "sniHosts",
    "sourceNamespace",
    "status",
    "string",
    "subset",
    "subsets",
    "tcp",
    "timeout",
    "tls",
    "trafficPolicy",
    "uri",
    "uri",
    "value",
    "weight",
    "withoutHeaders",
    "workloadSelector",
];

fn anything() -> impl Strategy<Value = Value> {
    let texts = &[
        "",
        "reviews",
        "api.example.com",
        "*",
        "mesh",
        "5s",
        "/a",
        "GET",
        "HTTP",
        "SIMPLE",
        "a b",
        "v1",
        "STATIC",
        "é",
    ][..];
    let leaf = prop_oneof![
        4 => proptest::sample::select(texts).prop_map(Value::from),
        2 => (0..600u64).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => (-9.0..900.0).prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(6, 60, 5, |inner| {
        let name = proptest::sample::select(VOCABULARY).prop_map(str::to_owned);
        prop_oneof![
            2 => proptest::collection::btree_map(name, inner.clone(), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
            1 => proptest::collection::vec(inner, 0..3).prop_map(Value::from),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in it, it is taken or told: a field that nobody knows is reported beside anything.
    #[test]
    fn nonsense_is_reported(
        spec in anything(),
        kind in proptest::sample::select(&["VirtualService", "DestinationRule", "Gateway", "ServiceEntry"][..]),
        host in proptest::sample::select(&["reviews", "*", "api.example.com"][..]),
    ) {
        let mut spec = match spec {
            Value::Object(fields) => fields,
            other => Map::from_iter([("http".to_owned(), other)]),
        };
        spec.entry("hosts").or_insert_with(|| json!([host]));
        spec.entry("host").or_insert_with(|| json!(host));
        spec.insert("unheard".into(), 7.into());
        let document = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": kind,
            "metadata": {"name": "x", "namespace": "shop"},
            "spec": spec,
        });
        let imported = import(std::slice::from_ref(&document));
        let way = [Step::Field("spec".into()), Step::Field("unheard".into())];
        prop_assert!(is_reported(&imported.findings, &title(&document), &way), "{:?}", imported.findings);
        for object in &imported.objects {
            prop_assert!(object["metadata"]["name"].is_string() && object["kind"].is_string());
        }
    }
}
