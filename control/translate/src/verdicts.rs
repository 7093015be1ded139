//! Whether a route holds at each of its parents, and a policy at each of its targets. The conditions of Gateway API (GEP-1364,
//! GEP-713) and the problems are made from the same verdicts.

use crate::{
    Condition, Entry, Status, backend_tls,
    backends::{self, carries, declared},
    conflicts,
    findings::{ConditionReason, Effect, Finding},
    policies,
    routes::{group, means, names},
    rules::{self, Rules},
};
use control_index::{Index, Key, Kind, Policy, Port, Route, Service, Target, manifest::ParentRef};
use policy::ServiceName;

/// Findings that the message of a condition lists.
const SHOWN: usize = 8;

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
        let entries = parents(route).map(|parent| at_parent(index, route, &rules, &parent)).collect();
        return Some(Status { entries });
    }
    let policy = index.policy(key)?;
    let entries = policy.targets().iter().map(|target| at_target(index, policy, target)).collect();
    Some(Status { entries })
}

/// A parent of a route that is a Service, whether it is there or not.
pub(crate) struct Parent<'a> {
    /// Where it stands in `spec.parentRefs`.
    at: usize,
    written: &'a ParentRef,
    name: ServiceName,
}

/// The parents of a route that are Services.
pub(crate) fn parents(route: &Route) -> impl Iterator<Item = Parent<'_>> {
    route.parent_refs().iter().enumerate().filter_map(|(at, written)| {
        let name = route.parent_service(written)?;
        Some(Parent { at, written, name })
    })
}

/// Whether a route holds at a parent, and for whom.
pub(crate) fn accepts(
    index: &Index,
    route: &Route,
    rules: &Rules,
    parent: &Parent<'_>,
) -> Result<String, Refusal> {
    let (service, ports) = dialled(index, parent)?;
    if let Some(finding) = &rules.refused {
        return Err(Refusal { reason: finding.reason(), field: String::new(), what: finding.to_string() });
    }
    let name = &parent.name;
    let carried: Vec<&Port> =
        ports.into_iter().filter(|port| carries(route.key.kind, declared(index, service, port))).collect();
    if carried.is_empty() {
        let what = format!(
            "Service {}/{} says of the port that it speaks something else (appProtocol, or weft.mesh/opaque-ports); \
             {}s never see its traffic",
            name.namespace, name.name, route.key.kind
        );
        return parent.refuse(ConditionReason::UnsupportedProtocol, "", what);
    }
    let mut winner = None;
    let mut held = Vec::new();
    for port in &carried {
        if is_unrivalled(index, route, service, port) {
            held.push(port.number.to_string());
            continue;
        }
        let group = group(index, service, port, &route.key.namespace);
        match group.iter().any(|one| one.route.key == route.key) {
            true => held.push(port.number.to_string()),
            false => winner = winner.or(group.first().map(|one| one.route.key.to_string())),
        }
    }
    if !held.is_empty() {
        return Ok(whom(route, name, &held.join(", ")));
    }
    let winner = winner.unwrap_or_else(|| "another route".into());
    let what = format!("{winner} holds for the same port, and goes before it; take one of them away");
    parent.refuse(ConditionReason::Conflicted, "", what)
}

/// The Service and the ports that a parent means.
fn dialled<'a>(index: &'a Index, parent: &Parent<'_>) -> Result<(&'a Service, Vec<&'a Port>), Refusal> {
    let ServiceName { namespace, name } = &parent.name;
    let Some(service) = index.service(&parent.name) else {
        let what = format!("there is no Service {namespace}/{name}");
        return parent.refuse(ConditionReason::NoMatchingParent, ".name", what);
    };
    let ports: Vec<&Port> = service.ports.iter().filter(|port| means(parent.written, port)).collect();
    if ports.is_empty() {
        let (field, wanted) = match (parent.written.port, &parent.written.section_name) {
            (Some(port), _) => (".port", format!("TCP port {port}")),
            (None, Some(section)) => (".sectionName", format!("TCP port named {section:?}")),
            (None, None) => (".name", "TCP port".into()),
        };
        let what =
            format!("Service {namespace}/{name} has no {wanted}; its ports are {}", backends::ports(service));
        return parent.refuse(ConditionReason::NoMatchingParent, field, what);
    }
    if service.addresses.is_empty() {
        let what = format!(
            "Service {namespace}/{name} has no cluster IP: who dials it dials its Pods, for which no routes hold"
        );
        return parent.refuse(ConditionReason::NoMatchingParent, ".name", what);
    }
    Ok((service, ports))
}

impl Parent<'_> {
    fn refuse<T>(&self, reason: ConditionReason, field: &str, what: String) -> Result<T, Refusal> {
        Err(Refusal { reason, field: format!("spec.parentRefs[{}]{field}", self.at), what })
    }
}

