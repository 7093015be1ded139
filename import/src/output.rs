//! What is written: objects under names of their own, in the order in which they can be applied. What each of them
//! says is decided elsewhere.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::object::Object;

/// API group and version of Gateway API.
pub(crate) const GATEWAY: &str = "gateway.networking.k8s.io";

/// Kinds, with their API versions, in the order in which they are written: what is referred to comes first.
const KINDS: &[(&str, &str)] = &[
    ("Service", "v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
    ("ExternalService", "weft.mesh/v1alpha1"),
    ("Gateway", "gateway.networking.k8s.io/v1"),
    ("ListenerSet", "gateway.networking.k8s.io/v1"),
    ("ReferenceGrant", "gateway.networking.k8s.io/v1"),
    ("HTTPRoute", "gateway.networking.k8s.io/v1"),
    ("GRPCRoute", "gateway.networking.k8s.io/v1"),
    ("TLSRoute", "gateway.networking.k8s.io/v1"),
    ("TCPRoute", "gateway.networking.k8s.io/v1"),
    ("BackendTLSPolicy", "gateway.networking.k8s.io/v1"),
    ("TrafficPolicy", "policy.weft.mesh/v1alpha1"),
    ("BackendPolicy", "policy.weft.mesh/v1alpha1"),
];

/// How many Services a ReferenceGrant may name.
const MAX_GRANTED: usize = 16;
/// The longest name of an object.
const MAX_NAME: usize = 253;

#[derive(Debug, Default)]
pub(crate) struct Output {
    /// By rank of the kind, namespace and name.
    objects: BTreeMap<(usize, String, String), Value>,
    /// Who may refer to what: (from kind, from namespace, to namespace) → names of Services.
    grants: BTreeMap<(String, String), BTreeMap<String, Vec<String>>>,
}

impl Output {
    /// Adds an object that was made of `origin`, and says its name: the one that was asked for, or with a number after it
    /// where that is taken.
    pub fn add(&mut self, origin: &Object, kind: &str, namespace: &str, name: &str, spec: Value) -> String {
        let (rank, api_version) = rank(kind);
        let name = self.free(rank, namespace, name);
        let mut metadata = origin.inherited();
        metadata.insert("name".into(), name.as_str().into());
        metadata.insert("namespace".into(), namespace.into());
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
        match (kind, spec) {
            // It has no `spec`.
            ("EndpointSlice", Value::Object(mut spec)) => {
                if let Some(Value::Object(labels)) = spec.remove("labels") {
                    let metadata = object["metadata"].as_object_mut().expect("made above");
                    let own = metadata.entry("labels").or_insert_with(|| Map::new().into());
                    own.as_object_mut().expect("a mapping").extend(labels);
                }
                object.as_object_mut().expect("made above").extend(spec);
            }
            (_, spec) => object["spec"] = spec,
        }
        self.objects.insert((rank, namespace.to_owned(), name.clone()), object);
        name
    }

    fn free(&self, rank: usize, namespace: &str, name: &str) -> String {
        let name = &name[..name.len().min(MAX_NAME - 4)];
        let taken = |name: &str| self.objects.contains_key(&(rank, namespace.to_owned(), name.to_owned()));
        let mut free = name.to_owned();
        for number in 2.. {
            if !taken(&free) {
                break;
            }
            free = format!("{name}-{number}");
        }
        free
    }

    /// Lets routes of `kind` in namespace `from` name a Service of another namespace, `to`.
    pub fn grant(&mut self, kind: &str, from: &str, to: &str, service: &str) {
        let names = self.grants.entry((from.to_owned(), to.to_owned())).or_default();
        let names = names.entry(kind.to_owned()).or_default();
        if !names.iter().any(|name| name == service) {
            names.push(service.to_owned());
        }
    }

    /// All objects, in the order in which they can be applied.
    pub fn finish(mut self) -> Vec<Value> {
        let (rank, api_version) = rank("ReferenceGrant");
        for ((from, to), kinds) in std::mem::take(&mut self.grants) {
            let mut services: Vec<&String> = kinds.values().flatten().collect();
            services.sort();
            services.dedup();
            for (number, services) in (1..).zip(services.chunks(MAX_GRANTED)) {
                let name = match number {
                    1 => format!("routes-of-{from}"),
                    number => format!("routes-of-{from}-{number}"),
                };
                let grant = json!({
                    "apiVersion": api_version,
                    "kind": "ReferenceGrant",
                    "metadata": {"name": name, "namespace": to},
                    "spec": {
                        "from": kinds.keys().map(|kind| json!({"group": GATEWAY, "kind": kind, "namespace": from}))
                            .collect::<Vec<_>>(),
                        "to": services.iter().map(|name| json!({"group": "", "kind": "Service", "name": name}))
                            .collect::<Vec<_>>(),
                    },
                });
                self.objects.insert((rank, to.clone(), name), grant);
            }
        }
        self.objects.into_values().collect()
    }
}

fn rank(kind: &str) -> (usize, &'static str) {
    let rank =
        KINDS.iter().position(|(known, _)| *known == kind).expect("every kind that is made is in KINDS");
    (rank, KINDS[rank].1)
}

/// A mapping without what is empty: no `filters: []` where there are none.
pub(crate) fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    let said = fields.into_iter().filter(|(_, value)| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    });
    said.map(|(name, value)| (name.to_owned(), value)).collect()
}
