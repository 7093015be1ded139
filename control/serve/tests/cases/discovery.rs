//! Watches: the answer at once, each change of it and nothing else, heartbeats, and what is refused.

use crate::client::{Running, folder, next, soon, start, start_with};
use proxy_wire::v1;
use std::{net::SocketAddr, time::Duration};
use tonic::Code;

pub const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  selector: {app: cart}
  ports: [{name: http, port: 80, targetPort: 8080}]
";

pub fn pod(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: cart, weft.mesh/injected: 'true'}}}}\n\
         spec: {{serviceAccountName: cart, containers: []}}\nstatus: {{podIP: {address}}}\n"
    )
}

fn target(address: &str) -> v1::OutboundTarget {
    let address: SocketAddr = address.parse().expect("an address");
    v1::OutboundTarget { target: Some(address.into()), workload: "shop/customer-1".into() }
}

pub fn backend() -> v1::Backend {
    v1::Backend { namespace: "shop".into(), name: "cart".into(), port: 80 }
}

/// What a proxy asks that does not know the field of who asks, as any other that is in no zone.
pub fn asked() -> v1::EndpointsTarget {
    let v1::Backend { namespace, name, port } = backend();
    v1::EndpointsTarget { namespace, name, port, workload: String::new() }
}

fn names(update: &v1::EndpointsUpdate) -> Vec<&str> {
    let set = update.endpoints.as_ref().expect("content");
    set.endpoints.iter().map(|endpoint| endpoint.workload.as_str()).collect()
}

async fn shop() -> Running {
    start(&[("cart.yaml", SERVICE), ("cart-1.yaml", &pod("cart-1", "10.1.0.1"))]).await
}

#[tokio::test]
async fn a_destination_is_answered_at_once_and_again_when_it_changes() {
    let control = shop().await;
    let mut updates =
        control.outbound().await.watch(target("10.96.0.10:80")).await.expect("a watch").into_inner();
    let first = next(&mut updates).await;
    let policy = first.policy.expect("content");
    assert_eq!(policy.target, Some(v1::outbound_policy::Target::Service(backend())));
    assert_eq!(policy.protocol, v1::Protocol::Auto as i32);
    assert_eq!(first.checksum, proxy_wire::checksum(&policy));

    control.replace("cart.yaml", &SERVICE.replace("targetPort: 8080", "targetPort: 8080, appProtocol: grpc"));
    let second = next(&mut updates).await;
    assert_eq!(second.policy.expect("content").protocol, v1::Protocol::Grpc as i32);
    assert!(second.version > first.version);
}

#[tokio::test]
async fn a_destination_that_nobody_knows_is_external_until_somebody_does() {
    let control = shop().await;
    let mut updates =
        control.outbound().await.watch(target("10.1.0.2:8080")).await.expect("a watch").into_inner();
    let policy = next(&mut updates).await.policy.expect("content");
    assert_eq!(policy.target, Some(v1::outbound_policy::Target::External(v1::External {})));
    control.replace("cart-2.yaml", &pod("cart-2", "10.1.0.2"));
    let policy = next(&mut updates).await.policy.expect("content");
    let Some(v1::outbound_policy::Target::Workload(endpoint)) = policy.target else { panic!("{policy:?}") };
    assert_eq!(endpoint.identity, "spiffe://cluster.local/ns/shop/sa/cart");
}

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mine, namespace: web}
spec:
  parentRefs: [{group: '', kind: Service, name: cart, namespace: shop}]
  rules: [{backendRefs: [{name: cart, namespace: shop, port: 80}]}]
";

#[tokio::test]
async fn routes_of_a_namespace_are_for_those_who_ask_from_it() {
    let control = shop().await;
    let from = |workload: &str| v1::OutboundTarget { workload: workload.into(), ..target("10.96.0.10:80") };
    let mut outbound = control.outbound().await;
    let mut own = outbound.watch(from("web/page-1")).await.expect("a watch").into_inner();
    let mut others = outbound.watch(from("shop/customer-1")).await.expect("a watch").into_inner();
    assert_eq!(next(&mut own).await.policy.expect("content").routes, None);
    assert_eq!(next(&mut others).await.policy.expect("content").routes, None);

    control.replace("web.yaml", ROUTE);
    let rule = |update: v1::OutboundUpdate| match update.policy.expect("content").routes {
        Some(v1::outbound_policy::Routes::Http(table)) => table.rules[0].source.clone().expect("a source"),
        routes => panic!("{routes:?}"),
    };
    assert_eq!(rule(next(&mut own).await).namespace, "web");
    // What the others hear of next is a route of the Service's own namespace: of the one of web they heard nothing.
    control.replace("shop.yaml", &ROUTE.replace("namespace: web", "namespace: shop"));
    assert_eq!(rule(next(&mut others).await).namespace, "shop");
    std::fs::remove_file(control.path("manifests/web.yaml")).expect("a manifest");
    assert_eq!(rule(next(&mut own).await).namespace, "shop");
}

