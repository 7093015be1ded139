//! Files become objects: documents, lists, and what each object is called. Nothing here knows what a kind means.

use std::fmt;

use serde_json::{Map, Value};

use crate::tree::Node;

/// A file: how it is called in the report, and what is in it.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// A file that cannot be read as objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub file: String,
    /// Counted from 1.
    pub line: u64,
    pub what: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl std::error::Error for Unreadable {}

/// An object of the input.
#[derive(Debug)]
pub(crate) struct Object {
    pub file: String,
    /// `networking.istio.io`; empty for Kubernetes' core.
    pub group: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub root: Node,
}

impl Object {
    /// `VirtualService shop/reviews`.
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// What the object says; an empty mapping where it says nothing.
    pub fn spec(&self) -> Option<&Node> {
        self.root.field("spec")
    }

    /// Whether it is of one of Istio's API groups.
    pub fn is_istio(&self) -> bool {
        self.group == "istio.io" || self.group.ends_with(".istio.io")
    }

    /// The labels and annotations that the outcome takes over, as a part of `metadata`.
    pub fn inherited(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        for part in ["labels", "annotations"] {
            let fields = self.root.at(&["metadata", part]).map_or(&[][..], Node::fields);
            let kept = fields.iter().filter(|(name, _)| !is_server_side(name) && !is_of_istio(name));
            let kept: Map<String, Value> = kept.map(|(name, node)| (name.clone(), node.json())).collect();
            if !kept.is_empty() {
                metadata.insert(part.to_owned(), kept.into());
            }
        }
        metadata
    }

    /// Marks what every object has and what means nothing for the import: its name, and what API servers write.
    pub fn read_head(&self) {
        for name in ["apiVersion", "kind", "status"] {
            if let Some(node) = self.root.field(name) {
                node.carry();
            }
        }
        let Some(metadata) = self.root.field("metadata") else { return };
        for (name, node) in metadata.fields() {
            match name.as_str() {
                "labels" | "annotations" => node.fields().iter().for_each(|(name, value)| {
                    if is_of_istio(name) {
                        value.drop(
                            "it tells Istio something, and nobody reads it any more",
                            "see whether its meaning is needed",
                        );
                    } else {
                        value.carry();
                    }
                }),
                "name" | "namespace" | "uid" | "resourceVersion" | "generation" | "creationTimestamp"
                | "managedFields" | "selfLink" => node.carry(),
                "generateName" => node.carry(),
                _ => {}
            }
        }
    }
}

/// Annotations of tools that describe the object which they were written for.
fn is_server_side(name: &str) -> bool {
    name == "kubectl.kubernetes.io/last-applied-configuration"
}

fn is_of_istio(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| domain == "istio.io" || domain.ends_with(".istio.io"))
}

/// The objects of a file, those of lists one by one. `namespace` is of those that name none.
pub(crate) fn objects(source: &Source, namespace: &str) -> Result<Vec<Object>, Unreadable> {
    let mut found = Vec::new();
    for (line, document) in documents(&source.text) {
        let options = serde_saphyr::options! { with_snippet: false };
        let root: Option<Node> =
            serde_saphyr::from_str_with_options(document, options).map_err(|error| Unreadable {
                file: source.name.clone(),
                line: line + error.location().map_or(1, |at| at.line()).max(1) - 1,
                what: brief(&error),
            })?;
        let Some(root) = root else { continue };
        root.shift(line - 1);
        collect(source, root, namespace, &mut found)?;
    }
    Ok(found)
}

/// The first line of an error, without its place within the document, which nobody sees.
fn brief(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    first.split(" at line ").next().unwrap_or(first).to_owned()
}

fn collect(source: &Source, root: Node, namespace: &str, found: &mut Vec<Object>) -> Result<(), Unreadable> {
    let missing = |what: &str| Unreadable {
        file: source.name.clone(),
        line: root.line(),
        what: format!("an object without {what}"),
    };
    let kind = root.text_at("kind").ok_or_else(|| missing("kind"))?.to_owned();
    let api_version = root.text_at("apiVersion").ok_or_else(|| missing("apiVersion"))?;
    let group = api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
    if kind.ends_with("List") {
        for item in root.into_items("items") {
            collect(source, item, namespace, found)?;
        }
        return Ok(());
    }
    let metadata = root.field("metadata");
    let named = |field: &str| metadata.and_then(|metadata| metadata.text_at(field)).map(str::to_owned);
    let name = named("name").or_else(|| named("generateName")).ok_or_else(|| missing("metadata.name"))?;
    let namespace = named("namespace").unwrap_or_else(|| namespace.to_owned());
    found.push(Object { file: source.name.clone(), group, kind, namespace, name, root });
    Ok(())
}

/// The documents of a stream that say something, each with the line of its beginning. `---` at the beginning of a line
/// can only be a marker, in block scalars too (YAML 1.2 §9.1.2).
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut found = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            found.push((first_line, &text[start..at]));
            (start, first_line) = (at, number);
        }
        at += line.len();
    }
    found.push((first_line, &text[start..]));
    let is_said = |line: &str| {
        let line = line.trim().trim_start_matches("---").trim_start();
        !(line.is_empty() || line.starts_with(['#', '%']) || line == "...")
    };
    found.retain(|(_, document)| document.lines().any(is_said));
    found
}
