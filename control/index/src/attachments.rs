//! Routes, policies and grants, the tables that find them by the objects that they name, and what a change of them
//! touches: the answers to who dials a route's parents, and the statuses of what is said about the same objects.

use crate::{
    Index, Key, Kind, Policy, PolicySpec, Route, Touched,
    manifest::{GrantFrom, GrantTo, ReferenceGrantSpec},
};
use policy::ServiceName;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    pub(crate) routes: BTreeMap<Key, Route>,
    pub(crate) policies: BTreeMap<Key, Policy>,
    pub(crate) grants: BTreeMap<Key, ReferenceGrantSpec>,
    /// What ConfigMaps hold of certificates that a policy may name, in PEM.
    pub(crate) authorities: BTreeMap<Key, Arc<str>>,
    routes_of: BTreeMap<ServiceName, BTreeSet<Key>>,
    routes_to: BTreeMap<ServiceName, BTreeSet<Key>>,
    policies_on: BTreeMap<Key, BTreeSet<Key>>,
    /// How many routes and policies there are of each kind.
    counts: BTreeMap<Kind, usize>,
}

impl Attachments {
    pub(crate) fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::ReferenceGrant => self.grants.len(),
            Kind::ConfigMap => self.authorities.len(),
            kind => self.counts.get(&kind).copied().unwrap_or_default(),
        }
    }
}

impl Index {
    pub fn route(&self, key: &Key) -> Option<&Route> {
        self.attachments.routes.get(key)
    }

