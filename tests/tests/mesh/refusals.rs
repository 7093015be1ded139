//! What is refused, and that both sides say why: identities, garbage, limits, destinations that are not there.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::Duration,
};
use tests::{
    PATIENCE,
    app::App,
    eventually,
    forgery::Forged,
    grid::{Grid, Route},
    holds,
    http::Message,
    manifest::{Phase, PodManifest, Port},
    pod::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT, Pod, ProxyOptions},
    world::{Service, World},
};

const PORT: u16 = 8080;

/// The answer is the proxy's own, for this reason.
#[track_caller]
fn assert_refused(answer: &Message, status: u16, by: &str, reason: &str) {
    let told = answer.head.field("proxy-status").unwrap_or_default();
    let expected = format!("{by}; error={reason}");
    assert!(
        answer.head.status() == status && told.starts_with(&expected),
        "not {status}, {expected}: {answer:?}"
    );
    assert!(answer.text().contains(reason), "the page does not say {reason}: {}", answer.text());
}

/// The proxy counts the reason.
#[track_caller]
fn assert_counted(pod: &Pod, direction: &str, reason: &str) {
    eventually(PATIENCE, || {
        let metrics = pod.metrics();
        let counts: Vec<_> = metrics.0.lines().filter(|line| line.starts_with("weft_reasons")).collect();
        holds(
            metrics.reason(direction, reason) >= 1.0,
            format!("{} does not count {direction} {reason}, but {counts:?}", pod.manifest.name),
        )
    });
}

/// A meshed client, and a service whose one pod a test gives its proxy.
struct Pair {
    client: Pod,
    server: Pod,
    service: Service,
    app: Option<App>,
    world: World,
}

impl Pair {
    fn new(control: &[&str]) -> Self {
        let world = World::with_control(control);
        let service = world.service("web", "server", &[Port::auto(PORT)]);
        let server = world.pod("server", true, Phase::Ready);
        let app = App::mirror(&server, PORT);
        Self { client: world.pod("client", true, Phase::Ready), server, service, app: Some(app), world }
    }

    fn get(&self) -> Message {
        self.client.client(self.service.at(PORT)[0]).get("/")
    }

    fn options(&self, pod: &Pod) -> ProxyOptions {
        self.world.proxy_options(pod)
    }
}

#[test]
fn a_server_of_a_foreign_root_is_refused() {
    let mut pair = Pair::new(&[]);
    let foreign = pair.world.another_control("foreign", &[]);
    pair.client.start_proxy(pair.options(&pair.client));
    pair.server.start_proxy(foreign.proxy_options("server"));
    assert_refused(&pair.get(), 502, "weft-outbound", "tls_certificate_error");
    assert_counted(&pair.client, "outbound", "tls_certificate_error");
    assert_counted(&pair.server, "inbound", "tls_alert_received");
}

#[test]
fn a_client_of_a_foreign_root_is_refused() {
    let mut pair = Pair::new(&[]);
    let foreign = pair.world.another_control("foreign", &[]);
    // The client trusts both roots, the server only its own.
    let ours = fs::read(pair.world.control.trust_anchors()).unwrap();
    let theirs = fs::read(foreign.trust_anchors()).unwrap();
    fs::write(foreign.trust_anchors(), [theirs, ours].concat()).unwrap();
    pair.server.start_proxy(pair.options(&pair.server));
    pair.client.start_proxy(foreign.proxy_options("client"));
    // The second root comes with the stream of trust.
    eventually(PATIENCE, || {
        let answer = pair.get();
        let told = answer.head.field("proxy-status").unwrap_or_default();
        holds(told.contains("error=tls_alert_received"), format!("{answer:?}"))
    });
    assert_counted(&pair.client, "outbound", "tls_alert_received");
    assert_counted(&pair.server, "inbound", "tls_certificate_error");
}