#[tokio::test]
async fn endpoints_come_and_go_with_their_pods() {
    let control = shop().await;
    let mut updates = control.endpoints().await.watch(asked()).await.expect("a watch").into_inner();
    let first = next(&mut updates).await;
    assert_eq!(names(&first), ["shop/cart-1"]);
    // Something else changes: nothing of it is sent, so that the next update is of cart-2.
    control.replace("other.yaml", &pod("other-1", "10.1.0.9").replace("app: cart", "app: other"));
    control.replace("cart-2.yaml", &pod("cart-2", "10.1.0.2"));
    assert_eq!(names(&next(&mut updates).await), ["shop/cart-1", "shop/cart-2"]);
    std::fs::remove_file(control.path("manifests/cart-1.yaml")).expect("a manifest");
    let last = next(&mut updates).await;
    assert_eq!(names(&last), ["shop/cart-2"]);
    assert!(last.version > first.version);
}

#[tokio::test]
async fn what_proxies_found_out_is_told_to_the_others() {
    let control = shop().await;
    let port = v1::InboundPort { workload: "shop/cart-1".into(), port: 8080 };
    let mut updates = control.inbound().await.watch(port).await.expect("a watch").into_inner();
    let policy = next(&mut updates).await.policy.expect("content");
    assert_eq!((policy.protocol, policy.service), (v1::Protocol::Auto as i32, Some(backend())));
    let found =
        |protocol: v1::Protocol| v1::DetectedRequest { service: Some(backend()), protocol: protocol as i32 };
    let mut report = control.report().await;
    report.detected(found(v1::Protocol::Http1)).await.expect("a report");
    assert_eq!(next(&mut updates).await.policy.expect("content").protocol, v1::Protocol::Http1 as i32);
    let nobody = v1::Backend { name: "nobody".into(), ..backend() };
    let unknown = v1::DetectedRequest { service: Some(nobody), protocol: v1::Protocol::Tls as i32 };
    report.detected(unknown).await.expect("what nobody knows is no harm");
}

#[tokio::test]
async fn silence_is_broken_by_heartbeats() {
    let folder = folder(&[("cart.yaml", SERVICE)]);
    let control = start_with(folder, |config| config.heartbeat = Duration::from_millis(20)).await;
    let mut updates = control.endpoints().await.watch(asked()).await.expect("a watch").into_inner();
    let first = next(&mut updates).await;
    for _ in 0..3 {
        let beat = next(&mut updates).await;
        assert_eq!(beat, v1::EndpointsUpdate { endpoints: None, ..first.clone() });
    }
    control.replace("cart-1.yaml", &pod("cart-1", "10.1.0.1"));
    let changed = soon(async {
        loop {
            let update = next(&mut updates).await;
            if update.endpoints.is_some() {
                return update;
            }
        }
    });
    let changed = changed.await;
    assert_eq!(names(&changed), ["shop/cart-1"]);
    let beat = next(&mut updates).await;
    assert_eq!((beat.version, beat.checksum, beat.endpoints), (changed.version, changed.checksum, None));
}

#[tokio::test]
async fn what_means_nothing_is_refused_and_says_which_field() {
    let control = shop().await;
    let mut outbound = control.outbound().await;
    let mut cases = vec![];
    let none = v1::OutboundTarget { target: None, workload: "shop/a".into() };
    cases.push((outbound.watch(none).await.map(drop), "target"));
    let short = v1::OutboundTarget {
        target: Some(v1::SocketAddress { ip: vec![1, 2, 3], port: 1 }),
        workload: "shop/a".into(),
    };
    cases.push((outbound.watch(short).await.map(drop), "target.ip"));
    let nobody = v1::OutboundTarget { workload: "nobody".into(), ..target("10.1.0.1:1") };
    cases.push((outbound.watch(nobody).await.map(drop), "workload"));
    let mut endpoints = control.endpoints().await;
    let port = v1::EndpointsTarget { port: 70_000, ..asked() };
    cases.push((endpoints.watch(port).await.map(drop), "port"));
    let mut inbound = control.inbound().await;
    let port = v1::InboundPort { workload: "shop/a".into(), port: 0 };
    cases.push((inbound.watch(port).await.map(drop), "port"));
    for (result, field) in cases {
        let status = result.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        assert!(status.message().starts_with(field), "{}", status.message());
    }
}

#[tokio::test]
async fn a_connection_that_watches_too_much_is_told_so() {
    let control = shop().await;
    let mut client = control.endpoints().await;
    let mut held = Vec::new();
    for _ in 0..control_serve::limits::WATCHES_PER_CONNECTION {
        held.push(client.watch(asked()).await.expect("a watch"));
    }
    let status = client.watch(asked()).await.expect_err("one too many");
    assert_eq!(status.code(), Code::ResourceExhausted);
    control.endpoints().await.watch(asked()).await.expect("another connection has room");
    drop(held);
    let again = soon(async {
        loop {
            match client.watch(asked()).await {
                Ok(watch) => return watch,
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
            }
        }
    });
    next(again.await.get_mut()).await;
}
