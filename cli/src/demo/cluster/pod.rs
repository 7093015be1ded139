//! One Pod: what it is called, where it is, what it runs, and the object that tells so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, HostIP, Pod as Object, PodCondition, PodIP, PodSpec, PodStatus, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

use super::{Manifest, TRUST_DOMAIN, namespace};

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
    object: Object,
}

/// What its container runs.
#[derive(Debug, PartialEq)]
pub struct Program {
    /// A file name; the image's name without registry and tag where the manifest gives no command.
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
        let made_by = deployment.metadata.name.clone().context("it has no name")?;
        let namespace = namespace(&deployment.metadata).to_owned();
        let template = &deployment.spec.as_ref().context("it has no spec")?.template;
        let mut labels = template.metadata.clone().unwrap_or_default().labels.unwrap_or_default();
        let mut spec = template.spec.clone().context("its template has no spec")?;
        let [container] = &spec.containers[..] else { bail!("the demo runs pods of one container") };
        let hash = hash(&made_by);
        let name = format!("{made_by}-{hash}-{ordinal}");
        let service = selecting(services, &namespace, &labels);
        let program = program(container)?;
        let readiness = readiness(container)?;
        labels.insert("pod-template-hash".into(), hash);
        if is_meshed {
            labels.insert(INJECTED.0.into(), INJECTED.1.into());
        }
        let account = spec.service_account_name.get_or_insert_with(|| "default".into()).clone();
        spec.node_name = Some("demo".into());
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        let object = object(metadata, spec, &addresses);
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
        let is_ready = condition == Condition::Ready;
        let ready = PodCondition {
            type_: "Ready".into(),
            status: if is_ready { "True" } else { "False" }.into(),
            ..PodCondition::default()
        };
        object.status.get_or_insert_default().conditions = Some(vec![ready]);
        if let Condition::Terminating { since } = condition {
            object.metadata.deletion_timestamp = timestamp(since).map(Time);
        }
        Manifest::new(&object.metadata, &object)
    }
}

/// To whole seconds, as Kubernetes keeps it.
fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Timestamp::from_second(i64::try_from(since_epoch.as_secs()).ok()?).ok()
}

fn object(metadata: ObjectMeta, spec: PodSpec, addresses: &[IpAddr]) -> Object {
    let ips = addresses.iter().map(|address| PodIP { ip: address.to_string() });
    let node = "10.42.0.1";
    let status = PodStatus {
        phase: Some("Running".into()),
        host_ip: Some(node.into()),
        host_ips: Some(vec![HostIP { ip: node.into() }]),
        pod_ip: addresses.first().map(IpAddr::to_string),
        pod_ips: Some(ips.collect()),
        ..PodStatus::default()
    };
    Object { metadata, spec: Some(spec), status: Some(status) }
}

/// The Service of that namespace whose selector the labels match, the first by name.
fn selecting(services: &[Service], within: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let selects = |service: &&Service| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        namespace(&service.metadata) == within
            && selector.is_some_and(|selector| {
                !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            })
    };
    services.iter().filter(selects).filter_map(|service| service.metadata.name.clone()).min()
}

fn program(container: &Container) -> anyhow::Result<Program> {
    let image = container.image.as_deref().context("its container has no image")?;
    let file = image.rsplit('/').next().unwrap_or(image);
    let entry_point = file.split([':', '@']).next().unwrap_or(file).to_owned();
    let mut command = container.command.clone().unwrap_or_default().into_iter();
    let name = command.next().unwrap_or(entry_point);
    if name.is_empty() || name.contains('/') {
        bail!("the demo runs programs of its own folder, not {name:?}");
    }
    let arguments = command.chain(container.args.clone().unwrap_or_default()).collect();
    let plain = |variable: EnvVar| match (variable.value, variable.value_from) {
        (value, None) => Ok((variable.name, value.unwrap_or_default())),
        (_, Some(_)) => bail!("the demo cannot fill {}: it has valueFrom", variable.name),
    };
    let environment =
        container.env.clone().unwrap_or_default().into_iter().map(plain).collect::<Result<_, _>>()?;
    Ok(Program { name, arguments, environment })
}

fn readiness(container: &Container) -> anyhow::Result<Option<Probe>> {
    let Some(probe) = &container.readiness_probe else { return Ok(None) };
    let get = probe.http_get.as_ref().context("the demo knows only httpGet as a readinessProbe")?;
    let port = match &get.port {
        IntOrString::Int(port) => Some(*port),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
        }
    };
    let port = port.and_then(|port| u16::try_from(port).ok()).context("its readinessProbe names no port")?;
    Ok(Some(Probe { port, path: get.path.clone().unwrap_or_else(|| "/".into()) }))
}

/// Four digits that stay the same for a name, in the place of the hash of a ReplicaSet's template (FNV-1a, folded).
fn hash(name: &str) -> String {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{:04x}", (hash >> 16) ^ (hash & 0xffff))
}
