//! Who talks to whom, and what others see of it: the wire between proxies, peers of all kinds, ways to one's own pod.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};
use tests::{
    PATIENCE,
    app::{App, ok},
    eventually,
    grid::{Grid, Route},
    holds,
    http::Client,
    manifest::{Phase, Port},
    pod::ProxyOptions,
    program::Program,
    world::World,
};

const PORT: u16 = 8080;

/// Does something while all packets of a world's bridge are looked through for some bytes: how often they were seen.
fn seen_on_the_wire(world: &World, secret: &[u8], act: impl FnOnce()) -> usize {
    // ETH_P_ALL, in network order.
    let socket = world
        .bridge
        .within(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(3_u16.to_be())))))
        .unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket.set_recv_buffer_size(8 * 1024 * 1024).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let (mut seen, mut packets, mut packet) = (0, 0, vec![0; 70_000]);
            loop {
                match (&socket).read(&mut packet) {
                    Ok(length) => {
                        packets += 1;
                        seen +=
                            packet[..length].windows(secret.len()).filter(|window| window == &secret).count();
                    }
                    Err(_) if done.load(Ordering::Relaxed) => break,
                    Err(_) => {}
                }
            }
            assert!(packets > 0, "nothing was seen at all");
            seen
        });
        act();
        done.store(true, Ordering::Relaxed);
        watching.join().unwrap()
    })
}

#[test]
fn nothing_of_a_message_crosses_in_the_clear_between_proxies() {
    let grid = Grid::new(Port::auto(PORT));
    let _apps = grid.servers().map(|pod| App::mirror(pod, PORT));
    for Route { name, client: pod, address } in grid.routes() {
        let secret = b"the-secret-of-this-test";
        let seen = seen_on_the_wire(&grid.world, secret, || {
            let mut client = pod.client(address);
            client.send("POST /the-secret-of-this-test HTTP/1.1\r\nHost: the-secret-of-this-test\r\n");
            client.send("X: the-secret-of-this-test\r\nContent-Length: 23\r\n\r\nthe-secret-of-this-test");
            assert!(client.answer("POST").text().contains("the-secret-of-this-test"));
        });
        // Where one side has no proxy it is seen: that is what shows that the watch works.
        assert_eq!(seen == 0, name.starts_with("both"), "{name}: seen {seen} times");
    }
}

/// A ClientHello of TLS 1.3 that offers `weft/1` (RFC 8446 §4.1.2), with an X25519 share of nobody's.
fn client_hello() -> Vec<u8> {
    fn with_length(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }
    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_length(body)].concat()
    }
    let alpn = with_length(b"\x06weft/1");
    let share = [&[0x00, 0x1d][..], &with_length(&[9; 32])].concat();
    let extensions = [
        extension(43, &[2, 0x03, 0x04]),
        extension(10, &with_length(&[0x00, 0x1d])),
        extension(13, &with_length(&[0x04, 0x03, 0x08, 0x04])),
        extension(51, &with_length(&share)),
        extension(16, &alpn),
    ]
    .concat();
    let body =
        [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 0x01], &[1, 0], &with_length(&extensions)].concat();
    let handshake = [&[1, 0][..], &with_length(&body)].concat();
    [&[0x16, 3, 1][..], &with_length(&handshake)].concat()
}

#[test]
fn a_peer_that_is_slow_to_speak_is_still_a_peer() {
    let grid = Grid::new(Port::auto(PORT));
    let reached = Arc::new(AtomicU32::new(0));
    let _app = App::tcp(&grid.meshed_server, PORT, {
        let reached = reached.clone();
        move |mut stream| {
            let count = stream.read(&mut [0; 1]).unwrap_or_default();
            reached.fetch_add(count as u32, Ordering::Relaxed);
        }
    });
    for to in grid.meshed_server.at(PORT) {
        for pieces in [1, 3] {
            let mut stream = grid.unmeshed_client.connect(to).unwrap();
            // Longer than a proxy waits before it connects to an application that may speak first.
            thread::sleep(Duration::from_millis(150));
            let hello = client_hello();
            for piece in hello.chunks(hello.len().div_ceil(pieces)) {
                stream.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(120));
            }
            let mut answer = [0; 6];
            stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{to}: {error}"));
            // A handshake record with a ServerHello.
            assert_eq!((answer[0], answer[5]), (0x16, 2), "{to}: {answer:?}");
        }
    }
    assert_eq!(reached.load(Ordering::Relaxed), 0, "the application was given a peer's bytes");
}

