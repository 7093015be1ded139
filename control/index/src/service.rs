//! A Service, as far as traffic is concerned.

use crate::{
    Key,
    manifest::{IntOrString, Service as Manifest, ServiceSpec},
    ports::Ports,
    problem::Notes,
};
use policy::ServiceName;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// One Service. One of type ExternalName has neither addresses nor ports here: it is a DNS alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    /// Its cluster IPs, of both families; none when it is headless.
    pub addresses: Vec<IpAddr>,
    /// The labels of its Pods. `None`: somebody else keeps its EndpointSlices.
    pub selector: Option<BTreeMap<String, String>>,
    /// Its TCP ports.
    pub ports: Vec<Port>,
    /// Pods count as endpoints whether ready or not.
    pub publish_not_ready: bool,
    /// Ports of its own whose bytes are not looked at; `None`: as its Namespace says.
    pub opaque: Option<Ports>,
}

/// One TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Empty when it has no name.
    pub name: String,
    pub number: u16,
    pub target: TargetPort,
    /// What it says that it speaks: a word for `policy::Protocol::from_app_protocol`.
    pub app_protocol: Option<String>,
    /// Where it stands in the manifest's `spec.ports`.
    pub at: usize,
}

/// The port of the Pods behind a Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// Each Pod says by a port of this name which number it is.
    Name(String),
}

impl Service {
    pub(crate) fn read(key: &Key, manifest: &Manifest, notes: &mut Notes) -> Self {
        let name = ServiceName { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) };
        let Some(spec) = manifest.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"))
        else {
            return Self {
                name,
                addresses: Vec::new(),
                selector: None,
                ports: Vec::new(),
                publish_not_ready: false,
                opaque: None,
            };
        };
        Self {
            name,
            addresses: addresses(spec, notes),
            selector: spec.selector.clone().filter(|selector| !selector.is_empty()),
            ports: ports(spec, notes),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            opaque: Ports::annotated(&manifest.metadata, notes),
        }
    }

    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }
}

fn addresses(spec: &ServiceSpec, notes: &mut Notes) -> Vec<IpAddr> {
    let written = |text: &&str| !text.is_empty() && *text != "None";
    let mut addresses = Vec::new();
    for (at, text) in spec.cluster_ips.iter().flatten().map(String::as_str).enumerate() {
        if written(&text) {
            addresses.extend(notes.address(format!("spec.clusterIPs[{at}]"), text));
        }
    }
    if let Some(text) = spec.cluster_ip.as_deref().filter(written) {
        addresses.extend(notes.address("spec.clusterIP", text).filter(|ip| !addresses.contains(ip)));
    }
    addresses
}

fn ports(spec: &ServiceSpec, notes: &mut Notes) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for (at, port) in spec.ports.iter().flatten().enumerate() {
        if port.protocol.as_deref().is_some_and(|protocol| protocol != "TCP") {
            continue;
        }
        let Some(number) = notes.port(format!("spec.ports[{at}].port"), port.port) else { continue };
        if ports.iter().any(|held| held.number == number) {
            notes.add(
                format!("spec.ports[{at}].port"),
                format!("{number} is there already; the first one is taken"),
            );
            continue;
        }
        let target = match &port.target_port {
            None | Some(IntOrString::Int(0)) => Some(TargetPort::Number(number)),
            Some(IntOrString::Int(target)) => {
                notes.port(format!("spec.ports[{at}].targetPort"), *target).map(TargetPort::Number)
            }
            Some(IntOrString::String(name)) if name.is_empty() => Some(TargetPort::Number(number)),
            Some(IntOrString::String(name)) => Some(TargetPort::Name(name.clone())),
        };
        let Some(target) = target else { continue };
        ports.push(Port {
            name: port.name.clone().unwrap_or_default(),
            number,
            target,
            app_protocol: port.app_protocol.clone().filter(|word| !word.is_empty()),
            at,
        });
    }
    ports
}
