//! All that control knows, behind one lock: the index, what proxies found out, the answers that are watched and the
//! problems. Whoever changes something renews the answers that it touches before the lock is free again.

use crate::{
    answers::{Question, Watched},
    metrics::Metrics,
    problems::{Problem, Problems, Source},
    source::{Batch, Change},
};
use control_index::{Account, Index, Key, Kind, Touched};
use control_translate::{Detected, Mesh, Status, Unmeshed, problems, status, unmeshed};
use policy::{Protocol, ServicePort, TrustDomain, WorkloadName};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::watch;

/// What control knows.
#[derive(Debug)]
pub struct World {
    trust_domain: TrustDomain,
    index: Index,
    detected: Detected,
    watched: Watched,
    problems: Problems,
    /// Where each object is written, if it is in a file.
    origins: BTreeMap<Key, String>,
    /// Pods without a proxy where one was asked for.
    unmeshed: BTreeMap<WorkloadName, Alone>,
    /// Counts changes of namespaces, for who watches them.
    namespaces: watch::Sender<u64>,
    /// Routes and policies about which something else may be to say since somebody took these.
    unjudged: watch::Sender<BTreeSet<Key>>,
    metrics: Arc<Metrics>,
    closed: bool,
}

/// A Pod without a proxy where its Namespace asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alone {
    pub pod: WorkloadName,
    pub uid: Arc<str>,
    pub reason: Unmeshed,
}

/// What is to be said about a route or a policy whose status does not say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsaid {
    /// The generation of the object that it is about.
    pub generation: i64,
    /// Without entries when it is nothing of ours any more.
    pub status: Status,
}

impl World {
    pub fn new(trust_domain: TrustDomain, metrics: Arc<Metrics>) -> Self {
        Self {
            trust_domain,
            index: Index::default(),
            detected: Detected::default(),
            watched: Watched::default(),
            problems: Problems::default(),
            origins: BTreeMap::new(),
            unmeshed: BTreeMap::new(),
            namespaces: watch::Sender::new(0),
            unjudged: watch::Sender::default(),
            metrics,
            closed: false,
        }
    }

    /// Takes what a source found; answers whether service accounts came or went.
    pub fn take(&mut self, batch: Batch) -> bool {
        let mut touched = Touched::default();
        let mut changed = BTreeSet::new();
        for change in batch.changes {
            match change {
                Change::Apply { object, origin } => {
                    touched.merge(self.index.apply(&object));
                    if !origin.is_empty() {
                        self.origins.insert(object.key().clone(), origin);
                    }
                    changed.insert(object.key().clone());
                }
                Change::Delete(key) => {
                    touched.merge(self.index.delete(&key));
                    self.origins.remove(&key);
                    changed.insert(key);
                }
            }
        }
        for service in &touched.services {
            if self.index.service(service).is_none() {
                self.detected.forget(service);
            }
            changed.insert(Key::new(Kind::Service, &service.namespace, &service.name));
        }
        changed.extend(touched.routes.iter().chain(&touched.policies).cloned());
        self.problems.replace(batch.source, batch.problems);
        changed.iter().for_each(|key| self.examine(key));
        self.renew(&touched);
        self.look_for_proxies(&touched);
        self.leave_to_judge(&touched);
        self.metrics.skipped.set(batch.skipped as i64);
        self.count();
        !touched.accounts.is_empty()
    }

    /// Takes what a proxy found a Service's port to speak. Reports on Services that nobody knows are nothing.
    pub fn report(&mut self, backend: &ServicePort, protocol: Protocol) {
        let known = self.index.service(&backend.service).and_then(|service| service.port(backend.port));
        if known.is_some() && self.detected.report(backend, protocol) {
            let touched = self.index.around(&backend.service);
            self.renew(&touched);
        }
    }

    /// The answers, and what they are made from; `None` when control is closing.
    pub fn watched(&mut self) -> Option<(&mut Watched, Mesh<'_>)> {
        if self.closed {
            return None;
        }
        let mesh = Mesh { index: &self.index, detected: &self.detected, trust_domain: &self.trust_domain };
        Some((&mut self.watched, mesh))
    }

    pub fn release(&mut self, question: &Question) {
        self.watched.release(question);
    }

    /// Ends every watch and starts no more.
    pub fn close(&mut self) {
        self.closed = true;
        self.watched.close();
    }

