//! An EndpointSlice: some of the addresses behind a Service, kept by Kubernetes' endpoint controller or by hand.

use crate::{
    Key,
    manifest::{Endpoint as EndpointManifest, EndpointSlice as Manifest},
    problem::Notes,
};
use policy::{ServiceName, WorkloadName};
use std::{net::IpAddr, sync::Arc};

/// The label that says whose endpoints these are.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// One EndpointSlice of addresses; one of DNS names (`addressType: FQDN`) has no endpoints here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// `None`: nobody takes these endpoints.
    pub(crate) service: Option<ServiceName>,
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<SliceEndpoint>,
}

/// A TCP port; it belongs to the Service's port of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlicePort {
    pub(crate) name: String,
    /// `None`: the number that the Service's port targets.
    pub(crate) number: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    pub(crate) address: IpAddr,
    pub(crate) ready: bool,
    /// It is being deleted and still answers: used when no endpoint is ready, as kube-proxy does (KEP-1669).
    pub(crate) ending: bool,
    pub(crate) pod: Option<WorkloadName>,
    /// The zones that it is meant for; empty: nobody says.
    pub(crate) zones: Box<[Arc<str>]>,
}

impl Slice {
    pub(crate) fn read(key: &Key, manifest: &Manifest, notes: &mut Notes) -> Self {
        let service = manifest.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL));
        if service.is_none() {
            notes.add(
                "metadata.labels",
                format!("there is no {SERVICE_LABEL}: no Service takes these endpoints"),
            );
        }
        let mut ports = Vec::new();
        for (at, port) in manifest.ports.iter().flatten().enumerate() {
            if port.protocol.as_deref().is_some_and(|protocol| protocol != "TCP") {
                continue;
            }
            let number = match port.port {
                None => None,
                Some(number) => match notes.port(format!("ports[{at}].port"), number) {
                    None => continue,
                    number => number,
                },
            };
            ports.push(SlicePort { name: port.name.clone().unwrap_or_default(), number });
        }
        let dns = manifest.address_type == "FQDN";
        let endpoints = manifest.endpoints.iter().flatten().enumerate().filter(|_| !dns);
        Self {
            service: service.map(|name| ServiceName::new(&key.namespace, name)),
            ports,
            endpoints: endpoints
                .filter_map(|(at, endpoint)| read_endpoint(key, at, endpoint, notes))
                .collect(),
        }
    }
}

/// Of several addresses of one endpoint the first is used: the others lead to the same place.
fn read_endpoint(
    key: &Key,
    at: usize,
    endpoint: &EndpointManifest,
    notes: &mut Notes,
) -> Option<SliceEndpoint> {
    let text = endpoint.addresses.first()?;
    let address = notes.address(format!("endpoints[{at}].addresses[0]"), text)?;
    let conditions = endpoint.conditions.unwrap_or_default();
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
    Some(SliceEndpoint {
        address,
        zones: zones.iter().map(|zone| zone.name.as_str().into()).collect(),
        ready: conditions.ready.unwrap_or(true),
        ending: conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false),
        pod: pod.and_then(|target| {
            let namespace = match target.namespace.as_deref() {
                Some(namespace) => namespace.into(),
                None => Arc::clone(&key.namespace),
            };
            Some(WorkloadName { namespace, name: target.name.as_deref()?.into() })
        }),
    })
}
