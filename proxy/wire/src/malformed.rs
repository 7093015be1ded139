//! What is wrong with a message, and in which of its fields.

use std::{fmt, ops::RangeInclusive};

/// A message that means nothing in the model: a fault of the peer that sent it. What was held before stays valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// The field's path from the message that was read: `endpoints[3].address.port`.
    pub field: String,
    pub problem: Problem,
}

/// What is wrong with the field. Texts of the peer are cut to 80 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A field without which the message has no meaning.
    Missing,
    /// Neither 4 nor 16 bytes.
    AddressLength(usize),
    /// Not in 1–65535.
    Port(u32),
    /// No value of the enumeration that this version knows.
    Protocol(i32),
    /// A number or a time (ms) beyond the bounds that stand behind it.
    Range(u64, RangeInclusive<u64>),
    /// Not a name that Kubernetes would accept.
    Name(String),
    /// Not a SPIFFE ID of the mesh's form, and why.
    Identity(String),
    /// Not `namespace/pod`.
    Workload(String),
    /// A text that is not what the second one says.
    Not(String, &'static str),
    /// No regular expression, and why.
    Pattern(String),
    /// A place among so many where nothing stands.
    Place(u32, usize),
}

impl Malformed {
    pub(crate) fn new(field: impl Into<String>, problem: Problem) -> Self {
        Self { field: field.into(), problem }
    }

    /// The same seen from the message that contains it as `parent`.
    pub(crate) fn within(mut self, parent: impl fmt::Display) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}

impl Problem {
    /// A peer's text as an error may carry it: bounded.
    pub(crate) fn quote(text: &str) -> String {
        text.chars().take(80).collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::AddressLength(bytes) => write!(f, "an IP address has 4 or 16 bytes, not {bytes}"),
            Self::Port(port) => write!(f, "{port} is not a port (1-65535)"),
            Self::Protocol(value) => write!(f, "this version knows no protocol {value}"),
            Self::Range(value, bounds) if *bounds.end() == u64::MAX => {
                write!(f, "{value} is less than {}", bounds.start())
            }
            Self::Range(value, bounds) => {
                write!(f, "{value} is not in {}-{}", bounds.start(), bounds.end())
            }
            Self::Name(text) => write!(f, "{text:?} is not a name that Kubernetes would accept"),
            Self::Identity(why) | Self::Pattern(why) => f.write_str(why),
            Self::Workload(text) => write!(f, "{text:?} is not of the form namespace/pod"),
            Self::Not(text, what) => write!(f, "{text:?} is not {what}"),
            Self::Place(at, of) => write!(f, "there is no {at} among {of}"),
        }
    }
}
