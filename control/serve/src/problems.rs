//! What is wrong now: each problem is logged once when it comes and once when it goes, counted, and shown at `/problems`.

use control_index::{Key, Kind};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// One thing that is wrong, for the people who can mend it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where: `shop/cart.yaml:12`.
    pub at: String,
    /// `Service shop/cart`; empty when it is not known.
    pub object: String,
    /// `spec.ports[0].port`; empty when the whole is wrong.
    pub field: String,
    /// What is wrong, and what is done meanwhile.
    pub what: String,
}

/// Who says that something is wrong: each replaces its own problems only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Directory,
    /// The list or the watch of a kind, in Kubernetes.
    Cluster(Kind),
    State,
    Tokens,
    /// The Secret of the issuer.
    Secret,
    /// The ConfigMaps with the roots.
    TrustRoots,
    /// The Lease of who writes.
    Duties,
    /// The Events on Pods without a proxy.
    Events,
    /// The statuses of routes and policies.
    Statuses,
    /// The statuses of XMeshes.
    Meshes,
    Object(Key),
}

/// All present problems.
#[derive(Debug, Default)]
pub struct Problems {
    held: BTreeMap<Source, BTreeSet<Problem>>,
}

impl Problems {
    /// Takes what a source finds wrong now in the place of what it found before.
    pub fn replace(&mut self, source: Source, now: BTreeSet<Problem>) {
        let before = self.held.remove(&source).unwrap_or_default();
        now.difference(&before).for_each(|problem| tracing::warn!("problem: {problem}"));
        before.difference(&now).for_each(|problem| tracing::info!("solved: {problem}"));
        if !now.is_empty() {
            self.held.insert(source, now);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.held.values().flatten()
    }

    pub fn count(&self) -> usize {
        self.held.values().map(BTreeSet::len).sum()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [&self.at, &self.object, &self.field, &self.what].into_iter().filter(|part| !part.is_empty());
        for (at, part) in parts.enumerate() {
            if at > 0 {
                f.write_str(": ")?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}
