//! The webhook's own server: TLS, HTTP/1.1, `POST /inject`.

use super::{Metrics, keeper::Slot, namespaces::Namespaces, review::Request as Review};
use crate::{Config, Reason, Verdict};
use admin::Told;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// Connections at once. An API server holds a few.
const CONNECTIONS: usize = 1024;
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// A connection that says nothing. Longer than the 90 s after which an API server closes it: a server that closes first
/// may cross a question.
const IDLE: Duration = Duration::from_secs(120);
/// The whole of a question and its answer; the API server waits no longer than five seconds.
const DEADLINE: Duration = Duration::from_millis(4500);
/// Bytes of a question. The API server takes objects of 3 MiB.
const BODY_BYTES: usize = 8 << 20;

/// What the answers are made of.
pub struct Webhook {
    pub config: RwLock<Arc<Config>>,
    pub namespaces: Arc<Namespaces>,
    pub slot: Arc<Slot>,
    pub metrics: Arc<Metrics>,
    pub is_closing: AtomicBool,
    /// Where our own pods are: they are never injected, whatever a configuration says.
    pub namespace: String,
}

impl Told for Webhook {
    /// Why the API server should not ask here.
    fn unready(&self) -> Option<String> {
        let why = if self.is_closing.load(Ordering::Acquire) {
            "shutting down"
        } else if !self.slot.is_filled() {
            "there is no certificate yet that the API server knows"
        } else if !self.namespaces.is_synced() {
            "the namespaces have not been read yet"
        } else {
            return None;
        };
        Some(why.into())
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }
}

impl Webhook {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves until it is dropped. When `closing` says so, each connection ends after the answer that is under way.
pub async fn serve(listener: TcpListener, webhook: Arc<Webhook>, closing: watch::Receiver<bool>) {
    let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has what TLS 1.2 and 1.3 need")
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&webhook.slot) as _);
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (acceptor, webhook, closing) = (acceptor.clone(), Arc::clone(&webhook), closing.clone());
        tokio::spawn(async move {
            connection(stream, &acceptor, webhook, closing).await;
            drop(permit);
        });
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    webhook: Arc<Webhook>,
    mut closing: watch::Receiver<bool>,
) {
    let stream = match timeout(HANDSHAKE_WAIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            // An API server that does not know the authority yet, or a port scan.
            tracing::debug!("a TLS handshake failed: {error}");
            return;
        }
        Err(_) => return,
    };
    let service = service_fn(move |request| {
        let webhook = Arc::clone(&webhook);
        async move { Ok::<_, Infallible>(respond(request, &webhook).await) }
    });
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        _ = poll_fn(|context| served.as_mut().poll(context)) => return,
        _ = closing.wait_for(|closing| *closing) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

async fn respond(request: Request<Incoming>, webhook: &Webhook) -> Response<Full<Bytes>> {
    if request.uri().path() != "/inject" {
        return text(StatusCode::NOT_FOUND, "there is /inject\n".into());
    }
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n".into());
    }
    match timeout(DEADLINE, answer(request, webhook)).await {
        Ok(response) => response,
        Err(_) => {
            webhook.metrics.failed("deadline");
            text(StatusCode::GATEWAY_TIMEOUT, "weft: not decided in time; try again\n".into())
        }
    }
}

async fn answer(request: Request<Incoming>, webhook: &Webhook) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let body = match Limited::new(request.into_body(), BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            webhook.metrics.failed("body");
            let status = match error.is::<LengthLimitError>() {
                true => StatusCode::PAYLOAD_TOO_LARGE,
                false => StatusCode::BAD_REQUEST,
            };
            return text(status, format!("weft: the body: {error}\n"));
        }
    };
    let review = match Review::read(&body) {
        Ok(review) => review,
        Err(error) => {
            webhook.metrics.failed("body");
            let why = crate::chain(&error);
            tracing::warn!("a question that is none: {why}");
            return text(StatusCode::BAD_REQUEST, format!("weft: {why}\n"));
        }
    };
    let verdict = match decide(&review, webhook).await {
        Ok(verdict) => verdict,
        Err(error) => {
            webhook.metrics.failed("namespace");
            let why = crate::chain(&error);
            tracing::warn!("pod {}/{}: {why}", review.namespace, review.name());
            return text(StatusCode::SERVICE_UNAVAILABLE, format!("weft: {why}; try again\n"));
        }
    };
    webhook.metrics.reviewed(&verdict, started.elapsed());
    log(&review, &verdict);
    let json = serde_json::to_vec(&review.answer(&verdict)).expect("an answer is plain JSON");
    let mut response = Response::new(Full::new(json.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn decide(review: &Review, webhook: &Webhook) -> Result<Verdict, super::namespaces::NamespaceError> {
    if [webhook.namespace.as_str(), "kube-system"].contains(&review.namespace.as_str()) {
        return Ok(Verdict::Skip(Reason::NotAsked));
    }
    let config = webhook.config();
    let known = webhook.namespaces.find(&review.namespace).await?;
    let verdict = review.decide(&config, &known);
    if verdict != Verdict::Skip(Reason::NotAsked) {
        return Ok(verdict);
    }
    // The API server asks only where somebody wants it: our watch may not have heard of the label yet.
    let fresh = webhook.namespaces.ask(&review.namespace).await?;
    Ok(review.decide(&config, &fresh))
}

fn log(review: &Review, verdict: &Verdict) {
    let pod = format!("{}/{}", review.namespace, review.name());
    match verdict {
        Verdict::Patch { operations, .. } if operations.is_empty() => {
            tracing::debug!("pod {pod}: it has its proxy already")
        }
        Verdict::Patch { warnings, .. } if warnings.is_empty() => tracing::info!("pod {pod}: injected"),
        Verdict::Patch { warnings, .. } => tracing::info!("pod {pod}: injected; {}", warnings.join("; ")),
        Verdict::Skip(reason) => tracing::info!("pod {pod}: left as it is: {reason}"),
        Verdict::Refuse(problem) => tracing::warn!("pod {pod}: refused: {problem}"),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
