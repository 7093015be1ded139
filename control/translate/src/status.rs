//! What is said about a route or a policy in its status: the conditions of Gateway API, an entry for each parent of a
//! route and each target of a policy. Who writes it, and when it became so, is `control-serve`'s.

use control_index::{Observed, manifest};

/// All that is said about one object. An object that is none of ours has no entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub entries: Vec<Entry>,
}

/// What is said about an object beside one parent (of a route) or one target (of a policy).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As the route writes it in `spec.parentRefs`; the target of a policy with all that names it.
    pub about: manifest::ParentRef,
    pub conditions: Vec<Condition>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, …
    pub type_: &'static str,
    pub holds: bool,
    /// One word of Gateway API's.
    pub reason: &'static str,
    /// For people, in the words of the problems.
    pub message: String,
}

impl Status {
    /// The object's status says just this, about this generation of it.
    pub fn is_observed(&self, generation: i64, observed: &[Observed]) -> bool {
        let held = |entry: &Entry| {
            let mut same = observed.iter().filter(|one| one.about == entry.about);
            same.next().is_some_and(|one| entry.is_observed(generation, one))
        };
        self.entries.len() == observed.len() && self.entries.iter().all(held)
    }
}

impl Entry {
    fn is_observed(&self, generation: i64, observed: &Observed) -> bool {
        let held = |condition: &Condition| {
            observed.conditions.iter().any(|one| {
                one.type_ == condition.type_
                    && one.status == condition.word()
                    && one.reason == condition.reason
                    && one.message == condition.message
                    && one.observed_generation == generation
            })
        };
        self.conditions.len() == observed.conditions.len() && self.conditions.iter().all(held)
    }
}

impl Condition {
    pub fn new(type_: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, holds, reason, message: message.into() }
    }

    /// As Kubernetes writes whether it holds.
    pub fn word(&self) -> &'static str {
        if self.holds { "True" } else { "False" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(holds: bool, message: &str) -> Status {
        let about = manifest::ParentRef { name: "cart".into(), ..manifest::ParentRef::default() };
        let conditions = vec![Condition::new("Accepted", holds, "Accepted", message)];
        Status { entries: vec![Entry { about, conditions }] }
    }

    fn observed(status: &Status, generation: i64) -> Vec<Observed> {
        let condition = |one: &Condition| manifest::Condition {
            type_: one.type_.into(),
            status: one.word().into(),
            observed_generation: generation,
            reason: one.reason.into(),
            message: one.message.clone(),
        };
        let entry = |entry: &Entry| Observed {
            about: entry.about.clone(),
            conditions: entry.conditions.iter().map(condition).collect(),
        };
        status.entries.iter().map(entry).collect()
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        let status = said(true, "");
        assert!(status.is_observed(3, &observed(&status, 3)));
        assert!(!status.is_observed(4, &observed(&status, 3)), "another generation");
        assert!(!said(false, "").is_observed(3, &observed(&status, 3)), "another status");
        assert!(!said(true, "a word").is_observed(3, &observed(&status, 3)), "another message");
        assert!(!Status::default().is_observed(3, &observed(&status, 3)), "an entry too many");
        assert!(!status.is_observed(3, &[]), "an entry too few");
        assert!(Status::default().is_observed(3, &[]));
        let mut more = observed(&status, 3);
        let stale =
            manifest::Condition { type_: "PartiallyInvalid".into(), ..manifest::Condition::default() };
        more[0].conditions.push(stale);
        assert!(!status.is_observed(3, &more), "a condition that holds no more");
    }
}
