//! One Pod: what it is called, where it is, what it runs, and the object that tells so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use anyhow::{Context, bail};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::object::{Container, Deployment, Metadata, PodSpec, PortOrName, Service, Variable};
use super::{Manifest, TRUST_DOMAIN};

const NODE: &str = "10.42.0.1";
/// Where the images of the project come from.
const OUR_IMAGES: &str = "weft.mesh/";
/// What the injector sets on a pod that it meshed.
const INJECTED: (&str, &str) = ("weft.mesh/injected", "true");

#[derive(Debug)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub deployment: String,
    pub account: String,
    /// The Service that selects it, the first by name; none is a client only.
    pub service: Option<String>,
    /// Of each family, IPv4 first.
    pub addresses: Vec<IpAddr>,
    pub program: Program,
    pub readiness: Option<Probe>,
    object: Value,
}

/// What its container runs.
#[derive(Debug, PartialEq)]
pub struct Program {
    /// A file name; where the manifest gives no command the image's name without registry and tag, which is the image's entry point,
    /// but for a `weft-` that names of our own images go without.
    pub name: String,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// A GET that succeeds when the container is ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    pub port: u16,
    pub path: String,
}

/// What the kubelet says of a pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    Starting,
    Ready,
    Terminating { since: SystemTime },
}

impl Pod {
    pub(super) fn new(
        deployment: &Deployment,
        ordinal: usize,
        addresses: Vec<IpAddr>,
        is_meshed: bool,
        services: &[Service],
    ) -> anyhow::Result<Self> {
        let Metadata { name: made_by, namespace, .. } = deployment.metadata.clone();
        let template = &deployment.spec.template;
        let mut labels = template.metadata.labels.clone();
        let pod_spec = PodSpec::deserialize(&template.spec).context("its template's spec")?;
        let [container] = &pod_spec.containers[..] else { bail!("the demo runs pods of one container") };
        let hash = hash(&made_by);
        let name = format!("{made_by}-{hash}-{ordinal}");
        let service = selecting(services, &namespace, &labels);
        let program = program(container)?;
        let readiness = readiness(container)?;
        labels.insert("pod-template-hash".into(), hash);
        if is_meshed {
            labels.insert(INJECTED.0.into(), INJECTED.1.into());
        }
        let account = pod_spec.service_account_name.unwrap_or_else(|| "default".into());
        let mut spec = template.spec.clone();
        spec["serviceAccountName"] = account.as_str().into();
        spec["nodeName"] = "demo".into();
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": spec,
            "status": {
                "phase": "Running",
                "hostIP": NODE,
                "hostIPs": [{"ip": NODE}],
                "podIP": addresses.first(),
                "podIPs": addresses.iter().map(|address| json!({"ip": address})).collect::<Vec<_>>(),
            },
        });
        let deployment = made_by;
        Ok(Self { namespace, name, deployment, account, service, addresses, program, readiness, object })
    }

    /// What the service graph calls it: the Service that it is of, or else its Deployment.
    pub fn app(&self) -> &str {
        self.service.as_deref().unwrap_or(&self.deployment)
    }

    pub fn identity(&self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{}", self.namespace, self.account)
    }

    /// The object in the given condition.
    pub fn manifest(&self, condition: Condition) -> Manifest {
        let mut object = self.object.clone();
        let ready = if condition == Condition::Ready { "True" } else { "False" };
        object["status"]["conditions"] = json!([{"type": "Ready", "status": ready}]);
        if let Condition::Terminating { since } = condition {
            object["metadata"]["deletionTimestamp"] = timestamp(since).into();
        }
        Manifest::new(object).expect("a Pod that was made has a name")
    }
}

/// RFC 3339 in whole seconds, as Kubernetes writes it.
fn timestamp(time: SystemTime) -> Option<String> {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_second(i64::try_from(since_epoch.as_secs()).ok()?).ok()?.to_string())
}

/// The Service of that namespace whose selector the labels match, the first by name.
fn selecting(services: &[Service], within: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let selects = |service: &&Service| {
        let selector = &service.spec.selector;
        let matches = selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        service.metadata.namespace == within && !selector.is_empty() && matches
    };
    services.iter().filter(selects).map(|service| service.metadata.name.clone()).min()
}

fn program(container: &Container) -> anyhow::Result<Program> {
    let image = container.image.as_deref().context("its container has no image")?;
    let file = image.rsplit('/').next().unwrap_or(image);
    let file = file.split([':', '@']).next().unwrap_or(file);
    let entry_point = if image.starts_with(OUR_IMAGES) { format!("weft-{file}") } else { file.to_owned() };
    let mut command = container.command.iter().cloned();
    let name = command.next().unwrap_or(entry_point);
    if name.is_empty() || name.contains('/') {
        bail!("the demo runs programs of its own folder, not {name:?}");
    }
    let arguments = command.chain(container.args.iter().cloned()).collect();
    let plain = |Variable { name, value, value_from }: &Variable| match value_from {
        None => Ok((name.clone(), value.clone())),
        Some(_) => bail!("the demo cannot fill {name}: it has valueFrom"),
    };
    let environment = container.env.iter().map(plain).collect::<Result<_, _>>()?;
    Ok(Program { name, arguments, environment })
}

fn readiness(container: &Container) -> anyhow::Result<Option<Probe>> {
    let Some(probe) = &container.readiness_probe else { return Ok(None) };
    let get = probe.http_get.as_ref().context("the demo knows only httpGet as a readinessProbe")?;
    let port = match &get.port {
        PortOrName::Port(port) => Some(*port),
        PortOrName::Name(name) => {
            let named = container.ports.iter().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port)
        }
    };
    let port = port.context("its readinessProbe names no port of it")?;
    Ok(Some(Probe { port, path: get.path.clone().unwrap_or_else(|| "/".into()) }))
}

/// Four digits that stay the same for a name, in the place of the hash of a ReplicaSet's template (FNV-1a, folded).
fn hash(name: &str) -> String {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{:04x}", (hash >> 16) ^ (hash & 0xffff))
}
