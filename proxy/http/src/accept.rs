//! A connection from another proxy: `weft/1`, server side.

use crate::{failed::Failed, gather::Gather, read_ahead::ReadAhead};
use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream,
    server::{Connection, SendResponse},
};
use http::Request;
use policy::{Reason, SpiffeId, limits};
use proxy_tls::{Credentials, Verified};
use proxy_transport::Stream;
use std::{
    future::poll_fn,
    task::{Context, Poll},
};
use tokio::time::timeout;
use tokio_rustls::{rustls::HandshakeKind, server::TlsStream};

type Socket = Gather<TlsStream<ReadAhead>>;

/// A connection whose peer is verified; its streams come one after the other.
pub struct Accepted {
    peer: Verified<SpiffeId>,
    socket: Socket,
    connection: Connection<Socket, Bytes>,
    key_exchange: &'static str,
    resumed: bool,
}

/// A stream that a peer opened.
pub type Incoming = (Request<RecvStream>, SendResponse<Bytes>);

impl Accepted {
    /// The TLS handshake, of which `read` is what came already, and HTTP/2's.
    pub async fn handshake(
        stream: Stream,
        read: BytesMut,
        credentials: &Credentials,
    ) -> Result<Self, Failed> {
        let stream = ReadAhead::new(stream, read);
        let tls = tokio_rustls::TlsAcceptor::from(credentials.server.clone()).accept(stream);
        let mut tls = timeout(limits::HANDSHAKE_WAIT, tls)
            .await
            .map_err(|_| Failed::new(Reason::ConnectionTimeout, "the TLS handshake took too long"))?
            .map_err(|error| crate::tls_failed(&error))?;
        let peer = credentials
            .accepted(tls.get_ref().1)
            .map_err(|error| Failed::new(error.reason(), error.to_string()))?;
        let group = tls.get_ref().1.negotiated_key_exchange_group();
        let key_exchange = group.map_or("", |group| group.name().as_str().unwrap_or_default());
        let resumed = tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        // `Gather` bounds what is written; what it writes is to become records at once.
        tls.get_mut().1.set_buffer_limit(None);
        let socket = Gather::new(tls);
        let handshake = server_builder().handshake(socket.clone());
        let connection = timeout(limits::HANDSHAKE_WAIT, socket.drive(Box::pin(handshake)))
            .await
            .map_err(|_| Failed::new(Reason::ConnectionTimeout, "the HTTP/2 preface took too long"))?
            .map_err(|error| Failed::new(Reason::TlsProtocolError, error.to_string()))?;
        Ok(Self { peer, socket, connection, key_exchange, resumed })
    }

    pub fn peer(&self) -> &SpiffeId {
        &self.peer
    }

    /// The key exchange group of the handshake, as RFC 8446 §4.2.7 and its registry name it; empty when it was resumed without one.
    pub fn key_exchange(&self) -> &'static str {
        self.key_exchange
    }

    /// The handshake went on from an earlier one (RFC 8446 §2.2).
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The next stream; `None` when the connection has ended. To be polled all along: it drives the connection.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, h2::Error>>> {
        let polled = self.connection.poll_accept(cx);
        self.socket.after_poll(cx, polled.is_pending());
        polled
    }

    pub async fn next(&mut self) -> Option<Result<Incoming, h2::Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Takes no new streams (GOAWAY, RFC 9113 §6.8) and ends when the last one has.
    pub fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }
}

fn server_builder() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .enable_connect_protocol()
        .initial_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
        .max_frame_size(limits::FRAME_BYTES)
        .max_header_list_size(limits::HEADER_LIST_BYTES as u32)
        .max_concurrent_reset_streams(1024)
        .max_pending_accept_reset_streams(limits::STREAMS_PER_CONNECTION as usize)
        .max_local_error_reset_streams(None)
        .data_frame_budget(limits::CONNECTION_WINDOW_BYTES as usize * 4);
    builder
}
