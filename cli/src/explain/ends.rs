//! Both ends of what is asked about, found by what people write.

use std::net::SocketAddr;

use anyhow::{Result, anyhow, bail};
use control_index::{Found, Key, Kind, Pod, Service};
use policy::names::is_label;
use policy::{ServiceName, ServicePort, WorkloadName};

use crate::objects::Objects;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub namespace: String,
    /// `None`: any Pod of the namespace.
    pub pod: Option<WorkloadName>,
    /// What was asked for and not found.
    pub missing: Option<String>,
}

/// Where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Service(ServicePort),
    Address(SocketAddr),
}

impl Client {
    pub fn of_namespace(namespace: &str) -> Self {
        Self { namespace: namespace.into(), pod: None, missing: None }
    }

    /// `shop/cart-7d9f`, `shop/cart` (whose name begins so), `shop/` and `shop`.
    pub fn find(objects: &Objects, text: &str) -> Result<Self> {
        let (namespace, name) = text.split_once('/').unwrap_or((text, ""));
        if !is_label(namespace) {
            bail!("--from {text}: {namespace:?} is no name of a namespace: write namespace/pod or namespace");
        }
        if name.is_empty() {
            return Ok(Self::of_namespace(namespace));
        }
        let begins = |pod: &&Pod| {
            let rest = pod.name.name.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        // Of several the first by name; the exact one is the shortest of them.
        let found = objects.index.pods_in(&namespace.into()).filter(begins).map(|pod| pod.name.clone()).min();
        let missing = found.is_none().then(|| {
            format!(
                "no Pod {namespace}/{name}, nor one whose name begins so, was read; its namespace decides"
            )
        });
        Ok(Self { namespace: namespace.into(), pod: found, missing })
    }
}

impl Place {
    /// A Service, in `namespace` if it names none, or an address.
    pub fn find(objects: &Objects, text: &str, namespace: Option<&str>) -> Result<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(match objects.index.by_address(address) {
                Found::Service(service) => Self::Service(service),
                Found::Workload(_) | Found::None => Self::Address(address),
            });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let host = host.trim_end_matches('.');
        let labels: Vec<&str> = host.split('.').collect();
        let (name, within) = match labels[..] {
            [name] => (name, namespace),
            [name, within] | [name, within, "svc"] | [name, within, "svc", ..] => (name, Some(within)),
            _ => bail!("--to {text}: it is no Service: write name.namespace:port, or address:port"),
        };
        let within = within
            .ok_or_else(|| anyhow!("--to {text}: which namespace? Write {name}.NAMESPACE, or give --from"))?;
        let found = ServiceName::new(within, name);
        let service = objects.index.service(&found).ok_or_else(|| unknown(objects, &found))?;
        Ok(Self::Service(found.port(port_of(service, text, port)?)))
    }

    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Service(service) => Some(&service.service.namespace),
            Self::Address(_) => None,
        }
    }
}

/// By number or by name; the only one if none is named.
fn port_of(service: &Service, text: &str, port: Option<&str>) -> Result<u16> {
    let known = || {
        let ports: Vec<_> = service.ports.iter().map(|port| port.number.to_string()).collect();
        if ports.is_empty() { "it has no TCP ports".into() } else { format!("it has {}", ports.join(", ")) }
    };
    let found = match (port, &service.ports[..]) {
        (None, [only]) => Some(only),
        (None, _) => bail!("--to {text}: which port? {}", known()),
        (Some(port), ports) => ports.iter().find(|one| one.number.to_string() == port || one.name == port),
    };
    let found = found
        .ok_or_else(|| anyhow!("--to {text}: Service {} has no such port: {}", service.name, known()))?;
    Ok(found.number)
}

fn unknown(objects: &Objects, name: &ServiceName) -> anyhow::Error {
    let services = objects.places.keys().filter(|key| key.kind == Kind::Service);
    let alike = |key: &&Key| key.name == name.name || key.namespace == name.namespace;
    let others: Vec<_> =
        services.filter(alike).take(5).map(|key| format!("{}.{}", key.name, key.namespace)).collect();
    let known = if others.is_empty() { String::new() } else { format!("; there are {}", others.join(", ")) };
    anyhow!("Service {name} was not read{known}")
}
