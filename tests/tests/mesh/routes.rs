//! Routes and policies on real traffic: manifests in the directory that control reads, real proxies, real connections.

use std::{
    io::{BufReader, Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};
use tests::{
    PATIENCE,
    app::{App, ok},
    eventually, holds,
    http::{Client, Message, read_head},
    manifest::Port,
    pod::Pod,
    world::World,
};

const PORT: u16 = 8080;

/// A client, and two versions of a service, each a Service by itself too.
struct Shop {
    world: World,
    client: Pod,
    web: SocketAddr,
    servers: [Pod; 2],
}

impl Shop {
    fn new() -> Self {
        let world = World::new();
        let client = world.meshed("client");
        let servers = ["web1", "web2"].map(|app| world.meshed(app));
        for (service, app) in [("web", "web1"), ("web-v1", "web1"), ("web-v2", "web2")] {
            world.service(service, app, &[Port::auto(PORT)]);
        }
        // The first one that was made.
        let web = SocketAddr::from(([10, 96, 0, 1], PORT));
        Self { world, client, web, servers }
    }

    /// Gives this to control, and waits until a request for `path` is answered as `expected` says.
    fn apply(&self, text: &str, path: &str, expected: impl Fn(&Message) -> bool) {
        self.world.manifests.write("routes.yaml", text);
        eventually(PATIENCE, || {
            let answer = self.client().get(path);
            holds(
                expected(&answer),
                format!("{path}: {answer:?}; problems: {}", self.world.control.page("/problems")),
            )
        });
    }

    fn client(&self) -> Client {
        self.client.client(self.web)
    }
}

/// An application that says which version it is, and what it was asked.
fn version(pod: &Pod, name: &'static str) -> App {
    App::http(pod, PORT, move |request| {
        let host = request.head.field("host").unwrap_or_default();
        let added = request.head.field("x-added").unwrap_or_default();
        ok(&format!("{name} {} {host} {added}", request.head.target()))
    })
}

/// HTTPRoute `web` of Service `web` with these rules.
fn route(rules: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: test}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: web, port: {PORT}}}]
  rules:
{rules}"
    )
}

