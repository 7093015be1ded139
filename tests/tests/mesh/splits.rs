//! Routes that lead to several: copies, sessions, and connections of bytes, of servers with a proxy and without. Each filter, in each
//! version of HTTP, stands in the tables of `proxy-app`.

use crate::load::PORT;
use std::{
    collections::HashSet,
    io::{Read, Write},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tests::{
    app::{App, ok},
    certificate::Issued,
    eventually,
    http::Message,
    manifest::{NAMESPACE, Port},
    pod::Pod,
    program::Program,
    world::World,
};

/// How soon after a document was written its effect must be seen, with time for a first connection to control.
const SOON: Duration = Duration::from_secs(5);

/// A meshed client, Service `web` whose pods nobody reaches by a rule, and two that rules lead to.
struct Split {
    client: Pod,
    pods: [Pod; 3],
    address: SocketAddr,
    /// After its pods.
    world: World,
}

impl Split {
    fn new() -> Self {
        Self::speaking(Port::auto(PORT))
    }

    /// With this port at each of the Services.
    fn speaking(port: Port) -> Self {
        let world = World::new();
        let port = [port];
        let web = world.service("web", "web", &port);
        world.service("v1", "v1", &port);
        world.service("v2", "v2", &port);
        let pods = [world.meshed("web"), world.meshed("v1"), world.unmeshed("v2")];
        Self { client: world.meshed("client"), pods, address: web.at(PORT)[0], world }
    }

    fn route(&self, rules: &str) {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, namespace: {NAMESPACE}}}\n\
             spec:\n  parentRefs: [{{group: \"\", kind: Service, name: web, port: {PORT}}}]\n  rules:\n{rules}"
        );
        self.world.manifests.write("route.yaml", &text);
    }

    /// The answer to a request with these lines, which end in an empty one.
    fn ask(&self, request: &str) -> Message {
        let mut client = self.client.client(self.address);
        client.send(request.replace('\n', "\r\n"));
        client.answer(request.split(' ').next().unwrap())
    }

    /// Until the answer to a GET is this one's.
    fn until(&self, within: Duration, target: &str, app: &str) {
        eventually(within, || {
            let answer = self.ask(&format!("GET {target} HTTP/1.1\nHost: web.test\n\n"));
            if answer.text().starts_with(&format!("{app}\n")) { Ok(()) } else { Err(answer) }
        });
    }
}

fn named(pod: &Pod, count: Arc<AtomicUsize>) -> App {
    let app = pod.manifest.app.clone();
    App::http(pod, PORT, move |request| {
        count.fetch_add(1, SeqCst);
        let fields = request.head.fields.iter().map(|(name, value)| format!("{name}: {value}\n"));
        let body = String::from_utf8_lossy(&request.body).into_owned();
        ok(&format!("{app}\n{}\n{}{body}", request.head.start, fields.collect::<String>()))
    })
}

/// Copies come to where they are sent, and a server of theirs that fails is nobody's failure.
#[test]
fn copies_are_seen_by_others_and_by_nobody_else() {
    let split = Split::new();
    let (counts, mut apps): (Vec<Arc<AtomicUsize>>, Vec<App>) = split
        .pods
        .iter()
        .map(|pod| {
            let count = Arc::<AtomicUsize>::default();
            (count.clone(), named(pod, count))
        })
        .unzip();
    split.route(&format!(
        "  - filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: v2, port: {PORT}}}}}}}]
    backendRefs: [{{name: v1, port: {PORT}}}]\n"
    ));
    split.until(SOON, "/", "v1");
    let before = counts[1].load(SeqCst);
    for _ in 0..100 {
        let answer = split.ask("POST / HTTP/1.1\nHost: web.test\nContent-Length: 5\n\nhello");
        assert!(answer.text().starts_with("v1\n") && answer.text().ends_with("hello"), "{answer:?}");
    }
    eventually(SOON, || {
        let counts = [counts[1].load(SeqCst) - before, counts[2].load(SeqCst)];
        if counts[0] == 100 && counts[1] >= 100 { Ok(()) } else { Err(counts) }
    });
    drop(apps.pop());
    for _ in 0..20 {
        assert_eq!(split.ask("GET / HTTP/1.1\nHost: web.test\n\n").head.status(), 200);
    }
    eventually(SOON, || {
        let failed = split.client.metrics().sum("weft_mirrors_total", &[("outcome", "failed")]);
        if failed >= 20.0 { Ok(()) } else { Err(failed) }
    });
}

/// Sessions stay with their pod, until that goes.
#[test]
fn a_session_stays_with_its_pod() {
    let split = Split::new();
    let more = [split.world.meshed("v1"), split.world.meshed("v1")];
    let _apps: Vec<_> = split.pods[1..2]
        .iter()
        .chain(&more)
        .map(|pod| {
            let name = pod.manifest.name.clone();
            App::http(pod, PORT, move |_| ok(&format!("v1\n{name}")))
        })
        .collect();
    split.route(&format!(
        "  - {{name: sticky, sessionPersistence: {{sessionName: shop, type: Cookie}}, backendRefs: [{{name: v1, port: {PORT}}}]}}\n"
    ));
    split.until(SOON, "/", "v1");
    let mut pods = HashSet::new();
    for _ in 0..30 {
        let answer = split.ask("GET / HTTP/1.1\nHost: web.test\n\n");
        let cookie = answer.head.field("set-cookie").expect("a new session").split(';').next().unwrap();
        assert!(cookie.starts_with("shop="), "{cookie}");
        for _ in 0..3 {
            let again = split.ask(&format!("GET / HTTP/1.1\nHost: web.test\nCookie: {cookie}\n\n"));
            assert_eq!((again.text(), again.head.field("set-cookie")), (answer.text(), None));
        }
        pods.insert(answer.text().to_owned());
    }
    assert_eq!(pods.len(), 3, "{pods:?}");
}

/// Connections that are no requests go by a TCPRoute's weights.
#[test]
fn bytes_go_where_a_tcp_route_says() {
    let split = Split::new();
    let apps: Vec<_> = split
        .pods
        .iter()
        .map(|pod| {
            let app = pod.manifest.app.clone();
            App::tcp(pod, PORT, move |mut stream| {
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(app.as_bytes());
            })
        })
        .collect();
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {{name: web, namespace: {NAMESPACE}}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: web}}]\n  \
         rules: [{{backendRefs: [{{name: v1, port: {PORT}, weight: 0}}, {{name: v2, port: {PORT}}}]}}]\n"
    );
    split.world.manifests.write("route.yaml", &text);
    let said = || {
        let mut stream = split.client.connect(split.address).unwrap();
        stream.write_all(b"SSH-2.0-x\r\n").unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).map(|_| heard).map_err(|error| error.to_string())
    };
    eventually(SOON, || said().and_then(|heard| if heard == "v2" { Ok(()) } else { Err(heard) }));
    for _ in 0..20 {
        assert_eq!(said().unwrap(), "v2");
    }
    drop(apps);
}

