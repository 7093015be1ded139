//! Rules of `tls` and `tcp` as TLSRoutes and TCPRoutes. Each of those has one rule, so each match becomes a route.

use serde_json::{Value, json};

use crate::object::Object;
use crate::output::{GATEWAY, Output, object as compact};
use crate::tree::Node;
use crate::virtual_service::action::backends;
use crate::virtual_service::http::Place;
use crate::virtual_service::scope::Holding;
use crate::world::{ServiceName, World};

/// What a rule looks at and a TLSRoute or TCPRoute does not.
const UNKNOWN_CONDITIONS: [&str; 4] =
    ["destinationSubnets", "sourceSubnet", "sourceLabels", "sourceNamespace"];

/// A parent, and where the route for it stands.
struct Parent {
    reference: Value,
    namespace: String,
    /// The port for which it holds.
    port: Option<u16>,
}

/// Writes the routes for `tls` and `tcp`.
pub(crate) fn write(
    world: &World<'_>,
    object: &Object,
    holding: &Holding<'_>,
    spec: &Node,
    output: &mut Output,
) {
    for (field, kind) in [("tls", "TLSRoute"), ("tcp", "TCPRoute")] {
        let mut taken: Vec<Value> = Vec::new();
        for rule in spec.items_at(field) {
            let blocks = rule.items_at("match");
            let matches: Vec<Option<&Node>> = match blocks.is_empty() {
                true => vec![None],
                false => blocks.iter().filter(|block| is_known(block)).map(Some).collect(),
            };
            if matches.is_empty() {
                rule.drop("none of its matches can be carried", "write a route for what it is to take");
            }
            for block in matches {
                write_rule(world, object, holding, (kind, rule, block), &mut taken, output);
            }
        }
    }
}

fn is_known(block: &Node) -> bool {
    let is_said = |field: &&&str| block.field(field).is_some_and(|node| node.text() != Some(""));
    let Some(field) = UNKNOWN_CONDITIONS.iter().find(is_said) else { return true };
    block.drop(
        format!(
            "{field}: a route of TLS or TCP does not look at it, so that this match is left out as a whole"
        ),
        "tell the connections apart by port or by name (SNI)",
    );
    false
}

fn write_rule(
    world: &World<'_>,
    object: &Object,
    holding: &Holding<'_>,
    (kind, rule, block): (&str, &Node, Option<&Node>),
    taken: &mut Vec<Value>,
    output: &mut Output,
) {
    let port =
        block.and_then(|block| block.field("port")?.number()).and_then(|port| u16::try_from(port).ok());
    let gateways: Vec<&str> =
        block.map_or(&[][..], |block| block.items_at("gateways")).iter().filter_map(Node::text).collect();
    let names: Vec<&str> =
        block.map_or(&[][..], |block| block.items_at("sniHosts")).iter().filter_map(Node::text).collect();
    let names = if names.contains(&"*") { Vec::new() } else { names };
    // A TLSRoute has names; without them it is all of the connections.
    let kind = if names.is_empty() { "TCPRoute" } else { kind };
    let backends = backends(rule.items_at("route"));
    let mut lost = 0;
    for parent in parents(world, object, holding, &gateways, port, backends_follow(&backends)) {
        let key = json!([kind, parent.reference, parent.namespace, names]);
        let whole = json!([kind, parent.reference, parent.namespace, []]);
        if taken.contains(&key) || (kind == "TCPRoute" && taken.contains(&whole)) {
            lost += 1;
            continue;
        }
        taken.push(key);
        let place = Place { world, object, kind, namespace: &parent.namespace, port: parent.port };
        let written: Vec<Value> = backends
            .iter()
            .map(|backend| {
                let mut fields = place.backend_ref(&backend.destination, output);
                if let Some(weight) = backend.weight {
                    fields.insert("weight".into(), weight.into());
                }
                fields.into()
            })
            .collect();
        let mut spec =
            compact([("parentRefs", vec![parent.reference].into()), ("hostnames", names.clone().into())]);
        spec.insert("rules".into(), json!([{"backendRefs": written}]));
        output.add(object, kind, &parent.namespace, &object.name, spec.into());
    }
    if lost > 0 {
        let node = block.filter(|_| rule.items_at("match").len() > 1).unwrap_or(rule);
        node.note("an earlier rule takes all of these connections: left out", "delete it");
    }
}

/// Whether some backend takes connections at the port that they were made to.
fn backends_follow(backends: &[crate::virtual_service::action::Backend<'_>]) -> bool {
    backends.iter().any(|backend| backend.destination.port.is_none())
}

fn parents(
    world: &World<'_>,
    object: &Object,
    holding: &Holding<'_>,
    gateways: &[&str],
    port: Option<u16>,
    follows_port: bool,
) -> Vec<Parent> {
    let mut found = Vec::new();
    if gateways.is_empty() || gateways.contains(&"mesh") {
        for (service, namespace) in holding.services() {
            for port in service_ports(world, service, port, follows_port) {
                let mut reference = json!({"group": "", "kind": "Service", "name": service.name});
                if service.namespace != namespace {
                    reference["namespace"] = service.namespace.as_str().into();
                }
                if let Some(port) = port {
                    reference["port"] = port.into();
                }
                found.push(Parent { reference, namespace: namespace.to_owned(), port });
            }
        }
    }
    for (name, node) in
        holding.gateways.iter().filter(|(name, _)| gateways.is_empty() || gateways.contains(&&**name))
    {
        let (namespace, name, known) = world.gateway(name, &object.namespace);
        if known.is_none() {
            node.note(
                format!("Gateway {namespace}/{name} is not in the input: the route names one of Gateway API by that name"),
                "import it too, or name the Gateway that takes its place",
            );
        }
        let mut reference = json!({"group": GATEWAY, "kind": "Gateway", "name": name});
        if namespace != object.namespace {
            reference["namespace"] = namespace.into();
        }
        if let Some(port) = port {
            reference["port"] = port.into();
        }
        found.push(Parent { reference, namespace: object.namespace.clone(), port });
    }
    found
}

/// The ports of a Service for which there is a route each; `None` for one route for all of them.
fn service_ports(
    world: &World<'_>,
    service: &ServiceName,
    port: Option<u16>,
    follows_port: bool,
) -> Vec<Option<u16>> {
    let known = world.services.get(service).map_or(&[][..], |service| &service.ports);
    match port {
        None if follows_port && known.len() > 1 => known.iter().map(|port| Some(port.number)).collect(),
        port => vec![port],
    }
}
