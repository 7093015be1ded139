//! The objects that the index takes, and their keys. An `Object` is one whose names Kubernetes would accept.

use crate::manifest::{EndpointSlice, Namespace, Node, ObjectMeta, Pod, Service, ServiceAccount};
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
    pub const ALL: [Kind; 6] =
        [Self::Namespace, Self::Node, Self::ServiceAccount, Self::Service, Self::EndpointSlice, Self::Pod];

    /// The kind that a manifest's `apiVersion` and `kind` name; `None` for those that the index does not take.
    pub fn named(api_version: &str, kind: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|one| one.api_version() == api_version && one.as_str() == kind)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::ServiceAccount => "ServiceAccount",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
        }
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::Namespace | Self::Node | Self::ServiceAccount | Self::Service | Self::Pod => "v1",
        }
    }

    /// Its objects are each in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
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
            Kind::Node | Kind::ServiceAccount | Kind::EndpointSlice | Kind::Pod => is_subdomain(name),
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
