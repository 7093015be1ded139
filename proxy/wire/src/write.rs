//! `policy` -> protobuf. Nothing here can fail.

mod backend_tls;
mod filters;
mod routes;
mod settings;

use crate::v1;
use policy::{Endpoint, Inbound, Outbound, Protocol, ServicePort, Target, WorkloadName};
use std::net::{IpAddr, SocketAddr};

impl From<SocketAddr> for v1::SocketAddress {
    /// IPv4-mapped addresses (RFC 4291 §2.5.5.2) are written as IPv4; an IPv6 scope or flow label is not carried.
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Self { ip, port: address.port().into() }
    }
}

impl From<Protocol> for v1::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Auto => Self::Auto,
            Protocol::Http1 => Self::Http1,
            Protocol::Http2 => Self::Http2,
            Protocol::Grpc => Self::Grpc,
            Protocol::Tls => Self::Tls,
            Protocol::Opaque => Self::Opaque,
        }
    }
}

impl From<&ServicePort> for v1::Backend {
    fn from(port: &ServicePort) -> Self {
        Self {
            namespace: port.service.namespace.as_ref().into(),
            name: port.service.name.as_ref().into(),
            port: port.port.into(),
        }
    }
}

impl From<&Endpoint> for v1::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            address: Some(endpoint.address.into()),
            identity: endpoint.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
            workload: endpoint.workload.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl From<&[Endpoint]> for v1::EndpointSet {
    fn from(endpoints: &[Endpoint]) -> Self {
        let tls = endpoints.iter().find_map(|endpoint| endpoint.tls.as_deref()).map(Into::into);
        Self { endpoints: endpoints.iter().map(Into::into).collect(), tls }
    }
}

impl From<&Target> for v1::outbound_policy::Target {
    fn from(target: &Target) -> Self {
        match target {
            Target::Service(port) => Self::Service(port.into()),
            Target::Workload(endpoint) => Self::Workload(endpoint.into()),
            Target::External => Self::External(v1::External {}),
        }
    }
}

impl From<&Outbound> for v1::OutboundPolicy {
    fn from(outbound: &Outbound) -> Self {
        Self {
            target: Some((&outbound.target).into()),
            protocol: v1::Protocol::from(outbound.protocol).into(),
            settings: settings::settings(&outbound.settings),
            backend: settings::backend(&outbound.backend),
            routes: routes::routes(&outbound.routes),
        }
    }
}

impl From<&Inbound> for v1::InboundPolicy {
    fn from(inbound: &Inbound) -> Self {
        Self {
            protocol: v1::Protocol::from(inbound.protocol).into(),
            service: inbound.service.as_ref().map(Into::into),
        }
    }
}

impl v1::OutboundTarget {
    /// The question of `workload` about what it dialled.
    pub fn new(target: SocketAddr, workload: &WorkloadName) -> Self {
        Self { target: Some(target.into()), workload: workload.to_string() }
    }
}

impl v1::EndpointsTarget {
    /// The question of `workload` about the endpoints of a backend.
    pub fn new(backend: &ServicePort, workload: &WorkloadName) -> Self {
        let v1::Backend { namespace, name, port } = backend.into();
        Self { namespace, name, port, workload: workload.to_string() }
    }
}

impl v1::InboundPort {
    /// The question of `workload` about a port of its own.
    pub fn new(workload: &WorkloadName, port: u16) -> Self {
        Self { workload: workload.to_string(), port: port.into() }
    }
}

impl v1::DetectedRequest {
    /// The word about what a Service port was found to speak.
    pub fn new(service: &ServicePort, protocol: Protocol) -> Self {
        Self { service: Some(service.into()), protocol: v1::Protocol::from(protocol).into() }
    }
}
