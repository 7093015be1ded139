//! Whether a route holds at each of its parents, and a policy at each of its targets. The conditions of Gateway API (GEP-1364,
//! GEP-713) and the problems are made from the same verdicts.

use crate::{
    Condition, Entry, Status,
    backends::{self, carries, declared},
    conflicts,
    findings::{ConditionReason, Effect, Finding},
    policies,
    routes::{group, means},
    rules::{self, Rules, left_out},
};
use control_index::{Index, Key, Kind, Policy, Route, Service, Target, manifest::ParentRef};

/// Why something does not hold where it says that it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub reason: ConditionReason,
    /// The field that is wrong.
    pub field: String,
    /// What is wrong, and what to do about it.
    pub what: String,
}

/// The status of a route, one entry a parent that is a Service, or of a policy, one entry a target. `None` when it is not
/// there, or when it is none of this mesh's business.
pub fn status(index: &Index, key: &Key) -> Option<Status> {
    if key.kind.is_route() {
        let route = index.route(key)?;
        let rules = rules::read(index, route);
        let entries = parents(index, route)
            .map(|(at, parent, _)| at_parent(index, route, &rules, at, parent))
            .collect();
        return Some(Status { entries });
    }
    let policy = index.policy(key).filter(|_| key.kind != Kind::BackendTlsPolicy)?;
    let entries = policy.targets().iter().map(|target| at_target(index, policy, target)).collect();
    Some(Status { entries })
}

/// The parents of a route that are Services, whether they are there or not, and their places.
pub(crate) fn parents<'a>(
    index: &'a Index,
    route: &'a Route,
) -> impl Iterator<Item = (usize, &'a ParentRef, Option<&'a Service>)> {
    route.parent_refs().iter().enumerate().filter_map(move |(at, parent)| {
        let name = route.parent_service(parent)?;
        Some((at, parent, index.service(&name)))
    })
}

/// Whether a route holds at a parent, and for whom.
pub(crate) fn accepts(
    index: &Index,
    route: &Route,
    rules: &Rules,
    at: usize,
    parent: &ParentRef,
) -> Result<String, Refusal> {
    let refuse = |reason, field: &str, what| {
        Err(Refusal { reason, field: format!("spec.parentRefs[{at}]{field}"), what })
    };
    let name = route.parent_service(parent).unwrap_or_else(|| policy::ServiceName::new("", ""));
    let Some(service) = index.service(&name) else {
        let what = format!("there is no Service {}/{}", name.namespace, name.name);
        return refuse(ConditionReason::NoMatchingParent, ".name", what);
    };
    let ports: Vec<_> = service.ports.iter().filter(|port| means(parent, port)).collect();
    if ports.is_empty() {
        let (field, wanted) = match (parent.port, &parent.section_name) {
            (Some(port), _) => (".port", format!("TCP port {port}")),
            (None, Some(section)) => (".sectionName", format!("TCP port named {section:?}")),
            (None, None) => (".name", "TCP port".into()),
        };
        let what = format!(
            "Service {}/{} has no {wanted}; its ports are {}",
            name.namespace,
            name.name,
            backends::ports(service)
        );
        return refuse(ConditionReason::NoMatchingParent, field, what);
    }
    if service.addresses.is_empty() {
        let what = format!(
            "Service {}/{} has no cluster IP: who dials it dials its Pods, for which no routes hold",
            name.namespace, name.name
        );
        return refuse(ConditionReason::NoMatchingParent, ".name", what);
    }
    if let Some(reason) = rules.refused {
        let why = rules.findings.iter().find(|finding| !matches!(finding.effect, Effect::Unresolved(_)));
        let what = why.map(ToString::to_string).unwrap_or_default();
        return Err(Refusal { reason, field: String::new(), what });
    }
    let carried: Vec<_> =
        ports.into_iter().filter(|port| carries(route.key.kind, declared(index, service, port))).collect();
    if carried.is_empty() {
        let what = format!(
            "Service {}/{} says of the port that it speaks something else (appProtocol, or weft.mesh/opaque-ports); \
             a {} never sees its traffic",
            name.namespace, name.name, route.key.kind
        );
        return refuse(ConditionReason::UnsupportedProtocol, "", what);
    }
    let mut winner = None;
    for port in &carried {
        let group = group(index, service, port, &route.key.namespace);
        if group.iter().any(|one| one.route.key == route.key) {
            return Ok(whom(route, &name));
        }
        winner = winner.or(group.first().map(|one| one.route.key.clone()));
    }
    let what = match winner {
        Some(winner) => {
            format!("{winner} holds for the same port, and goes before it; take one of them away")
        }
        None => "another route holds for the same port".into(),
    };
    refuse(ConditionReason::Conflicted, "", what)
}

/// Whether a policy holds at a target.
pub(crate) fn governs(index: &Index, policy: &Policy, target: &Target) -> Result<String, Refusal> {
    if policy.invalid {
        let problems = index.problems(&policy.key);
        let what = problems.iter().map(|problem| format!("{}: {}", problem.field, problem.what));
        let what = what.collect::<Vec<_>>().join("; ");
        return Err(Refusal { reason: ConditionReason::Invalid, field: String::new(), what });
    }
    if let Some((at, word)) = policies::unknown_reasons(policy).next() {
        let what =
            format!("{word:?} is no reason; weft explain reason lists them all; the policy is left out");
        let field = format!("spec.retry.reasons[{at}]");
        return Err(Refusal { reason: ConditionReason::Invalid, field, what });
    }
    let field = format!("spec.targetRefs[{}]", target.at);
    if let Some((part, what)) = missing(index, policy, target) {
        let field = format!("{field}.{part}");
        return Err(Refusal { reason: ConditionReason::TargetNotFound, field, what });
    }
    match conflicts::find(index, policy, target) {
        Some(what) => Err(Refusal { reason: ConditionReason::Conflicted, field, what }),
        None => Ok(format!("it holds for {}", named(target))),
    }
}

