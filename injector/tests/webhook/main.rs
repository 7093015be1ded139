//! The webhook in this process, against an API server that is a few maps: `api`. `rotation` has a clock of its own and
//! no sockets; `reviews` speaks TLS on loopback as an API server does.

#![allow(clippy::unwrap_used)]

mod api;
mod reviews;
mod rotation;
mod trust;
