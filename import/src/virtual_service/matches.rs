//! A match of an HTTP route: which requests it takes, how it ranks among others in Gateway API, what two matches both
//! take, and how it is written. How Istio's matches become these is in `conditions`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::output::object;

/// How a path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PathKind {
    /// By whole segments: `/api` takes `/api` and `/api/v1`, not `/apiary`. Without a slash at its end; that everything is
    /// taken is said by having no path.
    Prefix,
    RegularExpression,
    Exact,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub kind: PathKind,
    pub value: String,
}

/// How the value of a header or of a query parameter is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Exact(String),
    RegularExpression(String),
}

/// A regular expression that any value has, also the empty one: the field is there.
pub(crate) const PRESENT: &str = ".*";

/// How many headers, and how many parameters, a match may have.
pub(crate) const MAX_TEXTS: usize = 16;

/// A match; what it does not name it does not look at.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Match {
    pub path: Option<Path>,
    pub method: Option<String>,
    /// By name in lower case.
    pub headers: BTreeMap<String, Text>,
    pub query: BTreeMap<String, Text>,
}

/// What two matches both take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Overlap {
    Nothing,
    Some(Match),
    /// There may be requests that both take; no match says which.
    Unknown,
}

/// Where a match stands among others; the greater wins (Gateway API, HTTPRouteRule.matches).
pub(crate) type Precedence = (PathKind, usize, bool, usize, usize);

impl Match {
    pub fn precedence(&self) -> Precedence {
        let (kind, length) = match &self.path {
            Some(path) => (path.kind, path.value.chars().count()),
            None => (PathKind::Prefix, 0),
        };
        (kind, length, self.method.is_some(), self.headers.len(), self.query.len())
    }

    /// Whether a route may say it.
    pub fn is_writable(&self) -> bool {
        self.headers.len() <= MAX_TEXTS && self.query.len() <= MAX_TEXTS
    }

    /// What this match and another one both take.
    pub fn intersect(&self, other: &Match) -> Overlap {
        let path = intersect_paths(self.path.as_ref(), other.path.as_ref());
        let method = match (&self.method, &other.method) {
            (Some(one), Some(two)) if one != two => return Overlap::Nothing,
            (one, two) => one.clone().or_else(|| two.clone()),
        };
        let headers = intersect_texts(&self.headers, &other.headers);
        let query = intersect_texts(&self.query, &other.query);
        match (path, headers, query) {
            (Ok(path), Ok(headers), Ok(query)) => Overlap::Some(Match { path, method, headers, query }),
            // Nothing in one of them is nothing, whatever the others are.
            (path, headers, query) => {
                let missing = [path.err(), headers.err(), query.err()];
                let is_nothing = missing.iter().flatten().any(|missing| matches!(missing, Missing::Nothing));
                if is_nothing { Overlap::Nothing } else { Overlap::Unknown }
            }
        }
    }

    /// As an item of `HTTPRoute.spec.rules[].matches`.
    pub fn http(&self) -> Value {
        let path = self.path.as_ref().map_or(Value::Null, |path| {
            let kind = match path.kind {
                PathKind::Prefix => "PathPrefix",
                PathKind::RegularExpression => "RegularExpression",
                PathKind::Exact => "Exact",
            };
            json!({"type": kind, "value": path.value})
        });
        let fields = [
            ("path", path),
            ("method", self.method.as_deref().map_or(Value::Null, Value::from)),
            ("headers", texts(&self.headers)),
            ("queryParams", texts(&self.query)),
        ];
        object(fields).into()
    }

    /// As an item of `GRPCRoute.spec.rules[].matches`; `None` where it looks at what a gRPC match cannot.
    pub fn grpc(&self) -> Option<Value> {
        if !self.query.is_empty() || self.method.as_deref().is_some_and(|method| method != "POST") {
            return None;
        }
        let method = match &self.path {
            None => Value::Null,
            Some(path) => {
                let called = path.value.strip_prefix('/')?;
                match (path.kind, called.split_once('/')) {
                    (PathKind::Prefix, _) if called.is_empty() => Value::Null,
                    (PathKind::Prefix, Some((service, ""))) => json!({"service": service}),
                    (PathKind::Exact, Some((service, method))) if !method.contains('/') => {
                        json!({"service": service, "method": method})
                    }
                    // `/shop.Cart` as a prefix: of a path that has always two segments, the first one.
                    (PathKind::Prefix, None) => json!({"service": called}),
                    _ => return None,
                }
            }
        };
        Some(object([("method", method), ("headers", texts(&self.headers))]).into())
    }
}

