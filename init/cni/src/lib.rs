//! Redirection without an init container: a chained CNI plugin applies a pod's plan while its network is made, and an agent on each
//! node keeps the plugin in place and mends pods that slipped by.
//!
//! ```text
//! runtime ── stdin, CNI_* ──> call (pure) ─> plugin ── setns ──> init::direct
//!                                               │ a runtime that tells no annotations
//!                                               └── unix socket ──> agent::questions ── API server
//! agent: install (binary, conflist (pure)), pods (mended in place), node (taint), admin
//! ```
//!
//! Not here: the rules and their way into the kernel (`init`), and which pods are meshed (the injector says so by an annotation).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
pub mod annotation;
pub mod call;
pub mod conflist;
pub mod namespace;
pub mod plugin;
pub mod question;
