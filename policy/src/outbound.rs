//! Where traffic of an application goes: the policy for one destination that it dialled, and the decision it yields.

use crate::{Protocol, ServicePort, SpiffeId, WorkloadName};
use std::{net::SocketAddr, time::Duration};

/// The policy for one original destination (address and port, as the application dialled it).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outbound {
    pub target: Target,
    /// What the destination speaks, when its owner said so or an earlier connection showed it.
    pub protocol: Protocol,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
}

/// Who stands behind an original destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A Service: its endpoints are balanced.
    Service(ServicePort),
    /// One pod, dialled by its own address: no Service's routes apply.
    Workload(Endpoint),
    /// Not of the mesh: traffic goes to where it was sent, as it was sent.
    External,
}

/// One address that serves a Service port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// The identity of the proxy there. `None`: no proxy, plaintext.
    pub identity: Option<SpiffeId>,
    pub workload: Option<WorkloadName>,
}

/// What is to be done with a connection or a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision<'a> {
    pub forward: Forward<'a>,
    pub connect_timeout: Duration,
}

/// Where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward<'a> {
    /// To an endpoint of this backend that the balancer picks.
    Balanced(&'a ServicePort),
    /// To exactly this endpoint.
    Endpoint(&'a Endpoint),
    /// To the address that the application dialled, in plaintext.
    Original,
}

/// Time for one attempt to connect, unless a policy says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl Outbound {
    /// The policy of a destination that nobody knows: pass it through.
    pub fn external() -> Self {
        Self { target: Target::External, protocol: Protocol::Auto, connect_timeout: CONNECT_TIMEOUT }
    }

    /// The only place that chooses where traffic goes.
    pub fn route(&self) -> Decision<'_> {
        let forward = match &self.target {
            Target::Service(backend) => Forward::Balanced(backend),
            Target::Workload(endpoint) => Forward::Endpoint(endpoint),
            Target::External => Forward::Original,
        };
        Decision { forward, connect_timeout: self.connect_timeout }
    }
}
