//! Plaintext connections of one worker to one address: to an application, or to an endpoint without a proxy.
//!
//! A pooled connection has no task: whether its server has closed it is looked at when it is taken out. The race that
//! remains is for replay.

use crate::{connection::Connection, failed::Failed};
use bytes::BytesMut;
use policy::limits;
use proxy_transport::{Network, Stream};
use std::{
    cell::RefCell,
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::ReadBuf,
    time::{Instant, timeout},
};

/// The connections to one address.
pub struct Plain {
    network: Network,
    address: SocketAddr,
    /// Where to try when `address` refuses: an application of this host that listens on loopback only.
    loopback: Option<SocketAddr>,
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection that was taken out.
pub struct Taken {
    pub connection: Connection,
    /// It has served a request before, and its server may have closed it meanwhile.
    pub reused: bool,
}

impl Plain {
    /// To an endpoint.
    pub fn new(network: Network, address: SocketAddr) -> Self {
        Self { network, address, loopback: None, idle: RefCell::default() }
    }

    /// To an application in our own network namespace.
    pub fn local(network: Network, address: SocketAddr) -> Self {
        let loopback: IpAddr =
            if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let loopback = (address.ip() != loopback).then(|| SocketAddr::new(loopback, address.port()));
        Self { loopback, ..Self::new(network, address) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An idle connection that is still open, or a new one. The one used last first: the others may age.
    pub async fn take(&self, connect: Duration) -> Result<Taken, Failed> {
        loop {
            let Some(idle) = self.idle.borrow_mut().pop() else { break };
            if idle.since.elapsed() < limits::IDLE_CONNECTION_AGE
                && poll_fn(|cx| Poll::Ready(is_open(&idle.connection, cx))).await
            {
                return Ok(Taken { connection: idle.connection, reused: true });
            }
        }
        let stream = self.connect(connect).await?;
        Ok(Taken { connection: Connection::new(stream, BytesMut::new()), reused: false })
    }

    /// A new connection.
    pub async fn connect(&self, wait: Duration) -> Result<Stream, Failed> {
        let connect = async {
            match (self.network.connect(self.address).await, self.loopback) {
                (Err(error), Some(loopback)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    // The first refusal is the one to tell of.
                    self.network.connect(loopback).await.map_err(|_| error)
                }
                (connected, _) => connected,
            }
        };
        timeout(wait, connect)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|error| Failed::connecting(&error))
    }

    /// Keeps a connection whose last message is whole, for the next request.
    pub fn give_back(&self, mut connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        if connection.is_clean() && idle.len() < limits::IDLE_CONNECTIONS_PER_ADDRESS {
            connection.rest();
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Lets go of the connections that have been idle for too long or have been closed.
    pub fn sweep(&self, now: Instant) {
        // Nobody waits for what it looks at.
        let mut cx = Context::from_waker(Waker::noop());
        self.idle.borrow_mut().retain(|idle| {
            now - idle.since < limits::IDLE_CONNECTION_AGE && is_open(&idle.connection, &mut cx)
        });
    }
}

/// Nothing to read is what an idle connection should have: an end, an error, or bytes nobody asked for make it useless.
fn is_open(connection: &Connection, cx: &mut Context<'_>) -> bool {
    let mut byte = [0; 1];
    connection.stream().poll_read_buf(cx, &mut ReadBuf::new(&mut byte)).is_pending()
}
