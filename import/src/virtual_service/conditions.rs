//! Istio's `match` blocks as matches of Gateway API. A block that asks for something which cannot be asked for is left
//! out as a whole: without that part it would take requests that it must not take.

use std::collections::BTreeMap;

use policy::form::is_token;

use crate::tree::Node;
use crate::virtual_service::matches::{MAX_TEXTS, Match, PRESENT, Path, PathKind, Text, escape};

/// A match, and where it holds.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    pub matched: Match,
    /// The port that was dialled, or of the gateway.
    pub port: Option<u16>,
    /// The clients' namespace.
    pub namespace: Option<String>,
    /// Where it holds, of the VirtualService's gateways; empty: at all of them.
    pub gateways: Vec<String>,
    /// Where it stands in the input.
    pub node: &'a Node,
}

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The matches of a rule of `http`; a rule without any takes everything.
pub(crate) fn candidates<'a>(rule: &'a Node) -> Vec<Candidate<'a>> {
    let blocks = rule.items_at("match");
    if blocks.is_empty() {
        return vec![Candidate {
            matched: Match::default(),
            port: None,
            namespace: None,
            gateways: Vec::new(),
            node: rule,
        }];
    }
    let found: Vec<_> = blocks.iter().flat_map(candidate).collect();
    if found.is_empty() {
        rule.drop("none of its matches can be carried", "write a rule for what it is to take");
    }
    found
}

/// A block that is left out, since a part of it cannot be carried.
fn leave_out(block: &Node, part: &str, why: &str, remedy: &str) {
    block.drop(format!("{part}: {why}, so that this match is left out as a whole"), remedy);
}

/// The matches that a block becomes: several where it names several methods, none where it cannot be carried.
fn candidate(block: &Node) -> Vec<Candidate<'_>> {
    let mut whole = true;
    for (field, why, remedy) in UNKNOWN_CONDITIONS {
        let is_said =
            |node: &Node| !node.children().is_empty() || node.text().is_some_and(|text| !text.is_empty());
        if block.field(field).is_some_and(is_said) {
            leave_out(block, field, why, remedy);
            whole = false;
        }
    }
    if let Some(name) = block.field("name") {
        name.drop("it names the match in Envoy's log alone", "");
    }
    if let Some(prefix) = block.field("statPrefix") {
        prefix.drop("it names a metric of Envoy's", "metrics have the route's and the rule's name");
    }
    let path = path(block);
    let methods = methods(block);
    let headers = texts(block, "headers");
    let query = texts(block, "queryParams");
    let (Some(path), Some(methods), Some(headers), Some(query), true) =
        (path, methods, headers, query, whole)
    else {
        return Vec::new();
    };
    let port = block.field("port").and_then(Node::number).and_then(|port| u16::try_from(port).ok());
    let namespace = block.text_at("sourceNamespace").filter(|text| !text.is_empty()).map(str::to_owned);
    let gateways: Vec<String> =
        block.items_at("gateways").iter().filter_map(Node::text).map(str::to_owned).collect();
    let candidate = |method: Option<String>| Candidate {
        matched: Match { path: path.clone(), method, headers: headers.clone(), query: query.clone() },
        port,
        namespace: namespace.clone(),
        gateways: gateways.clone(),
        node: block,
    };
    methods.into_iter().map(candidate).collect()
}

/// What Gateway API's matches do not look at.
const UNKNOWN_CONDITIONS: [(&str, &str, &str); 4] = [
    (
        "withoutHeaders",
        "no match of Gateway API asks that a header is not there",
        "write a rule before it that takes requests with that header",
    ),
    (
        "sourceLabels",
        "a route does not look at the labels of a client",
        "move these clients to a namespace of their own, and give it a route of its own",
    ),
    ("scheme", "a route does not look at the scheme of a request", "bind it to listeners of one protocol"),
    (
        "authority",
        "a route does not look at the authority that a request names",
        "write a route for that host, or use hostnames at a gateway",
    ),
];

/// The comparison in `{exact: …}`, `{prefix: …}` or `{regex: …}`.
fn comparison(node: &Node) -> Option<(&str, &str)> {
    ["exact", "prefix", "regex"].into_iter().find_map(|kind| Some((kind, node.text_at(kind)?)))
}

