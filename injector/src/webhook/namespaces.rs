//! The labels and annotations of all namespaces, kept by a watch; one that is not there yet is asked for.

use crate::Namespace;
use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1 as core;
use kube::{
    Api, Client,
    api::{ObjectMeta, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

/// The API server gives the webhook five seconds in all.
const ASK: Duration = Duration::from_secs(3);

/// What is known of namespaces.
pub struct Namespaces {
    /// Metadata alone: nothing else of a namespace is read.
    api: Api<PartialObjectMeta<core::Namespace>>,
    known: RwLock<HashMap<String, Arc<Namespace>>>,
    is_synced: AtomicBool,
}

/// A namespace cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    #[error("namespace {name} cannot be read")]
    Api { name: String, source: kube::Error },
    #[error("namespace {0} does not exist")]
    Missing(String),
    #[error("namespace {0} was not answered within {seconds} s", seconds = ASK.as_secs())]
    Slow(String),
}

impl Namespaces {
    pub fn new(client: &Client) -> Self {
        Namespaces {
            api: Api::all(client.clone()),
            known: RwLock::default(),
            is_synced: AtomicBool::new(false),
        }
    }

    /// Whether all of them have been listed once.
    pub fn is_synced(&self) -> bool {
        self.is_synced.load(Ordering::Acquire)
    }

    /// Follows the watch until it is dropped.
    pub async fn watch(&self) {
        let events = watcher(self.api.clone(), watcher::Config::default()).default_backoff();
        pin_mut!(events);
        let mut listed = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    drop(listed.insert(name(&object.metadata), of(object.metadata)))
                }
                Ok(Event::InitDone) => {
                    *self.known.write().unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut listed);
                    self.is_synced.store(true, Ordering::Release);
                }
                Ok(Event::Apply(object)) => self.keep(object.metadata),
                Ok(Event::Delete(object)) => {
                    let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                    known.remove(&name(&object.metadata));
                }
                Err(error) => {
                    tracing::warn!("the watch on namespaces begins again: {}", crate::chain(&error))
                }
            }
        }
    }

    /// What is known, or else what the API server says.
    pub async fn find(&self, name: &str) -> Result<Arc<Namespace>, NamespaceError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        match known {
            Some(known) => Ok(known),
            None => self.ask(name).await,
        }
    }

    /// What the API server says now. The watch may be late by a moment.
    pub async fn ask(&self, name: &str) -> Result<Arc<Namespace>, NamespaceError> {
        let asked = timeout(ASK, self.api.get_opt(name)).await;
        let object = asked
            .map_err(|_| NamespaceError::Slow(name.to_owned()))?
            .map_err(|source| NamespaceError::Api { name: name.to_owned(), source })?
            .ok_or_else(|| NamespaceError::Missing(name.to_owned()))?;
        Ok(of(object.metadata))
    }

    fn keep(&self, metadata: ObjectMeta) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(name(&metadata), of(metadata));
    }
}

fn name(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

fn of(metadata: ObjectMeta) -> Arc<Namespace> {
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.retain(|name, _| name.starts_with("weft.mesh/"));
    Arc::new(Namespace { labels: metadata.labels.unwrap_or_default(), annotations })
}
