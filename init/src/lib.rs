//! Brings the connections of a network namespace to the proxy: the redirection as data, its ways into the kernel, and
//! the proof that it works.
//!
//! ```text
//! plan (pure) -> iptables (pure) -> tool      programs iptables-restore, of nf_tables or legacy
//!             -> nftables (pure) -> netlink   nf_tables without any program
//! redirection: apply, remove, print           verify: probe and read back
//! direct: apply by nf_tables alone            prove: probe, without any capability
//! ```
//!
//! Everything acts on the network namespace of the calling thread. Not here: namespaces themselves, pods, the proxy.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
pub mod direct;
mod error;
mod host;
mod iptables;
mod netlink;
mod nftables;
pub mod plan;
mod prove;
mod redirection;
mod tool;
mod verify;

pub use backend::{Backend, Choice};
pub use error::Error;
pub use plan::{Family, Ipv6, Plan, PortRange, parse_list};
pub use prove::{Proven, prove};
pub use redirection::{Applied, Families, Removed, apply, print, remove};
pub use verify::{Check, PROBE_LIMIT, Proof, Report, verify};
