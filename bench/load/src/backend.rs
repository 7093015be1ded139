//! What the proxies stand before: a server of HTTP/1.1 and HTTP/2 with responses of 1 KiB that answers gRPC calls too, a sink,
//! a source that speaks first, and an echo. No more work than that, so that the proxies are what is seen.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;

/// Where each server listens.
pub const HTTP: u16 = 8080;
pub const SINK: u16 = 9001;
pub const SOURCE: u16 = 9002;
pub const ECHO: u16 = 9003;

/// Connections that wait to be accepted: thousands arrive at once.
const BACKLOG: u32 = 16_384;
const BODY: [u8; 1024] = [b'x'; 1024];
/// The longest body that a path may ask for.
static LONG: [u8; 1024 * 1024] = [b'x'; 1024 * 1024];
/// What a gRPC call is answered with: a message of 128 bytes, uncompressed, with its length.
const MESSAGE: [u8; 133] = {
    let mut message = [7; 133];
    (message[0], message[1], message[2], message[3], message[4]) = (0, 0, 0, 0, 128);
    message
};
const BULK: usize = 256 * 1024;
/// How HTTP/2 begins (RFC 9113 §3.4) and no request of HTTP/1.1 that is sent here.
const HTTP2: &[u8] = b"PRI";
/// HTTP/2 windows, so that flow control is not what is seen, and streams.
const WINDOW: u32 = 16 * 1024 * 1024;
const STREAMS: u32 = 10_000;

/// All four, on their ports of `ip`, for as long as the process lives.
pub async fn serve(ip: IpAddr) -> io::Result<()> {
    spawn_local(each(listen(ip, SINK)?, sink));
    spawn_local(each(listen(ip, SOURCE)?, source));
    spawn_local(each(listen(ip, ECHO)?, echo));
    each(listen(ip, HTTP)?, http).await
}

fn listen(ip: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(ip, port))?;
    socket.listen(BACKLOG)
}

/// Serves every connection of `listener` by a task of its own. One that breaks is its client's matter.
pub async fn each<F>(listener: TcpListener, serve: fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn_local(serve(stream));
    }
}

/// 200 with 1 KiB to everything, or with as many bytes as the path says; in the version of HTTP that the client speaks.
pub async fn http(stream: TcpStream) -> io::Result<()> {
    if is_http2(&stream).await? { http2(stream).await } else { http1(stream).await }
}

async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; HTTP2.len()];
    loop {
        let count = stream.peek(&mut first).await?;
        if count == 0 || count == first.len() || first[..count] != HTTP2[..count] {
            return Ok(first == HTTP2);
        }
        // A part of it is there, and is seen again at once.
        sleep(Duration::from_millis(1)).await;
    }
}

fn body(path: &str) -> Bytes {
    match path[1..].parse::<usize>() {
        Ok(length) => Bytes::from_static(&LONG[..length.min(LONG.len())]),
        Err(_) => Bytes::from_static(&BODY),
    }
}

async fn http1(stream: TcpStream) -> io::Result<()> {
    let respond = async |request: Request<Incoming>| {
        let mut response = Response::new(Full::new(body(request.uri().path())));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok::<_, Infallible>(response)
    };
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(respond)).await;
    served.map_err(io::Error::other)
}

async fn http2(stream: TcpStream) -> io::Result<()> {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let mut connection = builder.handshake(stream).await.map_err(io::Error::other)?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted.map_err(io::Error::other)?;
        // A stream that breaks is its client's matter, too.
        spawn_local(async move { drop(answer(request, respond).await) });
    }
    Ok(())
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (head, mut received) = request.into_parts();
    while let Some(data) = received.data().await {
        received.flow_control().release_capacity(data?.len())?;
    }
    let grpc =
        head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let kind = if grpc { "application/grpc" } else { "text/plain" };
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let mut stream = respond.send_response(response, false)?;
    if grpc {
        stream.send_data(Bytes::from_static(&MESSAGE), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        return stream.send_trailers(trailers);
    }
    let mut rest = body(head.uri.path());
    loop {
        stream.reserve_capacity(rest.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await.transpose()? else { return Ok(()) };
        let part = rest.split_to(room.min(rest.len()));
        stream.send_data(part, rest.is_empty())?;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Reads to the end, then tells how many bytes there were (8 bytes, big endian).
pub async fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0u8; BULK];
    let mut total = 0u64;
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => total += count as u64,
        }
    }
    stream.write_u64(total).await
}

/// Writes until the client goes away.
pub async fn source(mut stream: TcpStream) -> io::Result<()> {
    let buffer = vec![5u8; BULK];
    loop {
        stream.write_all(&buffer).await?;
    }
}

/// Gives back what comes.
pub async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0u8; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}
