//! TrafficPolicy: what happens to a request on its way.

use crate::{
    Breach, Validate,
    grpc::GrpcCode,
    quantities::{Duration, Percent, Size},
    status::PolicyStatus,
    target::{self, TargetRef},
};
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens to requests on their way: timeouts, retries, hedging, injected faults, direct responses.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "policy.weft.mesh",
    version = "v1alpha1",
    kind = "TrafficPolicy",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    category = "weft",
    label("gateway.networking.k8s.io/policy", "Inherited"),
    doc = "What happens to requests on their way: timeouts, retries, hedging, injected faults, direct responses. Of several policies the most specific one that sets a field wins: rule, route, port of a Service, Service, Namespace; and what an HTTPRoute says itself wins over all.",
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.targetRefs[0].name"}"#,
    printcolumn = r#"{"name":"Kind","type":"string","jsonPath":".spec.targetRefs[0].kind"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.ancestors[0].conditions[?(@.type==\"Accepted\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.timeouts) || has(self.retry) || has(self.hedge) || has(self.fault) || has(self.directResponse)").message("the policy sets nothing: add timeouts, retry, hedge, fault or directResponse"),
    validation = Rule::new("!has(self.directResponse) || !(has(self.retry) || has(self.hedge))").message("a direct response is never retried or hedged: leave out retry and hedge").field_path(".directResponse")
)]
pub struct TrafficPolicySpec {
    /// What the policy is attached to, in its own namespace.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// How long things may take. 0s means without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// When a request is sent again, and how often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Sends a slow request a second time to another endpoint and takes the first answer. Only requests that may be
    /// executed twice are: those of an idempotent method, and without a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// Faults that are injected on purpose, before a request goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Answers requests without sending them to anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<DirectResponse>,
}

/// How long things may take. 0s means without end.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!(has(self.request) && has(self.backendRequest) && duration(self.request) != duration('0s') && (duration(self.backendRequest) > duration(self.request) || duration(self.backendRequest) == duration('0s')))").message("backendRequest may not be longer than request").field_path(".backendRequest")
)]
pub struct Timeouts {
    /// Connecting to one endpoint. Default 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// A TCP connection on which nothing moves in either direction. Default: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
    /// A request or response of which nothing moves in either direction. Default: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_idle: Option<Duration>,
    /// All of a request and its response, with their bodies, tunnels and streams too. Default: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_stream_duration: Option<Duration>,
    /// From the request to the end of the response, over all attempts. As in an HTTPRoute. Default: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One attempt, from its beginning to the end of its response. As in an HTTPRoute. Default: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

/// When a request is sent again, and how often. What may have been executed is sent again only if a condition here
/// covers its failure.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!has(self.backoff) || !has(self.backoff.base) || !has(self.backoff.max) || duration(self.backoff.base) <= duration(self.backoff.max)").message("base may not be longer than max").field_path(".backoff")
)]
pub struct Retry {
    /// Statuses of HTTP (400 to 599) that are worth another attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 400, max = 599)))]
    pub http_codes: Vec<u16>,
    /// Statuses of gRPC that are worth another attempt, by name (UNAVAILABLE) or by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 17))]
    pub grpc_codes: Vec<GrpcCode>,
    /// Failures without an answer that are worth another attempt, by the word that `weft explain reason` lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64), regex(pattern = "^[a-z][a-z0-9_]*$")))]
    pub reasons: Vec<String>,
    /// Attempts after the first one. Default 1 where there are codes or reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub attempts: Option<u8>,
    /// One attempt, as timeouts.backendRequest, and it wins over it. Default: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Duration>,
    /// The pause before another attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// A request whose body is longer than this is not sent again: 64Ki, 1M, 4096. Default 64Ki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_limit: Option<Size>,
    /// Another attempt goes to another endpoint, if there is one. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_host: Option<bool>,
}

/// The pause before another attempt: twice as long each time, and a random part of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// The first pause. Default 25ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Duration>,
    /// The longest pause. Default 250ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
}

/// Sends a slow request a second time to another endpoint and takes the first answer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct Hedge {
    /// How long the first attempt may be silent before the next one goes out.
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("the delay may not be 0s: every request would be sent twice"))]
    pub delay: Duration,
    /// Attempts after the first one. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub max: Option<u8>,
}

