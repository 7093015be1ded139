//! The proxy: what `weft-proxy` runs.

pub mod admin;
pub mod telemetry;
