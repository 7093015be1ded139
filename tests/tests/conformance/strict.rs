//! What the official suite does not look at: where a redirect leads, the path, the Host and the fields that a backend sees, whose
//! rule held, and every condition of every status. The cases are data, in `tests/conformance/strict`; `case.rs` says what stands there.

use crate::{answer::Answer, case::Case, case::Request, case::Status};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, thread,
    time::{Duration, Instant},
};
use tests::cluster::{Cluster, namespace::Namespace};

/// Where the pods of all cases are.
const NAMESPACE: &str = "strict";
/// Where other clients are.
const CONSUMER: &str = "strict-consumer";
const CONTROLLER: &str = "weft.mesh/controller";
/// From the objects to all that they bring about.
const SOON: Duration = Duration::from_secs(20);
/// An expectation that comes up later than that may still be met so late.
const GRACE: Duration = Duration::from_secs(3);
/// Between two times that something is asked.
const PAUSE: Duration = Duration::from_millis(500);
/// Answers in a row that must be right.
const CONSECUTIVE: u32 = 20;
/// Requests by which shares are counted, and how many percent they may be off: five standard deviations of an even split.
const COUNTED: u32 = 1000;
const OFF_PERCENT: f64 = 8.0;

pub fn requests_and_statuses(cluster: &Cluster) {
    let folder = cluster.root().join("tests/conformance");
    let mut cases = Case::all(&folder.join("strict"));
    assert!(cases.len() >= 10, "only {} cases were found", cases.len());
    if let Ok(one) = env::var("CASE") {
        cases.retain(|case| case.name == one);
    }
    let namespace = Namespace::meshed(cluster, NAMESPACE);
    let consumer = Namespace::meshed(cluster, CONSUMER);
    let pods = fs::read_to_string(folder.join("pods.yaml")).expect("pods.yaml");
    cluster.apply(&pods);
    for case in &cases {
        let mut items = vec![parent(&case.name)];
        items.extend(case.objects.clone());
        cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    }
    namespace.ready(&["pod/echo-v1", "pod/echo-v2", "pod/client"]);
    consumer.ready(&["pod/client"]);

    let (until, mut wrong) = (Instant::now() + SOON, Vec::new());
    for case in &cases {
        let mut found = Vec::new();
        for request in &case.requests {
            found.extend(asked(cluster, request, until).err().map(|why| format!("{}: {why}", request.ask)));
        }
        for status in &case.statuses {
            found.extend(stated(cluster, status, until).err().map(|why| format!("{}: {why}", status.object)));
        }
        let (requests, statuses) = (case.requests.len(), case.statuses.len());
        let word = if found.is_empty() { "ok  " } else { "FAIL" };
        println!("  {word}  {} ({requests} requests, {statuses} statuses)", case.name);
        wrong.extend(found.into_iter().map(|why| format!("{}: {why}\n", case.name)));
    }
    assert!(wrong.is_empty(), "{} expectations are not met:\n{}", wrong.len(), wrong.concat());
}

/// The Service that a case's routes are attached to, with both versions behind it.
fn parent(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": "echo"}, "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"},
            {"name": "http-alt", "port": 8080, "appProtocol": "http"},
            {"name": "grpc", "port": 7070, "appProtocol": "kubernetes.io/h2c"},
            {"name": "tcp", "port": 9090, "appProtocol": "tcp"},
        ]},
    })
}

/// Asks until the answers are as they should be; the last complaint when they never are.
fn asked(cluster: &Cluster, request: &Request, until: Instant) -> Result<(), String> {
    let count = if request.shares.is_empty() { CONSECUTIVE } else { COUNTED };
    let namespace = request.from.as_deref().unwrap_or(NAMESPACE);
    let count = format!("--count={count}");
    let mut command = vec!["-n", namespace, "exec", "client", "-c", "app", "--", "/client", &count];
    command.extend(request.ask.split_whitespace());
    eventually(until, || {
        let answers = Answer::all(&cluster.kubectl(&command)?);
        if request.shares.is_empty() {
            answers.iter().try_for_each(|answer| compared(request, answer))
        } else {
            shared(&request.shares, &answers)
        }
    })
}

