//! Kubernetes objects in, what they say about traffic out.
//!
//! `Index::apply` and `Index::delete` take one object each and answer with what they touched, so that only answers
//! that can have changed are made anew. Lookups are by address, by Service port and by workload. Objects are kept in
//! trimmed forms of our own. Here is no I/O and no policy: sources fill the index, `control-translate` reads it.

mod attached;
mod attachments;
mod endpoints;
mod index;
pub mod manifest;
mod namespace;
mod object;
mod pod;
mod ports;
mod problem;
mod route;
mod service;
mod slice;
mod touched;

pub use attached::{Policy, PolicySpec, Target};
pub use endpoints::Backing;
pub use index::{Found, Index};
pub use namespace::Namespace;
pub use object::{Account, Body, InvalidObject, Key, Kind, Object};
pub use pod::{MESHED_LABEL, Pod, State};
pub use ports::Ports;
pub use problem::Problem;
pub use route::{Observed, Route, RouteSpec};
pub use service::{Port, Service, TargetPort};
pub use touched::Touched;
