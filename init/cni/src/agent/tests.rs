//! The agent against an API server of the test's own: a function from requests to answers.

use super::node::untaint;
use super::questions::look_up;
use super::*;
use crate::question::{Answer, Question};
use admin::Told;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;

/// What was asked: method and path, and the body if there is one.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers each request with this status and object.
fn api_server(status: u16, object: Value) -> (Client, Asked) {
    let asked = Asked::default();
    let held = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (held, object) = (held.clone(), object.to_string());
        async move {
            let what = format!("{} {}", request.method(), request.uri().path());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            held.lock().unwrap().push((what, serde_json::from_slice(&body).unwrap_or_default()));
            let response = Response::builder().status(status).header("content-type", "application/json");
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from(object))).unwrap())
        }
    });
    (Client::new(service, "default"), asked)
}

fn failure(code: u16, message: &str) -> Value {
    let reason = if code == 404 { "NotFound" } else { "Forbidden" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code})
}

#[tokio::test]
async fn questions_are_answered_by_the_pod_as_it_is_now() {
    let pod = |annotations: Value| {
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
               "metadata": {"name": "cart-0", "namespace": "shop", "uid": "8d5c", "annotations": annotations}})
    };
    let injected = pod(json!({"weft.mesh/redirect": "{}"}));
    let forbidden = "pods \"cart-0\" is forbidden";
    let unknown = format!(
        "the agent was told by the API server: {forbidden}; does the ClusterRole weft-cni stand, and is it bound?"
    );
    for (status, object, uid, expected) in [
        (200, injected.clone(), Some("8d5c"), Answer::Redirect(Some("{}".to_owned()))),
        (200, injected.clone(), None, Answer::Redirect(Some("{}".to_owned()))),
        // The mirror of a static pod of this name is another object than the pod that the runtime runs.
        (200, injected, Some("77"), Answer::Redirect(None)),
        (200, pod(json!({"other": "x"})), Some("8d5c"), Answer::Redirect(None)),
        (404, failure(404, "not found"), Some("8d5c"), Answer::Redirect(None)),
        (403, failure(403, forbidden), Some("8d5c"), Answer::Unknown(unknown)),
    ] {
        let (client, asked) = api_server(status, object);
        let question =
            Question { namespace: "shop".into(), name: "cart-0".into(), uid: uid.map(str::to_owned) };
        assert_eq!(look_up(&question, client).await, expected, "{status} {uid:?}");
        assert_eq!(asked.lock().unwrap()[0].0, "GET /api/v1/namespaces/shop/pods/cart-0");
    }
}

#[tokio::test]
async fn only_our_taint_is_taken_off() {
    let other = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"});
    let ours = |effect: &str| json!({"key": node::TAINT, "effect": effect});
    let node = |taints: Value| json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1", "resourceVersion": "7"}, "spec": {"taints": taints}});
    let (client, asked) = api_server(200, node(json!([ours("NoSchedule"), other, ours("NoExecute")])));
    assert_eq!(untaint(&Api::<Node>::all(client), "n1").await.unwrap(), 2);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked[1].0, "PATCH /api/v1/nodes/n1");
    let expected = json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": [other]}});
    assert_eq!(asked[1].1, expected);

    for taints in [json!([other]), json!(null)] {
        let (client, asked) = api_server(200, node(taints));
        assert_eq!(untaint(&Api::<Node>::all(client), "n1").await.unwrap(), 0);
        assert_eq!(asked.lock().unwrap().len(), 1, "nothing is written");
    }
}

#[tokio::test]
async fn the_plugin_goes_only_with_its_daemonset() {
    let daemonset = |more: Value| {
        let mut metadata = json!({"name": "weft-cni", "namespace": "weft-system"});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
    };
    let owner = || Some(("weft-system".to_owned(), "weft-cni".to_owned()));
    for (status, object, expected) in [
        (200, daemonset(json!({})), false),
        (200, daemonset(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})), true),
        (404, failure(404, "not found"), true),
        (403, failure(403, "forbidden"), true),
        (500, failure(500, "no leader"), false),
    ] {
        let (client, asked) = api_server(status, object);
        assert_eq!(departure::is_for_good(client, owner()).await, expected, "{status}");
        assert_eq!(
            asked.lock().unwrap()[0].0,
            "GET /apis/apps/v1/namespaces/weft-system/daemonsets/weft-cni"
        );
    }
    let (client, asked) = api_server(404, failure(404, "not found"));
    assert!(!departure::is_for_good(client, None).await);
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn readiness_names_everything_that_is_missing() {
    let status = Status::new();
    let said = status.unready().unwrap();
    assert_eq!(said, "the plugin is not in place yet; the pods of this node are not known yet");
    Status::set(&status.installed, Ok(()));
    assert_eq!(status.unready().unwrap(), "the pods of this node are not known yet");
    Status::set(&status.watching, Ok(()));
    assert_eq!(status.unready(), None);
    Status::set(&status.installed, Err("it was taken out".to_owned()));
    assert_eq!(status.unready().unwrap(), "it was taken out");
}
