//! Where a VirtualService holds: for which hosts and gateways, for whose clients, and so which parents its routes have and
//! in which namespaces they stand.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::gateway;
use crate::object::Object;
use crate::output::GATEWAY;
use crate::tree::Node;
use crate::virtual_service::conditions::Candidate;
use crate::world::{Host, Port, Protocol, ServiceName, World};

/// A place where a route holds.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// Where the route is written.
    pub namespace: String,
    pub parents: Vec<Value>,
    /// For parents that are Gateways; empty: any.
    pub hostnames: Vec<String>,
    /// The only port for which it holds.
    pub port: Option<u16>,
    /// A consumer's route: for clients of its own namespace.
    pub is_consumer: bool,
    /// The gateway, as the VirtualService names it; `None` in the mesh.
    pub gateway: Option<String>,
    pub is_grpc: bool,
    /// What its name has after the VirtualService's.
    pub suffix: String,
}

/// A Service of the mesh for which rules hold.
#[derive(Clone, Debug)]
struct Home {
    service: ServiceName,
    namespace: String,
    /// Its place in `hosts`.
    host: usize,
}

/// What a VirtualService says of where it holds.
#[derive(Debug)]
pub(crate) struct Holding<'a> {
    namespace: String,
    homes: Vec<Home>,
    hosts: &'a [Node],
    hostnames: Vec<String>,
    /// Where `http` stands, or the whole where it does not.
    pub rules: &'a Node,
    /// As it names them.
    pub gateways: Vec<(String, &'a Node)>,
}

impl<'a> Holding<'a> {
    /// `None`, and a word about it, when there is no place where it can hold.
    pub fn read(world: &World<'_>, object: &Object, spec: &'a Node) -> Option<Self> {
        let hosts = spec.items_at("hosts");
        let names: Vec<&str> = hosts.iter().filter_map(Node::text).collect();
        let gateways: Vec<(String, &Node)> = spec
            .items_at("gateways")
            .iter()
            .filter_map(|node| Some((node.text()?.to_owned(), node)))
            .collect();
        let in_mesh = gateways.is_empty() || gateways.iter().any(|(name, _)| name == "mesh");
        let gateways: Vec<_> = gateways.into_iter().filter(|(name, _)| name != "mesh").collect();
        let reach = reach(spec, &object.namespace);
        let mut homes = Vec::new();
        for (at, node) in hosts.iter().enumerate().filter(|_| in_mesh) {
            match world.host(names.get(at).copied().unwrap_or_default(), &object.namespace) {
                Host::Service(service) => homes.extend(self::homes(&service, &reach, object, spec, at)),
                Host::Other(host) => {
                    let remedy = "name Services; hosts outside of the cluster have no routes in this version";
                    let why =
                        format!("{host} is no Service of the cluster: in the mesh no route holds for it");
                    match gateways.is_empty() {
                        true => node.drop(why, remedy),
                        false => node.note(why, ""),
                    }
                }
            }
        }
        if homes.is_empty() && gateways.is_empty() {
            spec.drop(
                "no route can hold for any of its hosts",
                "see its hosts: name Services of the cluster",
            );
            return None;
        }
        if spec.field("http").is_none() {
            for (node, _) in hosts.iter().zip(&names).filter(|(_, name)| homes.is_empty() && **name != "*") {
                node.note(
                    "left out: connections are told apart by their port, or by the names that TLS says",
                    "",
                );
            }
        }
        let hostnames = match names.contains(&"*") {
            true => Vec::new(),
            false => names.iter().map(|name| (*name).to_owned()).collect(),
        };
        Some(Holding {
            namespace: object.namespace.clone(),
            homes,
            hosts,
            hostnames,
            rules: spec.field("http").unwrap_or(spec),
            gateways,
        })
    }

