//! The objects of manifests or of a cluster, read as control reads them: the same documents, the same index.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, stdin};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use control_index::{Body, Index, Key, Kind, Object};
use policy::TrustDomain;
use serde_json::Value;

use crate::cluster::{Cluster, Connection, Failure};

/// Folders within folders.
const DEPTH: usize = 16;

/// Where objects are.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// A file of manifests, a folder of them with all below it, or - for standard input [default: the cluster]
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    /// Trust domain of the mesh
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
    #[command(flatten)]
    connection: Connection,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Objects {
    pub index: Index,
    /// Where each is written: `shop/cart.yaml:12`; empty: in the cluster.
    pub places: BTreeMap<Key, String>,
    pub faults: Vec<Fault>,
    /// Nothing of a kind was read, and it may be somewhere else: files seldom hold Pods.
    is_part: bool,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `shop/cart.yaml:12`, or the path in the cluster.
    pub at: String,
    /// `spec.ports[0].port`; empty when the whole is wrong.
    pub field: String,
    pub what: String,
}

impl Source {
    pub async fn read(&self) -> Result<Objects> {
        if self.files.is_empty() {
            return Objects::of_cluster(&self.connection.open().await?).await;
        }
        let mut objects = Objects { is_part: true, ..Objects::default() };
        let mut found = false;
        for path in &self.files {
            for file in manifests(path, DEPTH)? {
                found = true;
                objects.add(&file)?;
            }
        }
        if !found {
            bail!("there is no *.yaml, *.yml or *.json in what -f names");
        }
        Ok(objects)
    }
}

impl Objects {
    /// Whether the Pods behind Services are known: files that hold none say nothing about them.
    pub fn knows_endpoints(&self) -> bool {
        let any = |kind| self.index.count(kind) > 0;
        !self.is_part || any(Kind::Pod) || any(Kind::EndpointSlice)
    }

    /// The object that prints so: `HTTPRoute shop/product`.
    pub fn key(&self, text: &str) -> Option<Key> {
        let (kind, name) = text.split_once(' ')?;
        let kind = Kind::ALL.into_iter().find(|one| one.as_str() == kind)?;
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        Some(Key::new(kind, namespace, name)).filter(|key| self.places.contains_key(key))
    }

    /// All that a cluster holds of the kinds that the mesh reads.
    async fn of_cluster(cluster: &Cluster) -> Result<Self> {
        let mut objects = Self::default();
        for kind in Kind::ALL {
            match list(cluster, kind).await {
                Ok(items) => items.into_iter().for_each(|item| match kind.read(item) {
                    Ok(object) if object.is_of_use() => objects.take(&object, String::new()),
                    Ok(_) => {}
                    Err(error) => objects.faults.push(Fault {
                        at: kind.plural().into(),
                        field: String::new(),
                        what: error.to_string(),
                    }),
                }),
                Err(Failure::Absent) => {}
                Err(failure @ Failure::Forbidden(_)) => objects.faults.push(Fault {
                    at: kind.plural().into(),
                    field: String::new(),
                    what: format!("they may not be read, and are taken as if there were none: {failure}"),
                }),
                Err(failure) => bail!("{}: {failure}", kind.plural()),
            }
        }
        Ok(objects)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let text = match path == Path::new("-") {
            true => {
                let mut text = String::new();
                stdin().read_to_string(&mut text).context("standard input")?;
                text
            }
            false => fs::read_to_string(path).with_context(|| path.display().to_string())?,
        };
        self.parse(path, &text);
        Ok(())
    }

    fn parse(&mut self, path: &Path, text: &str) {
        let parsed = control_manifest::parse(path, text);
        let at = |line: u64| format!("{}:{line}", path.display());
        for fault in parsed.faults {
            self.faults.push(Fault { at: at(fault.line), field: fault.field, what: fault.what });
        }
        for (line, object) in parsed.objects {
            match self.places.get(object.key()) {
                // As control reads a directory: the first one counts.
                Some(first) => self.faults.push(Fault {
                    at: at(line),
                    field: String::new(),
                    what: format!("{} is defined at {first} already; that one is taken", object.key()),
                }),
                None => self.take(&self.addressed(object), at(line)),
            }
        }
    }

    /// A Service that was not applied yet has the address that the API server will give it: one that nobody has (RFC 6666).
    fn addressed(&self, object: Object) -> Object {
        let Body::Service(service) = object.body() else { return object };
        let mut service = service.clone();
        let spec = service.spec.get_or_insert_default();
        let alias = spec.type_.as_deref() == Some("ExternalName");
        if alias || spec.cluster_ip.is_some() || spec.cluster_ips.is_some() {
            return object;
        }
        let at = u128::from_be_bytes([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            + self.places.len() as u128
            + 1;
        spec.cluster_ip = Some(Ipv6Addr::from(at).to_string());
        Object::new(Body::Service(service)).unwrap_or(object)
    }

    fn take(&mut self, object: &Object, place: String) {
        self.index.apply(object);
        self.places.insert(object.key().clone(), place);
    }
}

/// The objects of a kind, in the best version that the cluster serves.
async fn list(cluster: &Cluster, kind: Kind) -> Result<Vec<Value>, Failure> {
    for version in kind.versions() {
        let path = match kind.group() {
            "" => format!("/api/{version}/{}", kind.plural()),
            group => format!("/apis/{group}/{version}/{}", kind.plural()),
        };
        match cluster.list(&path, "").await {
            Err(Failure::Absent) => {}
            other => return other,
        }
    }
    Err(Failure::Absent)
}

/// The manifests that a path names, by name; of a folder those below it, without hidden ones.
fn manifests(path: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let hidden = entry.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let end = entry.extension().and_then(|end| end.to_str());
        if entry.is_dir() && !hidden && depth > 0 {
            found.extend(manifests(&entry, depth - 1)?);
        } else if !hidden && matches!(end, Some("yaml" | "yml" | "json")) {
            found.push(entry);
        }
    }
    Ok(found)
}
