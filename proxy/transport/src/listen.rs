//! Listening sockets: one a worker on the same port, the kernel spreads the connections.

use crate::Stream;
use policy::limits;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};
use tokio::net::TcpListener;

/// Clients that the kernel may hold for us, until we accept.
const BACKLOG: i32 = 4096;

/// Where the other ends of a socket's connections are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In our own network namespace: the kernel that holds both ends tells of every death, and none can vanish.
    Local,
    /// Behind a network, in which an end can vanish without a word.
    Remote,
}

/// A listening socket of one worker.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds `address`, shared by all workers. `[::]` takes IPv4 too, and becomes `0.0.0.0` where the kernel has no IPv6.
    /// What is set on the socket here, every accepted connection inherits: no calls for each.
    pub fn bind(address: SocketAddr, reach: Reach) -> io::Result<Self> {
        Self::bind_std(address, reach).and_then(Self::from_std)
    }

    /// [`Listener::bind`] without a runtime: the worker's own takes it over by `from_std`.
    pub fn bind_std(address: SocketAddr, reach: Reach) -> io::Result<std::net::TcpListener> {
        match Self::bind_exactly(address, reach) {
            Err(error) if address.ip().is_unspecified() && address.is_ipv6() && lacks_ipv6(&error) => {
                Self::bind_exactly(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()), reach)
            }
            bound => bound,
        }
    }

    fn bind_exactly(address: SocketAddr, reach: Reach) -> io::Result<std::net::TcpListener> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        tune(&socket, reach)?;
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

/// What each connection of the proxy wants: no Nagle, and a peer that vanished found out. Four calls fewer where none can.
pub(crate) fn tune(socket: &Socket, reach: Reach) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if reach == Reach::Local {
        return Ok(());
    }
    let keepalive = TcpKeepalive::new()
        .with_time(limits::KEEPALIVE_IDLE)
        .with_interval(limits::KEEPALIVE_IDLE)
        .with_retries(limits::KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(limits::USER_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::TcpStream;

    #[test]
    fn what_the_listener_has_its_connections_inherit() {
        for (reach, keepalive, vanished) in
            [(Reach::Remote, true, Some(limits::USER_TIMEOUT)), (Reach::Local, false, None)]
        {
            let listener = Listener::bind_std(SocketAddr::from(([127, 0, 0, 1], 0)), reach).unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            listener.set_nonblocking(false).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().unwrap());
            assert_eq!(accepted.keepalive().unwrap(), keepalive, "{reach:?}");
            assert_eq!(accepted.tcp_user_timeout().unwrap(), vanished, "{reach:?}");
            if reach == Reach::Remote {
                assert_eq!(accepted.tcp_keepalive_time().unwrap(), limits::KEEPALIVE_IDLE);
                assert_eq!(accepted.tcp_keepalive_interval().unwrap(), limits::KEEPALIVE_IDLE);
                assert_eq!(accepted.tcp_keepalive_retries().unwrap(), limits::KEEPALIVE_PROBES);
            }
        }
    }
}