    /// All routes, by kind, namespace and name.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.attachments.routes.values()
    }

    /// The routes with a Service among their parents, on any of its ports: GRPCRoutes, then HTTPRoutes, TLSRoutes and
    /// TCPRoutes, each by namespace and name.
    pub fn routes_of(&self, parent: &ServiceName) -> impl Iterator<Item = &Route> {
        let keys = self.attachments.routes_of.get(parent).into_iter().flatten();
        keys.filter_map(|key| self.attachments.routes.get(key))
    }

    /// The routes with a Service among their backends or mirrors, in the same order.
    pub fn routes_to(&self, backend: &ServiceName) -> impl Iterator<Item = &Route> {
        let keys = self.attachments.routes_to.get(backend).into_iter().flatten();
        keys.filter_map(|key| self.attachments.routes.get(key))
    }

    pub fn policy(&self, key: &Key) -> Option<&Policy> {
        self.attachments.policies.get(key)
    }

    /// All policies, by kind, namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.attachments.policies.values()
    }

    /// The policies with an object among their targets, or a part of it, in the same order.
    pub fn policies_on(&self, target: &Key) -> impl Iterator<Item = &Policy> {
        let keys = self.attachments.policies_on.get(target).into_iter().flatten();
        keys.filter_map(|key| self.attachments.policies.get(key))
    }

    /// `from` may name a Service as a backend: one of its own namespace, or one that a ReferenceGrant beside the
    /// Service opens to it.
    pub fn may_refer(&self, from: &Key, to: &ServiceName) -> bool {
        let opens = |grant: &GrantFrom| {
            grant.group == from.kind.group()
                && grant.kind == from.kind.as_str()
                && *grant.namespace == *from.namespace
        };
        let names = |grant: &GrantTo| {
            let all = grant.name.as_deref().is_none_or(|name| name.is_empty() || *name == *to.name);
            grant.group.is_empty() && grant.kind == "Service" && all
        };
        from.namespace == to.namespace
            || self
                .grants_in(&to.namespace)
                .any(|(_, grant)| grant.from.iter().any(opens) && grant.to.iter().any(names))
    }

    /// The ReferenceGrants of a namespace.
    pub fn grants_in(&self, namespace: &str) -> impl Iterator<Item = (&Key, &ReferenceGrantSpec)> {
        let first = Key::new(Kind::ReferenceGrant, namespace, "");
        let within = self.attachments.grants.range(first.clone()..);
        within.take_while(move |(key, _)| key.namespace == first.namespace)
    }

    pub(crate) fn insert_route(&mut self, route: Route) {
        let (tables, kind) = (&mut self.attachments, route.key.kind);
        for parent in route.parents() {
            tables.routes_of.entry(parent).or_default().insert(route.key.clone());
        }
        for backend in route.backends() {
            tables.routes_to.entry(backend).or_default().insert(route.key.clone());
        }
        if tables.routes.insert(route.key.clone(), route).is_none() {
            *tables.counts.entry(kind).or_default() += 1;
        }
    }

    pub(crate) fn remove_route(&mut self, key: &Key) {
        let Some(route) = self.attachments.routes.remove(key) else { return };
        *self.attachments.counts.entry(key.kind).or_default() -= 1;
        route.parents().iter().for_each(|parent| unlink(&mut self.attachments.routes_of, parent, key));
        route.backends().iter().for_each(|backend| unlink(&mut self.attachments.routes_to, backend, key));
    }

    pub(crate) fn insert_policy(&mut self, policy: Policy) {
        let (tables, kind) = (&mut self.attachments, policy.key.kind);
        for target in policy.targets() {
            tables.policies_on.entry(target.object).or_default().insert(policy.key.clone());
        }
        if tables.policies.insert(policy.key.clone(), policy).is_none() {
            *tables.counts.entry(kind).or_default() += 1;
        }
    }

    pub(crate) fn remove_policy(&mut self, key: &Key) {
        let Some(policy) = self.attachments.policies.remove(key) else { return };
        *self.attachments.counts.entry(key.kind).or_default() -= 1;
        for target in policy.targets() {
            unlink(&mut self.attachments.policies_on, &target.object, key);
        }
    }

    /// The answers about its parents, and what is said about the other routes and the policies there.
    pub(crate) fn touch_route(&self, route: &Route, touched: &mut Touched) {
        touched.routes.insert(route.key.clone());
        self.touch_policies_on(&route.key, touched);
        for parent in route.parents() {
            self.touch_address(&parent, touched);
            touched.routes.extend(self.routes_of(&parent).map(|other| other.key.clone()));
            self.touch_policies_on(&service_key(&parent), touched);
        }
    }

    /// The answers in which it counts, and what is said about policies that it may prevail over, or that prevail over it.
    pub(crate) fn touch_policy(&self, policy: &Policy, touched: &mut Touched) {
        touched.policies.insert(policy.key.clone());
        self.touch_policies_on(&Key::new(Kind::Namespace, "", &policy.key.namespace), touched);
        for target in policy.targets() {
            self.touch_policies_on(&target.object, touched);
            match target.object.kind {
                // How endpoints are spoken to is said with them, and to nobody else.
                Kind::Service if policy.key.kind == Kind::BackendTlsPolicy => {
                    touched.services.insert(service_of(&target.object));
                }
                Kind::Service => self.touch_backend(&service_of(&target.object), touched),
                Kind::Namespace => self.touch_governed(&target.object.name, touched),
                _ => {
                    if let Some(route) = self.route(&target.object) {
                        self.touch_route(route, touched);
                    }
                }
            }
        }
    }

    /// The policies that name it, and the endpoints for which they hold.
    pub(crate) fn touch_authorities(&self, key: &Key, touched: &mut Touched) {
        let first = Key::new(Kind::BackendTlsPolicy, &key.namespace, "");
        let policies = self.attachments.policies.range(first.clone()..);
        let here = |of: &Key| of.kind == first.kind && of.namespace == first.namespace;
        for (_, policy) in policies.take_while(|(of, _)| here(of)) {
            let PolicySpec::BackendTls(spec) = &policy.spec else { continue };
            if spec.validation.ca_certificate_refs.iter().any(|one| *one.name == *key.name) {
                self.touch_policy(policy, touched);
            }
        }
    }

    /// Routes of other namespaces to Services of this one.
    pub(crate) fn touch_grant(&self, key: &Key, touched: &mut Touched) {
        let first = ServiceName::new(&key.namespace, "");
        let backends = self.attachments.routes_to.range(first..);
        for (_, routes) in backends.take_while(|(backend, _)| backend.namespace == key.namespace) {
            for route in routes.iter().filter(|route| route.namespace != key.namespace) {
                self.touch_through(route, touched);
            }
        }
    }

    /// What is said about a Service, by whoever dials it and by whoever dials what routes to it.
    pub(crate) fn touch_backend(&self, service: &ServiceName, touched: &mut Touched) {
        self.touch_address(service, touched);
        touched.routes.extend(self.routes_of(service).map(|route| route.key.clone()));
        for route in self.attachments.routes_to.get(service).into_iter().flatten() {
            self.touch_through(route, touched);
        }
    }

    pub(crate) fn touch_policies_on(&self, target: &Key, touched: &mut Touched) {
        touched.policies.extend(self.attachments.policies_on.get(target).into_iter().flatten().cloned());
    }

    /// All that a policy of a whole namespace governs.
    fn touch_governed(&self, namespace: &Arc<str>, touched: &mut Touched) {
        let services = self.services.range(ServiceName::new(namespace, "")..).map(|(name, _)| name);
        for service in services.take_while(|service| service.namespace == *namespace) {
            self.touch_backend(service, touched);
        }
        for route in self.routes().filter(|route| route.key.namespace == *namespace) {
            self.touch_through(&route.key, touched);
        }
        let policies = self.policies().filter(|policy| policy.key.namespace == *namespace);
        touched.policies.extend(policies.map(|policy| policy.key.clone()));
    }

    /// A route of which something else has changed.
    fn touch_through(&self, route: &Key, touched: &mut Touched) {
        touched.routes.insert(route.clone());
        if let Some(route) = self.route(route) {
            route.parents().iter().for_each(|parent| self.touch_address(parent, touched));
        }
    }

    fn touch_address(&self, service: &ServiceName, touched: &mut Touched) {
        if let Some(service) = self.services.get(service) {
            touched.addresses.extend(&service.addresses);
        }
    }
}

fn unlink<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    let Some(values) = map.get_mut(key) else { return };
    values.remove(value);
    if values.is_empty() {
        map.remove(key);
    }
}

pub(crate) fn service_key(service: &ServiceName) -> Key {
    Key { kind: Kind::Service, namespace: Arc::clone(&service.namespace), name: Arc::clone(&service.name) }
}

fn service_of(key: &Key) -> ServiceName {
    ServiceName { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) }
}
