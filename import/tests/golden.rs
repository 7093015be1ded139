//! What Istio's objects become, as pairs of files: `x.in.yaml` → `x.out.yaml` and `x.report.txt`. UPDATE=1 writes them.
//! Each outcome is also read as what it says to be: our policies by their own types, fields that nobody knows refused.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail; UPDATE is read from the environment, and only by the test"
)]

use std::{collections::BTreeSet, env, fs, path::Path};

use api::Validate;
use import::{Imported, Source};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn cases() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut cases: Vec<String> =
        files.filter_map(|file| Some(file.strip_suffix(".in.yaml")?.to_owned())).collect();
    cases.sort();
    assert!(cases.len() > 20, "{cases:?}");
    cases
}

fn path(case: &str, end: &str) -> String {
    format!("{}/tests/data/{case}.{end}", env!("CARGO_MANIFEST_DIR"))
}

fn import(case: &str) -> Imported {
    let name = format!("{case}.in.yaml");
    let text = fs::read_to_string(path(case, "in.yaml")).unwrap();
    import::istio(&[Source { name, text }], "shop").unwrap()
}

fn check(case: &str, end: &str, found: &str) {
    let path = path(case, end);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{path}: UPDATE=1 writes what is found");
}

#[test]
fn objects_become_ours() {
    for case in cases() {
        let imported = import(&case);
        check(&case, "out.yaml", &imported.yaml().unwrap());
        let report: Vec<String> = imported.findings.iter().map(|finding| format!("{finding}\n")).collect();
        check(&case, "report.txt", &report.concat());
    }
}

#[test]
fn what_is_written_can_be_read_again() {
    for case in cases() {
        let imported = import(&case);
        let again: Vec<Value> = serde_saphyr::from_multiple(&imported.yaml().unwrap()).unwrap();
        assert_eq!(again, imported.objects, "{case}");
    }
}

#[test]
fn policies_are_as_their_types_are() {
    let mut read = 0;
    for case in cases() {
        for object in import(&case).objects {
            match object["kind"].as_str().unwrap() {
                "TrafficPolicy" => whole::<api::TrafficPolicySpec>(&case, &object["spec"]),
                "BackendPolicy" => whole::<api::BackendPolicySpec>(&case, &object["spec"]),
                _ => continue,
            }
            read += 1;
        }
    }
    assert!(read > 10, "{read} policies");
}

/// The type takes it, keeps all of it, and finds no rule broken.
fn whole<T: DeserializeOwned + Serialize + Validate>(case: &str, spec: &Value) {
    let read: T =
        serde_json::from_value(spec.clone()).unwrap_or_else(|error| panic!("{case}: {error}: {spec}"));
    assert_eq!(&serde_json::to_value(&read).unwrap(), spec, "{case}: what is not known is lost");
    assert_eq!(read.breaches(), [], "{case}: {spec}");
}

#[test]
fn names_are_unique_and_valid() {
    for case in cases() {
        let mut seen = BTreeSet::new();
        for object in import(&case).objects {
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().unwrap();
            let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
            assert!(!name.is_empty() && name.chars().all(is_valid), "{case}: {object}");
            let key = (object["kind"].to_string(), metadata["namespace"].to_string(), name.to_owned());
            assert!(seen.insert(key), "{case}: twice: {object}");
        }
    }
}