#[test]
fn a_server_of_another_identity_is_refused() {
    let mut pair = Pair::new(&[]);
    pair.client.start_proxy(pair.options(&pair.client));
    pair.world.manifests.account("impostor");
    let mut options = pair.world.control.proxy_options("impostor");
    // It says that it is the server's pod, and holds a token of another account.
    eventually(PATIENCE, || fs::metadata(&options.token).map_err(|error| error.to_string()));
    options.flags.clear();
    pair.server.start_unready_proxy(options);
    eventually(PATIENCE, || {
        let (status, why) = pair.server.page("GET", "/ready").map_err(|error| error.to_string())?;
        // Either control gives it the identity that it has a token for, or none.
        holds(status == 200 || why.contains("token"), why)
    });
    let answer = pair.get();
    assert_eq!(answer.head.status(), 502, "{answer:?}");
    let reasons = ["tls_certificate_error", "tls_alert_received", "tls_protocol_error"];
    let told = answer.head.field("proxy-status").unwrap_or_default();
    assert!(reasons.iter().any(|reason| told.contains(reason)), "{answer:?}");
}

#[test]
fn a_wrong_token_gets_no_certificate() {
    let mut pair = Pair::new(&[]);
    let wrong = pair.world.folder().join("wrong.token");
    fs::write(&wrong, "00".repeat(32)).unwrap();
    pair.client.start_proxy(pair.options(&pair.client));
    pair.server.start_unready_proxy(ProxyOptions { token: wrong, ..pair.options(&pair.server) });
    eventually(PATIENCE, || {
        let (status, why) = pair.server.page("GET", "/ready").map_err(|error| error.to_string())?;
        holds(status == 503 && why.contains("token"), why)
    });
    let refused = pair.world.control.metrics();
    assert!(refused.sum("weft_control_refused_total", &[]) >= 1.0, "{}", refused.0);
    // What it does carry is not of the mesh: neither as a server …
    let answer = pair.get();
    assert_eq!(answer.head.status(), 502, "{answer:?}");
    assert!(answer.head.field("proxy-status").is_some_and(|told| told.contains("error=tls_")), "{answer:?}");
    assert_counted(&pair.server, "inbound", "tls_certificate_error");
    // … nor as a client.
    let to_client = pair.world.service("client", "client", &[Port::auto(PORT)]);
    let answer = pair.server.client(to_client.at(PORT)[0]).get("/");
    assert_refused(&answer, 502, "weft-outbound", "tls_certificate_error");
    assert_counted(&pair.server, "outbound", "tls_certificate_error");
}

/// `openssl s_client` that claims to be another proxy; what it said.
fn false_peer(pair: &Pair, forged: &Forged) -> String {
    let to = pair.server.at(PORT)[0].to_string();
    let (certificate, key) = (forged.certificate.to_str().unwrap(), forged.key.to_str().unwrap());
    let mut command = pair.client.namespace.command("openssl");
    command.args(["s_client", "-connect", &to, "-alpn", "weft/1", "-cert", certificate, "-key", key]);
    // Its input is empty, but it is not to go before it has heard the answer.
    let output = command.arg("-ign_eof").output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn an_expired_client_is_refused() {
    let mut pair = Pair::new(&[]);
    pair.server.start_proxy(pair.options(&pair.server));
    // Longer ago than clocks may differ.
    let forged = Forged::new(&pair.world.control, pair.world.folder(), &pair.client.identity(), -48..-1);
    let said = false_peer(&pair, &forged);
    assert!(said.contains("alert certificate expired"), "{said}");
    assert_counted(&pair.server, "inbound", "tls_certificate_error");
}

#[test]
fn a_client_of_no_mesh_identity_is_refused() {
    let mut pair = Pair::new(&[]);
    pair.server.start_proxy(pair.options(&pair.server));
    let forged =
        Forged::new(&pair.world.control, pair.world.folder(), "spiffe://elsewhere/ns/test/sa/client", -1..1);
    let said = false_peer(&pair, &forged);
    assert!(said.contains("alert"), "{said}");
    assert_counted(&pair.server, "inbound", "tls_certificate_error");
}

#[test]
fn an_expired_server_is_refused() {
    let mut pair = Pair::new(&[]);
    pair.client.start_proxy(pair.options(&pair.client));
    drop(pair.app.take());
    let forged = Forged::new(&pair.world.control, pair.world.folder(), &pair.server.identity(), -48..-1);
    let (certificate, key) = (forged.certificate.to_str().unwrap(), forged.key.to_str().unwrap());
    let port = PORT.to_string();
    let mut peer = pair.server.start(
        "openssl",
        [
            "s_server",
            "-www",
            "-accept",
            &port,
            "-alpn",
            "weft/1",
            "-Verify",
            "1",
            "-cert",
            certificate,
            "-key",
            key,
        ],
    );
    peer.wait_for("ACCEPT", PATIENCE);
    let answer = pair.get();
    assert_refused(&answer, 502, "weft-outbound", "tls_certificate_error");
    assert!(answer.text().contains("expired"), "{}", answer.text());
    assert_counted(&pair.client, "outbound", "tls_certificate_error");
    peer.wait_for("alert certificate expired", PATIENCE);
}

#[test]
fn heads_have_a_limit() {
    let grid = Grid::new(Port::auto(PORT));
    let _apps = grid.servers().map(|pod| App::mirror(pod, PORT));
    for Route { name, client: pod, address } in grid.routes() {
        let get = |bytes: usize| {
            let mut client = pod.client(address);
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "x".repeat(bytes)));
            client.answer("GET")
        };
        let large = get(100 * 1024);
        assert!(large.head.status() == 200 && large.body.len() > 100 * 1024, "{name}: {:?}", large.head);
        let over = get(129 * 1024);
        assert_eq!(over.head.status(), 431, "{name}: {:?}", over.head);
        if pod.manifest.meshed {
            assert_refused(&over, 431, "weft-outbound", "http_request_error");
        } else {
            assert_eq!(over.head.field("proxy-status"), None, "{name}: strangers are not told");
        }
    }
    assert_counted(&grid.meshed_client, "outbound", "http_request_error");
    assert_counted(&grid.meshed_server, "inbound", "http_request_error");
}

