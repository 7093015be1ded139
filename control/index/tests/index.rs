//! Objects go in one by one, and what the index then says is read: no clock, no network, no order by luck.

mod yaml;

use control_index::{Found, Index, Key, Kind, Touched};
use policy::{ServiceName, ServicePort, WorkloadName};
use yaml::{apply, index, objects};

/// A Pod `shop/<name>` with its status' fields as JSON.
fn pod(name: &str, labels: &str, status: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {labels}}}\n\
         spec:\n  serviceAccountName: cart\n  containers:\n  - name: app\n    ports: [{{name: http, containerPort: 8080}}]\n\
         status: {status}\n"
    )
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd00:96::10']
  selector: {app: cart}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: metrics, port: 9090}
  - {name: dns, port: 53, protocol: UDP}
";

fn endpoints(index: &Index, backend: &str) -> Vec<String> {
    let backend: ServicePort = backend.parse().expect("a service port");
    let print = |address, pod| format!("{address} {pod}");
    let found = index.endpoints(&backend, None);
    found
        .iter()
        .map(|one| print(one.address, one.pod.map_or("-".into(), |pod| pod.name.to_string())))
        .collect()
}

fn found(index: &Index, address: &str) -> String {
    match index.by_address(address.parse().expect("an address")) {
        Found::Service(port) => port.to_string(),
        Found::Workload(pod) => pod.name.to_string(),
        Found::None => "-".into(),
    }
}

#[test]
fn addresses_lead_to_services_and_pods_of_both_families() {
    let index = index(
        &[
            SERVICE,
            &pod("cart-1", "{app: cart}", "{podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}]}"),
            "apiVersion: v1\nkind: Service\nmetadata: {name: headless, namespace: shop}\nspec: {clusterIP: None, selector: {app: cart}, ports: [{port: 81, targetPort: 8080}]}\n",
            "apiVersion: v1\nkind: Service\nmetadata: {name: alias, namespace: shop}\nspec: {type: ExternalName, externalName: example.com, clusterIP: 10.96.0.99, ports: [{port: 80}]}\n",
        ]
        .join("\n---\n"),
    );
    for (address, expected) in [
        ("10.96.0.10:80", "cart.shop:80"),
        ("[fd00:96::10]:80", "cart.shop:80"),
        ("[::ffff:10.96.0.10]:80", "cart.shop:80"),
        ("10.96.0.10:9090", "cart.shop:9090"),
        ("10.96.0.10:53", "-"),
        ("10.96.0.10:81", "-"),
        ("10.1.0.1:8080", "shop/cart-1"),
        ("10.1.0.1:1", "shop/cart-1"),
        ("[fd00::1]:8080", "shop/cart-1"),
        ("10.96.0.99:80", "-"),
        ("192.0.2.1:443", "-"),
    ] {
        assert_eq!(found(&index, address), expected, "{address}");
    }
    assert_eq!(
        endpoints(&index, "headless.shop:81"),
        ["10.1.0.1:8080 shop/cart-1", "[fd00::1]:8080 shop/cart-1"]
    );
}

#[test]
fn without_slices_the_ready_pods_of_the_selector_are_the_endpoints() {
    let status = |more: &str| format!("{{podIP: 10.1.0.1{more}}}");
    for (case, yaml, expected) in [
        ("no conditions", pod("a", "{app: cart}", &status("")), true),
        ("ready", pod("a", "{app: cart}", &status(", conditions: [{type: Ready, status: 'True'}]")), true),
        (
            "not ready",
            pod("a", "{app: cart}", &status(", conditions: [{type: Ready, status: 'False'}]")),
            false,
        ),
        (
            "not yet ready",
            pod("a", "{app: cart}", &status(", conditions: [{type: PodScheduled, status: 'True'}]")),
            false,
        ),
        ("ended", pod("a", "{app: cart}", &status(", phase: Succeeded")), false),
        ("another label", pod("a", "{app: card}", &status("")), false),
        ("one label more", pod("a", "{app: cart, tier: x}", &status("")), true),
        ("no address", pod("a", "{app: cart}", "{phase: Pending}"), false),
        (
            "being deleted",
            pod("a", "{app: cart}", &status(""))
                .replace("metadata: {", "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z', "),
            false,
        ),
        (
            "another namespace",
            pod("a", "{app: cart}", &status("")).replace("namespace: shop", "namespace: shop2"),
            false,
        ),
    ] {
        let index = index(&[SERVICE, &yaml].join("\n---\n"));
        let expected: &[&str] = if expected { &["10.1.0.1:8080 shop/a"] } else { &[] };
        assert_eq!(endpoints(&index, "cart.shop:80"), expected, "{case}");
    }
}

