//! Which addresses stand behind a Service's port, and which Services stand before a Pod's.
//!
//! Endpoints of both families are answered: a proxy keeps to the family that its application dialled.

use crate::{
    Index, Pod, Port, Service, State, TargetPort,
    slice::{Slice, SliceEndpoint},
};
use policy::{ServicePort, WorkloadName};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

/// One address that serves a Service's port, and the Pod there if it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing<'a> {
    pub address: SocketAddr,
    pub pod: Option<&'a Pod>,
}

impl Index {
    /// The endpoints of a Service's port that can take traffic, by address.
    ///
    /// They come from the Service's EndpointSlices. Where it has none and selects Pods (nobody runs the endpoint
    /// controller: directory mode), they are its ready Pods. For a caller in `zone` they are those that are meant for it,
    /// if the controller says of each which zones it is meant for, and of some that it is this one.
    pub fn endpoints(&self, backend: &ServicePort, zone: Option<&str>) -> Vec<Backing<'_>> {
        let Some(service) = self.services.get(&backend.service) else { return Vec::new() };
        let Some(port) = service.port(backend.port) else { return Vec::new() };
        match self.slices_of.contains_key(&service.name) {
            true => self.endpoints_of_slices(service, port, zone),
            false => self.endpoints_of_pods(service, port),
        }
    }

    /// The Service ports that lead to a workload's port, by name.
    pub fn services_before(&self, pod: &Pod, port: u16) -> Vec<ServicePort> {
        let mut found: Vec<ServicePort> = self
            .selecting(pod)
            .flat_map(|service| service.ports.iter().map(move |port| (service, port)))
            .filter(|(_, one)| target_number(one, pod) == Some(port))
            .map(|(service, one)| service.name.port(one.number))
            .collect();
        for slice in self.slices_with(pod) {
            let service = slice.service.as_ref().and_then(|name| self.services.get(name));
            let Some(service) = service.filter(|service| service.selector.is_none()) else { continue };
            let leading =
                service.ports.iter().filter(|one| slice_numbers(slice, one).any(|number| number == port));
            found.extend(leading.map(|one| service.name.port(one.number)));
        }
        found.sort();
        found.dedup();
        found
    }

    /// The Services whose selector matches a Pod.
    pub(crate) fn selecting(&self, pod: &Pod) -> impl Iterator<Item = &Service> {
        let labels = pod
            .labels
            .iter()
            .map(|(name, value)| (Arc::clone(&pod.name.namespace), name.clone(), value.clone()));
        let names = labels.flat_map(|label| self.services_selecting.get(&label).into_iter().flatten());
        let services = names.filter_map(|name| self.services.get(name));
        services.filter(|service| service.selector.as_ref().is_some_and(|selector| pod.matches(selector)))
    }

    /// The Pods that a Service selects, or that its EndpointSlices name by address.
    pub fn pods_of(&self, service: &Service) -> impl Iterator<Item = &Pod> {
        let first = WorkloadName { namespace: Arc::clone(&service.name.namespace), name: "".into() };
        let selected = service.selector.as_ref().into_iter().flat_map(move |selector| {
            self.pods
                .range(first.clone()..)
                .map(|(_, pod)| pod)
                .take_while(|pod| pod.name.namespace == service.name.namespace)
                .filter(move |pod| pod.matches(selector))
        });
        // First those that are found at once: who looks for any Pod need not go through all of the namespace.
        let listed = self.slices_of(service).flat_map(|slice| &slice.endpoints);
        listed.filter_map(|endpoint| self.pod_at(endpoint.address)).chain(selected)
    }

    fn endpoints_of_slices(&self, service: &Service, port: &Port, zone: Option<&str>) -> Vec<Backing<'_>> {
        let mut ready = BTreeMap::new();
        let mut ending = BTreeMap::new();
        for slice in self.slices_of(service) {
            for number in slice_numbers(slice, port) {
                for endpoint in slice.endpoints.iter().filter(|one| !self.awaits_pod(one)) {
                    let address = SocketAddr::new(endpoint.address, number);
                    if endpoint.ready {
                        ready.insert(address, endpoint);
                    } else if endpoint.ending {
                        ending.insert(address, endpoint);
                    }
                }
            }
        }
        if let Some(zone) = zone {
            keep_near(&mut ready, zone);
        }
        let chosen = if ready.is_empty() { ending } else { ready };
        let backing = |(address, endpoint)| Backing { address, pod: self.pod_behind(endpoint) };
        chosen.into_iter().map(backing).collect()
    }

    fn endpoints_of_pods(&self, service: &Service, port: &Port) -> Vec<Backing<'_>> {
        let takes = |pod: &&Pod| match pod.state {
            State::Ready => true,
            State::NotReady | State::Terminating => service.publish_not_ready,
            State::Ended => false,
        };
        let mut found = BTreeMap::new();
        for pod in self.pods_of(service).filter(takes) {
            let Some(number) = target_number(port, pod) else { continue };
            found.extend(pod.addresses.iter().map(|ip| (SocketAddr::new(*ip, number), pod)));
        }
        found.into_iter().map(|(address, pod)| Backing { address, pod: Some(pod) }).collect()
    }

    /// Who is at an endpoint: the Pod whose address it is. A reference counts only for a Pod that shares its
    /// addresses with others; a Pod is never named by a slice that leads elsewhere.
    fn pod_behind(&self, endpoint: &SliceEndpoint) -> Option<&Pod> {
        self.pod_at(endpoint.address).or_else(|| {
            let pod = self.pods.get(endpoint.pod.as_ref()?)?;
            (pod.host_network && pod.addresses.contains(&endpoint.address)).then_some(pod)
        })
    }

    /// It is said to be a Pod's that is not known, or that runs a proxy and is not known at this address. Who is there would be
    /// taken for somebody outside of the mesh, and spoken to in plaintext: slices and Pods are watched apart, and the Pod
    /// comes in a moment.
    fn awaits_pod(&self, endpoint: &SliceEndpoint) -> bool {
        let Some(name) = &endpoint.pod else { return false };
        self.pod_behind(endpoint).is_none() && self.pods.get(name).is_none_or(|pod| pod.meshed)
    }

    /// The Pods that a Service's EndpointSlices name where they are not known to be.
    pub fn awaited(&self, service: &Service) -> impl Iterator<Item = &WorkloadName> {
        let endpoints = self.slices_of(service).flat_map(|slice| &slice.endpoints);
        endpoints
            .filter(|one| (one.ready || one.ending) && self.awaits_pod(one))
            .filter_map(|one| one.pod.as_ref())
    }

    fn slices_of(&self, service: &Service) -> impl Iterator<Item = &Slice> {
        self.slices_of.get(&service.name).into_iter().flatten().filter_map(|key| self.slices.get(key))
    }

    fn slices_with(&self, pod: &Pod) -> impl Iterator<Item = &Slice> {
        let keys = pod.addresses.iter().flat_map(|ip| self.slices_at.get(ip).into_iter().flatten());
        keys.filter_map(|key| self.slices.get(key))
    }
}

/// Of each family, as kube-proxy does: its EndpointSlices are counted by themselves.
fn keep_near(ready: &mut BTreeMap<SocketAddr, &SliceEndpoint>, zone: &str) {
    for v4 in [true, false] {
        let family = || ready.iter().filter(|(address, _)| address.is_ipv4() == v4).map(|(_, one)| one);
        let is_near = |one: &SliceEndpoint| one.zones.iter().any(|name| **name == *zone);
        if family().all(|one| !one.zones.is_empty()) && family().any(|one| is_near(one)) {
            ready.retain(|address, one| address.is_ipv4() != v4 || is_near(one));
        }
    }
}

/// The port of `pod` that a Service's port leads to.
fn target_number(port: &Port, pod: &Pod) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => pod.ports.get(name).copied(),
    }
}

/// The numbers under which a slice serves a Service's port.
fn slice_numbers<'a>(slice: &'a Slice, port: &'a Port) -> impl Iterator<Item = u16> + 'a {
    slice.ports.iter().filter(|one| one.name == port.name).filter_map(|one| {
        match (&port.target, one.number) {
            (_, Some(number)) => Some(number),
            (TargetPort::Number(number), None) => Some(*number),
            (TargetPort::Name(_), None) => None,
        }
    })
}
