//! The decision about one pod: what it becomes, or why it stays as it is, or why it is refused. Pure.
//!
//! Nothing here depends on the pod's name: at admission most have none yet. A pod that was injected before is laid over
//! with what it would get today, so deciding twice changes nothing.

use crate::{
    Problem,
    config::Config,
    overlay, patch,
    patch::Operation,
    probes,
    settings::{self, Settings},
    sidecar,
    values::{Redirection, Sidecar},
};
use init::plan::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT, PROXY_UID};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// On namespaces (label) and pods (label or annotation): `enabled` or `disabled`.
pub const INJECT: &str = "weft.mesh/inject";
/// Label of the pods that have a proxy.
pub const INJECTED: &str = "weft.mesh/injected";
/// Annotation: which version of the injector it was.
pub const INJECTOR_VERSION: &str = "weft.mesh/injector-version";
/// Annotation: why a pod has no proxy.
pub const NOT_INJECTED: &str = "weft.mesh/not-injected";
/// Annotation that the CNI plugin reads.
pub const REDIRECT: &str = "weft.mesh/redirect";

/// The kubelet marks by this what it runs from files of its own; nothing of such a pod can be changed.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// kubectl logs and exec take the first container without it.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// What Pod Security enforces in a namespace.
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";
/// Kubernetes' own default.
const GRACE_SECONDS: u64 = 30;

/// What is known of the namespace in which a pod is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It gets a proxy. There are no operations where it has all of it already.
    Patch { operations: Vec<Operation>, warnings: Vec<String> },
    /// It stays as it is.
    Skip(Reason),
    /// It is not let in.
    Refuse(Problem),
}

/// Why a pod gets no proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Neither it nor its namespace asks for one.
    NotAsked,
    /// It says that it wants none.
    OptedOut,
    /// It is a static pod's image in the API: the kubelet runs it from a file.
    MirrorPod,
    HostNetwork,
    Windows,
    /// A container runs as the proxy's uid.
    ProxyUid {
        container: String,
    },
    /// A container of ours stands there, put in by somebody else.
    SidecarPresent {
        container: String,
    },
}

impl Reason {
    /// One word, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Reason::NotAsked => "not_asked",
            Reason::OptedOut => "opted_out",
            Reason::MirrorPod => "mirror_pod",
            Reason::HostNetwork => "host_network",
            Reason::Windows => "windows",
            Reason::ProxyUid { .. } => "proxy_uid",
            Reason::SidecarPresent { .. } => "sidecar_present",
        }
    }

    /// Whether the pod says so itself, in an annotation. Not where nobody asked, and not where nothing may be changed.
    pub fn is_noted(&self) -> bool {
        !matches!(self, Reason::NotAsked | Reason::MirrorPod)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotAsked => write!(f, "neither the pod nor its namespace asks for it by {INJECT}: enabled"),
            Reason::OptedOut => write!(f, "{INJECT}: disabled on the pod"),
            Reason::MirrorPod => f.write_str("a static pod: the kubelet runs it from a file on its node"),
            Reason::HostNetwork => f.write_str(
                "hostNetwork: it shares its node's network, where every program's connections would be redirected",
            ),
            Reason::Windows => f.write_str("Windows: the redirection needs Linux"),
            Reason::ProxyUid { container } => write!(
                f,
                "container {container} runs as uid {PROXY_UID}, the proxy's own: its connections would pass by the \
                 proxy; give it another runAsUser"
            ),
            Reason::SidecarPresent { container } => write!(
                f,
                "a container {container} is there already, but not the label {INJECTED}: \"true\"; take the container \
                 out, or leave the pod out by {INJECT}: disabled"
            ),
        }
    }
}

/// Decides about a pod, which may be a pod template: of it only `metadata` and `spec` are looked at.
pub fn decide(config: &Config, namespace: &Namespace, pod: &Value) -> Verdict {
    match verdict(config, namespace, pod) {
        Ok(verdict) => verdict,
        Err(problem) => Verdict::Refuse(problem),
    }
}

/// The operations that leave the reason in the pod.
pub fn note(pod: &Value, reason: &Reason) -> Vec<Operation> {
    if !reason.is_noted() {
        return Vec::new();
    }
    let mut noted = pod.clone();
    set(&mut noted, "annotations", NOT_INJECTED, &reason.to_string());
    patch::between(pod, &noted)
}

fn verdict(config: &Config, namespace: &Namespace, pod: &Value) -> Result<Verdict, Problem> {
    if let Some(reason) = unwanted(namespace, pod)?.or_else(|| unfit(pod)) {
        return Ok(Verdict::Skip(reason));
    }
    let annotations = pod.pointer("/metadata/annotations");
    let settings = Settings::read(config, &namespace.annotations, annotations)?;
    clash(pod)?;
    let meshed = mesh(config, &settings, pod);
    let warnings = warnings(namespace, &settings, pod);
    Ok(Verdict::Patch { operations: patch::between(pod, &meshed), warnings })
}

