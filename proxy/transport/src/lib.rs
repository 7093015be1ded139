//! Sockets as the proxy uses them: listening, original destination, connecting, half-close and reset.
//!
//! Here stands the only `unsafe` of the data path (socket options without a safe wrapper). Nothing here knows a
//! protocol. `memory` is the same transport without a kernel, so that whole proxies run in one process on virtual time.

mod connect;
pub mod descriptors;
pub mod heap;
mod listen;
pub mod memory;
mod original;
mod stream;

pub use connect::{Network, SystemNetwork};
pub use listen::{Listener, Reach};
pub use stream::{Backlog, Duplex, Layer, Stream};
