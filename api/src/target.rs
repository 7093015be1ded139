//! What a policy is attached to.

use crate::Breach;
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The group of Gateway API's routes.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// One object that a policy is attached to, in the policy's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self.kind in ['Service', 'Namespace'] ? self.group == '' : self.group == 'gateway.networking.k8s.io'").message("group must be \"\" for a Service or Namespace, gateway.networking.k8s.io for a route").field_path(".group"),
    validation = Rule::new("!has(self.sectionName) || self.kind != 'Namespace'").message("a Namespace has no sections").field_path(".sectionName")
)]
pub struct TargetRef {
    /// Group of the target: empty for a Service or a Namespace, gateway.networking.k8s.io for a route.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind of the target.
    pub kind: TargetKind,
    /// Name of the target. A Namespace is the one that the policy is in.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Part of the target: the name of a route's rule, or of a Service's port. Without it all of the target is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// The kinds that our policies can be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
pub enum TargetKind {
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    Service,
    Namespace,
}

impl TargetKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::Service => "Service",
            Self::Namespace => "Namespace",
        }
    }

    pub fn group(self) -> &'static str {
        match self {
            Self::HttpRoute | Self::GrpcRoute => GATEWAY_GROUP,
            Self::Service | Self::Namespace => "",
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The rules of all `targetRefs`.
pub(crate) fn breaches(targets: &[TargetRef]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    if targets.is_empty() || targets.len() > 16 {
        breaches.push(Breach::new("spec.targetRefs", "it must name 1 to 16 targets"));
    }
    for (at, target) in targets.iter().enumerate() {
        if target.group != target.kind.group() {
            let what = "must be \"\" for a Service or Namespace, gateway.networking.k8s.io for a route";
            breaches.push(Breach::new(format!("spec.targetRefs[{at}].group"), what));
        }
        if target.kind == TargetKind::Namespace && target.section_name.is_some() {
            let field = format!("spec.targetRefs[{at}].sectionName");
            breaches.push(Breach::new(field, "a Namespace has no sections"));
        }
    }
    breaches
}
