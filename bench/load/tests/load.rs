//! Each load against the backend's own servers, over loopback: what it counts is what happened, and what fails is
//! told as failed.

#![allow(clippy::unwrap_used)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bench_load::bulk::{self, Direction};
use bench_load::closed::{self, Exchange};
use bench_load::{backend, burst, exchange, idle, paced};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

const BRIEFLY: Duration = Duration::from_millis(60);

fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().block_on(&Builder::new_current_thread().enable_all().build().unwrap(), test)
}

async fn serving<F>(serve: fn(TcpStream) -> F) -> SocketAddr
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(backend::each(listener, serve));
    address
}

/// Reads a request and refuses it, whole and well-formed.
async fn refusing(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await? != 0 {
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await?;
    }
    Ok(())
}

#[test]
fn closed_loops_count_what_succeeded() {
    on_one_thread(async {
        for exchange in [Exchange::Echo { bytes: 64 }, Exchange::ConnectTcp] {
            let echo = serving(backend::echo).await;
            let (ok, failed) = closed::run(echo, 4, BRIEFLY, exchange).await.counts();
            assert!(ok > 4 && failed == 0, "{exchange:?}: {ok} ok, {failed} failed");
        }
        let http = serving(backend::http).await;
        let (ok, failed) = closed::run(http, 4, BRIEFLY, Exchange::ConnectHttp).await.counts();
        assert!(ok > 4 && failed == 0, "GET: {ok} ok, {failed} failed");
    });
}

#[test]
fn a_refusal_is_no_success() {
    on_one_thread(async {
        let refusing = serving(refusing).await;
        let (ok, failed) = closed::run(refusing, 2, BRIEFLY, Exchange::ConnectHttp).await.counts();
        assert!(ok == 0 && failed > 0, "closed: {ok} ok, {failed} failed");
        let (ok, failed) = paced::run(refusing, 2, BRIEFLY, 500.0).await.counts();
        assert!(ok == 0 && failed > 0, "paced: {ok} ok, {failed} failed");
        assert_eq!(idle::open(refusing, 3).await.failed, 3);
        assert!(exchange::first_ok(refusing, BRIEFLY).await.is_err());
    });
}

#[test]
fn a_fixed_rate_is_kept() {
    on_one_thread(async {
        let http = serving(backend::http).await;
        let (ok, failed) = paced::run(http, 4, Duration::from_millis(200), 1000.0).await.counts();
        assert_eq!((ok, failed), (200, 0));
    });
}

#[test]
fn bulk_counts_what_arrived() {
    on_one_thread(async {
        let sink = serving(backend::sink).await;
        let up = bulk::run(sink, 2, BRIEFLY, Direction::Up).await;
        assert!(up.failed == 0 && up.bytes > 0 && up.bytes % (128 * 1024) == 0, "{up:?}");
        let source = serving(backend::source).await;
        let down = bulk::run(source, 2, BRIEFLY, Direction::Down).await;
        assert!(down.failed == 0 && down.bytes > 0, "{down:?}");
    });
}

#[test]
fn idle_connections_stay_open() {
    on_one_thread(async {
        let http = serving(backend::http).await;
        let mut held = idle::open(http, 70).await;
        assert_eq!((held.open.len(), held.failed), (70, 0));
        let request = exchange::request(http, exchange::After::Keep);
        for stream in &mut held.open {
            exchange::get(stream, &request, exchange::After::Keep).await.unwrap();
        }
        assert!(exchange::first_ok(http, BRIEFLY).await.is_ok());
    });
}

#[test]
fn the_backend_answers_http_2_and_grpc() {
    on_one_thread(async {
        let to = serving(backend::http).await;
        let stream = TcpStream::connect(to).await.unwrap();
        let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
        spawn_local(connection);
        for (kind, length, status) in [("text/plain", 1024, None), ("application/grpc+proto", 133, Some("0"))]
        {
            let request = hyper::Request::post("http://a/").header("content-type", kind).body(()).unwrap();
            let (answer, mut body) = requests.send_request(request, false).unwrap();
            body.send_data(vec![0; 128].into(), true).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200, "{kind}");
            let (mut body, mut received) = (answer.into_body(), 0);
            while let Some(data) = body.data().await {
                received += data.unwrap().len();
            }
            let trailers = body.trailers().await.unwrap();
            let told = trailers.as_ref().map(|trailers| trailers["grpc-status"].to_str().unwrap());
            assert_eq!((received, told), (length, status), "{kind}");
        }
    });
}

#[test]
fn a_burst_peaks_before_anything_is_read() {
    on_one_thread(async {
        let http = serving(backend::http).await;
        let mut peaks = 0;
        let (ok, failed) = burst::run(http, 20, || peaks += 1).await;
        assert!(ok == 20 && failed.is_empty(), "{ok} ok, {failed:?}");
        let refusing = serving(refusing).await;
        let (ok, failed) = burst::run(refusing, 3, || peaks += 1).await;
        assert!(ok == 0 && failed.len() == 3, "{ok} ok, {failed:?}");
        assert_eq!(peaks, 2);
    });
}
