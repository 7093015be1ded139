//! The servers and the load of the benchmark, apart from what wrk and h2load do better.
//!
//! ```text
//! backend    what the proxies stand before: HTTP and gRPC, sink, source, echo
//! closed     closed loops: the next exchange begins when the last one ended
//! paced      a fixed rate, corrected for coordinated omission
//! bulk       one direction, as fast as it goes
//! idle       connections that did one exchange and then rest
//! burst      many connections at once that read long bodies slowly
//! exchange   one connection, one GET
//! tally      what was counted, as one line of key=value pairs
//! ```
//!
//! Everything runs on one thread, so that the load stays on the CPU it was given. Not here: namespaces, proxies and
//! their CPU accounting (`bench/run`).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backend;
pub mod bulk;
pub mod burst;
pub mod closed;
pub mod exchange;
pub mod idle;
pub mod paced;
pub mod tally;
