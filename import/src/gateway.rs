//! Gateway of Istio → Gateway of Gateway API: a listener for each host of each server. Beyond 64 of them, ListenerSets.

use serde_json::{Value, json};

use crate::object::Object;
use crate::output::{GATEWAY, Output, object as compact};
use crate::tree::Node;
use crate::world::dns_label;

/// The class of the Gateways that are written.
const CLASS: &str = "weft";
/// How many listeners a Gateway, or a ListenerSet, may have.
const MAX_LISTENERS: usize = 64;

/// A listener as a VirtualService sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub name: String,
    pub port: u16,
    /// Requests can be read at it.
    pub is_http: bool,
    /// Empty: any.
    pub hostname: String,
    /// It sends everybody to https.
    pub is_redirect: bool,
    /// What it stands in: kind and name.
    pub holder: (&'static str, String),
}

/// A listener, with where it comes from: the place of the host in its server.
struct Plan {
    name: String,
    port: u16,
    host: usize,
    /// Of whose routes it takes: a namespace, `.` or `*`.
    namespace: String,
    /// Empty: any.
    hostname: String,
}

/// The listeners that a Gateway becomes.
pub(crate) fn listeners(object: &Object) -> Vec<Listener> {
    let Some(spec) = object.spec() else { return Vec::new() };
    let servers: Vec<Option<Server<'_>>> = spec.items_at("servers").iter().map(Server::read).collect();
    let numbered = plans(object, &servers).into_iter().enumerate();
    let listener = |(at, (plan, server)): (usize, (Plan, &Server<'_>))| Listener {
        name: plan.name,
        port: plan.port,
        is_http: server.protocol.starts_with("HTTP"),
        hostname: plan.hostname,
        is_redirect: server.is_redirect,
        holder: holder(object, at),
    };
    numbered.map(listener).collect()
}

/// What the listener at this place stands in.
fn holder(object: &Object, at: usize) -> (&'static str, String) {
    match at / MAX_LISTENERS {
        0 => ("Gateway", object.name.clone()),
        set => ("ListenerSet", format!("{}-{}", object.name, set + 1)),
    }
}

/// The listeners of the servers that can be carried, each with its server.
fn plans<'a, 'b>(object: &Object, servers: &'b [Option<Server<'a>>]) -> Vec<(Plan, &'b Server<'a>)> {
    let spec = &object.root.json()["spec"];
    let mut plans: Vec<(Plan, &Server<'_>)> = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        let Some(server) = server else { continue };
        let said = &spec["servers"][at];
        let port = server.port;
        let base = match dns_label(said["port"]["name"].as_str().unwrap_or_default()) {
            base if base.is_empty() => format!("port-{port}"),
            base => base,
        };
        for (host, text) in said["hosts"].as_array().into_iter().flatten().enumerate() {
            let (namespace, hostname) = split_host(text.as_str().unwrap_or_default());
            let hostname = if server.protocol == "TCP" { String::new() } else { hostname };
            // Gateway API has one listener for a port, protocol and host.
            if plans.iter().any(|(plan, _)| plan.port == port && plan.hostname == hostname) {
                continue;
            }
            let taken = |name: &str| plans.iter().any(|(plan, _)| plan.name == name);
            let mut name = base.clone();
            for number in 2.. {
                if !taken(&name) {
                    break;
                }
                name = format!("{base}-{number}");
            }
            plans.push((Plan { name, port, host, namespace, hostname }, server));
        }
    }
    plans
}

/// `namespace/host`, `./host`, `*/host` or `host`.
fn split_host(text: &str) -> (String, String) {
    let (namespace, host) = text.split_once('/').unwrap_or(("*", text));
    (namespace.to_owned(), if host == "*" { String::new() } else { host.to_owned() })
}

fn listener_protocol(protocol: &str) -> Option<&'static str> {
    match protocol {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "GRPC-Web" => Some("HTTP"),
        "HTTPS" => Some("HTTPS"),
        "TLS" => Some("TLS"),
        "TCP" | "MONGO" | "REDIS" | "MYSQL" => Some("TCP"),
        _ => None,
    }
}

