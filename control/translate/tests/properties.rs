//! What holds of whatever objects there are: the order in which they came does not matter, whoever's answer changed is
//! touched, and no object makes an answer that a proxy would refuse.

use control_index::{Index, Key, Kind, Object, Touched};
use control_translate::{Detected, Mesh, Status, problems, status};
use policy::{Endpoint, Outbound, ServiceName, ServicePort, TrustDomain};
use proptest::{collection::vec, option, prelude::*, sample::select};
use proxy_wire::v1;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const POLICY: &str = "policy.weft.mesh/v1alpha1";
const NAMESPACES: [&str; 3] = ["shop", "web", "nobody"];
/// Namespace, name and address of each Service that there may be.
const SERVICES: [(&str, &str, &str); 3] =
    [("shop", "a", "10.0.0.1"), ("shop", "b", "10.0.0.2"), ("web", "a", "10.0.0.3")];

/// An object comes, or the one of its name goes.
#[derive(Clone, Debug)]
struct Change {
    value: Value,
    goes: bool,
}

// ---- objects that meet ----

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let object = prop_oneof![
        4 => service(),
        4 => route("HTTPRoute", http_rule().boxed()),
        2 => route("GRPCRoute", grpc_rule().boxed()),
        1 => route("TLSRoute", plain_rule().boxed()),
        1 => route("TCPRoute", plain_rule().boxed()),
        3 => traffic_policy(),
        3 => backend_policy(),
        1 => x_policy(),
        1 => tls_policy(),
        1 => config_map(),
        1 => pod(),
    ];
    // These say little beside all others, and more among themselves.
    let behind = prop_oneof![2 => service(), 3 => tls_policy(), 3 => config_map(), 3 => pod()];
    prop_oneof![2 => vec(change(object.boxed()), 1..24), 1 => vec(change(behind.boxed()), 8..40)]
}

fn change(object: BoxedStrategy<Value>) -> impl Strategy<Value = Change> {
    (object, prop::bool::weighted(0.2)).prop_map(|(value, goes)| Change { value, goes })
}

fn metadata(namespace: &str, name: &str, created: u8) -> Value {
    let mut metadata = json!({"namespace": namespace, "name": name});
    if created > 0 {
        metadata["creationTimestamp"] = json!(format!("202{created}-01-01T00:00:00Z"));
    }
    metadata
}

fn place() -> impl Strategy<Value = (&'static str, &'static str, u8)> {
    (select(vec!["shop", "web"]), select(vec!["a", "b"]), 0..3u8)
}

fn service() -> impl Strategy<Value = Value> {
    let protocol = select(vec!["", "", "HTTP1", "tcp", "kubernetes.io/h2c", "https"]);
    (select(SERVICES.to_vec()), protocol, any::<bool>(), any::<bool>()).prop_map(
        |((namespace, name, ip), protocol, both, headless)| {
            let mut ports = vec![json!({"name": "http", "port": 80})];
            if !protocol.is_empty() {
                ports[0]["appProtocol"] = json!(protocol);
            }
            if both {
                ports.push(json!({"name": "admin", "port": 81}));
            }
            let ip = if headless && both { "None" } else { ip };
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(namespace, name, 0),
                "spec": {"clusterIP": ip, "ports": ports, "selector": {"app": name}}})
        },
    )
}

fn pod() -> impl Strategy<Value = Value> {
    (select(SERVICES.to_vec()), any::<bool>(), 1..3u8).prop_map(|((namespace, name, ip), meshed, number)| {
        let mut metadata = metadata(namespace, &format!("{name}-{number}"), 0);
        metadata["labels"] = json!({"app": name, "weft.mesh/injected": meshed.to_string()});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []},
            "status": {"podIP": ip.replacen("10.0", &format!("10.{number}"), 1)}})
    })
}

fn tls_policy() -> impl Strategy<Value = Value> {
    let section = select(vec![json!(null), json!("http"), json!("admin")]);
    let names = vec(select(vec!["a", "b"]), 0..3);
    let hostname = select(vec!["a.example", "a.example", "not a name"]);
    (place(), section, names, hostname, option::weighted(0.3, select(vec!["System", "Ours"]))).prop_map(
        |((namespace, name, created), section, names, hostname, known)| {
            let refs: Vec<Value> =
                names.iter().map(|name| json!({"group": "", "kind": "ConfigMap", "name": name})).collect();
            json!({"apiVersion": GATEWAY, "kind": "BackendTLSPolicy", "metadata": metadata(namespace, name, created),
                "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "a", "sectionName": section}],
                    "validation": {"hostname": hostname, "caCertificateRefs": refs, "wellKnownCACertificates": known,
                        "subjectAltNames": [{"type": "Hostname", "hostname": "*.a.example"}]}}})
        },
    )
}

