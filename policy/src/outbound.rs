//! Where traffic of an application goes: the policy for one destination that it dialled.

use crate::{BackendSettings, BackendTls, Protocol, Routes, ServicePort, Settings, SpiffeId, WorkloadName};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// The policy for one original destination (address and port, as the application dialled it), for those who ask from one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outbound {
    pub target: Target,
    /// What the destination speaks, when its owner said so or an earlier connection showed it.
    pub protocol: Protocol,
    pub routes: Routes,
    /// For what no rule is there for.
    pub settings: Settings,
    /// Of the target, where traffic goes there without a rule.
    pub backend: BackendSettings,
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
    /// The identity of the proxy there. `None`: no proxy.
    pub identity: Option<SpiffeId>,
    pub workload: Option<WorkloadName>,
    /// What a program without a proxy speaks: TLS, or (`None`) plaintext. All endpoints of a Service port share it.
    pub tls: Option<Arc<BackendTls>>,
}

impl Endpoint {
    /// What is known of an address of which nobody said anything.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, identity: None, workload: None, tls: None }
    }
}

/// Time for one attempt to connect, unless a policy says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl Outbound {
    /// The policy of a destination about which nobody said anything.
    pub fn new(target: Target, protocol: Protocol) -> Self {
        Self {
            target,
            protocol,
            routes: Routes::None,
            settings: Settings::default(),
            backend: BackendSettings::default(),
        }
    }

    /// The policy of a destination that nobody knows: pass it through.
    pub fn external() -> Self {
        Self::new(Target::External, Protocol::Auto)
    }
}
