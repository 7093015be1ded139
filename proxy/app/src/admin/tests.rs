//! The admin port over real loopback sockets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::telemetry::Gauges;

struct Fixture {
    address: SocketAddr,
    not_ready: Arc<Mutex<Option<String>>>,
    shutdowns: Arc<AtomicUsize>,
}

async fn start() -> Fixture {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("it is bound");
    let not_ready = Arc::new(Mutex::new(None));
    let shutdowns = Arc::new(AtomicUsize::new(0));
    let admin = admin(Arc::clone(&not_ready), Arc::clone(&shutdowns));
    tokio::spawn(serve(listener, admin));
    Fixture { address, not_ready, shutdowns }
}

fn admin(not_ready: Arc<Mutex<Option<String>>>, shutdowns: Arc<AtomicUsize>) -> Admin {
    Admin {
        telemetry: Telemetry::new(Gauges::default),
        ready: Box::new(move || match not_ready.lock().expect("no test panics with it").clone() {
            Some(why) => Readiness::NotReady(why),
            None => Readiness::Ready,
        }),
        config: Box::new(|| serde_json::json!({ "outbound": [{ "service": "cart.shop:8080" }] })),
        why: Box::new(|query| Err(Unanswered::Unclear(format!("what is {query:?}?")))),
        shutdown: Box::new(move || {
            shutdowns.fetch_add(1, Ordering::Relaxed);
        }),
        tcp_probe: TcpProbe::default(),
    }
}

