//! Names in the cluster that the commands go by: labels, annotations, objects, containers. What the injector writes is named there.

pub use injector::{
    INJECT, INJECTED, NOT_INJECTED,
    settings::REDIRECTION,
    sidecar::{INIT as INIT_CONTAINER, PROXY as PROXY_CONTAINER, TRUST_ROOTS},
};

/// Taint of a node whose CNI agent is not ready.
pub const CNI_TAINT: &str = "weft.mesh/cni-not-ready";
/// Deployment, account and Lease.
pub const CONTROL: &str = "weft-control";
/// Deployment and account.
pub const INJECTOR: &str = "weft-injector";
/// MutatingWebhookConfiguration.
pub const WEBHOOK: &str = "weft-injector";
/// DaemonSet.
pub const CNI: &str = "weft-cni";
/// Secret of control.
pub const ISSUER: &str = "weft-identity-issuer";
/// Secret of the injector.
pub const INJECTOR_TLS: &str = "weft-injector-tls";
/// Admin port of a proxy, and of control.
pub const PROXY_ADMIN: u16 = 4291;
pub const CONTROL_ADMIN: u16 = 8487;
/// The Gateway API's version that is tested.
pub const GATEWAY_API: &str = "1.6.3";