/// Why nobody wants a proxy in this pod.
fn unwanted(namespace: &Namespace, pod: &Value) -> Result<Option<Reason>, Problem> {
    if pod.pointer("/metadata/annotations").and_then(|all| all.get(MIRROR)).is_some() {
        return Ok(Some(Reason::MirrorPod));
    }
    let [label, annotation] = [wish(pod, "label")?, wish(pod, "annotation")?];
    if let (Some(label), Some(annotation)) = (label, annotation)
        && label != annotation
    {
        return Err(Problem {
            what: format!("{INJECT} of the pod"),
            value: format!("{} as a label and {} as an annotation", word(label), word(annotation)),
            expected: "the same of both; the label is enough".into(),
        });
    }
    Ok(match (label.or(annotation), namespace.labels.get(INJECT).map(String::as_str)) {
        (Some(false), _) => Some(Reason::OptedOut),
        (_, Some("disabled")) => Some(Reason::NotAsked),
        (Some(true), _) | (None, Some("enabled")) => None,
        (None, _) => Some(Reason::NotAsked),
    })
}

/// What the pod says itself, as a label or as an annotation.
fn wish(pod: &Value, kind: &str) -> Result<Option<bool>, Problem> {
    let given = pod.pointer(&format!("/metadata/{kind}s")).and_then(|all| all.get(INJECT));
    match given {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text == "enabled" => Ok(Some(true)),
        Some(Value::String(text)) if text == "disabled" => Ok(Some(false)),
        Some(other) => Err(Problem {
            what: format!("{kind} {INJECT} of the pod"),
            value: other.to_string(),
            expected: "enabled or disabled".into(),
        }),
    }
}

fn word(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

/// Why this pod cannot have a proxy.
fn unfit(pod: &Value) -> Option<Reason> {
    let spec = pod.get("spec")?;
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Some(Reason::HostNetwork);
    }
    let system =
        [spec.pointer("/os/name"), spec.get("nodeSelector").and_then(|all| all.get("kubernetes.io/os"))];
    if system.into_iter().flatten().any(|name| name == "windows") {
        return Some(Reason::Windows);
    }
    let is_injected = is_injected(pod);
    for container in all_containers(spec) {
        let name = name(container);
        if sidecar::OURS.contains(&name) {
            if !is_injected {
                return Some(Reason::SidecarPresent { container: name.to_owned() });
            }
            continue;
        }
        let own = container.pointer("/securityContext/runAsUser").filter(|uid| !uid.is_null());
        let uid = own.or_else(|| spec.pointer("/securityContext/runAsUser")).and_then(Value::as_u64);
        if uid == Some(PROXY_UID.into()) {
            return Some(Reason::ProxyUid { container: name.to_owned() });
        }
    }
    None
}

/// What of the pod is in the way of ours, and its author can call otherwise.
fn clash(pod: &Value) -> Result<(), Problem> {
    let spec = pod.get("spec").filter(|spec| !items(spec, "containers").is_empty());
    let spec = spec.ok_or_else(|| Problem {
        what: "spec.containers".into(),
        value: "empty".into(),
        expected: "at least one container".into(),
    })?;
    if !is_injected(pod) && items(spec, "volumes").iter().any(|volume| name(volume) == sidecar::VOLUME) {
        return Err(Problem {
            what: "a volume of the pod".into(),
            value: format!("named {}", sidecar::VOLUME),
            expected: "any other name: this one is the proxy's".into(),
        });
    }
    let of_proxy = [OUTBOUND_PORT, INBOUND_PORT, ADMIN_PORT];
    for container in all_containers(spec).filter(|container| !sidecar::OURS.contains(&name(container))) {
        let is_tcp = |port: &&Value| port.get("protocol").is_none_or(|protocol| protocol == "TCP");
        let ports = items(container, "ports").iter().filter(is_tcp);
        let mut numbers = ports.filter_map(|port| port.get("containerPort")?.as_u64());
        if let Some(port) = numbers.find(|port| of_proxy.iter().any(|taken| u64::from(*taken) == *port)) {
            return Err(Problem {
                what: format!("a port of container {}", name(container)),
                value: port.to_string(),
                expected: format!("a port other than {of_proxy:?}: the proxy listens there in the same pod"),
            });
        }
    }
    Ok(())
}