    /// The places where rules hold that ask for what these candidates do. `needs_port`: some rule sends a request to the port
    /// that it was sent to.
    pub fn scopes(&self, world: &World<'_>, candidates: &[&Candidate<'_>], needs_port: bool) -> Vec<Scope> {
        let ports: BTreeSet<u16> = candidates.iter().filter_map(|candidate| candidate.port).collect();
        let mut found = Vec::new();
        for home in &self.homes {
            let mut namespaces = vec![home.namespace.clone()];
            if home.namespace == home.service.namespace {
                let asked = candidates.iter().filter_map(|candidate| candidate.namespace.as_ref());
                namespaces.extend(asked.filter(|namespace| **namespace != home.namespace).cloned());
                namespaces.dedup();
            }
            for namespace in namespaces {
                self.mesh(world, home, &namespace, &ports, needs_port, &mut found);
            }
        }
        merge(&mut found);
        let is_split = !ports.is_empty() || candidates.iter().any(|candidate| !candidate.gateways.is_empty());
        found.extend(self.at_gateways(world, &ports, is_split));
        found
    }

    /// The scopes in which a Service's clients in `namespace` fall.
    fn mesh(
        &self,
        world: &World<'_>,
        home: &Home,
        namespace: &str,
        ports: &BTreeSet<u16>,
        needs_port: bool,
        found: &mut Vec<Scope>,
    ) {
        let service = &home.service;
        let parent = |port: Option<u16>| {
            let mut parent = json!({"group": "", "kind": "Service", "name": service.name});
            if service.namespace != namespace {
                parent["namespace"] = service.namespace.as_str().into();
            }
            if let Some(port) = port {
                parent["port"] = port.into();
            }
            parent
        };
        let scope = |port: Option<u16>, is_grpc| Scope {
            namespace: namespace.to_owned(),
            parents: vec![parent(port)],
            hostnames: Vec::new(),
            port,
            is_consumer: namespace != service.namespace,
            gateway: None,
            is_grpc,
            suffix: match port {
                Some(port) if self.homes.len() > 1 => format!("-{}-{port}", service.name),
                Some(port) => format!("-{port}"),
                None => String::new(),
            },
        };
        let known = world.services.get(service).map_or(&[][..], |service| &service.ports);
        let protocols: BTreeSet<bool> = known.iter().map(|port| port.protocol == Protocol::Grpc).collect();
        let has_bytes = known.iter().any(|port| port.protocol == Protocol::Bytes);
        let is_split = !ports.is_empty() || needs_port && known.len() > 1 || protocols.len() > 1 || has_bytes;
        if !is_split {
            return found.push(scope(None, protocols == BTreeSet::from([true])));
        }
        if known.is_empty() {
            self.hosts[home.host].drop(
                format!("Service {service} is not in the input, and its ports make a difference here"),
                "add it: kubectl get services -A -o yaml",
            );
            return found.extend(ports.iter().map(|port| scope(Some(*port), false)));
        }
        let carries = |port: &&Port| port.protocol != Protocol::Bytes;
        found.extend(
            known
                .iter()
                .filter(carries)
                .map(|port| scope(Some(port.number), port.protocol == Protocol::Grpc)),
        );
    }

    /// The scopes at Gateways. `is_split`: some rule holds only at one of them, or for one port.
    fn at_gateways(&self, world: &World<'_>, ports: &BTreeSet<u16>, is_split: bool) -> Vec<Scope> {
        let mut found: Vec<Scope> = Vec::new();
        for (name, node) in &self.gateways {
            for (port, parents) in self.gateway_parents(world, name, node, ports) {
                match found.last_mut() {
                    Some(last) if !is_split => last.parents.extend(parents),
                    _ => found.push(Scope {
                        namespace: self.namespace.clone(),
                        parents,
                        hostnames: self.hostnames.clone(),
                        port,
                        is_consumer: false,
                        gateway: Some(name.clone()),
                        is_grpc: false,
                        suffix: "-gateway".to_owned(),
                    }),
                }
            }
        }
        let chunked = found.into_iter().flat_map(|scope| {
            let chunks: Vec<Vec<String>> = match scope.hostnames.is_empty() {
                true => vec![Vec::new()],
                false => scope.hostnames.chunks(MAX_HOSTNAMES).map(<[String]>::to_vec).collect(),
            };
            chunks.into_iter().map(move |hostnames| Scope { hostnames, ..scope.clone() }).collect::<Vec<_>>()
        });
        chunked.collect()
    }

    /// What a route names as its parent for a gateway, and for which port each.
    fn gateway_parents(
        &self,
        world: &World<'_>,
        name: &str,
        node: &Node,
        ports: &BTreeSet<u16>,
    ) -> Vec<(Option<u16>, Vec<Value>)> {
        let (namespace, name, known) = world.gateway(name, &self.namespace);
        let parent = |(kind, name): (&str, &str), field: &str, value: Value| {
            let mut parent = json!({"group": GATEWAY, "kind": kind, "name": name});
            if namespace != self.namespace {
                parent["namespace"] = namespace.as_str().into();
            }
            if !value.is_null() {
                parent[field] = value;
            }
            parent
        };
        let whole = |port: Option<u16>| {
            (port, vec![parent(("Gateway", &name), "port", port.map_or(Value::Null, Value::from))])
        };
        let Some(known) = known else {
            node.note(
                format!("Gateway {namespace}/{name} is not in the input: the route names one of Gateway API by that name"),
                "import it too, or name the Gateway that takes its place",
            );
            return match ports.is_empty() {
                true => vec![whole(None)],
                false => ports.iter().map(|port| whole(Some(*port))).collect(),
            };
        };
        let listeners: Vec<_> = gateway::listeners(known)
            .into_iter()
            .filter(|listener| listener.is_http && self.meets(&listener.hostname))
            .collect();
        if !ports.is_empty() {
            let all: BTreeSet<u16> = listeners.iter().map(|listener| listener.port).collect();
            return all.iter().map(|port| whole(Some(*port))).collect();
        }
        let mut parents: Vec<Value> = Vec::new();
        for listener in &listeners {
            let (kind, holder) = &listener.holder;
            // What is redirected to https must not be served in plaintext.
            let is_mixed = listeners.iter().any(|other| other.holder == listener.holder && other.is_redirect);
            let parent = match is_mixed {
                true if listener.is_redirect => continue,
                true => parent((kind, holder), "sectionName", listener.name.as_str().into()),
                false => parent((kind, holder), "", Value::Null),
            };
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        if parents.is_empty() {
            node.drop(
                "no server of this Gateway that is carried serves HTTP for these hosts",
                "see what was said about its servers",
            );
            return Vec::new();
        }
        vec![(None, parents)]
    }

    /// Whether some host is one of those of a listener; that of an empty name has all of them.
    fn meets(&self, listener: &str) -> bool {
        let is_one_of = |name: &str, pattern: &str| {
            let rest = pattern.strip_prefix('*');
            name == pattern || rest.is_some_and(|rest| name.len() > rest.len() && name.ends_with(rest))
        };
        let meets = |name: &String| is_one_of(name, listener) || is_one_of(listener, name);
        listener.is_empty() || self.hostnames.is_empty() || self.hostnames.iter().any(meets)
    }

    /// The Services for which `tls` and `tcp` hold, each with the namespace of the route.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceName, &str)> {
        self.homes.iter().map(|home| (&home.service, &*home.namespace))
    }
}

