//! Policies that say different things at one place. The older one is heard; of the later one, what only it says.

use crate::{policies::attached, verdicts::named};
use api::{BackendPolicySpec, TrafficPolicySpec};
use control_index::{Index, Policy, PolicySpec, Target, manifest::XBackendTrafficPolicySpec};
use std::collections::BTreeSet;

/// The policy that goes before this one at a target and says something about the same fields, and these.
pub(crate) fn find(index: &Index, policy: &Policy, target: &Target) -> Option<String> {
    let fields = fields(policy);
    let here = attached(index, policy.key.kind, &target.object, target.section.as_deref());
    let before = here.into_iter().take_while(|other| other.key != policy.key);
    let mut conflicts = before.filter_map(|other| {
        let both: Vec<&str> = self::fields(other).intersection(&fields).copied().collect();
        (!both.is_empty()).then_some((other, both))
    });
    let (other, both) = conflicts.next()?;
    let why = if other.created == policy.created { "whose name comes first," } else { "which is older," };
    Some(format!(
        "{}, {why} sets {} of {} too and is heard; take it out of one of the two",
        other.key,
        both.join(", "),
        named(target)
    ))
}

/// What a policy says something about.
fn fields(policy: &Policy) -> BTreeSet<&'static str> {
    match &policy.spec {
        PolicySpec::Traffic(spec) => traffic(spec),
        PolicySpec::Backend(spec) => backend(spec),
        PolicySpec::XBackendTraffic(spec) => x_backend_traffic(spec),
        PolicySpec::BackendTls(_) => ["validation"].into(),
    }
}

fn traffic(spec: &TrafficPolicySpec) -> BTreeSet<&'static str> {
    let timeouts = spec.timeouts.clone().unwrap_or_default();
    let retry = spec.retry.clone().unwrap_or_default();
    let backoff = retry.backoff.clone().unwrap_or_default();
    said([
        ("timeouts.connect", timeouts.connect.is_some()),
        ("timeouts.idle", timeouts.idle.is_some()),
        ("timeouts.streamIdle", timeouts.stream_idle.is_some()),
        ("timeouts.maxStreamDuration", timeouts.max_stream_duration.is_some()),
        ("timeouts.request", timeouts.request.is_some()),
        ("timeouts.backendRequest", timeouts.backend_request.is_some()),
        ("retry.httpCodes", !retry.http_codes.is_empty()),
        ("retry.grpcCodes", !retry.grpc_codes.is_empty()),
        ("retry.reasons", !retry.reasons.is_empty()),
        ("retry.attempts", retry.attempts.is_some()),
        ("retry.perTryTimeout", retry.per_try_timeout.is_some()),
        ("retry.backoff.base", backoff.base.is_some()),
        ("retry.backoff.max", backoff.max.is_some()),
        ("retry.bodyLimit", retry.body_limit.is_some()),
        ("retry.otherHost", retry.other_host.is_some()),
        ("hedge", spec.hedge.is_some()),
        ("fault", spec.fault.is_some()),
        ("directResponse", spec.direct_response.is_some()),
    ])
}

fn backend(spec: &BackendPolicySpec) -> BTreeSet<&'static str> {
    said([
        ("limits", spec.limits.is_some()),
        ("failureAccrual", spec.failure_accrual.is_some()),
        ("sessionPersistence", spec.session_persistence.is_some()),
        ("retryBudget", spec.retry_budget.is_some()),
    ])
}

fn x_backend_traffic(spec: &XBackendTrafficPolicySpec) -> BTreeSet<&'static str> {
    said([
        ("retryConstraint", spec.retry_constraint.is_some()),
        ("sessionPersistence", spec.session_persistence.is_some()),
    ])
}

fn said<const N: usize>(fields: [(&'static str, bool); N]) -> BTreeSet<&'static str> {
    fields.into_iter().filter(|(_, is_said)| *is_said).map(|(name, _)| name).collect()
}
