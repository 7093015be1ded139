//! BackendPolicy: how much a backend is asked to bear.

use crate::{
    Breach, Validate,
    quantities::{Duration, Percent},
    status::PolicyStatus,
    target::{self, TargetRef},
};
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much a backend is asked to bear: limits, circuit breaking, session persistence, a budget of retries.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "policy.weft.mesh",
    version = "v1alpha1",
    kind = "BackendPolicy",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    category = "weft",
    label("gateway.networking.k8s.io/policy", "Inherited"),
    doc = "How much a backend is asked to bear: limits, circuit breaking, session persistence, a budget of retries. Of several policies the most specific one that sets a group of fields wins: rule, route, port of a Service, Service, Namespace.",
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.targetRefs[0].name"}"#,
    printcolumn = r#"{"name":"Kind","type":"string","jsonPath":".spec.targetRefs[0].kind"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.ancestors[0].conditions[?(@.type==\"Accepted\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.limits) || has(self.failureAccrual) || has(self.sessionPersistence) || has(self.retryBudget)").message("the policy sets nothing: add limits, failureAccrual, sessionPersistence or retryBudget")
)]
pub struct BackendPolicySpec {
    /// What the policy is attached to, in its own namespace.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// How much one proxy asks of the backend at once; what is over it fails at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// When an endpoint that fails gets no requests for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_accrual: Option<FailureAccrual>,
    /// Keeps the requests of one session at one endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
    /// How much of the load may be retries. An XBackendTrafficPolicy wins over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
}

/// How much one proxy asks of the backend at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Connections of TCP, and requests that became tunnels. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_pending_requests: Option<u32>,
    /// Requests that are under way. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<u32>,
}

/// When an endpoint that fails gets no requests for a while. When its penalty is over, one request tries it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!has(self.minPenalty) || !has(self.maxPenalty) || duration(self.minPenalty) <= duration(self.maxPenalty)").message("minPenalty may not be longer than maxPenalty").field_path(".minPenalty")
)]
pub struct FailureAccrual {
    /// None never bars an endpoint; Consecutive bars one that fails so many times in a row. Default Consecutive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AccrualMode>,
    /// Failures in a row. Default 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_failures: Option<u32>,
    /// The first time without requests. Default 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_penalty: Option<Duration>,
    /// The longest time without requests: each failed trial doubles it up to here. Default 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_penalty: Option<Duration>,
    /// By how many percent of itself a penalty is prolonged at random, at most. Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ratio: Option<Percent>,
    /// How many percent of the endpoints may be barred at once. Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<u8>,
}

/// How failures are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AccrualMode {
    None,
    Consecutive,
}

/// Keeps the requests of one session at one endpoint, as an HTTPRoute's sessionPersistence does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!has(self.cookieConfig) || !has(self.type) || self.type == 'Cookie'").message("cookieConfig goes with type Cookie only").field_path(".cookieConfig"),
    validation = Rule::new("!has(self.cookieConfig) || !has(self.cookieConfig.lifetimeType) || self.cookieConfig.lifetimeType != 'Permanent' || has(self.absoluteTimeout)").message("a Permanent cookie needs absoluteTimeout").field_path(".absoluteTimeout")
)]
pub struct SessionPersistence {
    /// Where the session is written. Default Cookie.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<SessionType>,
    /// Name of the cookie or header. Default: made of the route's or Service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$"))]
    pub session_name: Option<String>,
    /// The session ends so long after it began. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Duration>,
    /// The session ends so long after its last request. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// What the cookie is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

/// Where a session is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum SessionType {
    Cookie,
    Header,
}

/// What the cookie is like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CookieConfig {
    /// Session: the cookie goes with the browser's session; Permanent: it lives for absoluteTimeout. Default Session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_type: Option<LifetimeType>,
}

/// How long a client keeps a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LifetimeType {
    Session,
    Permanent,
}

/// How much of the load may be retries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct RetryBudget {
    /// Retries in percent of the requests of the interval. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<u8>,
    /// Over which time requests are counted, 1s to 1h. Default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('1h')").message("must be 1s to 1h"))]
    pub interval: Option<Duration>,
    /// Retries that are allowed however few requests there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_retry_rate: Option<MinRetryRate>,
}

