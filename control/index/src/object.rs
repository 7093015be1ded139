//! The objects that the index takes, and their keys. An `Object` is one whose names Kubernetes would accept.

use crate::manifest::{
    BackendTlsPolicySpec, ConfigMap, EndpointSlice, GrpcRouteSpec, HttpRouteSpec, Namespace, Node,
    ObjectMeta, Pod, Policy, ReferenceGrant, Route, Service, ServiceAccount, TcpRouteSpec, TlsRouteSpec,
    XBackendTrafficPolicySpec,
};
use api::{BackendPolicySpec, TrafficPolicySpec};
use policy::names::{is_label, is_subdomain};
use serde::{Deserialize, Deserializer};
use std::{fmt, sync::Arc};

/// The kinds of objects that the index takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Namespace,
    Node,
    ServiceAccount,
    Service,
    EndpointSlice,
    Pod,
    ConfigMap,
    // Routes, in the order of their precedence.
    GrpcRoute,
    HttpRoute,
    TlsRoute,
    TcpRoute,
    ReferenceGrant,
    TrafficPolicy,
    BackendPolicy,
    XBackendTrafficPolicy,
    BackendTlsPolicy,
}

/// One object as its source gave it, with names checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    key: Key,
    body: Body,
}

/// What an object says, in Kubernetes' own shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Namespace(Box<Namespace>),
    Node(Box<Node>),
    ServiceAccount(Box<ServiceAccount>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Pod(Box<Pod>),
    ConfigMap(Box<ConfigMap>),
    GrpcRoute(Box<Route<GrpcRouteSpec>>),
    HttpRoute(Box<Route<HttpRouteSpec>>),
    TlsRoute(Box<Route<TlsRouteSpec>>),
    TcpRoute(Box<Route<TcpRouteSpec>>),
    ReferenceGrant(Box<ReferenceGrant>),
    TrafficPolicy(Box<Policy<TrafficPolicySpec>>),
    BackendPolicy(Box<Policy<BackendPolicySpec>>),
    XBackendTrafficPolicy(Box<Policy<XBackendTrafficPolicySpec>>),
    BackendTlsPolicy(Box<Policy<BackendTlsPolicySpec>>),
}

/// Which object: its kind, namespace (empty for what is in none) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A service account that a Pod runs as, or that a ServiceAccount declares. Both names are ones that Kubernetes accepts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// The object's metadata would not be accepted by Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct InvalidObject {
    pub field: &'static str,
    pub what: String,
}

impl Kind {
    pub const ALL: [Kind; 16] = [
        Self::Namespace,
        Self::Node,
        Self::ServiceAccount,
        Self::Service,
        Self::EndpointSlice,
        Self::Pod,
        Self::ConfigMap,
        Self::GrpcRoute,
        Self::HttpRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::ReferenceGrant,
        Self::TrafficPolicy,
        Self::BackendPolicy,
        Self::XBackendTrafficPolicy,
        Self::BackendTlsPolicy,
    ];

    /// The kind that a manifest's `apiVersion` and `kind` name; `None` for those that the index does not take.
    pub fn named(api_version: &str, kind: &str) -> Option<Kind> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        Self::ALL
            .into_iter()
            .find(|one| one.as_str() == kind && one.group() == group && one.versions().contains(&version))
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::ServiceAccount => "ServiceAccount",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::ConfigMap => "ConfigMap",
            Self::GrpcRoute => "GRPCRoute",
            Self::HttpRoute => "HTTPRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::BackendPolicy => "BackendPolicy",
            Self::XBackendTrafficPolicy => "XBackendTrafficPolicy",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
        }
    }

    /// What Kubernetes calls its objects in paths and in roles.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::ServiceAccount => "serviceaccounts",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::Pod => "pods",
            Self::ConfigMap => "configmaps",
            Self::GrpcRoute => "grpcroutes",
            Self::HttpRoute => "httproutes",
            Self::TlsRoute => "tlsroutes",
            Self::TcpRoute => "tcproutes",
            Self::ReferenceGrant => "referencegrants",
            Self::TrafficPolicy => "trafficpolicies",
            Self::BackendPolicy => "backendpolicies",
            Self::XBackendTrafficPolicy => "xbackendtrafficpolicies",
            Self::BackendTlsPolicy => "backendtlspolicies",
        }
    }

    /// Empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Namespace
            | Self::Node
            | Self::ServiceAccount
            | Self::Service
            | Self::Pod
            | Self::ConfigMap => "",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::GrpcRoute
            | Self::HttpRoute
            | Self::TlsRoute
            | Self::TcpRoute
            | Self::ReferenceGrant
            | Self::BackendTlsPolicy => api::GATEWAY_GROUP,
            Self::TrafficPolicy | Self::BackendPolicy => api::GROUP,
            Self::XBackendTrafficPolicy => "gateway.networking.x-k8s.io",
        }
    }

    /// The versions that are read, the best one first: what is read of them is the same in each.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Namespace
            | Self::Node
            | Self::ServiceAccount
            | Self::Service
            | Self::EndpointSlice
            | Self::Pod
            | Self::ConfigMap => &["v1"],
            Self::GrpcRoute => &["v1"],
            Self::HttpRoute | Self::ReferenceGrant => &["v1", "v1beta1"],
            Self::TlsRoute => &["v1", "v1alpha3", "v1alpha2"],
            Self::TcpRoute => &["v1", "v1alpha2"],
            Self::BackendTlsPolicy => &["v1", "v1alpha3"],
            Self::TrafficPolicy | Self::BackendPolicy => &[api::VERSION],
            Self::XBackendTrafficPolicy => &["v1alpha1"],
        }
    }

    /// Its objects are each in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    /// Every Kubernetes has it; the others come with a CustomResourceDefinition.
    pub fn is_built_in(self) -> bool {
        matches!(self.group(), "" | "discovery.k8s.io")
    }

    pub fn is_route(self) -> bool {
        matches!(self, Self::GrpcRoute | Self::HttpRoute | Self::TlsRoute | Self::TcpRoute)
    }

    pub fn is_policy(self) -> bool {
        matches!(
            self,
            Self::TrafficPolicy | Self::BackendPolicy | Self::XBackendTrafficPolicy | Self::BackendTlsPolicy
        )
    }

    /// Reads an object of this kind. Fails with the deserializer's error, or with an [`InvalidObject`] as its message.
    pub fn read<'de, D: Deserializer<'de>>(self, from: D) -> Result<Object, D::Error> {
        let body = match self {
            Self::Namespace => Body::Namespace(Box::deserialize(from)?),
            Self::Node => Body::Node(Box::deserialize(from)?),
            Self::ServiceAccount => Body::ServiceAccount(Box::deserialize(from)?),
            Self::Service => Body::Service(Box::deserialize(from)?),
            Self::EndpointSlice => Body::EndpointSlice(Box::deserialize(from)?),
            Self::Pod => Body::Pod(Box::deserialize(from)?),
            Self::ConfigMap => Body::ConfigMap(Box::deserialize(from)?),
            Self::GrpcRoute => Body::GrpcRoute(Box::deserialize(from)?),
            Self::HttpRoute => Body::HttpRoute(Box::deserialize(from)?),
            Self::TlsRoute => Body::TlsRoute(Box::deserialize(from)?),
            Self::TcpRoute => Body::TcpRoute(Box::deserialize(from)?),
            Self::ReferenceGrant => Body::ReferenceGrant(Box::deserialize(from)?),
            Self::TrafficPolicy => Body::TrafficPolicy(Box::deserialize(from)?),
            Self::BackendPolicy => Body::BackendPolicy(Box::deserialize(from)?),
            Self::XBackendTrafficPolicy => Body::XBackendTrafficPolicy(Box::deserialize(from)?),
            Self::BackendTlsPolicy => Body::BackendTlsPolicy(Box::deserialize(from)?),
        };
        Object::new(body).map_err(serde::de::Error::custom)
    }
}

