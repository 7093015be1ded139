//! Edges out of the text that proxies expose.

use super::*;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const PRODUCT: &str = "spiffe://cluster.local/ns/shop/sa/product";

fn requests(
    direction: &str,
    service: &str,
    identity: &str,
    backend: &str,
    tls: &str,
    class: &str,
    n: u64,
) -> String {
    format!(
        "weft_requests_total{{direction=\"{direction}\",service=\"{service}\",workload=\"\",identity=\"{identity}\",\
         backend=\"{backend}\",tls=\"{tls}\",class=\"{class}\"}} {n}\n"
    )
}

fn cart(text: &str) -> Scrape {
    Scrape::read("cart", "shop", CART, text)
}

fn product(text: &str) -> Scrape {
    Scrape::read("product", "shop", PRODUCT, text)
}

fn out(identity: &str, backend: &str, tls: &str, class: &str, n: u64) -> String {
    requests("outbound", "product.shop:8080", identity, backend, tls, class, n)
}

fn inbound(identity: &str, tls: &str, n: u64) -> String {
    requests("inbound", "product.shop:8080", identity, "8080", tls, "2xx", n)
}

#[test]
fn an_edge_is_what_the_client_counted_over_all_backends() {
    let text = [
        out(PRODUCT, "10.42.0.10:8080", "1.3", "2xx", 90),
        out(PRODUCT, "10.42.0.10:8080", "1.3", "5xx", 4),
        out(PRODUCT, "10.42.0.11:8080", "1.3", "4xx", 5),
        out("", "", "none", "none", 1),
        "weft_request_duration_seconds_bucket{le=\"0.001\",direction=\"outbound\",service=\"product.shop:8080\"} 50\n"
            .into(),
        "weft_request_duration_seconds_bucket{le=\"+Inf\",direction=\"outbound\",service=\"product.shop:8080\"} 100\n"
            .into(),
        // Not the client's view.
        "weft_request_duration_seconds_bucket{le=\"0.001\",direction=\"inbound\",service=\"product.shop:8080\"} 7\n"
            .into(),
        "weft_reasons_total{direction=\"outbound\",service=\"product.shop:8080\",reason=\"connection_timeout\"} 3\n"
            .into(),
    ]
    .concat();
    let scrapes = [cart(&text), product(&inbound(CART, "1.3", 99))];
    let edges = graph(&scrapes);
    let [edge] = &edges[..] else { panic!("{edges:?}") };
    let expected = Signals {
        from: "cart".into(),
        to: "product".into(),
        requests: 100,
        success_rate: 0.95,
        p50_ms: 1.0,
        p95_ms: 1.0,
        p99_ms: 1.0,
        mtls: true,
        client_identity: Some(CART.into()),
        server_identity: Some(PRODUCT.into()),
    };
    assert_eq!(edge.signals(), expected);
    assert_eq!(edge.failed, 5);
    let by_reason = BTreeMap::from([("connection_timeout".to_owned(), 3), ("http_5xx".to_owned(), 2)]);
    assert_eq!(failures(&scrapes), by_reason);
}

#[test]
fn mtls_is_said_only_when_both_sides_prove_it() {
    let good = out(PRODUCT, "10.42.0.10:8080", "1.3", "2xx", 9);
    let table = [
        (good.clone(), inbound(CART, "1.3", 9), true),
        (good.clone(), inbound(CART, "1.3", 0), false),
        (good.clone(), inbound(PRODUCT, "1.3", 9), false),
        (good.clone(), inbound(CART, "none", 9), false),
        (good.clone(), String::new(), false),
        (good.clone() + &out("", "10.42.0.11:8080", "none", "2xx", 1), inbound(CART, "1.3", 9), false),
        (good.clone() + &out("", "10.42.0.11:8080", "none", "2xx", 0), inbound(CART, "1.3", 9), true),
        (out("", "10.42.0.10:8080", "1.3", "2xx", 9), inbound(CART, "1.3", 9), false),
    ];
    for (client, server, expected) in table {
        let edges = graph(&[cart(&client), product(&server)]);
        assert_eq!((edges.len(), edges[0].mtls), (1, expected), "{client}{server}");
    }
}

#[test]
fn services_are_named_as_the_client_would_name_them() {
    let table = [
        ("cart.shop:8080", "shop", "cart"),
        ("cart.shop:8080", "other", "cart.shop"),
        ("other", "shop", "other"),
        ("", "shop", "outside"),
    ];
    for (service, seen_from, name) in table {
        assert_eq!(service_name(service, seen_from), name);
    }
}

#[test]
fn pods_of_one_app_make_one_edge_and_times_can_be_subtracted() {
    let text = |n| out(PRODUCT, "10.42.0.10:8080", "1.3", "2xx", n);
    let earlier = graph(&[cart(&text(5)), cart(&text(1))]);
    let later = graph(&[cart(&text(7)), cart(&text(4))]);
    assert_eq!((earlier[0].requests, later[0].requests, later.len()), (6, 11, 1));
    assert_eq!(later[0].since(&earlier[0]).requests, 5);
    assert_eq!(later[0].since(&earlier[0]).success_rate(), 1.0);
}

#[test]
fn edges_stand_in_the_order_of_a_requests_way() {
    let scrape = |from: &str, to: &[&str]| {
        let text: String = to
            .iter()
            .map(|to| requests("outbound", &format!("{to}.shop:8080"), "", "b", "none", "2xx", 1))
            .collect();
        Scrape::read(from, "shop", "", &text)
    };
    let order = |scrapes: &[Scrape]| {
        graph(scrapes).iter().map(|edge| format!("{} {}", edge.from, edge.to)).collect::<Vec<_>>()
    };
    let shop = [
        scrape("cart", &["product"]),
        scrape("customer", &["product", "cart"]),
        scrape("product", &["review"]),
        scrape("visitor", &["customer"]),
    ];
    let expected =
        ["visitor customer", "customer cart", "customer product", "cart product", "product review"];
    assert_eq!(order(&shop), expected);
    assert_eq!(order(&[scrape("a", &["b"]), scrape("b", &["a", "b"])]), ["a b", "b a", "b b"]);
}

#[test]
fn what_a_policy_repeated_no_client_saw() {
    let text = out(PRODUCT, "10.1.0.1:8080", "1.3", "2xx", 10)
        + &out(PRODUCT, "10.1.0.2:8080", "1.3", "5xx", 3)
        + "weft_retries_total{direction=\"outbound\",service=\"product.shop:8080\",outcome=\"repeated\"} 3\n";
    let edges = graph(&[cart(&text)]);
    assert_eq!((edges[0].requests, edges[0].failed), (10, 0));
}