#[test]
fn target_ports_are_numbers_names_or_the_port_itself() {
    let mut index = index(&[SERVICE, &pod("a", "{app: cart}", "{podIP: 10.1.0.1}")].join("\n---\n"));
    assert_eq!(endpoints(&index, "cart.shop:80"), ["10.1.0.1:8080 shop/a"]);
    assert_eq!(endpoints(&index, "cart.shop:9090"), ["10.1.0.1:9090 shop/a"]);
    apply(&mut index, &pod("b", "{app: cart}", "{podIP: 10.1.0.2}").replace("8080", "8081"));
    assert_eq!(endpoints(&index, "cart.shop:80"), ["10.1.0.1:8080 shop/a", "10.1.0.2:8081 shop/b"]);
    apply(&mut index, &pod("b", "{app: cart}", "{podIP: 10.1.0.2}").replace("name: http", "name: other"));
    assert_eq!(endpoints(&index, "cart.shop:80"), ["10.1.0.1:8080 shop/a"], "b has no port of that name");
}

const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-x, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: dns, port: 53, protocol: UDP}]
endpoints:
- {addresses: [10.1.0.1], targetRef: {kind: Pod, name: a, namespace: shop}}
- {addresses: [10.1.0.2], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.1.0.3], conditions: {ready: false, serving: false}}
";

#[test]
fn slices_are_the_endpoints_when_there_are_any() {
    let other_pod = pod("z", "{app: cart}", "{podIP: 10.1.0.9}");
    let mut index =
        index(&[SERVICE, &other_pod, SLICE, &pod("a", "{}", "{podIP: 10.1.0.1}")].join("\n---\n"));
    assert_eq!(endpoints(&index, "cart.shop:80"), ["10.1.0.1:8080 shop/a"]);
    assert_eq!(endpoints(&index, "cart.shop:9090"), [""; 0], "the slices have no port of that name");

    let none_ready = SLICE.replace(
        "{addresses: [10.1.0.1]",
        "{conditions: {ready: false, serving: false}, addresses: [10.1.0.1]",
    );
    apply(&mut index, &none_ready);
    assert_eq!(endpoints(&index, "cart.shop:80"), ["10.1.0.2:8080 -"], "those that end, before none");

    index.delete(&Key::new(Kind::EndpointSlice, "shop", "cart-x"));
    assert_eq!(endpoints(&index, "cart.shop:80"), ["10.1.0.9:8080 shop/z"], "back to the Pods");
}

#[test]
fn a_slice_names_no_pod_that_is_elsewhere() {
    let lying = SLICE.replace("addresses: [10.1.0.1]", "addresses: [192.0.2.1]");
    let index = index(&[SERVICE, &lying, &pod("a", "{}", "{podIP: 10.1.0.1}")].join("\n---\n"));
    assert_eq!(endpoints(&index, "cart.shop:80"), ["192.0.2.1:8080 -"]);
}

#[test]
fn a_pod_with_a_proxy_is_no_endpoint_before_it_is_known_at_the_address() {
    let meshed = |status: &str| pod("a", "{weft.mesh/injected: 'true'}", status);
    for before in [None, Some("{}"), Some("{podIP: 10.1.0.7}")] {
        let mut index = index(&[SERVICE, SLICE].join("\n---\n"));
        if let Some(status) = before {
            apply(&mut index, &meshed(status));
        }
        assert_eq!(
            endpoints(&index, "cart.shop:80"),
            ["10.1.0.2:8080 -"],
            "{before:?}: those that end, without a Pod"
        );
        let touched = apply(&mut index, &meshed("{podIP: 10.1.0.1}"));
        assert!(touched.services.contains(&ServiceName::new("shop", "cart")), "{before:?}");
        assert_eq!(endpoints(&index, "cart.shop:80"), ["10.1.0.1:8080 shop/a"], "{before:?}");
    }
}

