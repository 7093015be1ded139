//! What is wrong with an object, said where it is: the object applies without that part of it.

use crate::Key;
use std::fmt;

/// One thing in one object that could not be taken as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub object: Key,
    /// The path of the field, as `kubectl explain` writes it: `spec.ports[0].appProtocol`.
    pub field: String,
    /// What is wrong, and what is done about it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.what)
    }
}

/// The problems of one object, gathered while it is read.
pub(crate) struct Notes {
    object: Key,
    pub(crate) problems: Vec<Problem>,
}

impl Notes {
    pub(crate) fn of(object: &Key) -> Self {
        Self { object: object.clone(), problems: Vec::new() }
    }

    pub(crate) fn add(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.problems.push(Problem { object: self.object.clone(), field: field.into(), what: what.into() });
    }

    /// The address that `text` writes; a problem when it writes none.
    pub(crate) fn address(&mut self, field: impl Into<String>, text: &str) -> Option<std::net::IpAddr> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.add(field, format!("{text:?} is not an IP address; it is left out"));
        }
        parsed
    }

    /// The port that `number` is; a problem when it is none.
    pub(crate) fn port(&mut self, field: impl Into<String>, number: i32) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        if port.is_none() {
            self.add(field, format!("{number} is not a port (1-65535); it is left out"));
        }
        port
    }
}
