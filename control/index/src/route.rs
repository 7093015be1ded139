//! A route of Gateway API, as far as the mesh reads it: its rules in their own shape, and whom it names.

use crate::{
    Key,
    manifest::{
        self, BackendRef, Condition, Filter, GrpcRouteSpec, HttpRouteSpec, ParentRef, RouteBackendRef, Rule,
        TcpRouteSpec, TlsRouteSpec,
    },
};
use policy::ServiceName;
use std::{collections::BTreeSet, sync::Arc};

/// One route. What its rules say is for `control-translate` to judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub key: Key,
    /// Grows with each change of the spec; 0 where nobody counts (directory mode).
    pub generation: i64,
    /// RFC 3339 in UTC, so that texts order as times do; empty where nobody says (directory mode).
    pub created: Arc<str>,
    pub spec: RouteSpec,
    /// What we said about it, as its status holds it.
    pub observed: Vec<Observed>,
}

/// What a route says, by its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteSpec {
    Grpc(Arc<GrpcRouteSpec>),
    Http(Arc<HttpRouteSpec>),
    Tls(Arc<TlsRouteSpec>),
    Tcp(Arc<TcpRouteSpec>),
}

/// What an object's status says in our name about one parent (of a route) or one target (of a policy).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub about: ParentRef,
    pub conditions: Vec<Condition>,
}

impl Route {
    pub(crate) fn read<S>(key: &Key, manifest: &manifest::Route<S>, spec: RouteSpec) -> Self {
        let status = manifest.status.iter().flat_map(|status| &status.parents);
        let ours = status.filter(|parent| parent.controller_name == api::CONTROLLER_NAME);
        Self {
            key: key.clone(),
            generation: manifest.metadata.generation.unwrap_or_default(),
            created: manifest.metadata.creation_timestamp.as_deref().unwrap_or_default().into(),
            spec,
            observed: ours
                .map(|parent| Observed {
                    about: parent.parent_ref.clone(),
                    conditions: parent.conditions.clone(),
                })
                .collect(),
        }
    }

    /// They differ in nothing but what was said about them.
    pub(crate) fn says_what(&self, other: &Self) -> bool {
        self.generation == other.generation && self.created == other.created && self.spec == other.spec
    }

    pub fn parent_refs(&self) -> &[ParentRef] {
        match &self.spec {
            RouteSpec::Grpc(spec) => &spec.parent_refs,
            RouteSpec::Http(spec) => &spec.parent_refs,
            RouteSpec::Tls(spec) => &spec.parent_refs,
            RouteSpec::Tcp(spec) => &spec.parent_refs,
        }
    }

    /// The Service that a parent is, whether it is there or not; `None` for a Gateway and all else.
    pub fn parent_service(&self, parent: &ParentRef) -> Option<ServiceName> {
        let namespace = parent.namespace.as_deref().unwrap_or(&self.key.namespace);
        parent.is_service().then(|| ServiceName::new(namespace, &parent.name))
    }

    /// The Services that it is attached to, each once.
    pub fn parents(&self) -> BTreeSet<ServiceName> {
        self.parent_refs().iter().filter_map(|parent| self.parent_service(parent)).collect()
    }

    /// The Service that a backend is, whether it is there or not; `None` for what is none.
    pub fn backend_service(&self, backend: &BackendRef) -> Option<ServiceName> {
        let namespace = backend.namespace.as_deref().unwrap_or(&self.key.namespace);
        backend.is_service().then(|| ServiceName::new(namespace, &backend.name))
    }

    /// The Services that it sends requests to, those of mirrors too, each once.
    pub fn backends(&self) -> BTreeSet<ServiceName> {
        self.backend_refs().iter().filter_map(|backend| self.backend_service(backend)).collect()
    }

    /// The names of its rules, those that have one.
    pub fn rule_names(&self) -> Vec<&str> {
        match &self.spec {
            RouteSpec::Grpc(spec) => spec.rules.iter().filter_map(|rule| rule.name.as_deref()).collect(),
            RouteSpec::Http(spec) => spec.rules.iter().filter_map(|rule| rule.name.as_deref()).collect(),
            RouteSpec::Tls(spec) => spec.rules.iter().filter_map(|rule| rule.name.as_deref()).collect(),
            RouteSpec::Tcp(spec) => spec.rules.iter().filter_map(|rule| rule.name.as_deref()).collect(),
        }
    }

    fn backend_refs(&self) -> Vec<&BackendRef> {
        match &self.spec {
            RouteSpec::Grpc(spec) => {
                spec.rules.iter().flat_map(|rule| named(&rule.filters, &rule.backend_refs)).collect()
            }
            RouteSpec::Http(spec) => {
                spec.rules.iter().flat_map(|rule| named(&rule.filters, &rule.backend_refs)).collect()
            }
            RouteSpec::Tls(spec) => plain(&spec.rules),
            RouteSpec::Tcp(spec) => plain(&spec.rules),
        }
    }
}

/// The backends of a rule, of its mirrors, and of the mirrors of its backends.
fn named<'a>(filters: &'a [Filter], backends: &'a [RouteBackendRef]) -> impl Iterator<Item = &'a BackendRef> {
    let within = backends.iter().flat_map(|one| &one.filters);
    let mirrors = filters.iter().chain(within).filter_map(|filter| match filter {
        Filter::RequestMirror(mirror) => Some(&mirror.backend_ref),
        _ => None,
    });
    backends.iter().map(|one| &one.backend).chain(mirrors)
}

fn plain(rules: &[Rule]) -> Vec<&BackendRef> {
    rules.iter().flat_map(|rule| &rule.backend_refs).map(|one| &one.backend).collect()
}
