//! The next hop's side of a request: where it goes to, and where its answer comes from.

use crate::{
    body::{Sink, Source},
    client::has_body,
    connection::{Connection, Reader},
    failed::{Failed, Replay},
    head::{self, RequestRef, ResponseRef},
    inflow::Inflow,
    streams::Lease,
    websocket,
};
use h2::{RecvStream, client::ResponseFuture};
use http::response;
use policy::Reason;
use proxy_h1::{BodyLength, Decoder, Limits, Parse, ResponseHead};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// What carries a request to the next hop.
pub enum NextHop<'a> {
    /// An HTTP/1 connection; `reused`: it has served a request before, and its server may have closed it meanwhile. Heads of
    /// responses may have so many bytes.
    Plain { connection: &'a mut Connection, reused: bool, header_bytes: usize },
    /// A stream to a peer proxy or an HTTP/2 program.
    Stream(&'a Lease),
}

/// A request that was begun there.
pub(crate) struct Begun<'a> {
    pub(crate) sink: Sink<'a>,
    pub(crate) answers: Answers<'a>,
}

/// The responses to one request.
pub(crate) enum Answers<'a> {
    Plain(PlainAnswers<'a>),
    Stream(StreamAnswers<'a>),
}

pub(crate) struct PlainAnswers<'a> {
    reader: &'a mut Reader,
    reused: bool,
    limits: Limits,
    head: ResponseHead,
    method: &'a str,
    length: BodyLength,
    decoder: Decoder,
    /// The request said HTTP/1.0.
    http10: bool,
    /// The key that we gave to a WebSocket whose client has none.
    key: Option<String>,
}

pub(crate) struct StreamAnswers<'a> {
    lease: &'a Lease,
    response: ResponseFuture,
    head: response::Parts,
    body: Option<Inflow>,
    /// The key of a WebSocket's HTTP/1 client, which waits for its proof.
    key: Option<Vec<u8>>,
}

impl<'a> NextHop<'a> {
    pub(crate) fn lease(&self) -> Option<&'a Lease> {
        match self {
            Self::Plain { .. } => None,
            Self::Stream(lease) => Some(lease),
        }
    }

    /// Sends the head; `ended`: nothing follows it.
    pub(crate) fn begin(self, request: RequestRef<'a>, ended: bool) -> Result<Begun<'a>, Failed> {
        match self {
            Self::Plain { connection: Connection { reader, writer }, reused, header_bytes } => {
                let keyless = request.is_websocket() && request.field(&websocket::KEY).is_none();
                let key = keyless.then(websocket::key);
                let mut chunked = false;
                writer.encode(|out| chunked = request.write(out, ended, key.as_deref()));
                let sink = Sink::framed(writer, chunked);
                let answers = PlainAnswers {
                    reader,
                    reused,
                    limits: Limits { head_bytes: header_bytes, ..Limits::default() },
                    head: ResponseHead::default(),
                    method: if key.is_some() { "GET" } else { request.method() },
                    length: BodyLength::None,
                    decoder: Decoder::new(BodyLength::None),
                    http10: request.version() == http::Version::HTTP_10,
                    key,
                };
                Ok(Begun { sink, answers: Answers::Plain(answers) })
            }
            Self::Stream(lease) => {
                let wire = lease.is_wire();
                let waits_for_proof = !wire && request.is_websocket();
                let key = request.field(&websocket::KEY).filter(|_| waits_for_proof).map(<[u8]>::to_vec);
                let (response, send) = lease.open(request.to_stream(wire), ended)?;
                let (head, ()) = http::Response::new(()).into_parts();
                let answers = StreamAnswers { lease, response, head, body: None, key };
                Ok(Begun { sink: Sink::stream(send), answers: Answers::Stream(answers) })
            }
        }
    }
}

