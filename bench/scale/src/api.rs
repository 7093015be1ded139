//! The API server: lists in pages, watches with bookmarks, token reviews, and the objects that control writes. Plain HTTP/1.1
//! on loopback; whoever asks may do everything. What it does not hold is empty.

use crate::{
    objects,
    store::{Exists, Gone, Resource, Store},
};
use bytes::Bytes;
use futures_util::stream;
use http::{
    Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep_until},
};

/// Objects of a page, if the client does not say.
const PAGE: usize = 500;
/// A watch lives as long, if the client does not say.
const WATCH: Duration = Duration::from_secs(300);
const BOOKMARKS: Duration = Duration::from_secs(60);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A place to listen, and what is served there once `serve` is called.
pub struct Api {
    listener: TcpListener,
    store: Arc<Store>,
}

/// The parameters of a query that count.
#[derive(Default)]
struct Query {
    watch: bool,
    bookmarks: bool,
    version: Option<u64>,
    limit: Option<usize>,
    /// The version of the first page, and how many objects were on those before.
    after: Option<(u64, usize)>,
    timeout: Option<Duration>,
}

/// One watch, as far as it has come.
struct Watch {
    store: Arc<Store>,
    latest: watch::Receiver<u64>,
    /// `None`: of objects that do not change here.
    resource: Option<Resource>,
    api_version: &'static str,
    kind: &'static str,
    version: u64,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    gone: bool,
}

impl Api {
    pub async fn listen(address: SocketAddr, store: Arc<Store>) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, store })
    }

    /// What a client needs to find it.
    pub fn kubeconfig(&self) -> std::io::Result<String> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "scale", "cluster": {"server": format!("http://{}", self.listener.local_addr()?)}}],
            "users": [{"name": "scale", "user": {}}],
            "contexts": [{"name": "scale", "context": {"cluster": "scale", "user": "scale"}}],
            "current-context": "scale",
        });
        Ok(config.to_string())
    }

    /// Serves until it is dropped.
    pub async fn serve(self) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let store = Arc::clone(&self.store);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&store), request));
                // A client that goes is no fault.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }
}

async fn answer(store: Arc<Store>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let query = Query::read(request.uri().query().unwrap_or_default());
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let trimmed = accept.contains("as=PartialObjectMetadata");
    let method = request.method().clone();
    if method == Method::GET {
        return Ok(match (resource(&path), query.watch) {
            (Some(resource), false) => list(&store, resource, &query, trimmed),
            (resource, true) => watch(store, resource, &query),
            (None, false) => read(&store, &path),
        });
    }
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(status(StatusCode::BAD_REQUEST, "BadRequest", "the body was cut")),
    };
    let Ok(object) = serde_json::from_slice::<Value>(&body) else {
        return Ok(status(StatusCode::BAD_REQUEST, "BadRequest", "the body is no JSON"));
    };
    Ok(match method {
        Method::POST if path.ends_with("/tokenreviews") => review(&store, object),
        Method::POST => create(&store, &path, object),
        Method::PATCH | Method::PUT => json_body(StatusCode::OK, &merge(&store, &path, object)),
        _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "it is not known here"),
    })
}

