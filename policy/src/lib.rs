//! The model of the mesh: names, identities, protocols, where traffic may go, limits and reasons.
//!
//! Control compiles *to* these types and the proxy executes them. Here is no Kubernetes, no protobuf, no socket,
//! no clock: `policy` knows what a decision is, never how it is transported or carried out.

pub mod identity;
pub mod inbound;
pub mod limits;
pub mod names;
pub mod outbound;
pub mod protocol;
pub mod reason;

pub use identity::{InvalidSpiffeId, SpiffeId, TrustDomain};
pub use inbound::Inbound;
pub use names::{InvalidName, ServiceName, ServicePort, WorkloadName};
pub use outbound::{Decision, Endpoint, Outbound, Target};
pub use protocol::{Protocol, UnknownProtocol};
pub use reason::Reason;
