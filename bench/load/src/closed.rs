//! Closed loops: each of N clients begins its next exchange when its last one ended, so the load follows the speed of
//! what it measures.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::exchange::{After, connect, get, request};
use crate::tally::Tally;

/// After a failure a client rests, so that a broken proxy is not measured by how fast it refuses.
const REST: Duration = Duration::from_millis(5);

/// What each client does over and over.
#[derive(Debug, Clone, Copy)]
pub enum Exchange {
    /// So many bytes there and back on one connection.
    Echo { bytes: usize },
    /// A new connection, one byte there and back, closed by the client.
    ConnectTcp,
    /// A new connection, one GET, closed by the server.
    ConnectHttp,
}

/// `clients` of them, for `lasting`.
pub async fn run(to: SocketAddr, clients: usize, lasting: Duration, exchange: Exchange) -> Tally {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let mut client = Client::new(to, exchange);
        let tally = Rc::clone(&tally);
        tasks.spawn_local(async move {
            while begun.elapsed() < lasting {
                let started = Instant::now();
                if client.exchange().await.is_ok() {
                    tally.borrow_mut().ok(started.elapsed());
                } else {
                    tally.borrow_mut().failed();
                    client.kept = None;
                    sleep(REST).await;
                }
            }
        });
    }
    tasks.join_all().await;
    tally.take().ended(begun.elapsed())
}

struct Client {
    to: SocketAddr,
    exchange: Exchange,
    request: Vec<u8>,
    buffer: Vec<u8>,
    kept: Option<TcpStream>,
}

impl Client {
    fn new(to: SocketAddr, exchange: Exchange) -> Client {
        let bytes = match exchange {
            Exchange::Echo { bytes } => bytes,
            Exchange::ConnectTcp | Exchange::ConnectHttp => 1,
        };
        Client { to, exchange, request: request(to, After::Close), buffer: vec![b'x'; bytes], kept: None }
    }

    async fn exchange(&mut self) -> io::Result<()> {
        match self.exchange {
            Exchange::Echo { .. } => {
                let stream = match &mut self.kept {
                    Some(stream) => stream,
                    empty => empty.insert(connect(self.to).await?),
                };
                echo(stream, &mut self.buffer).await
            }
            Exchange::ConnectTcp => echo(&mut connect(self.to).await?, &mut self.buffer).await,
            Exchange::ConnectHttp => {
                let mut stream = connect(self.to).await?;
                get(&mut stream, &self.request, After::Close).await
            }
        }
    }
}

async fn echo(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(buffer).await?;
    stream.read_exact(buffer).await?;
    Ok(())
}
