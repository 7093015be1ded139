//! The mesh from end to end: real programs in network namespaces, through real proxies and a real control.
//!
//! Each test has a world of its own (see the harness, `tests/src`); they need root, and the programs of `programs.rs`.

// Panics are how a test fails.
#![allow(clippy::unwrap_used)]

mod access_log;
mod backend_tls;
mod breaks;
mod bulk;
mod control;
mod explain;
mod floods;
mod grpc;
mod h2;
mod hostile;
mod http;
mod kubelet;
mod load;
mod outages;
mod peers;
mod pools;
mod programs;
#[path = "../../../explain/tests/random/mod.rs"]
mod random;
mod refusals;
mod rollout;
mod routes;
mod splits;
mod tcp;
