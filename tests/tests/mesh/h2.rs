//! HTTP/2 with prior knowledge: what passes between two ends without a proxy passes with them, frame by frame where it counts.

use bytes::Bytes;
use h2::{Reason, ext::Protocol};
use http::{HeaderMap, HeaderValue, Request};
use std::{
    collections::HashSet,
    fs,
    future::poll_fn,
    io::{BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tests::{
    PATIENCE,
    app::App,
    eventually,
    grid::{Grid, Route},
    h2::{Client, Exchange, Server, part, receive, receive_answer, request, response, run, send},
    holds,
    http::read_head,
    manifest::Port,
    namespace::done,
    pattern,
    pod::Pod,
    program::Program,
    tools::tool,
    websocket::{CLOSE, TEXT, frame, read_frame},
    world::World,
};

const PORT: u16 = 8080;
/// Both ways in which a port is known to speak HTTP/2.
const KNOWN: [Option<&str>; 2] = [None, Some("kubernetes.io/h2c")];

const H2SPEC_CASES: usize = 145;

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

/// How each of h2spec's cases ended: what failed, and how many there were.
fn h2spec(Route { name, client, address }: Route<'_>, folder: &Path) -> (HashSet<String>, usize) {
    let report = folder.join(format!("h2spec {name}.xml"));
    let (host, port) = match address {
        SocketAddr::V4(address) => (address.ip().to_string(), address.port()),
        SocketAddr::V6(address) => (format!("[{}]", address.ip()), address.port()),
    };
    let mut command = client.namespace.command(tool("h2spec"));
    command.args(["-h", &host, "-p", &port.to_string(), "-j"]).arg(&report);
    let output = command.output().unwrap();
    let report = fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("{name}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let quoted = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!(" {name}=\"")).expect("an attribute");
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let mut failed = HashSet::new();
    let cases: Vec<_> = report.split("<testcase").skip(1).collect();
    for case in &cases {
        if case.contains("<error") || case.contains("<failure") {
            // What came instead is not the name of a case.
            failed.insert(format!("{}: {}", quoted(case, "package"), quoted(case, "classname")));
            eprintln!("h2spec, {name}: {}", case.split("</testcase").next().unwrap_or_default());
        }
    }
    (failed, cases.len())
}

/// What fails over some way though it passes without a proxy.
fn h2spec_differences(grid: &Grid) -> Vec<String> {
    let of_v4 = |route: &Route<'_>| route.address.is_ipv4();
    let folder = grid.world.folder();
    let [direct, _] = grid.direct();
    let routes: Vec<_> = grid.routes().filter(of_v4).collect();
    thread::scope(|scope| {
        let direct = scope.spawn(move || h2spec(direct, folder));
        let ways: Vec<_> = routes
            .into_iter()
            .map(|route| (route.name, scope.spawn(move || h2spec(route, folder))))
            .collect();
        let (direct, cases) = direct.join().unwrap();
        assert_eq!(cases, H2SPEC_CASES);
        ways.into_iter()
            .flat_map(|(name, way)| {
                let (failed, cases) = way.join().unwrap();
                assert_eq!(cases, H2SPEC_CASES, "{name}");
                failed.difference(&direct).map(|case| format!("{name}: {case}")).collect::<Vec<_>>()
            })
            .collect()
    })
}

#[test]
fn h2spec_fails_nothing_that_passes_without_a_proxy() {
    for known in KNOWN {
        let grid = Grid::new(port(known));
        let _nghttpd = grid.servers().map(|pod| nghttpd(&grid, pod));
        let differences = h2spec_differences(&grid);
        assert!(differences.is_empty(), "nghttpd, declared {known:?}: {differences:#?}");
    }
    let grid = Grid::new(port(None));
    let _go = grid.servers().map(|pod| go_app(pod, &[]));
    let differences = h2spec_differences(&grid);
    assert!(differences.is_empty(), "Go: {differences:#?}");
}

/// nghttpd with a page.
fn nghttpd(grid: &Grid, pod: &Pod) -> Program {
    let folder = grid.world.folder().join(format!("nghttpd-{}", pod.manifest.name));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("index.html"), "hello\n").unwrap();
    let arguments = ["--no-tls", "-d", &folder.display().to_string(), &PORT.to_string()].map(str::to_owned);
    let program = pod.start("nghttpd", arguments);
    pod.wait_for_port(PORT);
    program
}

