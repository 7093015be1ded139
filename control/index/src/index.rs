//! The index: trimmed objects, the tables that find them, and what a change touches.

use crate::{
    Account, Body, Key, Kind, Namespace, Object, Pod, Policy, PolicySpec, Ports, Problem, Route, RouteSpec,
    Service, State, Touched,
    attachments::{Attachments, service_key},
    problem::Notes,
    slice::Slice,
};
use policy::{ServiceName, ServicePort, WorkloadName};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The label of a Node that says its zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// All objects of one cluster (or directory) that say something about traffic.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: BTreeMap<Arc<str>, Namespace>,
    /// Nodes and their zones; empty: nobody says.
    nodes: BTreeMap<Arc<str>, Arc<str>>,
    pub(crate) pods: BTreeMap<WorkloadName, Pod>,
    pub(crate) services: BTreeMap<ServiceName, Service>,
    pub(crate) slices: BTreeMap<Key, Slice>,
    /// Service accounts, and the Pods and ServiceAccounts that name them.
    accounts: BTreeMap<Account, BTreeSet<Key>>,
    declared_accounts: usize,
    /// How many Pods with a proxy are in each Namespace.
    meshed: BTreeMap<Arc<str>, usize>,
    pods_at: HashMap<IpAddr, BTreeSet<WorkloadName>>,
    services_at: HashMap<IpAddr, BTreeSet<ServiceName>>,
    /// Services by one of the labels that they select: the first one by name, with its namespace.
    pub(crate) services_selecting: HashMap<Label, BTreeSet<ServiceName>>,
    pub(crate) slices_at: HashMap<IpAddr, BTreeSet<Key>>,
    pub(crate) slices_of: HashMap<ServiceName, BTreeSet<Key>>,
    pub(crate) attachments: Attachments,
    problems: BTreeMap<Key, Vec<Problem>>,
}

/// A label of a Pod, with the Pod's namespace.
pub(crate) type Label = (Arc<str>, String, String);

/// Who stands at an address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Service(ServicePort),
    Workload(&'a Pod),
    None,
}

impl Index {
    /// Takes an object in the place of the one with the same key, if there is one.
    pub fn apply(&mut self, object: &Object) -> Touched {
        let key = object.key();
        let mut notes = Notes::of(key);
        let touched = match object.body() {
            Body::Namespace(_)
            | Body::Node(_)
            | Body::ServiceAccount(_)
            | Body::Service(_)
            | Body::EndpointSlice(_)
            | Body::Pod(_)
            | Body::ConfigMap(_) => self.apply_built_in(key, object.body(), &mut notes),
            body => self.apply_attached(key, body, &mut notes),
        };
        match notes.problems.is_empty() {
            true => self.problems.remove(key),
            false => self.problems.insert(key.clone(), notes.problems),
        };
        touched
    }

    /// Forgets an object; nothing happens when it is not there.
    pub fn delete(&mut self, key: &Key) -> Touched {
        self.problems.remove(key);
        self.exchange(key, |_| {})
    }

