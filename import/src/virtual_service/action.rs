//! What a rule of `http` does with the requests that it takes: backends, redirect, rewrite, headers, mirrors, CORS. How
//! long and how often, and faults, are in `resilience`.

use policy::form::is_token;
use serde_json::{Map, Value, json};

use crate::output::object;
use crate::tree::Node;
use crate::virtual_service::conditions::{is_field_value, is_path};
use crate::virtual_service::resilience::{self, Resilience};

/// A Service, or what stands in its place, as a rule names it.
#[derive(Clone, Debug)]
pub(crate) struct Destination<'a> {
    pub host: String,
    pub subset: Option<String>,
    pub port: Option<u16>,
    pub node: &'a Node,
}

/// How many backends a rule may have, how much weight one of them, how many edits of headers a filter.
const MAX_BACKENDS: usize = 16;
const MAX_WEIGHT: u64 = 1_000_000;
const MAX_EDITS: usize = 16;

#[derive(Clone, Debug)]
pub(crate) struct Backend<'a> {
    pub destination: Destination<'a>,
    /// `None` where there is only one.
    pub weight: Option<u64>,
    pub filters: Vec<Value>,
}

/// Which requests of a rule are sent elsewhere too.
#[derive(Clone, Debug)]
pub(crate) struct Mirror<'a> {
    pub destination: Destination<'a>,
    /// `percent` or `fraction`; nothing stands for all of them.
    pub share: Map<String, Value>,
}

/// Where the path of a request is changed to.
#[derive(Clone, Debug)]
pub(crate) struct PathRewrite<'a> {
    pub uri: String,
    pub node: &'a Node,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Action<'a> {
    pub backends: Vec<Backend<'a>>,
    pub mirrors: Vec<Mirror<'a>>,
    /// Header edits and CORS, as filters.
    pub filters: Vec<Value>,
    /// The filter of a redirect.
    pub redirect: Option<Value>,
    pub rewrite_host: Option<String>,
    pub rewrite_path: Option<PathRewrite<'a>>,
    pub resilience: Resilience,
}

/// Reads a rule.
pub(crate) fn read(rule: &Node) -> Action<'_> {
    let mut action = Action { resilience: resilience::read(rule), ..Action::default() };
    if let Some(headers) = rule.field("headers") {
        let (filters, host) = header_filters(headers);
        action.filters = filters;
        action.rewrite_host = host;
    }
    if let Some(cors) = rule.field("corsPolicy") {
        action.filters.extend(cors_filter(cors));
    }
    if let Some(redirect) = rule.field("redirect") {
        action.redirect = Some(redirect_filter(redirect));
        return action;
    }
    if let Some(rewrite) = rule.field("rewrite") {
        if let Some(authority) = rewrite.field("authority") {
            action.rewrite_host = hostname(authority).or(action.rewrite_host);
        }
        if let Some(node) = rewrite.field("uri") {
            action.rewrite_path = node.text().map(|uri| PathRewrite { uri: uri.to_owned(), node });
        }
        if let Some(regex) = rewrite.field("uriRegexRewrite") {
            regex.drop("Gateway API rewrites a prefix or a whole path", "rewrite it in the application");
        }
    }
    action.backends = backends(rule.items_at("route"));
    action.mirrors = mirrors(rule);
    action
}

