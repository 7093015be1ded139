//! What people do to the directory while it is served.

use super::discovery::{SERVICE, asked, pod};
use crate::client::{next, start};
use std::{fs::File, io::Write};

#[tokio::test]
async fn a_bad_document_is_reported_and_takes_nothing_with_it() {
    let file = format!("{SERVICE}---\n{}", pod("cart-1", "10.1.0.1"));
    let control = start(&[("cart.yaml", &file)]).await;
    let mut updates = control.endpoints().await.watch(asked()).await.expect("a watch").into_inner();
    assert_eq!(next(&mut updates).await.endpoints.expect("content").endpoints.len(), 1);

    // The Pod's document becomes malformed, the Service's gets a new target port: the Pod stays as it was.
    let bad = file.replace("containers: []", "containers: 7").replace("targetPort: 8080", "targetPort: 9090");
    control.replace("cart.yaml", &bad);
    let endpoints = next(&mut updates).await.endpoints.expect("content").endpoints;
    assert_eq!(endpoints[0].address.as_ref().expect("an address").port, 9090);
    let path = control.path("manifests/cart.yaml");
    let problems = control.admin("/problems").await;
    assert!(problems.contains(&format!("\"at\": \"{}:13\"", path.display())), "{problems}");
    assert!(problems.contains("\"field\": \"spec.containers\""), "{problems}");
    assert!(control.admin("/metrics").await.contains("\nweft_control_problems 1\n"));

    control.replace("cart.yaml", &file.replace("10.1.0.1", "10.1.0.2"));
    let endpoints = loop {
        let endpoints = next(&mut updates).await.endpoints.expect("content").endpoints;
        if endpoints[0].address.as_ref().expect("an address").ip == [10, 1, 0, 2] {
            break endpoints;
        }
    };
    assert_eq!(endpoints.len(), 1);
    control.admin_until("/problems", |text| text.ends_with("\r\n\r\n[]\n")).await;
}

#[tokio::test]
async fn a_file_half_written_is_waited_for() {
    let control = start(&[("cart.yaml", SERVICE), ("cart-1.yaml", &pod("cart-1", "10.1.0.1"))]).await;
    let mut updates = control.endpoints().await.watch(asked()).await.expect("a watch").into_inner();
    next(&mut updates).await;
    // Truncated, then written in two steps: no state in between is seen.
    let text = pod("cart-1", "10.1.0.77");
    let (head, tail) = text.split_at(text.len() - 3);
    let mut file = File::create(control.path("manifests/cart-1.yaml")).expect("a file");
    file.write_all(head.as_bytes()).expect("the first part");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    file.write_all(tail.as_bytes()).expect("the second part");
    drop(file);
    let endpoints = next(&mut updates).await.endpoints.expect("content").endpoints;
    assert_eq!(endpoints[0].address.as_ref().expect("an address").ip, [10, 1, 0, 77]);
}

#[tokio::test]
async fn problems_of_meaning_have_their_place_too() {
    let control = start(&[
        ("cart.yaml", &SERVICE.replace("targetPort: 8080", "targetPort: 8080, appProtocol: pigeon")),
        ("deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart}\n"),
        ("twice.yaml", SERVICE),
    ])
    .await;
    let problems = control.admin("/problems").await;
    assert!(problems.contains("spec.ports[0].appProtocol"), "{problems}");
    assert!(problems.contains("manifests/cart.yaml:2\""), "{problems}");
    assert!(problems.contains("it is defined at "), "{problems}");
    let metrics = control.admin("/metrics").await;
    assert!(metrics.contains("\nweft_control_objects_skipped 1\n"), "{metrics}");
    assert!(metrics.contains("\nweft_control_objects{kind=\"Service\"} 1\n"), "{metrics}");
}
