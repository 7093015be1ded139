//! What people and probes ask: `/ready`, `/live`, `/metrics`, `/problems`.

use crate::{Control, metrics::Metrics, readiness::Readiness};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

/// Connections at once.
const CONNECTIONS: usize = 64;
/// Wait for a request.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// What is told of control, also while it starts.
#[derive(Default)]
pub struct Front {
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    /// Not there yet while control starts.
    pub control: OnceLock<Arc<Control>>,
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, front: Arc<Front>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let front = Arc::clone(&front);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(&request, &front);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WAIT)
                .serve_connection(TokioIo::new(stream), service);
            // Who asks may go whenever it likes.
            let _ = served.await;
            drop(permit);
        });
    }
}

fn respond(request: &Request<Incoming>, front: &Front) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match request.uri().path() {
        "/live" => text(StatusCode::OK, "live\n".into()),
        "/ready" => match (front.readiness.text(), front.control.get()) {
            (Some(waiting), _) => text(StatusCode::SERVICE_UNAVAILABLE, waiting),
            (None, None) => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n".into()),
            (None, Some(control)) if control.is_closing() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".into())
            }
            (None, Some(_)) => text(StatusCode::OK, "ready\n".into()),
        },
        "/metrics" => {
            typed("application/openmetrics-text; version=1.0.0; charset=utf-8", front.metrics.text())
        }
        "/problems" => {
            let world = front.control.get().map(|control| control.world());
            let problems: Vec<_> = world.iter().flat_map(|world| world.problems().iter()).collect();
            let json = serde_json::to_string_pretty(&problems).expect("problems are plain text");
            typed("application/json", format!("{json}\n"))
        }
        _ => text(StatusCode::NOT_FOUND, "there are /ready, /live, /metrics and /problems\n".into()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = typed("text/plain; charset=utf-8", body);
    *response.status_mut() = status;
    response
}

fn typed(kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
