//! Objects that say something about others: ReferenceGrants, our policies and Gateway API's.

use super::{ObjectMeta, filters::LocalObjectReference, listed, routes::ParentRef};
use api::{RetryBudget, SessionPersistence};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A policy of any kind.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Policy<S> {
    #[serde(default)]
    pub metadata: ObjectMeta,
    pub spec: S,
    #[serde(default)]
    pub status: Option<PolicyStatus>,
}

/// What controllers say about a policy, one entry a target and controller.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PolicyStatus {
    #[serde(deserialize_with = "listed")]
    pub ancestors: Vec<AncestorStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AncestorStatus {
    pub ancestor_ref: ParentRef,
    pub controller_name: String,
    #[serde(deserialize_with = "listed")]
    pub conditions: Vec<Condition>,
}

/// One statement of a controller (`metav1.Condition`). When it became so is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub observed_generation: i64,
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReferenceGrant {
    pub metadata: ObjectMeta,
    pub spec: ReferenceGrantSpec,
}

/// Whoever is in `from` may refer to what is in `to`, in the grant's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ReferenceGrantSpec {
    #[serde(deserialize_with = "listed")]
    pub from: Vec<GrantFrom>,
    #[serde(deserialize_with = "listed")]
    pub to: Vec<GrantTo>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrantFrom {
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrantTo {
    pub group: String,
    pub kind: String,
    /// Missing: all of that kind.
    pub name: Option<String>,
}

/// What one of Gateway API's policies is attached to, in its own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyTarget {
    pub group: String,
    pub kind: String,
    pub name: String,
    /// A port of a Service, by name (BackendTLSPolicy alone).
    pub section_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct XBackendTrafficPolicySpec {
    #[serde(deserialize_with = "listed")]
    pub target_refs: Vec<PolicyTarget>,
    pub retry_constraint: Option<RetryConstraint>,
    pub session_persistence: Option<SessionPersistence>,
}

/// How much of the load may be retries.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RetryConstraint {
    /// Its percent and interval; Gateway API keeps the least rate beside it.
    pub budget: Option<RetryBudget>,
    pub min_retry_rate: Option<api::MinRetryRate>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendTlsPolicySpec {
    #[serde(deserialize_with = "listed")]
    pub target_refs: Vec<PolicyTarget>,
    pub validation: BackendTlsValidation,
    pub options: BTreeMap<String, String>,
}

/// How a backend's certificate is verified.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendTlsValidation {
    #[serde(rename = "caCertificateRefs", deserialize_with = "listed")]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<String>,
    pub hostname: String,
    #[serde(deserialize_with = "listed")]
    pub subject_alt_names: Vec<SubjectAltName>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SubjectAltName {
    #[serde(rename = "type")]
    pub type_: String,
    pub hostname: String,
    pub uri: String,
}

impl RetryConstraint {
    /// The same as our own field for it.
    pub fn budget(&self) -> RetryBudget {
        let budget = self.budget.clone().unwrap_or_default();
        RetryBudget { min_retry_rate: self.min_retry_rate.clone(), ..budget }
    }
}
