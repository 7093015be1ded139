//! Whether a cluster can take the mesh: its version, its nodes, who asks, and who is there already.

use std::collections::BTreeSet;

use super::facts::{Access, Facts, Known, Node, Server, WebhookConfiguration};
use super::finding::{Breach, Check, Stage, judge};
use crate::names::{CNI_TAINT, GATEWAY_API, INJECT, WEBHOOK};

/// Kubernetes 1.29 was the first to run native sidecars without a feature gate.
const KUBERNETES: [u64; 2] = [1, 29];
/// The oldest that Kubernetes itself supports.
const LINUX: [u64; 2] = [4, 19];
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// Namespaces with these belong to other meshes: label or annotation, and whose it is.
const OTHERS: [(&str, &str, &str); 4] = [
    ("istio-injection", "enabled", "Istio"),
    ("istio.io/dataplane-mode", "ambient", "Istio"),
    ("linkerd.io/inject", "enabled", "Linkerd"),
    ("kuma.io/sidecar-injection", "enabled", "Kuma"),
];

pub const CHECKS: &[Check] = &[
    Check {
        name: "kubernetes-version",
        what: "the API server is reached and is Kubernetes 1.29 or later",
        why: "proxies are native sidecars, which older versions do not start before the application",
        stage: Stage::Both,
        look: version,
    },
    Check {
        name: "nodes",
        what: "nodes run Linux 4.19 or later on amd64 or arm64, with kubelets of 1.29 or later",
        why: "pods on other nodes cannot be meshed",
        stage: Stage::Both,
        look: nodes,
    },
    Check {
        name: "permissions",
        what: "you may make all that the mesh consists of",
        why: "the installation would stop half-way",
        stage: Stage::Before,
        look: permissions,
    },
    Check {
        name: "namespace-pod-security",
        what: "Pod Security lets the mesh's own pods into its namespace",
        why: "their pods would be refused",
        stage: Stage::Before,
        look: own_pod_security,
    },
    Check {
        name: "one-mesh",
        what: "no other webhook answers to our label, and no namespace belongs to two meshes",
        why: "two proxies in a pod redirect the same connections to each other",
        stage: Stage::Both,
        look: one_mesh,
    },
    Check {
        name: "gateway-api",
        what: "the Gateway API's CustomResourceDefinitions are there, at 1.6 or later",
        why: "routes are written with them; without, all else works",
        stage: Stage::Both,
        look: gateway_api,
    },
];

fn version(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.server, |Server { git_version }| match numbers(git_version) {
        Some(found) if found >= KUBERNETES => Vec::new(),
        _ => vec![Breach::failed("", format!("it is {git_version}"), "upgrade the cluster")],
    })
}

fn nodes(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.nodes, |nodes| nodes.iter().filter_map(node).collect())
}

fn node(node: &Node) -> Option<Breach> {
    let (at, info) = (format!("node {}", node.metadata.name), &node.status.node_info);
    if info.operating_system != "linux" {
        let found = format!("it runs {}: its pods stay without a proxy", info.operating_system);
        return Some(Breach::notice(at, found, "keep what must be meshed off it by a nodeSelector"));
    }
    if !ARCHITECTURES.contains(&info.architecture.as_str()) {
        let found = format!("its processors are {}; there are no images for them", info.architecture);
        return Some(Breach::failed(at, found, "keep meshed pods off it by a nodeSelector"));
    }
    if numbers(&info.kernel_version).is_some_and(|found| found < LINUX) {
        let found = format!("its kernel is {}", info.kernel_version);
        return Some(Breach::failed(at, found, "upgrade its system to Linux 4.19 or later"));
    }
    numbers(&info.kubelet_version).filter(|found| *found < KUBERNETES).map(|_| {
        let found = format!("its kubelet is {}", info.kubelet_version);
        Breach::failed(at, found, "upgrade it, or give its pods the annotation weft.mesh/sidecar: classic")
    })
}

fn permissions(facts: &Facts) -> Vec<Breach> {
    let (mut breaches, mut unknown) = (Vec::new(), BTreeSet::new());
    for access in facts.access.iter().filter(|access| access.account.is_none()) {
        match &access.allowed {
            Known::Known(true) => {}
            Known::Known(false) if access.verb == "escalate" => breaches.push(Breach::warning(
                "",
                format!("you may not escalate {}: Kubernetes lets you give only rights that you have", access.resource),
                "install as a cluster administrator, or have every right that the roles in `weft install --print` give",
            )),
            Known::Known(false) => breaches.push(Breach::failed(
                "",
                format!("you may not {}", right(access)),
                "install as a cluster administrator, or have one grant it",
            )),
            Known::Unknown { unknown: why } => {
                unknown.insert(why.clone());
            }
        }
    }
    breaches.extend(
        unknown
            .into_iter()
            .flat_map(|why| judge::<()>("", &Known::Unknown { unknown: why }, |()| Vec::new())),
    );
    breaches
}

