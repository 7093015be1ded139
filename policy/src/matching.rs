//! What a request must be for a rule to hold for it, and which of several matches goes first.

use crate::{Pattern, TextMatch};
use std::{cmp::Reverse, fmt, sync::Arc};

/// Conditions that all must be fulfilled (HTTPRouteMatch, GRPCRouteMatch).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Match {
    pub path: PathMatch,
    /// The method, in capitals; `None`: any.
    pub method: Option<Arc<str>>,
    /// Fields of the head, by their lower-case names. Values of a field that comes several times count as one, joined by
    /// commas (RFC 9110 §5.3).
    pub headers: Vec<ValueMatch>,
    /// Parameters of the query; of those that come several times, the first.
    pub query: Vec<ValueMatch>,
}

/// What the path must be, in its normal form ([`crate::path::normal`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathMatch {
    Exact(Arc<str>),
    /// A beginning by whole segments: `/a/b` is one of `/a/b` and `/a/b/c`, not of `/a/bc`.
    Prefix(Arc<str>),
    Regex(Pattern),
    /// `/service/method`, as gRPC calls it.
    Rpc {
        service: Option<TextMatch>,
        method: Option<TextMatch>,
    },
}

/// What a named value must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueMatch {
    pub name: Arc<str>,
    pub value: TextMatch,
}

impl Default for PathMatch {
    /// Any path.
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

impl Match {
    /// How special it is: of two matches that fit, the one with the smaller value wins. HTTPRouteRule and GRPCRouteRule of
    /// Gateway API say so; a regular expression, of which they do not speak, stands between exact paths and prefixes. What is
    /// equal here is decided by the age and the names of the routes, and then by the order in them.
    pub fn precedence(&self) -> impl Ord + use<> {
        let length = |text: &Option<TextMatch>| text.as_ref().map_or(0, |text| text.as_str().chars().count());
        let (kind, most, then) = match &self.path {
            PathMatch::Exact(path) => (0, path.chars().count(), 0),
            PathMatch::Regex(pattern) => (1, pattern.as_str().chars().count(), 0),
            PathMatch::Prefix(prefix) => (2, prefix.trim_end_matches('/').chars().count(), 0),
            // Beside a rule without a match, which is one of a prefix.
            PathMatch::Rpc { service, method } => (2, length(service), length(method)),
        };
        (
            kind,
            Reverse((most, then)),
            Reverse(self.method.is_some()),
            Reverse(self.headers.len()),
            Reverse(self.query.len()),
        )
    }
}

impl PathMatch {
    /// `path` is in its normal form and without its query.
    pub fn fits(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == path,
            Self::Prefix(prefix) => begins(path, prefix),
            Self::Regex(pattern) => pattern.fits(path),
            Self::Rpc { service, method } => {
                let Some((called, rest)) = split_rpc(path) else { return false };
                service.as_ref().is_none_or(|service| service.fits(called))
                    && method.as_ref().is_none_or(|method| method.fits(rest))
            }
        }
    }
}

/// Service and method of a gRPC call's path.
fn split_rpc(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let path = path.strip_prefix(b"/")?;
    let slash = path.iter().position(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
        .filter(|(service, method)| !service.is_empty() && !method.is_empty())
}

/// By whole segments; a slash at the prefix' end says nothing. `/` is of whatever stands in the place of a path, too.
fn begins(path: &[u8], prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    let rest = path.strip_prefix(prefix);
    prefix.is_empty() || rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = &self.method {
            write!(f, "{method} ")?;
        }
        write!(f, "{}", self.path)?;
        for header in &self.headers {
            write!(f, ", header {}={}", header.name, header.value)?;
        }
        for parameter in &self.query {
            write!(f, ", query {}={}", parameter.name, parameter.value)?;
        }
        Ok(())
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "path {path}"),
            Self::Prefix(prefix) => write!(f, "path prefix {prefix}"),
            Self::Regex(pattern) => write!(f, "path ~{:?}", pattern.as_str()),
            Self::Rpc { service, method } => {
                let text = |text: &Option<TextMatch>| text.as_ref().map_or("*".into(), ToString::to_string);
                write!(f, "gRPC {}/{}", text(service), text(method))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_of_whole_segments() {
        for (prefix, path, fits) in [
            ("/", "/", true),
            ("/", "/x", true),
            ("/", "*", true),
            ("/", "", true),
            ("/a", "/a", true),
            ("/a", "/a/", true),
            ("/a/", "/a", true),
            ("/a/", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
        ] {
            assert_eq!(PathMatch::Prefix(prefix.into()).fits(path.as_bytes()), fits, "{prefix} {path}");
        }
    }

    #[test]
    fn calls_are_service_and_method() {
        let exact = |text: &str| Some(TextMatch::Exact(text.into()));
        let of =
            |service: &str, method: &str| PathMatch::Rpc { service: exact(service), method: exact(method) };
        assert!(of("pets.Store", "Buy").fits(b"/pets.Store/Buy"));
        assert!(!of("pets.Store", "Buy").fits(b"/pets.Store/Sell"));
        let any = PathMatch::Rpc { service: None, method: None };
        for (path, fits) in [("/a/b", true), ("/a", false), ("/", false), ("/a/", false), ("a/b", false)] {
            assert_eq!(any.fits(path.as_bytes()), fits, "{path}");
        }
    }
}