impl Answers<'_> {
    /// The next response's head: its status. It stands in `head`.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<u16, Failed>> {
        match self {
            Self::Plain(plain) => plain.poll_next(cx),
            Self::Stream(stream) => {
                let next = ready!(stream.poll_next(cx));
                Poll::Ready(next.map_err(|failed| stream.lease.explain(failed)))
            }
        }
    }

    pub(crate) fn head(&mut self) -> ResponseRef<'_> {
        match self {
            Self::Plain(plain) => ResponseRef::Http1(&plain.head, plain.method),
            Self::Stream(stream) => ResponseRef::Http2(&mut stream.head),
        }
    }

    /// The far end is a proxy, which understands `weft-*` fields.
    pub(crate) fn is_wire(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.lease.is_wire())
    }

    /// What follows the final head: how long it is where that is known, and whether it is nothing.
    pub(crate) fn body(&mut self) -> Result<(BodyLength, bool), Failed> {
        match self {
            Self::Plain(plain) => {
                let length = plain.head.body(plain.method);
                plain.length = length.map_err(|refusal| Failed::receiving(&refusal.into()))?;
                plain.decoder = Decoder::new(plain.length);
                Ok((plain.length, !has_body(plain.length)))
            }
            Self::Stream(stream) => Ok((BodyLength::None, stream.body.as_ref().is_none_or(Inflow::is_end))),
        }
    }

    pub(crate) fn source(&mut self) -> Source<'_> {
        match self {
            Self::Plain(plain) => Source::framed(plain.reader, &mut plain.decoder),
            Self::Stream(stream) => Source::stream(stream.body.as_mut().expect("a final head has come")),
        }
    }

    /// Lets go of an answer that nobody wants. True when it was short enough to be here already, so that its connection can be used
    /// again.
    pub(crate) fn discard(&mut self) -> bool {
        if self.body().is_err() || !self.stays() {
            return false;
        }
        let Self::Plain(plain) = self else { return false };
        loop {
            match plain.decoder.decode(&mut plain.reader.buffer) {
                Ok(proxy_h1::Decoded::Data(_)) => {}
                Ok(proxy_h1::Decoded::End) => return true,
                Ok(proxy_h1::Decoded::NeedMore) | Err(_) => return false,
            }
        }
    }

    /// Can the connection that brought the response be used again? Not after a request of HTTP/1.0: it says nothing of keep-alive
    /// any more, and its server may close without a word (RFC 9112 §9.3).
    pub(crate) fn stays(&self) -> bool {
        matches!(self, Self::Plain(plain) if plain.head.keep_alive(plain.length) && !plain.http10)
    }
}

impl PlainAnswers<'_> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<u16, Failed>> {
        let reader = &mut *self.reader;
        loop {
            if !reader.buffer.is_empty() {
                match proxy_h1::parse_response(&mut reader.buffer, &mut self.head, &self.limits) {
                    Ok(Parse::Complete) => {
                        reader.heard(&self.head);
                        return Poll::Ready(self.checked());
                    }
                    Ok(Parse::Partial) => {}
                    Err(refusal) if refusal.status() == 431 => {
                        let reason = Reason::HttpResponseHeaderSectionSize;
                        return Poll::Ready(Err(Failed::new(reason, refusal.detail())));
                    }
                    Err(refusal) => return Poll::Ready(Err(Failed::receiving(&refusal.into()))),
                }
            }
            let begun = !reader.buffer.is_empty();
            return Poll::Ready(Err(match ready!(reader.poll_fill(cx)) {
                Ok(0) if begun => {
                    Failed::new(Reason::HttpResponseIncomplete, "the connection ended in the response head")
                }
                Ok(0) => lost(&std::io::ErrorKind::UnexpectedEof.into(), self.reused),
                Ok(_) => continue,
                Err(error) if begun => Failed::receiving(&error.into()),
                Err(error) => lost(&error, self.reused),
            }));
        }
    }

    /// A server that did not understand our key does not speak WebSocket (RFC 6455 §4.1).
    fn checked(&self) -> Result<u16, Failed> {
        let status = self.head.status();
        if let (101, Some(key)) = (status, &self.key) {
            let proof = self.head.fields().first(websocket::ACCEPT.as_str());
            if proof != Some(websocket::accept(key.as_bytes()).as_bytes()) {
                let detail = "the application's Sec-WebSocket-Accept does not fit the key";
                return Err(Failed::new(Reason::HttpUpgradeFailed, detail));
            }
        }
        Ok(status)
    }
}

impl StreamAnswers<'_> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<u16, Failed>> {
        if let Poll::Ready(Some(Ok(interim))) = self.response.poll_informational(cx) {
            self.head = interim.into_parts().0;
            return Poll::Ready(Ok(self.head.status.as_u16()));
        }
        let response =
            ready!(Pin::new(&mut self.response).poll(cx)).map_err(|error| Failed::stream(&error))?;
        let (head, body): (_, RecvStream) = response.into_parts();
        if self.lease.is_wire()
            && let Some(failed) = head::untouched(&head.headers)
        {
            return Poll::Ready(Err(failed));
        }
        (self.head, self.body) = (head, Some(Inflow::new(body, self.lease.credit())));
        if let Some(key) = &self.key
            && self.head.status.is_success()
        {
            websocket::prove(&mut self.head.headers, key);
        }
        Poll::Ready(Ok(self.head.status.as_u16()))
    }
}

/// A connection that broke before a byte of the response came.
pub(crate) fn lost(error: &std::io::Error, reused: bool) -> Failed {
    let replay = if reused { Replay::IfIdempotent } else { Replay::Never };
    let detail = match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "closed before a response came".to_owned(),
        _ => error.to_string(),
    };
    Failed { replay, ..Failed::new(Reason::ConnectionTerminated, detail) }
}