/// As in "you may not …".
pub fn right(access: &Access) -> String {
    let name = access.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let place = match &access.namespace {
        Some(namespace) => format!("in namespace {namespace}"),
        None => "in the cluster".to_owned(),
    };
    format!("{} {}{name} {place}", access.verb, access.resource)
}

fn own_pod_security(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.namespaces, |namespaces| {
        let own = namespaces.iter().find(|one| one.metadata.name == facts.namespace);
        let level = own.and_then(|own| own.metadata.label("pod-security.kubernetes.io/enforce"));
        match level {
            Some(level @ ("baseline" | "restricted")) if facts.cni => vec![Breach::failed(
                format!("namespace {}", facts.namespace),
                format!("it enforces {level}, and the CNI agent writes into folders of its node"),
                format!(
                    "kubectl label --overwrite namespace {} pod-security.kubernetes.io/enforce=privileged",
                    facts.namespace
                ),
            )],
            _ => Vec::new(),
        }
    })
}

fn one_mesh(facts: &Facts) -> Vec<Breach> {
    let mut breaches = judge("webhooks", &facts.webhooks, |webhooks| {
        webhooks.iter().filter_map(|one| webhook(facts, one)).collect()
    });
    breaches.extend(judge("namespaces", &facts.namespaces, |namespaces| {
        let ours = namespaces.iter().filter(|one| one.metadata.label(INJECT) == Some("enabled"));
        ours.flat_map(|namespace| {
            OTHERS.iter().filter_map(|(key, value, whose)| {
                let metadata = &namespace.metadata;
                let (held, verb) = match (metadata.label(key), metadata.annotation(key)) {
                    (Some(held), _) => (held, "label"),
                    (None, held) => (held?, "annotate"),
                };
                (held == *value).then(|| {
                    Breach::failed(
                        format!("namespace {}", metadata.name),
                        format!("{key}: {value} gives it to {whose} too"),
                        format!("kubectl {verb} namespace {} {key}- (or label it {INJECT}-)", metadata.name),
                    )
                })
            })
        })
        .collect()
    }));
    breaches
}

/// A second mesh of our kind, or somebody else's webhook that selects by our label.
fn webhook(facts: &Facts, configuration: &WebhookConfiguration) -> Option<Breach> {
    let name = &configuration.metadata.name;
    let at = format!("MutatingWebhookConfiguration {name}");
    if name == WEBHOOK {
        let mut services = configuration.webhooks.iter().filter_map(|one| one.client_config.service.as_ref());
        let elsewhere = services.find(|service| service.namespace != facts.namespace)?;
        return Some(Breach::failed(
            at,
            format!("a mesh is installed in namespace {}", elsewhere.namespace),
            format!("name it by --namespace {}, or uninstall it first", elsewhere.namespace),
        ));
    }
    let mut on_pods = configuration.webhooks.iter().filter(|webhook| {
        webhook.rules.iter().any(|rule| rule.resources.iter().any(|one| one == "pods" || one == "*"))
    });
    let by_ours = on_pods.find(|webhook| {
        let key = format!("{INJECT:?}");
        [&webhook.namespace_selector, &webhook.object_selector]
            .iter()
            .any(|one| one.to_string().contains(&key))
    })?;
    Some(Breach::failed(
        at,
        format!("its webhook {} selects pods by our label {INJECT}", by_ours.name),
        format!("kubectl delete mutatingwebhookconfiguration {name}, if nobody needs it"),
    ))
}

fn gateway_api(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.definitions, |crds| {
        let install = format!(
            "kubectl apply --server-side -f \
             https://github.com/kubernetes-sigs/gateway-api/releases/download/v{GATEWAY_API}/standard-install.yaml"
        );
        let Some(crd) = crds.iter().find(|crd| crd.name == "httproutes.gateway.networking.k8s.io") else {
            return vec![Breach::warning("", "they are not there", install)];
        };
        let bundle = crd.annotation("gateway.networking.k8s.io/bundle-version").unwrap_or("unknown");
        let channel = crd.annotation("gateway.networking.k8s.io/channel").unwrap_or("unknown");
        match (numbers(bundle), numbers(GATEWAY_API)) {
            (Some(found), Some(wanted)) if found >= wanted => Vec::new(),
            _ => vec![Breach::warning("", format!("they are {bundle}, channel {channel}"), install)],
        }
    })
}

/// The nodes that wait for the CNI agent. Not a check of its own: the agent's says it.
pub fn waiting_nodes(nodes: &[Node]) -> Vec<&str> {
    let waits = |node: &&Node| node.spec.taints.iter().any(|taint| taint.key == CNI_TAINT);
    nodes.iter().filter(waits).map(|node| node.metadata.name.as_str()).collect()
}

/// The first two numbers of a version: `v1.36.0+x` is 1 and 36.
pub fn numbers(version: &str) -> Option<[u64; 2]> {
    let mut parts = version.trim_start_matches('v').split(|symbol: char| !symbol.is_ascii_digit());
    Some([parts.next()?.parse().ok()?, parts.next()?.parse().ok()?])
}