#[test]
fn pods_on_the_host_network_own_no_address() {
    let host = pod("a", "{app: cart, weft.mesh/injected: 'true'}", "{podIP: 10.1.0.1}")
        .replace("spec:\n", "spec:\n  hostNetwork: true\n");
    let mut index = index(&[SERVICE, &host].join("\n---\n"));
    assert_eq!(found(&index, "10.1.0.1:8080"), "-");
    assert_eq!(endpoints(&index, "cart.shop:80"), ["10.1.0.1:8080 shop/a"]);
    assert!(!index.pod(&WorkloadName::new("shop", "a")).expect("the pod").meshed);
    apply(&mut index, SLICE);
    assert_eq!(endpoints(&index, "cart.shop:80"), ["10.1.0.1:8080 shop/a"], "named by reference");
}

#[test]
fn an_address_used_again_is_its_present_pods() {
    let mut index = Index::default();
    apply(&mut index, &pod("old", "{}", "{podIP: 10.1.0.1}"));
    apply(&mut index, &pod("young", "{}", "{podIP: 10.1.0.1}"));
    assert_eq!(found(&index, "10.1.0.1:1"), "shop/old", "the first by name while both claim it");
    let touched = apply(&mut index, &pod("old", "{}", "{podIP: 10.1.0.1, phase: Failed}"));
    assert_eq!(found(&index, "10.1.0.1:1"), "shop/young");
    assert!(touched.addresses.contains(&"10.1.0.1".parse().expect("an address")));
}

#[test]
fn services_before_a_port_are_found_by_selector_or_by_slice() {
    let manual = SLICE.replace("service-name: cart", "service-name: manual").replace("cart-x", "manual-x");
    let service = SERVICE.replace("name: cart,", "name: manual,").replace("  selector: {app: cart}\n", "");
    let index =
        index(&[SERVICE, &service, &manual, &pod("a", "{app: cart}", "{podIP: 10.1.0.1}")].join("\n---\n"));
    let pod = index.pod(&WorkloadName::new("shop", "a")).expect("the pod");
    let print = |port| index.services_before(pod, port).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(print(8080), ["cart.shop:80", "manual.shop:80"]);
    assert_eq!(print(9090), ["cart.shop:9090"]);
    assert_eq!(print(80), [""; 0]);
}

#[test]
fn a_change_touches_all_that_depends_on_it_and_no_more() {
    let other = SERVICE
        .replace("name: cart,", "name: other,")
        .replace("10.96.0.10", "10.96.0.20")
        .replace("fd00:96::10", "fd00:96::20")
        .replace("app: cart", "app: other");
    let base = [
        SERVICE,
        &other,
        &pod("a", "{app: cart}", "{podIP: 10.1.0.1}"),
        &pod("b", "{app: other}", "{podIP: 10.1.0.2}"),
    ]
    .join("\n---\n");
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Index) -> Touched, &'a str);
    let cases: &[Case<'_>] = &[
        ("the same again", &|index| apply(index, &base), ""),
        (
            "a pod becomes unready",
            &|index| {
                apply(
                    index,
                    &pod(
                        "a",
                        "{app: cart}",
                        "{podIP: 10.1.0.1, conditions: [{type: Ready, status: 'False'}]}",
                    ),
                )
            },
            "10.1.0.1 cart.shop shop/a shop/cart",
        ),
        (
            "a pod moves to another service and address",
            &|index| apply(index, &pod("a", "{app: other}", "{podIP: 10.1.0.3}")),
            "10.1.0.1 10.1.0.3 cart.shop other.shop shop/a shop/cart",
        ),
        (
            "a pod goes",
            &|index| index.delete(&Key::new(Kind::Pod, "shop", "a")),
            "10.1.0.1 cart.shop shop/a shop/cart",
        ),
        (
            "a service's port changes",
            &|index| apply(index, &SERVICE.replace("port: 80,", "port: 88,")),
            "10.1.0.1 10.96.0.10 fd00:96::10 cart.shop shop/a",
        ),
        (
            "a service takes another's address",
            &|index| apply(index, &SERVICE.replace("10.96.0.10", "10.96.0.20")),
            "10.1.0.1 10.96.0.10 10.96.0.20 fd00:96::10 cart.shop other.shop shop/a",
        ),
        ("a slice comes", &|index| apply(index, SLICE), "10.1.0.1 10.1.0.2 cart.shop shop/a shop/b"),
        (
            "a namespace comes",
            &|index| apply(index, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}"),
            "",
        ),
        (
            "an account comes",
            &|index| {
                apply(index, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x, namespace: shop}")
            },
            "shop/x",
        ),
        ("nothing goes", &|index| index.delete(&Key::new(Kind::Pod, "shop", "none")), ""),
    ];
    for (case, change, expected) in cases {
        let mut index = index(&base);
        assert_eq!(print(&change(&mut index)), *expected, "{case}");
    }
}

