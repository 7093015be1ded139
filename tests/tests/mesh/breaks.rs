//! What breaks on the way: clients that go, servers that close, proxies that crash. Nobody else suffers, nothing is left.

use nix::sys::signal::Signal;
use socket2::SockRef;
use std::{
    io::{BufReader, Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::channel,
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
    http::{Client, read_head},
    manifest::{Phase, Port},
    pattern,
    world::World,
};

const PORT: u16 = 8080;
const BYTES: u16 = 9000;

#[test]
fn an_application_learns_that_its_client_has_gone() {
    let grid = Grid::new(Port::auto(PORT));
    let (told, tells) = channel();
    let _apps = grid.servers().map(|pod| {
        let told = told.clone();
        App::tcp(pod, PORT, move |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Ok(Some(_)) = read_head(&mut reader) else { return };
            told.send("asked").unwrap();
            // Thinks, and would for ever.
            let ended = reader.read(&mut [0; 1]);
            told.send(if matches!(ended, Ok(1..)) { "more" } else { "gone" }).unwrap();
        })
    });
    for Route { name, client: pod, address } in grid.routes() {
        for request in
            ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"]
        {
            let mut client = pod.client(address);
            client.send(request);
            assert_eq!(tells.recv_timeout(PATIENCE), Ok("asked"), "{name}");
            SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            assert_eq!(tells.recv_timeout(PATIENCE), Ok("gone"), "{name}: {request}");
        }
    }
    for pod in [&grid.meshed_client, &grid.meshed_server] {
        let open = || pod.metrics().sum("weft_requests_in_flight", &[]);
        eventually(PATIENCE, || holds(open() == 0.0, format!("{} in flight", open())));
    }
}

#[test]
fn a_server_that_closes_idle_connections_costs_no_request() {
    let grid = Grid::new(Port::auto(PORT));
    let _apps = grid.servers().map(|pod| {
        App::tcp(pod, PORT, |stream| {
            // After each answer it waits for little more than the next request takes to come.
            stream.set_read_timeout(Some(Duration::from_millis(8))).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Ok(Some(head)) = read_head(&mut reader) {
                let Ok(_) = tests::http::read_body(&mut reader, head.request_framing()) else { return };
                if (&stream).write_all(&ok("here")).is_err() {
                    return;
                }
            }
        })
    });
    for Route { name, client: pod, address } in grid.routes() {
        let mut client = pod.client(address);
        for at in 0..150_u64 {
            // GET may be sent again when the connection dies under it; POST is not sent on one that is closing.
            let request = match at % 2 {
                0 => "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                _ => "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            };
            client.send(request);
            let answer = client.answer("GET");
            assert_eq!(answer.text(), "here", "{name}, request {at}: {answer:?}");
            thread::sleep(Duration::from_millis(6 + at % 4));
        }
    }
}

#[test]
fn a_proxy_that_crashes_comes_back() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let (mut server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = App::mirror(&server, PORT);
    let [address, _] = service.at(PORT);
    assert_eq!(client.client(address).get("/").head.status(), 200);
    let mut stream = client.connect(address).unwrap();
    stream.write_all(b"\x01 a TCP connection").unwrap();
    server.proxy_mut().kill();
    // A connection that was cut off is not a clean end.
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).is_err() || rest.is_empty());
    let answer = client.client(address).get("/");
    assert_eq!(answer.head.status(), 502, "{answer:?}");
    assert!(
        answer.head.field("proxy-status").is_some_and(|told| told.contains("error=connection_")),
        "{answer:?}"
    );
    server.restart_proxy();
    let back = Instant::now();
    eventually(PATIENCE, || {
        let answer = client.client(address).get("/");
        holds(answer.head.status() == 200, format!("{answer:?}"))
    });
    assert!(back.elapsed() < Duration::from_secs(5), "it took {:?}", back.elapsed());
}

#[test]
fn what_is_under_way_to_a_pod_that_leaves_is_finished() {
    const LENGTH: u64 = 3_000_000;
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let (mut server, client) = (world.meshed("server"), world.meshed("client"));
    let _app = App::tcp(&server, PORT, |stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let Ok(Some(_)) = read_head(&mut reader) else { return };
        write!(&stream, "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").unwrap();
        pattern::write(&mut &stream, LENGTH).unwrap();
    });
    let mut busy: Client = client.client(service.at(PORT)[0]);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(busy.head().unwrap().status(), 200);
    server.set_phase(Phase::Terminating);
    eventually(PATIENCE, || {
        let answer = client.client(service.at(PORT)[1]).get("/");
        holds(answer.head.status() == 503, format!("{:?}", answer.head))
    });
    server.proxy().signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(pattern::check(busy.reader(), LENGTH).unwrap(), LENGTH);
    assert!(server.proxy_mut().wait(PATIENCE).success());
}

