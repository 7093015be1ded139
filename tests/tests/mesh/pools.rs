//! Connections to servers: pools that stay ahead of a server's closing, what is sent once, addresses that do not answer, peers
//! that vanish. No error that the application did not cause, and nothing is left.

use socket2::SockRef;
use std::{
    collections::HashMap,
    io::{BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tests::{
    PATIENCE,
    app::{App, ok},
    eventually,
    grid::{Grid, Route},
    holds,
    http::{Client, read_body, read_head},
    manifest::Port,
    pod::Pod,
    world::World,
};

const PORT: u16 = 8080;

/// After this, a server here closes an idle connection.
const KEPT: Duration = Duration::from_secs(5);

/// Answers after a moment, so that many connections are in use at once, and closes them when they have been idle for `KEPT`.
fn impatient(pod: &Pod, port: u16, posts: Arc<AtomicU32>) -> App {
    App::tcp(pod, port, move |stream| {
        stream.set_read_timeout(Some(KEPT)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Ok(Some(head)) = read_head(&mut reader) {
            let Ok(_) = read_body(&mut reader, head.request_framing()) else { return };
            if head.method() == "POST" {
                posts.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(30));
            if (&stream).write_all(&ok("here")).is_err() {
                return;
            }
        }
        // What comes now is too late, as where the news of the end is so long on its way: it meets a reset.
        thread::sleep(Duration::from_millis(4));
    })
}

/// Each connection asks again when the server is about to close the one that its last request went over.
#[test]
fn requests_that_come_as_the_server_closes_are_answered() {
    const PORTS: u16 = 4;
    const CLIENTS: usize = 12;
    const CONNECTIONS: usize = 160;
    const ROUNDS: usize = 6;
    let world = World::new();
    let ports: Vec<_> = (0..PORTS).map(|at| Port::auto(PORT + at)).collect();
    let services = [world.service("meshed", "server", &ports), world.service("plain", "plain", &ports)];
    let (servers, client) = ([world.meshed("server"), world.unmeshed("plain")], world.meshed("client"));
    let posts = Arc::new(AtomicU32::new(0));
    let _apps: Vec<_> = servers
        .iter()
        .flat_map(|pod| ports.iter().map(|port| impatient(pod, port.number, posts.clone())))
        .collect();
    let addresses: Vec<_> =
        services.iter().flat_map(|service| ports.iter().map(|port| service.at(port.number)[0])).collect();
    let (failures, sent) = (Mutex::new(Vec::new()), AtomicU32::new(0));
    let client = &client;
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (addresses, failures, sent) = (&addresses, &failures, &sent);
            scope.spawn(move || {
                let mut clients: Vec<_> = (0..CONNECTIONS)
                    .map(|at| client.client(addresses[(at + number) % addresses.len()]))
                    .collect();
                for round in 0..ROUNDS {
                    for (at, client) in clients.iter_mut().enumerate() {
                        match (at + round) % 2 {
                            0 => client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
                            _ => {
                                sent.fetch_add(1, Ordering::Relaxed);
                                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nonce");
                            }
                        }
                    }
                    for client in &mut clients {
                        match client.try_answer("GET") {
                            Ok(answer) if answer.head.status() == 200 => {}
                            other => failures.lock().unwrap().push(format!("round {round}: {other:?}")),
                        }
                    }
                    let apart = Duration::from_millis(((number * 7 + round * 3) % 20) as u64);
                    thread::sleep(KEPT - Duration::from_millis(10) + apart);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let count = CLIENTS * CONNECTIONS * ROUNDS;
    assert!(failures.is_empty(), "{} of {count} failed, as {}", failures.len(), failures[0]);
    assert_eq!(posts.load(Ordering::Relaxed), sent.into_inner(), "each POST is executed once");
}

/// Some answer, some are read whole and then met by a reset: on a connection's first request and on later ones.
#[test]
fn a_post_that_is_read_and_reset_is_executed_once() {
    let grid = Grid::new(Port::auto(PORT));
    let seen: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let _apps = grid.servers().map(|pod| {
        let seen = seen.clone();
        App::tcp(pod, PORT, move |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Ok(Some(head)) = read_head(&mut reader) {
                let Ok((body, _)) = read_body(&mut reader, head.request_framing()) else { return };
                let body = String::from_utf8(body).unwrap();
                *seen.lock().unwrap().entry(body.clone()).or_default() += 1;
                if body.ends_with("reset") {
                    return SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
                if (&stream).write_all(&ok("done")).is_err() {
                    return;
                }
            }
        })
    });
    let mut told = Vec::new();
    for (at, Route { name, client: pod, address }) in grid.routes().enumerate() {
        let mut client = pod.client(address);
        for number in 0..60 {
            // After none, one or several answers on the same connection.
            let reset = number % 4 == 3 || number % 7 == 0;
            let body = format!("{at}-{number}-{}", if reset { "reset" } else { "ok" });
            let answer = client.try_request("POST", "/", &body).unwrap();
            let status = answer.head.status();
            assert_eq!(status, if reset { 502 } else { 200 }, "{name}, {body}: {answer:?}");
            if reset && name != "only the server meshed, IPv4" && name != "only the server meshed, IPv6" {
                let why = answer.head.field("proxy-status").unwrap_or_default();
                assert!(why.contains("error=connection_terminated"), "{name}, {body}: {answer:?}");
            }
            told.push(body);
            if reset {
                client = pod.client(address);
            }
        }
    }
    let seen = seen.lock().unwrap();
    let wrong: Vec<_> = told.iter().filter(|body| seen.get(*body) != Some(&1)).collect();
    assert!(wrong.is_empty() && seen.len() == told.len(), "not executed exactly once: {wrong:?}");
}

#[test]
fn an_application_of_one_family_is_found_from_both() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT), Port::auto(PORT + 1)]);
    let (server, client, stranger) =
        (world.meshed("server"), world.meshed("client"), world.unmeshed("outside"));
    let [pod4, pod6] = server.at(PORT).map(|address| address.ip());
    for only in
        [pod4, pod6, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into()]
    {
        let listener = server.namespace.within(|| TcpListener::bind((only, PORT))).unwrap();
        let app = thread::spawn(move || {
            // Ends by a connection that says so.
            loop {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let Ok(Some(head)) = read_head(&mut reader) else { continue };
                (&stream).write_all(&ok("found")).unwrap();
                if head.target() == "/end" {
                    return;
                }
            }
        });
        let ways = [(&client, service.at(PORT)), (&stranger, server.at(PORT))];
        for (pod, address) in
            ways.iter().flat_map(|(pod, addresses)| addresses.iter().map(move |at| (pod, *at)))
        {
            // On the pod's own address of one family it is found from the other only where that is tried: on loopback it is.
            let own = [pod4, pod6].contains(&only);
            let reachable = !own || address.is_ipv4() == only.is_ipv4();
            let answer = pod.client(address).get("/");
            assert_eq!(
                answer.head.status(),
                if reachable { 200 } else { 502 },
                "{only} from {address}: {answer:?}"
            );
        }
        let last = ways[0].1.into_iter().find(|at| at.is_ipv4() == only.is_ipv4()).unwrap();
        assert_eq!(client.client(last).get("/end").text(), "found");
        app.join().unwrap();
    }
    // Where nobody listens at all, that is said at once.
    for address in service.at(PORT + 1) {
        let answer = client.client(address).get("/");
        let why = answer.head.field("proxy-status").unwrap_or_default();
        assert!(answer.head.status() == 502 && why.contains("error=connection_refused"), "{answer:?}");
    }
}

/// The kernel sends a lost SYN again after a second.
#[test]
fn a_lost_syn_to_the_only_endpoint_is_no_failure() {
    let world = World::new();
    let services = [
        world.service("meshed", "server", &[Port::auto(PORT)]),
        world.service("plain", "plain", &[Port::auto(PORT)]),
    ];
    let (servers, client) = ([world.meshed("server"), world.unmeshed("plain")], world.meshed("client"));
    let _apps = servers.each_ref().map(|pod| App::http(pod, PORT, |_| ok("here")));
    for (service, server) in services.iter().zip(&servers) {
        for address in service.at(PORT) {
            // Neither the first SYN of a connection nor the second one comes through.
            server.done(
                "nft",
                ["add table inet lossy; add chain inet lossy arriving { type filter hook prerouting priority -400; }; \
                  add rule inet lossy arriving tcp dport 8080 tcp flags & (syn | ack) == syn numgen inc mod 1000 < 2 drop"],
            );
            let begin = Instant::now();
            let answer = client.client(address).get("/");
            assert_eq!(answer.head.status(), 200, "{address}: {answer:?}");
            // It was lost indeed.
            assert!(begin.elapsed() > Duration::from_secs(2), "{address}: {:?}", begin.elapsed());
            server.done("nft", ["delete table inet lossy"]);
        }
    }
}

/// Beyond the limits of keep-alive, unacknowledged bytes and half-closed silence, and of what ends because of them.
const VANISHED: Duration = Duration::from_secs(150);

/// A server of every behaviour, by the first line that it is sent.
fn actor(pod: &Pod) -> App {
    App::tcp(pod, PORT, |stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        stream.set_read_timeout(None).unwrap();
        let mut rest = Vec::new();
        loop {
            let Ok(Some(head)) = read_head(&mut reader) else { return };
            match head.target() {
                // The connection may be used for any of the others afterwards.
                "/idle" => {
                    let _ = (&stream).write_all(&ok("idle"));
                    continue;
                }
                "/never" | "/upload" => {
                    let _ = std::io::copy(&mut reader, &mut std::io::sink());
                }
                "/download" => {
                    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n";
                    let _ = (&stream).write_all(head.as_bytes());
                    while (&stream).write_all(&[b'x'; 64 * 1024]).is_ok() {}
                }
                // Bytes: answered by one, then silence, also when the client has ended its side.
                _ => {
                    let _ = (&stream).write_all(b"!");
                    let _ = reader.read_to_end(&mut rest);
                    thread::sleep(VANISHED);
                }
            }
            return;
        }
    })
}

/// In the middle of a request, of either body, idle, as bytes, half-closed: each side is rid of the other in bounded time.
#[test]
fn nothing_is_left_of_a_peer_that_vanishes() {
    let world = World::new();
    let services = ["meshed", "plain"].map(|name| world.service(name, name, &[Port::auto(PORT)]));
    let (servers, client) = ([world.meshed("meshed"), world.unmeshed("plain")], world.meshed("client"));
    let _apps = servers.each_ref().map(actor);
    let stranger = world.unmeshed("stranger");
    // Of the meshed server, an outsider is another peer.
    let ways = [
        ("meshed", &client, services[0].at(PORT)[0]),
        ("plain", &client, services[1].at(PORT)[0]),
        ("outside", &stranger, servers[0].at(PORT)[0]),
    ];
    let before = client.proxy().descriptors();
    let mut answers = Vec::new();
    thread::scope(|scope| {
        let mut waiting = Vec::new();
        for (name, pod, address) in ways {
            let open = |request: &str| {
                let stream = pod.connect(address).unwrap();
                stream.set_read_timeout(Some(VANISHED)).unwrap();
                stream.set_write_timeout(Some(VANISHED)).unwrap();
                let mut client = Client::from(stream);
                client.send(request);
                client
            };
            let (mut never, mut download) = (
                open("GET /never HTTP/1.1\r\nHost: a\r\n\r\n"),
                open("GET /download HTTP/1.1\r\nHost: a\r\n\r\n"),
            );
            let upload = open("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n");
            let mut idle = open("GET /idle HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(idle.answer("GET").text(), "idle", "{name}");
            let (mut bytes, mut half) = (open("\x01\r\n\r\n"), open("\x01\r\n\r\n"));
            for client in [&mut bytes, &mut half] {
                client.reader().read_exact(&mut [0; 1]).unwrap();
            }
            half.stream().shutdown(Shutdown::Write).unwrap();
            assert_eq!(download.head().unwrap().status(), 200);
            if name == "outside" {
                // This one's own kernel has no reason to give up: it is the server's side that counts.
                waiting.push(scope.spawn(move || {
                    thread::sleep(Duration::from_secs(1));
                    drop((never, download, upload, idle, bytes, half));
                    Vec::new()
                }));
                continue;
            }
            waiting.push(scope.spawn(move || {
                thread::scope(|scope| {
                    // Reads and writes until the end.
                    let body =
                        scope.spawn(move || std::io::copy(download.reader(), &mut std::io::sink()).is_err());
                    let sent =
                        scope.spawn(move || while (&mut upload.stream()).write_all(&[0; 65536]).is_ok() {});
                    let ends = [bytes, half]
                        .map(|mut client| scope.spawn(move || client.reader().read(&mut [0; 1]).is_err()));
                    let answer = never.try_answer("GET");
                    let answer = answer.map(|answer| (answer.head.status(), answer.text().to_owned()));
                    sent.join().unwrap();
                    drop(idle);
                    let [bytes, half] = ends.map(|end| end.join().unwrap());
                    vec![format!(
                        "{name}: {answer:?}, truncated {}, bytes reset {bytes}, half reset {half}",
                        body.join().unwrap()
                    )]
                })
            }));
        }
        thread::sleep(Duration::from_millis(300));
        for pod in &servers {
            let number = pod.manifest.name.rsplit('-').next().unwrap();
            world.bridge.ip(&format!("link set port{number} down"));
        }
        answers = waiting.into_iter().flat_map(|one| one.join().unwrap()).collect();
    });
    for answer in &answers {
        assert!(answer.contains("(502, \"weft: connection_terminated"), "{answer}");
        assert!(answer.contains("truncated true, bytes reset true, half reset true"), "{answer}");
    }
    assert_eq!(answers.len(), 2);
    // No socket towards the other side, in whatever state; nor one of the application.
    let left = |pod: &Pod, peers: &[IpAddr]| {
        let sockets = pod.done("ss", ["-Htan"]);
        let lines =
            sockets.lines().filter(|line| !line.starts_with("LISTEN") && !line.starts_with("TIME-WAIT"));
        let of = |line: &&str| peers.iter().any(|ip| line.contains(&format!("{ip}:")));
        lines.filter(of).map(str::to_owned).collect::<Vec<_>>()
    };
    let ips = |pod: &Pod| IpAddr::from(pod.manifest.v4);
    eventually(VANISHED, || {
        let here = left(&client, &servers.each_ref().map(ips));
        let there = left(&servers[0], &[ips(&client), ips(&stranger)]);
        holds(here.is_empty() && there.is_empty(), format!("{here:#?} {there:#?}"))
    });
    eventually(PATIENCE, || {
        let now = client.proxy().descriptors();
        holds(now <= before + 1, format!("{now} descriptors, {before} before"))
    });
}
