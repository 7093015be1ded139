//! Routes, policies and grants: how they are read, by what they are found, and what a change of them touches.

mod yaml;

use control_index::{
    Index, Key, Kind, RouteSpec, Touched,
    manifest::{Filter, HttpRule},
};
use policy::ServiceName;
use std::sync::Arc;
use yaml::{apply, index};

fn service(name: &str, namespace: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{clusterIP: {address}, ports: [{{name: http, port: 80}}]}}\n"
    )
}

/// An HTTPRoute from a Service to another: `shop/cart` is in another namespace than the route's own.
fn route(name: &str, namespace: &str, parent: &str, backend: &str) -> String {
    let place = |service: &str| match service.split_once('/') {
        Some((namespace, name)) => format!("namespace: {namespace}, name: {name}"),
        None => format!("name: {service}"),
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, {}, port: 80}}]\n  rules: [{{backendRefs: [{{{}, port: 80}}]}}]\n",
        place(parent),
        place(backend)
    )
}

fn policy(kind: &str, name: &str, target: &str, spec: &str) -> String {
    format!(
        "apiVersion: policy.weft.mesh/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{targetRefs: [{target}], {spec}}}\n"
    )
}

const GRANT: &str = "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: open, namespace: stock}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]
  to: [{group: '', kind: Service, name: items}]
";

fn mesh() -> String {
    [
        service("cart", "shop", "10.96.0.1"),
        service("cart-v2", "shop", "10.96.0.2"),
        service("items", "stock", "10.96.0.3"),
        service("other", "shop", "10.96.0.4"),
        route("split", "shop", "cart", "cart-v2"),
        route("away", "shop", "cart-v2", "stock/items"),
    ]
    .join("\n---\n")
}

fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, "shop", name)
}

/// Last parts of addresses, routes, policies.
fn print(touched: &Touched) -> String {
    let addresses = touched.addresses.iter().map(|ip| ip.to_string().replace("10.96.0.", "."));
    let objects = touched.routes.iter().chain(&touched.policies).map(|key| key.name.to_string());
    addresses.chain(objects).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_change_touches_who_dials_the_parents_and_what_is_said_beside_it() {
    let timeouts = "timeouts: {request: 1s}";
    let at_service =
        |name| policy("TrafficPolicy", "p", &format!("{{kind: Service, name: {name}}}"), timeouts);
    let at_route = policy(
        "TrafficPolicy",
        "p",
        "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: split}",
        timeouts,
    );
    let at_namespace = policy("TrafficPolicy", "p", "{kind: Namespace, name: shop}", timeouts);
    type Case<'a> = (&'a str, Vec<String>, Box<dyn Fn(&mut Index) -> Touched>, &'a str);
    let coming = |yaml: &str| -> Box<dyn Fn(&mut Index) -> Touched> {
        let yaml = yaml.to_owned();
        Box::new(move |index| apply(index, &yaml))
    };
    let going =
        |key: Key| -> Box<dyn Fn(&mut Index) -> Touched> { Box::new(move |index| index.delete(&key)) };
    let cases: Vec<Case<'_>> = vec![
        ("all the same again", vec![], coming(&mesh()), ""),
        ("a route comes", vec![], coming(&route("new", "shop", "other", "cart")), ".4 new"),
        (
            "another route of the same parent",
            vec![],
            coming(&route("new", "shop", "cart", "other")),
            ".1 new split",
        ),
        ("a consumer's route", vec![], coming(&route("new", "desk", "shop/cart", "other")), ".1 new split"),
        ("a route moves", vec![], coming(&route("split", "shop", "other", "cart-v2")), ".1 .4 split"),
        ("a route goes", vec![], going(key(Kind::HttpRoute, "split")), ".1 split"),
        (
            "a route to a Gateway",
            vec![],
            coming(&route("split", "shop", "cart", "cart-v2").replace("kind: Service, ", "kind: Gateway, ")),
            ".1 split",
        ),
        // Who dials it, and who dials what routes to it.
        ("a backend goes", vec![], going(key(Kind::Service, "cart-v2")), ".1 .2 away split"),
        ("a grant comes", vec![], coming(GRANT), ".2 away"),
        (
            "a grant goes",
            vec![GRANT.into()],
            going(Key::new(Kind::ReferenceGrant, "stock", "open")),
            ".2 away",
        ),
        (
            "a policy on a Service that is a parent and a backend",
            vec![],
            coming(&at_service("cart-v2")),
            ".1 .2 away split p",
        ),
        ("a policy on a Service beside all", vec![], coming(&at_service("other")), ".4 p"),
        ("a policy on a Service that is not there", vec![], coming(&at_service("none")), "p"),
        (
            "its Service comes",
            vec![at_service("late")],
            coming(&service("late", "shop", "10.96.0.9")),
            ".9 p",
        ),
        ("a policy on a route", vec![], coming(&at_route), ".1 split p"),
        ("its route goes", vec![at_route.clone()], going(key(Kind::HttpRoute, "split")), ".1 split p"),
        ("a policy on the namespace", vec![], coming(&at_namespace), ".1 .2 .4 away split p"),
        (
            "a policy that prevails over the namespace's",
            vec![at_namespace.clone()],
            coming(&at_service("other").replace("name: p,", "name: q,")),
            ".4 p q",
        ),
        ("a policy goes", vec![at_service("other")], going(key(Kind::TrafficPolicy, "p")), ".4 p"),
        ("a policy moves", vec![at_service("other")], coming(&at_service("cart")), ".1 .4 split p"),
    ];
    for (case, before, change, expected) in cases {
        let mut index = index(&mesh());
        before.iter().for_each(|yaml| drop(apply(&mut index, yaml)));
        assert_eq!(print(&change(&mut index)), expected, "{case}");
    }
}