pub(crate) fn import(object: &Object, output: &mut Output) {
    let Some(spec) = object.spec() else { return };
    spec.note(
        format!("it becomes a Gateway of class {CLASS}; this version serves routes in the mesh only"),
        "until it serves Gateways, have them served by another implementation: name its class",
    );
    if let Some(selector) = spec.field("selector") {
        selector.carry();
        selector
            .note(format!("left out: the class of the Gateway ({CLASS}) says who serves it, not labels"), "");
    }
    let servers = spec.items_at("servers");
    let mut written: Vec<Value> = Vec::new();
    let mut redirects: Vec<Value> = Vec::new();
    let read: Vec<Option<Server<'_>>> = servers.iter().map(Server::read).collect();
    let mut holders: Vec<Vec<Value>> = Vec::new();
    for (at, (plan, server)) in plans(object, &read).into_iter().enumerate() {
        let (kind, name) = holder(object, at);
        if server.is_redirect {
            redirects.push(json!({"group": GATEWAY, "kind": kind, "name": name, "sectionName": plan.name}));
        }
        server.read_host(&plan);
        written.push(server.listener(&plan, object));
        if written.len() == MAX_LISTENERS {
            holders.push(std::mem::take(&mut written));
        }
    }
    holders.push(written);
    holders.retain(|listeners| !listeners.is_empty());
    if holders.is_empty() {
        spec.drop("no server of it can be carried", "see its servers");
        return;
    }
    let has_sets = holders.len() > 1;
    for (set, listeners) in holders.into_iter().enumerate() {
        let (kind, name) = holder(object, set * MAX_LISTENERS);
        let spec = match kind {
            "Gateway" if has_sets => json!({
                "gatewayClassName": CLASS,
                "listeners": listeners,
                "allowedListeners": {"namespaces": {"from": "Same"}},
            }),
            "Gateway" => json!({"gatewayClassName": CLASS, "listeners": listeners}),
            _ => json!({
                "parentRef": {"group": GATEWAY, "kind": "Gateway", "name": object.name},
                "listeners": listeners,
            }),
        };
        output.add(object, kind, &object.namespace, &name, spec);
    }
    for parents in redirects.chunks(32) {
        let redirect =
            json!({"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}});
        let spec = json!({"parentRefs": parents, "rules": [{"name": "https", "filters": [redirect]}]});
        output.add(object, "HTTPRoute", &object.namespace, &format!("{}-https-redirect", object.name), spec);
    }
}

/// A server, read.
struct Server<'a> {
    hosts: &'a [Node],
    port: u16,
    protocol: &'static str,
    is_redirect: bool,
    /// Of a listener that knows TLS.
    tls: Value,
}

impl<'a> Server<'a> {
    /// `None`, and a word about it, where no listener can be made of it.
    fn read(node: &'a Node) -> Option<Self> {
        let port = node.field("port")?;
        let number = port.field("number")?.number().and_then(|number| u16::try_from(number).ok())?;
        port.text_at("name");
        let said = port.field("protocol")?;
        let Some(protocol) = listener_protocol(said.text()?) else {
            node.drop("Gateway API has no listener for this protocol", "use HTTP, HTTPS, TLS or TCP");
            return None;
        };
        for (field, why) in [
            ("bind", "a Gateway's addresses are those of its implementation"),
            ("defaultEndpoint", "a listener has no backend of its own"),
            ("name", "it names the server in Istio's own log and metrics alone"),
        ] {
            if let Some(node) = node.field(field) {
                node.drop(why, "");
            }
        }
        if let Some(target) = port.field("targetPort") {
            target.drop("a Gateway listens at the port that it names", "");
        }
        let is_redirect = node.at(&["tls", "httpsRedirect"]).and_then(Node::truth).unwrap_or_default();
        let tls = match node.field("tls") {
            Some(tls) => read_tls(node, tls, protocol)?,
            None if protocol == "TLS" => json!({"mode": "Passthrough"}),
            None => Value::Null,
        };
        if protocol == "HTTPS" && tls["certificateRefs"].is_null() {
            node.drop(
                "a listener for HTTPS needs a certificate in a Secret",
                "put it into one, and name it in credentialName",
            );
            return None;
        }
        // A listener that ends TLS and hands on bytes is one for TLS.
        Some(Server { hosts: node.items_at("hosts"), port: number, protocol, is_redirect, tls })
    }

    fn read_host(&self, plan: &Plan) {
        let Some(node) = self.hosts.get(plan.host) else { return };
        node.text();
        let is_named = |text: &str| !split_host(text).1.is_empty();
        if self.protocol == "TCP" && node.text().is_some_and(is_named) {
            node.note("a listener of TCP does not know which host is meant", "");
        }
    }

    fn listener(&self, plan: &Plan, object: &Object) -> Value {
        let namespaces = match plan.namespace.as_str() {
            "*" => json!({"from": "All"}),
            "." => json!({"from": "Same"}),
            own if own == object.namespace => json!({"from": "Same"}),
            name => json!({
                "from": "Selector",
                "selector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            }),
        };
        let hostname = match plan.hostname.as_str() {
            "" => Value::Null,
            name => name.into(),
        };
        let fields = [
            ("name", plan.name.as_str().into()),
            ("port", plan.port.into()),
            ("protocol", self.protocol.into()),
            ("hostname", hostname),
            ("tls", self.tls.clone()),
            ("allowedRoutes", json!({"namespaces": namespaces})),
        ];
        compact(fields).into()
    }
}

/// `tls` of a listener; null where it has none, `None` and a word about it where the server is lost.
fn read_tls(server: &Node, tls: &Node, protocol: &str) -> Option<Value> {
    tls.fields();
    for field in ["serverCertificate", "privateKey", "caCertificates", "caCrl"] {
        if let Some(node) = tls.field(field) {
            node.drop("files of a proxy's container are not read", "put them into a Secret or a ConfigMap");
        }
    }
    for field in ["minProtocolVersion", "maxProtocolVersion", "cipherSuites"] {
        if let Some(node) = tls.field(field) {
            node.drop(
                "Gateway API leaves it to options of each implementation",
                "see spec.listeners[].tls.options",
            );
        }
    }
    for field in ["subjectAltNames", "verifyCertificateSpki", "verifyCertificateHash", "caCertCredentialName"]
    {
        if let Some(node) = tls.field(field) {
            node.drop(
                "clients' certificates are verified by spec.tls.frontend, which is not written",
                "write it by hand",
            );
        }
    }
    let mut names: Vec<&str> = tls.text_at("credentialName").into_iter().collect();
    names.extend(tls.items_at("credentialNames").iter().filter_map(Node::text));
    let references: Vec<Value> =
        names.iter().map(|name| json!({"group": "", "kind": "Secret", "name": name})).collect();
    let mode = tls.field("mode");
    let passes = match (mode.and_then(Node::text), protocol) {
        (_, "HTTP" | "TCP") => return Some(Value::Null),
        (Some("PASSTHROUGH"), _) => true,
        (Some("AUTO_PASSTHROUGH" | "ISTIO_MUTUAL"), _) => {
            server.drop("it is a gateway between meshes of Istio's", "link clusters by Weft's own means");
            return None;
        }
        (Some("MUTUAL" | "OPTIONAL_MUTUAL"), _) => {
            mode.expect("it was read above").drop(
                "the listener asks clients for no certificate",
                "write spec.tls.frontend, with a ConfigMap that has the authorities",
            );
            false
        }
        (None | Some("SIMPLE"), _) => false,
        (Some(_), _) => {
            server.drop("its mode of TLS is not known to the importer", "use SIMPLE, MUTUAL or PASSTHROUGH");
            return None;
        }
    };
    match (passes, protocol) {
        (true, "HTTPS") => {
            server.drop(
                "a listener for HTTPS ends TLS: what passes is for one of protocol TLS",
                "set protocol: TLS",
            );
            None
        }
        (true, _) => Some(json!({"mode": "Passthrough"})),
        (false, _) if references.is_empty() => Some(Value::Null),
        (false, _) => Some(json!({"mode": "Terminate", "certificateRefs": references})),
    }
}
