//! The strict cases as they stand in files: objects, and what must come of them.

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
    pub requests: Vec<Request>,
    pub statuses: Vec<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    requests: Vec<Request>,
    #[serde(default)]
    statuses: Vec<Status>,
}

/// What is asked, and what must be answered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The client's arguments: a URL, `--method=M`, `-H NAME:VALUE`.
    pub ask: String,
    /// The client's namespace, if it is another one.
    pub from: Option<String>,
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
}

/// The whole status of a route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// `KIND/NAME`, or `NAMESPACE/KIND/NAME`.
    pub object: String,
    /// All conditions of each of its parents, in the order of its parentRefs, each as `STATUS REASON`.
    pub parents: Vec<BTreeMap<String, String>>,
}

impl Case {
    /// Those of a folder, in the order of their names.
    pub fn all(folder: &Path) -> Vec<Self> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Self {
        let wrong = |error: &dyn std::fmt::Display| -> ! { panic!("{}: {error}", path.display()) };
        let text = fs::read_to_string(path).unwrap_or_else(|error| wrong(&error));
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|error| wrong(&error));
        let (mut objects, expected): (Vec<_>, Vec<_>) =
            documents.into_iter().partition(|document| document.get("apiVersion").is_some());
        for object in &mut objects {
            let metadata = &mut object["metadata"];
            if metadata.get("namespace").is_none() {
                metadata["namespace"] = "strict".into();
            }
        }
        let [expected] = <[Value; 1]>::try_from(expected)
            .unwrap_or_else(|all| wrong(&format!("{} documents that are no objects, not one", all.len())));
        let Expected { requests, statuses } =
            serde_json::from_value(expected).unwrap_or_else(|error| wrong(&error));
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        Self { name, objects, requests, statuses }
    }
}
