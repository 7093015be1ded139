//! From the index to policy: pure functions of what is known now.
//!
//! Each answer is made for one question (a destination, a backend, a port), so that nothing is translated that no
//! proxy asked for. What is wrong with an object is said by `problems`, object by object, whether or not somebody
//! asked for it. Here is no stream, no version and no clock: `control-serve` decides when to ask again.

mod backend_tls;
mod backends;
mod conflicts;
mod detected;
mod filters;
mod findings;
mod matches;
mod policies;
mod problems;
mod routes;
mod rules;
mod sessions;
mod status;
mod time;
mod unmeshed;
mod verdicts;

pub use backend_tls::remarks;
pub use control_index::Problem;
pub use detected::Detected;
pub use problems::problems;
pub use status::{Condition, Entry, Status};
pub use unmeshed::{Unmeshed, unmeshed};
pub use verdicts::status;

use control_index::{Found, Index, Pod};
use policy::{
    BackendTls, Endpoint, Inbound, Outbound, Protocol, ServicePort, SpiffeId, Target, TrustDomain,
    WorkloadName,
};
use std::{net::SocketAddr, sync::Arc};

/// All that policies are made from.
#[derive(Clone, Copy, Debug)]
pub struct Mesh<'a> {
    pub index: &'a Index,
    pub detected: &'a Detected,
    /// The domain of every identity that is given out.
    pub trust_domain: &'a TrustDomain,
}

impl Mesh<'_> {
    /// The policy of an original destination for those who dial it from a namespace.
    ///
    /// Routes and policies are for Services: who dials a Pod's own address gets what is there.
    pub fn outbound(&self, destination: SocketAddr, namespace: &str) -> Outbound {
        match self.index.by_address(destination) {
            Found::Service(backend) => self.to_service(backend, namespace),
            Found::Workload(pod) => {
                let protocol = self.accepted(pod, destination.port()).protocol;
                Outbound::new(Target::Workload(self.endpoint(destination, Some(pod), None)), protocol)
            }
            Found::None => Outbound::external(),
        }
    }

    /// The policy of a Service's port, whether or not the Service has an address yet.
    pub fn to_service(&self, backend: ServicePort, namespace: &str) -> Outbound {
        let (settings, held) = policies::of_destination(self.index, &backend);
        Outbound {
            protocol: self.dialled(&backend),
            routes: self.routes(&backend, namespace),
            settings,
            backend: held,
            target: Target::Service(backend),
        }
    }

    /// Those who ask from a namespace may be answered otherwise than all others: there are routes of their own.
    pub fn has_routes_of_its_own(&self, destination: SocketAddr, namespace: &str) -> bool {
        let Found::Service(backend) = self.index.by_address(destination) else { return false };
        *namespace != *backend.service.namespace
            && self.index.routes_of(&backend.service).any(|route| *route.key.namespace == *namespace)
    }

    /// The endpoints of a backend for a caller in `zone`, by address, of both families. Those of an unknown backend
    /// are none.
    pub fn endpoints(&self, backend: &ServicePort, zone: Option<&str>) -> Vec<Endpoint> {
        let tls = backend_tls::of_port(self.index, backend).map(Arc::new);
        let backings = self.index.endpoints(backend, zone);
        backings.into_iter().map(|one| self.endpoint(one.address, one.pod, tls.as_ref())).collect()
    }

    /// What a workload accepts on one of its ports. Of an unknown workload nothing is known.
    pub fn inbound(&self, workload: &WorkloadName, port: u16) -> Inbound {
        self.index.pod(workload).map(|pod| self.accepted(pod, port)).unwrap_or_default()
    }

    /// Services that say different things about one port of a Pod leave it undecided.
    fn accepted(&self, pod: &Pod, port: u16) -> Inbound {
        let services = self.index.services_before(pod, port);
        if self.index.is_opaque(pod, port) {
            return Inbound { protocol: Protocol::Opaque, service: services.into_iter().next() };
        }
        let mut protocols = services.iter().map(|service| self.protocol(service));
        let first = protocols.next().unwrap_or_default();
        let protocol = if protocols.all(|one| one == first) { first } else { Protocol::Auto };
        Inbound { protocol, service: services.into_iter().next() }
    }

    /// What is spoken to a Service's port: nobody looks at the bytes if that is so for one of its Pods.
    fn dialled(&self, backend: &ServicePort) -> Protocol {
        let opaque = |pod: &Pod, port| self.index.is_opaque(pod, port);
        let mut endpoints = self.index.endpoints(backend, None).into_iter();
        match endpoints.any(|one| one.pod.is_some_and(|pod| opaque(pod, one.address.port()))) {
            true => Protocol::Opaque,
            false => self.protocol(backend),
        }
    }

    /// What the Service says that its port speaks; where it says nothing, what proxies have found out.
    fn protocol(&self, backend: &ServicePort) -> Protocol {
        let service = self.index.service(&backend.service);
        let found = service.and_then(|service| Some((service, service.port(backend.port)?)));
        let declared = found.map(|(service, port)| backends::declared(self.index, service, port));
        match declared.unwrap_or_default() {
            Protocol::Auto => self.detected.protocol(backend),
            declared => declared,
        }
    }

    /// Between proxies the mesh's mTLS holds, whatever `tls` asks for.
    fn endpoint(&self, address: SocketAddr, pod: Option<&Pod>, tls: Option<&Arc<BackendTls>>) -> Endpoint {
        let identity = pod.filter(|pod| pod.meshed).and_then(|pod| self.identity(pod));
        let tls = tls.filter(|_| identity.is_none()).cloned();
        Endpoint { address, identity, workload: pod.map(|pod| pod.name.clone()), tls }
    }

    fn identity(&self, pod: &Pod) -> Option<SpiffeId> {
        SpiffeId::new(self.trust_domain, &pod.account.namespace, &pod.account.name).ok()
    }
}
