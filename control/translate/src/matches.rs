//! The matches of HTTPRoutes and GRPCRoutes, in the form in which requests are held against them.

use crate::findings::{ConditionReason, Notes};
use control_index::manifest;
use policy::{
    Match, Pattern, TextMatch, ValueMatch,
    form::{is_path, is_token},
    path::normal,
};
use std::sync::Arc;

/// The methods that a match may ask for (HTTPMethod).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The matches of an HTTPRoute's rule. None is one for every path.
pub(crate) fn http(matches: &[manifest::HttpMatch], notes: &mut Notes<'_>) -> Vec<Match> {
    if matches.is_empty() {
        return vec![Match::default()];
    }
    let read = |(at, one): (usize, &manifest::HttpMatch)| {
        let mut notes = notes.at(format_args!("matches[{at}]"));
        let path = one.path.as_ref().map(|path| http_path(path, &mut notes.at("path")));
        if let Some(method) = one.method.as_deref().filter(|method| !METHODS.contains(method)) {
            notes.at("method").reject(format!("{method:?} is no method; known are {}", METHODS.join(", ")));
        }
        Some(Match {
            path: path.unwrap_or_else(|| Some(policy::PathMatch::default()))?,
            method: one.method.as_deref().map(Arc::from),
            headers: values("headers", &one.headers, true, &mut notes),
            query: values("queryParams", &one.query_params, false, &mut notes),
        })
    };
    matches.iter().enumerate().filter_map(read).collect()
}

/// The matches of a GRPCRoute's rule. None is one for every call.
pub(crate) fn grpc(matches: &[manifest::GrpcMatch], notes: &mut Notes<'_>) -> Vec<Match> {
    let any = || policy::PathMatch::Rpc { service: None, method: None };
    if matches.is_empty() {
        return vec![Match { path: any(), ..Match::default() }];
    }
    let read = |(at, one): (usize, &manifest::GrpcMatch)| {
        let mut notes = notes.at(format_args!("matches[{at}]"));
        let path = one.method.as_ref().map(|method| call(method, &mut notes.at("method")));
        Match {
            path: path.unwrap_or_else(any),
            headers: values("headers", &one.headers, true, &mut notes),
            ..Match::default()
        }
    };
    matches.iter().enumerate().map(read).collect()
}

/// Is it by a prefix of the path that each of them holds? Only such a prefix can be replaced.
pub(crate) fn are_prefixes(matches: &[Match]) -> bool {
    matches.iter().all(|one| matches!(one.path, policy::PathMatch::Prefix(_)))
}

/// Values to compare are made normal as the paths of requests are.
fn http_path(path: &manifest::PathMatch, notes: &mut Notes<'_>) -> Option<policy::PathMatch> {
    let value = path.value.as_deref().unwrap_or("/");
    let text = || -> Arc<str> { String::from_utf8_lossy(&normal(value.as_bytes())).into() };
    let kind = path.type_.as_deref().unwrap_or("PathPrefix");
    if matches!(kind, "Exact" | "PathPrefix") && !is_path(value) {
        let what = format!("{value:?} is no path that begins with a slash and has no query");
        notes.at("value").refuse(ConditionReason::UnsupportedValue, what);
    }
    match kind {
        "Exact" => Some(policy::PathMatch::Exact(text())),
        "PathPrefix" => Some(policy::PathMatch::Prefix(text())),
        "RegularExpression" => pattern(value, &mut notes.at("value")).map(policy::PathMatch::Regex),
        other => {
            notes.at("type").reject(format!(
                "{other:?} is no type of path match; known are Exact, PathPrefix, RegularExpression"
            ));
            None
        }
    }
}

fn call(method: &manifest::GrpcMethodMatch, notes: &mut Notes<'_>) -> policy::PathMatch {
    let written = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mut part = |field: &str, text: &Option<String>| {
        text_match(method.type_.as_deref(), &written(text)?, field, notes)
    };
    policy::PathMatch::Rpc {
        service: part("service", &method.service),
        method: part("method", &method.method),
    }
}

/// Of several values of one name the first is taken; the others say nothing (HTTPHeaderMatch, HTTPQueryParamMatch).
fn values(
    list: &str,
    values: &[manifest::ValueMatch],
    are_headers: bool,
    notes: &mut Notes<'_>,
) -> Vec<ValueMatch> {
    let mut taken: Vec<ValueMatch> = Vec::new();
    for (at, one) in values.iter().enumerate() {
        let name = if are_headers { one.name.to_ascii_lowercase() } else { one.name.clone() };
        let mut notes = notes.at(format_args!("{list}[{at}]"));
        if name.is_empty() || (are_headers && !is_token(&name)) {
            let what = format!("{name:?} is no name");
            notes.at("name").refuse(ConditionReason::UnsupportedValue, what);
        }
        if taken.iter().any(|held| *held.name == *name) {
            continue;
        }
        let value = text_match(one.type_.as_deref(), &one.value, "value", &mut notes);
        taken.extend(value.map(|value| ValueMatch { name: name.into(), value }));
    }
    taken
}

fn text_match(kind: Option<&str>, text: &str, field: &str, notes: &mut Notes<'_>) -> Option<TextMatch> {
    match kind.unwrap_or("Exact") {
        "Exact" => Some(TextMatch::Exact(text.into())),
        "RegularExpression" => pattern(text, &mut notes.at(field)).map(TextMatch::Regex),
        other => {
            notes
                .at("type")
                .reject(format!("{other:?} is no type of match; known are Exact, RegularExpression"));
            None
        }
    }
}

fn pattern(text: &str, notes: &mut Notes<'_>) -> Option<Pattern> {
    let pattern = Pattern::new(text);
    pattern.map_err(|error| notes.refuse(ConditionReason::UnsupportedValue, error.to_string())).ok()
}
