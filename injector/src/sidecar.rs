//! What is put into a pod: the containers weft-init and weft-proxy, and the volume with which the proxy proves who it
//! is. Pure.
//!
//! Every field that the API server would fill in is written out, so that a second look at the pod finds it as it was.

use crate::{
    config::Config,
    settings::{Amounts, Settings},
    values::{Redirection, Sidecar},
};
use init::plan::{ADMIN_PORT, PROXY_UID};
use policy::identity::TOKEN_AUDIENCE;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The proxy's container.
pub const PROXY: &str = "weft-proxy";
/// The container that redirects the pod's connections.
pub const INIT: &str = "weft-init";
/// The container that proves the redirection which the CNI plugin made.
pub const VALIDATE: &str = "weft-validate";
/// All containers of ours.
pub const OURS: [&str; 3] = [PROXY, INIT, VALIDATE];
/// The volume with the proxy's token and its first trust anchors.
pub const VOLUME: &str = "weft-identity";
/// The ConfigMap with the roots, in each namespace that has injected pods.
pub const TRUST_ROOTS: &str = "weft-trust-roots";
const IDENTITY_FOLDER: &str = "/var/run/weft/identity";
/// Any uid but the proxy's: whose connections are not redirected.
const VALIDATE_UID: u32 = 65532;
/// How long a pod waits for the node's agent to mend what the plugin has not done.
const REPAIR_WAIT: &str = "60s";
/// The kubelet replaces the token when a fifth of this is left.
const TOKEN_SECONDS: u32 = 3600;

/// What runs before everything else: it redirects, or, where the node's CNI plugin does, proves that it was done. No
/// byte of the application leaves a pod in which neither came to its end.
pub fn first(config: &Config, settings: &Settings) -> Value {
    let (name, mut arguments, security) = match settings.redirection {
        Redirection::Init => (INIT, vec!["apply", "--backend", "native"], redirecting()),
        Redirection::Cni => (VALIDATE, vec!["prove", "--wait", REPAIR_WAIT], unprivileged(VALIDATE_UID)),
    };
    let lists = [
        ("--skip-inbound-ports", settings.skip_inbound_ports.to_string()),
        ("--skip-outbound-ports", settings.skip_outbound_ports.to_string()),
        ("--skip-outbound-subnets", settings.skip_outbound_subnets.to_string()),
    ];
    for (flag, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        arguments.extend([*flag, list]);
    }
    json!({
        "name": name,
        "image": config.image("init"),
        "imagePullPolicy": config.image.pull_policy.as_str(),
        "args": arguments,
        "resources": resources(settings),
        "securityContext": security,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}

/// What the rules of nf_tables need, and nothing else.
fn redirecting() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": 0,
        "runAsNonRoot": false,
        "runAsUser": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// What Pod Security calls restricted, and more.
fn unprivileged(uid: u32) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": uid,
        "runAsNonRoot": true,
        "runAsUser": uid,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// The proxy's container for a pod with this grace, which asks for these ports of the application.
pub fn proxy(config: &Config, settings: &Settings, grace_seconds: u64, probed: &BTreeSet<u16>) -> Value {
    let mut container = json!({
        "name": PROXY,
        "image": settings.proxy_image,
        "imagePullPolicy": config.image.pull_policy.as_str(),
        "env": env(config, settings, grace_seconds, probed),
        "ports": [{"containerPort": ADMIN_PORT, "name": "weft-admin", "protocol": "TCP"}],
        "resources": resources(settings),
        "securityContext": unprivileged(PROXY_UID),
        // Ten minutes: as long as control cannot be reached the pod waits, and starting again would help nobody.
        "startupProbe": probe("/ready", 1, 600),
        "readinessProbe": probe("/ready", 5, 3),
        "livenessProbe": probe("/live", 10, 6),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"mountPath": IDENTITY_FOLDER, "name": VOLUME, "readOnly": true}],
    });
    match settings.sidecar {
        Sidecar::Native => container["restartPolicy"] = json!("Always"),
        // The kubelet starts the next container when this has ended; the image has no shell to wait with.
        Sidecar::Classic => {
            container["lifecycle"] =
                json!({"postStart": {"exec": {"command": ["/weft-proxy", "--await-ready"]}}});
        }
    }
    container
}

/// The volume: a token for control alone, and the roots by which control is known.
pub fn volume() -> Value {
    json!({
        "name": VOLUME,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {
                    "audience": TOKEN_AUDIENCE,
                    "expirationSeconds": TOKEN_SECONDS,
                    "path": "token",
                }},
                {"configMap": {"name": TRUST_ROOTS, "items": [{"key": "ca.pem", "path": "ca.pem"}]}},
            ],
        },
    })
}

/// What the CNI plugin reads.
pub fn redirect_annotation(settings: &Settings) -> String {
    json!({
        "skipInboundPorts": settings.skip_inbound_ports,
        "skipOutboundPorts": settings.skip_outbound_ports,
        "skipOutboundSubnets": settings.skip_outbound_subnets,
    })
    .to_string()
}

fn env(config: &Config, settings: &Settings, grace_seconds: u64, probed: &BTreeSet<u16>) -> Vec<Value> {
    let downward = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let drain =
        settings.drain_timeout.as_ref().map_or_else(|| format!("{grace_seconds}s"), ToString::to_string);
    let mut env =
        vec![downward("POD_NAME", "metadata.name"), downward("POD_NAMESPACE", "metadata.namespace")];
    let mut set = |name: &str, value: String| env.push(json!({"name": name, "value": value}));
    // At admission a pod may have no name yet: the kubelet fills it in.
    set("WEFT_PROXY_WORKLOAD", "$(POD_NAMESPACE)/$(POD_NAME)".into());
    set("WEFT_PROXY_CONTROL", config.control.clone());
    set("WEFT_PROXY_TRUST_ANCHORS", format!("{IDENTITY_FOLDER}/ca.pem"));
    set("WEFT_PROXY_TOKEN_FILE", format!("{IDENTITY_FOLDER}/token"));
    set("WEFT_PROXY_TRUST_DOMAIN", config.trust_domain.clone());
    set("WEFT_PROXY_LOG", settings.log_level.to_string());
    set("WEFT_PROXY_ACCESS_LOG", settings.access_log.to_string());
    set("WEFT_PROXY_DRAIN_TIMEOUT", drain);
    if !probed.is_empty() {
        let ports: Vec<_> = probed.iter().map(ToString::to_string).collect();
        set("WEFT_PROXY_TCP_PROBE_PORTS", ports.join(","));
    }
    env
}

fn resources(settings: &Settings) -> Value {
    let of = |amount: fn(&Amounts) -> Option<String>| {
        let given = [("cpu", amount(&settings.cpu)), ("memory", amount(&settings.memory))];
        let given = given.into_iter().filter_map(|(name, amount)| Some((name.to_owned(), json!(amount?))));
        given.collect::<Map<_, _>>()
    };
    let requests = of(|amounts| amounts.request.as_ref().map(ToString::to_string));
    let limits = of(|amounts| amounts.limit.as_ref().map(ToString::to_string));
    let mut resources = Map::new();
    for (name, amounts) in [("limits", limits), ("requests", requests)] {
        if !amounts.is_empty() {
            resources.insert(name.into(), amounts.into());
        }
    }
    resources.into()
}

fn probe(path: &str, period_seconds: u32, failures: u32) -> Value {
    json!({
        "failureThreshold": failures,
        "httpGet": {"path": path, "port": ADMIN_PORT, "scheme": "HTTP"},
        "periodSeconds": period_seconds,
        "successThreshold": 1,
        "timeoutSeconds": 2,
    })
}