/// `tests/tools/h2app`.
fn go_app(pod: &Pod, flags: &[&str]) -> Program {
    let port = PORT.to_string();
    let program = pod.start(&tool("h2app"), [&["-port", &port], flags].concat());
    pod.wait_for_port(PORT);
    program
}

#[test]
fn h2load_with_100_streams_a_connection() {
    const REQUESTS: u32 = 4000;
    let grid = Grid::new(port(None));
    let _nghttpd = grid.servers().map(|pod| nghttpd(&grid, pod));
    for Route { name, client, address } in grid.routes() {
        let url = format!("http://{address}/");
        // By itself it writes IPv6 addresses without their brackets.
        let authority = ["-H", ":authority: web.test"];
        let report = client.done(
            "h2load",
            [&["-n", &REQUESTS.to_string(), "-c", "4", "-m", "100", &url], &authority[..]].concat(),
        );
        let expected = format!(
            "requests: {REQUESTS} total, {REQUESTS} started, {REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, \
             0 timeout\nstatus codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx\n"
        );
        assert!(report.contains(&expected), "{name}: {report}");
    }
    // Two ways lead out of the client to each server, and four ways into the meshed one.
    for (pod, direction) in [(&grid.meshed_client, "outbound"), (&grid.meshed_server, "inbound")] {
        eventually(PATIENCE, || {
            let metrics = pod.metrics();
            let count = metrics.sum("weft_requests_total", &[("direction", direction), ("class", "2xx")]);
            holds(count == f64::from(4 * REQUESTS), format!("{direction}: {count}\n{}", metrics.0))
        });
    }
}

#[test]
fn curl_with_a_server_of_go() {
    const BYTES: usize = 20_000_000;
    let grid = Grid::new(port(None));
    let _go = grid.servers().map(|pod| go_app(pod, &[]));
    let upload = grid.world.folder().join("upload");
    let mut bytes = Vec::new();
    pattern::write(&mut bytes, BYTES as u64).unwrap();
    fs::write(&upload, &bytes).unwrap();
    let bytes = Bytes::from(bytes);
    let sum = done(Command::new("sha256sum").arg(&upload));
    let sum = format!("{BYTES} {}\n", sum.split(' ').next().unwrap());
    let file = format!("@{}", upload.display());
    let size = format!("/zeros?{BYTES}");
    // Each path, further flags, and what curl has to print: the body, then version, status and length.
    let cases: [(&str, &[&str], String); 8] = [
        ("/?a=b", &[], format!("GET web.test /?a=b HTTP/2.0\n2 200 {}", 28)),
        ("/sum", &["--data-binary", &file], format!("{sum}2 200 {}", sum.len())),
        (&size, &["-o", "/dev/null"], format!("2 200 {BYTES}")),
        ("/hints", &[], "hinted\n2 200 7".into()),
        ("/trailers", &[], "summed\n2 200 7".into()),
        ("/status?204", &[], "2 204 0".into()),
        ("/status?304", &[], "2 304 0".into()),
        ("/", &["-I", "-o", "/dev/null"], "2 200 0".into()),
    ];
    for Route { name, client, address } in grid.routes() {
        for (path, flags, expected) in &cases {
            let url = format!("http://{address}{path}");
            let heads = grid.world.folder().join("heads");
            let mut command = client.namespace.command("curl");
            command.args(["-sS", "--max-time", "20", "--http2-prior-knowledge", "-H", "Host: web.test"]);
            command.args(["-w", "%{http_version} %{http_code} %{size_download}", "-D"]).arg(&heads);
            let printed = done(command.args(*flags).arg(&url));
            assert_eq!(&printed, expected, "{name}: {path}");
            let heads = fs::read_to_string(&heads).unwrap();
            let links = heads.matches("HTTP/2 103").count() + heads.matches("link: ").count();
            assert_eq!(links, if *path == "/hints" { 4 } else { 0 }, "{name}: {path}: {heads}");
        }
        // curl shows no trailers.
        let printed = client.done("nghttp", ["-nv", &format!("http://{address}/trailers")]);
        assert!(printed.contains("x-sum: 42"), "{name}: {printed}");
        // It also takes a reset without an error for one.
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let answer = client.post("/early", bytes.clone()).await.unwrap();
            assert_eq!((answer.status(), answer.text()), (413, "too large\n"), "{name}");
        });
    }
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