/// A server of TLS in the pod, with a certificate for `name`, and the file of the authority that nobody else has.
fn secured(split: &Split, pod: &Pod, name: &str) -> (Program, String) {
    let Issued { certificate, key, authority } = Issued::new(split.world.folder(), name, name);
    let (port, path) = (PORT.to_string(), |path: &Path| path.display().to_string());
    let (key, certificate) = (path(&key), path(&certificate));
    let program =
        pod.start("openssl", ["s_server", "-accept", &port, "-www", "-key", &key, "-cert", &certificate]);
    pod.wait_for_port(PORT);
    (program, path(&authority))
}

/// TLS goes by the name that its client asks for, and stays the backend's own: curl trusts the authority of that backend alone.
#[test]
fn tls_goes_where_a_tls_route_says() {
    let split = Split::speaking(Port::declared(PORT, "tls"));
    let names = ["web.test", "v1.test", "v2.test"];
    let servers: Vec<_> =
        split.pods.iter().zip(names).map(|(pod, name)| secured(&split, pod, name)).collect();
    let route = |service: &str, hostname: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\n\
             metadata: {{name: {service}, namespace: {NAMESPACE}}}\nspec:\n  \
             parentRefs: [{{group: \"\", kind: Service, name: web}}]\n  hostnames: [\"{hostname}\"]\n  \
             rules: [{{backendRefs: [{{name: {service}, port: {PORT}}}]}}]\n"
        )
    };
    // The page, of whoever proves to be `name`; or why not.
    let asked = |name: &str, authority: &str| {
        let resolve = format!("{name}:{PORT}:{}", split.address.ip());
        let url = format!("https://{name}:{PORT}/");
        let mut curl = split.client.namespace.command("curl");
        let output = curl
            .args(["-sS", "-f", "-m", "5", "-v", "--cacert", authority, "--resolve", &resolve, &url])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    };
    let [web, v1, v2] = [0, 1, 2].map(|at: usize| servers[at].1.as_str());
    let own = asked("web.test", web)
        .unwrap_or_else(|said| panic!("without a route it is the Service's own: {said}"));
    assert!(own.contains("subject: CN=web.test"), "{own}");
    split.world.manifests.write("route.yaml", &[route("v1", "v1.test"), route("v2", "*.test")].join("---\n"));
    for (name, authority) in [("v1.test", v1), ("v2.test", v2)] {
        eventually(SOON, || asked(name, authority).map(drop));
        for _ in 0..10 {
            let said = asked(name, authority).unwrap_or_else(|said| panic!("{name}: {said}"));
            assert!(said.contains(&format!("subject: CN={name}")), "{name}: {said}");
        }
    }
    // Each name alone is somebody's, and a name of none is nobody's.
    let other = asked("other.test", v2).expect_err("it is answered by v2, which does not have this name");
    assert!(other.contains("CN=v2.test"), "{other}");
    let none = asked("other.example", web).expect_err("no TLSRoute has this name");
    assert!(!none.contains("subject: CN="), "{none}");
}
