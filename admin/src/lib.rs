//! What people and probes ask of control, the injector and the CNI agents: `/live`, `/ready`, `/metrics`, over HTTP/1.1; and how their
//! listeners are opened.
//!
//! Not the proxy's: its port has pages that do something, answers on the thread of its control connection and tells a node's probes apart.

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

/// Connections at once; further ones wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// Wait for a request's head, which is also how long a connection may be idle.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// Wait before the next accept when one has failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";

/// What a program tells of itself. Called on the thread that serves it; nothing may block.
pub trait Told: Send + Sync + 'static {
    /// Why it cannot do its work now, in a line or several; `None`: it can.
    fn unready(&self) -> Option<String>;

    /// Its metrics, as OpenMetrics text.
    fn metrics(&self) -> String;

    /// The paths of its own pages.
    fn pages(&self) -> &'static [&'static str] {
        &[]
    }

    /// The JSON of one of `pages`.
    fn page(&self, _path: &str) -> String {
        String::new()
    }
}

/// Where to listen, as command lines take it: `[ADDRESS:]PORT`. A port alone means all addresses, of both families where there are two.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        Err(_) => text.parse().map_err(|_| format!("{text:?} is not of the form PORT or ADDRESS:PORT")),
    }
}

/// Where IPv6 is off, `[::]` means any address of IPv4.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let any = address.is_ipv6() && address.ip().is_unspecified();
    match TcpListener::bind(address).await {
        Err(_) if any => TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await,
        bound => bound,
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, told: Arc<impl Told>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(&request, &*told);
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

fn respond(request: &Request<Incoming>, told: &impl Told) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET".into());
    }
    match request.uri().path() {
        "/live" => answer(StatusCode::OK, TEXT, "live".into()),
        "/ready" => match told.unready() {
            None => answer(StatusCode::OK, TEXT, "ready".into()),
            Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
        },
        "/metrics" => answer(StatusCode::OK, OPENMETRICS, told.metrics()),
        path if told.pages().contains(&path) => answer(StatusCode::OK, JSON, told.page(path)),
        _ => {
            let pages = [&["/live", "/ready", "/metrics"], told.pages()].concat();
            answer(StatusCode::NOT_FOUND, TEXT, format!("there are {}", pages.join(", ")))
        }
    }
}

/// A body of whole lines.
fn answer(status: StatusCode, kind: &'static str, mut body: String) -> Response<Full<Bytes>> {
    if !body.ends_with('\n') {
        body.push('\n');
    }
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    struct Starting;

    impl Told for Starting {
        fn unready(&self) -> Option<String> {
            Some("the list of pods".into())
        }

        fn metrics(&self) -> String {
            "# EOF\n".into()
        }

        fn pages(&self) -> &'static [&'static str] {
            &["/problems"]
        }

        fn page(&self, path: &str) -> String {
            format!("[\"{path}\"]")
        }
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        assert_eq!(address("4295"), Ok("[::]:4295".parse().expect("an address")));
        assert_eq!(address("127.0.0.1:1"), Ok("127.0.0.1:1".parse().expect("an address")));
        assert!(address("localhost").is_err());
    }

    #[tokio::test]
    async fn pages_are_found_and_others_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let serving = tokio::spawn(serve(listener, Arc::new(Starting)));
        for (request, status, kind, body) in [
            ("GET /live", "200 OK", TEXT, "live\n"),
            ("GET /ready", "503 Service Unavailable", TEXT, "the list of pods\n"),
            ("GET /metrics", "200 OK", OPENMETRICS, "# EOF\n"),
            ("GET /problems", "200 OK", JSON, "[\"/problems\"]\n"),
            ("GET /", "404 Not Found", TEXT, "there are /live, /ready, /metrics, /problems\n"),
            ("POST /ready", "405 Method Not Allowed", TEXT, "only GET\n"),
        ] {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let head = format!("{request} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("it reads");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("text");
            assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {text}");
            assert!(text.contains(&format!("content-type: {kind}\r\n")), "{request}: {text}");
            assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{request}: {text}");
        }
        serving.abort();
    }
}