/// Opens a WebSocket by extended CONNECT (RFC 8441), talks, and closes it.
async fn websocket_over_h2(name: &str, client: &mut Client) {
    let allowed = tokio::time::timeout(PATIENCE, async {
        while !client.requests.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    allowed.await.unwrap_or_else(|_| panic!("{name}: SETTINGS_ENABLE_CONNECT_PROTOCOL has not come"));
    let mut request = Request::builder()
        .method("CONNECT")
        .uri("http://chat.test/chat")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "talk")
        .body(())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let (answer, mut out) = client.start(request, false).await.unwrap();
    let answer = answer.await.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(answer.status(), 200, "{name}: {answer:?}");
    assert_eq!(answer.headers().get("sec-websocket-protocol").unwrap(), "talk", "{name}");
    let mut stream = answer.into_body();
    let mut heard = Vec::new();
    for text in ["one", "two", &"long ".repeat(10_000)] {
        send(&mut out, frame(TEXT, Some([1, 2, 3, 4]), text.as_bytes()).into(), false).await.unwrap();
        let expected = frame(TEXT, None, text.as_bytes());
        while heard.len() < expected.len() {
            heard.extend_from_slice(&part(&mut stream).await.unwrap().expect("more to come"));
        }
        assert_eq!(heard.drain(..).as_slice(), expected, "{name}");
    }
    send(&mut out, frame(CLOSE, Some([9; 4]), &1000_u16.to_be_bytes()).into(), true).await.unwrap();
    let (rest, _) = receive(&mut stream).await.unwrap();
    assert_eq!(read_frame(&mut &rest[..]), (CLOSE, 1000_u16.to_be_bytes().to_vec()), "{name}");
}

/// A server of WebSockets by extended CONNECT, and of whatever else [`app`] serves.
async fn chat(mut exchange: Exchange) -> Result<(), h2::Error> {
    let protocol =
        exchange.request.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
    if protocol.as_deref() != Some("websocket") {
        return app(exchange).await;
    }
    let fields = exchange.request.headers();
    // They belong to HTTP/1.1 only (RFC 8441 §5).
    if fields.contains_key("sec-websocket-key") || fields["sec-websocket-version"] != "13" {
        return exchange.answer(400, "not RFC 8441").await;
    }
    let mut head = response(200);
    head.headers_mut().insert("sec-websocket-protocol", fields["sec-websocket-protocol"].clone());
    let mut out = exchange.respond.send_response(head, false)?;
    let mut heard = Vec::new();
    loop {
        // A frame's length is found by trying to read it: these are small.
        while let Some((kind, payload, length)) = whole_frame(&heard) {
            heard.drain(..length);
            send(&mut out, frame(kind, None, &payload).into(), kind == CLOSE).await?;
            if kind == CLOSE {
                return Ok(());
            }
        }
        match part(exchange.request.body_mut()).await? {
            Some(part) => heard.extend_from_slice(&part),
            None => return Ok(()),
        }
    }
}

/// The first masked frame of these bytes and its length, if it is all there.
fn whole_frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let payload = match (bytes.get(1)? & 0x7f, bytes) {
        (126, [_, _, high, low, ..]) => usize::from(u16::from_be_bytes([*high, *low])) + 2,
        (126.., _) => return None,
        (short, _) => usize::from(short),
    };
    let length = 2 + 4 + payload;
    let mut whole = bytes.get(..length)?;
    let (kind, payload) = read_frame(&mut whole);
    Some((kind, payload, length))
}

#[test]
fn h2_websocket_talks_through_both_proxies() {
    let grid = Grid::new(Port::auto(PORT));
    let _servers = grid.servers().map(|pod| Server::start(pod, PORT, chat));
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            assert_eq!(client.get("/").await.unwrap().text(), "hello", "{name}");
            for _ in 0..2 {
                websocket_over_h2(name, &mut client).await;
            }
            assert_eq!(client.get("/").await.unwrap().text(), "hello", "{name}");
        });
    }
}

