//! A burst: many connections at once, a long body over each, slow readers. What it costs is memory, and that it comes back.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Bytes of each body.
const BODY: usize = 128 * 1024;
/// What a reader's kernel holds for it, so that the rest is left to the proxies; the least that Linux grants is some 2 KiB.
const RECEIVE_BUFFER: u32 = 4096;
/// Each reader takes so much, and then rests.
const STEP: usize = 16 * 1024;
const REST: Duration = Duration::from_millis(200);
/// No connection waits longer for the beginning of its answer, nor for any step of it.
const LIMIT: Duration = Duration::from_secs(30);
/// How long all wait while each has read nothing but the beginning.
const PEAK: Duration = Duration::from_secs(5);

/// Opens `connections`, reads a long body over each, and closes them. `peak` is called when all bodies have begun and nobody
/// reads. Gives how many bodies came whole, and what became of the others.
pub async fn run(to: SocketAddr, connections: usize, peak: impl FnOnce()) -> (usize, Vec<io::Error>) {
    let begun = Rc::new(Barrier::new(connections + 1));
    let read = Rc::new(Barrier::new(connections + 1));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (begun, read) = (Rc::clone(&begun), Rc::clone(&read));
        tasks.spawn_local(async move {
            let opened = begin(to).await;
            begun.wait().await;
            read.wait().await;
            match opened {
                Ok((stream, held)) => finish(stream, held).await,
                Err(error) => Err(error),
            }
        });
    }
    begun.wait().await;
    sleep(PEAK).await;
    peak();
    read.wait().await;
    let failed: Vec<_> = tasks.join_all().await.into_iter().filter_map(Result::err).collect();
    (connections - failed.len(), failed)
}

/// Connects, asks, and reads the first bytes. Gives how many bytes of the body are among them.
async fn begin(to: SocketAddr) -> io::Result<(TcpStream, usize)> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    let mut stream = timeout(LIMIT, socket.connect(to)).await??;
    stream.write_all(format!("GET /{BODY} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    loop {
        if timeout(LIMIT, stream.read_buf(&mut head)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let held = head.len() - end - 4;
            return if head.starts_with(b"HTTP/1.1 200") { Ok((stream, held)) } else { Err(refused()) };
        }
    }
}

async fn finish(mut stream: TcpStream, mut held: usize) -> io::Result<()> {
    let mut buffer = vec![0; STEP];
    while held < BODY {
        let step = STEP.min(BODY - held);
        timeout(LIMIT, stream.read_exact(&mut buffer[..step])).await??;
        held += step;
        sleep(REST).await;
    }
    Ok(())
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "not a 200")
}
