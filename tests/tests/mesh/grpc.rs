//! gRPC: the standard interoperability cases by grpc-go's own programs, through every kind of way, and gRPC-Web.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue};
use std::{
    future::poll_fn,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
};
use tests::{
    PATIENCE,
    app::App,
    eventually,
    grid::{Grid, Route},
    h2::{Client, Exchange, Server, receive_answer, request, response, run, send},
    holds,
    manifest::Port,
    program::Program,
    tools::tool,
};

const PORT: u16 = 10_000;

/// The cases of grpc's `interop-test-descriptions.md` that need no credentials.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

/// How long a case may take, in seconds, for timeout(1); they take some tens of milliseconds.
const CASE_SECONDS: &str = "20";
/// Clients that run at once.
const CLIENTS: usize = 4;

fn servers(grid: &Grid) -> [Program; 2] {
    grid.servers().map(|pod| {
        let port = PORT.to_string();
        let program = pod.start(&tool("grpc-interop-server"), ["--port", &port, "--use_tls=false"]);
        pod.wait_for_port(PORT);
        program
    })
}

/// A running client of one case.
fn client(route: Route<'_>, case: &str) -> Child {
    let mut command = route.client.namespace.command("timeout");
    command.args([CASE_SECONDS, &tool("grpc-interop-client"), "--use_tls=false"]);
    command.args(["--server_host", &route.address.ip().to_string()]);
    command.args(["--server_port", &route.address.port().to_string()]);
    command.args(["--test_case", case]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Every case over this way; what failed.
fn failures(route: Route<'_>) -> Vec<String> {
    let mut failures = Vec::new();
    for cases in CASES.chunks(CLIENTS) {
        let running: Vec<_> = cases.iter().map(|case| (case, client(route, case))).collect();
        for (case, child) in running {
            let output = child.wait_with_output().unwrap();
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                failures.push(format!("{}: {case}: {}: {said}", route.name, output.status));
            }
        }
    }
    failures
}

#[test]
fn grpc_interoperates() {
    for port in [Port::auto(PORT), Port::declared(PORT, "kubernetes.io/h2c")] {
        let declared = port.app_protocol;
        let grid = Grid::new(port);
        let _servers = servers(&grid);
        let direct: Vec<_> = grid.direct().into_iter().flat_map(failures).collect();
        assert!(direct.is_empty(), "without any proxy: {direct:#?}");
        let failed: Vec<_> = grid.routes().flat_map(failures).collect();
        assert!(failed.is_empty(), "declared as {declared:?}: {failed:#?}");
        calls_were_counted(&grid);
    }
}

/// Both proxies have seen calls, and how each ended.
fn calls_were_counted(grid: &Grid) {
    for (pod, direction) in [(&grid.meshed_client, "outbound"), (&grid.meshed_server, "inbound")] {
        eventually(PATIENCE, || {
            let metrics = pod.metrics();
            let count = |status: &str| {
                let labels = [("direction", direction), ("grpc_status", status)];
                metrics.sum("weft_grpc_responses_total", &labels)
            };
            // Of two cases each that are about a status, and of all others.
            let counts = ["OK", "UNKNOWN", "UNIMPLEMENTED"].map(count);
            holds(counts.iter().all(|count| *count >= 4.0), format!("{direction}: {counts:?}\n{}", metrics.0))
        });
    }
}

/// What these tests need of a gRPC server: it says what deadline it was given, and never answers `/stall`.
async fn calls(mut exchange: Exchange, resets: Arc<Mutex<Vec<Reason>>>) -> Result<(), h2::Error> {
    if exchange.path() == "/test.Service/stall" {
        let reset = poll_fn(|context| exchange.respond.poll_reset(context)).await?;
        resets.lock().unwrap().push(reset);
        return Ok(());
    }
    let timeout = exchange.request.headers().get("grpc-timeout").cloned();
    let mut head = response(200);
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut stream = exchange.respond.send_response(head, false)?;
    let body = timeout.map_or(Bytes::new(), |value| Bytes::copy_from_slice(value.as_bytes()));
    send(&mut stream, body, false).await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

/// A call of this method, with a deadline.
fn call(method: &str, timeout: &'static str) -> http::Request<()> {
    let mut request = request("POST", &format!("/test.Service/{method}"));
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", timeout)]
    {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request
}

#[test]
fn grpc_deadlines_are_told_and_held() {
    let grid = Grid::new(Port::auto(PORT));
    let resets: Arc<Mutex<Vec<Reason>>> = Arc::default();
    let _servers = grid.servers().map(|pod| {
        let resets = resets.clone();
        Server::start(pod, PORT, move |exchange| calls(exchange, resets.clone()))
    });
    for (at, Route { name, client, address }) in grid.routes().enumerate() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let (answer, _) = client.start(call("tell", "5S"), true).await.unwrap();
            let answer = receive_answer(answer).await.unwrap();
            assert_eq!(answer.trailer("grpc-status"), Some("0"), "{name}: {answer:?}");
            let left = nanoseconds(answer.text());
            assert!(left > 3_000_000_000 && left <= 5_000_000_000, "{name}: {}", answer.text());
            // The caller waits longer than it said, so that who keeps the time is the mesh.
            let (answer, _) = client.start(call("stall", "200m"), true).await.unwrap();
            let answer = receive_answer(answer).await.unwrap();
            assert_eq!(
                (answer.status(), answer.field("grpc-status")),
                (200, Some("4")),
                "{name}: {answer:?}"
            );
            assert!(answer.body.is_empty() && answer.trailers.is_none(), "{name}: {answer:?}");
        });
        eventually(PATIENCE, || {
            let seen = resets.lock().unwrap();
            holds(*seen == vec![Reason::CANCEL; at + 1], format!("{name}: the server saw {seen:?}"))
        });
    }
}

