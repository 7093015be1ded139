//! The real server on loopback, over a temporary directory, asked by real clients with real TLS.

mod client;
#[rustfmt::skip]
#[path = "../../../proxy/app/src/generated.rs"]
mod generated;
mod cases;
