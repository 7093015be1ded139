//! Bytes in one direction, as fast as they go. What is counted is what arrived: the sink tells at the end of a
//! connection how many bytes it got.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::exchange::connect;

/// How much is written or read at once.
const STEP: usize = 128 * 1024;
/// How long the sink may take to tell its count, after the last byte was sent.
const COUNT_LIMIT: Duration = Duration::from_secs(10);

/// Which way the bytes go, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To a sink.
    Up,
    /// From a source.
    Down,
}

/// What arrived.
#[derive(Debug, Default)]
pub struct Moved {
    /// Bytes that the other end told or sent.
    pub bytes: u64,
    /// Connections that broke; their bytes are not counted.
    pub failed: u64,
    lasted: Duration,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.lasted.as_secs_f64();
        let gbps = self.bytes as f64 * 8.0 / secs.max(1e-9) / 1e9;
        write!(f, "ok={} err={} secs={secs:.3} gbps={gbps:.3}", self.bytes, self.failed)
    }
}

/// All `connections` at once, for `lasting`.
pub async fn run(to: SocketAddr, connections: usize, lasting: Duration, direction: Direction) -> Moved {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn_local(async move {
            match direction {
                Direction::Up => up(to, begun + lasting).await,
                Direction::Down => down(to, begun + lasting).await,
            }
        });
    }
    let mut moved = Moved::default();
    for outcome in tasks.join_all().await {
        match outcome {
            Ok(bytes) => moved.bytes += bytes,
            Err(_) => moved.failed += 1,
        }
    }
    moved.lasted = begun.elapsed();
    moved
}

async fn up(to: SocketAddr, end: Instant) -> io::Result<u64> {
    let mut stream = connect(to).await?;
    let buffer = vec![1u8; STEP];
    while Instant::now() < end {
        stream.write_all(&buffer).await?;
    }
    stream.shutdown().await?;
    timeout(COUNT_LIMIT, stream.read_u64()).await.map_err(io::Error::from)?
}

async fn down(to: SocketAddr, end: Instant) -> io::Result<u64> {
    let mut stream = connect(to).await?;
    let mut buffer = vec![0u8; STEP];
    let mut bytes = 0;
    while Instant::now() < end {
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes += count as u64,
        }
    }
    Ok(bytes)
}
