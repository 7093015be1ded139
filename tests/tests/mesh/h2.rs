//! HTTP/2 with prior knowledge: what passes between two ends without a proxy passes with them, frame by frame where it counts.

mod programs;
mod versions;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request};
use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tests::{
    PATIENCE,
    grid::{Grid, Route},
    h2::{Client, Exchange, Server, part, receive, receive_answer, request, response, run, send},
    manifest::Port,
    pattern,
    world::World,
};

const PORT: u16 = 8080;
/// Both ways in which a port is known to speak HTTP/2.
const KNOWN: [Option<&str>; 2] = [None, Some("kubernetes.io/h2c")];

fn port(app_protocol: Option<&'static str>) -> Port {
    Port { app_protocol, ..Port::auto(PORT) }
}

/// Both servers run [`app`].
fn serve() -> (Grid, [Server; 2]) {
    let grid = Grid::new(Port::auto(PORT));
    let servers = grid.servers().map(|pod| Server::start(pod, PORT, app));
    (grid, servers)
}

/// What its path says.
async fn app(mut exchange: Exchange) -> Result<(), h2::Error> {
    let path = exchange.path().to_owned();
    let number = || path.rsplit('/').next().and_then(|text| text.parse::<u32>().ok()).expect("/what/NUMBER");
    match path.split('/').nth(1).unwrap_or_default() {
        "echo" => echo(exchange).await,
        "fields" => {
            let seen = fields(&exchange.request);
            exchange.answer(200, &seen).await
        }
        "hints" => hints(exchange).await,
        "status" => {
            let mut head = response(number() as u16);
            head.headers_mut().insert("etag", HeaderValue::from_static("\"1\""));
            if exchange.request.method() == "HEAD" {
                head.headers_mut().insert("content-length", HeaderValue::from_static("5000"));
            }
            exchange.respond.send_response(head, true).map(drop)
        }
        "only-trailers" => {
            let mut head = response(200);
            head.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
            exchange.respond.send_response(head, true).map(drop)
        }
        // Dropped with a part of the request unread, the stream is reset with NO_ERROR after the answer.
        "early" => exchange.answer(413, &"no".repeat(5000)).await,
        // At once, or in the middle of its answer.
        "reset" => {
            exchange.respond.send_reset(Reason::from(number()));
            Ok(())
        }
        "break" => {
            let mut stream = exchange.respond.send_response(response(200), false)?;
            send(&mut stream, Bytes::from_static(b"half"), false).await?;
            // What was sent goes before the reset only when there was time for it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.send_reset(Reason::from(number()));
            Ok(())
        }
        "slow" => {
            tokio::time::sleep(Duration::from_millis(u64::from(number()))).await;
            exchange.answer(200, "slow").await
        }
        _ => exchange.answer(200, "hello").await,
    }
}

/// Each part back as it comes, then the trailers with another name.
async fn echo(mut exchange: Exchange) -> Result<(), h2::Error> {
    let mut stream = exchange.respond.send_response(response(200), false)?;
    let body = exchange.request.body_mut();
    while let Some(part) = part(body).await? {
        send(&mut stream, part, false).await?;
    }
    let mut trailers = HeaderMap::new();
    for (name, value) in body.trailers().await?.iter().flatten() {
        let name = format!("seen-{name}");
        trailers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.clone());
    }
    trailers.insert("end", HeaderValue::from_static("of echo"));
    stream.send_trailers(trailers)
}

