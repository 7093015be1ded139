//! Questions over TLS on loopback, in the bytes of an API server, to an injector that runs as in a cluster.

use crate::{api::Api, trust};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use injector::webhook::{Server, Settings};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration, time::SystemTime};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle, time::sleep};

/// The longest that anything here takes.
const WITHIN: Duration = Duration::from_secs(20);

struct Injector {
    api: Api,
    webhook: SocketAddr,
    admin: SocketAddr,
    end: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Injector {
    /// Runs until it is ready.
    async fn start(api: Api, config: Option<PathBuf>) -> Self {
        let mut settings = Settings::new("weft-system".into());
        settings.config = config;
        settings.webhook_listen = "127.0.0.1:0".parse().unwrap();
        settings.admin_listen = settings.webhook_listen;
        settings.linger = Duration::from_millis(300);
        let server = Server::start(settings, api.client(), Arc::new(SystemTime::now)).await.unwrap();
        let [webhook, admin] = server.addresses().unwrap();
        let (end, ended) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = ended.await;
        }));
        let injector = Injector { api, webhook, admin, end, running };
        injector.eventually(async || injector.get("/ready").await.0 == StatusCode::OK).await;
        injector
    }

    async fn eventually(&self, holds: impl AsyncFn() -> bool) {
        let waiting = async {
            while !holds().await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WITHIN, waiting).await.expect("in time");
    }

    /// A path of admin.
    async fn get(&self, path: &str) -> (StatusCode, String) {
        let stream = TcpStream::connect(self.admin).await.unwrap();
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "admin").body(Full::<Bytes>::default()).unwrap();
        let response = send.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.into()).unwrap())
    }

    /// A connection as the API server makes it; none where it does not believe who answers.
    async fn connect(&self) -> Option<http1::SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.webhook).await.ok()?;
        let connector = trust::client(&self.api, SystemTime::now())?;
        let stream = connector.connect(ServerName::try_from(trust::NAME).unwrap(), stream).await.ok()?;
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        Some(send)
    }

    async fn post(&self, path: &str, body: impl Into<Bytes>) -> (StatusCode, Bytes) {
        let mut send = self.connect().await.expect("believed");
        post(&mut send, path, body.into()).await
    }

    /// What the API server is answered about a pod.
    async fn ask(&self, namespace: &str, pod: &Value) -> Value {
        let (status, body) = self.post("/inject?timeout=5s", question(namespace, pod)).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&answer["kind"], &answer["apiVersion"]),
            (&json!("AdmissionReview"), &json!("admission.k8s.io/v1"))
        );
        assert_eq!(answer["response"]["uid"], "0c9a8d74");
        answer["response"].clone()
    }
}

async fn post(send: &mut http1::SendRequest<Full<Bytes>>, path: &str, body: Bytes) -> (StatusCode, Bytes) {
    let request = Request::post(path)
        .header("host", "weft-injector.weft-system.svc:443")
        .header("content-type", "application/json")
        .header("accept", "application/json, */*")
        .body(Full::new(body))
        .unwrap();
    let response = send.send_request(request).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

/// As kube-apiserver writes it.
fn question(namespace: &str, pod: &Value) -> String {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": "0c9a8d74", "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "namespace": namespace, "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["system:authenticated"]},
        "object": pod, "oldObject": null, "dryRun": false,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }})
    .to_string()
}

fn pod(spec: Value) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"generateName": "web-", "creationTimestamp": null}, "spec": spec, "status": {}})
}

fn operations(response: &Value) -> Vec<Value> {
    assert_eq!(response["patchType"], "JSONPatch");
    serde_json::from_slice(&BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap()).unwrap()
}

fn labelled() -> Api {
    let api = Api::new();
    api.namespace(
        "shop",
        json!({"weft.mesh/inject": "enabled"}),
        json!({"weft.mesh/access-log": "all", "else": "x"}),
    );
    api.namespace("plain", json!({}), json!({}));
    api
}

