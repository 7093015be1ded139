//! Cases as they stand in files: objects, and what must come of them.

use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// One file: documents with an `apiVersion` are applied, in the namespace of all cases unless they name another. The other document says
/// what is asked and expected.
#[derive(Debug)]
pub struct Case {
    /// The file's, and that of the Service that its routes are attached to.
    pub name: String,
    pub objects: Vec<Value>,
    pub refused: Vec<Refused>,
    pub requests: Vec<Request>,
    pub explained: Vec<Explained>,
    pub statuses: Vec<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    refused: Vec<Refused>,
    #[serde(default)]
    requests: Vec<Request>,
    #[serde(default)]
    explained: Vec<Explained>,
    #[serde(default)]
    statuses: Vec<Status>,
}

/// What the API server refuses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    pub object: Value,
    /// What the refusal must say, the field among it.
    pub says: Vec<String>,
}

/// What is asked, and what must be answered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The client's arguments: a URL, `--method=M`, `-H NAME:VALUE`.
    pub ask: String,
    /// The client's namespace, if it is another one.
    pub from: Option<String>,
    /// How often it is asked, all at once; if not as often as it takes to be sure.
    pub count: Option<u32>,
    /// The status of HTTP or, unless it is OK, of gRPC.
    pub status: Option<u16>,
    /// The pod that answers.
    pub backend: Option<String>,
    /// In percent, the pods' part of many answers, and that of errors by their status.
    #[serde(default)]
    pub shares: BTreeMap<String, f64>,
    /// Lines of the answer: `URL`, `Host`, `Method`, `Proto` as the backend saw them.
    #[serde(default)]
    pub sees: BTreeMap<String, String>,
    /// Fields of the request as the backend saw them; null: absent.
    #[serde(default)]
    pub request: BTreeMap<String, Option<String>>,
    /// Fields of the response; null: absent.
    #[serde(default)]
    pub response: BTreeMap<String, Option<String>>,
    /// Words that stand in fields of the response.
    #[serde(default)]
    pub told: BTreeMap<String, Vec<String>>,
}

/// What `weft explain request` says of the cluster.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explained {
    /// Its arguments.
    pub ask: String,
    /// The rule that holds.
    pub rule: Option<String>,
    /// Settings by their names, each as `VALUE by OBJECT`; those of the backends too.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// The whole status of a route or a policy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// `KIND/NAME`, or `NAMESPACE/KIND/NAME`.
    pub object: String,
    /// All conditions of each of a route's parents, in the order of its parentRefs, each as `STATUS REASON`.
    #[serde(default)]
    pub parents: Vec<BTreeMap<String, String>>,
    /// The same of a policy's targets, in the order of its targetRefs.
    #[serde(default)]
    pub targets: Vec<BTreeMap<String, String>>,
    /// What messages must say.
    #[serde(default)]
    pub says: Vec<String>,
}

impl Case {
    /// Those of a folder, in the order of their names; objects that name no namespace are in this one.
    pub fn all(folder: &Path, namespace: &str) -> Vec<Self> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path, namespace)).collect()
    }

    fn read(path: &Path, namespace: &str) -> Self {
        let wrong = |error: &dyn std::fmt::Display| -> ! { panic!("{}: {error}", path.display()) };
        let text = fs::read_to_string(path).unwrap_or_else(|error| wrong(&error));
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|error| wrong(&error));
        let (mut objects, expected): (Vec<_>, Vec<_>) =
            documents.into_iter().partition(|document| document.get("apiVersion").is_some());
        let [expected] = <[Value; 1]>::try_from(expected)
            .unwrap_or_else(|all| wrong(&format!("{} documents that are no objects, not one", all.len())));
        let Expected { mut refused, requests, explained, statuses } =
            serde_json::from_value(expected).unwrap_or_else(|error| wrong(&error));
        for object in objects.iter_mut().chain(refused.iter_mut().map(|one| &mut one.object)) {
            let metadata = &mut object["metadata"];
            if metadata.get("namespace").is_none() {
                metadata["namespace"] = namespace.into();
            }
        }
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        Self { name, objects, refused, requests, explained, statuses }
    }
}
