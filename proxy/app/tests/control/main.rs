//! The control-plane client against a control in the same process, in paused time.

mod discovery;
mod fake;
mod identity;
mod outages;

#[rustfmt::skip]
#[path = "../../../../control/serve/src/generated.rs"]
mod server;
