//! The webhook: a TLS server that the API server asks about each new pod, and what keeps it running.
//!
//! ```text
//! serving (TLS, HTTP) ─> review (AdmissionReview, pure) ─> decide
//! keeper ─> certificate    namespaces    settings file       admin: /live /ready /metrics
//! ```

pub mod certificate;
pub mod keeper;
mod metrics;
mod namespaces;
pub mod review;
mod server;
mod serving;

pub use metrics::Metrics;
pub use server::{Server, Settings, StartError};
