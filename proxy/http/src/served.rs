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
    open: Rc<Counts>,
    windows: Windows,
    credit: Credit,
    /// A flood has come, and the client been told to go away.
    flooded: bool,
}

/// A stream that the other side opened.
pub struct Incoming {
    pub request: Request<Inflow>,
    pub respond: SendResponse<Bytes>,
    pub open: Open,
}

/// Counts a stream, and the bytes of its head, for as long as it lives.
pub struct Open(Rc<Counts>, usize);

#[derive(Default)]
struct Counts {
    streams: Cell<u32>,
    head_bytes: Cell<usize>,
}

impl Served<ReadAhead> {
    /// A connection of a program in plaintext, of which `read` is what came already. Its header lists may have so many bytes.
    pub async fn clear(stream: Stream, read: BytesMut, header_bytes: usize) -> Result<Self, Failed> {
        let socket = Gather::watching(ReadAhead::new(stream, read));
        Self::handshake(socket, &builder(header_bytes as u32), Reason::HttpRequestError).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Served<S> {
    /// The preface and settings (RFC 9113 §3.4); `broken` is what it is called when they are none.
    pub(crate) async fn handshake(
        socket: Gather<S>,
        builder: &Builder,
        broken: Reason,
    ) -> Result<Self, Failed> {
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
            flooded: false,
        })
    }

    /// The next stream; `None` when the connection has ended. To be polled all along: it drives the connection.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, h2::Error>>> {
        let Self { connection, windows, credit, open, .. } = self;
        let open = &open.streams;
        windows.adapt(open.get(), credit, |window| connection.set_initial_window_size(window));
        if self.socket.is_flooded() && !std::mem::replace(&mut self.flooded, true) {
            connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
        }
        let polled = connection.poll_accept(cx);
        let told = windows.adapt(open.get(), credit, |window| connection.set_initial_window_size(window));
        if told && polled.is_pending() {
            cx.waker().wake_by_ref();
        }
        self.socket.after_poll(cx, polled.is_pending());
        if let (Poll::Ready(None), true) = (&polled, self.flooded) {
            return Poll::Ready(Some(Err(h2::Reason::ENHANCE_YOUR_CALM.into())));
        }
        polled.map(|next| {
            next.map(|accepted| accepted.map(|(request, respond)| self.incoming(request, respond)))
        })
    }

    fn incoming(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Incoming {
        let bytes = head_bytes(&request);
        self.open.streams.set(self.open.streams.get() + 1);
        self.open.head_bytes.set(self.open.head_bytes.get() + bytes);
        Incoming {
            request: request.map(|body| Inflow::new(body, &self.credit)),
            respond,
            open: Open(self.open.clone(), bytes),
        }
    }

    /// Takes no new streams (GOAWAY, RFC 9113 §6.8) and ends when the last one has.
    pub fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }
}

impl Open {
    /// The heads of the connection's streams, this one included, are as much as may be.
    pub fn is_too_much(&self) -> bool {
        self.0.head_bytes.get() > limits::HEADS_BYTES
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.head_bytes.set(self.0.head_bytes.get() - self.1);
    }
}

/// The size of a header list (RFC 9113 §6.5.2), give or take its pseudo-fields.
fn head_bytes<T>(request: &Request<T>) -> usize {
    let fields = request.headers().iter();
    fields.map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// For programs, which are not trusted: the limits of `h2` on resets stay as they are, the one on frames that carry little would be
/// half of the connection's window.
fn builder(header_bytes: u32) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .initial_window_size(Windows::FIRST)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
        .max_header_list_size(header_bytes)
        .data_frame_budget(limits::SMALL_FRAMES_BYTES);
    builder
}

/// For peer proxies, whose clients' habits they pass on: resets in numbers are no attack there.
pub(crate) fn peer_builder() -> Builder {
    let mut builder = builder(limits::WIRE_HEADER_LIST_BYTES);
    builder
        .max_frame_size(limits::FRAME_BYTES)
        .max_concurrent_reset_streams(1024)
        // A program that goes away with all of its streams gives them up at once, and not for the others on the connection.
        .max_pending_accept_reset_streams(4 * limits::STREAMS_PER_CONNECTION as usize)
        .max_local_error_reset_streams(None)
        .data_frame_budget(limits::CONNECTION_WINDOW_BYTES as usize);
    builder
}