/// The destinations of `route`, in `http`, `tls` and `tcp`.
pub(crate) fn backends(route: &[Node]) -> Vec<Backend<'_>> {
    let single = route.len() == 1;
    let backend = |entry: &'_ Node| -> Option<(Option<u64>, Vec<Value>)> {
        let weight = entry.field("weight").map(|node| {
            let weight = node.number().unwrap_or_default();
            if weight > MAX_WEIGHT {
                node.drop(
                    format!("a weight is {MAX_WEIGHT} at most, which is written"),
                    "divide all of them",
                );
            }
            weight.min(MAX_WEIGHT)
        });
        // One alone takes everything, whatever its weight; of several, no weight is none.
        let weight = (!single).then(|| weight.unwrap_or_default());
        let mut filters = Vec::new();
        if let Some(headers) = entry.field("headers") {
            let (edits, host) = header_filters(headers);
            filters = edits;
            filters.extend(host.map(|host| json!({"type": "URLRewrite", "urlRewrite": {"hostname": host}})));
        }
        Some((weight, filters))
    };
    let mut found = Vec::new();
    for (at, entry) in route.iter().enumerate() {
        if at >= MAX_BACKENDS {
            entry
                .drop(format!("a rule has {MAX_BACKENDS} backends at most"), "put several Services into one");
            continue;
        }
        let Some(destination) = entry.field("destination").and_then(destination) else { continue };
        if let Some((weight, filters)) = backend(entry) {
            found.push(Backend { destination, weight, filters });
        }
    }
    found
}

fn destination(node: &Node) -> Option<Destination<'_>> {
    let host = node.text_at("host")?.to_owned();
    let subset = node.text_at("subset").filter(|subset| !subset.is_empty()).map(str::to_owned);
    let port = node.at(&["port", "number"]).and_then(Node::number).and_then(|port| u16::try_from(port).ok());
    Some(Destination { host, subset, port, node })
}

fn mirrors(rule: &Node) -> Vec<Mirror<'_>> {
    let mut found = Vec::new();
    if let Some(destination) = rule.field("mirror").and_then(destination) {
        let percent = rule.at(&["mirrorPercentage", "value"]).and_then(Node::decimal);
        // Deprecated forms of the same.
        let older = ["mirrorPercent", "mirror_percent"].iter().find_map(|name| rule.field(name)?.decimal());
        let given = rule.field("mirrorPercentage").map(|node| {
            node.fields();
            percent.unwrap_or_default()
        });
        found.extend(mirror(destination, given.or(older)));
    }
    for entry in rule.items_at("mirrors") {
        let Some(destination) = entry.field("destination").and_then(destination) else { continue };
        let percent = entry.field("percentage").map(|node| {
            node.fields();
            node.field("value").and_then(Node::decimal).unwrap_or_default()
        });
        found.extend(mirror(destination, percent));
    }
    found
}

