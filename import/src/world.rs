//! What objects of the input say about each other: which Services there are and which ports they have, which subsets,
//! gateways and delegates; and what a host of Istio's means. Reading here marks nothing as carried.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::object::Object;
use crate::service_entry;

/// A Service's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceName {
    pub namespace: String,
    pub name: String,
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a host of Istio's means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Service(ServiceName),
    /// A host outside of the cluster, or a pattern.
    Other(String),
}

/// What protocol a Service port says to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Grpc,
    Bytes,
    Unsaid,
}

#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// Empty where it has none.
    pub name: String,
    pub number: u16,
    pub protocol: Protocol,
}

/// A Service of the input, or one that the import makes of a ServiceEntry.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub ports: Vec<Port>,
    /// `spec.ports` for a Service beside it: without what is the original's alone.
    pub port_specs: Vec<Value>,
    pub selector: Map<String, Value>,
    /// `None`, where it is headless, as written; otherwise there is nothing to carry over.
    pub cluster_ip: Option<String>,
}

impl Service {
    /// Its only port.
    pub fn only_port(&self) -> Option<u16> {
        match &self.ports[..] {
            [port] => Some(port.number),
            _ => None,
        }
    }

    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// The input as a whole.
#[derive(Debug, Default)]
pub(crate) struct World<'a> {
    pub services: BTreeMap<ServiceName, Service>,
    gateways: BTreeMap<(String, String), &'a Object>,
    virtual_services: BTreeMap<(String, String), &'a Object>,
    subsets: BTreeSet<(ServiceName, String)>,
    /// Hosts outside of the cluster, and what the object is called that stands for them.
    externals: BTreeMap<String, String>,
}

impl<'a> World<'a> {
    pub fn new(objects: &'a [Object]) -> Self {
        let mut world = World::default();
        for object in objects {
            let key = (object.namespace.clone(), object.name.clone());
            match (object.group.as_str(), object.kind.as_str()) {
                ("", "Service") => {
                    let name = ServiceName { namespace: key.0, name: key.1 };
                    world.services.insert(name, service(&object.root.json()["spec"]));
                }
                ("networking.istio.io", "Gateway") => {
                    world.gateways.insert(key, object);
                }
                ("networking.istio.io", "VirtualService") => {
                    world.virtual_services.insert(key, object);
                }
                _ => {}
            }
        }
        for object in objects {
            match (object.group.as_str(), object.kind.as_str()) {
                ("networking.istio.io", "ServiceEntry") => {
                    for (name, service) in service_entry::services(object) {
                        world.services.entry(name).or_insert(service);
                    }
                    for host in service_entry::externals(object) {
                        world.externals.insert(host, object.name.clone());
                    }
                }
                ("networking.istio.io", "DestinationRule") => world.add_subsets(object),
                _ => {}
            }
        }
        world
    }

    fn add_subsets(&mut self, object: &Object) {
        let spec = &object.root.json()["spec"];
        let host = spec["host"].as_str().unwrap_or_default();
        let Host::Service(service) = self.host(host, &object.namespace) else { return };
        for subset in spec["subsets"].as_array().into_iter().flatten() {
            let name = subset["name"].as_str().unwrap_or_default();
            self.subsets.insert((service.clone(), name.to_owned()));
        }
    }

    /// What a host means that an object of this namespace names: `reviews`, `reviews.shop.svc.cluster.local`.
    pub fn host(&self, host: &str, namespace: &str) -> Host {
        let labels: Vec<&str> = host.split('.').collect();
        let (name, namespace) = match labels[..] {
            [name] if !name.contains('*') && !name.is_empty() => (name, namespace),
            [name, namespace, "svc", ..] if !name.contains('*') => (name, namespace),
            // Istio does not complete these; where there is such a Service, nothing else can be meant.
            [name, namespace] => (name, namespace),
            _ => return Host::Other(host.to_owned()),
        };
        let service = ServiceName { namespace: namespace.to_owned(), name: name.to_owned() };
        match labels.len() == 2 && !self.services.contains_key(&service) {
            true => Host::Other(host.to_owned()),
            false => Host::Service(service),
        }
    }

    /// The Gateway that a VirtualService of this namespace names: `name` or `namespace/name`.
    pub fn gateway(&self, name: &str, namespace: &str) -> (String, String, Option<&'a Object>) {
        let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
        let namespace = if namespace == "." { "" } else { namespace };
        let key = (namespace.to_owned(), name.to_owned());
        let found = self.gateways.get(&key).copied();
        (key.0, key.1, found)
    }