fn config_map() -> impl Strategy<Value = Value> {
    // An empty SEQUENCE, and one of one octet.
    let pem = |base64: &str| format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    let texts = vec![json!(null), json!("words"), json!(pem("MAA=")), json!(pem("MAEA"))];
    (place(), select(texts)).prop_map(|((namespace, name, _), text)| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(namespace, name, 0), "data": {"ca.crt": text}})
    })
}

fn route(kind: &'static str, rule: BoxedStrategy<Value>) -> impl Strategy<Value = Value> {
    let parent = (select(vec!["shop", "web"]), select(vec!["a", "b"]), option::of(select(vec![80, 81])));
    let hostnames = vec(select(vec!["a.example", "*.b.example", "not a name"]), 0..2);
    (place(), vec(parent, 1..3), vec(rule, 0..3), hostnames).prop_map(
        move |((namespace, name, created), parents, rules, hostnames)| {
            let parent = |(namespace, name, port): (&str, &str, Option<i32>)| {
                let mut parent =
                    json!({"group": "", "kind": "Service", "namespace": namespace, "name": name});
                if let Some(port) = port {
                    parent["port"] = json!(port);
                }
                parent
            };
            let parents: Vec<Value> = parents.into_iter().map(parent).collect();
            json!({"apiVersion": GATEWAY, "kind": kind, "metadata": metadata(namespace, name, created),
                "spec": {"parentRefs": parents, "hostnames": hostnames, "rules": rules}})
        },
    )
}

/// Some that mean something and some that nobody could write on a wire.
fn texts() -> impl Strategy<Value = &'static str> {
    select(vec!["/a", "/a", "/b/", "/%61", "relative", "/é", "/a?b", "(", "", "a b", "x\ny", "X-Ok", "x-ok"])
}

fn backends() -> impl Strategy<Value = Vec<Value>> {
    let backend =
        (select(vec!["shop", "web"]), select(vec!["a", "b"]), select(vec![80, 81]), -1..4i32, filters());
    let read = |(namespace, name, port, weight, filters): (&str, &str, i32, i32, Vec<Value>)| {
        let weight = if weight < 0 { json!(null) } else { json!(weight) };
        json!({"namespace": namespace, "name": name, "port": port, "weight": weight, "filters": filters})
    };
    vec(backend.prop_map(read), 0..3)
}

fn filters() -> impl Strategy<Value = Vec<Value>> {
    let filter = (0..9u8, texts(), texts()).prop_map(|(kind, one, other)| match kind {
        0 => json!({"type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": one, "value": other}], "remove": ["x-gone"]}}),
        1 => json!({"type": "RequestMirror",
            "requestMirror": {"backendRef": {"name": "b", "port": 80}, "percent": 10}}),
        2 => json!({"type": "RequestRedirect",
            "requestRedirect": {"hostname": one, "path": {"type": "ReplaceFullPath", "replaceFullPath": other}}}),
        3 => json!({"type": "URLRewrite",
            "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": one}}}),
        4 => json!({"type": "CORS", "cors": {"allowOrigins": ["*", one], "allowHeaders": [other]}}),
        5 => json!({"type": "ExtensionRef", "extensionRef": {"group": "g", "kind": "K", "name": "n"}}),
        6 => json!({"type": "URLRewrite", "urlRewrite": {"hostname": "b.example"}}),
        7 => json!({"type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"add": [{"name": "x-a", "value": one}]}}),
        _ => json!({"type": "Unheard"}),
    });
    // Most rules have none, so that some hold.
    prop_oneof![4 => Just(Vec::new()), 1 => vec(filter, 1..3)]
}

