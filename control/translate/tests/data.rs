//! `data/<case>.in.yaml`: objects, and last a document of questions. `data/<case>.out.yaml`: the answers and the
//! problems of every object. `UPDATE=1` writes the answers anew; read the difference before committing it.

#![allow(clippy::disallowed_methods, reason = "UPDATE is read from the environment, and only by the test")]

use control_index::{Index, Key, Kind, Object};
use control_translate::{Detected, Mesh, problems, remarks, status, unmeshed};
use policy::{Protocol, ServicePort, TrustDomain, WorkloadName};
use printed::endpoint;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

mod printed;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

/// The questions of a case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Questions {
    /// What proxies reported, in order: `cart.shop:80 HTTP1`.
    #[serde(default)]
    detected: Vec<String>,
    /// Destinations, and from which namespace if it matters: `10.96.0.10:80 from shop`.
    #[serde(default)]
    outbound: Vec<String>,
    /// Backends, and who asks if it matters: `cart.shop:80 shop/order-1`.
    #[serde(default)]
    endpoints: Vec<String>,
    /// Ports of workloads: `shop/cart-1 8080`.
    #[serde(default)]
    inbound: Vec<String>,
}

#[derive(Serialize)]
struct Answers {
    outbound: BTreeMap<String, Lines>,
    endpoints: BTreeMap<String, Vec<String>>,
    inbound: BTreeMap<String, String>,
    problems: Vec<String>,
    /// What is as it should be and worth knowing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remarks: Vec<String>,
    /// What is said of routes and policies.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    statuses: BTreeMap<String, Vec<String>>,
    /// Pods without a proxy where one is asked for, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unmeshed: BTreeMap<String, String>,
}

/// One line, or several.
#[derive(Serialize)]
#[serde(untagged)]
enum Lines {
    One(String),
    Many(Vec<String>),
}

#[test]
fn every_case_answers_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let files = fs::read_dir(&folder).expect("the cases").map(|entry| entry.expect("a case").path());
    let mut cases: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".in.yaml")).collect();
    cases.sort();
    assert!(cases.len() >= 5, "cases are missing from {}", folder.display());
    for case in cases {
        let text = fs::read_to_string(&case).expect("a case");
        let answers = answer(&text, false);
        assert_eq!(answers, answer(&text, true), "{}: objects in another order", case.display());
        let expected = case.to_string_lossy().replace(".in.yaml", ".out.yaml");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &answers).expect("the answers");
        }
        assert_eq!(answers, fs::read_to_string(&expected).unwrap_or_default(), "{}", case.display());
    }
}

fn answer(case: &str, backwards: bool) -> String {
    let (objects, questions) = case.rsplit_once("\n---\n").expect("questions as the last document");
    let mut index = Index::default();
    let mut objects: Vec<Object> =
        objects.split("\n---\n").filter(|text| !text.trim().is_empty()).map(object).collect();
    let keys: Vec<Key> = objects.iter().map(|object| object.key().clone()).collect();
    if backwards {
        objects.reverse();
    }
    for object in &objects {
        index.apply(object);
    }
    let questions: Questions = serde_saphyr::from_str(questions).expect("questions");
    let mut detected = Detected::default();
    for report in &questions.detected {
        let (backend, protocol) = report.split_once(' ').expect("backend and protocol");
        let protocol: Protocol = protocol.parse().expect("a protocol");
        detected.report(&backend.parse().expect("a backend"), protocol);
    }
    let trust_domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
    let mesh = Mesh { index: &index, detected: &detected, trust_domain: &trust_domain };
    let found = keys.iter().flat_map(|key| problems(&index, key));
    let answers = Answers {
        outbound: answers(&questions.outbound, |text| {
            let (address, namespace) = text.split_once(" from ").unwrap_or((text, ""));
            let mut lines =
                printed::outbound(&mesh.outbound(address.parse().expect("an address"), namespace));
            match lines.len() {
                1 => Lines::One(lines.remove(0)),
                _ => Lines::Many(lines),
            }
        }),
        endpoints: answers(&questions.endpoints, |text| {
            let (backend, asking) = text.split_once(' ').unwrap_or((text, ""));
            let backend: ServicePort = backend.parse().expect("a backend");
            let zone = asking.parse().ok().and_then(|workload| index.zone(&workload));
            mesh.endpoints(&backend, zone.map(|zone| &**zone)).iter().map(endpoint).collect()
        }),
        inbound: answers(&questions.inbound, |text| {
            let (workload, port) = text.split_once(' ').expect("workload and port");
            let workload: WorkloadName = workload.parse().expect("a workload");
            let inbound = mesh.inbound(&workload, port.parse().expect("a port"));
            let service = inbound.service.map_or("no service".into(), |service| service.to_string());
            format!("{} {service}", inbound.protocol)
        }),
        problems: found.map(|problem| problem.to_string()).collect(),
        remarks: keys.iter().flat_map(|key| remarks(&index, key)).map(|one| one.to_string()).collect(),
        statuses: keys.iter().filter_map(|key| said(&index, key)).collect(),
        unmeshed: keys
            .iter()
            .filter(|key| key.kind == Kind::Pod)
            .filter_map(|key| alone(&index, key))
            .collect(),
    };
    serde_saphyr::to_string(&answers).expect("answers as YAML")
}

fn object(text: &str) -> Object {
    let head: Head = serde_saphyr::from_str(text).expect(text);
    let kind = Kind::named(&head.api_version, &head.kind).expect(text);
    serde_saphyr::with_deserializer_from_str(text, |from| kind.read(from)).expect(text)
}

fn said(index: &Index, key: &Key) -> Option<(String, Vec<String>)> {
    let said = status(index, key)?.entries;
    Some((key.to_string(), said.iter().flat_map(printed::status).collect()))
}

fn alone(index: &Index, key: &Key) -> Option<(String, String)> {
    let name = WorkloadName::new(&key.namespace, &key.name);
    let found = unmeshed(index, index.pod(&name)?)?;
    let word = if found.wanted { "Normal" } else { "Warning" };
    Some((name.to_string(), format!("{word}: {}", found.why)))
}

fn answers<T>(questions: &[String], answer: impl Fn(&str) -> T) -> BTreeMap<String, T> {
    questions.iter().map(|question| (question.clone(), answer(question))).collect()
}
