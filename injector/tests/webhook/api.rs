//! As much of an API server as the injector asks for: two objects with versions, namespaces, and watches of them all.

use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame},
};
use kube::{Client, client::Body};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};
use tokio::sync::broadcast;

const SECRETS: &str = "/api/v1/namespaces/weft-system/secrets";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const NAMESPACES: &str = "/api/v1/namespaces";

/// The objects, by path.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    changed: broadcast::Sender<(String, &'static str, Value)>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    /// Method and path of each question.
    asked: Vec<String>,
    /// Answered to all questions instead.
    refusing: Option<StatusCode>,
    /// Watches say nothing any more.
    is_silent: bool,
}

impl Api {
    /// With the webhook's configuration, as the chart leaves it.
    pub fn new() -> Self {
        let api = Api { state: Arc::default(), changed: broadcast::channel(100).0 };
        let webhook = |name| json!({"name": name, "clientConfig": {"service": {"name": "weft-injector", "namespace": "weft-system"}}, "admissionReviewVersions": ["v1"], "sideEffects": "None"});
        let webhooks = [webhook("namespace.inject.weft.mesh"), webhook("pod.inject.weft.mesh")];
        api.put(CONFIGURATIONS, "weft-injector", json!({"webhooks": webhooks}));
        api
    }

    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                // Others have their turn between any two questions.
                tokio::task::yield_now().await;
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                let path = head.uri.path().to_owned();
                let query = head.uri.query().unwrap_or_default();
                Ok::<_, Infallible>(api.answer(&head.method, &path, query, &body))
            }
        });
        Client::new(service, "weft-system")
    }

    pub fn namespace(&self, name: &str, labels: Value, annotations: Value) {
        self.put(NAMESPACES, name, json!({"metadata": {"labels": labels, "annotations": annotations}}));
    }

    pub fn secret(&self) -> Option<Value> {
        self.state.lock().unwrap().objects.get(&format!("{SECRETS}/weft-injector-tls")).cloned()
    }

    pub fn change_secret(&self, change: impl FnOnce(&mut Value)) {
        let mut secret = self.secret().unwrap();
        change(&mut secret);
        self.put(SECRETS, "weft-injector-tls", secret);
    }

    pub fn delete_secret(&self) {
        let path = format!("{SECRETS}/weft-injector-tls");
        let gone = self.state.lock().unwrap().objects.remove(&path).unwrap();
        let _ = self.changed.send((path, "DELETED", gone));
    }

    pub fn webhooks(&self) -> Value {
        self.state.lock().unwrap().objects[&format!("{CONFIGURATIONS}/weft-injector")]["webhooks"].clone()
    }

    /// As `helm upgrade` may do.
    pub fn overwrite_bundles(&self, text: Option<&str>) {
        let mut webhooks = self.webhooks();
        for webhook in webhooks.as_array_mut().unwrap() {
            match text {
                Some(text) => webhook["clientConfig"]["caBundle"] = text.into(),
                None => drop(webhook["clientConfig"].as_object_mut().unwrap().remove("caBundle")),
            }
        }
        self.put(CONFIGURATIONS, "weft-injector", json!({"webhooks": webhooks}));
    }

    pub fn delete_configuration(&self) {
        self.state.lock().unwrap().objects.remove(&format!("{CONFIGURATIONS}/weft-injector"));
    }

    pub fn refuse(&self, status: Option<StatusCode>) {
        self.state.lock().unwrap().refusing = status;
    }

    pub fn silence_watches(&self) {
        self.state.lock().unwrap().is_silent = true;
    }

    /// How many questions there were that change something.
    pub fn writes(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|asked| !asked.starts_with("GET")).count()
    }

    fn put(&self, collection: &str, name: &str, mut object: Value) {
        let path = format!("{collection}/{name}");
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        object["metadata"]["name"] = name.into();
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let kind = if state.objects.contains_key(&path) { "MODIFIED" } else { "ADDED" };
        state.objects.insert(path.clone(), object.clone());
        let is_silent = state.is_silent;
        drop(state);
        if !is_silent {
            let _ = self.changed.send((path, kind, object));
        }
    }

    fn answer(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        body: &[u8],
    ) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let refusing = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(format!("{method} {path}"));
            state.refusing
        };
        if let Some(status) = refusing {
            return failure(status);
        }
        let sent = || serde_json::from_slice::<Value>(body).unwrap();
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_collection = [SECRETS, CONFIGURATIONS, NAMESPACES].contains(&path);
        let found = self.state.lock().unwrap().objects.get(path).cloned();
        match (method, found) {
            (&Method::GET, _) if is_collection && query.contains("watch=true") => self.watch(path),
            (&Method::GET, _) if is_collection => self.list(path),
            (&Method::POST, _) if self.secret().is_some() => failure(StatusCode::CONFLICT),
            (&Method::POST, _) => {
                let mut object = sent();
                object["metadata"]["name"] = "weft-injector-tls".into();
                self.put(path, "weft-injector-tls", object.clone());
                success(&object)
            }
            (_, None) => failure(StatusCode::NOT_FOUND),
            (&Method::GET, Some(found)) => success(&found),
            (_, Some(found)) => {
                let sent = sent();
                let version = &sent["metadata"]["resourceVersion"];
                if *version != found["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT);
                }
                let object = if *method == Method::PUT { sent } else { patched(found, &sent) };
                self.put(path.rsplit_once('/').unwrap().0, name, object.clone());
                success(&object)
            }
        }
    }

    fn list(&self, collection: &str) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let state = self.state.lock().unwrap();
        let inside = |path: &String| path.rsplit_once('/').is_some_and(|(parent, _)| parent == collection);
        let items: Vec<_> =
            state.objects.iter().filter(|(path, _)| inside(path)).map(|(_, o)| metadata(o)).collect();
        let version = state.version.to_string();
        success(
            &json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version}, "items": items}),
        )
    }

    fn watch(&self, collection: &str) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let collection = collection.to_owned();
        let lines = futures_util::stream::unfold(self.changed.subscribe(), move |mut changed| {
            let collection = collection.clone();
            async move {
                loop {
                    let (path, kind, object) = changed.recv().await.ok()?;
                    if path.rsplit_once('/').is_some_and(|(parent, _)| parent == collection) {
                        let line = format!("{}\n", json!({"type": kind, "object": metadata(&object)}));
                        return Some((Ok(Frame::data(Bytes::from(line))), changed));
                    }
                }
            }
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

fn metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A strategic merge: webhooks are known by their names.
fn patched(mut object: Value, patch: &Value) -> Value {
    for wanted in patch["webhooks"].as_array().unwrap() {
        let webhooks = object["webhooks"].as_array_mut().unwrap();
        let webhook = webhooks.iter_mut().find(|webhook| webhook["name"] == wanted["name"]).unwrap();
        webhook["clientConfig"]["caBundle"] = wanted["clientConfig"]["caBundle"].clone();
    }
    object
}

fn success(object: &Value) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    Response::new(http_body_util::Full::new(Bytes::from(object.to_string())).boxed_unsync())
}

fn failure(status: StatusCode) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let mut body = Map::new();
    body.insert("kind".into(), "Status".into());
    body.insert("apiVersion".into(), "v1".into());
    body.insert("metadata".into(), json!({}));
    body.insert("status".into(), "Failure".into());
    body.insert("message".into(), format!("refused: {status}").into());
    body.insert("reason".into(), status.canonical_reason().unwrap_or_default().replace(" ", "").into());
    body.insert("code".into(), status.as_u16().into());
    let mut response = success(&body.into());
    *response.status_mut() = status;
    response
}