/// The request as the application sees it.
fn fields<T>(request: &Request<T>) -> String {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

async fn hints(mut exchange: Exchange) -> Result<(), h2::Error> {
    for link in ["</first.css>", "</second.css>"] {
        let mut hint = response(103);
        hint.headers_mut().insert("link", HeaderValue::from_static(link));
        exchange.respond.send_informational(hint)?;
    }
    if exchange.request.headers().contains_key("expect") {
        exchange.respond.send_informational(response(100))?;
    }
    let (body, _) = receive(exchange.request.body_mut()).await?;
    exchange.answer(200, &format!("{} bytes", body.len())).await
}

#[test]
fn h2_fields_and_trailers_arrive_as_they_were_sent() {
    let (grid, _servers) = serve();
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let request = Request::builder()
                .method("GET")
                .uri("http://Shop.Example:8080/fields/a%20b/../c?x=1&x=2;%C3%A4")
                .header("x-twice", "1")
                .header("x-twice", "2")
                .header("x-empty", "")
                .header("te", "trailers")
                .header("cookie", "a=b")
                .header("cookie", "c=d")
                .header("x-bytes", HeaderValue::from_bytes(b"caf\xc3\xa9 \xff").unwrap());
            let request = request.header("weft-http", "1.0").header("weft-peer", "root").body(()).unwrap();
            let (answer, _) = client.start(request, true).await.unwrap();
            let answer = receive_answer(answer).await.unwrap();
            assert_eq!(
                answer.text().lines().collect::<Vec<_>>(),
                [
                    "GET http://Shop.Example:8080/fields/a%20b/../c?x=1&x=2;%C3%A4",
                    "x-twice: 1",
                    "x-twice: 2",
                    "x-empty: ",
                    "te: trailers",
                    "cookie: a=b",
                    "cookie: c=d",
                    "x-bytes: caf\u{e9} \u{fffd}",
                ],
                "{name}"
            );
            let ours = answer.head.headers().keys().find(|field| field.as_str().starts_with("weft-"));
            assert_eq!(ours, None, "{name}: a field of the mesh reached the client");

            let (answer, mut body) = client.start(tests::h2::request("POST", "/echo"), false).await.unwrap();
            send(&mut body, Bytes::from_static(b"hello"), false).await.unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-check", HeaderValue::from_static("11"));
            // Larger than the 16 KiB that many take by default.
            let large = "x".repeat(40_000);
            trailers.insert("x-large", HeaderValue::from_str(&large).unwrap());
            body.send_trailers(trailers).unwrap();
            let answer = receive_answer(answer).await.unwrap();
            assert_eq!((answer.status(), answer.text()), (200, "hello"), "{name}");
            assert_eq!(answer.trailer("seen-x-check"), Some("11"), "{name}: {:?}", answer.trailers);
            assert_eq!(answer.trailer("seen-x-large"), Some(large.as_str()), "{name}");
            assert_eq!(answer.trailer("end"), Some("of echo"), "{name}");

            let answer = client.get("/only-trailers").await.unwrap();
            assert_eq!((answer.status(), answer.field("grpc-status")), (200, Some("5")), "{name}");
            assert!(answer.body.is_empty() && answer.trailers.is_none(), "{name}: {answer:?}");
        });
    }
}

#[test]
fn h2_interim_and_early_answers_and_those_without_a_body() {
    let (grid, _servers) = serve();
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let mut request = request("POST", "/hints");
            request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
            let (mut answer, mut body) = client.start(request, false).await.unwrap();
            // Nothing of the body goes before it is asked for.
            let mut interim = Vec::new();
            while interim.last() != Some(&100) {
                let one = poll_fn(|context| answer.poll_informational(context)).await;
                let one = one.expect("more interim answers").unwrap();
                interim.push(one.status().as_u16());
            }
            assert_eq!(interim, [103, 103, 100], "{name}");
            send(&mut body, Bytes::from_static(b"12345678"), true).await.unwrap();
            let answer = receive_answer(answer).await.unwrap();
            assert_eq!(answer.text(), "8 bytes", "{name}");

            let answer = client.post("/early", vec![b'x'; 5_000_000]).await.unwrap();
            assert_eq!((answer.status(), answer.body.len()), (413, 10_000), "{name}");

            for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)] {
                let request = tests::h2::request(method, &format!("/status/{status}"));
                let (answer, _) = client.start(request, true).await.unwrap();
                let answer = receive_answer(answer).await.unwrap();
                assert_eq!((answer.status(), answer.body.len()), (status, 0), "{name}: {method}");
                assert_eq!(answer.field("etag"), Some("\"1\""), "{name}: {method} {status}");
                let length = (method == "HEAD").then_some("5000");
                assert_eq!(answer.field("content-length"), length, "{name}: {method} {status}");
            }
            assert_eq!(client.get("/").await.unwrap().text(), "hello", "{name}");
        });
    }
}

