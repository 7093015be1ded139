//! VirtualService → routes and TrafficPolicies. Its story: where it holds (`scope`), which requests each rule takes
//! (`conditions`, `matches`), that rules keep their order (`order`), what they do (`action`, `resilience`), and how
//! all of it is written (`http`; `bytes` for `tls` and `tcp`).

mod action;
mod bytes;
mod conditions;
mod http;
pub(crate) mod matches;
mod order;
mod resilience;
mod scope;

use crate::object::Object;
use crate::output::Output;
use crate::tree::Node;
use crate::virtual_service::action::{Action, read};
use crate::virtual_service::conditions::{Candidate, candidates};
use crate::virtual_service::matches::Overlap;
use crate::virtual_service::scope::Holding;
use crate::world::World;

/// A rule of `http`: the requests that it takes, and what it does with them.
#[derive(Clone, Debug)]
pub(crate) struct Draft<'a> {
    /// Where it stands in the input.
    pub node: &'a Node,
    pub name: Option<String>,
    pub candidates: Vec<Candidate<'a>>,
    pub action: Action<'a>,
}

/// Writes what a VirtualService becomes.
pub(crate) fn import(world: &World<'_>, object: &Object, output: &mut Output) {
    let Some(spec) = object.spec() else { return };
    if world.is_delegate(object) && spec.items_at("hosts").is_empty() {
        // Its rules are read with those of the VirtualService that hands on to it.
        if let Some(node) = spec.field("exportTo") {
            node.drop("a delegate is written where its root is", "");
        }
        return;
    }
    let Some(holding) = Holding::read(world, object, spec) else { return };
    let drafts: Vec<Draft<'_>> =
        spec.items_at("http").iter().flat_map(|rule| drafts(world, object, rule)).collect();
    http::write(world, object, &holding, &drafts, output);
    bytes::write(world, object, &holding, spec, output);
}

/// A rule becomes one, or those of its delegate.
fn drafts<'a>(world: &World<'a>, object: &Object, rule: &'a Node) -> Vec<Draft<'a>> {
    let draft = Draft {
        node: rule,
        name: rule.text_at("name").filter(|name| !name.is_empty()).map(str::to_owned),
        candidates: candidates(rule),
        action: read(rule),
    };
    let Some(delegate) = rule.field("delegate") else {
        if draft.action.redirect.is_none()
            && draft.action.backends.is_empty()
            && draft.action.resilience.direct_response.is_empty()
        {
            match rule.field("directResponse") {
                Some(_) => rule.drop("a response has a status from 200 to 599", "choose one"),
                None => {
                    rule.drop("it has no route, redirect, directResponse or delegate that can be read", "")
                }
            }
            return Vec::new();
        }
        return vec![draft];
    };
    let name = delegate.text_at("name").unwrap_or_default();
    let namespace = delegate.text_at("namespace").unwrap_or(&object.namespace);
    let found = world.virtual_service(namespace, name).and_then(Object::spec);
    let Some(found) = found else {
        rule.drop(
            format!("VirtualService {namespace}/{name}, which it hands on to, is not in the input"),
            "import both together",
        );
        return Vec::new();
    };
    found.items_at("http").iter().map(|inner| handed_on(&draft, inner)).collect()
}

/// A rule of a delegate takes what its root and itself take, and has from the root what it does not say itself.
fn handed_on<'a>(root: &Draft<'a>, inner: &'a Node) -> Draft<'a> {
    let mut both = Vec::new();
    for outer in &root.candidates {
        for candidate in candidates(inner) {
            if candidate.port.is_some() && outer.port.is_some() && candidate.port != outer.port {
                continue;
            }
            match outer.matched.intersect(&candidate.matched) {
                Overlap::Nothing => {}
                Overlap::Unknown => candidate.node.drop(
                    "no match says what this and the match of the rule that hands on both take: left out",
                    "write the match out where it is handed on",
                ),
                Overlap::Some(matched) => both.push(Candidate {
                    matched,
                    port: candidate.port.or(outer.port),
                    namespace: candidate.namespace.clone().or_else(|| outer.namespace.clone()),
                    gateways: outer.gateways.clone(),
                    node: candidate.node,
                }),
            }
        }
    }
    let mut action = read(inner);
    let outer = &root.action;
    let own = &mut action.resilience;
    let given = &outer.resilience;
    own.request = own.request.take().or_else(|| given.request.clone());
    if own.attempts.is_none() {
        own.attempts = given.attempts;
        own.codes.clone_from(&given.codes);
        own.grpc_codes.clone_from(&given.grpc_codes);
        own.reasons.clone_from(&given.reasons);
        own.backoff.clone_from(&given.backoff);
        own.backend_request.clone_from(&given.backend_request);
        own.other_host = given.other_host;
    }
    if own.fault.is_empty() {
        own.fault.clone_from(&given.fault);
    }
    for filter in &outer.filters {
        if !action.filters.iter().any(|own| own["type"] == filter["type"]) {
            action.filters.push(filter.clone());
        }
    }
    if action.mirrors.is_empty() {
        action.mirrors.clone_from(&outer.mirrors);
    }
    if action.redirect.is_none() {
        action.rewrite_host = action.rewrite_host.or_else(|| outer.rewrite_host.clone());
        action.rewrite_path = action.rewrite_path.or_else(|| outer.rewrite_path.clone());
    }
    let name = inner.text_at("name").filter(|name| !name.is_empty()).map(str::to_owned);
    Draft { node: inner, name: name.or_else(|| root.name.clone()), candidates: both, action }
}
