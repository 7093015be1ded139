//! ServiceEntry → a Service with its EndpointSlices, where it stands for a Service of the cluster and says where that is;
//! else an ExternalService.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::object::Object;
use crate::output::{Output, object as compact};
use crate::tree::Node;
use crate::world::{self, Protocol, Service, ServiceName};

/// Who manages EndpointSlices that nobody is to change or delete (`endpointslice.kubernetes.io/managed-by`).
const MANAGED_BY: &str = "weft-import";

/// The Services that a ServiceEntry becomes. Reads without marking.
pub(crate) fn services(object: &Object) -> Vec<(ServiceName, Service)> {
    let spec = &object.root.json()["spec"];
    let hosts = spec["hosts"].as_array().map_or(&[][..], Vec::as_slice);
    let names = hosts.iter().filter_map(|host| service_name(spec, host.as_str()?));
    names.map(|name| (name, service(spec))).collect()
}

/// The hosts of a ServiceEntry that no Service stands for. Reads without marking.
pub(crate) fn externals(object: &Object) -> Vec<String> {
    let spec = &object.root.json()["spec"];
    let hosts = spec["hosts"].as_array().map_or(&[][..], Vec::as_slice);
    let hosts = hosts.iter().filter_map(Value::as_str).filter(|host| service_name(spec, host).is_none());
    hosts.map(str::to_owned).collect()
}

/// The Service that stands for a host: its name is one of the cluster, and where it is can be said in the objects of one.
fn service_name(spec: &Value, host: &str) -> Option<ServiceName> {
    let labels: Vec<&str> = host.split('.').collect();
    let [name, namespace, "svc", ..] = labels[..] else { return None };
    let endpoints = spec["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
    let is_address = |endpoint: &Value| {
        endpoint["address"].as_str().is_some_and(|address| address.parse::<IpAddr>().is_ok())
    };
    let is_static =
        spec["resolution"] == "STATIC" && !endpoints.is_empty() && endpoints.iter().all(is_address);
    let is_selected = spec["workloadSelector"]["labels"].is_object() && endpoints.is_empty();
    let is_name = !name.contains('*') && !name.is_empty() && !namespace.is_empty();
    let found = ServiceName { namespace: namespace.to_owned(), name: name.to_owned() };
    (is_name && (is_static || is_selected)).then_some(found)
}

fn service(spec: &Value) -> Service {
    let ports: Vec<Value> = spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or_default();
            compact([
                ("name", port["name"].clone()),
                ("port", port["number"].clone()),
                ("appProtocol", app_protocol(protocol).into()),
                ("targetPort", port["targetPort"].clone()),
            ])
            .into()
        })
        .collect();
    let selector = &spec["workloadSelector"]["labels"];
    world::service(&json!({"ports": ports, "selector": selector}))
}

/// `appProtocol` for a protocol of Istio's.
fn app_protocol(protocol: &str) -> &'static str {
    match (protocol.to_ascii_uppercase().as_str(), world::protocol(protocol)) {
        ("HTTP2", _) => "kubernetes.io/h2c",
        ("HTTPS", _) => "https",
        ("TLS", _) => "tls",
        (_, Protocol::Http) => "http",
        (_, Protocol::Grpc) => "grpc",
        _ => "tcp",
    }
}

pub(crate) fn import(object: &Object, output: &mut Output) {
    let Some(node) = object.spec() else { return };
    let spec = &object.root.json()["spec"];
    let mut outside: Vec<&str> = Vec::new();
    let entry = Entry::read(node);
    for host in node.items_at("hosts") {
        let Some(name) = host.text() else { continue };
        match service_name(spec, name) {
            Some(service) => {
                if service.namespace != object.namespace {
                    host.note(format!("it becomes a Service in namespace {}", service.namespace), "");
                }
                entry.write_service(object, &service, output);
            }
            None => {
                host.drop(
                    format!(
                        "{name} is no Service of the cluster: ExternalService {}, which is written for it, is not served \
                         by this version; what is sent there passes as to any address that the mesh does not know",
                        object.name
                    ),
                    "leave the object out until its kind is served",
                );
                outside.push(name);
            }
        }
    }
    match outside.is_empty() {
        true => entry.drop_what_services_lack(node),
        false => entry.write_external(object, &outside, output),
    }
}

