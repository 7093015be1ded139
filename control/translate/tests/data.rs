//! `data/<case>.in.yaml`: objects, and last a document of questions. `data/<case>.out.yaml`: the answers and the
//! problems of every object. `UPDATE=1` writes the answers anew; read the difference before committing it.

#![allow(clippy::disallowed_methods, reason = "UPDATE is read from the environment, and only by the test")]

use control_index::{Index, Key, Kind};
use control_translate::{Detected, Mesh, problems, unmeshed};
use policy::{Endpoint, Outbound, Protocol, ServicePort, Target, TrustDomain, WorkloadName};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

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
    /// Destinations.
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
    outbound: BTreeMap<String, String>,
    endpoints: BTreeMap<String, Vec<String>>,
    inbound: BTreeMap<String, String>,
    problems: Vec<String>,
    /// Pods without a proxy where one is asked for, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unmeshed: BTreeMap<String, String>,
}

#[test]
fn every_case_answers_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let files = fs::read_dir(&folder).expect("the cases").map(|entry| entry.expect("a case").path());
    let mut cases: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".in.yaml")).collect();
    cases.sort();
    assert!(cases.len() >= 5, "cases are missing from {}", folder.display());
    for case in cases {
        let answers = answer(&fs::read_to_string(&case).expect("a case"));
        let expected = case.to_string_lossy().replace(".in.yaml", ".out.yaml");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &answers).expect("the answers");
        }
        assert_eq!(answers, fs::read_to_string(&expected).unwrap_or_default(), "{}", case.display());
    }
}

fn answer(case: &str) -> String {
    let (objects, questions) = case.rsplit_once("\n---\n").expect("questions as the last document");
    let mut index = Index::default();
    let mut keys: Vec<Key> = Vec::new();
    for text in objects.split("\n---\n").filter(|text| !text.trim().is_empty()) {
        let head: Head = serde_saphyr::from_str(text).expect(text);
        let kind = Kind::named(&head.api_version, &head.kind).expect(text);
        let object = serde_saphyr::with_deserializer_from_str(text, |from| kind.read(from)).expect(text);
        keys.push(object.key().clone());
        index.apply(&object);
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
            outbound(&mesh.outbound(text.parse().expect("an address")))
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
        unmeshed: keys
            .iter()
            .filter(|key| key.kind == Kind::Pod)
            .filter_map(|key| alone(&index, key))
            .collect(),
    };
    serde_saphyr::to_string(&answers).expect("answers as YAML")
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

fn outbound(policy: &Outbound) -> String {
    let target = match &policy.target {
        Target::Service(backend) => format!("service {backend}"),
        Target::Workload(one) => format!("workload {}", endpoint(one)),
        Target::External => "external".into(),
    };
    format!("{} {target}", policy.protocol)
}

fn endpoint(endpoint: &Endpoint) -> String {
    let workload = endpoint.workload.as_ref().map_or("unknown".into(), ToString::to_string);
    let identity = endpoint.identity.as_ref().map_or("unmeshed".into(), ToString::to_string);
    format!("{} {workload} {identity}", endpoint.address)
}
