//! What the proxies stand before: an HTTP/1.1 server with responses of 1 KiB, a sink, a source that speaks first, and
//! an echo. No more work than that, so that the proxies are what is seen.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;

/// Where each server listens.
pub const HTTP: u16 = 8080;
pub const SINK: u16 = 9001;
pub const SOURCE: u16 = 9002;
pub const ECHO: u16 = 9003;

/// Connections that wait to be accepted: thousands arrive at once.
const BACKLOG: u32 = 16_384;
const BODY: [u8; 1024] = [b'x'; 1024];
const BULK: usize = 256 * 1024;

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

/// 200 with 1 KiB to everything.
pub async fn http(stream: TcpStream) -> io::Result<()> {
    let respond = async |_: Request<Incoming>| {
        let mut response = Response::new(Full::new(Bytes::from_static(&BODY)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok::<_, Infallible>(response)
    };
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(respond)).await;
    served.map_err(io::Error::other)
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
