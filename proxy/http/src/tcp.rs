//! The far side of a client's TCP connection: opened before it is known who speaks first, then carried both ways.

use crate::{
    body::{Meter, Sink, Source},
    bounds::Bounds,
    connection::Connection,
    failed::Failed,
    inflow::Inflow,
    kept::Kept,
    served::Incoming,
    streams::Lease,
    tunnel::tunnel,
};
use bytes::Bytes;
use h2::SendStream;
use std::task::{Context, Poll};

/// A connection to the next hop, as a stream to its proxy or by itself.
pub enum Upstream {
    Stream(Box<Opened>),
    Plain(Connection),
}

/// A CONNECT stream. Nobody waits for its answer before sending: a short connection costs one round trip.
pub struct Opened {
    inflow: Inflow,
    send: SendStream<Bytes>,
    lease: Lease,
}

impl Upstream {
    /// Opens a stream that carries a TCP connection.
    pub fn open(lease: Lease) -> Result<Self, Failed> {
        let (response, send) = lease.open(lease.tcp_request(), false)?;
        Ok(Self::Stream(Box::new(Opened { inflow: Inflow::opening(response, lease.credit()), send, lease })))
    }

    /// Ready when the server has said something (true), or has ended or broken the connection without a word.
    pub fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self {
            Self::Plain(connection) => connection.poll_spoken(cx),
            Self::Stream(opened) => opened.inflow.poll_spoken(cx),
        }
    }

    /// Ends it by a reset, as its client has. A stream that is dropped does so by itself.
    pub fn reset(self) {
        if let Self::Plain(connection) = self {
            connection.stream().reset_on_drop();
        }
    }

    /// Carries the client's connection to both ends: the bytes that went each way, whole or not, and how it ended. When a peer
    /// proxy could not reach its application, what was `kept` may go to another one.
    pub async fn carry(
        self,
        client: &mut Connection,
        kept: &Kept,
        bounds: Bounds<'_>,
    ) -> (Carried, Result<(), Failed>) {
        let Connection { reader, writer } = client;
        let (from_client, to_client) = (Source::raw(reader), Sink::Raw { writer });
        match self {
            Self::Plain(mut connection) => {
                let Connection { reader, writer } = &mut connection;
                let (up, down) = (Sink::Raw { writer }, Source::raw(reader));
                let (sent, received) = (Meter::default(), Meter::default());
                let ended = tunnel((from_client, up), (down, to_client), &sent, &received, bounds).await;
                (Carried::of(&sent, &received), ended)
            }
            Self::Stream(opened) => {
                let Opened { mut inflow, send, lease } = *opened;
                let (sent, received) = (Meter::of(Some(&lease)), Meter::of(Some(&lease)).answering(kept));
                let up = (from_client.keeping(kept), Sink::stream(send));
                let down = (Source::stream(&mut inflow), to_client);
                kept.rewind();
                let ended = tunnel(up, down, &sent, &received, bounds).await;
                (Carried::of(&sent, &received), ended.map_err(|failed| lease.explain(failed)))
            }
        }
    }
}

/// A peer's stream that carries a TCP connection, over a connection to the application: as [`Upstream::carry`].
pub async fn stream_to_tcp(incoming: Incoming, hop: &mut Connection) -> (Carried, Result<(), Failed>) {
    let Incoming { request, mut respond, open: _open } = incoming;
    let (sent, received) = (Meter::default(), Meter::default());
    let send = match respond.send_response(http::Response::new(()), false) {
        Ok(send) => send,
        Err(error) => return (Carried::default(), Err(Failed::stream(&error).answered())),
    };
    let mut inflow = request.into_body();
    let up = (Source::stream(&mut inflow), Sink::Raw { writer: &mut hop.writer });
    let down = (Source::raw(&mut hop.reader), Sink::stream(send));
    let ended = tunnel(up, down, &sent, &received, Bounds::NONE).await.map_err(Failed::answered);
    (Carried::of(&sent, &received), ended)
}

/// Bytes that went through a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub from_client: u64,
    pub to_client: u64,
}

impl Carried {
    fn of(sent: &Meter<'_>, received: &Meter<'_>) -> Self {
        Self { from_client: sent.bytes(), to_client: received.bytes() }
    }
}
