//! Files of manifests: the pods and the templates of pods in them, patched; everything else as it was written, to the
//! byte. Pure.

use crate::{Config, INJECT, Namespace, Problem, Reason, Verdict, decide, patch};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// What became of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    pub yaml: String,
    /// What was done, for each pod and template in the order of the file.
    pub notes: Vec<Note>,
}

/// What became of one pod or template.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// As in `deployment/web`.
    pub object: String,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Injected {
        warnings: Vec<String>,
    },
    /// It has all of it already.
    Unchanged,
    Skipped(Reason),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Injected { warnings } if warnings.is_empty() => f.write_str("injected"),
            Outcome::Injected { warnings } => write!(f, "injected; {}", warnings.join("; ")),
            Outcome::Unchanged => f.write_str("it has its proxy already"),
            Outcome::Skipped(reason) => write!(f, "left as it is: {reason}"),
        }
    }
}

/// Why a file cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("line {line}: {what}")]
    Yaml { line: u64, what: String },
    #[error("line {line}: {object}: {problem}")]
    Refused { line: u64, object: String, problem: Problem },
}

/// Injects all pods and templates of a file. Annotations of the namespaces that stand in the same file are defaults
/// for the pods in them. That a namespace has no label does not matter: who injects a file has asked for it.
pub fn inject(config: &Config, text: &str) -> Result<Injected, ManifestError> {
    let documents = documents(text);
    let mut parsed = Vec::new();
    let mut namespaces = BTreeMap::new();
    for (line, document) in &documents {
        let value = read(*line, document)?;
        if value.get("kind").is_some_and(|kind| kind == "Namespace") {
            namespaces.insert(name(&value).to_owned(), namespace(&value));
        }
        parsed.push(value);
    }
    let mut injected = Injected { yaml: String::with_capacity(text.len() * 2), notes: Vec::new() };
    for ((line, document), mut value) in documents.into_iter().zip(parsed) {
        let refused = |(object, problem)| ManifestError::Refused { line, object, problem };
        let before = value.clone();
        visit(config, &namespaces, &mut value, &mut injected.notes).map_err(refused)?;
        if value == before {
            injected.yaml.push_str(document);
            continue;
        }
        // The separator, and what stands with it, stays.
        let head = document.split_inclusive('\n').next().filter(|line| line.starts_with("---"));
        injected.yaml.push_str(head.map_or("", |_| "---\n"));
        injected.yaml.push_str(&write(&value).map_err(|what| ManifestError::Yaml { line, what })?);
    }
    Ok(injected)
}

/// One object as YAML.
pub fn write(value: &Value) -> Result<String, String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: true };
    let mut text = serde_saphyr::to_string_with_options(value, options).map_err(|error| error.to_string())?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// The documents of a file with the line where each begins, its separator included: put together they are the file.
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut found = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if at > start && line.starts_with("---") && !line[3..].starts_with(|c: char| !c.is_whitespace()) {
            found.push((first_line, &text[start..at]));
            (start, first_line) = (at, number);
        }
        at += line.len();
    }
    found.push((first_line, &text[start..]));
    found
}

/// YAML as kubectl reads it: 0644 is octal, and a key stands once.
fn read(first_line: u64, document: &str) -> Result<Value, ManifestError> {
    let is_blank = |line: &str| line.trim().is_empty() || line.starts_with('#') || line.trim() == "---";
    if document.lines().all(is_blank) {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! { with_snippet: false, legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(document, options).map_err(|error| {
        let within = error.location().map_or(1, |location| location.line()).max(1);
        ManifestError::Yaml { line: first_line + within - 1, what: error.to_string() }
    })
}

/// Injects an object, and the objects of a list.
fn visit(
    config: &Config,
    namespaces: &BTreeMap<String, Namespace>,
    object: &mut Value,
    notes: &mut Vec<Note>,
) -> Result<(), (String, Problem)> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind.ends_with("List") {
        let items = object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten();
        for item in items {
            visit(config, namespaces, item, notes)?;
        }
        return Ok(());
    }
    let Some(place) = template(&kind) else { return Ok(()) };
    let named = format!("{}/{}", kind.to_lowercase(), name(object));
    let space = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default");
    let mut namespace = namespaces.get(space).cloned().unwrap_or_default();
    namespace.labels.entry(INJECT.into()).or_insert("enabled".into());
    let Some(pod) = object.pointer_mut(place) else { return Ok(()) };
    let outcome = match decide(config, &namespace, pod) {
        Verdict::Refuse(problem) => return Err((named, problem)),
        Verdict::Skip(reason) => Outcome::Skipped(reason),
        Verdict::Patch { operations, .. } if operations.is_empty() => Outcome::Unchanged,
        Verdict::Patch { operations, warnings } => {
            patch::apply(pod, &operations).expect("the operations were made for this pod");
            Outcome::Injected { warnings }
        }
    };
    notes.push(Note { object: named, outcome });
    Ok(())
}

/// Where in an object of this kind the pod stands.
fn template(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        "PodTemplate" => Some("/template"),
        _ => None,
    }
}

/// The labels and annotations of a Namespace object.
pub fn namespace(object: &Value) -> Namespace {
    let map = |name: &str| {
        let entries = object.pointer(name).and_then(Value::as_object).into_iter().flatten();
        entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    };
    Namespace { labels: map("/metadata/labels"), annotations: map("/metadata/annotations") }
}

fn name(object: &Value) -> &str {
    let of = |field| object.pointer(field).and_then(Value::as_str);
    of("/metadata/name").or_else(|| of("/metadata/generateName")).unwrap_or_default()
}
