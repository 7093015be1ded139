//! The far side of a client's TCP connection: opened before it is known who speaks first, then carried both ways.

use crate::{
    body::{Meter, Sink, Source},
    connection::Connection,
    exchange::Answered,
    failed::Failed,
    peer::{Lease, Peer, PeerStream},
    tunnel::tunnel,
};
use bytes::Bytes;
use h2::{SendStream, client::ResponseFuture};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// A connection to the next hop, as a stream to its proxy or by itself.
pub enum Upstream {
    Stream(Box<Opened>),
    Plain(Connection),
}

/// A CONNECT stream. Nobody waits for its answer before sending: a short connection costs one round trip.
pub struct Opened {
    incoming: Incoming,
    send: SendStream<Bytes>,
    lease: Lease,
}

enum Incoming {
    Response(ResponseFuture),
    Body(h2::RecvStream),
    /// The server has spoken: its first bytes, or its end.
    Spoken(Option<Bytes>, h2::RecvStream),
    Broken(h2::Error),
}

impl Upstream {
    /// Opens a stream that carries a TCP connection.
    pub fn open(peer: &Peer, lease: Lease) -> Result<Self, Failed> {
        let PeerStream { response, send, lease } = peer.open(lease, peer.tcp_request(), false)?;
        Ok(Self::Stream(Box::new(Opened { incoming: Incoming::Response(response), send, lease })))
    }

    /// Ready when the server has said something (true), or has ended or broken the connection without a word.
    pub fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self {
            Self::Plain(connection) => connection.poll_spoken(cx),
            Self::Stream(opened) => opened.poll_spoken(cx),
        }
    }

    /// Ends it by a reset, as its client has. A stream that is dropped does so by itself.
    pub fn reset(self) {
        if let Self::Plain(connection) = self {
            connection.stream().reset_on_drop();
        }
    }

    /// Carries the client's connection to both ends.
    pub async fn carry(self, client: &mut Connection) -> Result<Answered, Failed> {
        let Connection { reader, writer } = client;
        let (from_client, to_client) = (Source::Raw { reader }, Sink::Raw { writer });
        match self {
            Self::Plain(mut connection) => {
                let Connection { reader, writer } = &mut connection;
                let (up, down) = (Sink::Raw { writer }, Source::Raw { reader });
                let (sent, received) = (Meter::default(), Meter::default());
                tunnel((from_client, up), (down, to_client), &sent, &received).await?;
                Ok(carried(&sent, &received))
            }
            Self::Stream(opened) => {
                let Opened { incoming, send, lease } = *opened;
                let down = match incoming {
                    Incoming::Response(response) => Source::Opening(response),
                    Incoming::Body(body) => Source::stream(body),
                    Incoming::Spoken(None, _) => Source::Ended,
                    Incoming::Spoken(Some(bytes), body) => Source::early(bytes, body),
                    Incoming::Broken(error) => return Err(lease.explain(Failed::stream(&error))),
                };
                let (sent, received) = (Meter::of(&lease), Meter::of(&lease));
                tunnel((from_client, Sink::stream(send)), (down, to_client), &sent, &received)
                    .await
                    .map_err(|failed| lease.explain(failed))?;
                Ok(carried(&sent, &received))
            }
        }
    }
}

fn carried(sent: &Meter<'_>, received: &Meter<'_>) -> Answered {
    Answered { request_bytes: sent.bytes(), response_bytes: received.bytes(), ..Answered::default() }
}

impl Opened {
    fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            match &mut self.incoming {
                Incoming::Response(response) => match Pin::new(response).poll(cx) {
                    Poll::Ready(Ok(response)) => self.incoming = Incoming::Body(response.into_body()),
                    Poll::Ready(Err(error)) => self.incoming = Incoming::Broken(error),
                    Poll::Pending => return Poll::Pending,
                },
                Incoming::Body(body) => match body.poll_data(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Err(error))) => self.incoming = Incoming::Broken(error),
                    Poll::Ready(data) => {
                        let data = data.and_then(Result::ok);
                        let Incoming::Body(body) = std::mem::replace(
                            &mut self.incoming,
                            Incoming::Broken(h2::Reason::CANCEL.into()),
                        ) else {
                            unreachable!("it was matched above")
                        };
                        self.incoming = Incoming::Spoken(data, body);
                    }
                },
                Incoming::Spoken(first, _) => return Poll::Ready(first.is_some()),
                Incoming::Broken(_) => return Poll::Ready(false),
            }
        }
    }
}