fn http_rule() -> impl Strategy<Value = Value> {
    let kind = select(vec!["Exact", "PathPrefix", "PathPrefix", "RegularExpression"]);
    let one =
        (kind, texts(), option::of(texts()), option::of(texts())).prop_map(|(kind, path, header, query)| {
            let mut one = json!({"path": {"type": kind, "value": path}});
            if let Some(header) = header {
                one["headers"] = json!([{"name": header, "value": "v"}]);
            }
            if let Some(query) = query {
                one["queryParams"] = json!([{"name": query, "value": "v"}]);
            }
            one
        });
    let times = option::of((select(vec!["0s", "1s", "2s"]), select(vec!["0s", "1s", "2s"])));
    (
        vec(one, 0..3),
        filters(),
        backends(),
        times,
        option::of(400..700u16),
        option::of(texts()),
        any::<bool>(),
    )
        .prop_map(|(matches, filters, backends, times, code, session, named)| {
            let mut rule = json!({"matches": matches, "filters": filters, "backendRefs": backends});
            if let Some((request, backend)) = times {
                rule["timeouts"] = json!({"request": request, "backendRequest": backend});
            }
            if let Some(code) = code {
                rule["retry"] = json!({"codes": [code], "backoff": "1s"});
            }
            if let Some(session) = session {
                rule["sessionPersistence"] = json!({"sessionName": session});
            }
            if named {
                rule["name"] = json!("named");
            }
            rule
        })
}

fn grpc_rule() -> impl Strategy<Value = Value> {
    let one = (texts(), any::<bool>()).prop_map(|(service, regex)| {
        let kind = if regex { "RegularExpression" } else { "Exact" };
        json!({"method": {"type": kind, "service": service}})
    });
    (vec(one, 0..3), filters(), backends()).prop_map(
        |(matches, filters, backends)| json!({"matches": matches, "filters": filters, "backendRefs": backends}),
    )
}

fn plain_rule() -> impl Strategy<Value = Value> {
    backends().prop_map(|backends| json!({"name": "named", "backendRefs": backends}))
}

fn targets() -> impl Strategy<Value = Vec<Value>> {
    let object = select(vec![
        json!({"group": "", "kind": "Service", "name": "a"}),
        json!({"group": "", "kind": "Service", "name": "a", "sectionName": "http"}),
        json!({"group": "", "kind": "Service", "name": "b"}),
        json!({"group": "", "kind": "Namespace", "name": "shop"}),
        json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "a"}),
        json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "a", "sectionName": "named"}),
        json!({"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "name": "b"}),
    ]);
    vec(object, 1..3)
}

fn traffic_policy() -> impl Strategy<Value = Value> {
    let word = select(vec!["connection_refused", "bad_luck"]);
    (place(), targets(), 0..4u8, texts(), word).prop_map(|((namespace, name, created), targets, what, text, word)| {
        let mut spec = json!({"targetRefs": targets});
        match what {
            0 => spec["timeouts"] = json!({"request": "3s", "idle": "0s"}),
            1 => spec["retry"] = json!({"attempts": 2, "reasons": [word], "bodyLimit": "1Ki"}),
            2 => spec["fault"] = json!({"abort": {"httpStatus": 503, "percent": 0.5}, "headers": [{"name": text, "value": text}]}),
            _ => spec["directResponse"] = json!({"status": 404, "body": text}),
        }
        json!({"apiVersion": POLICY, "kind": "TrafficPolicy", "metadata": metadata(namespace, name, created), "spec": spec})
    })
}

fn backend_policy() -> impl Strategy<Value = Value> {
    (place(), targets(), 0..4u8, texts()).prop_map(|((namespace, name, created), targets, what, text)| {
        let mut spec = json!({"targetRefs": targets});
        match what {
            0 => spec["limits"] = json!({"maxRequests": 2}),
            1 => spec["failureAccrual"] = json!({"maxFailures": 2}),
            2 => spec["failureAccrual"] = json!({"mode": "None"}),
            _ => spec["sessionPersistence"] = json!({"sessionName": text}),
        }
        json!({"apiVersion": POLICY, "kind": "BackendPolicy", "metadata": metadata(namespace, name, created), "spec": spec})
    })
}

fn x_policy() -> impl Strategy<Value = Value> {
    (place(), select(vec!["0s", "5s"]), select(vec![30, 130])).prop_map(
        |((namespace, name, created), interval, percent)| {
            json!({"apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackendTrafficPolicy",
            "metadata": metadata(namespace, name, created),
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "a"}],
                "retryConstraint": {"budget": {"interval": interval, "percent": percent}}}})
        },
    )
}