#[test]
fn the_limit_of_heads_can_be_set() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let (client, server) = [("client", Phase::Ready), ("server", Phase::Ready)]
        .map(|(app, phase)| {
            let mut pod = world.pod(app, true, phase);
            let mut options = world.proxy_options(&pod);
            options.flags = ["--max-header-bytes".to_owned(), "300000".to_owned()].into();
            pod.start_proxy(options);
            pod
        })
        .into();
    let _app = App::mirror(&server, PORT);
    for (bytes, status) in [(250_000, 200), (310_000, 431)] {
        let mut client = client.client(service.at(PORT)[0]);
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "x".repeat(bytes)));
        let answer = client.answer("GET");
        assert_eq!(answer.head.status(), status, "{bytes}: {:?}", answer.head);
    }
}

/// Deterministic noise.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn garbage_harms_nobody() {
    let grid = Grid::new(Port::auto(PORT));
    let _apps = grid.servers().map(|pod| App::mirror(pod, PORT));
    let memory = grid.meshed_server.proxy().resident();
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise(1, 600)].concat();
    let kinds: Vec<Vec<u8>> = vec![
        noise(2, 100_000),
        vec![0; 200_000],
        vec![b'A'; 1_000_000],
        hello,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzzz\r\n".to_vec(),
        b"\r\n".repeat(50_000),
        Vec::new(),
    ];
    let addresses: Vec<SocketAddr> = [OUTBOUND_PORT, INBOUND_PORT, ADMIN_PORT, PORT]
        .into_iter()
        .flat_map(|port| grid.meshed_server.at(port))
        .collect();
    thread::scope(|scope| {
        for (address, garbage) in addresses.iter().flat_map(|to| kinds.iter().map(move |kind| (*to, kind))) {
            let stranger = &grid.unmeshed_client;
            scope.spawn(move || {
                for _ in 0..5 {
                    // Cut off at once on some ports.
                    let Ok(mut stream) = stranger.connect(address) else { continue };
                    // It may be cut off at any time, but it must end.
                    let _ = stream.write_all(garbage);
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                    let ended = stream.read_to_end(&mut Vec::new());
                    let late = |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
                    assert!(
                        !ended.is_err_and(|error| late(error.kind())),
                        "{address} keeps {:?}",
                        &garbage[..garbage.len().min(20)]
                    );
                }
            });
        }
    });
    for Route { name, client, address } in grid.routes() {
        assert_eq!(client.client(address).get("/").head.status(), 200, "{name}");
    }
    let grown = grid.meshed_server.proxy().resident().saturating_sub(memory);
    assert!(grown < 16 * 1024 * 1024, "memory has grown by {grown} bytes");
    assert_eq!(grid.meshed_server.page("GET", "/live").unwrap().0, 200);
}

