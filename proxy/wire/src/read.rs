//! protobuf -> `policy`. Every field is checked; an error names it. A field that this version does not know is passed over; a *kind*
//! (of a match, a filter, a backend) that it does not know is an error, as the rule would mean something else without it.

mod backend_tls;
mod filters;
mod routes;
mod settings;
mod text;

use crate::{Malformed, Problem, v1};
use policy::{
    Endpoint, Inbound, Outbound, Protocol, ServiceName, ServicePort, Target, WorkloadName,
    names::{is_label, is_subdomain},
};
use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

impl TryFrom<&v1::SocketAddress> for SocketAddr {
    type Error = Malformed;

    /// IPv4-mapped addresses (RFC 4291 §2.5.5.2) are read as IPv4.
    fn try_from(address: &v1::SocketAddress) -> Result<Self, Malformed> {
        let ip = if let Ok(octets) = <[u8; 4]>::try_from(address.ip.as_slice()) {
            IpAddr::from(octets)
        } else if let Ok(octets) = <[u8; 16]>::try_from(address.ip.as_slice()) {
            IpAddr::from(octets).to_canonical()
        } else {
            return Err(Malformed::new("ip", Problem::AddressLength(address.ip.len())));
        };
        Ok(Self::new(ip, port(address.port)?))
    }
}

impl TryFrom<&v1::Backend> for ServicePort {
    type Error = Malformed;

    fn try_from(backend: &v1::Backend) -> Result<Self, Malformed> {
        for (field, text) in [("namespace", &backend.namespace), ("name", &backend.name)] {
            if !is_label(text) {
                return Err(Malformed::new(field, Problem::Name(Problem::quote(text))));
            }
        }
        Ok(ServiceName::new(&backend.namespace, &backend.name).port(port(backend.port)?))
    }
}

impl TryFrom<&v1::EndpointsTarget> for (ServicePort, Option<WorkloadName>) {
    type Error = Malformed;

    /// A proxy of an earlier version does not say who it is.
    fn try_from(request: &v1::EndpointsTarget) -> Result<Self, Malformed> {
        let v1::EndpointsTarget { namespace, name, port, workload: asking } = request;
        let backend = v1::Backend { namespace: namespace.clone(), name: name.clone(), port: *port };
        let asking = (!asking.is_empty()).then(|| workload(asking)).transpose()?;
        Ok((backend.try_into()?, asking))
    }
}

impl TryFrom<&v1::Endpoint> for Endpoint {
    type Error = Malformed;

    fn try_from(endpoint: &v1::Endpoint) -> Result<Self, Malformed> {
        let identity = match endpoint.identity.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|error: policy::InvalidSpiffeId| {
                Malformed::new("identity", Problem::Identity(Problem::quote(&error.to_string())))
            })?),
        };
        let workload = match endpoint.workload.as_str() {
            "" => None,
            text => Some(workload(text)?),
        };
        Ok(Self { address: address("address", endpoint.address.as_ref())?, identity, workload, tls: None })
    }
}

impl TryFrom<&v1::EndpointSet> for Vec<Endpoint> {
    type Error = Malformed;

    /// An address that stands twice (EndpointSlices may overlap for a while) is taken once, as it stands first.
    fn try_from(set: &v1::EndpointSet) -> Result<Self, Malformed> {
        let tls = option("tls", set.tls.as_ref(), backend_tls::backend_tls)?.map(Arc::new);
        let mut known = HashSet::with_capacity(set.endpoints.len());
        let mut endpoints = Vec::with_capacity(set.endpoints.len());
        for (at, endpoint) in set.endpoints.iter().enumerate() {
            let mut endpoint = Endpoint::try_from(endpoint)
                .map_err(|malformed| malformed.within(format_args!("endpoints[{at}]")))?;
            if endpoint.identity.is_none() {
                endpoint.tls.clone_from(&tls);
            }
            if known.insert(endpoint.address) {
                endpoints.push(endpoint);
            }
        }
        Ok(endpoints)
    }
}

impl TryFrom<&v1::OutboundPolicy> for Outbound {
    type Error = Malformed;

    fn try_from(policy: &v1::OutboundPolicy) -> Result<Self, Malformed> {
        use v1::outbound_policy::Target as Wire;
        let target = match policy.target.as_ref() {
            None => return Err(Malformed::new("target", Problem::Missing)),
            Some(Wire::Service(backend)) => Target::Service(
                backend.try_into().map_err(|malformed: Malformed| malformed.within("service"))?,
            ),
            Some(Wire::Workload(endpoint)) => Target::Workload(
                endpoint.try_into().map_err(|malformed: Malformed| malformed.within("workload"))?,
            ),
            Some(Wire::External(v1::External {})) => Target::External,
        };
        Ok(Self {
            target,
            protocol: protocol(policy.protocol)?,
            routes: routes::routes(policy.routes.as_ref())?,
            settings: within("settings", settings::settings(policy.settings.as_ref()))?,
            backend: within("backend", settings::backend(policy.backend.as_ref()))?,
        })
    }
}

