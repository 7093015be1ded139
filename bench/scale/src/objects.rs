//! The mesh as Kubernetes' objects, as large as real ones: with probes, volumes, statuses and `managedFields`. Most of it is
//! never read, which is the point: a Pod of 12 KB is what control must skip through.
//!
//! Templates have `@name@` where text goes and `"#name#"` where any JSON does.

use crate::mesh::{Phase, Pod, Service, zone};
use serde_json::Value;
use std::sync::LazyLock;

static NAMESPACE: LazyLock<String> = LazyLock::new(|| compact(include_str!("objects/namespace.json")));
static NODE: LazyLock<String> = LazyLock::new(|| compact(include_str!("objects/node.json")));
static SERVICE_ACCOUNT: LazyLock<String> =
    LazyLock::new(|| compact(include_str!("objects/serviceaccount.json")));
static SERVICE: LazyLock<String> = LazyLock::new(|| compact(include_str!("objects/service.json")));
static SLICE: LazyLock<String> = LazyLock::new(|| compact(include_str!("objects/endpointslice.json")));
static ENDPOINT: LazyLock<String> = LazyLock::new(|| compact(include_str!("objects/endpoint.json")));
static CONFIG_MAP: LazyLock<String> = LazyLock::new(|| compact(include_str!("objects/configmap.json")));
static POD: LazyLock<String> = LazyLock::new(|| compact(include_str!("objects/pod.json")));

pub fn namespace(name: &str) -> String {
    fill(&NAMESPACE, &[("@name@", name), ("@uid@", &uid("namespace", name))])
}

pub fn node(number: usize) -> String {
    let name = node_name(number);
    fill(&NODE, &[("@name@", &name), ("@zone@", zone(number)), ("@uid@", &uid("node", &name))])
}

/// Each Service has an account of its name, as which its Pods run.
pub fn service_account(of: &Service) -> String {
    let uid = uid("account", &of.name);
    fill(&SERVICE_ACCOUNT, &[("@name@", &of.name), ("@namespace@", &of.namespace), ("@uid@", &uid)])
}

/// The one that Kubernetes puts into each Namespace.
pub fn config_map(namespace: &str) -> String {
    fill(&CONFIG_MAP, &[("@namespace@", namespace), ("@uid@", &uid("configmap", namespace))])
}

pub fn service(service: &Service) -> String {
    fill(
        &SERVICE,
        &[
            ("@name@", &service.name),
            ("@namespace@", &service.namespace),
            ("@uid@", &uid("service", &service.name)),
            ("@version@", &service.version.to_string()),
            ("@address@", &service.address.to_string()),
            ("@protocol@", if service.http2 { "kubernetes.io/h2c" } else { "http" }),
        ],
    )
}

pub fn endpoint_slice(service: &Service) -> String {
    let endpoints: Vec<String> = service.pods.iter().map(|pod| endpoint(service, pod)).collect();
    fill(
        &SLICE,
        &[
            ("@name@", &service.name),
            ("@namespace@", &service.namespace),
            ("@uid@", &uid("slice", &service.name)),
            ("@owner@", &uid("service", &service.name)),
            ("@version@", &service.slice_version.to_string()),
            ("\"#endpoints#\"", &format!("[{}]", endpoints.join(","))),
        ],
    )
}

pub fn pod(service: &Service, pod: &Pod) -> String {
    let address = match pod.phase {
        Phase::Pending => String::new(),
        _ => pod.address.to_string(),
    };
    let ready = pod.phase == Phase::Ready;
    fill(
        &POD,
        &[
            ("@name@", &pod.name),
            ("@namespace@", &service.namespace),
            ("@service@", &service.name),
            ("@uid@", &pod_uid(pod)),
            ("@owner@", &uid("replicaset", &service.name)),
            ("@version@", &pod.version.to_string()),
            ("@node@", &if pod.phase == Phase::Pending { String::new() } else { node_name(pod.node) }),
            ("@phase@", if pod.phase == Phase::Pending { "Pending" } else { "Running" }),
            ("@address@", &address),
            (
                "\"#addresses#\"",
                &if address.is_empty() { "[]".into() } else { format!(r#"[{{"ip":"{address}"}}]"#) },
            ),
            ("@ready@", if ready { "True" } else { "False" }),
            ("\"#running#\"", if ready { "true" } else { "false" }),
            (
                "\"#deleted#\"",
                if pod.phase == Phase::Terminating { r#""2026-03-02T09:00:00Z""# } else { "null" },
            ),
        ],
    )
}

/// What a token that is bound to the Pod says.
pub fn pod_uid(pod: &Pod) -> String {
    uid("pod", &pod.name)
}

fn endpoint(service: &Service, pod: &Pod) -> String {
    let is = |what: bool| if what { "true" } else { "false" };
    let (ready, ending) = (pod.phase == Phase::Ready, pod.phase == Phase::Terminating);
    fill(
        &ENDPOINT,
        &[
            ("@address@", &pod.address.to_string()),
            ("\"#ready#\"", is(ready)),
            ("\"#serving#\"", is(ready || ending)),
            ("\"#terminating#\"", is(ending)),
            ("@node@", &node_name(pod.node)),
            ("@zone@", zone(pod.node)),
            ("@namespace@", &service.namespace),
            ("@pod@", &pod.name),
            ("@uid@", &pod_uid(pod)),
        ],
    )
}

fn node_name(number: usize) -> String {
    format!("ip-10-0-{}-{}.eu-central-1.compute.internal", number / 256, number % 256)
}

/// In the form of a UUID; names are unique in the mesh.
fn uid(kind: &str, name: &str) -> String {
    let (a, b) = (fnv(kind, name), fnv(name, kind));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

fn fnv(first: &str, second: &str) -> u64 {
    let bytes = first.bytes().chain(second.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn compact(template: &str) -> String {
    serde_json::from_str::<Value>(template).expect("templates are JSON").to_string()
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{Change, Mesh, Size};

    #[test]
    fn everything_is_json_and_filled_in() {
        let mut mesh = Mesh::new(Size { services: 3, pods: 10 });
        mesh.change(Change::Retire { service: 0, pod: 0 });
        let mut texts = vec![namespace("team-000"), node(0)];
        for of in &mesh.services {
            texts.extend([service_account(of), service(of), endpoint_slice(of)]);
            texts.extend(of.pods.iter().map(|one| pod(of, one)));
        }
        assert_eq!(texts.len(), 2 + 3 * 3 + 11);
        for text in texts {
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(value["metadata"]["name"].is_string(), "{value}");
            let rest = text.replace("@sha256", "");
            assert!(!rest.contains('@') && !rest.contains('#'), "{rest}");
        }
    }

    #[test]
    fn pods_are_as_large_as_real_ones() {
        let mesh = Mesh::new(Size { services: 1, pods: 1 });
        let (service, one) = mesh.pods().next().unwrap();
        assert!((8_000..16_000).contains(&pod(service, one).len()));
    }
}