/// The part of a target that is not there.
fn missing(index: &Index, policy: &Policy, target: &Target) -> Option<(&'static str, String)> {
    let key = &target.object;
    let not_there = || Some(("name", format!("there is no {key}")));
    let (what, names): (&str, Vec<&str>) = match key.kind {
        Kind::Namespace if key.name == policy.key.namespace => return None,
        Kind::Namespace => {
            let own = &policy.key.namespace;
            return Some(("name", format!("a policy governs the Namespace that it is in, which is {own}")));
        }
        Kind::Service => {
            let Some(service) = index.service(&policy::ServiceName::new(&key.namespace, &key.name)) else {
                return not_there();
            };
            ("TCP port", service.ports.iter().map(|port| port.name.as_str()).collect())
        }
        _ => {
            let Some(route) = index.route(key) else { return not_there() };
            ("rule", route.rule_names())
        }
    };
    let section = target.section.as_deref()?;
    if names.contains(&section) {
        return None;
    }
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    let known =
        if names.is_empty() { "none has a name".into() } else { format!("there are {}", names.join(", ")) };
    Some(("sectionName", format!("{key} has no {what} named {section:?}; {known}")))
}

fn at_parent(index: &Index, route: &Route, rules: &Rules, at: usize, parent: &ParentRef) -> Entry {
    let accepted = accepts(index, route, rules, at, parent);
    let mut conditions = vec![condition("Accepted", accepted.clone(), ConditionReason::Accepted)];
    let unresolved: Vec<&Finding> =
        rules.findings.iter().filter(|finding| matches!(finding.effect, Effect::Unresolved(_))).collect();
    let resolved = match unresolved.first().map(|first| first.effect) {
        Some(Effect::Unresolved(reason)) => {
            Err(Refusal { reason, field: String::new(), what: listed(&unresolved) })
        }
        _ => Ok("all references lead to something".into()),
    };
    conditions.push(condition("ResolvedRefs", resolved, ConditionReason::ResolvedRefs));
    let left_out = left_out(&rules.findings);
    if accepted.is_ok() && !left_out.is_empty() {
        conditions.push(partially_invalid(rules));
    }
    conditions.extend(affected(index, route, Kind::TrafficPolicy, "weft.mesh/TrafficPolicyAffected"));
    conditions.extend(affected(index, route, Kind::BackendPolicy, "weft.mesh/BackendPolicyAffected"));
    Entry { about: parent.clone(), conditions }
}

/// The message begins as Gateway API asks (RouteConditionPartiallyInvalid).
fn partially_invalid(rules: &Rules) -> Condition {
    let dropped: Vec<(usize, ConditionReason, &Finding)> = rules
        .findings
        .iter()
        .filter_map(|finding| match finding.effect {
            Effect::Dropped(rule, reason) => Some((rule, reason, finding)),
            _ => None,
        })
        .collect();
    let reason = dropped.first().map_or(ConditionReason::UnsupportedValue, |(_, reason, _)| *reason);
    let findings: Vec<&Finding> = dropped.iter().map(|(_, _, finding)| *finding).collect();
    Condition::new("PartiallyInvalid", true, reason.as_str(), format!("Dropped Rule: {}", listed(&findings)))
}

/// Policies say something about the route (GEP-713).
fn affected(index: &Index, route: &Route, kind: Kind, type_: &'static str) -> Option<Condition> {
    let all = index.policies_on(&route.key).filter(|policy| policy.key.kind == kind && !policy.invalid);
    let names: Vec<String> = all.map(|policy| policy.key.to_string()).collect();
    (!names.is_empty()).then(|| Condition::new(type_, true, "PolicyAffected", names.join(", ")))
}

fn at_target(index: &Index, policy: &Policy, target: &Target) -> Entry {
    let key = &target.object;
    let about = ParentRef {
        group: Some(key.kind.group().into()),
        kind: Some(key.kind.as_str().into()),
        namespace: key.kind.is_namespaced().then(|| key.namespace.to_string()),
        name: key.name.to_string(),
        section_name: target.section.as_deref().map(Into::into),
        port: None,
    };
    let verdict = governs(index, policy, target);
    let mut conditions = vec![condition("Accepted", verdict.clone(), ConditionReason::Accepted)];
    if verdict.is_ok() {
        let told = Ok("proxies are told when they ask".into());
        conditions.push(condition("Programmed", told, ConditionReason::Programmed));
    }
    Entry { about, conditions }
}

fn condition(type_: &'static str, verdict: Result<String, Refusal>, good: ConditionReason) -> Condition {
    match verdict {
        Ok(message) => Condition::new(type_, true, good.as_str(), message),
        Err(Refusal { reason, field, what }) if field.is_empty() => {
            Condition::new(type_, false, reason.as_str(), what)
        }
        Err(Refusal { reason, field, what }) => {
            Condition::new(type_, false, reason.as_str(), format!("{field}: {what}"))
        }
    }
}

fn listed(findings: &[&Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn whom(route: &Route, service: &policy::ServiceName) -> String {
    match route.key.namespace == service.namespace {
        true => format!("it holds for all who dial {service}"),
        false => format!("it holds for those in {} who dial {service}", route.key.namespace),
    }
}

/// A target as people read it.
pub(crate) fn named(target: &Target) -> String {
    match &target.section {
        Some(section) => format!("{section:?} of {}", target.object),
        None => target.object.to_string(),
    }
}