    pub fn virtual_service(&self, namespace: &str, name: &str) -> Option<&'a Object> {
        self.virtual_services.get(&(namespace.to_owned(), name.to_owned())).copied()
    }

    /// Whether a VirtualService of the input hands requests on to this one.
    pub fn is_delegate(&self, object: &Object) -> bool {
        self.virtual_services.values().any(|root| {
            let spec = &root.root.json()["spec"];
            spec["http"].as_array().into_iter().flatten().any(|rule| {
                let delegate = &rule["delegate"];
                let namespace = delegate["namespace"].as_str().unwrap_or(&root.namespace);
                delegate["name"] == object.name && namespace == object.namespace
            })
        })
    }

    /// What the object is called that stands for a host outside of the cluster.
    pub fn external(&self, host: &str) -> String {
        self.externals.get(host).cloned().unwrap_or_else(|| dns_label(host))
    }

    /// Whether a DestinationRule of the input has this subset.
    pub fn has_subset(&self, service: &ServiceName, subset: &str) -> bool {
        self.subsets.contains(&(service.clone(), subset.to_owned()))
    }

    /// The Service that is made of a subset.
    pub fn subset_service(&self, service: &ServiceName, subset: &str) -> ServiceName {
        let plain = ServiceName { name: dns_label(&format!("{}-{subset}", service.name)), ..service.clone() };
        match self.services.contains_key(&plain) {
            true => ServiceName {
                name: dns_label(&format!("{}-subset-{subset}", service.name)),
                ..service.clone()
            },
            false => plain,
        }
    }
}

/// A text as a label of DNS (RFC 1123): what may not stand in one becomes a dash, and 63 characters are enough.
pub(crate) fn dns_label(text: &str) -> String {
    let mapped = text.chars().map(|c| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    });
    let label: String = mapped.collect();
    let label = label.trim_matches('-');
    label[..label.len().min(63)].trim_end_matches('-').to_owned()
}

/// Reads `spec` of a Service.
pub(crate) fn service(spec: &Value) -> Service {
    let mut ports = Vec::new();
    let mut port_specs = Vec::new();
    for port in spec["ports"].as_array().into_iter().flatten() {
        let Some(number) = port["port"].as_u64().and_then(|number| u16::try_from(number).ok()) else {
            continue;
        };
        if port["protocol"].as_str().is_some_and(|protocol| protocol != "TCP") {
            continue;
        }
        let said = port["appProtocol"].as_str().or(port["name"].as_str()).unwrap_or_default();
        let name = port["name"].as_str().unwrap_or_default().to_owned();
        ports.push(Port { name, number, protocol: protocol(said) });
        let mut spec = port.clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("nodePort");
        }
        port_specs.push(spec);
    }
    let selector = spec["selector"].as_object().cloned().unwrap_or_default();
    let cluster_ip = spec["clusterIP"].as_str().filter(|address| *address == "None").map(str::to_owned);
    Service { ports, port_specs, selector, cluster_ip }
}

/// What an `appProtocol`, a port's name (`grpc-api`) or Istio's own word for a protocol says.
pub(crate) fn protocol(said: &str) -> Protocol {
    let said = said.to_ascii_lowercase();
    let said = said.strip_prefix("kubernetes.io/").unwrap_or(&said);
    match said.split('-').next().unwrap_or_default() {
        "http" | "http2" | "h2c" | "ws" | "wss" => Protocol::Http,
        "grpc" => Protocol::Grpc,
        "tcp" | "tls" | "https" | "mongo" | "redis" | "mysql" => Protocol::Bytes,
        _ => Protocol::Unsaid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_completed_as_istio_does() {
        let service = |namespace: &str, name: &str| {
            Host::Service(ServiceName { namespace: namespace.into(), name: name.into() })
        };
        for (host, meant) in [
            ("reviews", service("shop", "reviews")),
            ("reviews.bank.svc.cluster.local", service("bank", "reviews")),
            ("reviews.bank.svc", service("bank", "reviews")),
            ("api.example.com", Host::Other("api.example.com".into())),
            ("reviews.bank", Host::Other("reviews.bank".into())),
            ("*", Host::Other("*".into())),
            ("*.bank.svc.cluster.local", Host::Other("*.bank.svc.cluster.local".into())),
        ] {
            assert_eq!(World::default().host(host, "shop"), meant, "{host}");
        }
    }

    #[test]
    fn names_of_ports_say_protocols() {
        for (said, meant) in [
            ("grpc-api", Protocol::Grpc),
            ("http", Protocol::Http),
            ("kubernetes.io/h2c", Protocol::Http),
            ("GRPC", Protocol::Grpc),
            ("tcp-db", Protocol::Bytes),
            ("web", Protocol::Unsaid),
        ] {
            assert_eq!(protocol(said), meant, "{said}");
        }
    }

    #[test]
    fn labels_are_labels() {
        assert_eq!(dns_label("reviews-V1.2_x"), "reviews-v1-2-x");
        assert_eq!(dns_label(&"a".repeat(80)).len(), 63);
    }
}
