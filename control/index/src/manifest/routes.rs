//! Gateway API's routes (1.6) in their own spelling. What is not known in them is skipped: no route is lost for a field
//! of a later version.

use super::{Condition, ObjectMeta, filters::Filter, listed};
use api::Duration;
use serde::Deserialize;

/// A route of any kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Route<S> {
    pub metadata: ObjectMeta,
    pub spec: S,
    pub status: Option<RouteStatus>,
}

/// What controllers say about a route, one entry a parent and controller.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    #[serde(deserialize_with = "listed")]
    pub parents: Vec<ParentStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ParentStatus {
    pub parent_ref: ParentRef,
    pub controller_name: String,
    #[serde(deserialize_with = "listed")]
    pub conditions: Vec<Condition>,
}

/// What a route is attached to. Without group and kind it is a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ParentRef {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub namespace: Option<String>,
    pub name: String,
    pub section_name: Option<String>,
    pub port: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteSpec {
    #[serde(deserialize_with = "listed")]
    pub parent_refs: Vec<ParentRef>,
    #[serde(deserialize_with = "listed")]
    pub hostnames: Vec<String>,
    #[serde(deserialize_with = "listed")]
    pub rules: Vec<HttpRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRule {
    pub name: Option<String>,
    /// None: every request.
    #[serde(deserialize_with = "listed")]
    pub matches: Vec<HttpMatch>,
    #[serde(deserialize_with = "listed")]
    pub filters: Vec<Filter>,
    #[serde(deserialize_with = "listed")]
    pub backend_refs: Vec<RouteBackendRef>,
    pub timeouts: Option<HttpTimeouts>,
    pub retry: Option<HttpRetry>,
    pub session_persistence: Option<api::SessionPersistence>,
}

/// All that it says must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpMatch {
    /// Missing: the prefix `/`.
    pub path: Option<PathMatch>,
    #[serde(deserialize_with = "listed")]
    pub headers: Vec<ValueMatch>,
    #[serde(deserialize_with = "listed")]
    pub query_params: Vec<ValueMatch>,
    pub method: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PathMatch {
    /// `Exact`, `PathPrefix` (also when it is missing) or `RegularExpression`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Missing: `/`.
    pub value: Option<String>,
}

/// A header field or a query parameter and its value.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ValueMatch {
    /// `Exact` (also when it is missing) or `RegularExpression`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpTimeouts {
    pub request: Option<Duration>,
    pub backend_request: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpRetry {
    #[serde(deserialize_with = "listed")]
    pub codes: Vec<u16>,
    pub attempts: Option<i32>,
    pub backoff: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GrpcRouteSpec {
    #[serde(deserialize_with = "listed")]
    pub parent_refs: Vec<ParentRef>,
    #[serde(deserialize_with = "listed")]
    pub hostnames: Vec<String>,
    #[serde(deserialize_with = "listed")]
    pub rules: Vec<GrpcRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GrpcRule {
    pub name: Option<String>,
    /// None: every call.
    #[serde(deserialize_with = "listed")]
    pub matches: Vec<GrpcMatch>,
    #[serde(deserialize_with = "listed")]
    pub filters: Vec<Filter>,
    #[serde(deserialize_with = "listed")]
    pub backend_refs: Vec<RouteBackendRef>,
    pub session_persistence: Option<api::SessionPersistence>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GrpcMatch {
    pub method: Option<GrpcMethodMatch>,
    #[serde(deserialize_with = "listed")]
    pub headers: Vec<ValueMatch>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GrpcMethodMatch {
    /// `Exact` (also when it is missing) or `RegularExpression`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    pub service: Option<String>,
    pub method: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsRouteSpec {
    #[serde(deserialize_with = "listed")]
    pub parent_refs: Vec<ParentRef>,
    #[serde(deserialize_with = "listed")]
    pub hostnames: Vec<String>,
    #[serde(deserialize_with = "listed")]
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpRouteSpec {
    #[serde(deserialize_with = "listed")]
    pub parent_refs: Vec<ParentRef>,
    #[serde(deserialize_with = "listed")]
    pub rules: Vec<Rule>,
}

/// A rule of a TLSRoute or TCPRoute: it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    pub name: Option<String>,
    #[serde(deserialize_with = "listed")]
    pub backend_refs: Vec<RouteBackendRef>,
}

/// Where requests go. Without group and kind it is a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BackendRef {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub namespace: Option<String>,
    pub name: String,
    pub port: Option<i32>,
}

/// A backend among others of a rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "WrittenBackendRef")]
pub struct RouteBackendRef {
    pub backend: BackendRef,
    /// Missing: 1.
    pub weight: Option<i32>,
    /// None in a TLSRoute or TCPRoute.
    pub filters: Vec<Filter>,
}

/// As it is written: all in one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenBackendRef {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<i32>,
    weight: Option<i32>,
    #[serde(deserialize_with = "listed")]
    filters: Vec<Filter>,
}

impl ParentRef {
    /// It is a Service, by what it says: of the core group.
    pub fn is_service(&self) -> bool {
        self.group.as_deref() == Some("") && self.kind.as_deref() == Some("Service")
    }
}

impl BackendRef {
    /// It is a Service: of the core group, which it is when it says nothing.
    pub fn is_service(&self) -> bool {
        self.group.as_deref().unwrap_or_default().is_empty()
            && self.kind.as_deref().is_none_or(|kind| kind == "Service")
    }
}

impl From<WrittenBackendRef> for RouteBackendRef {
    fn from(written: WrittenBackendRef) -> Self {
        let WrittenBackendRef { group, kind, namespace, name, port, weight, filters } = written;
        Self { backend: BackendRef { group, kind, namespace, name, port }, weight, filters }
    }
}