/// `None` where nothing is mirrored.
fn mirror(destination: Destination<'_>, percent: Option<f64>) -> Option<Mirror<'_>> {
    let percent = percent.unwrap_or(100.0);
    let mut share = Map::new();
    if percent <= 0.0 {
        destination.node.note("none of the requests are mirrored: left out", "delete it");
        return None;
    }
    if percent.fract() != 0.0 {
        let numerator = (percent * 10_000.0).round().min(1e6) as u32;
        share.insert("fraction".into(), json!({"numerator": numerator, "denominator": 1_000_000}));
    } else if percent < 100.0 {
        share.insert("percent".into(), (percent as u32).into());
    }
    Some(Mirror { destination, share })
}

/// Filters for `headers`, and the host that they put in the place of the client's.
fn header_filters(headers: &Node) -> (Vec<Value>, Option<String>) {
    let mut filters = Vec::new();
    let mut host = None;
    for (side, kind, field) in [
        ("request", "RequestHeaderModifier", "requestHeaderModifier"),
        ("response", "ResponseHeaderModifier", "responseHeaderModifier"),
    ] {
        let Some(edits) = headers.field(side) else { continue };
        edits.fields();
        let mut set = Vec::new();
        let mut add = Vec::new();
        for (list, operation) in [(&mut set, "set"), (&mut add, "add")] {
            for (name, node) in edits.fields_at(operation) {
                let is_host =
                    side == "request" && ["host", ":authority"].contains(&&*name.to_ascii_lowercase());
                if is_host && operation == "set" {
                    host = hostname(node);
                    continue;
                }
                match list.len() < MAX_EDITS {
                    true => list.extend(header(name, node)),
                    false => node.drop(format!("a filter edits {MAX_EDITS} fields at most"), ""),
                }
            }
        }
        let remove: Vec<Value> =
            edits.items_at("remove").iter().filter_map(|name| Some(name.text()?.into())).collect();
        let modifier = object([("set", set.into()), ("add", add.into()), ("remove", remove.into())]);
        if !modifier.is_empty() {
            filters.push(json!({"type": kind, field: modifier}));
        }
    }
    (filters, host)
}

fn header(name: &str, node: &Node) -> Option<Value> {
    let value = node.text()?;
    if value.contains('%') {
        // Envoy puts the client's address and the like in their place; `%%` is a percent sign.
        let plain = value.replace("%%", "");
        if plain.contains('%') {
            node.drop(
                "its value is a format of Envoy's (%…%), which nobody fills in",
                "give it a fixed value",
            );
            return None;
        }
    }
    let value = value.replace("%%", "%");
    if !is_token(name) || !is_field_value(&value) {
        node.drop("Gateway API does not take a field of this name, or with this value", "use another one");
        return None;
    }
    Some(json!({"name": name, "value": value}))
}

/// A host to be written in the place of another one.
fn hostname(node: &Node) -> Option<String> {
    let host = node.text()?;
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() <= 253 && host.split('.').all(is_label) {
        return Some(host.to_owned());
    }
    node.drop("Gateway API takes the name of a host in lower case here, without a port", "write it so");
    None
}

/// The port of a redirect is said, or is the one of the scheme, or stays: Gateway API has the same three.
fn redirect_filter(redirect: &Node) -> Value {
    let mut filter = Map::new();
    let scheme = redirect.text_at("scheme").filter(|scheme| !scheme.is_empty());
    if let Some(scheme) = scheme {
        filter.insert("scheme".into(), scheme.into());
    }
    if let Some(authority) = redirect.field("authority") {
        authority_of(authority, &mut filter);
    }
    if let Some(port) = redirect.field("port").and_then(Node::number) {
        filter.insert("port".into(), port.into());
    }
    if let Some(derived) = redirect.field("derivePort") {
        match (derived.text(), scheme) {
            (Some("FROM_PROTOCOL_DEFAULT"), Some(_)) | (Some("FROM_REQUEST_PORT"), None) => {}
            _ => derived.drop(
                "without a port, Gateway API takes that of the scheme, or without a scheme that of the request",
                "name the port",
            ),
        }
    }
    if let Some(uri) = redirect.field("uri") {
        match uri.text() {
            Some(text) if text.len() <= 1024 && !text.contains('%') => {
                filter.insert("path".into(), json!({"type": "ReplaceFullPath", "replaceFullPath": text}));
            }
            _ => uri.drop("Gateway API does not take this as a path to redirect to", "write a plain path"),
        }
    }
    if let Some(regex) = redirect.field("uriRegexRewrite") {
        regex.drop("Gateway API replaces a prefix or a whole path", "redirect in the application");
    }
    let code = redirect.field("redirectCode").map_or(301, |code| match code.number() {
        Some(number @ (301 | 302 | 303 | 307 | 308)) => number,
        _ => {
            code.drop("Gateway API redirects by 301, 302, 303, 307 and 308: 301 is written", "choose one");
            301
        }
    });
    filter.insert("statusCode".into(), code.into());
    json!({"type": "RequestRedirect", "requestRedirect": filter})
}

/// `host` or `host:port`.
fn authority_of(authority: &Node, filter: &mut Map<String, Value>) {
    let Some(text) = authority.text() else { return };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.map(str::parse::<u16>);
    if matches!(port, Some(Err(_))) || host.is_empty() || !is_path(&format!("/{host}")) || host.contains('/')
    {
        authority.drop("it is not a host, or a host and a port", "write it as one");
        return;
    }
    filter.insert("hostname".into(), host.to_ascii_lowercase().into());
    if let Some(Ok(port)) = port {
        filter.insert("port".into(), port.into());
    }
}

const CORS_METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"];

/// `None` where no origin is left: the filter would allow nothing.
fn cors_filter(cors: &Node) -> Option<Value> {
    let mut origins: Vec<String> = cors.items_at("allowOrigin").iter().filter_map(origin_of_text).collect();
    origins.extend(cors.items_at("allowOrigins").iter().filter_map(origin));
    if origins.iter().any(|origin| origin == "*") {
        origins = vec!["*".to_owned()];
    }
    let texts = |field: &str, allowed: Option<&[&str]>| -> Vec<String> {
        let items = cors.items_at(field).iter();
        items
            .filter_map(|node| {
                let text = node.text()?;
                let is_taken = allowed.map_or_else(|| is_token(text), |allowed| allowed.contains(&text));
                if !is_taken {
                    node.drop("Gateway API's CORS filter does not take it", "");
                }
                is_taken.then(|| text.to_owned())
            })
            .collect()
    };
    let mut filter = object([
        ("allowOrigins", origins.clone().into()),
        ("allowMethods", texts("allowMethods", Some(CORS_METHODS)).into()),
        ("allowHeaders", texts("allowHeaders", None).into()),
        ("exposeHeaders", texts("exposeHeaders", None).into()),
    ]);
    if let Some(allowed) = cors.field("allowCredentials").and_then(Node::truth) {
        filter.insert("allowCredentials".into(), allowed.into());
    }
    if let Some(node) = cors.field("maxAge") {
        match crate::duration::read(node).map(|age| age.as_secs_f64()) {
            Some(seconds) if seconds >= 1.0 && seconds.fract() == 0.0 && seconds < 2e9 => {
                filter.insert("maxAge".into(), (seconds as u64).into());
            }
            _ => node.drop("Gateway API's CORS filter takes whole seconds, from 1 on", "write them"),
        }
    }
    if let Some(node) = cors.field("unmatchedPreflights")
        && node.text() != Some("IGNORE")
    {
        node.drop("a preflight of another origin is answered by the proxy, without its permission", "");
    }
    if origins.is_empty() {
        cors.drop("no origin of it can be carried, and a filter without one allows none", "name the origins");
        return None;
    }
    Some(json!({"type": "CORS", "cors": filter}))
}

/// `*`, or `scheme://host[:port]`, in which the first labels may be `*`.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return text == "*" };
    let (host, port) = rest.split_once(':').unwrap_or((rest, "0"));
    let host = host.strip_prefix("*.").unwrap_or(host);
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    matches!(scheme, "http" | "https")
        && (host == "*" || !host.is_empty() && host.bytes().all(is_label))
        && port.parse::<u16>().is_ok()
        && text.len() <= 253
}