#[test]
fn a_pod_reaches_itself_by_its_service_and_by_its_address() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let server = world.meshed("server");
    let _app = App::mirror(&server, PORT);
    for address in service.at(PORT).into_iter().chain(server.at(PORT)) {
        for _ in 0..3 {
            let answer = server.client(address).get("/self");
            assert!(
                answer.head.status() == 200 && answer.text().starts_with("GET /self "),
                "{address}: {answer:?}"
            );
        }
        let mut stream = server.connect(address).unwrap();
        stream.write_all(b"\x01 no HTTP").unwrap();
    }
}

#[test]
fn a_pod_that_is_dialled_by_its_address_is_met_as_a_peer() {
    let world = World::new();
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = App::mirror(&server, PORT);
    for address in server.at(PORT) {
        assert_eq!(client.client(address).get("/").head.status(), 200, "{address}");
        let labels =
            [("identity", server.identity()), ("backend", address.to_string()), ("tls", "1.3".into())];
        let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // An answer is counted when its end has gone.
        eventually(PATIENCE, || {
            let metrics = client.metrics();
            holds(metrics.sum("weft_requests_total", &labels) == 1.0, metrics.0)
        });
    }
}

#[test]
fn an_application_on_loopback_only_is_found() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let listener = server.namespace.within(|| TcpListener::bind((loopback, PORT))).unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), loopback);
            let mut head = [0; 16];
            stream.read_exact(&mut head).unwrap();
            stream.write_all(&ok("on loopback")).unwrap();
        });
        let address = service.at(PORT).into_iter().find(|one| one.is_ipv4() == loopback.is_ipv4()).unwrap();
        assert_eq!(client.client(address).get("/").text(), "on loopback", "{loopback}");
        serving.join().unwrap();
    }
}

#[test]
fn http_2_of_an_application_passes() {
    let grid = Grid::new(Port::auto(PORT));
    let folder = grid.world.folder();
    std::fs::write(folder.join("index.html"), "over HTTP/2\n").unwrap();
    let _nginx = grid.servers().map(|pod| {
        let root = folder.display();
        let conf = folder.join(format!("{}.conf", pod.manifest.name));
        let text = format!(
            "daemon off; master_process off; user root; pid {root}/{0}.pid; error_log stderr; events {{}}\n\
             http {{ access_log off; server {{ listen {PORT} http2; listen [::]:{PORT} http2; root {root}; }} }}\n",
            pod.manifest.name
        );
        std::fs::write(&conf, text).unwrap();
        let program = pod.start("nginx", ["-c", conf.to_str().unwrap()]);
        eventually(PATIENCE, || pod.connect((Ipv4Addr::LOCALHOST, PORT).into()).map_err(|error| error.to_string()));
        program
    });
    for Route { name, client, address } in grid.routes() {
        let url = format!("http://{address}/");
        let arguments = ["-sS", "-f", "--http2-prior-knowledge", "-w", "%{http_version}", &url];
        assert_eq!(client.done("curl", arguments), "over HTTP/2\n2", "{name}");
    }
}

#[test]
fn a_byte_at_a_time_is_still_http() {
    let grid = Grid::new(Port::auto(PORT));
    let _apps = grid.servers().map(|pod| App::mirror(pod, PORT));
    for Route { name, client: pod, address } in grid.routes() {
        let mut client = pod.client(address);
        for byte in b"GET /slowly HTTP/1.1\r\nHost: a\r\n\r\n" {
            client.send([*byte]);
            thread::sleep(Duration::from_millis(3));
        }
        assert_eq!(client.answer("GET").text(), "GET /slowly HTTP/1.1\nHost: a\n\n", "{name}");
    }
    let detected = grid.meshed_client.metrics();
    let labels = [("direction", "outbound"), ("protocol", "http1")];
    assert_eq!(detected.sum("weft_detections_total", &labels), 4.0, "{}", detected.0);
}

