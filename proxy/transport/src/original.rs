//! The destination before netfilter's REDIRECT, of IPv4 and IPv6 connections, on IPv4 and dual-stack listeners.

use socket2::SockRef;
use std::{io, net::SocketAddr};
use tokio::net::TcpStream;

/// `SO_ORIGINAL_DST` or `IP6T_SO_ORIGINAL_DST`, by the family that the client used. Not redirected: the local address.
pub(crate) fn destination(stream: &TcpStream, ipv4: bool) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let found = if ipv4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match found {
        Ok(address) => address.as_socket().map(canonical).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the original destination is not an IP address")
        }),
        // No entry in conntrack (ENOENT), or no conntrack at all (ENOPROTOOPT): nobody redirected this connection.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => {
            stream.local_addr().map(canonical)
        }
        Err(error) => Err(error),
    }
}

/// An IPv4 address that a dual-stack socket shows as `::ffff:a.b.c.d`, as what it is.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
