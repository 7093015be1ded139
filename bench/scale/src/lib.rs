//! Control at scale, without a cluster: a mesh that is only described, an API server that serves it, and as many proxies as
//! one process can hold, which time how long each change takes to reach them.
//!
//! ```text
//! mesh       Namespaces, Services and Pods of a mesh of any size; what proxies must be told of them; what changes
//! objects    the same as Kubernetes' objects, as large as real ones
//! store      objects, their versions, and the events that watches repeat
//! api        the API server: lists, watches, and what else control asks for
//! control    weft-control as a process: started, measured, ended
//! proxy      a proxy's conversations with control
//! ledger     which answer tells of which change, and how long it took
//! run        all of it together, with what came out
//! ```
//!
//! Everything runs on one thread, so that a change and its arrival are read from one clock and control has the other CPU for
//! itself. Not here: traffic (`bench-load`), and the truth of Kubernetes' own behaviour: of its API server this is as much as
//! control uses.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod control;
pub mod ledger;
pub mod mesh;
pub mod objects;
pub mod proxy;
pub mod run;
pub mod store;

#[rustfmt::skip]
#[path = "../../../proxy/app/src/generated.rs"]
mod generated;
