//! What the API server holds: the mesh, its events for watches to repeat, and the few objects that control writes itself.

use crate::{
    mesh::{Change, Mesh, Object, Verb, Write},
    objects,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Events that are kept; a watch that asks for older ones is told to list again.
const EVENTS: usize = 4_000;

/// The kinds of objects of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Namespaces,
    Nodes,
    ServiceAccounts,
    Services,
    EndpointSlices,
    Pods,
    ConfigMaps,
}

/// All that is held, for whoever serves it and whoever changes it.
pub struct Store {
    inner: Mutex<Inner>,
    latest: watch::Sender<u64>,
}

struct Inner {
    mesh: Mesh,
    events: VecDeque<Event>,
    /// The last event that is not kept any more.
    forgotten: u64,
    /// What control wrote, by path.
    written: BTreeMap<String, Value>,
}

struct Event {
    version: u64,
    resource: Resource,
    line: Bytes,
}

/// Some objects of a list.
pub struct Page {
    pub items: Vec<String>,
    pub version: u64,
    /// How many objects stand before the next page; `None`: this is the last one.
    pub next: Option<usize>,
}

/// The version asked for is too old.
#[derive(Debug)]
pub struct Gone;

/// The object is there already.
#[derive(Debug)]
pub struct Exists;

impl Store {
    pub fn new(mesh: Mesh) -> Self {
        let (latest, _) = watch::channel(mesh.version);
        let inner = Inner { mesh, events: VecDeque::new(), forgotten: 0, written: BTreeMap::new() };
        Self { inner: Mutex::new(inner), latest }
    }

    /// Makes a change, and tells it to the watches. `first` is called between the two.
    pub fn change(&self, change: Change, first: impl FnOnce(&Mesh)) {
        let mut inner = self.lock();
        let writes = inner.mesh.change(change);
        first(&inner.mesh);
        for write in writes {
            let event = inner.event(&write);
            inner.events.push_back(event);
            if inner.events.len() > EVENTS {
                inner.forgotten = inner.events.pop_front().map_or(0, |event| event.version);
            }
        }
        self.latest.send_replace(inner.mesh.version);
    }

    pub fn with_mesh<T>(&self, look: impl FnOnce(&Mesh) -> T) -> T {
        look(&self.lock().mesh)
    }

    /// At most `limit` objects after the first `skip`. Objects that come and go between two pages are told by the watch that
    /// follows the list.
    pub fn page(&self, resource: Resource, skip: usize, limit: usize) -> Page {
        let inner = self.lock();
        let mut items = inner.mesh.objects(resource, skip, limit + 1);
        let more = items.len() > limit;
        items.truncate(limit);
        Page { items, version: inner.mesh.version, next: more.then_some(skip + limit) }
    }

    /// Hears of each version.
    pub fn latest(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// The events of a kind after a version, as lines, and the version that they lead to.
    pub fn events(&self, resource: Resource, after: u64) -> Result<(Vec<Bytes>, u64), Gone> {
        let inner = self.lock();
        if after < inner.forgotten {
            return Err(Gone);
        }
        let events = inner.events.iter().rev().take_while(|event| event.version > after);
        let mut lines: Vec<Bytes> =
            events.filter(|event| event.resource == resource).map(|event| event.line.clone()).collect();
        lines.reverse();
        Ok((lines, inner.mesh.version))
    }

    /// What control wrote at a path.
    pub fn read(&self, path: &str) -> Option<Value> {
        self.lock().written.get(path).cloned()
    }

    /// What control wrote below a path.
    pub fn list(&self, path: &str) -> Vec<Value> {
        let below = |one: &str| one.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        self.lock().written.iter().filter(|(one, _)| below(one)).map(|(_, value)| value.clone()).collect()
    }

    pub fn create(&self, path: &str, object: Value) -> Result<Value, Exists> {
        let mut inner = self.lock();
        if inner.written.contains_key(path) {
            return Err(Exists);
        }
        Ok(inner.write(path, object))
    }

    /// Merges into the object, which need not be there (RFC 7386, as server-side apply does for one writer).
    pub fn merge(&self, path: &str, patch: Value) -> Value {
        let mut inner = self.lock();
        let mut object = inner.written.get(path).cloned().unwrap_or_else(|| json!({}));
        merge(&mut object, patch);
        inner.write(path, object)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn event(&self, write: &Write) -> Event {
        let services = &self.mesh.services;
        let (resource, object) = match &write.object {
            Object::Pod(service, pod) => (Resource::Pods, objects::pod(&services[*service], pod)),
            Object::EndpointSlice(service) => {
                (Resource::EndpointSlices, objects::endpoint_slice(&services[*service]))
            }
            Object::Service(service) => (Resource::Services, objects::service(&services[*service])),
        };
        let verb = match write.verb {
            Verb::Added => "ADDED",
            Verb::Modified => "MODIFIED",
            Verb::Deleted => "DELETED",
        };
        let line = format!("{{\"type\":\"{verb}\",\"object\":{object}}}\n").into();
        Event { version: write.version, resource, line }
    }

    fn write(&mut self, path: &str, mut object: Value) -> Value {
        self.mesh.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.mesh.version.to_string());
        self.written.insert(path.to_owned(), object.clone());
        object
    }
}

impl Mesh {
    /// Some objects of a kind, in JSON.
    fn objects(&self, resource: Resource, skip: usize, limit: usize) -> Vec<String> {
        fn some<T>(
            all: impl Iterator<Item = T>,
            skip: usize,
            limit: usize,
            make: impl FnMut(T) -> String,
        ) -> Vec<String> {
            all.skip(skip).take(limit).map(make).collect()
        }
        match resource {
            Resource::Namespaces => some(self.namespaces(), skip, limit, |name| objects::namespace(name)),
            Resource::Nodes => some(0..self.nodes, skip, limit, objects::node),
            Resource::ServiceAccounts => some(self.services.iter(), skip, limit, objects::service_account),
            Resource::Services => some(self.services.iter(), skip, limit, objects::service),
            Resource::EndpointSlices => some(self.services.iter(), skip, limit, objects::endpoint_slice),
            Resource::Pods => some(self.pods(), skip, limit, |(service, pod)| objects::pod(service, pod)),
            Resource::ConfigMaps => some(self.namespaces(), skip, limit, |name| objects::config_map(name)),
        }
    }
}

fn merge(into: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(into.as_object_mut().map(|object| object.remove(&name))),
            value => merge(&mut into[name.as_str()], value),
        }
    }
}
