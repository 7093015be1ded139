//! Watches a cluster: each kind of object is listed in pages and then watched from where the list stood, over and over.
//!
//! What control may do in the cluster, all of it (the charts grant exactly this):
//!
//! | resource | where | verbs | for |
//! |---|---|---|---|
//! | configmaps, namespaces, nodes, pods, services, serviceaccounts; endpointslices.discovery.k8s.io | cluster | list, watch | this source |
//! | grpcroutes, httproutes, tlsroutes, tcproutes, referencegrants, backendtlspolicies of gateway.networking.k8s.io | cluster | list, watch | this source |
//! | xbackendtrafficpolicies.gateway.networking.x-k8s.io | cluster | list, watch | this source |
//! | trafficpolicies, backendpolicies of policy.weft.mesh | cluster | list, watch | this source |
//! | the /status of the routes and policies | cluster | get, patch | what became of them |
//! | xmeshes.gateway.networking.x-k8s.io, and their /status | cluster | list; patch | the features of the mesh |
//! | tokenreviews.authentication.k8s.io | cluster | create | who a proxy is |
//! | configmaps `weft-trust-roots` | cluster | create, patch | the roots, where proxies are |
//! | events.events.k8s.io | cluster | create | Pods without a proxy |
//! | secrets `weft-identity-issuer` | own namespace | create, get, watch | the issuer |
//! | leases.coordination.k8s.io `weft-control` | own namespace | create, get, patch | who writes |
//!
//! Objects go into the index in trimmed forms as they are read: no page, and no object of Kubernetes, is kept. Here are
//! only their keys, so that what was deleted while nobody watched is found by the next list. Of namespaces, nodes and
//! service accounts the server is asked for the metadata alone; Pods that have ended are not asked for, and ConfigMaps without
//! certificates of authorities are dropped as they are read. Routes and policies
//! come with CustomResourceDefinitions, which need not be there, and may come and go: where they are not, nothing is wrong,
//! and they are looked for every few seconds.

mod feed;

use super::{Batch, Change};
use crate::{
    cluster::Backoff,
    problems::{Problem, Source},
    readiness::Readiness,
};
use control_index::{Key, Kind};
use feed::{Event, Fault, Item};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// A watch that lived this long was well: the next one follows it at once.
const WELL: Duration = Duration::from_secs(5);
/// Between two looks for a kind that the cluster does not know, as its CustomResourceDefinition may come at any time.
const LOOK_AGAIN: Duration = Duration::from_secs(4);

/// The watches of all kinds; dropping it ends them.
pub struct Cluster {
    _watches: JoinSet<()>,
}

/// One kind of objects, as far as it was read.
struct Watched {
    kind: Kind,
    /// The version of its group in which it is served.
    api_version: &'static str,
    /// Where the list, or the last event, stood; `None`: list anew.
    version: Option<String>,
    held: BTreeSet<Key>,
    /// Objects that could not be read; what they said before stays.
    unread: BTreeMap<Key, Problem>,
}

impl Cluster {
    /// Lists and watches every kind, and says so to `readiness` after the first list of each.
    pub fn watch(
        client: &kube::Client,
        readiness: &Arc<Readiness>,
        take: impl Fn(Batch) + Clone + Send + Sync + 'static,
    ) -> Self {
        let mut watches = JoinSet::new();
        for kind in Kind::ALL {
            readiness.wait_for(kind.plural());
            watches.spawn(follow(kind, client.clone(), Arc::clone(readiness), take.clone()));
        }
        Self { _watches: watches }
    }
}

async fn follow(kind: Kind, client: kube::Client, readiness: Arc<Readiness>, take: impl Fn(Batch)) {
    let mut watched = Watched::new(kind);
    let mut backoff = Backoff::default();
    let mut missed = false;
    let resource = kind.plural();
    loop {
        let begun = Instant::now();
        let fault = watched.turn(&client, &take, || readiness.done(resource)).await.err();
        let well = begun.elapsed() >= WELL;
        if well || fault.is_none() {
            backoff = Backoff::default();
        }
        let unknown = matches!(fault, Some(Fault::Unknown));
        match fault {
            // The first list starts the next one at once; later ones wait, as many may be at it.
            Some(Fault::Gone) => {
                watched.version = None;
                tracing::info!("the watch of {resource} fell behind; they are listed again");
            }
            Some(Fault::Unknown) => {
                watched.version = None;
                // An API server that has just started may not know it yet: what was read goes when it is missed twice.
                if missed || watched.is_empty() {
                    watched.forget(&take);
                    readiness.done(resource);
                }
            }
            Some(fault) => {
                readiness.hindered(resource, fault.to_string());
                tracing::debug!("{resource}: {fault}");
                take(watched.batch(Vec::new(), Some(&fault)));
            }
            None if well => {
                missed = false;
                continue;
            }
            None => {}
        }
        missed = unknown;
        sleep(if unknown { LOOK_AGAIN } else { backoff.next() }).await;
    }
}