#[test]
fn h2_resets_keep_their_codes() {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let grid = Grid::new(Port::auto(PORT));
    let _servers = grid.servers().map(|pod| {
        Server::start(pod, PORT, |mut exchange: Exchange| async move {
            if exchange.path() != "/wait" {
                return app(exchange).await;
            }
            let mut stream = exchange.respond.send_response(response(200), false)?;
            let reason = poll_fn(|context| stream.poll_reset(context)).await?;
            SEEN.store(u64::from(u32::from(reason)), Ordering::Relaxed);
            Ok(())
        })
    });
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            // Not REFUSED_STREAM: such a request may be sent again.
            let codes =
                [Reason::PROTOCOL_ERROR, Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM];
            for code in codes.into_iter().chain([Reason::from(77)]) {
                for what in ["reset", "break"] {
                    let path = format!("/{what}/{}", u32::from(code));
                    let error = client.get(&path).await.expect_err("a reset");
                    assert_eq!(error.reason(), Some(code), "{name}: {path}: {error:?}");
                    assert!(error.is_reset() && error.is_remote(), "{name}: {path}: {error:?}");
                }
            }
            for code in [Reason::CANCEL, Reason::INTERNAL_ERROR] {
                let (answer, mut body) = client.start(request("POST", "/wait"), false).await.unwrap();
                let _answer = answer.await.unwrap();
                body.send_reset(code);
                let code = u64::from(u32::from(code));
                tokio::time::timeout(PATIENCE, async {
                    while SEEN.load(Ordering::Relaxed) != code {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                })
                .await
                .unwrap_or_else(|_| panic!("{name}: {code} did not arrive, but {SEEN:?}"));
            }
            assert_eq!(client.get("/").await.unwrap().text(), "hello", "{name}: the connection has stayed");
        });
    }
}

#[test]
fn h2_header_lists_have_a_limit() {
    let (grid, _servers) = serve();
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let mut sized = async |bytes: usize| {
                let mut request = request("GET", "/fields");
                for at in 0..bytes / 10_000 {
                    let value = HeaderValue::from_str(&"v".repeat(10_000)).unwrap();
                    request
                        .headers_mut()
                        .insert(http::HeaderName::from_bytes(format!("x-{at}").as_bytes()).unwrap(), value);
                }
                let (answer, _) = client.start(request, true).await.unwrap();
                receive_answer(answer).await.unwrap()
            };
            let answer = sized(100_000).await;
            assert_eq!(answer.status(), 200, "{name}");
            assert!(answer.body.len() > 100_000, "{name}: {} bytes arrived", answer.body.len());
            assert_eq!(sized(140_000).await.status(), 431, "{name}");
            assert_eq!(sized(10_000).await.status(), 200, "{name}: the connection has stayed");
        });
    }
}

#[test]
fn h2_bodies_are_exact_in_both_directions() {
    const BYTES: u64 = 20_000_000;
    let (grid, _servers) = serve();
    let mut sent = Vec::new();
    pattern::write(&mut sent, BYTES).unwrap();
    let sent = Bytes::from(sent);
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let answer = client.post("/echo", sent.clone()).await.unwrap();
            let checked = pattern::check(&mut &answer.body[..], u64::MAX);
            assert_eq!(checked.unwrap_or_else(|error| panic!("{name}: {error}")), BYTES, "{name}");
            assert_eq!(answer.trailer("end"), Some("of echo"), "{name}");
        });
    }
}

/// As bidirectional gRPC does: many streams of one connection, each a conversation.
#[test]
fn h2_streams_converse_side_by_side() {
    const STREAMS: usize = 50;
    const TURNS: usize = 20;
    let (grid, _servers) = serve();
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                streams.push(client.start(request("POST", "/echo"), false).await.unwrap());
            }
            let talks = streams.into_iter().enumerate().map(|(at, (answer, mut body))| async move {
                let mut stream = answer.await?.into_body();
                for turn in 0..TURNS {
                    let said = format!("{at}/{turn}/").repeat(1 + at * turn);
                    send(&mut body, said.clone().into(), false).await?;
                    let mut heard = Vec::new();
                    while heard.len() < said.len() {
                        heard.extend_from_slice(&part(&mut stream).await?.expect("more to come"));
                    }
                    assert_eq!(heard, said.as_bytes());
                }
                send(&mut body, Bytes::new(), true).await?;
                let (rest, trailers) = receive(&mut stream).await?;
                assert!(rest.is_empty() && trailers.is_some());
                Ok::<_, h2::Error>(())
            });
            let talks: Vec<_> = talks.map(tokio::spawn).collect();
            for talk in talks {
                talk.await.unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        });
    }
}

