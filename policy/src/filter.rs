//! What a rule does to a request or its response besides sending it on: the filters of HTTPRoute and GRPCRoute.

use crate::{BackendRef, path::normal};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::{fmt, sync::Arc};

/// One filter; they apply in the order in which they stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    RequestHeaders(HeaderEdit),
    ResponseHeaders(HeaderEdit),
    Redirect(Redirect),
    Rewrite(Rewrite),
    Mirror(Mirror),
    Cors(Cors),
}

/// HTTPHeaderFilter: first what is set, then what is added, then what is removed. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderEdit {
    pub set: Vec<(Arc<str>, Arc<str>)>,
    pub add: Vec<(Arc<str>, Arc<str>)>,
    pub remove: Vec<Arc<str>>,
}

/// HTTPRequestRedirectFilter. What is `None` stays as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    pub hostname: Option<Arc<str>>,
    pub port: Option<u16>,
    pub path: Option<PathEdit>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// HTTPURLRewriteFilter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rewrite {
    pub hostname: Option<Arc<str>>,
    pub path: Option<PathEdit>,
}

/// HTTPPathModifier. The query stays.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathEdit {
    Full(Arc<str>),
    /// In the place of the prefix that the match is for.
    Prefix(Arc<str>),
}

/// HTTPRequestMirrorFilter: a share of the requests is sent there too; nobody waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mirror {
    pub backend: BackendRef,
    pub share: Share,
}

/// HTTPCORSFilter (Fetch standard, CORS protocol).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cors {
    /// Origins as `scheme://host[:port]`; `*` stands for any, and within a host for any labels before the rest.
    pub allow_origins: Vec<Arc<str>>,
    pub allow_credentials: bool,
    /// `*`: any.
    pub allow_methods: Vec<Arc<str>>,
    pub allow_headers: Vec<Arc<str>>,
    pub expose_headers: Vec<Arc<str>>,
    /// Seconds for which the answer to a preflight holds.
    pub max_age: u32,
}

/// A part of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Share {
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
}

impl Share {
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };

    /// Is a request of the share, whose `draw` is any number, evenly drawn?
    pub fn takes(self, draw: u64) -> bool {
        let below = (u128::from(draw) * u128::from(self.denominator)) >> 64;
        below < u128::from(self.numerator)
    }
}

impl Cors {
    /// May a page of this origin read the answer?
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.allow_origins.iter().any(|allowed| match allowed.split_once('*') {
            None => allowed.eq_ignore_ascii_case(origin),
            Some((before, after)) => {
                let origin = origin.to_ascii_lowercase();
                let (before, after) = (before.to_ascii_lowercase(), after.to_ascii_lowercase());
                origin.len() > before.len() + after.len()
                    && origin.starts_with(&before)
                    && origin.ends_with(&after)
            }
        })
    }
}

impl PathEdit {
    /// The path in the place of `path`, both without query; `prefix` is what was matched: in the path's normal form, which
    /// therefore what stays is in too. What can stand in no path is percent-encoded.
    pub fn apply(&self, path: &[u8], prefix: Option<&str>) -> String {
        match self {
            Self::Full(full) => encoded(full),
            Self::Prefix(instead) => {
                let prefix = prefix.unwrap_or("/").trim_end_matches('/');
                let path = String::from_utf8_lossy(&normal(path)).into_owned();
                let rest = path.get(prefix.len()..).unwrap_or_default().trim_start_matches('/');
                let instead = encoded(instead.trim_end_matches('/'));
                match (instead.as_str(), rest) {
                    ("", "") => "/".into(),
                    (instead, "") if path.len() > prefix.len() => format!("{instead}/"),
                    (instead, "") => instead.into(),
                    (instead, rest) => format!("{instead}/{rest}"),
                }
            }
        }
    }
}

/// RFC 3986 §3.3. What is encoded already stays.
fn encoded(path: &str) -> String {
    const NOT_IN_PATHS: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'\\')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    utf8_percent_encode(path, NOT_IN_PATHS).to_string()
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestHeaders(edit) => write!(f, "request headers: {edit}"),
            Self::ResponseHeaders(edit) => write!(f, "response headers: {edit}"),
            Self::Redirect(redirect) => write!(f, "{redirect}"),
            Self::Rewrite(Rewrite { hostname, path }) => {
                f.write_str("rewrite")?;
                if let Some(hostname) = hostname {
                    write!(f, " host to {hostname}")?;
                }
                path.as_ref().map_or(Ok(()), |path| write!(f, " {path}"))
            }
            Self::Mirror(Mirror { backend, share }) => write!(f, "mirror {share} to {backend}"),
            Self::Cors(cors) => write!(f, "CORS for {}", cors.allow_origins.join(" ")),
        }
    }
}

impl fmt::Display for HeaderEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.set.iter().map(|(name, value)| format!("set {name}: {value}"));
        let add = self.add.iter().map(|(name, value)| format!("add {name}: {value}"));
        let remove = self.remove.iter().map(|name| format!("remove {name}"));
        f.write_str(&set.chain(add).chain(remove).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redirect {}", self.status)?;
        if let Some(scheme) = &self.scheme {
            write!(f, " scheme to {scheme}")?;
        }
        if let Some(hostname) = &self.hostname {
            write!(f, " host to {hostname}")?;
        }
        if let Some(port) = self.port {
            write!(f, " port to {port}")?;
        }
        self.path.as_ref().map_or(Ok(()), |path| write!(f, " {path}"))
    }
}

impl fmt::Display for PathEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(path) => write!(f, "path to {path}"),
            Self::Prefix(prefix) => write!(f, "path prefix to {prefix}"),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = f64::from(self.numerator) * 100.0 / f64::from(self.denominator);
        write!(f, "{} %", (percent * 1000.0).round() / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of HTTPPathModifier.replacePrefixMatch.
    #[test]
    fn a_prefix_is_replaced_as_gateway_api_says() {
        for (path, prefix, instead, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
            ("/foo/%20", "/foo", "/x y?z%2F", "/x%20y%3Fz%2F/%20"),
            // What was matched is the normal form.
            ("/f%6Fo/b%61r", "/foo", "/xyz", "/xyz/bar"),
            ("//foo/./bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/x/../../foo/bar", "/foo", "/", "/bar"),
            ("/foo/a%2fb", "/foo", "/xyz", "/xyz/a%2Fb"),
        ] {
            let edit = PathEdit::Prefix(instead.into());
            assert_eq!(edit.apply(path.as_bytes(), Some(prefix)), expected, "{path} {prefix} {instead}");
        }
    }

    #[test]
    fn origins_are_allowed_by_whole_or_by_wildcard() {
        let cors = |origin: &str| Cors { allow_origins: vec![origin.into()], ..Cors::default() };
        for (allowed, origin, expected) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "https://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("*", "https://a.example", true),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "https://example", false),
            ("https://*.example", "https://.example", false),
        ] {
            assert_eq!(cors(allowed).allows_origin(origin), expected, "{allowed} {origin}");
        }
    }

    #[test]
    fn a_share_takes_so_many() {
        let draws = |share: Share| (0..1_000u64).filter(|at| share.takes(at << 54 | at << 44)).count();
        assert_eq!(draws(Share::ALL), 1_000);
        assert_eq!(draws(Share { numerator: 0, denominator: 100 }), 0);
        let half = Share { numerator: 1, denominator: 2 };
        assert!(
            half.takes(0)
                && half.takes(u64::MAX / 2)
                && !half.takes(u64::MAX / 2 + 1)
                && !half.takes(u64::MAX)
        );
    }
}
