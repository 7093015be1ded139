//! DestinationRule → a Service for each subset, BackendPolicies for limits and outlier detection, TrafficPolicies for times,
//! BackendTLSPolicies for TLS that an application's peer asks for.

mod policy;

use serde_json::{Map, Value, json};

use crate::destination_rule::policy::{Policy, read};
use crate::object::Object;
use crate::output::{Output, object as compact};
use crate::tree::Node;
use crate::world::{Host, Service, ServiceName, World};

/// What a policy is attached to, and what it says; equal ones are written once.
#[derive(Default)]
struct Attached(Vec<(Map<String, Value>, Vec<Value>)>);

impl Attached {
    fn add(&mut self, policy: Map<String, Value>, target: Value) {
        if policy.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|(known, targets)| *known == policy && targets.len() < 16) {
            Some((_, targets)) => targets.push(target),
            None => self.0.push((policy, vec![target])),
        }
    }

    fn write(self, kind: &str, object: &Object, namespace: &str, output: &mut Output) {
        for (policy, targets) in self.0 {
            let mut spec = policy;
            spec.insert("targetRefs".into(), targets.into());
            output.add(object, kind, namespace, &object.name, spec.into());
        }
    }
}

pub(crate) fn import(world: &World<'_>, object: &Object, output: &mut Output) {
    let Some(spec) = object.spec() else { return };
    let host = spec.text_at("host").unwrap_or_default();
    let service = match world.host(host, &object.namespace) {
        Host::Service(service) => service,
        Host::Other(host) => {
            spec.drop(
                format!("{host} is no Service of the cluster: no policy can be attached to it"),
                "name a Service; ExternalServices are not served by this version",
            );
            return;
        }
    };
    read_reach(object, spec, &service);
    if spec.field("workloadSelector").is_some() {
        let policies = spec.items_at("subsets").iter().filter_map(|subset| subset.field("trafficPolicy"));
        for node in policies.chain(spec.field("trafficPolicy")).chain(spec.field("workloadSelector")) {
            node.drop(
                "a policy holds for all clients: what is for some of them is left out",
                "attach it by hand",
            );
        }
    }
    let base = spec.field("trafficPolicy").map(read).unwrap_or_default();
    let mut backend = Attached::default();
    let mut traffic = Attached::default();
    let mut tls = Attached::default();
    let whole = |name: &str| json!({"group": "", "kind": "Service", "name": name});
    let is_for_all = spec.field("workloadSelector").is_none();
    let add = |policy: &Policy, target: Value, backend: &mut Attached, tls: &mut Attached| {
        if is_for_all {
            backend.add(policy.backend(), target.clone());
            let validation = policy.tls.clone().filter(|tls| !tls.is_null());
            tls.add(compact([("validation", validation.unwrap_or_default())]), target);
        }
    };
    add(&base, whole(&service.name), &mut backend, &mut tls);
    if is_for_all {
        traffic.add(base.traffic(), whole(&service.name));
    }
    let known = world.services.get(&service);
    for settings in spec.field("trafficPolicy").map_or(&[][..], |policy| policy.items_at("portLevelSettings"))
    {
        let policy = read(settings);
        let Some(section) = port_name(known, &service, settings) else { continue };
        let mut target = whole(&service.name);
        target["sectionName"] = section.into();
        if is_for_all {
            traffic.add(policy.traffic(), target.clone());
        }
        add(&policy, target, &mut backend, &mut tls);
    }
    let mut is_written = false;
    for subset in spec.items_at("subsets") {
        let own = subset.field("trafficPolicy").map(read).unwrap_or_default();
        read_subset_ports(subset);
        let timeouts = subset.at(&["trafficPolicy", "connectionPool"]);
        if let Some(node) = timeouts
            && own.traffic() != base.traffic()
            && !own.traffic().is_empty()
        {
            node.note(
                "its connectTimeout and idleTimeout are left out: those of the Service that is dialled hold",
                "set them for the whole Service",
            );
        }
        let Some(name) = write_subset(world, object, &service, subset, output) else { continue };
        is_written = true;
        add(&own.or(&base), whole(&name), &mut backend, &mut tls);
    }
    if !is_written && [&traffic, &backend, &tls].iter().all(|attached| attached.0.is_empty()) {
        spec.note("nothing of it needs to be written, or can be: left out", "");
    }
    traffic.write("TrafficPolicy", object, &service.namespace, output);
    backend.write("BackendPolicy", object, &service.namespace, output);
    tls.write("BackendTLSPolicy", object, &service.namespace, output);
}

/// Whose clients it holds for: policies hold for everybody's.
fn read_reach(object: &Object, spec: &Node, service: &ServiceName) {
    if let Some(node) = spec.field("exportTo") {
        let names: Vec<&str> = node.items().iter().filter_map(Node::text).collect();
        if !names.is_empty() && !names.contains(&"*") {
            node.drop("a policy of a Service holds for clients of all namespaces", "");
        }
    }
    if object.namespace != service.namespace
        && let Some(node) = object.root.at(&["metadata", "namespace"])
    {
        node.note(
            format!(
                "what is written stands in namespace {}, where it holds for clients of all namespaces",
                service.namespace
            ),
            "",
        );
    }
}

/// The name of the port that settings are for.
fn port_name(known: Option<&Service>, service: &ServiceName, settings: &Node) -> Option<String> {
    let node = settings.field("port")?;
    let number = node.field("number").and_then(Node::number).and_then(|number| u16::try_from(number).ok())?;
    let Some(known) = known else {
        settings.drop(
            format!("Service {service} is not in the input, and policies name a port by its name"),
            "add it: kubectl get services -A -o yaml",
        );
        return None;
    };
    let name = known.port(number).map(|port| port.name.clone()).filter(|name| !name.is_empty());
    if name.is_none() {
        settings.drop(
            format!("Service {service} has no port {number} with a name, by which a policy could name it"),
            "give the port a name",
        );
    }
    name
}

fn read_subset_ports(subset: &Node) {
    if let Some(node) = subset.at(&["trafficPolicy", "portLevelSettings"]) {
        node.drop("the policies of a subset hold for all of its ports", "attach a policy to a port by hand");
    }
}

/// Writes the Service of a subset, and says its name.
fn write_subset(
    world: &World<'_>,
    object: &Object,
    service: &ServiceName,
    subset: &Node,
    output: &mut Output,
) -> Option<String> {
    let name = subset.text_at("name")?;
    let made = world.subset_service(service, name);
    let labels = subset.fields_at("labels");
    let Some(known) = world.services.get(service) else {
        subset.drop(
            format!(
                "Service {service} is not in the input: its selector and ports are needed for Service {made}"
            ),
            "add it: kubectl get services -A -o yaml",
        );
        return None;
    };
    if known.selector.is_empty() {
        subset.drop(
            format!("Service {service} has no selector, so that there are no pods for Service {made}"),
            "make a Service with the endpoints of the subset",
        );
        return None;
    }
    let mut selector = known.selector.clone();
    for (label, node) in labels {
        let value = node.text().unwrap_or_default();
        if selector.get(label).is_some_and(|other| other != value) {
            node.note("the Service selects another value of this label: the subset has no pods", "delete it");
        }
        selector.insert(label.clone(), value.into());
    }
    let mut spec = json!({"selector": selector, "ports": known.port_specs});
    if let Some(headless) = &known.cluster_ip {
        spec["clusterIP"] = headless.as_str().into();
    }
    subset.note(format!("it becomes Service {made}"), "");
    Some(output.add(object, "Service", &made.namespace, &made.name, spec))
}