impl Object {
    /// Fails when the metadata names nothing that Kubernetes would accept. A missing namespace is `default`.
    pub fn new(body: Body) -> Result<Self, InvalidObject> {
        let (kind, metadata) = match &body {
            Body::Namespace(object) => (Kind::Namespace, &object.metadata),
            Body::Node(object) => (Kind::Node, &object.metadata),
            Body::ServiceAccount(object) => (Kind::ServiceAccount, &object.metadata),
            Body::Service(object) => (Kind::Service, &object.metadata),
            Body::EndpointSlice(object) => (Kind::EndpointSlice, &object.metadata),
            Body::Pod(object) => (Kind::Pod, &object.metadata),
            Body::ConfigMap(object) => (Kind::ConfigMap, &object.metadata),
            Body::GrpcRoute(object) => (Kind::GrpcRoute, &object.metadata),
            Body::HttpRoute(object) => (Kind::HttpRoute, &object.metadata),
            Body::TlsRoute(object) => (Kind::TlsRoute, &object.metadata),
            Body::TcpRoute(object) => (Kind::TcpRoute, &object.metadata),
            Body::ReferenceGrant(object) => (Kind::ReferenceGrant, &object.metadata),
            Body::TrafficPolicy(object) => (Kind::TrafficPolicy, &object.metadata),
            Body::BackendPolicy(object) => (Kind::BackendPolicy, &object.metadata),
            Body::XBackendTrafficPolicy(object) => (Kind::XBackendTrafficPolicy, &object.metadata),
            Body::BackendTlsPolicy(object) => (Kind::BackendTlsPolicy, &object.metadata),
        };
        let key = Key::of(kind, metadata)?;
        Ok(Self { key, body })
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    pub fn body(&self) -> &Body {
        &self.body
    }

    /// It says something that the index holds. Most ConfigMaps do not: those without certificates of authorities.
    pub fn is_of_use(&self) -> bool {
        match &self.body {
            Body::ConfigMap(object) => object.authorities().is_some(),
            _ => true,
        }
    }
}

impl Key {
    /// The key of what only its metadata is known of. Fails when Kubernetes would not accept its names.
    pub fn read(kind: Kind, metadata: &ObjectMeta) -> Result<Self, InvalidObject> {
        Self::of(kind, metadata)
    }

    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    fn of(kind: Kind, metadata: &ObjectMeta) -> Result<Self, InvalidObject> {
        let invalid = |field, what: &str| InvalidObject { field, what: what.into() };
        let name = metadata.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(invalid("metadata.name", "it is missing"));
        }
        let fits = match kind {
            Kind::Namespace | Kind::Service => is_label(name),
            _ => is_subdomain(name),
        };
        if !fits {
            return Err(invalid("metadata.name", &format!("{name:?} is not a name for a {kind}")));
        }
        let namespace = match kind {
            Kind::Namespace | Kind::Node => "",
            _ => metadata.namespace.as_deref().filter(|text| !text.is_empty()).unwrap_or("default"),
        };
        if kind.is_namespaced() && !is_label(namespace) {
            return Err(invalid(
                "metadata.namespace",
                &format!("{namespace:?} is not the name of a namespace"),
            ));
        }
        Ok(Self::new(kind, namespace, name))
    }
}

impl Account {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Namespace | Kind::Node => write!(f, "{} {}", self.kind, self.name),
            _ => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
