//! The proxy: what `weft-proxy` runs.
//!
//! `outbound::serve` and `inbound::serve` tell what happens to a connection, top to bottom. Decisions are made elsewhere
//! (`policy`, `proxy-detect`, `proxy-balance`), bytes are moved elsewhere (`proxy-http`); here they meet.

pub mod admin;
mod allowance;
pub mod await_ready;
pub mod control;
pub mod cpus;
mod destination;
mod detection;
pub mod discovery;
#[rustfmt::skip]
mod generated;
mod hop;
pub mod identity;
pub mod inbound;
mod logged;
pub mod outbound;
pub mod probe;
pub mod proxy;
mod requests;
mod respond;
mod routed;
mod seldom;
mod session;
mod streams;
mod tcp;
pub mod telemetry;
mod why;
pub mod worker;
