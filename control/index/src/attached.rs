//! A policy: ours and Gateway API's, and what it is attached to.

use crate::{
    Key, Kind, Observed,
    manifest::{self, BackendTlsPolicySpec, PolicyTarget, XBackendTrafficPolicySpec},
    problem::Notes,
};
use api::{BackendPolicySpec, Breach, TargetKind, TargetRef, TrafficPolicySpec, Validate};
use std::sync::Arc;

/// One policy. What it means beside others is for `control-translate` to judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub key: Key,
    /// Grows with each change of the spec; 0 where nobody counts (directory mode).
    pub generation: i64,
    /// RFC 3339 in UTC, so that texts order as times do; empty where nobody says (directory mode).
    pub created: Arc<str>,
    pub spec: PolicySpec,
    /// It breaks a rule that a cluster would have refused it for; the problems of the object say which.
    pub invalid: bool,
    /// What we said about it, as its status holds it.
    pub observed: Vec<Observed>,
}

/// What a policy says, by its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicySpec {
    Traffic(Arc<TrafficPolicySpec>),
    Backend(Arc<BackendPolicySpec>),
    XBackendTraffic(Arc<XBackendTrafficPolicySpec>),
    BackendTls(Arc<BackendTlsPolicySpec>),
}

/// One target of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it stands in `spec.targetRefs`.
    pub at: usize,
    /// The object, whether it is there or not.
    pub object: Key,
    /// A rule of a route, or a port of a Service, by name.
    pub section: Option<Arc<str>>,
}

impl Policy {
    pub(crate) fn read<S>(
        key: &Key,
        manifest: &manifest::Policy<S>,
        spec: PolicySpec,
        notes: &mut Notes,
    ) -> Self {
        let breaches = spec.breaches();
        for breach in &breaches {
            notes.add(breach.field.clone(), format!("{}; the policy is left out", breach.what));
        }
        let status = manifest.status.iter().flat_map(|status| &status.ancestors);
        let ours = status.filter(|ancestor| ancestor.controller_name == api::CONTROLLER_NAME);
        Self {
            key: key.clone(),
            generation: manifest.metadata.generation.unwrap_or_default(),
            created: manifest.metadata.creation_timestamp.as_deref().unwrap_or_default().into(),
            spec,
            invalid: !breaches.is_empty(),
            observed: ours
                .map(|ancestor| Observed {
                    about: ancestor.ancestor_ref.clone(),
                    conditions: ancestor.conditions.clone(),
                })
                .collect(),
        }
    }

    /// They differ in nothing but what was said about them.
    pub(crate) fn says_what(&self, other: &Self) -> bool {
        self.generation == other.generation && self.created == other.created && self.spec == other.spec
    }

    /// What it is attached to. Targets of kinds that nothing can be attached to here are left out.
    pub fn targets(&self) -> Vec<Target> {
        match &self.spec {
            PolicySpec::Traffic(spec) => self.own(&spec.target_refs),
            PolicySpec::Backend(spec) => self.own(&spec.target_refs),
            PolicySpec::XBackendTraffic(spec) => self.services(&spec.target_refs),
            PolicySpec::BackendTls(spec) => self.services(&spec.target_refs),
        }
    }

    fn own(&self, targets: &[TargetRef]) -> Vec<Target> {
        let target = |(at, target): (usize, &TargetRef)| Target {
            at,
            object: self.target(kind(target.kind), &target.name),
            section: target.section_name.as_deref().map(Into::into),
        };
        targets.iter().enumerate().map(target).collect()
    }

    fn services(&self, targets: &[PolicyTarget]) -> Vec<Target> {
        let services = targets.iter().enumerate().filter(|(_, target)| is_service(target));
        services
            .map(|(at, target)| Target {
                at,
                object: self.target(Kind::Service, &target.name),
                section: target.section_name.as_deref().filter(|name| !name.is_empty()).map(Into::into),
            })
            .collect()
    }

    fn target(&self, kind: Kind, name: &str) -> Key {
        let namespace = if kind.is_namespaced() { &self.key.namespace } else { "" };
        Key::new(kind, namespace, name)
    }
}

impl PolicySpec {
    fn breaches(&self) -> Vec<Breach> {
        match self {
            Self::Traffic(spec) => spec.breaches(),
            Self::Backend(spec) => spec.breaches(),
            Self::XBackendTraffic(_) | Self::BackendTls(_) => Vec::new(),
        }
    }
}

fn kind(target: TargetKind) -> Kind {
    match target {
        TargetKind::HttpRoute => Kind::HttpRoute,
        TargetKind::GrpcRoute => Kind::GrpcRoute,
        TargetKind::Service => Kind::Service,
        TargetKind::Namespace => Kind::Namespace,
    }
}

fn is_service(target: &PolicyTarget) -> bool {
    target.group.is_empty() && target.kind == "Service"
}