fn tls_policy(name: &str, target: &str, config_map: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  targetRefs: [{{group: '', kind: Service, name: {target}}}]\n  \
         validation: {{hostname: a.example, caCertificateRefs: [{{group: '', kind: ConfigMap, name: {config_map}}}]}}\n"
    )
}

fn config_map(name: &str, namespace: &str, data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {data}\n"
    )
}

#[test]
fn what_is_said_with_endpoints_touches_endpoints_alone() {
    let policies = [tls_policy("p", "cart", "ca"), tls_policy("q", "other", "another")];
    let before =
        [mesh(), policies.join("\n---\n"), config_map("ca", "shop", "{ca.crt: one}")].join("\n---\n");
    let going =
        |key: Key| -> Box<dyn Fn(&mut Index) -> Touched> { Box::new(move |index| index.delete(&key)) };
    let coming =
        |yaml: String| -> Box<dyn Fn(&mut Index) -> Touched> { Box::new(move |index| apply(index, &yaml)) };
    let cases = [
        ("all the same again", coming(before.clone()), "", ""),
        ("a policy comes", coming(tls_policy("r", "cart", "ca")), "cart.shop", "p r"),
        ("a policy moves", coming(tls_policy("p", "other", "ca")), "cart.shop other.shop", "p q"),
        ("a policy goes", going(key(Kind::BackendTlsPolicy, "p")), "cart.shop", "p"),
        ("its certificates change", coming(config_map("ca", "shop", "{ca.crt: two}")), "cart.shop", "p"),
        ("its certificates go", coming(config_map("ca", "shop", "{other: two}")), "cart.shop", "p"),
        ("there is no data", coming(config_map("ca", "shop", "null")), "cart.shop", "p"),
        ("its ConfigMap goes", going(key(Kind::ConfigMap, "ca")), "cart.shop", "p"),
        ("its ConfigMap comes", coming(config_map("another", "shop", "{ca.crt: one}")), "other.shop", "q"),
        ("another's ConfigMap", coming(config_map("ca", "stock", "{ca.crt: two}")), "", ""),
        ("nobody's ConfigMap", coming(config_map("cb", "shop", "{ca.crt: two}")), "", ""),
    ];
    for (case, change, services, policies) in cases {
        let touched = change(&mut index(&before));
        let touched_services: Vec<_> = touched.services.iter().map(ToString::to_string).collect();
        let touched_policies: Vec<_> = touched.policies.iter().map(|key| &*key.name).collect();
        assert_eq!(touched_services.join(" "), services, "{case}");
        assert_eq!(touched_policies.join(" "), policies, "{case}");
        let others = Touched { services: [].into(), policies: [].into(), ..touched };
        assert!(others.is_empty(), "{case}: {others:?}");
    }
}