/// The pod with its proxy.
fn mesh(config: &Config, settings: &Settings, pod: &Value) -> Value {
    let mut meshed = pod.clone();
    mark(&mut meshed, settings);
    let spec = &mut meshed["spec"];
    let mut asked = BTreeSet::new();
    for (list, is_probed) in
        [("containers", (|_| true) as fn(&Value) -> bool), ("initContainers", is_restarted)]
    {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter(|container| !sidecar::OURS.contains(&name(container))) {
            if is_probed(container) {
                probes::turn(container, &settings.skip_inbound_ports, &mut asked);
            }
        }
    }
    let grace = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    let grace = grace.map_or(GRACE_SECONDS, |seconds| u64::try_from(seconds).unwrap_or_default());
    let mut first = sidecar::first(config, settings);
    let mut proxy = sidecar::proxy(config, settings, grace, &asked);
    let [mut before, mut beside] = ["initContainers", "containers"].map(|list| items(spec, list).to_vec());
    let home = if settings.sidecar == Sidecar::Native { &before } else { &beside };
    keep(home, &mut proxy);
    keep(&before, &mut first);
    for list in [&mut before, &mut beside] {
        list.retain(|container| !sidecar::OURS.contains(&name(container)));
    }
    match settings.sidecar {
        Sidecar::Native => drop(before.splice(0..0, [first, proxy])),
        Sidecar::Classic => {
            // Last: the application's own init containers run before the proxy does, and reach the network without it.
            before.push(first);
            beside.insert(0, proxy);
        }
    }
    spec["initContainers"] = before.into();
    spec["containers"] = beside.into();
    let mut volumes = items(spec, "volumes").to_vec();
    match volumes.iter_mut().find(|volume| name(volume) == sidecar::VOLUME) {
        Some(volume) => overlay::lay(volume, &sidecar::volume()),
        None => volumes.push(sidecar::volume()),
    }
    spec["volumes"] = volumes.into();
    meshed
}

/// Keeps what others have added to the container of this name.
fn keep(there: &[Value], wanted: &mut Value) {
    if let Some(found) = there.iter().find(|container| name(container) == name(wanted)) {
        let mut laid = found.clone();
        overlay::lay(&mut laid, wanted);
        *wanted = laid;
    }
}

/// Writes into labels and annotations what was done.
fn mark(pod: &mut Value, settings: &Settings) {
    let app = items(&pod["spec"], "containers").iter().map(name).find(|name| !sidecar::OURS.contains(name));
    let app = app.unwrap_or_default().to_owned();
    set(pod, "labels", INJECTED, "true");
    set(pod, "annotations", INJECTOR_VERSION, env!("CARGO_PKG_VERSION"));
    let annotations = pod["metadata"]["annotations"].as_object_mut().expect("the version was written there");
    annotations.remove(NOT_INJECTED);
    match settings.redirection {
        Redirection::Cni => {
            annotations.insert(REDIRECT.into(), sidecar::redirect_annotation(settings).into());
        }
        Redirection::Init => drop(annotations.remove(REDIRECT)),
    }
    if settings.sidecar == Sidecar::Classic && !app.is_empty() {
        annotations.entry(DEFAULT_CONTAINER).or_insert(app.into());
    }
}

/// What works, but not as its author may think. Each is one line for the one who applies the pod.
fn warnings(namespace: &Namespace, settings: &Settings, pod: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let enforced = namespace.labels.get(POD_SECURITY).map(String::as_str).unwrap_or_default();
    if settings.redirection == Redirection::Init && ["baseline", "restricted"].contains(&enforced) {
        warnings.push(format!(
            "weft: Pod Security \"{enforced}\" does not let weft-init in, which needs NET_ADMIN; install with \
             cni.enabled=true, which needs nothing of pods"
        ));
    }
    let spec = &pod["spec"];
    let restart = spec.get("restartPolicy").and_then(Value::as_str).unwrap_or("Always");
    if settings.sidecar == Sidecar::Classic && restart != "Always" {
        warnings.push(format!(
            "weft: with {}: classic a pod that should end goes on until something posts to \
             http://localhost:{ADMIN_PORT}/shutdown",
            settings::SIDECAR
        ));
    }
    let policy = spec.get("dnsPolicy").and_then(Value::as_str);
    if let Some(policy) = policy.filter(|policy| ["Default", "None"].contains(policy)) {
        warnings.push(format!("weft: dnsPolicy {policy}: the proxy must find control by the cluster's DNS"));
    }
    let known = |name: &str| {
        [INJECT, INJECTED, INJECTOR_VERSION, NOT_INJECTED, REDIRECT].contains(&name)
            || settings::SETTINGS.contains(&name)
    };
    let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    for name in annotations.into_iter().flat_map(Map::keys) {
        if name.starts_with("weft.mesh/") && !known(name) {
            warnings
                .push(format!("weft: the annotation {name} is not known to this version, and does nothing"));
        }
    }
    warnings
}

/// Whether an init container goes on beside the application.
fn is_restarted(container: &Value) -> bool {
    container.get("restartPolicy").is_some_and(|policy| policy == "Always")
}

fn is_injected(pod: &Value) -> bool {
    pod.pointer("/metadata/labels")
        .and_then(|labels| labels.get(INJECTED))
        .is_some_and(|value| value == "true")
}

fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(spec, list))
}

/// The items of a list; none where there is no list.
fn items<'a>(value: &'a Value, list: &str) -> &'a [Value] {
    value.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn name(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Writes a label or an annotation; `metadata` and its maps may be missing, or null.
fn set(pod: &mut Value, map: &str, name: &str, value: &str) {
    let mut place = pod;
    for key in ["metadata", map] {
        place = match place {
            Value::Object(object) => object.entry(key).or_insert_with(|| json!({})),
            _ => return,
        };
        if !place.is_object() {
            *place = json!({});
        }
    }
    place[name] = value.into();
}