fn object(value: &Value) -> Object {
    let text = |field: &str| value[field].as_str().expect("a text").to_owned();
    let kind = Kind::named(&text("apiVersion"), &text("kind")).expect("a kind");
    kind.read(value.clone()).expect("an object")
}

// ---- what is seen of them ----

/// All that can be asked.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    outbound: BTreeMap<(SocketAddr, &'static str), Outbound>,
    endpoints: BTreeMap<ServicePort, Vec<Endpoint>>,
    said: BTreeMap<Key, (Option<Status>, Vec<String>)>,
}

fn see(index: &Index, keys: &BTreeSet<Key>) -> Seen {
    let detected = Detected::default();
    let trust_domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
    let mesh = Mesh { index, detected: &detected, trust_domain: &trust_domain };
    let mut outbound = BTreeMap::new();
    for (_, _, ip) in SERVICES {
        for port in [80, 81] {
            let address = SocketAddr::new(ip.parse().expect("an address"), port);
            outbound.extend(NAMESPACES.map(|from| ((address, from), mesh.outbound(address, from))));
        }
    }
    let ports = SERVICES
        .iter()
        .flat_map(|(namespace, name, _)| [80, 81].map(|port| ServiceName::new(namespace, name).port(port)));
    let endpoints = ports.map(|port| (port.clone(), mesh.endpoints(&port, None))).collect();
    let said = |key: &Key| {
        let problems = problems(index, key).iter().map(ToString::to_string).collect();
        (key.clone(), (status(index, key), problems))
    };
    Seen { outbound, endpoints, said: keys.iter().map(said).collect() }
}

/// Is what is said about an object to be judged anew?
fn is_touched(touched: &Touched, key: &Key) -> bool {
    let service = touched.services.iter().any(|one| one.namespace == key.namespace && one.name == key.name);
    touched.routes.contains(key) || touched.policies.contains(key) || (key.kind == Kind::Service && service)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn whose_answer_changed_is_touched_and_order_does_not_matter(changes in changes()) {
        let objects: Vec<(Object, bool)> = changes.iter().map(|one| (object(&one.value), one.goes)).collect();
        let keys: BTreeSet<Key> = objects.iter().map(|(object, _)| object.key().clone()).collect();
        let mut index = Index::default();
        let mut held: BTreeMap<Key, Object> = BTreeMap::new();
        let mut before = see(&index, &keys);
        for (object, goes) in objects {
            let key = object.key().clone();
            let touched = if goes { index.delete(&key) } else { index.apply(&object) };
            if goes { held.remove(&key) } else { held.insert(key.clone(), object) };
            let after = see(&index, &keys);
            for (question, answer) in &after.outbound {
                let ip: IpAddr = question.0.ip();
                let same = before.outbound[question] == *answer;
                prop_assert!(same || touched.addresses.contains(&ip), "{key} changes {question:?} silently");
            }
            for (port, answer) in &after.endpoints {
                let same = before.endpoints[port] == *answer;
                prop_assert!(same || touched.services.contains(&port.service), "{key} changes who is behind {port} silently");
            }
            for (other, said) in &after.said {
                let same = before.said[other] == *said || *other == key;
                prop_assert!(same || is_touched(&touched, other), "{key} changes what is said of {other} silently");
            }
            before = after;
        }
        let mut other = Index::default();
        held.values().rev().for_each(|object| drop(other.apply(object)));
        prop_assert_eq!(see(&other, &keys), before);
    }

    #[test]
    fn no_object_makes_an_answer_that_a_proxy_refuses(changes in changes()) {
        let mut index = Index::default();
        changes.iter().for_each(|one| drop(index.apply(&object(&one.value))));
        let seen = see(&index, &BTreeSet::new());
        for (port, answer) in seen.endpoints {
            let read = Vec::<Endpoint>::try_from(&v1::EndpointSet::from(answer.as_slice()));
            let read = read.map_err(|error| TestCaseError::fail(format!("{port}: {error}")))?;
            prop_assert_eq!(read, answer);
        }
        for (question, answer) in seen.outbound {
            let read = Outbound::try_from(&v1::OutboundPolicy::from(&answer));
            let read = read.map_err(|error| TestCaseError::fail(format!("{question:?}: {error}")))?;
            prop_assert_eq!(read, answer);
        }
    }
}