/// Faults that are injected on purpose.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.delay) || has(self.abort)").message("the fault does nothing: add delay or abort")
)]
pub struct Fault {
    /// Holds a share of the requests for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Answers a share of the requests with a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// Only requests that carry all of these fields are meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderValue>,
}

/// A field of a request and the value that it must have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderValue {
    /// Name of the field; case does not matter.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$"))]
    pub name: String,
    /// Its value, to the letter.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// Holds a share of the requests for a time.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// How long.
    pub duration: Duration,
    /// Which share, in percent, to the hundredth. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
}

/// Answers a share of the requests with a failure.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.httpStatus) != has(self.grpcStatus)").message("set either httpStatus or grpcStatus")
)]
pub struct Abort {
    /// The answer's status of HTTP, 200 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub http_status: Option<u16>,
    /// The answer's status of gRPC, by name (UNAVAILABLE) or by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<GrpcCode>,
    /// Which share, in percent, to the hundredth. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
}

/// Answers requests without sending them to anybody.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectResponse {
    /// The answer's status, 200 to 599.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// The answer's body, as plain text. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub body: Option<String>,
}

impl Validate for TrafficPolicySpec {
    fn breaches(&self) -> Vec<Breach> {
        let mut breaches = target::breaches(&self.target_refs);
        let mut rule = |holds: bool, field: &str, what| {
            if !holds {
                breaches.push(Breach::new(field, what));
            }
        };
        let set = [
            self.timeouts.is_some(),
            self.retry.is_some(),
            self.hedge.is_some(),
            self.fault.is_some(),
            self.direct_response.is_some(),
        ];
        rule(
            set.contains(&true),
            "spec",
            "the policy sets nothing: add timeouts, retry, hedge, fault or directResponse",
        );
        rule(
            self.direct_response.is_none() || (self.retry.is_none() && self.hedge.is_none()),
            "spec.directResponse",
            "a direct response is never retried or hedged: leave out retry and hedge",
        );
        if let Some(timeouts) = &self.timeouts {
            rule(
                timeouts.is_ordered(),
                "spec.timeouts.backendRequest",
                "backendRequest may not be longer than request",
            );
        }
        if let Some(retry) = &self.retry {
            retry.check(&mut rule);
        }
        if let Some(hedge) = &self.hedge {
            let (delay, max) = (hedge.delay.0, hedge.max.unwrap_or(1));
            rule(
                !delay.is_zero(),
                "spec.hedge.delay",
                "the delay may not be 0s: every request would be sent twice",
            );
            rule((1..=5).contains(&max), "spec.hedge.max", "must be 1 to 5");
        }
        if let Some(fault) = &self.fault {
            fault.check(&mut rule);
        }
        if let Some(response) = &self.direct_response {
            rule(is_status(response.status), "spec.directResponse.status", "must be 200 to 599");
        }
        breaches
    }
}

impl Timeouts {
    fn is_ordered(&self) -> bool {
        match (self.request, self.backend_request) {
            (Some(request), Some(backend)) if !request.0.is_zero() => {
                !backend.0.is_zero() && backend <= request
            }
            _ => true,
        }
    }
}

impl Retry {
    fn check(&self, rule: &mut impl FnMut(bool, &str, &'static str)) {
        rule(
            self.http_codes.iter().all(|code| (400..=599).contains(code)),
            "spec.retry.httpCodes",
            "each must be 400 to 599",
        );
        rule(self.attempts.unwrap_or(1) <= 10, "spec.retry.attempts", "must be 0 to 10");
        if let Some(Backoff { base: Some(base), max: Some(max) }) = &self.backoff {
            rule(base <= max, "spec.retry.backoff", "base may not be longer than max");
        }
    }
}

impl Fault {
    fn check(&self, rule: &mut impl FnMut(bool, &str, &'static str)) {
        rule(
            self.delay.is_some() || self.abort.is_some(),
            "spec.fault",
            "the fault does nothing: add delay or abort",
        );
        if let Some(abort) = &self.abort {
            rule(
                abort.http_status.is_some() != abort.grpc_status.is_some(),
                "spec.fault.abort",
                "set either httpStatus or grpcStatus",
            );
            rule(
                abort.http_status.is_none_or(is_status),
                "spec.fault.abort.httpStatus",
                "must be 200 to 599",
            );
        }
    }
}

fn is_status(code: u16) -> bool {
    (200..=599).contains(&code)
}
