//! A Pod, as far as traffic is concerned.

use crate::{
    Account, Key,
    manifest::{Pod as Manifest, PodSpec, PodStatus},
    ports::Ports,
    problem::Notes,
};
use policy::{WorkloadName, names::is_subdomain};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// The label of a Pod that runs a proxy; its value is `true`.
pub const MESHED_LABEL: &str = "weft.mesh/injected";

/// The annotation by which the injector says why it left a Pod as it was.
const NOT_INJECTED: &str = "weft.mesh/not-injected";
/// The label, or annotation, by which a Pod chooses: `enabled` or `disabled`.
const INJECT: &str = "weft.mesh/inject";

/// One Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: WorkloadName,
    /// Empty where nobody gives any (directory mode).
    pub uid: Arc<str>,
    pub account: Account,
    /// Empty until it is scheduled.
    pub node: Arc<str>,
    /// It runs a proxy. Never so on the host's network, where a Pod has no addresses of its own to redirect.
    pub meshed: bool,
    /// It shares its addresses with the host and with other Pods.
    pub host_network: bool,
    pub addresses: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    /// TCP ports that its containers name.
    pub ports: BTreeMap<String, u16>,
    /// Ports whose bytes are not looked at; `None`: as its Namespace says.
    pub opaque: Option<Ports>,
    /// Why the injector left it as it was.
    pub not_injected: Option<Box<str>>,
    /// It asked to be left as it was.
    pub opted_out: bool,
    pub state: State,
}

/// Where a Pod is in its life, as far as traffic is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    NotReady,
    /// It is being deleted: it may still answer but gets nothing new.
    Terminating,
    /// All its containers have ended: its addresses may be another's by now.
    Ended,
}

impl Pod {
    pub(crate) fn read(key: &Key, manifest: &Manifest, notes: &mut Notes) -> Self {
        let spec = manifest.spec.as_ref();
        let labels = manifest.metadata.labels.clone().unwrap_or_default();
        let host_network = spec.and_then(|spec| spec.host_network).unwrap_or_default();
        Self {
            name: WorkloadName { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) },
            uid: manifest.metadata.uid.as_deref().unwrap_or_default().into(),
            account: Account { namespace: Arc::clone(&key.namespace), name: account_name(spec, notes) },
            meshed: !host_network && labels.get(MESHED_LABEL).is_some_and(|value| value == "true"),
            host_network,
            addresses: manifest.status.as_ref().map(|status| addresses(status, notes)).unwrap_or_default(),
            ports: spec.map(|spec| named_ports(spec, notes)).unwrap_or_default(),
            node: spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default().into(),
            opaque: Ports::annotated(&manifest.metadata, notes),
            not_injected: manifest.metadata.annotation(NOT_INJECTED).map(Into::into),
            opted_out: [manifest.metadata.label(INJECT), manifest.metadata.annotation(INJECT)]
                .contains(&Some("disabled")),
            state: state(manifest),
            labels,
        }
    }

    /// Its addresses lead to it and to no one else.
    pub fn addressable(&self) -> bool {
        !self.host_network && self.state != State::Ended
    }

    /// All that `selector` asks for is among its labels.
    pub fn matches(&self, selector: &BTreeMap<String, String>) -> bool {
        selector.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

fn account_name(spec: Option<&PodSpec>, notes: &mut Notes) -> Arc<str> {
    match spec.and_then(|spec| spec.service_account_name.as_deref()) {
        None | Some("") => "default".into(),
        Some(name) if is_subdomain(name) => name.into(),
        Some(name) => {
            notes.add(
                "spec.serviceAccountName",
                format!("{name:?} is not a name for a ServiceAccount; \"default\" is taken"),
            );
            "default".into()
        }
    }
}

fn addresses(status: &PodStatus, notes: &mut Notes) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (at, one) in status.pod_ips.iter().flatten().enumerate() {
        addresses.extend(notes.address(format!("status.podIPs[{at}].ip"), &one.ip));
    }
    if let Some(text) = status.pod_ip.as_deref().filter(|text| !text.is_empty()) {
        addresses.extend(notes.address("status.podIP", text).filter(|ip| !addresses.contains(ip)));
    }
    addresses
}

/// Ports of containers, and of the init containers that keep running beside them.
fn named_ports(spec: &PodSpec, notes: &mut Notes) -> BTreeMap<String, u16> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut ports = BTreeMap::new();
    for container in spec.containers.iter().chain(sidecars) {
        for port in container.ports.iter().flatten() {
            let tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
            let Some(name) = port.name.as_ref().filter(|_| tcp) else { continue };
            let field = || format!("spec.containers[{}].ports[{name}].containerPort", container.name);
            if let Some(number) = notes.port(field(), port.container_port) {
                ports.entry(name.clone()).or_insert(number);
            }
        }
    }
    ports
}

/// A Pod whose conditions nobody keeps (no kubelet: directory mode) is ready as soon as it has an address.
fn state(manifest: &Manifest) -> State {
    let status = manifest.status.as_ref();
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded" | "Failed") => return State::Ended,
        _ if manifest.metadata.deletion_timestamp.is_some() => return State::Terminating,
        _ => {}
    }
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => State::Ready,
        None if conditions.is_empty() => State::Ready,
        Some(_) | None => State::NotReady,
    }
}