#[tokio::test]
async fn pods_are_patched_skipped_and_refused() {
    let injector = Injector::start(labelled(), None).await;
    let web = pod(json!({"containers": [{"name": "web"}]}));
    let response = injector.ask("shop", &web).await;
    assert_eq!(response["allowed"], true);
    let text = serde_json::to_string(&operations(&response)).unwrap();
    assert!(
        text.contains("weft-proxy") && text.contains(r#"{"name":"WEFT_PROXY_ACCESS_LOG","value":"all"}"#),
        "{text}"
    );

    let response =
        injector.ask("shop", &pod(json!({"hostNetwork": true, "containers": [{"name": "web"}]}))).await;
    assert_eq!(response["allowed"], true);
    let noted = operations(&response);
    assert_eq!(noted.len(), 1);
    assert!(
        noted[0]["value"]["weft.mesh/not-injected"].as_str().unwrap().starts_with("hostNetwork"),
        "{noted:?}"
    );

    let mut bad = web.clone();
    bad["metadata"]["annotations"] = json!({"weft.mesh/drain-timeout": "soon"});
    let response = injector.ask("shop", &bad).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 422);
    assert_eq!(
        response["status"]["message"],
        r#"weft: annotation weft.mesh/drain-timeout of the pod is "soon"; expected a duration in one unit, as in 500ms, 30s, 2m or 1h"#
    );

    for namespace in ["plain", "kube-system", "weft-system"] {
        let response = injector.ask(namespace, &web).await;
        assert_eq!((&response["allowed"], &response["patch"]), (&json!(true), &Value::Null), "{namespace}");
    }
    let (_, metrics) = injector.get("/metrics").await;
    for series in [
        r#"weft_injector_reviews_total{verdict="patched",reason=""} 1"#,
        r#"weft_injector_reviews_total{verdict="skipped",reason="host_network"} 1"#,
        r#"weft_injector_reviews_total{verdict="skipped",reason="not_asked"} 3"#,
        r#"weft_injector_reviews_total{verdict="refused",reason=""} 1"#,
    ] {
        assert!(metrics.contains(series), "{series} in\n{metrics}");
    }
}

#[tokio::test]
async fn the_label_is_known_before_the_watch_tells_it() {
    let injector = Injector::start(labelled(), None).await;
    injector.api.silence_watches();
    injector.api.namespace("plain", json!({"weft.mesh/inject": "enabled"}), json!({}));
    injector.api.namespace("new", json!({"weft.mesh/inject": "enabled"}), json!({}));
    let web = pod(json!({"containers": [{"name": "web"}]}));
    for namespace in ["plain", "new"] {
        assert!(!operations(&injector.ask(namespace, &web).await).is_empty(), "{namespace}");
    }
    // Of what nobody knows nothing is said: the API server's failurePolicy decides.
    let (status, body) = injector.post("/inject", question("nowhere", &web)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(&body[..], b"weft: namespace nowhere does not exist; try again\n");
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let injector = Injector::start(labelled(), None).await;
    let beta = question("shop", &pod(json!({}))).replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    for (path, body, expected) in [
        ("/inject", "{".to_owned(), StatusCode::BAD_REQUEST),
        ("/inject", beta, StatusCode::BAD_REQUEST),
        (
            "/inject",
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}).to_string(),
            StatusCode::BAD_REQUEST,
        ),
        ("/inject", "x".repeat(9 << 20), StatusCode::PAYLOAD_TOO_LARGE),
        ("/elsewhere", String::new(), StatusCode::NOT_FOUND),
    ] {
        let (status, answer) = injector.post(path, body).await;
        assert_eq!(status, expected, "{}", String::from_utf8_lossy(&answer));
    }
    // What is no new pod is let through.
    let update = question("shop", &pod(json!({"containers": [{"name": "web"}]}))).replace("CREATE", "UPDATE");
    let (_, answer) = injector.post("/inject", update).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["response"], json!({"uid": "0c9a8d74", "allowed": true}));
}

#[tokio::test]
async fn what_others_delete_or_overwrite_is_mended_by_the_watch() {
    let injector = Injector::start(labelled(), None).await;
    let before = injector.api.secret().unwrap()["data"].clone();
    injector.api.delete_secret();
    injector.eventually(async || injector.api.secret().is_some_and(|secret| secret["data"] == before)).await;
    injector.api.overwrite_bundles(None);
    injector.eventually(async || injector.connect().await.is_some()).await;
}

#[tokio::test]
async fn a_changed_configuration_is_taken_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "image: {tag: '1'}\n").unwrap();
    let injector = Injector::start(labelled(), Some(file.clone())).await;
    let web = pod(json!({"containers": [{"name": "web"}]}));
    let has = async |image: &str| {
        let response = injector.ask("shop", &web).await;
        serde_json::to_string(&operations(&response)).unwrap().contains(image)
    };
    assert!(has("weft.mesh/proxy:1").await);
    std::fs::write(&file, "image: {tag: '2'}\n").unwrap();
    injector.eventually(async || has("weft.mesh/proxy:2").await).await;
    std::fs::write(&file, "image: {tga: '3'}\n").unwrap();
    let counted = "weft_injector_configuration_failures_total 1";
    injector.eventually(async || injector.get("/metrics").await.1.contains(counted)).await;
    assert!(has("weft.mesh/proxy:2").await);
}

#[tokio::test]
async fn the_end_leaves_nobody_without_an_answer() {
    let injector = Injector::start(labelled(), None).await;
    let web = question("shop", &pod(json!({"containers": [{"name": "web"}]})));
    let mut kept = injector.connect().await.unwrap();
    assert_eq!(post(&mut kept, "/inject", web.clone().into()).await.0, StatusCode::OK);
    injector.end.send(()).unwrap();
    sleep(Duration::from_millis(50)).await;
    // A Service may send here for a moment more.
    assert_eq!(post(&mut kept, "/inject", web.into()).await.0, StatusCode::OK);
    tokio::time::timeout(WITHIN, injector.running).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(injector.webhook).await.is_err());
}