#[test]
fn what_nobody_has_seen_is_sent_again() {
    let world = World::new();
    let ports = [Port::auto(PORT), Port::declared(BYTES, "tcp")];
    let service = world.service("web", "server", &ports);
    let client = world.meshed("client");
    // Of three pods, two have no application: one refuses connections itself, for the other its proxy says so.
    let good = world.meshed("server");
    let _bad = (world.unmeshed("server"), world.meshed("server"));
    let count = Arc::new(AtomicU32::new(0));
    let _http = App::http(&good, PORT, {
        let count = count.clone();
        move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            ok("once")
        }
    });
    let _echo = App::tcp(&good, BYTES, |mut stream| {
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    for at in 0..40 {
        // Not idempotent: only because nothing of it has been seen.
        let mut post = client.client(service.at(PORT)[at % 2]);
        post.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n12");
        assert_eq!(post.answer("POST").text(), "once");
        let mut stream = client.connect(service.at(BYTES)[at % 2]).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"hello");
    }
    assert_eq!(count.load(Ordering::Relaxed), 40);
}

#[test]
fn a_throttled_proxy_is_slow_and_nothing_else() {
    const PORTS: u16 = 12;
    let world = World::new();
    let ports: Vec<_> = (0..PORTS).map(|at| Port::auto(PORT + at)).collect();
    let service = world.service("mail", "server", &ports);
    let (server, client) = (world.meshed("server"), world.meshed("client"));
    // The server speaks first, so that a peer's proxy that is late to speak may be taken for a silent client.
    let _apps: Vec<_> = ports
        .iter()
        .map(|port| {
            App::tcp(&server, port.number, |mut stream| {
                let _ = stream.write_all(b"220 mail.test\r\n");
                let _ = stream.read(&mut [0; 1]);
            })
        })
        .collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // As a CPU limit does: so long in each period, and then not at all.
        scope.spawn(|| {
            for at in 0.. {
                let proxy = [client.proxy(), server.proxy()][at / 4 % 2];
                proxy.signal(Signal::SIGSTOP);
                thread::sleep(Duration::from_millis(80));
                proxy.signal(Signal::SIGCONT);
                if done.load(Ordering::Relaxed) {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        let connected = std::panic::catch_unwind(|| {
            for address in ports.iter().flat_map(|port| service.at(port.number)).cycle().take(96) {
                let mut stream = client.connect(address).unwrap();
                let mut greeting = [0; 15];
                let read = stream.read_exact(&mut greeting);
                assert!(read.is_ok() && &greeting == b"220 mail.test\r\n", "{address}: {read:?}");
            }
        });
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = connected {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn no_request_hides_in_another() {
    let grid = Grid::new(Port::auto(PORT));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let _apps = grid.servers().map(|pod| {
        let seen = seen.clone();
        App::http(pod, PORT, move |request| {
            seen.lock().unwrap().push(request.head.target().to_owned());
            ok("seen")
        })
    });
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = hidden.len();
    // Each hides a request from one way of reading it, by framing that says two things (RFC 9112 §6.3, §11.2).
    let requests = [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("Transfer-Encoding : chunked\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("Content-Length: +{length}\r\n\r\n{hidden}"),
        format!("Content-Length: {length}, 0\r\n\r\n{hidden}"),
        format!("X: y\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("X: y\r\n Content-Length: {length}\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0_\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\n0\n\n{hidden}"),
    ];
    for Route { name, client: pod, address } in grid.routes() {
        for fields in &requests {
            let mut client = pod.client(address);
            client.send(format!("POST /open HTTP/1.1\r\nHost: a\r\n{fields}"));
            let _ = client.stream().shutdown(std::net::Shutdown::Write);
            let mut answers = 0;
            while let Ok(answer) = client.try_answer("POST") {
                answers += 1;
                assert!(answers < 3, "{name}: {fields:?}");
                assert!([200, 400, 501].contains(&answer.head.status()), "{name}: {fields:?}: {answer:?}");
            }
            assert!(answers > 0, "{name}: {fields:?} is not answered at all");
        }
        // Where a field line says that it is one, what follows the body is a request of its own for everybody.
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let hidden = seen.iter().filter(|target| *target == "/hidden").count();
        assert_eq!(hidden, 0, "{name}: {seen:?}");
    }
}