#[test]
fn a_connection_to_the_proxy_itself_ends_with_a_reason() {
    let grid = Grid::new(Port::auto(PORT));
    for (port, direction) in [(OUTBOUND_PORT, "outbound"), (INBOUND_PORT, "inbound")] {
        for address in grid.meshed_server.at(port) {
            for pod in [&grid.unmeshed_client, &grid.meshed_server] {
                // The reset may come before anything can be sent.
                let ended = pod.connect(address).and_then(|mut stream| {
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
                    stream.read_to_end(&mut Vec::new())
                });
                let ended = ended.map_err(|error| error.kind());
                let reset = [Err(ErrorKind::ConnectionReset), Err(ErrorKind::BrokenPipe)];
                assert!(reset.contains(&ended), "{address}: {ended:?}");
            }
            assert_counted(&grid.meshed_server, direction, "proxy_loop_detected");
        }
    }
}

#[test]
fn a_refusing_application_is_told_of() {
    // Nobody listens.
    let grid = Grid::new(Port::auto(PORT));
    for Route { name, client: pod, address } in grid.routes() {
        let answer = pod.client(address).get("/");
        if !pod.manifest.meshed {
            assert_eq!((answer.head.status(), answer.head.field("proxy-status")), (502, None), "{name}");
            continue;
        }
        let by = if name.starts_with("both") { "weft-inbound" } else { "weft-outbound" };
        assert_refused(&answer, 502, by, "connection_refused");
        let told = answer.head.field("proxy-status").unwrap_or_default();
        assert!(told.contains("; next-hop=\"") && told.contains(":8080\""), "{name}: {told}");
        // TCP knows no reasons, only resets.
        let mut stream = pod.connect(address).unwrap();
        stream.write_all(b"\x00\x01\x02\x03 bytes").unwrap();
        let ended = stream.read_to_end(&mut Vec::new());
        assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset), "{name}");
    }
    assert_counted(&grid.meshed_client, "outbound", "connection_refused");
    assert_counted(&grid.meshed_server, "inbound", "connection_refused");
}

#[test]
fn a_destination_that_is_not_there_is_told_of() {
    let world = World::new();
    let empty = world.service("empty", "nobody", &[Port::auto(PORT)]);
    let gone = world.service("gone", "gone", &[Port::auto(PORT)]);
    let client = world.meshed("client");
    // Nobody has these addresses.
    world.manifests.pod(&PodManifest {
        name: "gone-1".into(),
        app: "gone".into(),
        meshed: false,
        phase: Phase::Ready,
        v4: Ipv4Addr::new(10, 244, 9, 9),
        v6: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 9, 9),
    });
    world.settle();
    for address in empty.at(PORT) {
        let answer = client.client(address).get("/");
        assert_refused(&answer, 503, "weft-outbound", "destination_unavailable");
        assert!(
            answer.text().contains("test/empty") || answer.text().contains("empty.test"),
            "{}",
            answer.text()
        );
        let mut stream = client.connect(address).unwrap();
        stream.write_all(b"\x00\x01\x02\x03 bytes").unwrap();
        let ended = stream.read_to_end(&mut Vec::new());
        assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    }
    for address in gone.at(PORT) {
        let begin = std::time::Instant::now();
        let answer = client.client(address).get("/");
        let reasons = ["connection_timeout", "destination_ip_unroutable"];
        let told = answer.head.field("proxy-status").unwrap_or_default();
        assert!(reasons.iter().any(|reason| told.contains(&format!("error={reason}"))), "{answer:?}");
        assert!(begin.elapsed() < Duration::from_secs(4), "{address}: told only after {:?}", begin.elapsed());
    }
    assert_counted(&client, "outbound", "destination_unavailable");
}