impl Watched {
    fn new(kind: Kind) -> Self {
        let api_version = kind.versions().first().expect("a kind has a version");
        Self { kind, api_version, version: None, held: BTreeSet::new(), unread: BTreeMap::new() }
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.unread.is_empty()
    }

    /// Lists if need be, and watches until the server ends it.
    async fn turn(
        &mut self,
        client: &kube::Client,
        take: &impl Fn(Batch),
        listed: impl FnOnce(),
    ) -> Result<(), Fault> {
        if self.version.is_none() {
            self.list(client, take).await?;
        }
        let version = self.version.clone().unwrap_or_default();
        let mut events = std::pin::pin!(feed::watch(client, self.kind, self.api_version, &version).await?);
        take(self.batch(Vec::new(), None));
        listed();
        while let Some(events) = feed::next(&mut events).await? {
            let mut changes = Vec::new();
            let mut ended = None;
            for event in events {
                match event.and_then(|line| Event::read(self.kind, &line)) {
                    Ok(event) => changes.extend(self.change(event)),
                    Err(fault) => {
                        ended = Some(fault);
                        break;
                    }
                }
            }
            take(self.batch(changes, None));
            if let Some(fault) = ended {
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Hands over all there is, page by page, and at the end the deletion of what is not there any more.
    async fn list(&mut self, client: &kube::Client, take: &impl Fn(Batch)) -> Result<(), Fault> {
        let mut found = BTreeSet::new();
        let mut page = self.first_page(client).await?;
        loop {
            let mut changes = Vec::with_capacity(page.items.len());
            for item in page.items {
                found.insert(item.key.clone());
                changes.extend(self.apply(item));
            }
            take(self.batch(changes, None));
            let Some(after) = page.after else {
                self.version = Some(page.version);
                break;
            };
            page = feed::page(client, self.kind, self.api_version, Some(&after)).await?;
        }
        let gone: Vec<Key> = self.held.union(&self.unread.keys().cloned().collect()).cloned().collect();
        let gone = gone.into_iter().filter(|key| !found.contains(key));
        let changes = gone.map(|key| self.delete(key)).collect();
        take(self.batch(changes, None));
        Ok(())
    }

    /// In the best version that the server knows.
    async fn first_page(&mut self, client: &kube::Client) -> Result<feed::Page, Fault> {
        for version in self.kind.versions() {
            match feed::page(client, self.kind, version, None).await {
                Err(Fault::Unknown) => {}
                page => {
                    self.api_version = version;
                    return page;
                }
            }
        }
        Err(Fault::Unknown)
    }

    /// There are none any more, and nothing is wrong.
    fn forget(&mut self, take: &impl Fn(Batch)) {
        let gone: Vec<Key> = self.held.iter().chain(self.unread.keys()).cloned().collect();
        if !gone.is_empty() {
            tracing::info!("{} are gone, with their CustomResourceDefinition", self.kind.plural());
        }
        let changes = gone.into_iter().map(|key| self.delete(key)).collect();
        take(self.batch(changes, None));
    }

    fn change(&mut self, event: Event) -> Option<Change> {
        match event {
            Event::Applied(version, item) => {
                self.version = Some(version);
                self.apply(item)
            }
            Event::Deleted(version, key) => {
                self.version = Some(version);
                Some(self.delete(key))
            }
            Event::Bookmark(version) => {
                self.version = Some(version);
                None
            }
        }
    }

    fn apply(&mut self, item: Item) -> Option<Change> {
        match item.object {
            // Nothing is held of it, not even its name; it may have been of use before.
            Ok(object) if !object.is_of_use() => {
                let known = self.held.contains(&item.key) || self.unread.contains_key(&item.key);
                known.then(|| self.delete(item.key))
            }
            Ok(object) => {
                self.unread.remove(&item.key);
                self.held.insert(item.key);
                Some(Change::Apply { object: Arc::new(object), origin: String::new() })
            }
            Err(why) => {
                let what = format!("it cannot be read: {why}; what it said before stays");
                let problem = Problem { object: item.key.to_string(), what, ..Problem::default() };
                self.unread.insert(item.key, problem);
                None
            }
        }
    }

    fn delete(&mut self, key: Key) -> Change {
        self.held.remove(&key);
        self.unread.remove(&key);
        Change::Delete(key)
    }

    fn batch(&self, changes: Vec<Change>, fault: Option<&Fault>) -> Batch {
        let fault = fault.map(|fault| Problem { what: fault.to_string(), ..Problem::default() });
        Batch {
            changes,
            source: Source::Cluster(self.kind),
            problems: self.unread.values().cloned().chain(fault).collect(),
            skipped: 0,
        }
    }
}

#[cfg(test)]
mod tests;