#[test]
fn of_config_maps_certificates_are_held_and_nothing_else() {
    let maps = [
        config_map("ca", "shop", "{ca.crt: one, tls.key: secret}"),
        config_map("ca", "stock", "{ca.crt: two}"),
        config_map("settings", "shop", "{colour: blue}"),
    ];
    let mut index = index(&maps.join("\n---\n"));
    let held = |index: &Index, namespace: &str, name: &str| {
        index.authorities(namespace, name).map(ToString::to_string)
    };
    assert_eq!(held(&index, "shop", "ca").as_deref(), Some("one"));
    assert_eq!(held(&index, "stock", "ca").as_deref(), Some("two"));
    assert_eq!(held(&index, "shop", "settings"), None);
    assert_eq!(index.count(Kind::ConfigMap), 2);
    apply(&mut index, &config_map("ca", "shop", "{colour: blue}"));
    assert_eq!((held(&index, "shop", "ca"), index.count(Kind::ConfigMap)), (None, 1));
    let of_use =
        yaml::objects(&maps.join("\n---\n")).iter().map(control_index::Object::is_of_use).collect::<Vec<_>>();
    assert_eq!(of_use, [true, true, false]);
}

#[test]
fn what_we_said_about_an_object_touches_nobody_who_dials() {
    let mut index = index(&mesh());
    let status = "status:\n  parents:\n  - parentRef: {group: '', kind: Service, name: cart, port: 80}\n    \
        controllerName: weft.mesh/controller\n    conditions: [{type: Accepted, status: 'True', observedGeneration: 2, \
        lastTransitionTime: '2026-01-01T00:00:00Z', reason: Accepted, message: ''}]\n  \
        - {parentRef: {name: edge}, controllerName: example.net/x, conditions: []}\n";
    let said = route("split", "shop", "cart", "cart-v2") + status;
    assert_eq!(print(&apply(&mut index, &said)), "split");
    assert_eq!(print(&apply(&mut index, &said)), "", "the same again");
    let held = index.route(&key(Kind::HttpRoute, "split")).expect("the route");
    assert_eq!(held.observed.len(), 1, "what others say is theirs");
    assert_eq!(held.observed[0].about.port, Some(80));
    assert_eq!(held.observed[0].conditions[0].observed_generation, 2);
}