/// A ServiceEntry, read.
struct Entry<'a> {
    ports: Vec<Port<'a>>,
    addresses: Vec<String>,
    resolution: &'static str,
    selector: Map<String, Value>,
    endpoints: Vec<Endpoint<'a>>,
}

struct Port<'a> {
    name: String,
    number: u64,
    protocol: &'a str,
    target: Option<u64>,
}

struct Endpoint<'a> {
    address: String,
    /// By the names of ports.
    ports: BTreeMap<String, u64>,
    zone: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn read(spec: &'a Node) -> Self {
        let ports = spec.items_at("ports").iter().filter_map(|port| {
            Some(Port {
                name: port.text_at("name").unwrap_or_default().to_owned(),
                number: port.field("number")?.number()?,
                protocol: port.text_at("protocol").unwrap_or("TCP"),
                target: port.field("targetPort").and_then(Node::number),
            })
        });
        let ports: Vec<Port<'_>> = ports.collect();
        for (field, known) in [
            ("location", &["MESH_INTERNAL", "MESH_EXTERNAL"][..]),
            ("resolution", &["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"]),
        ] {
            if let Some(node) = spec.field(field)
                && !node.text().is_some_and(|text| known.contains(&text))
            {
                node.drop(
                    "this value is not known to the importer",
                    format!("use one of {}", known.join(", ")),
                );
            }
        }
        if let Some(node) = spec.field("exportTo") {
            let names: Vec<&str> = node.items().iter().filter_map(Node::text).collect();
            if !names.is_empty() && !names.contains(&"*") {
                node.drop("what has a name in the cluster has it for all namespaces", "");
            }
        }
        if let Some(node) = spec.field("subjectAltNames") {
            node.drop(
                "who a peer is, proxies know by its identity",
                "write a BackendTLSPolicy for TLS of its own",
            );
        }
        let selector = spec.at(&["workloadSelector", "labels"]).map_or(&[][..], Node::fields);
        let selector = selector.iter().filter_map(|(name, node)| Some((name.clone(), node.text()?.into())));
        Entry {
            endpoints: spec
                .items_at("endpoints")
                .iter()
                .filter_map(|node| read_endpoint(node, &ports))
                .collect(),
            ports,
            addresses: spec.items_at("addresses").iter().filter_map(Node::text).map(str::to_owned).collect(),
            resolution: match spec.text_at("resolution") {
                Some("STATIC") => "Static",
                Some("DNS" | "DNS_ROUND_ROBIN") => "DNS",
                _ => "None",
            },
            selector: selector.collect(),
        }
    }

    fn write_service(&self, object: &Object, service: &ServiceName, output: &mut Output) {
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| {
                let fields = [
                    ("name", if port.name.is_empty() { Value::Null } else { port.name.as_str().into() }),
                    ("port", port.number.into()),
                    ("protocol", "TCP".into()),
                    ("appProtocol", app_protocol(port.protocol).into()),
                    ("targetPort", port.target.map_or(Value::Null, Value::from)),
                ];
                compact(fields).into()
            })
            .collect();
        let spec = compact([("selector", self.selector.clone().into()), ("ports", ports.into())]);
        let name = output.add(object, "Service", &service.namespace, &service.name, spec.into());
        for (number, slice) in (1..).zip(self.slices(&name)) {
            output.add(object, "EndpointSlice", &service.namespace, &format!("{name}-{number}"), slice);
        }
    }

    /// The EndpointSlices of a Service: each is of one family of addresses, and has one number for each port.
    fn slices(&self, service: &str) -> Vec<Value> {
        let mut slices: BTreeMap<(bool, Vec<u64>), Vec<Value>> = BTreeMap::new();
        for endpoint in &self.endpoints {
            let Ok(address) = endpoint.address.parse::<IpAddr>() else { continue };
            let number = |port: &Port<'_>| {
                endpoint.ports.get(&port.name).copied().or(port.target).unwrap_or(port.number)
            };
            let numbers = self.ports.iter().map(number).collect();
            let fields = [
                ("addresses", json!([address.to_string()])),
                ("conditions", json!({"ready": true})),
                ("zone", endpoint.zone.map_or(Value::Null, Value::from)),
            ];
            slices.entry((address.is_ipv6(), numbers)).or_default().push(compact(fields).into());
        }
        let slice = |((is_ipv6, numbers), endpoints): ((bool, Vec<u64>), Vec<Value>)| {
            let ports: Vec<Value> = self
                .ports
                .iter()
                .zip(numbers)
                .map(|(port, number)| json!({"name": port.name, "port": number, "protocol": "TCP"}))
                .collect();
            json!({
                "labels": {
                    "kubernetes.io/service-name": service,
                    "endpointslice.kubernetes.io/managed-by": MANAGED_BY,
                },
                "addressType": if is_ipv6 { "IPv6" } else { "IPv4" },
                "ports": ports,
                "endpoints": endpoints,
            })
        };
        slices.into_iter().map(slice).collect()
    }

    fn write_external(&self, object: &Object, hosts: &[&str], output: &mut Output) {
        let port = |port: &Port<'_>| {
            Value::from(compact([
                ("name", port.name.as_str().into()),
                ("number", port.number.into()),
                ("protocol", port.protocol.into()),
                ("targetPort", port.target.map_or(Value::Null, Value::from)),
            ]))
        };
        let endpoint = |endpoint: &Endpoint<'_>| {
            let ports: Map<String, Value> =
                endpoint.ports.iter().map(|(name, number)| (name.clone(), (*number).into())).collect();
            Value::from(compact([
                ("address", endpoint.address.as_str().into()),
                ("ports", ports.into()),
                ("zone", endpoint.zone.map_or(Value::Null, Value::from)),
            ]))
        };
        let spec = compact([
            ("hosts", hosts.into()),
            ("addresses", self.addresses.clone().into()),
            ("ports", self.ports.iter().map(port).collect::<Vec<_>>().into()),
            ("resolution", self.resolution.into()),
            ("endpoints", self.endpoints.iter().map(endpoint).collect::<Vec<_>>().into()),
            ("workloadSelector", compact([("labels", self.selector.clone().into())]).into()),
        ]);
        output.add(object, "ExternalService", &object.namespace, &object.name, spec.into());
    }

    /// What an ExternalService has and a Service has not.
    fn drop_what_services_lack(&self, spec: &Node) {
        if let Some(node) = spec.field("addresses").filter(|node| !node.items().is_empty()) {
            node.drop("a Service has the address that the cluster gives it", "dial it by its name");
        }
    }
}

fn read_endpoint<'a>(endpoint: &'a Node, known: &[Port<'_>]) -> Option<Endpoint<'a>> {
    for (field, why) in [
        ("network", "all endpoints are dialled at their address"),
        ("labels", "no subsets are made of endpoints without pods"),
        ("serviceAccount", "an endpoint without a pod has no identity in the mesh"),
        ("weight", "endpoints are chosen by their latency and load"),
    ] {
        if let Some(node) = endpoint.field(field) {
            node.drop(why, "");
        }
    }
    let ports = endpoint.fields_at("ports").iter().filter(|(name, node)| {
        let is_known = known.iter().any(|port| port.name == *name);
        if !is_known {
            node.drop("the ServiceEntry has no port of this name", "name one of its ports");
        }
        is_known
    });
    let locality = endpoint.field("locality").and_then(|node| Some((node, node.text()?)));
    let zone = locality.and_then(|(node, text)| {
        node.note("of a locality the zone is carried", "");
        text.split('/').nth(1)
    });
    Some(Endpoint {
        address: endpoint.text_at("address")?.to_owned(),
        ports: ports.filter_map(|(name, node)| Some((name.clone(), node.number()?))).collect(),
        zone,
    })
}
