//! The admin port: metrics, readiness, liveness, configuration, shutdown. HTTP/1.1 on the control thread.
//!
//! It answers from what it is given: nothing here knows how configuration comes or what shutdown does.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::telemetry::{Format, Telemetry};

#[cfg(test)]
mod tests;

/// Connections served at once; further ones wait in the listener's queue.
pub const CONNECTIONS: usize = 64;
/// Wait for a request's head, which is also how long a connection may be idle: so that the queue moves on.
pub const HEAD_WAIT: Duration = Duration::from_secs(10);
/// Bytes of one request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// Wait before the next accept when one has failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the proxy can take traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot, and why, for people: "no certificate yet: control 10.0.0.1:8486 unreachable: connection refused".
    NotReady(String),
}

/// What the admin port tells and does. The functions are called on its thread and must not block.
pub struct Admin {
    /// Behind `/metrics`.
    pub telemetry: Telemetry,
    /// Behind `/ready`.
    pub ready: Box<dyn Fn() -> Readiness + Send + Sync>,
    /// Behind `/config`.
    pub config: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Behind `/shutdown`: begins the drain. May be called more than once.
    pub shutdown: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// The pages: path, method, what it is for.
const PAGES: [(&str, Method, &str); 5] = [
    ("/metrics", Method::GET, "Prometheus metrics"),
    ("/ready", Method::GET, "200 once traffic can be taken, else 503 and why not"),
    ("/live", Method::GET, "200 while the process runs"),
    ("/config", Method::GET, "what control has told, as JSON"),
    ("/shutdown", Method::POST, "drain and exit; from this host only"),
];

/// Serves until it is dropped; the connections then still open end with their answers.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let admin = Arc::new(admin);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let admin = Arc::clone(&admin);
                tokio::spawn(async move {
                    connection(stream, peer, &admin).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin: a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, admin: &Admin) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = admin.answer(&request, peer.ip());
        async { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "admin: a connection has ended");
    }
}

impl Admin {
    fn answer<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == "/" {
            return text(StatusCode::OK, index());
        }
        let Some((_, method, _)) = PAGES.iter().find(|(page, ..)| *page == path) else {
            return text(StatusCode::NOT_FOUND, format!("there is no {path} here\n\n{}", index()));
        };
        // RFC 9110 §9.3.2: HEAD is GET without the content, which the server leaves out.
        if request.method() != method && !(*method == Method::GET && request.method() == Method::HEAD) {
            let allowed = if *method == Method::GET { "GET, HEAD" } else { method.as_str() };
            let mut response = text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{path} takes {allowed}, not {}\n", request.method()),
            );
            let allowed = HeaderValue::from_str(allowed).expect("method names are header text");
            response.headers_mut().insert(header::ALLOW, allowed);
            return response;
        }
        match path {
            "/metrics" => self.metrics(request),
            "/ready" => match (self.ready)() {
                Readiness::Ready => text(StatusCode::OK, "ready\n"),
                Readiness::NotReady(why) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))
                }
            },
            "/config" => typed(StatusCode::OK, "application/json", format!("{:#}\n", (self.config)())),
            "/shutdown" if !peer.to_canonical().is_loopback() => text(
                StatusCode::FORBIDDEN,
                "/shutdown is answered to this host only: use its loopback address\n",
            ),
            "/shutdown" => {
                (self.shutdown)();
                text(StatusCode::OK, "draining\n")
            }
            _ => text(StatusCode::OK, "live\n"),
        }
    }

    fn metrics<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::accepted(accept.unwrap_or_default());
        typed(StatusCode::OK, format.content_type(), self.telemetry.encode(format))
    }
}

fn index() -> String {
    let mut page = format!("weft-proxy {}\n", env!("CARGO_PKG_VERSION"));
    for (path, method, says) in &PAGES {
        page += &format!("{:4} {path:9}  {says}\n", method.as_str());
    }
    page
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