/// Sends one request on its own connection and reads to the end.
async fn ask(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the admin port listens");
    stream
        .write_all(format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a whole head").1
}

#[tokio::test]
async fn each_page_answers() {
    let fixture = start().await;
    let table = [
        ("GET /ready", "200 OK", "text/plain", "ready\n"),
        ("GET /live?probe=1", "200 OK", "text/plain", "live\n"),
        ("GET /", "200 OK", "text/plain", "GET  /metrics         Prometheus metrics\n"),
        ("GET /config", "200 OK", "application/json", "      \"service\": \"cart.shop:8080\"\n"),
        ("GET /why?to=x", "400 Bad Request", "text/plain", "what is \"to=x\"?\n"),
        ("GET /metrics", "200 OK", "text/plain; version=0.0.4", "\nweft_control_connected 0\n"),
        ("GET /metricz", "404 Not Found", "text/plain", "there is no /metricz here\n"),
        ("GET /metricz", "404 Not Found", "text/plain", "GET  /config    "),
        ("GET /probe/tcp/80", "404 Not Found", "text/plain", "there is no /probe/tcp/80 here\n"),
        ("POST /ready", "405 Method Not Allowed", "text/plain", "/ready takes GET, HEAD, not POST\n"),
        ("GET /shutdown", "405 Method Not Allowed", "text/plain", "/shutdown takes POST, not GET\n"),
    ];
    for (request, status, content_type, content) in table {
        let answer = ask(fixture.address, &format!("{request} HTTP/1.1")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
        assert!(answer.contains(&format!("content-type: {content_type}")), "{request}: {answer}");
        assert!(body(&answer).contains(content), "{request}: {answer}");
    }
    assert!(ask(fixture.address, "DELETE /ready HTTP/1.1").await.contains("allow: GET, HEAD\r\n"));
    assert!(ask(fixture.address, "GET /shutdown HTTP/1.1").await.contains("allow: POST\r\n"));
    assert_eq!(fixture.shutdowns.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn not_ready_says_why() {
    let fixture = start().await;
    let why = "no certificate yet: control 10.0.0.1:8486 unreachable: connection refused";
    *fixture.not_ready.lock().expect("no test panics with it") = Some(why.to_owned());
    let answer = ask(fixture.address, "GET /ready HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert_eq!(body(&answer), format!("not ready: {why}\n"));
    assert!(ask(fixture.address, "GET /live HTTP/1.1").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn head_has_the_length_and_no_content() {
    let fixture = start().await;
    let answer = ask(fixture.address, "HEAD /ready HTTP/1.1").await;
    assert!(answer.contains("content-length: 6\r\n"), "{answer}");
    assert_eq!(body(&answer), "");
}

#[tokio::test]
async fn a_scraper_that_asks_for_openmetrics_gets_it() {
    let fixture = start().await;
    let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let answer = ask(fixture.address, &format!("GET /metrics HTTP/1.1\r\n{accept}")).await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn shutdown_is_for_this_host_only() {
    let fixture = start().await;
    assert_eq!(body(&ask(fixture.address, "POST /shutdown HTTP/1.1").await), "draining\n");
    assert_eq!(fixture.shutdowns.load(Ordering::Relaxed), 1);

    let admin = admin(Arc::clone(&fixture.not_ready), Arc::clone(&fixture.shutdowns));
    let request = Request::post("/shutdown").body(()).expect("a request");
    for (peer, status, calls) in [
        ("10.1.2.3", StatusCode::FORBIDDEN, 1),
        ("fd00::7", StatusCode::FORBIDDEN, 1),
        ("::ffff:127.0.0.1", StatusCode::OK, 2),
        ("::1", StatusCode::OK, 3),
    ] {
        let Answer::Now(response) = admin.answer(&request, peer.parse().expect("an address")) else {
            panic!("that is no probe");
        };
        assert_eq!(response.status(), status, "{peer}");
        assert_eq!(fixture.shutdowns.load(Ordering::Relaxed), calls, "{peer}");
    }
}

/// Each port is an application's own: it listens as the table says, and is asked about by the address that was dialled.
#[tokio::test]
async fn a_tcp_probe_finds_the_application_wherever_it_listens() {
    for (listens, dialled) in
        [("127.0.0.1", "127.0.0.1"), ("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("::1", "::1")]
    {
        let application = TcpListener::bind((listens, 0)).await.expect("a loopback port");
        let port = application.local_addr().expect("it is bound").port();
        let listener = TcpListener::bind((dialled, 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("it is bound");
        let tcp_probe = TcpProbe { ports: vec![port], ..TcpProbe::default() };
        let admin = Admin { tcp_probe, ..admin(Arc::default(), Arc::default()) };
        tokio::spawn(serve(listener, admin));

        let path = format!("/probe/tcp/{port}");
        let answer = ask(address, &format!("GET {path} HTTP/1.1")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{listens} {dialled}: {answer}");
        // Its end is an ordinary one, and nothing was said.
        let (mut probe, _) = application.accept().await.expect("it was connected to");
        assert_eq!(probe.read(&mut [0; 1]).await.expect("no reset"), 0, "{listens} {dialled}");

        drop((application, probe));
        let answer = ask(address, &format!("GET {path} HTTP/1.1")).await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        let said = format!("the application takes no TCP connection on port {port}: Connection refused");
        assert!(body(&answer).starts_with(&said), "{answer}");
        for (request, status) in [
            (format!("POST {path}"), "405"),
            ("GET /probe/tcp/1".to_owned(), "404"),
            (format!("GET {path}/"), "404"),
            ("GET /probe/tcp/".to_owned(), "404"),
            ("GET /probe/tcp/PORT".to_owned(), "404"),
        ] {
            let answer = ask(address, &format!("{request} HTTP/1.1")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let fixture = start().await;
    let mut stream = TcpStream::connect(fixture.address).await.expect("the admin port listens");
    for _ in 0..3 {
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nready\n") {
            assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0, "it was closed early");
        }
    }
}

#[tokio::test]
async fn garbage_is_refused_and_disturbs_nobody() {
    let fixture = start().await;
    let mut stream = TcpStream::connect(fixture.address).await.expect("the admin port listens");
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00 garbage\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    assert!(ask(fixture.address, "GET /ready HTTP/1.1").await.starts_with("HTTP/1.1 200"));
}

/// Silent connections take every place; the next client waits until their time is up, and is then served.
#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_wait_until_idle_ones_have_gone() {
    let fixture = start().await;
    // Without an await, so that no time passes before the last has come.
    let connect = |_| std::net::TcpStream::connect(fixture.address).expect("the admin port listens");
    let _silent: Vec<_> = (0..CONNECTIONS).map(connect).collect();
    let begun = tokio::time::Instant::now();
    let answer = ask(fixture.address, "GET /ready HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(begun.elapsed() >= HEAD_WAIT, "{:?}", begun.elapsed());
}