#[test]
fn a_route_steers_requests() {
    let shop = Shop::new();
    let _apps = [version(&shop.servers[0], "v1"), version(&shop.servers[1], "v2")];
    let rules = "
  - matches: [{headers: [{name: X-Version, value: v2}]}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X-Added, value: \"yes\"}]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Rule, value: beta}]}}
    backendRefs: [{name: web-v2, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {hostname: new.example, statusCode: 308, path: {type: ReplacePrefixMatch, replacePrefixMatch: /fresh}}
  - matches: [{path: {type: PathPrefix, value: /api}}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: api.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
    backendRefs: [{name: web-v2, port: 8080}]
  - matches: [{path: {type: Exact, value: /missing}}]
    backendRefs: [{name: nobody, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /v1}}]
    backendRefs: [{name: web-v1, port: 8080}]
";
    shop.apply(&route(rules), "/elsewhere", |answer| answer.head.status() == 404);
    let mut client = shop.client();
    let mut ask = |target: &str, field: &str| {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: web:8080\r\n{field}\r\n"));
        client.answer("GET")
    };
    for (target, field, status, text) in [
        ("/v1/a?b=c", "", 200, "v1 /v1/a?b=c web:8080 "),
        ("/v1/%7Ea", "", 200, "v1 /v1/%7Ea web:8080 "),
        // A longer path goes before a field (HTTPRouteRule.matches).
        ("/v1/a", "X-Version: v2\r\n", 200, "v1 /v1/a web:8080 "),
        ("/any", "X-Version: v2\r\n", 200, "v2 /any web:8080 yes"),
        ("/api/x?y=z", "", 200, "v2 /x?y=z api.example "),
        ("/missing", "", 500, ""),
        ("/v2", "", 404, ""),
    ] {
        let answer = ask(target, field);
        assert_eq!(answer.head.status(), status, "{target} {field}: {answer:?}");
        if status == 200 {
            assert_eq!(answer.text(), text, "{target} {field}");
        } else {
            assert!(answer.head.field("proxy-status").is_some(), "{target}: {answer:?}");
        }
    }
    let answer = ask("/any", "X-Version: v2\r\n");
    assert_eq!(answer.head.field("x-rule"), Some("beta"), "{answer:?}");
    let answer = ask("/old/a?b=c", "");
    assert_eq!(
        (answer.head.status(), answer.head.field("location")),
        (308, Some("http://new.example:8080/fresh/a?b=c"))
    );
}

#[test]
fn weights_share_requests_and_shift_under_a_running_stream() {
    let shop = Shop::new();
    let _two = version(&shop.servers[1], "v2");
    let go = Arc::new(AtomicUsize::new(0));
    let _one = App::tcp(&shop.servers[0], PORT, {
        let go = go.clone();
        move |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Ok(Some(head)) = read_head(&mut reader) {
                if head.target() == "/slow" {
                    let _ = write!(
                        &stream,
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n"
                    );
                    while go.load(SeqCst) == 0 {
                        thread::sleep(Duration::from_millis(5));
                    }
                    let _ = write!(&stream, "5\r\nended\r\n0\r\n\r\n");
                } else {
                    let _ = (&stream).write_all(&ok("v1 "));
                }
            }
        }
    });
    let weighted = |one: u32, two: u32| {
        route(&format!(
            "  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: X-Weights, value: \"{one} {two}\"}}]}}}}]
    backendRefs: [{{name: web-v1, port: 8080, weight: {one}}}, {{name: web-v2, port: 8080, weight: {two}}}]\n"
        ))
    };
    let has = |weights: &'static str| move |answer: &Message| answer.head.field("x-weights") == Some(weights);
    shop.apply(&weighted(1, 0), "/", has("1 0"));
    let mut slow = shop.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: web\r\n\r\n");
    let head = slow.head().unwrap();
    assert_eq!(head.field("x-weights"), Some("1 0"));
    shop.apply(&weighted(3, 1), "/", has("3 1"));
    let mut client = shop.client();
    let v2 = (0..800).filter(|_| client.get("/").text().starts_with("v2")).count();
    // A quarter of 800, and five standard deviations about it.
    assert!((140..260).contains(&v2), "{v2} of 800 went to v2");
    shop.apply(&weighted(0, 1), "/", has("0 1"));
    assert!((0..50).all(|_| client.get("/").text().starts_with("v2")));
    // The stream that was begun before ends as it would have.
    go.store(1, SeqCst);
    let mut rest = vec![0; "5\r\nbegun\r\n5\r\nended\r\n0\r\n\r\n".len()];
    slow.reader().read_exact(&mut rest).unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "5\r\nbegun\r\n5\r\nended\r\n0\r\n\r\n");
}

#[test]
fn policies_hold_for_requests() {
    let shop = Shop::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let _app = App::http(&shop.servers[0], PORT, {
        let asked = asked.clone();
        move |request| match request.head.target() {
            "/flaky" if asked.fetch_add(1, SeqCst).is_multiple_of(2) => {
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec()
            }
            "/slow" => {
                thread::sleep(Duration::from_millis(1_500));
                ok("late")
            }
            _ => ok(&String::from_utf8_lossy(&request.body)),
        }
    });
    let policy = |spec: &str| {
        format!(
            "
apiVersion: policy.weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: {{name: web, namespace: test}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: web}}]
  {spec}
"
        )
    };
    let mut client = shop.client();
    assert_eq!(client.get("/flaky").head.status(), 503, "nobody asked for repetitions");
    shop.apply(&policy("directResponse: {status: 418, body: tea}"), "/", |answer| {
        answer.head.status() == 418 && answer.text() == "tea"
    });
    asked.store(0, SeqCst);
    shop.apply(&policy("retry: {httpCodes: [503], attempts: 2}"), "/", |answer| answer.head.status() == 200);
    for body in ["", "a body"] {
        asked.store(0, SeqCst);
        let answer = client.try_request("POST", "/flaky", body).unwrap();
        assert_eq!(
            (answer.head.status(), answer.text()),
            (200, body),
            "the second time with all of its body"
        );
        assert_eq!(asked.load(SeqCst), 2);
    }
    shop.apply(&policy("timeouts: {request: 200ms}\n  fault: {abort: {httpStatus: 410, percent: 100}, headers: [{name: x-fault, value: \"1\"}]}"), "/slow", |answer| {
        answer.head.status() == 504
    });
    let answer = client.get("/slow");
    let said = answer.head.field("proxy-status").unwrap_or_default();
    assert!(said.contains("http_response_timeout") && said.contains("TrafficPolicy test/web"), "{said}");
    client = shop.client();
    client.send("GET / HTTP/1.1\r\nHost: web\r\nX-Fault: 1\r\n\r\n");
    let answer = client.answer("GET");
    assert_eq!(answer.head.status(), 410);
    assert!(answer.head.field("proxy-status").unwrap_or_default().contains("fault_injected"), "{answer:?}");
    assert_eq!(client.get("/").head.status(), 200, "without the field there is no fault");
}

