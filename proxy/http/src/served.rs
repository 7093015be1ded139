//! An HTTP/2 connection that others open to us: its streams come one after the other.

use crate::{
    failed::Failed,
    gather::Gather,
    inflow::Inflow,
    read_ahead::ReadAhead,
    windows::{Credit, Windows},
};
use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use policy::{Reason, limits};
use proxy_transport::Stream;
use std::{
    cell::Cell,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

/// The server side of a connection.
pub struct Served<S: AsyncRead + AsyncWrite + Unpin> {
    socket: Gather<S>,
    connection: Connection<Gather<S>, Bytes>,
    open: Rc<Cell<u32>>,
    windows: Windows,
    credit: Credit,
}

/// A stream that the other side opened.
pub struct Incoming {
    pub request: Request<Inflow>,
    pub respond: SendResponse<Bytes>,
    pub open: Open,
}

/// Counts a stream for as long as it lives.
pub struct Open(Rc<Cell<u32>>);

impl Served<ReadAhead> {
    /// A connection of a program in plaintext, of which `read` is what came already. Its header lists may have so many bytes.
    pub async fn clear(stream: Stream, read: BytesMut, header_bytes: usize) -> Result<Self, Failed> {
        Self::handshake(ReadAhead::new(stream, read), &builder(header_bytes as u32), Reason::HttpRequestError)
            .await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Served<S> {
    /// The preface and settings (RFC 9113 §3.4); `broken` is what it is called when they are none.
    pub(crate) async fn handshake(socket: S, builder: &Builder, broken: Reason) -> Result<Self, Failed> {
        let socket = Gather::new(socket);
        let handshake = builder.handshake(socket.clone());
        let connection = timeout(limits::HANDSHAKE_WAIT, socket.drive(Box::pin(handshake)))
            .await
            .map_err(|_| Failed::new(Reason::ConnectionTimeout, "the HTTP/2 preface took too long"))?
            .map_err(|error| Failed::new(broken, error.to_string()))?;
        Ok(Self {
            socket,
            connection,
            open: Rc::default(),
            windows: Windows::new(),
            credit: Credit::default(),
        })
    }

    /// The next stream; `None` when the connection has ended. To be polled all along: it drives the connection.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, h2::Error>>> {
        let Self { connection, windows, credit, open, .. } = self;
        windows.adapt(open.get(), credit, |window| connection.set_initial_window_size(window));
        let polled = connection.poll_accept(cx);
        let told = windows.adapt(open.get(), credit, |window| connection.set_initial_window_size(window));
        if told && polled.is_pending() {
            cx.waker().wake_by_ref();
        }
        self.socket.after_poll(cx, polled.is_pending());
        polled.map(|next| {
            next.map(|accepted| accepted.map(|(request, respond)| self.incoming(request, respond)))
        })
    }

    fn incoming(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Incoming {
        self.open.set(self.open.get() + 1);
        Incoming {
            request: request.map(|body| Inflow::new(body, &self.credit)),
            respond,
            open: Open(self.open.clone()),
        }
    }

    pub async fn next(&mut self) -> Option<Result<Incoming, h2::Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Takes no new streams (GOAWAY, RFC 9113 §6.8) and ends when the last one has.
    pub fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// For programs, which are not trusted: the limits of `h2` on resets and on frames that carry little stay as they are.
fn builder(header_bytes: u32) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .initial_window_size(Windows::FIRST)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
        .max_header_list_size(header_bytes);
    builder
}

/// For peer proxies, whose clients' habits they pass on: resets in numbers are no attack there.
pub(crate) fn peer_builder() -> Builder {
    let mut builder = builder(limits::WIRE_HEADER_LIST_BYTES);
    builder
        .max_frame_size(limits::FRAME_BYTES)
        .max_concurrent_reset_streams(1024)
        .max_pending_accept_reset_streams(limits::STREAMS_PER_CONNECTION as usize)
        .max_local_error_reset_streams(None)
        .data_frame_budget(limits::CONNECTION_WINDOW_BYTES as usize);
    builder
}