/// Nothing is attached to the port that could go before it: others need not be read.
fn is_unrivalled(index: &Index, route: &Route, service: &Service, port: &Port) -> bool {
    let mut others = index.routes_of(&service.name).filter(|other| {
        other.key.namespace == route.key.namespace
            && other.key != route.key
            && (other.key.kind < route.key.kind || route.key.kind == Kind::TcpRoute)
    });
    !others.any(|other| other.parent_refs().iter().any(|parent| names(other, parent, service, port)))
}

/// Whether a policy holds at a target.
pub(crate) fn governs(index: &Index, policy: &Policy, target: &Target) -> Result<String, Refusal> {
    if policy.invalid {
        let problems = index.problems(&policy.key);
        let what = problems.iter().map(|problem| format!("{}: {}", problem.field, problem.what));
        let what = what.collect::<Vec<_>>().join("; ");
        return Err(Refusal { reason: ConditionReason::Invalid, field: String::new(), what });
    }
    if let Some((field, what)) = policies::breaches(policy).into_iter().next() {
        let what = format!("{what}; the policy is left out");
        return Err(Refusal { reason: ConditionReason::Invalid, field, what });
    }
    let field = format!("spec.targetRefs[{}]", target.at);
    if let Some((part, what)) = missing(index, policy, target) {
        let field = format!("{field}.{part}");
        return Err(Refusal { reason: ConditionReason::TargetNotFound, field, what });
    }
    match conflicts::find(index, policy, target) {
        Some(what) => Err(Refusal { reason: ConditionReason::Conflicted, field, what }),
        None if policy.key.kind == Kind::BackendTlsPolicy => {
            match backend_tls::read(index, policy).and_then(|said| said.refused) {
                Some(refusal) => Err(refusal),
                None => Ok(format!("it holds for the endpoints of {} that have no proxy", named(target))),
            }
        }
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
            let Some(service) = index.service(&ServiceName::new(&key.namespace, &key.name)) else {
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

fn at_parent(index: &Index, route: &Route, rules: &Rules, parent: &Parent<'_>) -> Entry {
    let accepted = accepts(index, route, rules, parent);
    let mut conditions = vec![condition("Accepted", accepted.clone(), ConditionReason::Accepted)];
    let unresolved = those(rules, |effect| matches!(effect, Effect::Unresolved(_)));
    let resolved = match unresolved.first() {
        Some(first) => {
            Err(Refusal { reason: first.reason(), field: String::new(), what: listed(&unresolved) })
        }
        None => Ok("all references lead to something".into()),
    };
    conditions.push(condition("ResolvedRefs", resolved, ConditionReason::ResolvedRefs));
    let dropped = those(rules, |effect| matches!(effect, Effect::Dropped(..)));
    if let (true, Some(first)) = (accepted.is_ok(), dropped.first()) {
        // The message begins as Gateway API asks (RouteConditionPartiallyInvalid).
        let message = format!("Dropped Rule: {}", listed(&dropped));
        conditions.push(Condition::new("PartiallyInvalid", true, first.reason().as_str(), message));
    }
    conditions.extend(affected(index, route, Kind::TrafficPolicy, "weft.mesh/TrafficPolicyAffected"));
    conditions.extend(affected(index, route, Kind::BackendPolicy, "weft.mesh/BackendPolicyAffected"));
    Entry { about: parent.written.clone(), conditions }
}

fn those(rules: &Rules, effect: impl Fn(Effect) -> bool) -> Vec<&Finding> {
    rules.findings.iter().filter(|finding| effect(finding.effect)).collect()
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
    if let Some(said) = backend_tls::read(index, policy) {
        conditions.push(references(&said.unresolved));
    } else if verdict.is_ok() {
        let told = Ok("proxies are told when they ask".into());
        conditions.push(condition("Programmed", told, ConditionReason::Programmed));
    }
    Entry { about, conditions }
}

/// Those of a policy to certificates.
fn references(unresolved: &[Refusal]) -> Condition {
    let verdict = match unresolved.first() {
        Some(first) => {
            let each = unresolved.iter().map(|one| format!("{}: {}", one.field, one.what));
            let what = each.collect::<Vec<_>>().join("; ");
            Err(Refusal { reason: first.reason, field: String::new(), what })
        }
        None => Ok("all references lead to certificates".into()),
    };
    condition("ResolvedRefs", verdict, ConditionReason::ResolvedRefs)
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

/// As many as are read: problems list them all.
fn listed(findings: &[&Finding]) -> String {
    let shown = findings.iter().take(SHOWN).map(ToString::to_string);
    let more = (findings.len() > SHOWN).then(|| format!("and {} more", findings.len() - SHOWN));
    shown.chain(more).collect::<Vec<_>>().join("; ")
}

fn whom(route: &Route, service: &ServiceName, ports: &str) -> String {
    match route.key.namespace == service.namespace {
        true => format!("it holds for all who dial {service}:{ports}"),
        false => format!("it holds for those in {} who dial {service}:{ports}", route.key.namespace),
    }
}

/// A target as people read it.
pub(crate) fn named(target: &Target) -> String {
    match &target.section {
        Some(section) => format!("{section:?} of {}", target.object),
        None => target.object.to_string(),
    }
}