#[test]
fn routes_are_found_by_parent_and_backend() {
    let grpc = route("calls", "shop", "cart", "items").replace("HTTPRoute", "GRPCRoute");
    let mut index = index(&[mesh(), grpc].join("\n---\n"));
    let cart = ServiceName::new("shop", "cart");
    let names = |index: &Index, parent: &ServiceName| {
        index.routes_of(parent).map(|route| route.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&index, &cart), ["GRPCRoute shop/calls", "HTTPRoute shop/split"]);
    let to = |index: &Index, backend: &ServiceName| {
        index.routes_to(backend).map(|route| route.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(to(&index, &ServiceName::new("stock", "items")), ["HTTPRoute shop/away"]);
    assert_eq!(to(&index, &ServiceName::new("shop", "items")), ["GRPCRoute shop/calls"]);
    assert_eq!((index.count(Kind::HttpRoute), index.count(Kind::GrpcRoute)), (2, 1));
    index.delete(&key(Kind::GrpcRoute, "calls"));
    apply(&mut index, &route("split", "shop", "other", "cart"));
    assert_eq!(names(&index, &cart), [""; 0]);
    assert_eq!(to(&index, &cart), ["HTTPRoute shop/split"]);
    assert_eq!((index.count(Kind::HttpRoute), index.count(Kind::GrpcRoute)), (2, 0));
}

#[test]
fn a_grant_opens_what_it_names_to_whom_it_names() {
    let items = ServiceName::new("stock", "items");
    let from = |kind, namespace: &str| Key::new(kind, namespace, "a");
    let closed = index(&mesh());
    assert!(!closed.may_refer(&from(Kind::HttpRoute, "shop"), &items));
    assert!(closed.may_refer(&from(Kind::HttpRoute, "stock"), &items), "its own namespace");
    let open = index(&[&mesh(), GRANT].join("\n---\n"));
    assert!(open.may_refer(&from(Kind::HttpRoute, "shop"), &items));
    assert!(!open.may_refer(&from(Kind::HttpRoute, "desk"), &items));
    assert!(!open.may_refer(&from(Kind::GrpcRoute, "shop"), &items));
    assert!(!open.may_refer(&from(Kind::HttpRoute, "shop"), &ServiceName::new("stock", "keys")));
    assert!(!open.may_refer(&from(Kind::HttpRoute, "shop"), &ServiceName::new("stocks", "items")));
    let all = index(&[mesh(), GRANT.replace(", name: items", "")].join("\n---\n"));
    assert!(all.may_refer(&from(Kind::HttpRoute, "shop"), &ServiceName::new("stock", "keys")));
}

fn rules(yaml: &str) -> Vec<HttpRule> {
    let index = index(yaml);
    let route = index.routes().next().expect("a route");
    match &route.spec {
        RouteSpec::Http(spec) => spec.rules.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_route_is_read_whole_and_what_is_not_known_is_named() {
    let yaml = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a, namespace: shop, generation: 4, creationTimestamp: '2026-01-01T00:00:00Z'}
spec:
  parentRefs: [{group: '', kind: Service, name: cart}]
  hostnames: null
  somethingNew: {deep: [1]}
  rules:
  - name: beta
    matches:
    - path: {type: RegularExpression, value: '/p/[0-9]+'}
      headers: [{name: x-user, value: beta}]
      queryParams: [{type: Exact, name: q, value: '1'}]
      method: GET
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [c]}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}, fraction: {numerator: 1, denominator: 3}}}
    - {type: CORS, cors: {allowOrigins: ['*'], maxAge: 10, allowCredentials: true}}
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
    - {type: ExternalAuth, externalAuth: {protocol: GRPC}}
    backendRefs:
    - name: cart-v2
      port: 80
      weight: 3
      filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x, value: y}]}}]
    timeouts: {request: 10s, backendRequest: 500ms}
    retry: {codes: [503], attempts: 2, backoff: 100ms}
    sessionPersistence: {type: Cookie, sessionName: s, cookieConfig: {lifetimeType: Session}}
";
    let rules = rules(yaml);
    let [rule] = rules.as_slice() else { panic!("one rule") };
    let types: Vec<_> = rule.filters.iter().map(Filter::type_).collect();
    assert_eq!(types, ["RequestHeaderModifier", "RequestMirror", "CORS", "URLRewrite", "ExternalAuth"]);
    assert_eq!(rule.filters[4], Filter::Unknown("ExternalAuth".into()));
    assert_eq!(rule.backend_refs[0].weight, Some(3));
    assert_eq!(rule.backend_refs[0].filters[0].type_(), "ResponseHeaderModifier");
    assert_eq!(rule.timeouts.as_ref().and_then(|all| all.request).map(|time| time.0.as_secs()), Some(10));
    assert_eq!(rule.retry.as_ref().and_then(|retry| retry.attempts), Some(2));
    let index = index(yaml);
    let route = index.route(&key(Kind::HttpRoute, "a")).expect("the route");
    assert_eq!((route.generation, &*route.created), (4, "2026-01-01T00:00:00Z"));
    let backends: Vec<_> = route.backends().iter().map(ToString::to_string).collect();
    assert_eq!(backends, ["cart-v2.shop", "shadow.shop"], "a mirror's too");
    assert_eq!(route.rule_names(), ["beta"]);
}