    /// Who stands at an original destination. The port counts for a Service: one that it does not have is nobody's.
    /// Of several claimants of one address the first by name is taken.
    pub fn by_address(&self, address: SocketAddr) -> Found<'_> {
        let ip = address.ip().to_canonical();
        if let Some(service) = self.services_at(ip).next() {
            return match service.port(address.port()) {
                Some(port) => Found::Service(service.name.port(port.number)),
                None => Found::None,
            };
        }
        self.pod_at(ip).map_or(Found::None, Found::Workload)
    }

    pub fn pod(&self, name: &WorkloadName) -> Option<&Pod> {
        self.pods.get(name)
    }

    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// The Namespaces where proxies are: those that ask for them, and those that have a Pod with one. Not those that
    /// are being deleted.
    pub fn meshed_namespaces(&self) -> BTreeSet<Arc<str>> {
        let injected = self.namespaces.iter().filter(|(_, one)| one.injected).map(|(name, _)| name);
        let all = injected.chain(self.meshed.keys()).cloned();
        all.filter(|name| self.namespaces.get(name).is_none_or(|one| !one.terminating)).collect()
    }

    pub fn pods_in(&self, namespace: &Arc<str>) -> impl Iterator<Item = &Pod> {
        let first = WorkloadName { namespace: Arc::clone(namespace), name: "".into() };
        let within = self.pods.range(first..).map(|(_, pod)| pod);
        within.take_while(move |pod| pod.name.namespace == *namespace)
    }

    /// The zone that a workload's Node is in, if both are known.
    pub fn zone(&self, workload: &WorkloadName) -> Option<&Arc<str>> {
        let pod = self.pods.get(workload)?;
        self.nodes.get(&pod.node).filter(|zone| !zone.is_empty())
    }

    /// The bytes of a Pod's port are not looked at.
    pub fn is_opaque(&self, pod: &Pod, port: u16) -> bool {
        let said = pod.opaque.as_ref().or_else(|| self.opaque_by_default(&pod.name.namespace));
        said.is_some_and(|ports| ports.contains(port))
    }

    /// The bytes of a Service's port are not looked at.
    pub fn is_opaque_service(&self, service: &Service, port: u16) -> bool {
        let said = service.opaque.as_ref().or_else(|| self.opaque_by_default(&service.name.namespace));
        said.is_some_and(|ports| ports.contains(port))
    }

    /// Service accounts that a Pod runs as or that a ServiceAccount declares.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.keys()
    }

    pub fn has_account(&self, account: &Account) -> bool {
        self.accounts.contains_key(account)
    }

    /// Services that claim `ip` as a cluster IP, by name: the first one has it.
    pub fn services_at(&self, ip: IpAddr) -> impl Iterator<Item = &Service> {
        self.services_at.get(&ip).into_iter().flatten().filter_map(|name| self.services.get(name))
    }

    /// What could not be read of the object as it was last applied.
    pub fn problems(&self, key: &Key) -> &[Problem] {
        self.problems.get(key).map_or(&[], Vec::as_slice)
    }

    /// How many objects of a kind are held. ServiceAccounts are those declared, not those that only Pods name.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Namespace => self.namespaces.len(),
            Kind::Node => self.nodes.len(),
            Kind::ServiceAccount => self.declared_accounts,
            Kind::Service => self.services.len(),
            Kind::EndpointSlice => self.slices.len(),
            Kind::Pod => self.pods.len(),
            kind => self.attachments.count(kind),
        }
    }

    /// The certificates of authorities (RFC 7468) in a ConfigMap, under its key `ca.crt`.
    pub fn authorities(&self, namespace: &str, name: &str) -> Option<&Arc<str>> {
        self.attachments.authorities.get(&Key::new(Kind::ConfigMap, namespace, name))
    }

    /// Whose answers depend on a Service.
    pub fn around(&self, service: &ServiceName) -> Touched {
        let mut touched = Touched::default();
        if let Some(service) = self.services.get(service) {
            self.touch_service(service, &mut touched);
        }
        touched
    }

    /// The Pod whose own address this is. Addresses are used again: a Pod that stays goes before one that leaves.
    pub(crate) fn pod_at(&self, ip: IpAddr) -> Option<&Pod> {
        let pods = || self.pods_at.get(&ip).into_iter().flatten().filter_map(|name| self.pods.get(name));
        pods().find(|pod| pod.state != State::Terminating).or_else(|| pods().next())
    }

    fn apply_built_in(&mut self, key: &Key, body: &Body, notes: &mut Notes) -> Touched {
        let mut touched = Touched::default();
        match body {
            Body::Namespace(manifest) => {
                let namespace = Namespace::read(manifest, notes);
                if self.namespaces.get(&key.name) != Some(&namespace) {
                    touched = self.exchange(key, |index| {
                        index.namespaces.insert(Arc::clone(&key.name), namespace);
                    });
                }
            }
            Body::Node(manifest) => {
                let zone = manifest.metadata.label(ZONE_LABEL).unwrap_or_default();
                self.nodes.insert(Arc::clone(&key.name), zone.into());
            }
            Body::ServiceAccount(_) => {
                self.name_account(account_of(key), key, &mut touched);
            }
            Body::Pod(manifest) => {
                let pod = Pod::read(key, manifest, notes);
                if self.pods.get(&pod.name) != Some(&pod) {
                    touched = self.exchange(key, |index| index.insert_pod(key, pod));
                }
            }
            Body::Service(manifest) => {
                let service = Service::read(key, manifest, notes);
                if self.services.get(&service.name) != Some(&service) {
                    touched = self.exchange(key, |index| index.insert_service(service));
                }
            }
            Body::EndpointSlice(manifest) => {
                let slice = Slice::read(key, manifest, notes);
                if self.slices.get(key) != Some(&slice) {
                    touched = self.exchange(key, |index| index.insert_slice(key, slice));
                }
            }
            Body::ConfigMap(manifest) => {
                let now = manifest.authorities();
                if self.attachments.authorities.get(key).map(|held| &**held) != now {
                    touched = self.exchange(key, |index| {
                        index.attachments.authorities.extend(now.map(|pem| (key.clone(), pem.into())));
                    });
                }
            }
            _ => {}
        }
        touched
    }

    fn apply_attached(&mut self, key: &Key, body: &Body, notes: &mut Notes) -> Touched {
        let route = match body {
            Body::GrpcRoute(route) => Route::read(key, route, RouteSpec::Grpc(Arc::new(route.spec.clone()))),
            Body::HttpRoute(route) => Route::read(key, route, RouteSpec::Http(Arc::new(route.spec.clone()))),
            Body::TlsRoute(route) => Route::read(key, route, RouteSpec::Tls(Arc::new(route.spec.clone()))),
            Body::TcpRoute(route) => Route::read(key, route, RouteSpec::Tcp(Arc::new(route.spec.clone()))),
            body => return self.apply_said(key, body, notes),
        };
        match self.attachments.routes.get(key) {
            Some(held) if *held == route => Touched::default(),
            Some(held) if held.says_what(&route) => {
                self.insert_route(route);
                Touched { routes: [key.clone()].into(), ..Touched::default() }
            }
            _ => self.exchange(key, |index| index.insert_route(route)),
        }
    }

    /// Policies and grants.
    fn apply_said(&mut self, key: &Key, body: &Body, notes: &mut Notes) -> Touched {
        let policy = match body {
            Body::TrafficPolicy(policy) => {
                Policy::read(key, policy, PolicySpec::Traffic(Arc::new(policy.spec.clone())), notes)
            }
            Body::BackendPolicy(policy) => {
                Policy::read(key, policy, PolicySpec::Backend(Arc::new(policy.spec.clone())), notes)
            }
            Body::XBackendTrafficPolicy(policy) => {
                Policy::read(key, policy, PolicySpec::XBackendTraffic(Arc::new(policy.spec.clone())), notes)
            }
            Body::BackendTlsPolicy(policy) => {
                Policy::read(key, policy, PolicySpec::BackendTls(Arc::new(policy.spec.clone())), notes)
            }
            Body::ReferenceGrant(grant) if self.attachments.grants.get(key) != Some(&grant.spec) => {
                return self.exchange(key, |index| {
                    index.attachments.grants.insert(key.clone(), grant.spec.clone());
                });
            }
            _ => return Touched::default(),
        };
        match self.attachments.policies.get(key) {
            Some(held) if *held == policy => Touched::default(),
            Some(held) if held.says_what(&policy) => {
                self.insert_policy(policy);
                Touched { policies: [key.clone()].into(), ..Touched::default() }
            }
            _ => self.exchange(key, |index| index.insert_policy(policy)),
        }
    }

    /// What depended on the object before, and what depends on it after `insert`.
    fn exchange(&mut self, key: &Key, insert: impl FnOnce(&mut Self)) -> Touched {
        let mut touched = Touched::default();
        let meshed = self.meshed.contains_key(&key.namespace);
        self.touch(key, &mut touched);
        self.remove(key);
        insert(self);
        self.touch(key, &mut touched);
        if meshed != self.meshed.contains_key(&key.namespace) {
            touched.namespaces.insert(Arc::clone(&key.namespace));
        }
        touched
    }

    fn touch(&self, key: &Key, touched: &mut Touched) {
        match key.kind {
            Kind::Node => {}
            Kind::Namespace => self.touch_namespace(key, touched),
            Kind::ServiceAccount => {
                touched.accounts.insert(account_of(key));
            }
            Kind::Pod => {
                if let Some(pod) = self.pods.get(&workload_of(key)) {
                    self.touch_pod(pod, touched);
                }
            }
            Kind::Service => {
                if let Some(service) = self.services.get(&service_of(key)) {
                    self.touch_service(service, touched);
                }
            }
            Kind::EndpointSlice => {
                if let Some(slice) = self.slices.get(key) {
                    touched.services.extend(slice.service.clone());
                    let pods = slice.endpoints.iter().filter_map(|endpoint| self.pod_at(endpoint.address));
                    pods.for_each(|pod| touch_workload(pod, touched));
                }
            }
            Kind::ConfigMap => self.touch_authorities(key, touched),
            Kind::ReferenceGrant => self.touch_grant(key, touched),
            kind if kind.is_route() => {
                touched.routes.insert(key.clone());
                if let Some(route) = self.route(key) {
                    self.touch_route(route, touched);
                }
            }
            _ => {
                touched.policies.insert(key.clone());
                if let Some(policy) = self.policy(key) {
                    self.touch_policy(policy, touched);
                }
            }
        }
    }

    /// What it says of opaque ports is said of all in it that say nothing themselves.
    fn touch_namespace(&self, key: &Key, touched: &mut Touched) {
        self.touch_policies_on(key, touched);
        let Some(namespace) = self.namespaces.get(&key.name) else { return };
        touched.namespaces.insert(Arc::clone(&key.name));
        if namespace.opaque.is_none() {
            return;
        }
        let first = ServiceName { namespace: Arc::clone(&key.name), name: "".into() };
        let services = self.services.range(first..).map(|(_, service)| service);
        for service in services.take_while(|service| service.name.namespace == key.name) {
            self.touch_service(service, touched);
        }
        self.pods_in(&key.name).for_each(|pod| touch_workload(pod, touched));
    }

    fn opaque_by_default(&self, namespace: &str) -> Option<&Ports> {
        self.namespaces.get(namespace)?.opaque.as_ref()
    }

    /// What a Pod says of its opaque ports is said of the Services before it too.
    fn touch_pod(&self, pod: &Pod, touched: &mut Touched) {
        touch_workload(pod, touched);
        if pod.opaque.is_some() {
            self.selecting(pod).for_each(|service| self.touch_backend(&service.name, touched));
        }
        touched.accounts.insert(pod.account.clone());
        touched.services.extend(self.selecting(pod).map(|service| service.name.clone()));
        for ip in &pod.addresses {
            let slices = self.slices_at.get(ip).into_iter().flatten();
            let services = slices.filter_map(|key| self.slices.get(key)?.service.clone());
            touched.services.extend(services);
        }
    }

    /// The Services that share an address with it are touched too: one of them may have it now.
    fn touch_service(&self, service: &Service, touched: &mut Touched) {
        touched.services.insert(service.name.clone());
        self.touch_backend(&service.name, touched);
        self.touch_policies_on(&service_key(&service.name), touched);
        for ip in &service.addresses {
            touched.services.extend(self.services_at(*ip).map(|other| other.name.clone()));
        }
        self.pods_of(service).for_each(|pod| touch_workload(pod, touched));
    }

    fn insert_pod(&mut self, key: &Key, pod: Pod) {
        if pod.addressable() {
            pod.addresses.iter().for_each(|ip| link(&mut self.pods_at, *ip, pod.name.clone()));
        }
        self.accounts.entry(pod.account.clone()).or_default().insert(key.clone());
        if pod.meshed {
            *self.meshed.entry(Arc::clone(&key.namespace)).or_default() += 1;
        }
        self.pods.insert(pod.name.clone(), pod);
    }

    fn insert_service(&mut self, service: Service) {
        service.addresses.iter().for_each(|ip| link(&mut self.services_at, *ip, service.name.clone()));
        if let Some(label) = first_label(&service) {
            link(&mut self.services_selecting, label, service.name.clone());
        }
        self.services.insert(service.name.clone(), service);
    }

    fn insert_slice(&mut self, key: &Key, slice: Slice) {
        slice.endpoints.iter().for_each(|one| link(&mut self.slices_at, one.address, key.clone()));
        if let Some(service) = &slice.service {
            link(&mut self.slices_of, service.clone(), key.clone());
        }
        self.slices.insert(key.clone(), slice);
    }

    fn remove(&mut self, key: &Key) {
        match key.kind {
            Kind::Namespace => {
                self.namespaces.remove(&key.name);
            }
            Kind::Node => {
                self.nodes.remove(&key.name);
            }
            Kind::ServiceAccount => self.unname_account(&account_of(key), key),
            Kind::Pod => {
                let Some(pod) = self.pods.remove(&workload_of(key)) else { return };
                pod.addresses.iter().for_each(|ip| unlink(&mut self.pods_at, ip, &pod.name));
                self.unname_account(&pod.account, key);
                if pod.meshed {
                    self.unmesh(&key.namespace);
                }
            }
            Kind::Service => {
                let Some(service) = self.services.remove(&service_of(key)) else { return };
                service.addresses.iter().for_each(|ip| unlink(&mut self.services_at, ip, &service.name));
                if let Some(label) = first_label(&service) {
                    unlink(&mut self.services_selecting, &label, &service.name);
                }
            }
            Kind::EndpointSlice => {
                let Some(slice) = self.slices.remove(key) else { return };
                slice.endpoints.iter().for_each(|one| unlink(&mut self.slices_at, &one.address, key));
                if let Some(service) = &slice.service {
                    unlink(&mut self.slices_of, service, key);
                }
            }
            Kind::ConfigMap => drop(self.attachments.authorities.remove(key)),
            Kind::ReferenceGrant => drop(self.attachments.grants.remove(key)),
            kind if kind.is_route() => self.remove_route(key),
            _ => self.remove_policy(key),
        }
    }

    fn name_account(&mut self, account: Account, by: &Key, touched: &mut Touched) {
        if self.accounts.entry(account.clone()).or_default().insert(by.clone()) {
            self.declared_accounts += 1;
            touched.accounts.insert(account);
        }
    }

    fn unmesh(&mut self, namespace: &Arc<str>) {
        if let Some(count) = self.meshed.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                self.meshed.remove(namespace);
            }
        }
    }

    fn unname_account(&mut self, account: &Account, by: &Key) {
        let Some(names) = self.accounts.get_mut(account) else { return };
        if names.remove(by) && by.kind == Kind::ServiceAccount {
            self.declared_accounts -= 1;
        }
        if names.is_empty() {
            self.accounts.remove(account);
        }
    }
}

/// The label by which a Service is found from its Pods.
fn first_label(service: &Service) -> Option<Label> {
    let (name, value) = service.selector.as_ref()?.first_key_value()?;
    Some((Arc::clone(&service.name.namespace), name.clone(), value.clone()))
}

fn touch_workload(pod: &Pod, touched: &mut Touched) {
    touched.workloads.insert(pod.name.clone());
    touched.addresses.extend(&pod.addresses);
}

fn link<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: K, value: V) {
    map.entry(key).or_default().insert(value);
}

fn unlink<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    let Some(values) = map.get_mut(key) else { return };
    values.remove(value);
    if values.is_empty() {
        map.remove(key);
    }
}

fn workload_of(key: &Key) -> WorkloadName {
    WorkloadName { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) }
}

fn service_of(key: &Key) -> ServiceName {
    ServiceName { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) }
}

fn account_of(key: &Key) -> Account {
    Account { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) }
}
