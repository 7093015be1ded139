//! The objects of a large cluster, as big as real ones are, and how they change.

use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// Zones, Nodes in each of them.
const ZONES: [&str; 3] = ["a", "b", "c"];
const NODES: usize = 100;

/// Services and the Pods behind them.
pub struct Mesh {
    pub services: Vec<Service>,
    namespaces: usize,
    addresses: u32,
    changes: usize,
}

pub struct Service {
    pub namespace: String,
    pub name: String,
    pub cluster_ip: Ipv4Addr,
    pub pods: Vec<Pod>,
}

pub struct Pod {
    pub name: String,
    pub address: Ipv4Addr,
}

/// One event of a watch.
pub struct Event {
    pub resource: &'static str,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub kind: &'static str,
    pub object: Value,
}

/// A Pod that was replaced by another one.
pub struct Change {
    /// The new one's, which none has had before.
    pub address: Ipv4Addr,
    pub events: Vec<Event>,
}

impl Mesh {
    pub fn new(services: usize, pods: usize, namespaces: usize) -> Self {
        let mut mesh = Self { services: Vec::new(), namespaces, addresses: 0, changes: 0 };
        for at in 0..services {
            let name = format!("service-{at}");
            let behind = (0..pods).map(|_| mesh.pod(&name)).collect();
            let [.., a, b] = (at as u32 + 1).to_be_bytes();
            let namespace = format!("team-{}", at % namespaces);
            mesh.services.push(Service {
                namespace,
                name,
                cluster_ip: Ipv4Addr::new(10, 96, a, b),
                pods: behind,
            });
        }
        mesh
    }

    /// Every object there is, by resource.
    pub fn objects(&self) -> Vec<(&'static str, Value)> {
        let mut objects = Vec::new();
        for at in 0..self.namespaces {
            let labels = json!({"weft.mesh/inject": "enabled"});
            objects
                .push(("namespaces", json!({"metadata": {"name": format!("team-{at}"), "labels": labels}})));
        }
        for at in 0..NODES {
            let labels = json!({"topology.kubernetes.io/zone": ZONES[at % ZONES.len()]});
            objects.push(("nodes", json!({"metadata": {"name": format!("node-{at}"), "labels": labels}})));
        }
        for service in &self.services {
            let account = json!({"metadata": {"name": service.name, "namespace": service.namespace}});
            objects.push(("serviceaccounts", account));
            objects.push(("services", service.object()));
            objects.push(("endpointslices", service.slice()));
            objects.extend(service.pods.iter().map(|pod| ("pods", service.pod_object(pod))));
        }
        objects
    }

    /// Replaces a Pod of the next service: each fiftieth time of the first one, which every proxy watches.
    pub fn change(&mut self) -> Change {
        let count = self.services.len();
        let at = if self.changes.is_multiple_of(50) { 0 } else { self.changes.wrapping_mul(7919) % count };
        self.changes += 1;
        let new = self.pod(&self.services[at].name.clone());
        let address = new.address;
        let service = &mut self.services[at];
        let place = self.changes % service.pods.len();
        let old = std::mem::replace(&mut service.pods[place], new);
        let new = &service.pods[place];
        let events = vec![
            Event { resource: "pods", kind: "ADDED", object: service.pod_object(new) },
            Event { resource: "endpointslices", kind: "MODIFIED", object: service.slice() },
            Event { resource: "pods", kind: "DELETED", object: service.pod_object(&old) },
        ];
        Change { address, events }
    }

    fn pod(&mut self, service: &str) -> Pod {
        self.addresses += 1;
        let [_, a, b, c] = self.addresses.to_be_bytes();
        Pod {
            name: format!("{service}-7d9c6b8f4-{:05x}", self.addresses),
            address: Ipv4Addr::new(11, a, b, c),
        }
    }
}

impl Service {
    fn object(&self) -> Value {
        json!({
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": {"app": self.name}, "managedFields": fields()},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": self.cluster_ip,
                "clusterIPs": [self.cluster_ip],
                "selector": {"app": self.name},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            },
        })
    }

    fn slice(&self) -> Value {
        let endpoints: Vec<Value> = self.pods.iter().map(|pod| json!({
            "addresses": [pod.address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": node(pod),
            "targetRef": {"kind": "Pod", "name": pod.name, "namespace": self.namespace, "uid": pod.name},
            "zone": ZONES[0],
        })).collect();
        json!({
            "metadata": {
                "name": format!("{}-abcde", self.name),
                "namespace": self.namespace,
                "labels": {"kubernetes.io/service-name": self.name, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "managedFields": fields(),
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        })
    }

    fn pod_object(&self, pod: &Pod) -> Value {
        let environment: Vec<Value> = (0..20)
            .map(|at| json!({"name": format!("SETTING_{at}"), "value": "some text of an ordinary length"}))
            .collect();
        json!({
            "metadata": {
                "name": pod.name,
                "namespace": self.namespace,
                "uid": pod.name,
                "labels": {"app": self.name, "pod-template-hash": "7d9c6b8f4", "weft.mesh/injected": "true", "team": self.namespace},
                "annotations": {"weft.mesh/injector-version": "0.1.0"},
                "managedFields": fields(),
            },
            "spec": {
                "serviceAccountName": self.name,
                "nodeName": node(pod),
                "initContainers": [{"name": "weft-proxy", "restartPolicy": "Always", "image": "weft.mesh/proxy:0.1.0", "env": environment}],
                "containers": [{"name": "app", "image": "example.test/app:1", "env": environment, "ports": [{"name": "http", "containerPort": 8080}]}],
            },
            "status": {
                "phase": "Running",
                "podIP": pod.address,
                "podIPs": [{"ip": pod.address}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
            },
        })
    }
}

fn node(pod: &Pod) -> String {
    format!("node-{}", usize::from(pod.address.octets()[3]) % NODES)
}

/// What the API server keeps with each object of who wrote which field: half of a Pod's size, and nothing to a mesh.
fn fields() -> Value {
    let owned: serde_json::Map<String, Value> =
        (0..40).map(|at| (format!("f:field-{at}"), json!({}))).collect();
    json!([{"manager": "kube-controller-manager", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": owned}}])
}
