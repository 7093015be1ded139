//! Watches a cluster: each kind of object is listed in pages and then watched from where the list stood, over and over.
//!
//! What control may do in the cluster, all of it (the charts grant exactly this):
//!
//! | resource | where | verbs | for |
//! |---|---|---|---|
//! | namespaces, nodes, pods, services, serviceaccounts; endpointslices.discovery.k8s.io | cluster | list, watch | this source |
//! | tokenreviews.authentication.k8s.io | cluster | create | who a proxy is |
//! | configmaps `weft-trust-roots` | cluster | create, patch | the roots, where proxies are |
//! | events.events.k8s.io | cluster | create | Pods without a proxy |
//! | secrets `weft-identity-issuer` | own namespace | create, get, watch | the issuer |
//! | leases.coordination.k8s.io `weft-control` | own namespace | create, get, patch | who writes |
//!
//! Objects go into the index in trimmed forms as they are read: no page, and no object of Kubernetes, is kept. Here are
//! only their keys, so that what was deleted while nobody watched is found by the next list. Of namespaces, nodes and
//! service accounts the server is asked for the metadata alone; Pods that have ended are not asked for.

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

/// The watches of all kinds; dropping it ends them.
pub struct Cluster {
    _watches: JoinSet<()>,
}

/// One kind of objects, as far as it was read.
struct Watched {
    kind: Kind,
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
            readiness.wait_for(feed::resource(kind));
            watches.spawn(follow(kind, client.clone(), Arc::clone(readiness), take.clone()));
        }
        Self { _watches: watches }
    }
}

async fn follow(kind: Kind, client: kube::Client, readiness: Arc<Readiness>, take: impl Fn(Batch)) {
    let mut watched = Watched { kind, version: None, held: BTreeSet::new(), unread: BTreeMap::new() };
    let mut backoff = Backoff::default();
    let resource = feed::resource(kind);
    loop {
        let begun = Instant::now();
        let fault = watched.turn(&client, &take, || readiness.done(resource)).await.err();
        let well = begun.elapsed() >= WELL;
        if well || fault.is_none() {
            backoff = Backoff::default();
        }
        match fault {
            // The first list starts the next one at once; later ones wait, as many may be at it.
            Some(Fault::Gone) => {
                watched.version = None;
                tracing::info!("the watch of {resource} fell behind; they are listed again");
            }
            Some(fault) => {
                readiness.hindered(resource, fault.to_string());
                tracing::debug!("{resource}: {fault}");
                take(watched.batch(Vec::new(), Some(&fault)));
            }
            None if well => continue,
            None => {}
        }
        sleep(backoff.next()).await;
    }
}

impl Watched {
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
        let mut events = std::pin::pin!(feed::watch(client, self.kind, &version).await?);
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
        let mut after = None;
        loop {
            let page = feed::page(client, self.kind, after.as_deref()).await?;
            let mut changes = Vec::with_capacity(page.items.len());
            for item in page.items {
                found.insert(item.key.clone());
                changes.extend(self.apply(item));
            }
            take(self.batch(changes, None));
            after = page.after;
            if after.is_none() {
                self.version = Some(page.version);
                break;
            }
        }
        let gone: Vec<Key> = self.held.union(&self.unread.keys().cloned().collect()).cloned().collect();
        let gone = gone.into_iter().filter(|key| !found.contains(key));
        let changes = gone.map(|key| self.delete(key)).collect();
        take(self.batch(changes, None));
        Ok(())
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