#[test]
fn many_connections_at_once_and_nothing_left_of_them() {
    const CLIENTS: usize = 400;
    let grid = Grid::new(Port::auto(PORT));
    let apps = grid.servers().map(|pod| App::mirror(pod, PORT));
    let proxies = [grid.meshed_client.proxy(), grid.meshed_server.proxy()];
    let before = proxies.map(Program::descriptors);
    for Route { name, client: pod, address } in grid.routes().step_by(2) {
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| pod.client(address)).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            client.send(format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for (at, client) in clients.iter_mut().enumerate() {
            let answer = client.answer("GET");
            assert_eq!(answer.text(), format!("GET /{at} HTTP/1.1\nHost: a\n\n"), "{name}");
        }
    }
    let open = || grid.meshed_client.metrics().sum("weft_requests_in_flight", &[]);
    eventually(PATIENCE, || holds(open() == 0.0, format!("{} requests are still in flight", open())));
    // Ends the pooled connections too; those between the proxies, and with control, stay.
    drop(apps);
    let pod = &grid.meshed_client;
    eventually(3 * PATIENCE, || {
        // Pools are looked through when they are used, and now and then.
        let after = proxies.map(Program::descriptors);
        let left: Vec<_> =
            before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).collect();
        holds(
            left.iter().all(|left| *left < 20),
            format!("{left:?} descriptors are left: {}", pod.metrics().0),
        )
    });
}

#[test]
fn each_back_end_of_the_redirection_carries_traffic() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    for backend in ["native", "nft", "legacy"] {
        let start = |app: &str| {
            let mut pod = world.pod(app, true, Phase::Ready);
            let options = ProxyOptions { backend, ..world.proxy_options(&pod) };
            pod.start_proxy(options);
            pod
        };
        let (mut server, client) = (start("server"), start("client"));
        let _app = App::mirror(&server, PORT);
        for address in service.at(PORT) {
            assert_eq!(client.client(address).get("/").head.status(), 200, "{backend}, {address}");
        }
        let identity = [("direction", "inbound"), ("identity", &client.identity()), ("tls", "1.3")];
        eventually(PATIENCE, || {
            let metrics = server.metrics();
            holds(metrics.sum("weft_requests_total", &identity) == 2.0, format!("{backend}: {}", metrics.0))
        });
        server.set_phase(Phase::Terminating);
        eventually(PATIENCE, || {
            let status = client.client(service.at(PORT)[0]).get("/").head.status();
            holds(status == 503, format!("{backend}: {status}"))
        });
    }
}

#[test]
fn pods_without_ipv6_are_meshed_too() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let start = |app: &str| {
        let mut pod = world.pod(app, true, Phase::Ready);
        pod.done("sysctl", ["-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
        pod.start_proxy(world.proxy_options(&pod));
        pod
    };
    let (server, client) = (start("server"), start("client"));
    let _app = App::mirror(&server, PORT);
    for address in [service.at(PORT)[0], server.at(PORT)[0]] {
        assert_eq!(client.client(address).get("/").head.status(), 200, "{address}");
    }
    let labels = [("direction", "inbound"), ("tls", "1.3")];
    eventually(PATIENCE, || {
        let metrics = server.metrics();
        holds(metrics.sum("weft_requests_total", &labels) == 2.0, metrics.0)
    });
}

#[test]
fn a_proxy_with_a_control_of_nonsense_says_so() {
    let world = World::new();
    let mut client = world.pod("client", true, Phase::Ready);
    let nonsense = world.unmeshed("nonsense");
    let _app = App::tcp(&nonsense, 8486, |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nI am no control plane.\r\n");
        let _ = stream.read(&mut [0; 1000]);
    });
    let mut options = world.proxy_options(&client);
    options.control = SocketAddr::new(nonsense.manifest.v4.into(), 8486);
    client.start_unready_proxy(options);
    eventually(PATIENCE, || {
        let (status, why) = client.page("GET", "/ready").map_err(|error| error.to_string())?;
        holds(status == 503 && why.contains("TLS"), why)
    });
    assert!(client.proxy_mut().status().is_none());
}
