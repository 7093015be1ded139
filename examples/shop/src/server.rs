//! The HTTP/1.1 server under every role: accept, read a bounded body, answer, and leave in good order.
//! What is answered is decided in `roles`.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::fault::Fault;
use crate::roles::{Answer, Asked, Service};
use crate::say;

/// The longest request body taken, in bytes.
pub const BODY_LIMIT: usize = 16 << 10;
/// How long answers under way may take once connections are being closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the server is in its life; it only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Not ready, still serving, and every answer says `Connection: close`.
    Leaving,
    /// Idle connections are closed, busy ones after their answer.
    Closing,
}

/// Listens on `address`; `[::]` becomes `0.0.0.0` on a host without IPv6.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        // EAFNOSUPPORT has no stable kind; any failure but these two is worth the second try.
        Err(error)
            if address.is_ipv6()
                && address.ip().is_unspecified()
                && !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        result => result,
    }
}

/// Serves until `stop`, then for `drain` more while not ready, then lets the answers under way finish.
pub async fn serve(listener: TcpListener, service: Service, drain: Duration, stop: impl Future<Output = ()>) {
    let service = Arc::new(service);
    let phase = watch::Sender::new(Phase::Serving);
    tokio::select! {
        () = accept(&listener, &service, &phase) => {}
        () = stop => {}
    }
    phase.send_replace(Phase::Leaving);
    tokio::select! {
        () = accept(&listener, &service, &phase) => {}
        () = sleep(drain) => {}
    }
    drop(listener);
    phase.send_replace(Phase::Closing);
    // Each connection holds a receiver; what is left after the limit is cut off by the end of the process.
    let _ = timeout(CLOSE_LIMIT, phase.closed()).await;
}

/// Accepts for as long as it is polled.
async fn accept(listener: &TcpListener, service: &Arc<Service>, phase: &watch::Sender<Phase>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, service.clone(), phase.subscribe()));
            }
            Err(error) => {
                say(&format!("accept: {error}"));
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from its first request to its end.
async fn converse(stream: TcpStream, service: Arc<Service>, phase: watch::Receiver<Phase>) {
    // Without it answers are late, not wrong.
    let _ = stream.set_nodelay(true);
    let mut closing = phase.clone();
    let connection = http1::Builder::new().half_close(true).serve_connection(
        TokioIo::new(stream),
        service_fn(move |request| {
            let (service, phase) = (service.clone(), phase.clone());
            async move { Ok::<_, Infallible>(respond(&service, request, &phase).await) }
        }),
    );
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A connection that ends, ends; whoever spoke on it has been told or is gone.
        _ = connection.as_mut() => return,
        () = async { drop(closing.wait_for(|phase| *phase == Phase::Closing).await) } => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn respond(
    service: &Service,
    request: Request<Incoming>,
    phase: &watch::Receiver<Phase>,
) -> Response<Full<Bytes>> {
    let mut response = if request.uri().path() == "/healthz" {
        health(*phase.borrow())
    } else {
        match answer(service, request).await {
            Ok(answer) => reply(StatusCode::OK, Some(HeaderValue::from_static(answer.media)), answer.body),
            Err(Fault::Refused { status, content_type, body }) => reply(status, content_type, body),
            Err(fault) => reply(fault.status(), Some(JSON), fault.json().to_string().into()),
        }
    };
    response.headers_mut().insert("x-served-by", service.served_by().clone());
    // Asked now, not before: the answer may have taken longer than the signal.
    if *phase.borrow() != Phase::Serving {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(service: &Service, request: Request<Incoming>) -> Result<Answer, Fault> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Fault::TooLarge(BODY_LIMIT)
        } else {
            Fault::BadRequest(format!("the body broke off: {error}"))
        }
    })?;
    service.answer(&Asked::new(&head, body.to_bytes())).await
}

fn health(phase: Phase) -> Response<Full<Bytes>> {
    match phase {
        Phase::Serving => reply(StatusCode::OK, Some(JSON), Bytes::from_static(b"{\"status\":\"ready\"}")),
        Phase::Leaving | Phase::Closing => reply(
            StatusCode::SERVICE_UNAVAILABLE,
            Some(JSON),
            Bytes::from_static(b"{\"status\":\"leaving\"}"),
        ),
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn reply(status: StatusCode, media: Option<HeaderValue>, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if let Some(media) = media {
        response.headers_mut().insert(CONTENT_TYPE, media);
    }
    response
}