#[test]
fn every_kind_is_known_by_its_versions() {
    for (api_version, kind, expected) in [
        ("gateway.networking.k8s.io/v1", "HTTPRoute", Some(Kind::HttpRoute)),
        ("gateway.networking.k8s.io/v1beta1", "HTTPRoute", Some(Kind::HttpRoute)),
        ("gateway.networking.k8s.io/v1alpha2", "TCPRoute", Some(Kind::TcpRoute)),
        ("gateway.networking.x-k8s.io/v1alpha1", "XBackendTrafficPolicy", Some(Kind::XBackendTrafficPolicy)),
        ("policy.weft.mesh/v1alpha1", "TrafficPolicy", Some(Kind::TrafficPolicy)),
        ("gateway.networking.k8s.io/v2", "HTTPRoute", None),
        ("example.net/v1", "HTTPRoute", None),
        ("v1", "HTTPRoute", None),
        ("gateway.networking.k8s.io/v1", "Service", None),
        ("apps/v1", "Service", None),
        ("v1", "Service", Some(Kind::Service)),
        ("v1", "ConfigMap", Some(Kind::ConfigMap)),
        ("gateway.networking.k8s.io/v1", "BackendTLSPolicy", Some(Kind::BackendTlsPolicy)),
    ] {
        assert_eq!(Kind::named(api_version, kind), expected, "{api_version} {kind}");
    }
}

#[test]
fn policies_are_found_by_target_and_broken_ones_are_named() {
    let target = "{kind: Service, name: cart, sectionName: http}, {kind: Namespace, name: shop}";
    let good = policy("BackendPolicy", "limits", target, "limits: {maxRequests: 10}");
    let bad = policy("TrafficPolicy", "odd", "{kind: Service, name: cart}", "fault: {}");
    let foreign = "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: budget, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}, {group: example.net, kind: Queue, name: q}]
  retryConstraint: {budget: {percent: 30, interval: 5s}, minRetryRate: {count: 3, interval: 2s}}
";
    let index = index(&[mesh(), good, bad, foreign.into()].join("\n---\n"));
    let on = |target: &Key| {
        let policies = index.policies_on(target);
        policies.map(|policy| format!("{} {}", policy.key, policy.invalid)).collect::<Vec<_>>()
    };
    let cart = [
        "TrafficPolicy shop/odd true",
        "BackendPolicy shop/limits false",
        "XBackendTrafficPolicy shop/budget false",
    ];
    assert_eq!(on(&key(Kind::Service, "cart")), cart);
    assert_eq!(on(&Key::new(Kind::Namespace, "", "shop")), ["BackendPolicy shop/limits false"]);
    let limits = index.policy(&key(Kind::BackendPolicy, "limits")).expect("the policy");
    let [first, second] = limits.targets().try_into().expect("two targets");
    assert_eq!((first.at, first.section), (0, Some(Arc::from("http"))));
    assert_eq!((second.at, second.object), (1, Key::new(Kind::Namespace, "", "shop")));
    let problems = index.problems(&key(Kind::TrafficPolicy, "odd"));
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "TrafficPolicy shop/odd: spec.fault: the fault does nothing: add delay or abort; the policy is left out"
        ]
    );
    let policies = index.policies().map(|policy| policy.key.name.to_string()).collect::<Vec<_>>();
    assert_eq!(policies, ["odd", "limits", "budget"]);
}
