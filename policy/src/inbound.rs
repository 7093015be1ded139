//! What a workload accepts on one of its own ports.

use crate::{Protocol, ServicePort};

/// The policy of one port of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inbound {
    /// What the application speaks there, when its owner said so or an earlier connection showed it.
    pub protocol: Protocol,
    /// The Service that the port serves (the first by name, if several do): a label of its metrics.
    pub service: Option<ServicePort>,
}
