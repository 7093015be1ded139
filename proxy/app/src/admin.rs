//! The admin port: metrics, readiness, liveness, configuration, explanations, TCP probes, shutdown. HTTP/1.1 on the control thread.
//!
//! It answers from what it is given: nothing here knows how configuration comes or what shutdown does.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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

use explain::Verdict;

use crate::probe::TcpProbe;
use crate::telemetry::{Format, Telemetry};
use crate::why::Unanswered;

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
    /// Behind `/why`, by its query.
    pub why: Box<dyn Fn(&str) -> Result<Verdict, Unanswered> + Send + Sync>,
    /// Behind `/shutdown`: begins the drain. May be called more than once.
    pub shutdown: Box<dyn Fn() + Send + Sync>,
    /// Behind `/probe/tcp/PORT`.
    pub tcp_probe: TcpProbe,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

const TCP_PROBE: &str = "/probe/tcp/PORT";

/// The pages: path, method, what it is for.
const PAGES: [(&str, Method, &str); 7] = [
    ("/metrics", Method::GET, "Prometheus metrics"),
    ("/ready", Method::GET, "200 once traffic can be taken, else 503 and why not"),
    ("/live", Method::GET, "200 while the process runs"),
    ("/config", Method::GET, "what control has told, as JSON"),
    (
        "/why",
        Method::GET,
        "?to=ADDRESS:PORT&method=GET&path=/&header=NAME:VALUE: what becomes of it, and why",
    ),
    (TCP_PROBE, Method::GET, "200 if the application takes TCP connections on PORT, of --tcp-probe-ports"),
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
    // Where a kubelet has dialled the pod is where the application would have been dialled.
    let local = stream.local_addr().map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |local| local.ip());
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(match admin.answer(&request, peer.ip()) {
            Answer::Now(response) => response,
            Answer::TcpProbe(port) => admin.probe(local, port).await,
        })
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

/// What a request calls for.
enum Answer {
    Now(Response<Full<Bytes>>),
    /// The answer depends on a connection to this port.
    TcpProbe(u16),
}

impl Admin {
    fn answer<B>(&self, request: &Request<B>, peer: IpAddr) -> Answer {
        let path = request.uri().path();
        let port = path.strip_prefix(TCP_PROBE.trim_end_matches("PORT")).and_then(|port| port.parse().ok());
        let port = port.filter(|port| self.tcp_probe.ports.contains(port));
        let page = if port.is_some() { TCP_PROBE } else { path };
        if let Some(refusal) = refusal(request.method(), page, path) {
            return Answer::Now(refusal);
        }
        match port {
            Some(port) => Answer::TcpProbe(port),
            None => Answer::Now(self.page(request, peer)),
        }
    }

    async fn probe(&self, pod: IpAddr, port: u16) -> Response<Full<Bytes>> {
        match self.tcp_probe.ask(pod, port).await {
            Ok(()) => text(StatusCode::OK, format!("the application takes TCP connections on port {port}\n")),
            Err(error) => {
                let said = format!("the application takes no TCP connection on port {port}: {error}\n");
                text(StatusCode::SERVICE_UNAVAILABLE, said)
            }
        }
    }

    fn page<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/" => text(StatusCode::OK, index()),
            "/metrics" => self.metrics(request),
            "/ready" => match (self.ready)() {
                Readiness::Ready => text(StatusCode::OK, "ready\n"),
                Readiness::NotReady(why) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))
                }
            },
            "/config" => typed(StatusCode::OK, "application/json", format!("{:#}\n", (self.config)())),
            "/why" => self.why(request.uri().query().unwrap_or_default()),
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

    fn why(&self, query: &str) -> Response<Full<Bytes>> {
        match (self.why)(query) {
            Ok(verdict) => {
                let verdict = serde_json::to_string_pretty(&verdict).expect("a verdict is plain data");
                typed(StatusCode::OK, "application/json", format!("{verdict}\n"))
            }
            Err(Unanswered::Unclear(why)) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
            Err(Unanswered::Unknown(why)) => text(StatusCode::NOT_FOUND, format!("{why}\n")),
        }
    }

    fn metrics<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::accepted(accept.unwrap_or_default());
        typed(StatusCode::OK, format.content_type(), self.telemetry.encode(format))
    }
}

/// What is said to a request for a page that is not there, or by a method that the page does not take.
fn refusal(method: &Method, page: &str, path: &str) -> Option<Response<Full<Bytes>>> {
    // Its literal path stands for no port.
    let listed = PAGES.iter().find(|(listed, ..)| *listed == page && path != TCP_PROBE);
    let Some((_, takes, _)) = listed else {
        let said = format!("there is no {path} here\n\n{}", index());
        return (path != "/").then(|| text(StatusCode::NOT_FOUND, said));
    };
    // RFC 9110 §9.3.2: HEAD is GET without the content, which the server leaves out.
    if method == takes || (*takes == Method::GET && method == Method::HEAD) {
        return None;
    }
    let allowed = if *takes == Method::GET { "GET, HEAD" } else { takes.as_str() };
    let mut response =
        text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes {allowed}, not {method}\n"));
    let allowed = HeaderValue::from_str(allowed).expect("method names are header text");
    response.headers_mut().insert(header::ALLOW, allowed);
    Some(response)
}

fn index() -> String {
    let mut page = format!("weft-proxy {}\n", env!("CARGO_PKG_VERSION"));
    for (path, method, says) in &PAGES {
        page += &format!("{:4} {path:15}  {says}\n", method.as_str());
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