/// The most hostnames that a route may have.
const MAX_HOSTNAMES: usize = 16;

impl Scope {
    /// Whether a match holds here.
    pub fn takes(&self, candidate: &Candidate<'_>) -> bool {
        let is_here = match &self.gateway {
            None => candidate.gateways.is_empty() || candidate.gateways.iter().any(|name| name == "mesh"),
            Some(gateway) => candidate.gateways.is_empty() || candidate.gateways.contains(gateway),
        };
        let is_client = candidate.namespace.as_ref().is_none_or(|namespace| {
            if self.gateway.is_none() && !self.is_consumer && *namespace == self.namespace {
                candidate.node.drop(
                    "a route in the Service's own namespace holds for clients of all namespaces, so that this match \
                     is left out as a whole",
                    "move these clients to a namespace of their own",
                );
            }
            self.is_consumer && *namespace == self.namespace
        });
        is_here && is_client && (candidate.port.is_none() || candidate.port == self.port)
    }
}

/// Whose clients a VirtualService holds for.
enum Reach<'a> {
    All,
    Namespaces(Vec<String>, &'a Node),
}

fn reach<'a>(spec: &'a Node, own: &str) -> Reach<'a> {
    let Some(node) = spec.field("exportTo") else { return Reach::All };
    let names: Vec<&str> = node.items().iter().filter_map(Node::text).collect();
    if names.is_empty() || names.contains(&"*") {
        return Reach::All;
    }
    let named = names.iter().map(|name| if *name == "." { own.to_owned() } else { (*name).to_owned() });
    Reach::Namespaces(named.filter(|name| name != "~").collect(), node)
}

/// The namespaces of the routes for a Service: its own, for everybody; or those of its consumers.
fn homes(service: &ServiceName, reach: &Reach<'_>, object: &Object, spec: &Node, host: usize) -> Vec<Home> {
    let home = |namespace: &str| Home { service: service.clone(), namespace: namespace.to_owned(), host };
    let producer = home(&service.namespace);
    match reach {
        Reach::All => {
            if service.namespace != object.namespace {
                spec.items_at("hosts")[host].note(
                    format!(
                        "the route is written in namespace {}, where it holds for everybody",
                        service.namespace
                    ),
                    "",
                );
            }
            vec![producer]
        }
        Reach::Namespaces(names, node) if names.contains(&service.namespace) => {
            node.drop(
                "a route in the Service's own namespace holds for clients of all namespaces",
                "write a route for the others in their namespaces; it takes the place of this one there",
            );
            vec![producer]
        }
        Reach::Namespaces(names, _) => names.iter().map(|name| home(name)).collect(),
    }
}

/// Routes that differ in their parents only are one.
fn merge(scopes: &mut Vec<Scope>) {
    let mut merged: Vec<Scope> = Vec::new();
    for scope in scopes.drain(..) {
        let same = merged.iter_mut().find(|other| {
            other.namespace == scope.namespace
                && other.port.is_none()
                && scope.port.is_none()
                && other.is_grpc == scope.is_grpc
                && other.is_consumer == scope.is_consumer
        });
        match same {
            Some(same) if same.parents.len() < MAX_PARENTS => {
                for parent in scope.parents {
                    if !same.parents.contains(&parent) {
                        same.parents.push(parent);
                    }
                }
            }
            _ => merged.push(scope),
        }
    }
    *scopes = merged;
}

/// The most parents that a route may have.
const MAX_PARENTS: usize = 32;
