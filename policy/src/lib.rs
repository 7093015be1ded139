//! The model of the mesh: names, identities, protocols, where traffic may go, limits and reasons.
//!
//! Control compiles *to* these types and the proxy executes them. Here is no Kubernetes, no protobuf, no socket,
//! no clock: `policy` knows what a decision is, never how it is transported or carried out.

pub mod backend_tls;
pub mod cover;
pub mod facts;
pub mod filter;
pub mod form;
pub mod grpc;
pub mod identity;
pub mod inbound;
pub mod limits;
pub mod matching;
pub mod names;
pub mod outbound;
pub mod path;
pub mod protocol;
pub mod reason;
pub mod route;
pub mod rule;
pub mod settings;
pub mod text;
pub mod why;

pub use backend_tls::BackendTls;
pub use cover::Shadowed;
pub use facts::{Facts, Fields};
pub use filter::{Cors, Filter, HeaderEdit, Mirror, PathEdit, Redirect, Rewrite, Share};
pub use identity::{InvalidSpiffeId, SpiffeId, TrustDomain};
pub use inbound::Inbound;
pub use matching::{Match, PathMatch, ValueMatch};
pub use names::{InvalidName, ServiceName, ServicePort, WorkloadName};
pub use outbound::{Endpoint, Outbound, Target};
pub use protocol::{Protocol, UnknownProtocol};
pub use reason::Reason;
pub use route::{Action, Decision, Forward, Found, route, route_connection};
pub use rule::{BackendRef, RouteRef, Routes, Rule, RuleRef, RuleTable, TlsRule, WeightedBackend};
pub use settings::{BackendSettings, Origin, Set, Settings};
pub use text::{InvalidPattern, Pattern, TextMatch};
pub use why::{Trace, Why};
