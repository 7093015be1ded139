//! The agent's admin port: `/ready`, `/live` and `/metrics`, over HTTP/1.1.

use super::Status;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// Connections served at once; further ones wait.
const CONNECTIONS: usize = 32;
/// Wait for a request's head, which is also how long a connection may be idle.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// Wait before the next accept when one has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TEXT: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `[::]` takes IPv4 too, and becomes `0.0.0.0` where the kernel has no IPv6.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let bound =
        std::net::TcpListener::bind(address).or_else(|error| match address.ip().is_unspecified() {
            true => std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())),
            false => Err(error),
        })?;
    bound.set_nonblocking(true)?;
    TcpListener::from_std(bound)
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, status: Arc<Status>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let status = status.clone();
                tokio::spawn(async move {
                    connection(stream, &status).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!("admin: a connection could not be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, status: &Status) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = page(request.uri().path(), status);
        async { Ok::<_, Infallible>(answer) }
    });
    let builder = &mut http1::Builder::new();
    let served = builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!("admin: a connection has ended: {error}");
    }
}

fn page(path: &str, status: &Status) -> Response<Full<Bytes>> {
    let (code, kind, body) = match (path, status.ready()) {
        ("/live", _) => (StatusCode::OK, TEXT, "live\n".to_owned()),
        ("/ready", Ok(())) => (StatusCode::OK, TEXT, "ready\n".to_owned()),
        ("/ready", Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
        ("/metrics", ready) => (StatusCode::OK, OPENMETRICS, status.metrics.encode(ready.is_ok())),
        _ => (
            StatusCode::NOT_FOUND,
            TEXT,
            format!("there is no {path} here, but /ready, /live and /metrics\n"),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