/// Why there is nothing to say what both take.
enum Missing {
    /// There is nothing that both take.
    Nothing,
    Unknown,
}

fn intersect_paths(one: Option<&Path>, two: Option<&Path>) -> Result<Option<Path>, Missing> {
    let (one, two) = match (one, two) {
        (None, path) | (path, None) => return Ok(path.cloned()),
        (Some(one), Some(two)) if one == two => return Ok(Some(one.clone())),
        (Some(one), Some(two)) => (one, two),
    };
    // The kinds stand in the order of what they take.
    let (wide, narrow) = if one.kind <= two.kind { (one, two) } else { (two, one) };
    let is_within = match (wide.kind, narrow.kind) {
        (PathKind::Exact, _) => false,
        (PathKind::Prefix, PathKind::Prefix) if is_below(&wide.value, &narrow.value) => {
            return Ok(Some(wide.clone()));
        }
        (PathKind::Prefix, PathKind::Prefix | PathKind::Exact) => is_below(&narrow.value, &wide.value),
        (PathKind::Prefix, PathKind::RegularExpression) => {
            let head = literal_head(&narrow.value);
            let begins_alike = wide.value.starts_with(head) || head.starts_with(&wide.value);
            match is_below(head, &wide.value) && head.len() > wide.value.len() {
                true => true,
                false if begins_alike => return Err(Missing::Unknown),
                false => false,
            }
        }
        (PathKind::RegularExpression, PathKind::Exact) => fits(&wide.value, &narrow.value)?,
        (PathKind::RegularExpression, _) => return Err(Missing::Unknown),
    };
    if is_within { Ok(Some(narrow.clone())) } else { Err(Missing::Nothing) }
}

/// Whether a regular expression takes a text.
fn fits(pattern: &str, text: &str) -> Result<bool, Missing> {
    let pattern = policy::Pattern::new(pattern).map_err(|_| Missing::Unknown)?;
    Ok(pattern.fits(text.as_bytes()))
}

/// What everything begins with that a regular expression takes: as far as it is plain text.
fn literal_head(pattern: &str) -> &str {
    if pattern.contains('|') {
        return "";
    }
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let end = pattern.find(|c: char| r"\.+*?()[]{}^$".contains(c)).unwrap_or(pattern.len());
    let is_repeated = pattern[end..].starts_with(['*', '?', '{']);
    let head = &pattern[..end];
    match head.char_indices().next_back() {
        // The last character may also be missing.
        Some((last, _)) if is_repeated => &head[..last],
        _ => head,
    }
}

/// Whether a path is a prefix's own, or of whole segments below it.
pub(crate) fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn intersect_texts(
    one: &BTreeMap<String, Text>,
    two: &BTreeMap<String, Text>,
) -> Result<BTreeMap<String, Text>, Missing> {
    let mut both = one.clone();
    let mut unknown = false;
    for (name, text) in two {
        let Some(found) = both.get_mut(name) else {
            both.insert(name.clone(), text.clone());
            continue;
        };
        match (&*found, text) {
            (one, two) if one == two => {}
            (Text::Exact(_), Text::Exact(_)) => return Err(Missing::Nothing),
            (_, Text::RegularExpression(pattern)) if pattern == PRESENT => {}
            (Text::RegularExpression(pattern), _) if pattern == PRESENT => *found = text.clone(),
            (Text::Exact(value), Text::RegularExpression(pattern)) => {
                if !fits(pattern, value)? {
                    return Err(Missing::Nothing);
                }
            }
            (Text::RegularExpression(pattern), Text::Exact(value)) => {
                if !fits(pattern, value)? {
                    return Err(Missing::Nothing);
                }
                *found = text.clone();
            }
            (Text::RegularExpression(_), Text::RegularExpression(_)) => unknown = true,
        }
    }
    if unknown { Err(Missing::Unknown) } else { Ok(both) }
}

fn texts(texts: &BTreeMap<String, Text>) -> Value {
    let items = texts.iter().map(|(name, text)| match text {
        Text::Exact(value) => json!({"name": name, "value": value}),
        Text::RegularExpression(value) => json!({"name": name, "type": "RegularExpression", "value": value}),
    });
    items.collect::<Vec<_>>().into()
}

/// A text as a regular expression that takes it alone.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
