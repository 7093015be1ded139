//! Listening sockets: one a worker on the same port, the kernel spreads the connections.

use crate::Stream;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::net::TcpListener;

/// Clients that the kernel may hold for us, until we accept.
const BACKLOG: i32 = 4096;
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(15);
/// Unacknowledged bytes or unanswered keep-alives for so long end a connection (RFC 5482 `TCP_USER_TIMEOUT`).
pub(crate) const USER_TIMEOUT: Duration = Duration::from_secs(45);

/// A listening socket of one worker.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds `address`, shared by all workers. `[::]` takes IPv4 too, and becomes `0.0.0.0` where the kernel has no IPv6.
    /// What is set on the socket here, every accepted connection inherits: no calls for each.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::bind_std(address).and_then(Self::from_std)
    }

    /// [`Listener::bind`] without a runtime: the worker's own takes it over by `from_std`.
    pub fn bind_std(address: SocketAddr) -> io::Result<std::net::TcpListener> {
        match Self::bind_exactly(address) {
            Err(error) if address.ip().is_unspecified() && address.is_ipv6() && lacks_ipv6(&error) => {
                Self::bind_exactly(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
            }
            bound => bound,
        }
    }

    fn bind_exactly(address: SocketAddr) -> io::Result<std::net::TcpListener> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        tune(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    /// On the runtime of the caller.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        TcpListener::from_std(listener).map(Self)
    }

    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        self.0.accept().await.map(|(stream, peer)| Stream::accepted(stream, peer))
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// What each connection of the proxy wants: no Nagle, and a vanished peer found out.
pub(crate) fn tune(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}
