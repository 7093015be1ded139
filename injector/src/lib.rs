//! Puts the proxy into pods.
//!
//! ```text
//! config + settings (annotations) ─> decide ─> patch     pure: a pod's JSON in, a JSON Patch and its reasons out
//!                      sidecar, probes, overlay
//! manifest             the same for files of manifests, for `weft inject`; pure
//! webhook              the API server's questions, and the certificate by which it knows us
//! ```
//!
//! Not here: `weft inject`, which is a thin cover of `manifest`, and what the proxy and weft-init do in a pod.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
mod decide;
pub mod manifest;
mod overlay;
pub mod patch;
mod probes;
pub mod settings;
pub mod sidecar;
pub mod values;
pub mod webhook;

pub use config::Config;
pub use decide::{
    INJECT, INJECTED, INJECTOR_VERSION, NOT_INJECTED, Namespace, REDIRECT, Reason, Verdict, decide, note,
};

/// What somebody wrote that cannot be used, where, and what can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}; expected {expected}")]
pub struct Problem {
    /// The annotation, label or field.
    pub what: String,
    pub value: String,
    pub expected: String,
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
