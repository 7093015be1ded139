//! The index: trimmed objects, the tables that find them, and what a change touches.

use crate::{
    Account, Body, Key, Kind, Object, Pod, Problem, Service, State, Touched, problem::Notes, slice::Slice,
};
use policy::{ServiceName, ServicePort, WorkloadName};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// All objects of one cluster (or directory) that say something about traffic.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: BTreeSet<Key>,
    pub(crate) pods: BTreeMap<WorkloadName, Pod>,
    pub(crate) services: BTreeMap<ServiceName, Service>,
    pub(crate) slices: BTreeMap<Key, Slice>,
    /// Service accounts, and the Pods and ServiceAccounts that name them.
    accounts: BTreeMap<Account, BTreeSet<Key>>,
    pods_at: HashMap<IpAddr, BTreeSet<WorkloadName>>,
    services_at: HashMap<IpAddr, BTreeSet<ServiceName>>,
    pub(crate) slices_at: HashMap<IpAddr, BTreeSet<Key>>,
    pub(crate) slices_of: HashMap<ServiceName, BTreeSet<Key>>,
    problems: BTreeMap<Key, Vec<Problem>>,
}

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
        let mut touched = Touched::default();
        match object.body() {
            Body::Namespace(_) => {
                self.namespaces.insert(key.clone());
            }
            Body::ServiceAccount(_) => {
                self.name_account(account_of(key), key, &mut touched);
            }
            Body::Pod(manifest) => {
                let pod = Pod::read(key, manifest, &mut notes);
                if self.pods.get(&pod.name) != Some(&pod) {
                    touched = self.exchange(key, |index| index.insert_pod(key, pod));
                }
            }
            Body::Service(manifest) => {
                let service = Service::read(key, manifest, &mut notes);
                if self.services.get(&service.name) != Some(&service) {
                    touched = self.exchange(key, |index| index.insert_service(service));
                }
            }
            Body::EndpointSlice(manifest) => {
                let slice = Slice::read(key, manifest, &mut notes);
                if self.slices.get(key) != Some(&slice) {
                    touched = self.exchange(key, |index| index.insert_slice(key, slice));
                }
            }
        }
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
            Kind::ServiceAccount => {
                let declared = |keys: &&BTreeSet<Key>| keys.iter().any(|key| key.kind == kind);
                self.accounts.values().filter(declared).count()
            }
            Kind::Service => self.services.len(),
            Kind::EndpointSlice => self.slices.len(),
            Kind::Pod => self.pods.len(),
        }
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

    /// What depended on the object before, and what depends on it after `insert`.
    fn exchange(&mut self, key: &Key, insert: impl FnOnce(&mut Self)) -> Touched {
        let mut touched = Touched::default();
        self.touch(key, &mut touched);
        self.remove(key);
        insert(self);
        self.touch(key, &mut touched);
        touched
    }

    fn touch(&self, key: &Key, touched: &mut Touched) {
        match key.kind {
            Kind::Namespace => {}
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
        }
    }

    fn touch_pod(&self, pod: &Pod, touched: &mut Touched) {
        touch_workload(pod, touched);
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
        touched.addresses.extend(&service.addresses);
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
        self.pods.insert(pod.name.clone(), pod);
    }

    fn insert_service(&mut self, service: Service) {
        service.addresses.iter().for_each(|ip| link(&mut self.services_at, *ip, service.name.clone()));
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
                self.namespaces.remove(key);
            }
            Kind::ServiceAccount => self.unname_account(&account_of(key), key),
            Kind::Pod => {
                let Some(pod) = self.pods.remove(&workload_of(key)) else { return };
                pod.addresses.iter().for_each(|ip| unlink(&mut self.pods_at, ip, &pod.name));
                self.unname_account(&pod.account, key);
            }
            Kind::Service => {
                let Some(service) = self.services.remove(&service_of(key)) else { return };
                service.addresses.iter().for_each(|ip| unlink(&mut self.services_at, ip, &service.name));
            }
            Kind::EndpointSlice => {
                let Some(slice) = self.slices.remove(key) else { return };
                slice.endpoints.iter().for_each(|one| unlink(&mut self.slices_at, &one.address, key));
                if let Some(service) = &slice.service {
                    unlink(&mut self.slices_of, service, key);
                }
            }
        }
    }

    fn name_account(&mut self, account: Account, by: &Key, touched: &mut Touched) {
        if self.accounts.entry(account.clone()).or_default().insert(by.clone()) {
            touched.accounts.insert(account);
        }
    }

    fn unname_account(&mut self, account: &Account, by: &Key) {
        let Some(names) = self.accounts.get_mut(account) else { return };
        names.remove(by);
        if names.is_empty() {
            self.accounts.remove(account);
        }
    }
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