/// Where `appProtocol` says that the server speaks HTTP/2, a client of HTTP/1.1 reaches it, WebSockets included.
#[test]
fn h2_only_servers_are_reached_by_http_1_1() {
    let grid = Grid::new(Port::declared(PORT, "kubernetes.io/h2c"));
    let _servers = grid.servers().map(|pod| Server::start(pod, PORT, chat));
    for Route { name, client: pod, address } in grid.routes() {
        let mut client = pod.client(address);
        client.send(
            "POST /fields/x?y HTTP/1.1\r\nHost: Shop.Example\r\nX-Mixed-Case: Kept\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
             Content-Length: 2\r\n\r\nhi",
        );
        let seen = client.answer("POST");
        let text = seen.text().to_owned();
        assert!(text.starts_with("POST http://Shop.Example/fields/x?y\n"), "{name}: {seen:?}");
        assert!(text.contains("x-mixed-case: Kept\n") && !text.contains("x-hop"), "{name}: {text}");
        client.send(
            "POST /echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Check: 11\r\n\r\n",
        );
        let answer = client.answer("POST");
        assert_eq!(answer.text(), "hello", "{name}");
        let trailer = |name: &str| {
            let found = answer.trailers.iter().find(|(held, _)| held.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(
            (trailer("end"), trailer("seen-x-check")),
            (Some("of echo"), Some("11")),
            "{name}: {answer:?}"
        );
        client
            .send("HEAD /status/200 HTTP/1.1\r\nHost: a\r\n\r\nGET /status/304 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer("HEAD").head.field("content-length"), Some("5000"), "{name}");
        assert_eq!(client.answer("GET").head.status(), 304, "{name}");
        client.send("GET /break/8 HTTP/1.1\r\nHost: a\r\n\r\n");
        let broken = client.try_answer("GET");
        assert!(broken.is_err(), "{name}: a part must not look like the whole: {broken:?}");

        let mut client = pod.client(address);
        // The key and its answer are those of RFC 6455 §1.3.
        client.send(
            "GET /chat HTTP/1.1\r\nHost: chat.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: talk\r\n\r\n",
        );
        let head = client.head().unwrap();
        assert_eq!(head.status(), 101, "{name}: {head:?}");
        assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{name}");
        assert_eq!(head.field("sec-websocket-protocol"), Some("talk"), "{name}");
        for text in ["one", &"long ".repeat(10_000)] {
            client.send(frame(TEXT, Some([1, 2, 3, 4]), text.as_bytes()));
            assert_eq!(read_frame(client.reader()), (TEXT, text.as_bytes().to_vec()), "{name}");
        }
        client.send(frame(CLOSE, Some([9; 4]), &1000_u16.to_be_bytes()));
        assert_eq!(read_frame(client.reader()).0, CLOSE, "{name}");
        client.assert_ended();
    }
}

/// And the other way: a WebSocket of HTTP/2 to a server that `appProtocol` says speaks HTTP/1.1.
#[test]
fn h2_websocket_reaches_a_server_of_http_1_1() {
    let grid = Grid::new(Port::declared(PORT, "http"));
    let _apps = grid.servers().map(|pod| {
        App::tcp(pod, PORT, |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut writer = &stream;
            let Ok(Some(head)) = read_head(&mut reader) else { return };
            let key = head.field("sec-websocket-key").expect("a WebSocket of HTTP/1.1 has a key");
            let sum =
                format!("printf %s {key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11 | openssl dgst -sha1 -binary");
            let proof = done(Command::new("sh").args(["-c", &format!("{sum} | openssl base64")]));
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: talk\r\n\r\n",
                proof.trim()
            );
            writer.write_all(head.as_bytes()).unwrap();
            loop {
                let (kind, text) = read_frame(&mut reader);
                writer.write_all(&frame(kind, None, &text)).unwrap();
                if kind == CLOSE {
                    return;
                }
            }
        })
    });
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            websocket_over_h2(name, &mut client).await;
        });
    }
}