fn origin_of_text(node: &Node) -> Option<String> {
    let text = node.text()?;
    if !is_origin(text) {
        node.drop("Gateway API does not take it as an origin", "write scheme://host[:port]");
        return None;
    }
    Some(text.to_owned())
}

/// `{exact: …}`; of regular expressions those which mean `*.` before a domain.
fn origin(node: &Node) -> Option<String> {
    if let Some(exact) = node.field("exact") {
        return origin_of_text(exact);
    }
    let regex = node.text_at("regex").map(|regex| regex.trim_start_matches('^').trim_end_matches('$'));
    let wildcard = regex.and_then(|regex| {
        let (scheme, rest) = regex.split_once("://")?;
        let domain = rest.strip_prefix(r".*\.").or_else(|| rest.strip_prefix(r".+\."))?.replace(r"\.", ".");
        let is_plain = domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte));
        let is_scheme = scheme == "http" || scheme == "https";
        (is_plain && is_scheme).then(|| format!("{scheme}://*.{domain}"))
    });
    let any = regex.filter(|regex| [".*", ".+", "*"].contains(regex)).map(|_| "*".to_owned());
    let found = wildcard.or(any).or_else(|| node.text_at("prefix").filter(|p| *p == "*").map(str::to_owned));
    if found.is_none() {
        node.drop(
            "Gateway API takes origins exactly, or with *. in the place of the first labels",
            "list them, or write https://*.example.com",
        );
    }
    found
}
