//! Making an HTTP/2 connection, and driving it.

use crate::{
    failed::Failed,
    gather::Gather,
    pulse::Pulse,
    read_ahead::ReadAhead,
    streams::{Connection, Dialer, To},
    windows::Windows,
};
use bytes::{Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use policy::{Reason, SpiffeId, limits};
use proxy_tls::Within;
use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Weak,
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

/// A connection that stands, and what must be run for it.
pub(crate) struct Dialed {
    pub(crate) sender: SendRequest<Bytes>,
    pub(crate) drive: Drive,
}

/// Runs a connection to its end.
pub(crate) enum Drive {
    Peer(Driven<TlsStream<ReadAhead>>),
    Program(Driven<ReadAhead>),
}

pub(crate) struct Driven<S: AsyncRead + AsyncWrite + Unpin> {
    socket: Gather<S>,
    connection: h2::client::Connection<Gather<S>, Bytes>,
    windows: Windows,
    /// Programs are not asked whether they live: some take that for an attack, and the kernel knows.
    pulse: Option<Pulse>,
}

/// Connects within `wait`.
pub(crate) async fn dial(to: &To, wait: Duration) -> Result<Dialed, Failed> {
    match to {
        To::Peer { dialer, address, identity } => {
            let tls = handshake(dialer, *address, identity, wait).await?;
            let (sender, mut driven) = begin(tls, &peer_builder(), Reason::TlsProtocolError).await?;
            driven.pulse = driven.connection.ping_pong().map(Pulse::new);
            Ok(Dialed { sender, drive: Drive::Peer(driven) })
        }
        To::Program { plain, header_bytes } => {
            let stream = ReadAhead::new(plain.connect(wait, Within::Http2).await?, BytesMut::new());
            let (sender, driven) =
                begin(stream, &builder(*header_bytes as u32), Reason::HttpProtocolError).await?;
            Ok(Dialed { sender, drive: Drive::Program(driven) })
        }
    }
}

async fn handshake(
    dialer: &Dialer,
    address: SocketAddr,
    identity: &SpiffeId,
    wait: Duration,
) -> Result<TlsStream<ReadAhead>, Failed> {
    let credentials = dialer.credentials.load_full().ok_or_else(|| {
        Failed::untouched(Reason::TlsCertificateError, "this proxy holds no certificate yet")
    })?;
    let stream = timeout(wait, dialer.network.connect(address))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|error| Failed::connecting(&error))?;
    let untouched = |error: proxy_tls::Error| Failed::untouched(error.reason(), error.to_string());
    let name = proxy_tls::server_name(identity).map_err(untouched)?;
    let stream = ReadAhead::new(stream, BytesMut::new());
    let tls = tokio_rustls::TlsConnector::from(credentials.client.clone()).connect(name, stream);
    let mut tls = timeout(limits::HANDSHAKE_WAIT, tls)
        .await
        .map_err(|_| Failed::untouched(Reason::ConnectionTimeout, "the TLS handshake took too long"))?
        .map_err(|error| crate::tls_failed(&error))?;
    credentials.connected(tls.get_ref().1, identity).map_err(untouched)?;
    // `Gather` bounds what is written; what it writes is to become records at once.
    tls.get_mut().1.set_buffer_limit(None);
    Ok(tls)
}

/// HTTP/2's own beginning (RFC 9113 §3.4); `broken` is what it is called when that fails.
async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    builder: &Builder,
    broken: Reason,
) -> Result<(SendRequest<Bytes>, Driven<S>), Failed> {
    let socket = Gather::new(socket);
    let handshake = builder.handshake::<_, Bytes>(socket.clone());
    let (sender, connection) = socket
        .drive(Box::pin(handshake))
        .await
        .map_err(|error| Failed::untouched(broken, error.to_string()))?;
    Ok((sender, Driven { socket, connection, windows: Windows::new(), pulse: None }))
}

fn builder(header_bytes: u32) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(Windows::FIRST)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_header_list_size(header_bytes)
        .max_concurrent_reset_streams(1024)
        .max_local_error_reset_streams(None);
    builder
}

fn peer_builder() -> Builder {
    let mut builder = builder(limits::WIRE_HEADER_LIST_BYTES);
    builder.max_frame_size(limits::FRAME_BYTES).data_frame_budget(limits::CONNECTION_WINDOW_BYTES as usize);
    builder
}

impl Drive {
    /// Until the connection ends; the peer's TLS alert, if it ended by one.
    pub(crate) async fn run(self, of: &Weak<Connection>) -> Option<Failed> {
        match self {
            Self::Peer(driven) => driven.run(of).await,
            Self::Program(driven) => driven.run(of).await,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driven<S> {
    async fn run(mut self, of: &Weak<Connection>) -> Option<Failed> {
        poll_fn(|cx| {
            let Self { socket, connection, windows, pulse } = &mut self;
            let owner = of.upgrade();
            let streams = owner.as_ref().map_or(0, |owner| owner.streams());
            let mut adapt = |connection: &mut h2::client::Connection<_, _>| {
                owner.as_ref().is_some_and(|owner| {
                    windows.adapt(streams, &owner.credit, |window| connection.set_initial_window_size(window))
                })
            };
            adapt(connection);
            // Its streams hear of an error themselves.
            let polled = Pin::new(&mut *connection).poll(cx);
            if adapt(connection) {
                cx.waker().wake_by_ref();
            }
            socket.after_poll(cx, polled.is_pending());
            if polled.is_ready() {
                return Poll::Ready(());
            }
            let heard = socket.take_heard();
            if heard
                && let Some(owner) = &owner
                && !owner.greeted.replace(true)
            {
                owner.greeting.notify_waiters();
            }
            pulse.as_mut().map_or(Poll::Pending, |pulse| pulse.poll(cx, heard, streams))
        })
        .await;
        self.socket.alert()
    }
}
