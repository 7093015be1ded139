//! Names in the cluster that the checks go by: labels, annotations, objects, containers.

/// Label of namespaces and pods: `enabled` or `disabled`.
pub const INJECT: &str = "weft.mesh/inject";
/// Label of a pod that has a proxy.
pub const INJECTED: &str = "weft.mesh/injected";
/// Annotation of a pod that has none: why.
pub const NOT_INJECTED: &str = "weft.mesh/not-injected";
/// Annotation of pods and namespaces: `init` or `cni`.
pub const REDIRECTION: &str = "weft.mesh/redirection";
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
/// ConfigMap in each namespace with meshed pods.
pub const TRUST_ROOTS: &str = "weft-trust-roots";
/// Containers of a meshed pod.
pub const PROXY_CONTAINER: &str = "weft-proxy";
pub const INIT_CONTAINER: &str = "weft-init";
/// Admin port of a proxy, and of control.
pub const PROXY_ADMIN: u16 = 4291;
pub const CONTROL_ADMIN: u16 = 8487;
/// The Gateway API's version that is tested.
pub const GATEWAY_API: &str = "1.6.3";
