//! Pairs of files: what comes in, and what becomes of it. `UPDATE=1` rewrites the second.
//!
//! `data/pods/x.in.yaml` holds pods as the webhook gets them, after an optional `kind: Config` and `kind: Namespace`;
//! `data/files/x.in.yaml` holds manifests as `weft inject` gets them.

#![allow(clippy::unwrap_used)]

use injector::{Config, Namespace, Verdict, decide, manifest, note, patch};
use serde_json::{Value, json};
use std::{fs, path::Path};

#[test]
fn pods() {
    each("pods", |text| {
        let mut config = Config::default();
        let mut namespace = labelled(json!({"metadata": {"labels": {"weft.mesh/inject": "enabled"}}}));
        let mut out = String::new();
        for document in serde_saphyr::from_multiple::<Value>(text).unwrap() {
            match document["kind"].as_str() {
                Some("Config") => {
                    config = Config::parse(&serde_json::to_string(&document["config"]).unwrap()).unwrap()
                }
                Some("Namespace") => namespace = labelled(document),
                _ => out.push_str(&become_of(&config, &namespace, document)),
            }
        }
        out
    });
}

fn labelled(object: Value) -> Namespace {
    manifest::namespace(&object)
}

/// The verdict as a comment, and the pod as the API server would keep it.
fn become_of(config: &Config, namespace: &Namespace, pod: Value) -> String {
    let mut after = pod.clone();
    let head = match decide(config, namespace, &pod) {
        Verdict::Patch { operations, warnings } => {
            patch::apply(&mut after, &operations).unwrap();
            again_changes_nothing(config, namespace, &after);
            let what = if operations.is_empty() { "unchanged" } else { "patched" };
            let warnings = warnings.iter().map(|warning| format!("# warning: {warning}\n"));
            format!("# {what}\n{}", warnings.collect::<String>())
        }
        Verdict::Skip(reason) => {
            patch::apply(&mut after, &note(&pod, &reason)).unwrap();
            assert_eq!(note(&after, &reason), [], "noting twice");
            format!("# skipped: {reason}\n")
        }
        Verdict::Refuse(problem) => return format!("---\n# refused: {problem}\n"),
    };
    format!("---\n{head}{}", manifest::write(&after).unwrap())
}

fn again_changes_nothing(config: &Config, namespace: &Namespace, pod: &Value) {
    let Verdict::Patch { operations, .. } = decide(config, namespace, pod) else {
        panic!("injected, and not any more")
    };
    assert_eq!(operations, [], "a second time");
}

#[test]
fn files() {
    each("files", |text| match manifest::inject(&Config::default(), text) {
        Ok(injected) => {
            let again = manifest::inject(&Config::default(), &injected.yaml).unwrap();
            assert_eq!(again.yaml, injected.yaml, "a second time");
            let notes = injected.notes.iter().map(|note| format!("# {}: {}\n", note.object, note.outcome));
            format!("{}# --- notes\n{}", injected.yaml, notes.collect::<String>())
        }
        Err(error) => format!("# error: {error}\n"),
    });
}

#[track_caller]
fn each(folder: &str, become_of: impl Fn(&str) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> =
        entries.filter(|path| path.to_str().is_some_and(|path| path.ends_with(".in.yaml"))).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no *.in.yaml in {}", folder.display());
    let mut differing = Vec::new();
    for input in inputs {
        let printed = become_of(&fs::read_to_string(&input).unwrap());
        let expected = input.to_str().unwrap().replace(".in.yaml", ".out.yaml");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &printed).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != printed {
            differing.push(format!("{expected} should be:\n{printed}"));
        }
    }
    assert!(differing.is_empty(), "UPDATE=1 accepts these\n{}", differing.join("\n"));
}