/// The value of grpc-timeout.
fn nanoseconds(text: &str) -> u64 {
    let (digits, unit) = text.split_at(text.len() - 1);
    let scale = match unit {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "S" => 1_000_000_000,
        _ => panic!("grpc-timeout: {text}"),
    };
    digits.parse::<u64>().unwrap() * scale
}

/// gRPC clients look at nothing but the status in the head, trailers or not.
#[test]
fn grpc_callers_are_told_of_failures_in_their_own_words() {
    let grid = Grid::new(Port::auto(PORT));
    // Nobody listens on any port.
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let (answer, _) = client.start(call("tell", "5S"), true).await.unwrap();
            let answer = receive_answer(answer).await.unwrap();
            assert_eq!(
                (answer.status(), answer.field("grpc-status"), answer.field("content-type")),
                (200, Some("14"), Some("application/grpc")),
                "{name}: {answer:?}"
            );
            // The same for a request that is not a call.
            let answer = client.get("/").await.unwrap();
            assert!(answer.status() >= 500 && answer.field("grpc-status").is_none(), "{name}: {answer:?}");
        });
    }
}

/// gRPC-Web is HTTP/1.1 whose bodies hold the trailers: bytes to everyone on the way.
#[test]
fn grpc_web_passes_unchanged() {
    let message = frame(0, b"\x0a\x05hello");
    let answer = [message.clone(), frame(0x80, b"grpc-status: 5\r\ngrpc-message: none\r\n")].concat();
    let grid = Grid::new(Port::auto(PORT));
    let _apps = grid.servers().map(|pod| {
        let (expected, answer) = (message.clone(), answer.clone());
        App::http(pod, PORT, move |request| {
            let kind = request.head.field("content-type").unwrap_or_default();
            let right = kind == "application/grpc-web+proto" && request.body == expected;
            let status = if right { "200 OK" } else { "400 Bad Request" };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
                answer.len()
            );
            [head.as_bytes(), &answer, b"\r\n0\r\n\r\n"].concat()
        })
    });
    for Route { name, client, address } in grid.routes() {
        let mut client = client.client(address);
        for _ in 0..2 {
            let head = format!(
                "POST /test.Service/tell HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web+proto\r\n\
                 X-Grpc-Web: 1\r\nContent-Length: {}\r\n\r\n",
                message.len()
            );
            client.send([head.as_bytes(), &message].concat());
            let seen = client.answer("POST");
            assert_eq!(seen.head.status(), 200, "{name}: {seen:?}");
            assert_eq!(seen.head.field("content-type"), Some("application/grpc-web+proto"), "{name}");
            assert_eq!(seen.head.field("grpc-status"), None, "{name}: it stays in the body");
            assert_eq!(seen.body, answer, "{name}");
        }
    }
}

/// A message, or trailers when bit 7 is set.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &(payload.len() as u32).to_be_bytes(), payload].concat()
}