    /// Takes what somebody besides the source of objects finds wrong now.
    pub fn problems_of(&mut self, source: Source, now: BTreeSet<Problem>) {
        self.problems.replace(source, now);
        self.metrics.problems.set(self.problems.count() as i64);
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The Namespaces where proxies are.
    pub fn meshed_namespaces(&self) -> BTreeSet<Arc<str>> {
        self.index.meshed_namespaces()
    }

    /// Hears when these may have changed.
    pub fn namespaces_changed(&self) -> watch::Receiver<u64> {
        self.namespaces.subscribe()
    }

    /// Pods without a proxy where one was asked for, by name.
    pub fn unmeshed(&self) -> Vec<Alone> {
        self.unmeshed.values().cloned().collect()
    }

    /// All routes and policies, for who begins to judge them.
    pub fn judged(&self) -> BTreeSet<Key> {
        let routes = self.index.routes().map(|route| &route.key);
        routes.chain(self.index.policies().map(|policy| &policy.key)).cloned().collect()
    }

    /// Routes and policies about which something else may be to say; who hears of them takes them.
    pub fn unjudged(&self) -> watch::Receiver<BTreeSet<Key>> {
        self.unjudged.subscribe()
    }

    pub fn take_unjudged(&self) -> BTreeSet<Key> {
        let mut taken = BTreeSet::new();
        self.unjudged.send_if_modified(|keys| {
            taken = std::mem::take(keys);
            false
        });
        taken
    }

    /// What is to be said about a route or a policy; `None` when it is gone, or when its status says it.
    pub fn unsaid(&self, key: &Key) -> Option<Unsaid> {
        let (generation, observed) = match key.kind.is_route() {
            true => self.index.route(key).map(|route| (route.generation, &route.observed))?,
            false => self.index.policy(key).map(|policy| (policy.generation, &policy.observed))?,
        };
        let status = status(&self.index, key).unwrap_or_default();
        (!status.is_observed(generation, observed)).then_some(Unsaid { generation, status })
    }

    pub fn accounts(&self) -> BTreeSet<Account> {
        self.index.accounts().cloned().collect()
    }

    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// How many objects are held.
    pub fn objects(&self) -> usize {
        Kind::ALL.into_iter().map(|kind| self.index.count(kind)).sum()
    }

    fn examine(&mut self, key: &Key) {
        let at = self.origins.get(key).cloned().unwrap_or_default();
        let found = problems(&self.index, key).into_iter().map(|problem| Problem {
            at: at.clone(),
            object: problem.object.to_string(),
            field: problem.field,
            what: problem.what,
        });
        self.problems.replace(Source::Object(key.clone()), found.collect());
    }

    /// What is gone is nobody's to judge.
    fn leave_to_judge(&mut self, touched: &Touched) {
        if touched.routes.is_empty() && touched.policies.is_empty() {
            return;
        }
        let index = &self.index;
        self.unjudged.send_modify(|keys| {
            for key in touched.routes.iter().chain(&touched.policies) {
                match index.route(key).is_some() || index.policy(key).is_some() {
                    true => drop(keys.insert(key.clone())),
                    false => drop(keys.remove(key)),
                }
            }
        });
    }

    fn look_for_proxies(&mut self, touched: &Touched) {
        if !touched.namespaces.is_empty() {
            self.namespaces.send_modify(|count| *count += 1);
        }
        let within = touched.namespaces.iter().flat_map(|namespace| self.index.pods_in(namespace));
        let touched: BTreeSet<&WorkloadName> =
            within.map(|pod| &pod.name).chain(&touched.workloads).collect();
        for name in touched {
            let pod = self.index.pod(name);
            match pod.and_then(|pod| Some((pod, unmeshed(&self.index, pod)?))) {
                Some((pod, reason)) => {
                    let alone = Alone { pod: name.clone(), uid: Arc::clone(&pod.uid), reason };
                    self.unmeshed.insert(name.clone(), alone);
                }
                None => drop(self.unmeshed.remove(name)),
            }
        }
    }

    fn renew(&mut self, touched: &Touched) {
        let mesh = Mesh { index: &self.index, detected: &self.detected, trust_domain: &self.trust_domain };
        let changed = self.watched.renew(&mesh, touched);
        self.metrics.changes.inc_by(changed as u64);
    }

    fn count(&self) {
        for kind in Kind::ALL {
            self.metrics.objects(kind).set(self.index.count(kind) as i64);
        }
        self.metrics.problems.set(self.problems.count() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_index::Object;

    fn object(kind: Kind, json: serde_json::Value) -> Arc<Object> {
        Arc::new(kind.read(json).expect("an object"))
    }

    fn apply(world: &mut World, object: Arc<Object>) {
        let changes = vec![Change::Apply { object, origin: String::new() }];
        world.take(Batch { changes, source: Source::Directory, problems: BTreeSet::new(), skipped: 0 });
    }

    fn route(status: serde_json::Value) -> Arc<Object> {
        let route = serde_json::json!({
            "metadata": {"name": "split", "namespace": "shop", "generation": 2},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}]},
            "status": status,
        });
        object(Kind::HttpRoute, route)
    }

    #[test]
    fn what_is_to_be_said_is_said_until_the_object_says_it() {
        let domain = "cluster.local".parse().expect("a trust domain");
        let mut world = World::new(domain, Arc::default());
        let mut heard = world.unjudged();
        let key = Key::new(Kind::HttpRoute, "shop", "split");
        apply(&mut world, route(serde_json::Value::Null));
        assert!(heard.has_changed().expect("the world goes on"));
        heard.mark_unchanged();
        assert_eq!(world.take_unjudged(), [key.clone()].into());
        assert_eq!(world.take_unjudged(), [].into(), "taken once");
        let unsaid = world.unsaid(&key).expect("something to say");
        assert_eq!(unsaid.generation, 2);
        assert!(!unsaid.status.entries[0].conditions[0].holds, "there is no such Service");
        // What it depends on comes, and something else is to be said.
        let cart = serde_json::json!({
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
        });
        apply(&mut world, object(Kind::Service, cart));
        assert_eq!(world.take_unjudged(), [key.clone()].into());
        let now = world.unsaid(&key).expect("something to say");
        assert!(now.status.entries[0].conditions[0].holds && now != unsaid);
        let conditions = now.status.entries[0].conditions.iter().map(|one| {
            serde_json::json!({
                "type": one.type_, "status": one.word(), "reason": one.reason, "message": one.message,
                "observedGeneration": 2,
            })
        });
        let parent = serde_json::json!({
            "parentRef": {"group": "", "kind": "Service", "name": "cart"},
            "controllerName": "weft.mesh/controller",
            "conditions": conditions.collect::<Vec<_>>(),
        });
        apply(&mut world, route(serde_json::json!({"parents": [parent]})));
        assert_eq!(world.unsaid(&key), None, "the object says it");
        world.take(Batch {
            changes: vec![Change::Delete(key.clone())],
            source: Source::Directory,
            problems: BTreeSet::new(),
            skipped: 0,
        });
        assert_eq!((world.take_unjudged(), world.unsaid(&key)), ([].into(), None), "nobody is left to tell");
    }
}
