//! What is wrong with an object beside others: what was misread in it, and what in it leads nowhere.

use crate::{backend_tls, policies, rules, verdicts};
use control_index::{Index, Key, Kind, Policy, Port, Problem, Route, Service, State, TargetPort};
use policy::{Protocol, ServiceName};
use std::{collections::BTreeSet, sync::Arc};

/// The problems of one object as things stand now. They change with the object, and with each change that touches
/// the Service, the route or the policy that it is.
pub fn problems(index: &Index, key: &Key) -> Vec<Problem> {
    let mut problems = index.problems(key).to_vec();
    if key.kind == Kind::Service {
        let name = ServiceName { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) };
        if let Some(service) = index.service(&name) {
            let found = addresses(index, service).chain(ports(index, service)).chain(awaited(index, service));
            problems.extend(found.map(|(field, what)| Problem { object: key.clone(), field, what }));
        }
    }
    let mut add = |found: Vec<(String, String)>| {
        problems.extend(found.into_iter().map(|(field, what)| Problem { object: key.clone(), field, what }));
    };
    if let Some(route) = index.route(key) {
        add(of_route(index, route));
    }
    if let Some(policy) = index.policy(key) {
        add(of_policy(index, policy));
    }
    problems
}

/// What is wrong in it, and the parents at which it does not hold. One without parents of ours is none of ours.
fn of_route(index: &Index, route: &Route) -> Vec<(String, String)> {
    let rules = rules::read(index, route);
    let mut parents = verdicts::parents(route).peekable();
    if parents.peek().is_none() {
        return Vec::new();
    }
    let refusals = parents.filter_map(|parent| verdicts::accepts(index, route, &rules, &parent).err());
    // Of what is wrong in the route itself its findings tell.
    let refusals = refusals.filter(|refusal| !refusal.field.is_empty());
    let mut found: Vec<(String, String)> = refusals.map(|refusal| (refusal.field, refusal.what)).collect();
    found.extend(rules.findings.iter().map(|finding| (finding.field.clone(), finding.says())));
    found
}

fn of_policy(index: &Index, policy: &Policy) -> Vec<(String, String)> {
    let breaches = policies::breaches(policy);
    if !breaches.is_empty() {
        let left_out = |(field, what)| (field, format!("{what}; the policy is left out"));
        return breaches.into_iter().map(left_out).collect();
    }
    let targets = policy.targets();
    let refusals = targets.iter().filter_map(|target| verdicts::governs(index, policy, target).err());
    let read = targets.first().and_then(|_| backend_tls::read(index, policy));
    let read = read.into_iter().flat_map(|said| said.refused.into_iter().chain(said.unresolved));
    // Of what its schema forbids, the index tells; that no authority is left, the references do.
    let found = refusals.chain(read).filter(|one| !one.field.is_empty());
    let mut found: Vec<(String, String)> = found.map(|one| (one.field, one.what)).collect();
    // What is wrong in the policy is so at each of its targets.
    let mut told = BTreeSet::new();
    found.retain(|one| told.insert(one.clone()));
    found
}

fn addresses(index: &Index, service: &Service) -> impl Iterator<Item = (String, String)> {
    service.addresses.iter().filter_map(|ip| {
        let holder = index.services_at(*ip).next().filter(|holder| holder.name != service.name)?;
        Some(("spec.clusterIP".into(), format!("{ip} is {}'s; that Service keeps it", holder.name)))
    })
}

/// One line, however many they are.
fn awaited(index: &Index, service: &Service) -> Option<(String, String)> {
    let mut pods = index.awaited(service);
    let first = pods.next()?;
    let more = pods.count();
    let others = if more > 0 { format!(" and {more} more") } else { String::new() };
    let what = format!(
        "an EndpointSlice names Pod {first}{others}, not known at that address; it gets no traffic until it is"
    );
    Some(("endpoints".into(), what))
}

fn ports(index: &Index, service: &Service) -> impl Iterator<Item = (String, String)> {
    service
        .ports
        .iter()
        .flat_map(|port| [unknown_protocol(port), unknown_target(index, service, port)].into_iter().flatten())
}

fn unknown_protocol(port: &Port) -> Option<(String, String)> {
    let unknown = Protocol::from_app_protocol(port.app_protocol.as_deref()?).err()?;
    let field = format!("spec.ports[{}].appProtocol", port.at);
    Some((field, format!("{unknown}; the proxies find out by themselves")))
}

/// A named target port that no selected Pod has. With no Pods there is nobody to ask, and no problem.
fn unknown_target(index: &Index, service: &Service, port: &Port) -> Option<(String, String)> {
    let TargetPort::Name(name) = &port.target else { return None };
    let mut pods = index.pods_of(service).filter(|pod| pod.state != State::Ended).peekable();
    pods.peek()?;
    if pods.any(|pod| pod.ports.contains_key(name)) {
        return None;
    }
    let field = format!("spec.ports[{}].targetPort", port.at);
    Some((field, format!("no selected Pod has a TCP port named {name:?}; the port has no endpoints")))
}
