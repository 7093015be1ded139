//! What a check is, and what it finds. The checks themselves stand in `before`, `plane` and `workloads`.

use serde::Serialize;

use super::facts::{Facts, Known};

/// Something that is looked at.
pub struct Check {
    /// For scripts: `webhook-certificate`.
    pub name: &'static str,
    /// What is expected.
    pub what: &'static str,
    /// What happens otherwise.
    pub why: &'static str,
    pub stage: Stage,
    pub look: fn(&Facts) -> Vec<Breach>,
}

/// When a check is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the installation only.
    Before,
    /// Of an installed mesh only.
    Installed,
    Both,
}

/// How bad it is. In order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    Ok,
    /// Worth knowing; as somebody wished it.
    Notice,
    /// It works, but not as it was meant to, or not for long.
    Warning,
    /// It could not be looked at.
    Unknown,
    /// It is broken.
    Failed,
}

/// Something that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Breach {
    pub weight: Weight,
    /// Which object; empty where the check says it all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub at: String,
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

/// A check with what it found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub weight: Weight,
    pub what: &'static str,
    pub why: &'static str,
    pub breaches: Vec<Breach>,
}

impl Check {
    pub fn judge(&self, facts: &Facts) -> Finding {
        let breaches = (self.look)(facts);
        let weight = breaches.iter().map(|breach| breach.weight).max().unwrap_or(Weight::Ok);
        Finding { check: self.name, weight, what: self.what, why: self.why, breaches }
    }
}

impl Breach {
    pub fn failed(at: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Weight::Failed, at, found, mend)
    }

    pub fn warning(at: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Weight::Warning, at, found, mend)
    }

    pub fn notice(at: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Weight::Notice, at, found, mend)
    }

    fn unknown(at: impl Into<String>, why: &str) -> Self {
        Self::new(Weight::Unknown, at, why, "ask as somebody who may, or mend the connection")
    }

    fn new(weight: Weight, at: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { weight, at: at.into(), found: found.into(), mend: mend.into() }
    }
}

/// Judges what is known; what is not is a breach of its own.
pub fn judge<T>(at: &str, fact: &Known<T>, judge: impl FnOnce(&T) -> Vec<Breach>) -> Vec<Breach> {
    match fact {
        Known::Known(value) => judge(value),
        Known::Unknown { unknown } => vec![Breach::unknown(at, unknown)],
    }
}