/// One answer against what is expected of it.
fn compared(request: &Request, answer: &Answer) -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut hold = |what: &str, wanted: Option<&str>, got: Option<&str>| {
        if wanted != got {
            wrong.push(format!("{what} is {}, not {}", got.unwrap_or("absent"), wanted.unwrap_or("absent")));
        }
    };
    if let Some(status) = &request.status {
        hold("the status", Some(&status.to_string()), Some(&answer.status));
    }
    if let Some(backend) = &request.backend {
        hold("the backend", Some(backend), answer.backend());
    }
    for (key, wanted) in &request.sees {
        hold(key, Some(wanted), answer.body.get(key).map(String::as_str));
    }
    for (name, wanted) in &request.request {
        let got = answer.request.get(&name.to_lowercase()).map(|values| values.join(","));
        hold(&format!("the request's {name}"), wanted.as_deref(), got.as_deref());
    }
    for (name, wanted) in &request.response {
        let got = answer.response.get(&name.to_lowercase()).map(|values| values.join(","));
        hold(&format!("the response's {name}"), wanted.as_deref(), got.as_deref());
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}\n{}", wrong.join("; "), answer.text)) }
}

/// Do backends, and errors by their status, have their percentages?
fn shared(wanted: &BTreeMap<String, f64>, answers: &[Answer]) -> Result<(), String> {
    let mut counted: BTreeMap<&str, f64> = BTreeMap::new();
    for answer in answers {
        *counted.entry(answer.backend().unwrap_or(&answer.status)).or_default() += 1.0;
    }
    let total = f64::from(COUNTED);
    let names: BTreeSet<&str> = counted.keys().copied().chain(wanted.keys().map(String::as_str)).collect();
    for name in names {
        let got = counted.get(name).map_or(0.0, |count| count * 100.0 / total);
        let wanted = wanted.get(name).copied().unwrap_or_default();
        if (got - wanted).abs() > if wanted == 0.0 { 0.0 } else { OFF_PERCENT } {
            return Err(format!("{name} has {got} % of {total} answers, not {wanted} %: {counted:?}"));
        }
    }
    Ok(())
}

/// Reads the status until it is as it should be: these parents, these conditions and no others, of this generation.
fn stated(cluster: &Cluster, expected: &Status, until: Instant) -> Result<(), String> {
    let (namespace, object) = match expected.object.split('/').collect::<Vec<_>>()[..] {
        [namespace, kind, name] => (namespace, format!("{kind}/{name}")),
        _ => (NAMESPACE, expected.object.clone()),
    };
    eventually(until, || {
        let object = cluster.json(&["-n", namespace, &object]);
        let parents = object["status"]["parents"].as_array().cloned().unwrap_or_default();
        let told = || serde_json::to_string_pretty(&object["status"]).expect("JSON");
        if parents.len() != expected.parents.len() {
            return Err(format!(
                "{} parents instead of {}: {}",
                parents.len(),
                expected.parents.len(),
                told()
            ));
        }
        // Ours stand in the order of the route.
        for ((parent, wanted), reference) in parents
            .iter()
            .zip(&expected.parents)
            .zip(object["spec"]["parentRefs"].as_array().into_iter().flatten())
        {
            let got: BTreeMap<String, String> = parent["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| (text(&one["type"]), format!("{} {}", text(&one["status"]), text(&one["reason"]))))
                .collect();
            if got != *wanted {
                return Err(format!("{got:?}, not {wanted:?}: {}", told()));
            }
            if parent["controllerName"] != CONTROLLER || parent["parentRef"] != *reference {
                return Err(format!("not of {CONTROLLER} about {reference}: {parent}"));
            }
            well_formed(parent, &object["metadata"]["generation"])?;
        }
        Ok(())
    })
}

/// What holds for each condition: it is of the newest generation, and says why something is wrong.
fn well_formed(parent: &Value, generation: &Value) -> Result<(), String> {
    for condition in parent["conditions"].as_array().into_iter().flatten() {
        let bad = (condition["type"] == "PartiallyInvalid") == (condition["status"] == "True");
        if condition["observedGeneration"] != *generation {
            return Err(format!("not of generation {generation}: {condition}"));
        }
        if bad && text(&condition["message"]).is_empty() {
            return Err(format!("it does not say why: {condition}"));
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Asks again and again, `until` then or for a little while; the last complaint.
fn eventually(until: Instant, mut ask: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let until = until.max(Instant::now() + GRACE);
    loop {
        match ask() {
            Err(why) if Instant::now() > until => return Err(why),
            Err(_) => thread::sleep(PAUSE),
            Ok(()) => return Ok(()),
        }
    }
}
