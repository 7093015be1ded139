//! The reasons of a decision, for who wants to hear them. A proxy on its way does not: `()` hears nothing and costs nothing.

use crate::{Match, Rule};
use std::{fmt, sync::Arc};

/// Hears what a decision considers.
pub trait Why {
    /// A rule that does not hold, by the match that was looked at.
    fn lost(&mut self, rule: &Rule, by: Option<&Match>, reason: Lost);

    /// The rule that holds.
    fn holds(&mut self, rule: &Rule, by: Option<&Match>);

    /// What comes after the rule that holds is to be looked at too.
    fn wants_all(&self) -> bool;
}

/// Why a match lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    Path,
    Method,
    /// The field of this name.
    Header(Arc<str>),
    /// The parameter of this name.
    Query(Arc<str>),
    /// The name that a TLS client asks for.
    Hostname,
    /// It fits, and another one that goes before it fits too.
    Precedence,
}

impl Why for () {
    fn lost(&mut self, _: &Rule, _: Option<&Match>, _: Lost) {}

    fn holds(&mut self, _: &Rule, _: Option<&Match>) {}

    fn wants_all(&self) -> bool {
        false
    }
}

/// All that was considered, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub considered: Vec<Considered>,
}

/// One match of one rule, and how it fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// `HTTPRoute shop/product rules[0]`.
    pub rule: String,
    /// `path prefix /p, header x-user="beta"`; empty for rules without matches.
    pub by: String,
    /// `None`: it holds.
    pub lost: Option<Lost>,
}

impl Trace {
    fn add(&mut self, rule: &Rule, by: Option<&Match>, lost: Option<Lost>) {
        let by = by.map(ToString::to_string).unwrap_or_default();
        self.considered.push(Considered { rule: rule.source.to_string(), by, lost });
    }
}

impl Why for Trace {
    fn lost(&mut self, rule: &Rule, by: Option<&Match>, reason: Lost) {
        self.add(rule, by, Some(reason));
    }

    fn holds(&mut self, rule: &Rule, by: Option<&Match>) {
        self.add(rule, by, None);
    }

    fn wants_all(&self) -> bool {
        true
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("the path is another one"),
            Self::Method => f.write_str("the method is another one"),
            Self::Header(name) => write!(f, "the header {name} is missing or another one"),
            Self::Query(name) => write!(f, "the query parameter {name} is missing or another one"),
            Self::Hostname => f.write_str("it is for other hostnames"),
            Self::Precedence => f.write_str("it fits, but one that goes before it holds"),
        }
    }
}