impl Query {
    fn read(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in text.split('&').filter_map(|one| one.split_once('=')) {
            let is_true = matches!(value, "1" | "true");
            match name {
                "watch" => query.watch = is_true,
                "allowWatchBookmarks" => query.bookmarks = is_true,
                "resourceVersion" => query.version = value.parse().ok(),
                "limit" => query.limit = value.parse().ok().filter(|limit| *limit > 0),
                "continue" => {
                    let parts = value.split_once('.');
                    query.after =
                        parts.and_then(|(version, skip)| Some((version.parse().ok()?, skip.parse().ok()?)));
                }
                "timeoutSeconds" => query.timeout = value.parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
        query
    }
}

fn resource(path: &str) -> Option<Resource> {
    Some(match path {
        "/api/v1/namespaces" => Resource::Namespaces,
        "/api/v1/nodes" => Resource::Nodes,
        "/api/v1/serviceaccounts" => Resource::ServiceAccounts,
        "/api/v1/services" => Resource::Services,
        "/api/v1/pods" => Resource::Pods,
        "/api/v1/configmaps" => Resource::ConfigMaps,
        "/apis/discovery.k8s.io/v1/endpointslices" => Resource::EndpointSlices,
        _ => return None,
    })
}

fn kind(resource: Option<Resource>) -> (&'static str, &'static str) {
    match resource {
        Some(Resource::Namespaces) => ("v1", "Namespace"),
        Some(Resource::Nodes) => ("v1", "Node"),
        Some(Resource::ServiceAccounts) => ("v1", "ServiceAccount"),
        Some(Resource::Services) => ("v1", "Service"),
        Some(Resource::Pods) => ("v1", "Pod"),
        Some(Resource::ConfigMaps) => ("v1", "ConfigMap"),
        Some(Resource::EndpointSlices) => ("discovery.k8s.io/v1", "EndpointSlice"),
        None => ("v1", "Object"),
    }
}

fn list(store: &Store, resource: Resource, query: &Query, trimmed: bool) -> Response<Body> {
    let page = store.page(resource, query.after.map_or(0, |(_, skip)| skip), query.limit.unwrap_or(PAGE));
    // All pages stand where the first one stood: the watch that follows tells what changed between them.
    let version = query.after.map_or(page.version, |(version, _)| version);
    let next = page.next.map(|next| format!(r#","continue":"{version}.{next}""#)).unwrap_or_default();
    let (api_version, kind) = match trimmed {
        true => ("meta.k8s.io/v1", "PartialObjectMetadata"),
        false => kind(Some(resource)),
    };
    let items: Vec<String> = match trimmed {
        true => page.items.iter().map(|item| metadata_of(item)).collect(),
        false => page.items,
    };
    let text = format!(
        r#"{{"apiVersion":"{api_version}","kind":"{kind}List","metadata":{{"resourceVersion":"{version}"{next}}},"items":[{}]}}"#,
        items.join(","),
    );
    respond(StatusCode::OK, Full::new(text.into()).boxed_unsync())
}

fn metadata_of(item: &str) -> String {
    let object: Value = serde_json::from_str(item).unwrap_or_default();
    json!({
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadata",
        "metadata": object["metadata"],
    })
    .to_string()
}

fn watch(store: Arc<Store>, resource: Option<Resource>, query: &Query) -> Response<Body> {
    let latest = store.latest();
    let version = query.version.filter(|version| *version > 0).unwrap_or(*latest.borrow());
    let (api_version, kind) = kind(resource);
    let now = Instant::now();
    let watch = Watch {
        store,
        latest,
        resource,
        api_version,
        kind,
        version,
        bookmarks: query.bookmarks,
        next_bookmark: now + BOOKMARKS,
        end: now + query.timeout.unwrap_or(WATCH),
        gone: false,
    };
    let lines = stream::unfold(watch, |mut watch| async {
        let lines = watch.next().await?;
        Some((Ok(Frame::data(lines)), watch))
    });
    respond(StatusCode::OK, BodyExt::boxed_unsync(StreamBody::new(lines)))
}

impl Watch {
    /// The next lines; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.gone {
            return None;
        }
        loop {
            self.latest.mark_unchanged();
            let events = match self.resource {
                Some(resource) => self.store.events(resource, self.version),
                None => Ok((Vec::new(), self.version)),
            };
            match events {
                Ok((lines, version)) => {
                    self.version = version;
                    if !lines.is_empty() {
                        return Some(lines.concat().into());
                    }
                }
                Err(Gone) => {
                    self.gone = true;
                    let status = status_of(StatusCode::GONE, "Expired", "too old resource version");
                    return Some(format!("{}\n", json!({"type": "ERROR", "object": status})).into());
                }
            }
            tokio::select! {
                changed = self.latest.changed() => changed.ok()?,
                () = sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark += BOOKMARKS;
                    let metadata = json!({"resourceVersion": self.version.to_string()});
                    let object = json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata});
                    return Some(format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into());
                }
                () = sleep_until(self.end) => return None,
            }
        }
    }
}

/// A token is `namespace/pod`, of the Pod that it is bound to. Any audience is its own.
fn review(store: &Store, mut review: Value) -> Response<Body> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let user = store.with_mesh(|mesh| {
        mesh.pod_named(token).map(|(service, pod)| {
            json!({
                "username": format!("system:serviceaccount:{}:{}", service.namespace, service.name),
                "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{}", service.namespace)],
                "extra": {
                    "authentication.kubernetes.io/pod-name": [*pod.name],
                    "authentication.kubernetes.io/pod-uid": [objects::pod_uid(pod)],
                },
            })
        })
    });
    review["status"] = match user {
        Some(user) => json!({"authenticated": true, "user": user, "audiences": review["spec"]["audiences"]}),
        None => json!({"authenticated": false, "error": "no Pod of the mesh has this token"}),
    };
    json_body(StatusCode::CREATED, &review)
}

fn read(store: &Store, path: &str) -> Response<Body> {
    // Objects have a name after their collection's: /api/v1/namespaces/NAMESPACE/COLLECTION/NAME.
    let named = path.split("/namespaces/").nth(1).is_some_and(|rest| rest.split('/').count() > 2);
    // No CustomResourceDefinition is here.
    let custom = path.starts_with("/apis/gateway.networking.") || path.starts_with("/apis/policy.weft.mesh/");
    match store.read(path) {
        Some(object) => json_body(StatusCode::OK, &object),
        None if named || custom => status(StatusCode::NOT_FOUND, "NotFound", &format!("{path} not found")),
        None => {
            let version = store.latest().borrow().to_string();
            let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": version}, "items": store.list(path)});
            json_body(StatusCode::OK, &list)
        }
    }
}

fn create(store: &Store, path: &str, mut object: Value) -> Response<Body> {
    let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else {
        return status(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", "metadata.name is missing");
    };
    place(&mut object, path);
    match store.create(&format!("{path}/{name}"), object) {
        Ok(object) => json_body(StatusCode::CREATED, &object),
        Err(Exists) => {
            status(StatusCode::CONFLICT, "AlreadyExists", &format!("{path}/{name} already exists"))
        }
    }
}

fn merge(store: &Store, path: &str, mut patch: Value) -> Value {
    place(&mut patch, path.rsplit_once('/').map_or("", |(collection, _)| collection));
    patch["metadata"]["name"] = json!(path.rsplit('/').next());
    store.merge(path, patch)
}

/// Objects are in the namespace of the path.
fn place(object: &mut Value, path: &str) {
    if let Some(namespace) = path.split("/namespaces/").nth(1).and_then(|rest| rest.split('/').next()) {
        object["metadata"]["namespace"] = json!(namespace);
    }
}

fn status_of(code: StatusCode, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": message,
    })
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    json_body(code, &status_of(code, reason, message))
}

fn json_body(code: StatusCode, value: &Value) -> Response<Body> {
    respond(code, Full::new(Bytes::from(value.to_string())).boxed_unsync())
}

fn respond(code: StatusCode, body: Body) -> Response<Body> {
    let response = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    response.body(body).expect("a code and one header")
}