/// The path, inside of `Some`; `None` where it cannot be carried.
#[allow(
    clippy::option_option,
    reason = "no condition, and one that cannot be carried, are different answers"
)]
fn path(block: &Node) -> Option<Option<Path>> {
    let ignore_case = block.field("ignoreUriCase").and_then(Node::truth).unwrap_or_default();
    let Some(uri) = block.field("uri") else { return Some(None) };
    let Some((kind, value)) = comparison(uri) else {
        leave_out(block, "uri", "it is not one of exact, prefix and regex", "");
        return None;
    };
    let regex = |value: String| {
        if value.len() <= 1024 && policy::Pattern::new(&value).is_ok() {
            return Some(Some(Path { kind: PathKind::RegularExpression, value }));
        }
        leave_out(
            block,
            "uri",
            "it is no regular expression, or one that is too large",
            "write it in RE2's syntax",
        );
        None
    };
    match (kind, ignore_case) {
        ("regex", true) => return regex(format!("(?i){value}")),
        ("regex", false) if matches!(value, ".*" | "/.*") => return Some(None),
        ("regex", false) => return regex(value.to_owned()),
        ("exact", true) => return regex(format!("(?i){}", escape(value))),
        ("prefix", true) if value != "/" => return regex(format!("(?i){}.*", escape(value))),
        _ => {}
    }
    if !is_path(value) {
        let remedy = "write it normalised: from a slash on, without //, /./, /../, %2F and #";
        leave_out(block, "uri", "Gateway API does not take this as a path", remedy);
        return None;
    }
    let kind = if kind == "exact" { PathKind::Exact } else { PathKind::Prefix };
    if kind == PathKind::Prefix && value != "/" {
        let segment = value.trim_end_matches('/');
        match value.ends_with('/') {
            true => uri.note(format!("a prefix is compared by segments: {segment} itself matches too"), ""),
            false => uri.note(
                format!(
                    "a prefix is compared by segments: {segment}/x matches, {segment}x does not any more"
                ),
                "",
            ),
        }
    }
    let value = if kind == PathKind::Prefix { value.trim_end_matches('/') } else { value };
    Some((!value.is_empty()).then(|| Path { kind, value: value.to_owned() }))
}

/// What Gateway API takes as a path to be compared exactly or as a prefix.
pub(crate) fn is_path(value: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    let lower = value.to_ascii_lowercase();
    value.starts_with('/')
        && value.bytes().all(is_valid)
        && !["//", "/./", "/../", "%2f", "#"].iter().any(|part| lower.contains(part))
        && !value.ends_with("/..")
        && !value.ends_with("/.")
        && value.len() <= 1024
}

/// The methods, one a match; `[None]` for any of them. `None` where they cannot be carried.
fn methods(block: &Node) -> Option<Vec<Option<String>>> {
    let Some(method) = block.field("method") else { return Some(vec![None]) };
    let named: Vec<&str> = match comparison(method) {
        Some(("exact", value)) => vec![value],
        Some(("regex", value)) => {
            value.trim_start_matches(['^', '(']).trim_end_matches([')', '$']).split('|').collect()
        }
        Some((_, value)) => METHODS.iter().copied().filter(|known| known.starts_with(value)).collect(),
        None => Vec::new(),
    };
    if named.is_empty() || named.iter().any(|name| !METHODS.contains(name)) {
        let why = "Gateway API matches the methods of RFC 9110 and PATCH";
        leave_out(block, "method", why, "name one of them, or several as GET|POST");
        return None;
    }
    Some(named.into_iter().map(|name| Some(name.to_owned())).collect())
}

/// Headers or query parameters; `None` where one of them cannot be carried.
fn texts(block: &Node, field: &str) -> Option<BTreeMap<String, Text>> {
    let mut found = BTreeMap::new();
    for (name, node) in block.fields_at(field) {
        let text = match comparison(node) {
            Some(("exact", value)) => Text::Exact(value.to_owned()),
            Some(("prefix", value)) => Text::RegularExpression(format!("{}.*", escape(value))),
            Some((_, value)) => Text::RegularExpression(value.to_owned()),
            None if node.fields().is_empty() => Text::RegularExpression(PRESENT.to_owned()),
            None => {
                leave_out(block, &format!("{field}.{name}"), "it is not one of exact, prefix and regex", "");
                return None;
            }
        };
        // The pseudo-headers of HTTP/2, which Istio takes too, are none.
        if !is_token(name) || !is_value(&text, field) {
            let why = "Gateway API does not match what has this name, or this value";
            leave_out(block, &format!("{field}.{name}"), why, "match the request by something else");
            return None;
        }
        let name = if field == "headers" { name.to_ascii_lowercase() } else { name.clone() };
        found.insert(name, text);
    }
    if found.len() > MAX_TEXTS {
        leave_out(
            block,
            field,
            "Gateway API matches 16 of them at most",
            "match the request by something else",
        );
        return None;
    }
    Some(found)
}

/// What Gateway API takes as a value, and the proxies as a regular expression.
fn is_value(text: &Text, field: &str) -> bool {
    let (value, is_pattern) = match text {
        Text::Exact(value) => (value, true),
        Text::RegularExpression(value) => (value, policy::Pattern::new(value).is_ok()),
    };
    let fits =
        if field == "headers" { is_field_value(value) } else { !value.is_empty() && value.len() <= 1024 };
    fits && is_pattern
}

/// Values that Gateway API takes: visible characters, with single blanks between them.
pub(crate) fn is_field_value(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 4096
        && value.bytes().all(|byte| (0x21..=0x7e).contains(&byte) || byte == b' ' || byte == b'\t')
        && !value.starts_with([' ', '\t'])
        && !value.ends_with([' ', '\t'])
        && !["  ", "\t\t", " \t", "\t "].iter().any(|blanks| value.contains(blanks))
}
