//! One status at a time, against an API server that answers as it is told.

use super::*;
use bytes::Bytes;
use control_translate::{Condition, Status};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

/// What was asked: method, path with query, body.
type Asked = Arc<Mutex<Vec<(String, String, Value)>>>;

/// Answers in turn.
fn server(answers: Vec<(u16, Value)>) -> (Client, Asked) {
    let asked = Asked::default();
    let (seen, answers) = (Arc::clone(&asked), Arc::new(Mutex::new(answers.into_iter())));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            seen.lock().expect("the test goes on").push((
                head.method.to_string(),
                head.uri.to_string(),
                body,
            ));
            let (code, answer) =
                answers.lock().expect("the test goes on").next().expect("no more is asked than this");
            let body = Full::new(Bytes::from(answer.to_string()));
            Ok::<_, Infallible>(Response::builder().status(code).body(body).expect("a response"))
        }
    });
    (Client::new(service, "default"), asked)
}

fn failure(code: u16) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": "X",
        "code": code,
    });
    (code, status)
}

fn route(generation: i64, parents: Value) -> (u16, Value) {
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "cart", "namespace": "shop", "resourceVersion": "77", "generation": generation},
        "status": {"parents": parents},
    });
    (200, route)
}

fn service() -> ParentRef {
    ParentRef {
        group: Some(String::new()),
        kind: Some("Service".into()),
        name: "cart".into(),
        port: Some(80),
        ..ParentRef::default()
    }
}

fn unsaid(entries: Vec<Entry>) -> Unsaid {
    Unsaid { generation: 3, status: Status { entries } }
}

fn entry() -> Entry {
    let conditions = [("Accepted", true), ("ResolvedRefs", false)]
        .map(|(type_, holds)| Condition::new(type_, holds, "Because", "it is so"));
    Entry { about: service(), conditions: conditions.into() }
}

fn key(kind: Kind) -> Key {
    Key::new(kind, "shop", "cart")
}

#[tokio::test]
async fn what_others_say_stays_and_so_does_the_time_of_what_holds_on() {
    let gateway = json!({
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"},
        "controllerName": "example.net/gateway",
        "conditions": [{"type": "Accepted", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}],
    });
    let before = "2021-02-03T04:05:06Z";
    let ours = json!({
        "parentRef": {"group": "", "kind": "Service", "name": "cart", "port": 80},
        "controllerName": "weft.mesh/controller",
        "conditions": [
            {"type": "Accepted", "status": "True", "lastTransitionTime": before, "message": "old"},
            {"type": "ResolvedRefs", "status": "True", "lastTransitionTime": before},
            {"type": "PartiallyInvalid", "status": "True", "lastTransitionTime": before},
        ],
    });
    let gone =
        json!({"parentRef": {"name": "away"}, "controllerName": "weft.mesh/controller", "conditions": []});
    let held = json!([ours, gateway, gone]);
    let (client, asked) = server(vec![route(3, held), route(3, json!([]))]);
    assert!(matches!(write(&client, &key(Kind::HttpRoute), &unsaid(vec![entry()])).await, Outcome::Done));
    let asked = asked.lock().expect("the server goes on");
    let path = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart/status";
    assert_eq!((asked[0].0.as_str(), asked[0].1.trim_end_matches('?')), ("GET", path));
    let (method, uri, body) = &asked[1];
    assert_eq!(method, "PATCH");
    assert!(uri.starts_with(path) && uri.contains("force=true"), "{uri}");
    assert!(uri.contains("fieldManager=weft-control"), "{uri}");
    assert_eq!(body["metadata"]["resourceVersion"], "77", "nobody may have written in between");
    let parents = body["status"]["parents"].as_array().expect("parents");
    assert_eq!(parents.len(), 2);
    assert_eq!(parents[0], gateway);
    assert_eq!(parents[1]["parentRef"], ours["parentRef"]);
    let conditions = parents[1]["conditions"].as_array().expect("conditions");
    assert_eq!(conditions.len(), 2, "what holds no more is gone");
    assert_eq!(conditions[0]["lastTransitionTime"], before);
    assert_eq!(conditions[0]["message"], "it is so");
    assert_eq!(conditions[0]["observedGeneration"], 3);
    let turned = conditions[1]["lastTransitionTime"].as_str().expect("a time");
    assert!(turned > "2026" && turned.ends_with('Z') && turned.len() == before.len(), "{turned}");
}

#[tokio::test]
async fn a_policy_has_ancestors() {
    let policy = json!({
        "apiVersion": "policy.weft.mesh/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "cart", "namespace": "shop", "resourceVersion": "5", "generation": 3},
    });
    let (client, asked) = server(vec![(200, policy.clone()), (200, policy)]);
    let outcome = write(&client, &key(Kind::TrafficPolicy), &unsaid(vec![entry()])).await;
    assert!(matches!(outcome, Outcome::Done));
    let asked = std::mem::take(&mut *asked.lock().expect("the server goes on"));
    assert!(asked[1].1.starts_with("/apis/policy.weft.mesh/v1alpha1/namespaces/shop/trafficpolicies/cart/"));
    assert_eq!(asked[1].2["status"]["ancestors"][0]["ancestorRef"]["name"], "cart");
    assert_eq!(asked[1].2["kind"], "TrafficPolicy");
}

#[tokio::test]
async fn an_object_that_changed_meanwhile_is_left_to_the_watch() {
    let (client, asked) = server(vec![route(4, json!([]))]);
    let outcome = write(&client, &key(Kind::HttpRoute), &unsaid(vec![entry()])).await;
    assert!(matches!(outcome, Outcome::Stale));
    assert_eq!(asked.lock().expect("the server goes on").len(), 1, "nothing is written");
    let (client, _) = server(vec![route(3, json!([])), failure(409)]);
    let outcome = write(&client, &key(Kind::HttpRoute), &unsaid(vec![entry()])).await;
    assert!(matches!(outcome, Outcome::Stale));
}

#[tokio::test]
async fn versions_are_tried_in_turn_and_refusals_are_told() {
    let tls = json!({
        "apiVersion": "gateway.networking.k8s.io/v1alpha3", "kind": "TLSRoute",
        "metadata": {"name": "cart", "namespace": "shop", "resourceVersion": "5", "generation": 3},
    });
    let (client, asked) = server(vec![failure(404), (200, tls.clone()), (200, tls)]);
    assert!(matches!(write(&client, &key(Kind::TlsRoute), &unsaid(vec![])).await, Outcome::Done));
    let asked = std::mem::take(&mut *asked.lock().expect("the server goes on"));
    assert!(asked[1].1.contains("/v1alpha3/"), "{}", asked[1].1);
    assert_eq!(asked[2].2["apiVersion"], "gateway.networking.k8s.io/v1alpha3");
    assert_eq!(asked[2].2["status"], json!({"parents": []}));
    let (client, _) = server(vec![failure(404)]);
    assert!(matches!(write(&client, &key(Kind::GrpcRoute), &unsaid(vec![])).await, Outcome::Done));
    let (client, _) = server(vec![failure(403)]);
    let outcome = write(&client, &key(Kind::HttpRoute), &unsaid(vec![])).await;
    let Outcome::Failed(what) = outcome else { panic!("it is forbidden") };
    assert!(what.contains("ClusterRole"), "{what}");
}