impl TryFrom<&v1::InboundPolicy> for Inbound {
    type Error = Malformed;

    fn try_from(policy: &v1::InboundPolicy) -> Result<Self, Malformed> {
        let service = match policy.service.as_ref() {
            None => None,
            Some(backend) => {
                Some(backend.try_into().map_err(|malformed: Malformed| malformed.within("service"))?)
            }
        };
        Ok(Self { protocol: protocol(policy.protocol)?, service })
    }
}

impl TryFrom<&v1::OutboundTarget> for (SocketAddr, WorkloadName) {
    type Error = Malformed;

    fn try_from(request: &v1::OutboundTarget) -> Result<Self, Malformed> {
        Ok((address("target", request.target.as_ref())?, workload(&request.workload)?))
    }
}

impl TryFrom<&v1::InboundPort> for (WorkloadName, u16) {
    type Error = Malformed;

    fn try_from(request: &v1::InboundPort) -> Result<Self, Malformed> {
        Ok((workload(&request.workload)?, port(request.port)?))
    }
}

impl TryFrom<&v1::DetectedRequest> for (ServicePort, Protocol) {
    type Error = Malformed;

    fn try_from(request: &v1::DetectedRequest) -> Result<Self, Malformed> {
        let backend = request.service.as_ref().ok_or_else(|| Malformed::new("service", Problem::Missing))?;
        let service = backend.try_into().map_err(|malformed: Malformed| malformed.within("service"))?;
        Ok((service, protocol(request.protocol)?))
    }
}

/// The same for messages taken by value, as gRPC hands them over.
macro_rules! by_value {
    ($($message:ty => $value:ty;)*) => {$(
        impl TryFrom<$message> for $value {
            type Error = Malformed;

            fn try_from(message: $message) -> Result<Self, Malformed> {
                Self::try_from(&message)
            }
        }
    )*};
}

by_value! {
    v1::SocketAddress => SocketAddr;
    v1::Backend => ServicePort;
    v1::EndpointsTarget => (ServicePort, Option<WorkloadName>);
    v1::Endpoint => Endpoint;
    v1::EndpointSet => Vec<Endpoint>;
    v1::OutboundPolicy => Outbound;
    v1::InboundPolicy => Inbound;
    v1::OutboundTarget => (SocketAddr, WorkloadName);
    v1::InboundPort => (WorkloadName, u16);
    v1::DetectedRequest => (ServicePort, Protocol);
}

impl From<v1::Protocol> for Protocol {
    fn from(protocol: v1::Protocol) -> Self {
        match protocol {
            v1::Protocol::Auto => Self::Auto,
            v1::Protocol::Http1 => Self::Http1,
            v1::Protocol::Http2 => Self::Http2,
            v1::Protocol::Grpc => Self::Grpc,
            v1::Protocol::Tls => Self::Tls,
            v1::Protocol::Opaque => Self::Opaque,
        }
    }
}

/// What was read from the field `parent`.
fn within<T>(parent: impl fmt::Display, read: Result<T, Malformed>) -> Result<T, Malformed> {
    read.map_err(|malformed| malformed.within(parent))
}

/// Each of a repeated field.
fn each<M, T>(
    field: &str,
    messages: &[M],
    read: impl Fn(&M) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let one = |(at, message)| within(format_args!("{field}[{at}]"), read(message));
    messages.iter().enumerate().map(one).collect()
}

/// What may be absent.
fn option<M, T>(
    field: &str,
    message: Option<&M>,
    read: impl Fn(&M) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    message.map(|message| within(field, read(message))).transpose()
}

fn protocol(value: i32) -> Result<Protocol, Malformed> {
    v1::Protocol::try_from(value)
        .map(Protocol::from)
        .map_err(|_| Malformed::new("protocol", Problem::Protocol(value)))
}

fn port(value: u32) -> Result<u16, Malformed> {
    u16::try_from(value)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| Malformed::new("port", Problem::Port(value)))
}

fn address(field: &str, address: Option<&v1::SocketAddress>) -> Result<SocketAddr, Malformed> {
    let address = address.ok_or_else(|| Malformed::new(field, Problem::Missing))?;
    address.try_into().map_err(|malformed: Malformed| malformed.within(field))
}

/// `namespace/pod`: a label and a subdomain (RFC 1123).
fn workload(text: &str) -> Result<WorkloadName, Malformed> {
    text.split_once('/')
        .filter(|(namespace, name)| is_label(namespace) && is_subdomain(name))
        .map(|(namespace, name)| WorkloadName::new(namespace, name))
        .ok_or_else(|| Malformed::new("workload", Problem::Workload(Problem::quote(text))))
}