/// Who does not read holds up the sender of that stream, at a bounded amount, and no other stream.
#[test]
fn h2_a_slow_reader_stalls_only_itself() {
    /// Far more than all windows and buffers on the way together.
    const TOO_MUCH: u64 = 64 * 1024 * 1024;
    let sent = Arc::new(AtomicU64::new(0));
    let grid = Grid::new(Port::auto(PORT));
    let _servers = grid.servers().map(|pod| {
        let sent = sent.clone();
        Server::start(pod, PORT, move |mut exchange: Exchange| {
            let sent = sent.clone();
            async move {
                if exchange.path() != "/endless" {
                    return app(exchange).await;
                }
                let mut stream = exchange.respond.send_response(response(200), false)?;
                while sent.load(Ordering::Relaxed) < TOO_MUCH {
                    send(&mut stream, vec![0; 16_384].into(), false).await?;
                    sent.fetch_add(16_384, Ordering::Relaxed);
                }
                Ok(())
            }
        })
    });
    for Route { name, client, address } in grid.routes() {
        sent.store(0, Ordering::Relaxed);
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let (answer, _) = client.start(request("GET", "/endless"), true).await.unwrap();
            let mut stream = answer.await.unwrap().into_body();
            // Until nothing more goes.
            let mut last = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let now = sent.load(Ordering::Relaxed);
                assert!(now < TOO_MUCH, "{name}: nothing held up the sender");
                if now == last && now > 0 {
                    break;
                }
                last = now;
            }
            let answer = client.post("/echo", vec![b'y'; 1_000_000]).await.unwrap();
            assert_eq!(answer.body.len(), 1_000_000, "{name}");
            // It goes on when it is read.
            let mut read = 0;
            while read < last + 1_000_000 {
                read += part(&mut stream).await.unwrap().expect("it is endless").len() as u64;
            }
        });
    }
}

/// A server that asks its connections to end loses no request: it is the proxy's connection, and not the client's.
#[test]
fn h2_goaway_of_the_server_is_not_noticed() {
    let (grid, servers) = serve();
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let (slow, _) = client.start(request("GET", "/slow/1000"), true).await.unwrap();
            for at in 0..300 {
                if at % 60 == 30 {
                    servers.iter().for_each(Server::go_away);
                }
                let answer = match at % 2 {
                    0 => client.get("/").await,
                    _ => client.post("/echo", "once").await,
                };
                let answer = answer.unwrap_or_else(|error| panic!("{name}: request {at}: {error}"));
                assert_eq!(answer.status(), 200, "{name}: request {at}: {answer:?}");
            }
            assert_eq!(receive_answer(slow).await.unwrap().text(), "slow", "{name}");
        });
    }
}

/// A proxy that drains says so by GOAWAY, and finishes what it has.
#[test]
fn h2_goaway_of_a_draining_proxy() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let (mut server, mut client) = (world.meshed("server"), world.meshed("client"));
    let stranger = world.unmeshed("stranger");
    let _server = Server::start(&server, PORT, app);
    run(async {
        let mut inside = Client::connect(&client, service.at(PORT)[0]).await.unwrap();
        let mut outside = Client::connect(&stranger, server.at(PORT)[0]).await.unwrap();
        let mut slow = Vec::new();
        for client in [&mut inside, &mut outside] {
            slow.push(client.start(request("GET", "/slow/1500"), true).await.unwrap().0);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        for pod in [&server, &client] {
            pod.proxy().signal(nix::sys::signal::Signal::SIGTERM);
        }
        for answer in slow {
            assert_eq!(receive_answer(answer).await.unwrap().text(), "slow");
        }
        for client in [inside, outside] {
            client.ended().await.unwrap();
        }
    });
    for pod in [&mut client, &mut server] {
        let status = pod.proxy_mut().wait(PATIENCE);
        assert!(status.success(), "{status}");
    }
}