/// RFC 9110 §9.2.2: what is not idempotent is never executed twice by a proxy's own will.
#[test]
fn a_post_that_is_read_and_reset_is_executed_once_unless_a_policy_says_otherwise() {
    let shop = Shop::new();
    let executed = Arc::new(AtomicUsize::new(0));
    let _app = App::tcp(&shop.servers[0], PORT, {
        let executed = executed.clone();
        move |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Ok(Some(head)) = read_head(&mut reader) {
                if head.method() == "GET" {
                    let _ = (&stream).write_all(&ok(""));
                    continue;
                }
                let mut body = [0; 4];
                reader.read_exact(&mut body).unwrap();
                executed.fetch_add(1, SeqCst);
                return;
            }
        }
    });
    for (retry, times) in [
        ("{httpCodes: [500, 502, 503, 504], attempts: 3}", 1),
        ("{attempts: 3}", 1),
        ("{httpCodes: [503], grpcCodes: [UNAVAILABLE], attempts: 3, perTryTimeout: 5s}", 1),
        ("{reasons: [connection_terminated], attempts: 2}", 3),
    ] {
        let rules = format!(
            "  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: X-Retry, value: '{retry}'}}]}}}}]
    backendRefs: [{{name: web-v1, port: 8080}}]\n"
        );
        let policy = format!(
            "
apiVersion: policy.weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: {{name: web, namespace: test, annotations: {{say: \"{times}\"}}}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: web}}]
  retry: {retry}
---{}",
            route(&rules)
        );
        shop.apply(&policy, "/", |answer| answer.head.field("x-retry") == Some(retry));
        executed.store(0, SeqCst);
        let answer = shop.client().try_request("POST", "/", "pay!").unwrap();
        assert_eq!(answer.head.status(), 502, "{retry}: {answer:?}");
        assert_eq!(executed.load(SeqCst), times, "{retry}");
    }
}

/// A bad object is named, and nothing else changes.
#[test]
fn a_bad_object_changes_nothing_else() {
    let shop = Shop::new();
    let _app = version(&shop.servers[0], "v1");
    let good = "  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Good, value: \"1\"}]}}]
    backendRefs: [{name: web-v1, port: 8080}]\n";
    shop.apply(&route(good), "/", |answer| answer.head.field("x-good") == Some("1"));
    shop.world.manifests.write(
        "bad.yaml",
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad, namespace: test}
spec:
  parentRefs: [{group: \"\", kind: Service, name: web, port: 8080}]
  rules:
  - matches: [{path: {type: RegularExpression, value: \"(\"}}]
    backendRefs: [{name: web-v1, port: 8080}]
---
apiVersion: policy.weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: {name: lost, namespace: test}
spec:
  targetRefs: [{group: \"\", kind: Service, name: nobody}]
  timeouts: {request: 1s}
",
    );
    eventually(PATIENCE, || {
        let problems = shop.world.control.page("/problems");
        holds(
            problems.contains("HTTPRoute test/bad") && problems.contains("TrafficPolicy test/lost"),
            format!("both are named: {problems}"),
        )
    });
    let answer = shop.client().get("/");
    assert_eq!((answer.head.status(), answer.head.field("x-good")), (200, Some("1")));
}
