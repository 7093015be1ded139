//! As much of an API server as control asks: lists in pages, watches from a version on, one Secret, one Lease, and writes
//! that are taken and forgotten.

use crate::mesh::Event;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{net::TcpListener, sync::watch};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The server's objects and their history.
pub struct Api {
    held: Mutex<Held>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Held {
    objects: BTreeMap<(&'static str, String), Value>,
    /// The events of each resource, with the version after each.
    log: HashMap<&'static str, Vec<(u64, Bytes)>>,
    /// What was created by its path: the Secret and the Lease.
    single: HashMap<String, Value>,
    version: u64,
}

/// The resources that are listed.
const RESOURCES: [&str; 6] = ["namespaces", "nodes", "serviceaccounts", "services", "endpointslices", "pods"];

impl Api {
    pub fn new(objects: Vec<(&'static str, Value)>) -> Self {
        let mut held = Held { version: 1, ..Held::default() };
        for (resource, object) in objects {
            held.objects.insert((resource, key(&object)), object);
        }
        Self { version: watch::Sender::new(held.version), held: Mutex::new(held) }
    }

    /// Serves on loopback until the process ends.
    pub async fn serve(self: &Arc<Self>) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let api = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let api = Arc::clone(&api);
                let service = service_fn(move |request| {
                    let api = Arc::clone(&api);
                    async move { api.respond(request).await }
                });
                // Control may close a connection whenever it likes.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(address)
    }

    /// Tells an event to who watches its resource.
    pub fn say(&self, event: Event) {
        let mut held = self.held();
        held.version += 1;
        let (version, name) = (held.version, key(&event.object));
        let mut object = event.object;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let line = format!("{}\n", json!({"type": event.kind, "object": object}));
        held.log.entry(event.resource).or_default().push((version, line.into()));
        match event.kind {
            "DELETED" => drop(held.objects.remove(&(event.resource, name))),
            _ => drop(held.objects.insert((event.resource, name), object)),
        }
        drop(held);
        self.version.send_replace(version);
    }

    async fn respond(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        let parameter = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
                .map(|(_, value)| value)
        };
        let last = path.rsplit('/').next().unwrap_or_default();
        let listed = RESOURCES.into_iter().find(|resource| *resource == last && head.method == Method::GET);
        Ok(match listed {
            Some(resource) if parameter("watch").is_some() => {
                let from = parameter("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
                self.watch(resource, from)
            }
            Some(resource) => {
                let number = |name| parameter(name).and_then(|text| text.parse().ok());
                self.list(resource, number("limit").unwrap_or(usize::MAX), number("continue").unwrap_or(0))
            }
            None if parameter("watch").is_some() => self.watch("nothing", 0),
            None => self.single(&head.method, path, &body),
        })
    }

    fn list(&self, resource: &'static str, limit: usize, from: usize) -> Response<Body> {
        let held = self.held();
        let range =
            held.objects.range((resource, String::new())..).take_while(|((one, _), _)| *one == resource);
        let mut items: Vec<&Value> =
            range.map(|(_, object)| object).skip(from).take(limit.saturating_add(1)).collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let after = if more { (from + limit).to_string() } else { String::new() };
        let metadata = json!({"resourceVersion": held.version.to_string(), "continue": after});
        answer(StatusCode::OK, &json!({"kind": "List", "metadata": metadata, "items": items}))
    }

    fn watch(self: &Arc<Self>, resource: &'static str, from: u64) -> Response<Body> {
        let versions = self.version.subscribe();
        let lines = stream::unfold(
            (Arc::clone(self), versions, from),
            move |(api, mut versions, mut from)| async move {
                loop {
                    versions.mark_unchanged();
                    let lines: Vec<Bytes> = {
                        let held = api.held();
                        let log = held.log.get(resource).map(Vec::as_slice).unwrap_or_default();
                        let new = log.partition_point(|(version, _)| *version <= from);
                        from = held.version;
                        log[new..].iter().map(|(_, line)| line.clone()).collect()
                    };
                    if !lines.is_empty() {
                        return Some((Ok(Frame::data(Bytes::from(lines.concat()))), (api, versions, from)));
                    }
                    versions.changed().await.ok()?;
                }
            },
        );
        Response::new(StreamBody::new(Box::pin(lines)).boxed_unsync())
    }

    /// Objects that are asked for by name. What is created in a cluster at large is taken and forgotten.
    fn single(&self, method: &Method, path: &str, body: &[u8]) -> Response<Body> {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut held = self.held();
        match *method {
            Method::GET => match held.single.get(path) {
                Some(object) => answer(StatusCode::OK, object),
                None => answer(
                    StatusCode::NOT_FOUND,
                    &json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "not found", "code": 404}),
                ),
            },
            Method::POST => {
                let object = stamped(sent);
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                held.single.insert(format!("{path}/{name}"), object.clone());
                answer(StatusCode::CREATED, &object)
            }
            _ => {
                let mut object = held.single.get(path).cloned().unwrap_or_else(|| json!({"metadata": {}}));
                merge(&mut object, sent);
                let object = stamped(object);
                held.single.insert(path.into(), object.clone());
                answer(StatusCode::OK, &object)
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamped(mut object: Value) -> Value {
    object["metadata"]["resourceVersion"] = json!("1");
    object
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn key(object: &Value) -> String {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    format!("{}/{}", part("namespace"), part("name"))
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response
}
