//! What is wrong in a route or a policy, and what follows from it. Problems and statuses are views of the same findings.

use std::fmt;

/// One thing that cannot be taken as it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The path of the field: `spec.rules[0].matches[1].path.value`.
    pub field: String,
    /// What is wrong, and what to do about it.
    pub what: String,
    pub effect: Effect,
}

/// What follows from a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    /// The object is not taken at all: it says something that is not known here.
    Rejected(ConditionReason),
    /// The rule at this place is left out.
    Dropped(usize, ConditionReason),
    /// A reference leads nowhere: what was to go there fails.
    Unresolved(ConditionReason),
}

/// Why a condition is what it is: Gateway API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionReason {
    Accepted,
    NoMatchingParent,
    UnsupportedValue,
    UnsupportedProtocol,
    IncompatibleFilters,
    Conflicted,
    ResolvedRefs,
    InvalidKind,
    InvalidCaCertificateRef,
    NoValidCaCertificate,
    BackendNotFound,
    Invalid,
    TargetNotFound,
    Programmed,
}

/// Where in a rule something is wrong, and where that is written down.
pub(crate) struct Notes<'a> {
    rule: usize,
    /// The path of the field that is read.
    path: String,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Notes<'a> {
    pub fn of_rule(rule: usize, findings: &'a mut Vec<Finding>) -> Self {
        Self { rule, path: format!("spec.rules[{rule}]"), findings }
    }

    /// The same for a field within.
    pub fn at(&mut self, field: impl fmt::Display) -> Notes<'_> {
        Notes { rule: self.rule, path: format!("{}.{field}", self.path), findings: self.findings }
    }

    /// A value that Gateway API may know and this mesh does not: nothing of the route holds.
    pub fn reject(&mut self, what: impl Into<String>) {
        self.add(Effect::Rejected(ConditionReason::UnsupportedValue), what);
    }

    /// A value that makes no sense: the rule does not hold.
    pub fn refuse(&mut self, reason: ConditionReason, what: impl Into<String>) {
        self.add(Effect::Dropped(self.rule, reason), what);
    }

    /// A reference that leads nowhere.
    pub fn unresolved(&mut self, reason: ConditionReason, what: impl Into<String>) {
        self.add(Effect::Unresolved(reason), what);
    }

    fn add(&mut self, effect: Effect, what: impl Into<String>) {
        self.findings.push(Finding { field: self.path.clone(), what: what.into(), effect });
    }
}

impl Finding {
    pub fn reason(&self) -> ConditionReason {
        match self.effect {
            Effect::Rejected(reason) | Effect::Dropped(_, reason) | Effect::Unresolved(reason) => reason,
        }
    }

    /// What is wrong, and what follows from it.
    pub fn says(&self) -> String {
        let follows = match self.effect {
            Effect::Rejected(_) => "the route is left out",
            Effect::Dropped(..) => "the rule is left out",
            Effect::Unresolved(_) => "what would go there fails",
        };
        format!("{}; {follows}", self.what)
    }
}

impl ConditionReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::NoMatchingParent => "NoMatchingParent",
            Self::UnsupportedValue => "UnsupportedValue",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::IncompatibleFilters => "IncompatibleFilters",
            Self::Conflicted => "Conflicted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::InvalidKind => "InvalidKind",
            Self::InvalidCaCertificateRef => "InvalidCACertificateRef",
            Self::NoValidCaCertificate => "NoValidCACertificate",
            Self::BackendNotFound => "BackendNotFound",
            Self::Invalid => "Invalid",
            Self::TargetNotFound => "TargetNotFound",
            Self::Programmed => "Programmed",
        }
    }
}

impl fmt::Display for ConditionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.says())
    }
}
