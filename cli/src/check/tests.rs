//! The checks on facts from files: `healthy.yaml`, and what each case of `cases.in.yaml` breaks of it. `UPDATE=1`
//! rewrites `cases.out.yaml`.

use super::finding::Breach;
use super::*;
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::{env, fs};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    pre: bool,
    #[serde(default)]
    set: BTreeMap<String, Value>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Serialize)]
struct Outcome {
    name: String,
    wrong: BTreeMap<&'static str, Vec<Breach>>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/check")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// Puts certificates in the place of their names; within a caBundle as base64.
fn fill(value: &mut Value, key: &str) {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix('$') {
                *text = read(&format!("certificates/{name}.pem"));
            }
            if key == "caBundle" {
                *value = serde_json::to_value(ByteString(text.clone().into_bytes())).unwrap();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, "")),
        Value::Object(fields) => fields.iter_mut().for_each(|(key, field)| fill(field, key)),
        _ => {}
    }
}

fn put(facts: &mut Value, at: &str, value: Value) {
    let (parent, last) = at.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/");
    match facts.pointer_mut(parent).unwrap_or_else(|| panic!("{at} leads nowhere")) {
        Value::Array(items) => match last.parse::<usize>() {
            Ok(index) if index < items.len() => items[index] = value,
            _ => items.push(value),
        },
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        other => panic!("{at} leads into {other}"),
    }
}

fn remove(facts: &mut Value, at: &str) {
    let (parent, last) = at.rsplit_once('/').unwrap();
    match facts.pointer_mut(parent).unwrap_or_else(|| panic!("{at} leads nowhere")) {
        Value::Array(items) => drop(items.remove(last.parse().unwrap())),
        Value::Object(fields) => drop(fields.remove(last).unwrap()),
        other => panic!("{at} leads into {other}"),
    }
}

fn facts(case: Case) -> Facts {
    let mut facts: Value = serde_saphyr::from_str(&read("healthy.yaml")).unwrap();
    case.set.into_iter().for_each(|(at, value)| put(&mut facts, &at, value));
    case.remove.iter().for_each(|at| remove(&mut facts, at));
    fill(&mut facts, "");
    serde_json::from_value(facts).unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

fn outcomes() -> Vec<Outcome> {
    let cases: Vec<Case> = serde_saphyr::from_str(&read("cases.in.yaml")).unwrap();
    let judged = cases.into_iter().map(|case| {
        let (name, pre) = (case.name.clone(), case.pre);
        let findings = judge(&facts(case), pre).into_iter();
        let wrong = findings.filter(|one| one.weight > Weight::Ok).map(|one| (one.check, one.breaches));
        Outcome { name, wrong: wrong.collect() }
    });
    judged.collect()
}

#[test]
fn each_thing_that_is_broken_is_named() {
    let found = serde_saphyr::to_string(&outcomes()).unwrap();
    let file = folder().join("cases.out.yaml");
    if env::var_os("UPDATE").is_some() {
        fs::write(&file, &found).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{} differs: UPDATE=1 rewrites it, git shows how", file.display());
}

#[test]
fn a_healthy_mesh_has_nothing_wrong_and_every_check_can_fail() {
    let outcomes = outcomes();
    for outcome in outcomes.iter().filter(|outcome| outcome.name.starts_with("nothing is wrong")) {
        assert!(outcome.wrong.is_empty(), "{}: {:?}", outcome.name, outcome.wrong);
    }
    let failed: BTreeSet<_> = outcomes.iter().flat_map(|outcome| outcome.wrong.keys()).copied().collect();
    let all = before::CHECKS.iter().chain(plane::CHECKS).chain(workloads::CHECKS);
    let never: Vec<_> = all.map(|check| check.name).filter(|name| !failed.contains(name)).collect();
    assert!(never.is_empty(), "no case breaks {never:?}");
}

#[test]
fn what_is_unknown_is_not_well() {
    let case = Case { name: String::new(), pre: false, set: BTreeMap::new(), remove: Vec::new() };
    let mut facts = facts(case);
    facts.pods = facts::Known::Unknown { unknown: "pods is forbidden".into() };
    let findings = judge(&facts, false);
    let unknown: Vec<_> =
        findings.iter().filter(|one| one.weight == Weight::Unknown).map(|one| one.check).collect();
    assert_eq!(unknown, ["unmeshed-pods", "redirection", "proxies"]);
}

#[test]
fn the_report_names_what_is_wrong_and_what_to_do() {
    let mut case = Case { name: String::new(), pre: false, set: BTreeMap::new(), remove: Vec::new() };
    case.set.insert("/lease".into(), Value::Null);
    let mut facts = facts(case);
    let facts::Known::Known(pods) = &mut facts.pods else { panic!("the pods are known") };
    pods.extend((0..12).map(|number| {
        let metadata = serde_json::json!({ "name": format!("old-{number:02}"), "namespace": "shop" });
        serde_json::from_value::<facts::Pod>(serde_json::json!({ "metadata": metadata })).unwrap()
    }));
    let text = report::text(&judge(&facts, false), &facts);
    for part in [
        "ok       issuer: ",
        "FAILED   lease: a replica of control holds the Lease\n",
        "         Lease weft-system/weft-control: it is not there\n           -> kubectl logs",
        "         why it matters: its holder gives roots",
        "         Pod shop/old-09: it was created before",
        "         and 2 more: --output json tells all\n",
        "2 failed, 0 unknown, 0 with a warning (20 checks, namespace weft-system)\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("old-10"), "{text}");
}