/// Retries that are allowed however few requests there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct MinRetryRate {
    /// How many. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub count: Option<u32>,
    /// In which time, up to 1h. Default 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s') && duration(self) <= duration('1h')").message("must be more than 0s and up to 1h"))]
    pub interval: Option<Duration>,
}

impl Validate for BackendPolicySpec {
    fn breaches(&self) -> Vec<Breach> {
        let mut breaches = target::breaches(&self.target_refs);
        let mut rule = |holds: bool, field: &str, what| {
            if !holds {
                breaches.push(Breach::new(field, what));
            }
        };
        let set = [
            self.limits.is_some(),
            self.failure_accrual.is_some(),
            self.session_persistence.is_some(),
            self.retry_budget.is_some(),
        ];
        rule(
            set.contains(&true),
            "spec",
            "the policy sets nothing: add limits, failureAccrual, sessionPersistence or retryBudget",
        );
        if let Some(limits) = &self.limits {
            limits.check(&mut rule);
        }
        if let Some(accrual) = &self.failure_accrual {
            accrual.check(&mut rule);
        }
        if let Some(session) = &self.session_persistence {
            session.check(&mut rule);
        }
        if let Some(budget) = &self.retry_budget {
            budget.check(&mut rule);
        }
        breaches
    }
}

impl Limits {
    fn check(&self, rule: &mut impl FnMut(bool, &str, &'static str)) {
        let fits = |limit: Option<u32>| limit.is_none_or(|limit| (1..=1_000_000).contains(&limit));
        let what = "must be 1 to 1000000";
        rule(fits(self.max_connections), "spec.limits.maxConnections", what);
        rule(fits(self.max_pending_requests), "spec.limits.maxPendingRequests", what);
        rule(fits(self.max_requests), "spec.limits.maxRequests", what);
    }
}

impl FailureAccrual {
    fn check(&self, rule: &mut impl FnMut(bool, &str, &'static str)) {
        rule(self.max_failures != Some(0), "spec.failureAccrual.maxFailures", "must be 1 to 10000");
        let share = self.max_ejection_percent.unwrap_or_default();
        rule(share <= 100, "spec.failureAccrual.maxEjectionPercent", "must be 0 to 100");
        if let (Some(least), Some(most)) = (self.min_penalty, self.max_penalty) {
            let what = "minPenalty may not be longer than maxPenalty";
            rule(least <= most, "spec.failureAccrual.minPenalty", what);
        }
    }
}

impl SessionPersistence {
    fn check(&self, rule: &mut impl FnMut(bool, &str, &'static str)) {
        rule(
            self.cookie_config.is_none() || self.type_ != Some(SessionType::Header),
            "spec.sessionPersistence.cookieConfig",
            "cookieConfig goes with type Cookie only",
        );
        let lifetime = self.cookie_config.as_ref().and_then(|cookie| cookie.lifetime_type);
        rule(
            lifetime != Some(LifetimeType::Permanent) || self.absolute_timeout.is_some(),
            "spec.sessionPersistence.absoluteTimeout",
            "a Permanent cookie needs absoluteTimeout",
        );
    }
}

impl RetryBudget {
    fn check(&self, rule: &mut impl FnMut(bool, &str, &'static str)) {
        rule(self.percent.unwrap_or_default() <= 100, "spec.retryBudget.percent", "must be 0 to 100");
        let seconds = |time: Duration| time.0.as_secs_f64();
        let counted = self.interval.map_or(10.0, seconds);
        rule((1.0..=3600.0).contains(&counted), "spec.retryBudget.interval", "must be 1s to 1h");
        let least = self.min_retry_rate.as_ref().and_then(|rate| rate.interval).map_or(1.0, seconds);
        rule(
            least > 0.0 && least <= 3600.0,
            "spec.retryBudget.minRetryRate.interval",
            "must be more than 0s and up to 1h",
        );
    }
}
