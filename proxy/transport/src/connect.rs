//! Connecting to the next hop.

use crate::{
    Stream,
    listen::{Reach, tune},
    memory::MemoryNetwork,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr};
use tokio::net::TcpSocket;

/// What a worker connects through.
#[derive(Clone, Debug)]
pub enum Network {
    System(SystemNetwork),
    Memory(MemoryNetwork),
}

/// The kernel's TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNetwork {
    /// `SO_MARK` for each socket: how redirection rules know the proxy's own traffic where its uid cannot tell.
    pub mark: Option<u32>,
}

impl Network {
    /// To another host.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        self.reach(address, Reach::Remote).await
    }

    /// To a program in our own network namespace.
    pub async fn connect_local(&self, address: SocketAddr) -> io::Result<Stream> {
        self.reach(address, Reach::Local).await
    }

    async fn reach(&self, address: SocketAddr, reach: Reach) -> io::Result<Stream> {
        match self {
            Self::System(system) => system.reach(address, reach).await.map(Stream::from),
            Self::Memory(memory) => memory.connect(address).map(Stream::from),
        }
    }
}

impl SystemNetwork {
    /// To another host.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        self.reach(address, Reach::Remote).await
    }

    /// To a program in our own network namespace.
    pub async fn connect_local(&self, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        self.reach(address, Reach::Local).await
    }

    async fn reach(&self, address: SocketAddr, reach: Reach) -> io::Result<tokio::net::TcpStream> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        tune(&socket, reach)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    }
}
