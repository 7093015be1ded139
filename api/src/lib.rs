//! Weft's own objects: `TrafficPolicy` and `BackendPolicy` of group `policy.weft.mesh`, as Rust types, and the
//! CustomResourceDefinitions that are made from them (`charts/weft/crds`).
//!
//! The doc comments of fields are what `kubectl explain` prints. Values are parsed as they are read: a time, a size, a
//! percentage, a gRPC status that cannot be one refuses the object, as the schema does in a cluster. Here is no client and
//! nothing that decides: what a policy means beside others, `control-translate` says.

mod backend_policy;
mod crd;
mod grpc;
mod quantities;
mod status;
mod target;
mod traffic_policy;

pub use backend_policy::{
    AccrualMode, BackendPolicy, BackendPolicySpec, CookieConfig, FailureAccrual, LifetimeType, Limits,
    MinRetryRate, RetryBudget, SessionPersistence, SessionType,
};
pub use crd::crds;
pub use grpc::GrpcCode;
pub use quantities::{Duration, Invalid, Percent, Size};
pub use status::{AncestorStatus, Condition, ParentReference, PolicyStatus};
pub use target::{GATEWAY_GROUP, TargetKind, TargetRef};
pub use traffic_policy::{
    Abort, Backoff, Delay, DirectResponse, Fault, HeaderValue, Hedge, Retry, Timeouts, TrafficPolicy,
    TrafficPolicySpec,
};

/// The group of our policies.
pub const GROUP: &str = "policy.weft.mesh";
/// Their version.
pub const VERSION: &str = "v1alpha1";
/// Who writes the statuses of policies and routes (`controllerName`).
pub const CONTROLLER_NAME: &str = "weft.mesh/controller";

/// What is wrong with a spec beside the types of its fields: the rules that a cluster checks by CEL, for those who
/// read objects from somewhere else.
pub trait Validate {
    /// Each breach: the path of the field (`spec.timeouts.backendRequest`) and what is wrong with it.
    fn breaches(&self) -> Vec<Breach>;
}

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub field: String,
    pub what: &'static str,
}

impl Breach {
    fn new(field: impl Into<String>, what: &'static str) -> Self {
        Self { field: field.into(), what }
    }
}
