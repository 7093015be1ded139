//! One connection of a proxy: TLS around TCP, and how many watches it holds.

use crate::{limits, metrics::Metrics};
use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

/// Who called: every request of the connection carries it.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    pub watches: Watches,
    /// Where the connection came from.
    pub address: Option<IpAddr>,
}

/// The watches of one connection, counted.
#[derive(Clone, Debug, Default)]
pub struct Watches(Arc<AtomicUsize>);

/// One watch of a connection; dropping it makes room for another.
#[derive(Debug)]
pub struct WatchPermit(Watches);

impl Connection {
    pub fn new(stream: TlsStream<TcpStream>, metrics: Arc<Metrics>, permit: OwnedSemaphorePermit) -> Self {
        metrics.connections.inc();
        let address = stream.get_ref().0.peer_addr().ok().map(|peer| peer.ip().to_canonical());
        let caller = Caller { watches: Watches::default(), address };
        Self { stream, caller, metrics, _permit: permit }
    }
}

impl Watches {
    /// Room for one more watch; `None` when the connection has as many as it may.
    pub fn permit(&self) -> Option<WatchPermit> {
        let room = |held| (held < limits::WATCHES_PER_CONNECTION).then_some(held + 1);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        taken.is_ok().then(|| WatchPermit(self.clone()))
    }
}

impl Drop for WatchPermit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