/// Addresses, services, workloads, accounts.
fn print(touched: &Touched) -> String {
    let addresses = touched.addresses.iter().map(ToString::to_string);
    let services = touched.services.iter().map(ToString::to_string);
    let workloads = touched.workloads.iter().map(ToString::to_string);
    let accounts = touched.accounts.iter().map(ToString::to_string);
    addresses.chain(services).chain(workloads).chain(accounts).collect::<Vec<_>>().join(" ")
}

#[test]
fn accounts_live_as_long_as_something_names_them() {
    let mut index = index(&pod("a", "{}", "{}"));
    let accounts = |index: &Index| index.accounts().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(accounts(&index), ["shop/cart"]);
    apply(&mut index, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: cart, namespace: shop}");
    index.delete(&Key::new(Kind::Pod, "shop", "a"));
    assert_eq!(accounts(&index), ["shop/cart"]);
    index.delete(&Key::new(Kind::ServiceAccount, "shop", "cart"));
    assert_eq!(accounts(&index), [""; 0]);
}

#[test]
fn what_cannot_be_read_is_a_problem_and_the_rest_applies() {
    for (yaml, expected) in [
        (
            SERVICE.replace("clusterIP: 10.96.0.10", "clusterIP: 10.96.0.1000"),
            "Service shop/cart: spec.clusterIP: \"10.96.0.1000\" is not an IP address; it is left out",
        ),
        (
            SERVICE.replace("port: 9090", "port: 90900"),
            "Service shop/cart: spec.ports[1].port: 90900 is not a port (1-65535); it is left out",
        ),
        (
            SERVICE.replace("port: 9090", "port: 80"),
            "Service shop/cart: spec.ports[1].port: 80 is there already; the first one is taken",
        ),
        (
            pod("a", "{}", "{podIP: here}"),
            "Pod shop/a: status.podIP: \"here\" is not an IP address; it is left out",
        ),
        (
            pod("a", "{}", "{}").replace("serviceAccountName: cart", "serviceAccountName: ../../x"),
            "Pod shop/a: spec.serviceAccountName: \"../../x\" is not a name for a ServiceAccount; \"default\" is taken",
        ),
        (
            SLICE.replace("10.1.0.2", "example.com"),
            "EndpointSlice shop/cart-x: endpoints[1].addresses[0]: \"example.com\" is not an IP address; it is left out",
        ),
    ] {
        let mut index = Index::default();
        for object in objects(&yaml) {
            index.apply(&object);
            let problems: Vec<String> =
                index.problems(object.key()).iter().map(ToString::to_string).collect();
            assert_eq!(problems, [expected]);
        }
    }
    let mut index = index(&SERVICE.replace("10.96.0.10", "10.96.0.1000"));
    assert_eq!(found(&index, "[fd00:96::10]:80"), "cart.shop:80");
    apply(&mut index, SERVICE);
    assert!(index.problems(&Key::new(Kind::Service, "shop", "cart")).is_empty(), "mended");
}

#[test]
fn objects_without_a_proper_name_are_no_objects() {
    for (metadata, expected) in [
        ("{}", "metadata.name: it is missing"),
        ("{name: Cart}", "metadata.name: \"Cart\" is not a name for a Service"),
        ("{name: a.b}", "metadata.name: \"a.b\" is not a name for a Service"),
        ("{name: cart, namespace: ../x}", "metadata.namespace: \"../x\" is not the name of a namespace"),
    ] {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {metadata}\n");
        let read = serde_saphyr::with_deserializer_from_str(&text, |from| Kind::Service.read(from));
        let error = read.expect_err(metadata).to_string();
        assert!(error.contains(expected), "{error}");
    }
}
