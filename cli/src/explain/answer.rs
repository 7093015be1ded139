//! The whole answer: the decision, who asks, what the other side does, and what is wrong with the objects that took part.

use std::collections::BTreeSet;
use std::fmt;

use control_index::{Key, Kind, Problem};
use control_translate::{Mesh, problems, remarks};
use explain::{Endpoints, Verdict, part};
use policy::{Inbound, Outbound, Protocol, ServiceName, WorkloadName};
use serde::Serialize;

use super::ends::{Client, Place};
use crate::analyze::Found;
use crate::objects::Objects;

/// What `weft explain` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    from: From,
    #[serde(flatten)]
    pub verdict: Verdict,
    server: Vec<Server>,
    problems: Vec<Found>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct From {
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    /// Who it is by mTLS; `None`: it has no proxy, and none of what is explained happens to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// What an endpoint's own proxy does with it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    backend: String,
    port: u16,
    protocol: String,
    /// It arrives by mTLS.
    mtls: bool,
    /// By TLS that ends in the program itself: there is no proxy.
    tls: bool,
}

impl Answer {
    pub fn new(
        objects: &Objects,
        mesh: &Mesh<'_>,
        client: &Client,
        place: &Place,
        decide: impl FnOnce(&Outbound, Endpoints<'_>) -> Verdict,
    ) -> Self {
        let policy = match place {
            Place::Service(service) => mesh.to_service(service.clone(), &client.namespace),
            Place::Address(address) => mesh.outbound(*address, &client.namespace),
        };
        let zone = client.pod.as_ref().and_then(|pod| mesh.index.zone(pod));
        let endpoints = |service: &policy::ServicePort| {
            objects.knows_endpoints().then(|| mesh.endpoints(service, zone.map(|zone| &**zone)))
        };
        let verdict = decide(&policy, &endpoints);
        let server = servers(mesh, &verdict);
        let keys = took_part(objects, client, place, &verdict);
        let found = keys.iter().flat_map(|key| problems(mesh.index, key));
        let problems = found.map(|problem: Problem| Found::of(objects, &problem));
        let noted = keys.iter().flat_map(|key| remarks(mesh.index, key));
        let problems = problems.chain(noted.map(|remark| Found::noted(objects, &remark))).collect();
        Self { from: from(objects, mesh, client), verdict, server, problems }
    }
}

fn from(objects: &Objects, mesh: &Mesh<'_>, client: &Client) -> From {
    let pod = client.pod.as_ref().and_then(|name| objects.index.pod(name));
    let identity = pod.filter(|pod| pod.meshed).map(|pod| {
        let (namespace, account) = (&pod.account.namespace, &pod.account.name);
        format!("spiffe://{}/ns/{namespace}/sa/{account}", mesh.trust_domain)
    });
    let alone = pod.filter(|pod| !pod.meshed);
    let unmeshed = alone.map(|pod| format!("{} has no proxy: nothing of this happens to it", pod.name));
    From {
        namespace: client.namespace.clone(),
        pod: client.pod.as_ref().map(ToString::to_string),
        identity,
        note: client.missing.clone().or(unmeshed),
    }
}

/// One line for each backend and port: its endpoints are alike, or the first one stands for them.
fn servers(mesh: &Mesh<'_>, verdict: &Verdict) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    for backend in &verdict.backends {
        for endpoint in backend.endpoints.iter().flatten() {
            let Some(workload) =
                endpoint.workload.as_ref().and_then(|name| name.parse::<WorkloadName>().ok())
            else {
                continue;
            };
            let Some(port) = endpoint.address.rsplit(':').next().and_then(|port| port.parse().ok()) else {
                continue;
            };
            let Inbound { protocol, .. } = mesh.inbound(&workload, port);
            let server = Server {
                backend: backend.to.clone(),
                port,
                protocol: protocol.to_string(),
                mtls: endpoint.identity.is_some(),
                tls: endpoint.tls.is_some(),
            };
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
    }
    servers
}

/// The objects whose problems may have to do with the answer.
fn took_part(objects: &Objects, client: &Client, place: &Place, verdict: &Verdict) -> BTreeSet<Key> {
    let service = |name: &ServiceName| Key::new(Kind::Service, &name.namespace, &name.name);
    let mut keys = BTreeSet::new();
    if let Place::Service(port) = place {
        keys.insert(service(&port.service));
        // Those that were left out say why.
        keys.extend(objects.index.routes_of(&port.service).map(|route| route.key.clone()));
    }
    let services = verdict.backends.iter().filter_map(|one| one.to.parse::<policy::ServicePort>().ok());
    keys.extend(services.map(|port| service(&port.service)));
    keys.extend(client.pod.iter().map(|pod| Key::new(Kind::Pod, &pod.namespace, &pod.name)));
    let settings = verdict.backends.iter().flat_map(|one| &one.settings).chain(&verdict.settings);
    keys.extend(settings.filter_map(|setting| objects.key(setting.by.as_deref()?)));
    // Policies that say nothing here may have been meant to.
    let on: Vec<Key> =
        keys.iter().flat_map(|key| objects.index.policies_on(key)).map(|one| one.key.clone()).collect();
    keys.extend(on);
    keys
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        let From { namespace, pod, identity, note } = &self.from;
        let who = pod.as_ref().map_or_else(|| format!("namespace {namespace}"), |pod| format!("Pod {pod}"));
        let mut client = vec![vec![who, identity.clone().unwrap_or_default()]];
        client.extend(note.iter().map(|note| vec![note.clone()]));
        f.write_str(&part("From", &client))?;
        let server = self.server.iter().map(|one| {
            let spoken = match one.protocol.as_str() {
                word if word == Protocol::Auto.as_str() => "finds out what is spoken".to_owned(),
                word => format!("speaks {word}"),
            };
            let by = match (one.mtls, one.tls) {
                (true, _) => "takes everyone's, the mesh's by mTLS",
                (false, true) => "has no proxy: by TLS to the program",
                (false, false) => "has no proxy: in plaintext",
            };
            vec![format!("{} port {}", one.backend, one.port), spoken, by.to_owned()]
        });
        f.write_str(&part("Server", &server.collect::<Vec<_>>()))?;
        let problems = self.problems.iter().map(|problem| vec![problem.to_string()]);
        f.write_str(&part("Problems", &problems.collect::<Vec<_>>()))
    }
}
