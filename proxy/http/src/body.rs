//! Bodies on their way: a `Source` yields bytes, a `Sink` takes them, `pump` carries them from one to the other.
//!
//! A message body in HTTP/1.1 framing, one in HTTP/2 frames and the bare bytes of a tunnel are all three of one kind here,
//! so every pairing of the two sides is the same few lines. Back-pressure is the sink's: a source is asked for more only
//! when what it gave has found room, and HTTP/2 flow control is released only then.

use crate::{
    connection::{Reader, Writer},
    copy::Tail,
    failed::Failed,
    grpc,
    inflow::Inflow,
    kept::Kept,
    streams::Lease,
};
use bytes::Bytes;
use h2::SendStream;
use http::{HeaderMap, HeaderValue};
use policy::limits::{BULK_BYTES, FRAME_BYTES};
use proxy_h1::{Decoded, Decoder, Fields, Refusal};
use std::{
    cell::Cell,
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
};

/// Bytes that a stream may queue before it asks for flow-control window: what HTTP/2 grants each stream at first
/// (RFC 9113 §6.9.2). Short messages so never wait for a grant.
const UNASKED_BYTES: usize = 65_535;

/// Data of a frame that fills TLS records (RFC 8446 §5.1: 16 KiB) exactly, together with its 9-byte header.
const FRAME_DATA_BYTES: usize = FRAME_BYTES as usize - 9;

/// Where a body comes from.
pub struct Source<'a> {
    from: From<'a>,
    /// The beginning of the body, in case that it has to be sent once more.
    kept: Option<&'a Kept>,
}

enum From<'a> {
    /// HTTP/1.1 framing.
    Framed { reader: &'a mut Reader, decoder: &'a mut Decoder },
    /// A tunnel's bytes, up to the end of the connection.
    Raw(&'a mut Reader),
    /// DATA frames.
    Stream(&'a mut Inflow),
    /// What passes of another body.
    Queue(&'a mut Tail),
}

/// Where a body goes to.
pub enum Sink<'a> {
    /// HTTP/1.1 framing; `chunked` or as announced.
    Framed { writer: &'a mut Writer, chunked: bool },
    /// A tunnel's bytes; its end is the end of our direction.
    Raw { writer: &'a mut Writer },
    /// DATA frames. `sent` counts bytes while that is less than `UNASKED_BYTES`; `data` waits for window, the `last` or not.
    Stream { stream: SendStream<Bytes>, sent: usize, data: Bytes, last: bool },
}

/// Fields after a body.
pub enum Trailers {
    None,
    Fields(Fields),
    Map(HeaderMap),
}

/// Why a body did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The side that sends it failed.
    #[error("the sender's connection failed: {0}")]
    Source(#[source] Failure),
    /// The side that receives it failed.
    #[error("the receiver's connection failed: {0}")]
    Sink(#[source] Failure),
}

/// What one side of a body met.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Stream(#[from] h2::Error),
    #[error("{0}")]
    Framing(#[from] Refusal),
    #[error("it ended before the announced length")]
    Truncated,
    /// A receiver wants no more: the code of its RST_STREAM.
    #[error("it was given up: {0}")]
    Refused(h2::Reason),
}

impl Failure {
    /// The code that the side reset its stream with.
    pub fn reset(&self) -> Option<h2::Reason> {
        match self {
            Self::Stream(error) if error.is_reset() && error.is_remote() => error.reason(),
            Self::Refused(reason) => Some(*reason),
            _ => None,
        }
    }
}

/// Counts the bytes of one direction as they go.
#[derive(Default)]
pub struct Meter<'a> {
    bytes: Cell<u64>,
    /// The stream's place on its connection, which is to know when it turns out to be bulk.
    lease: Option<&'a Lease>,
    /// What is not needed any more once something has come.
    kept: Option<&'a Kept>,
}

impl<'a> Meter<'a> {
    pub fn of(lease: Option<&'a Lease>) -> Self {
        Self { bytes: Cell::new(0), lease, kept: None }
    }

    /// Something that came is an answer: what was sent will not be sent again.
    pub(crate) fn answering(self, kept: &'a Kept) -> Self {
        Self { kept: Some(kept), ..self }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    fn add(&self, count: u64) {
        if let (Some(kept), 0) = (self.kept, self.bytes.get()) {
            kept.forget();
        }
        self.bytes.set(self.bytes.get() + count);
        if let (Some(lease), true) = (self.lease, self.bytes.get() > BULK_BYTES) {
            lease.mark_bulk();
        }
    }
}

impl<'a> Source<'a> {
    pub fn framed(reader: &'a mut Reader, decoder: &'a mut Decoder) -> Self {
        Self { from: From::Framed { reader, decoder }, kept: None }
    }

    pub fn raw(reader: &'a mut Reader) -> Self {
        Self { from: From::Raw(reader), kept: None }
    }

    pub fn stream(inflow: &'a mut Inflow) -> Self {
        Self { from: From::Stream(inflow), kept: None }
    }

    pub(crate) fn queue(tail: &'a mut Tail) -> Self {
        Self { from: From::Queue(tail), kept: None }
    }

    /// The beginning is kept, or comes from what was kept.
    pub(crate) fn keeping(self, kept: &'a Kept) -> Self {
        Self { kept: Some(kept), ..self }
    }

    /// The bytes that follow the head, when they are no message.
    pub(crate) fn into_raw(self) -> Self {
        match self.from {
            From::Framed { reader, .. } => Self::raw(reader),
            from => Self { from, kept: None },
        }
    }

    /// The next bytes; `None` at the end. Asking again says that the last ones have found room.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        if let Some(again) = self.kept.and_then(Kept::again) {
            return Poll::Ready(Ok(Some(again)));
        }
        let data = ready!(self.from.poll_data(cx));
        if let (Some(kept), Ok(Some(data))) = (self.kept, &data) {
            kept.keep(data);
            if kept.is_copied() && self.is_end() {
                kept.ended(&Trailers::None);
            }
        }
        Poll::Ready(data)
    }

    /// Reads all that is left, and drops it.
    pub(crate) fn poll_dropped(
        &mut self,
        cx: &mut Context<'_>,
        meter: &Meter<'_>,
    ) -> Poll<Result<(), Failure>> {
        loop {
            match ready!(self.poll_data(cx))? {
                Some(data) => meter.add(data.len() as u64),
                None => return Poll::Ready(ready!(self.poll_trailers(cx)).map(|_| ())),
            }
        }
    }

    /// The trailers, after the end.
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Trailers, Failure>> {
        let trailers = ready!(self.poll_own_trailers(cx))?;
        if let Some(kept) = self.kept {
            kept.ended(&trailers);
        }
        Poll::Ready(Ok(trailers))
    }

    fn poll_own_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Trailers, Failure>> {
        match &mut self.from {
            From::Framed { decoder, .. } if decoder.trailers().is_empty() => Poll::Ready(Ok(Trailers::None)),
            From::Framed { decoder, .. } => Poll::Ready(Ok(Trailers::Fields(decoder.trailers().clone()))),
            From::Raw(_) => Poll::Ready(Ok(Trailers::None)),
            From::Queue(tail) => Poll::Ready(Ok(tail.trailers().map_or(Trailers::None, Trailers::Map))),
            From::Stream(inflow) => {
                let trailers = match self.kept.and_then(Kept::trailers) {
                    None => ready!(inflow.poll_trailers(cx))?,
                    again => again,
                };
                if let (Some(kept), Some(trailers)) = (self.kept, &trailers) {
                    kept.keep_trailers(trailers);
                }
                Poll::Ready(Ok(trailers.map_or(Trailers::None, Trailers::Map)))
            }
        }
    }

    /// Is the end known to have come, without waiting, and no trailers with it?
    pub fn is_end(&self) -> bool {
        if self.kept.is_some_and(Kept::holds_more) {
            return false;
        }
        match &self.from {
            From::Framed { decoder, .. } => decoder.is_end() && decoder.trailers().is_empty(),
            From::Raw(_) => false,
            From::Stream(inflow) => inflow.is_end(),
            From::Queue(tail) => tail.is_end(),
        }
    }

    /// After its request, watches an HTTP/1 client: what it sends next stays for the next request, and if it is gone, nobody
    /// waits for an answer any more. Of an HTTP/2 client its stream tells.
    pub(crate) async fn watch(&mut self) -> Result<(), BodyError> {
        let From::Framed { reader, .. } = &mut self.from else { return Ok(()) };
        let gone = |error: io::Error| BodyError::Source(error.into());
        if reader.buffered().is_empty() {
            poll_fn(|cx| reader.poll_readable(cx)).await.map_err(gone)?;
            poll_fn(|cx| reader.poll_fill(cx)).await.map_err(gone)?;
        }
        Ok(())
    }
}

impl From<'_> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        match self {
            Self::Framed { reader, decoder } => loop {
                match decoder.decode(&mut reader.buffer)? {
                    Decoded::Data(data) => return Poll::Ready(Ok(Some(data))),
                    Decoded::End => return Poll::Ready(Ok(None)),
                    Decoded::NeedMore => {}
                }
                if ready!(reader.poll_fill(cx))? == 0 {
                    return Poll::Ready(decoder.eof().map(|()| None).map_err(|_| Failure::Truncated));
                }
            },
            Self::Raw(reader) => {
                if reader.buffer.is_empty() && ready!(reader.poll_fill(cx))? == 0 {
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(Ok(Some(reader.buffer.split().freeze())))
            }
            Self::Stream(inflow) => inflow.poll_data(cx),
            Self::Queue(tail) => tail.poll_data(cx),
        }
    }
}

impl<'a> Sink<'a> {
    pub fn framed(writer: &'a mut Writer, chunked: bool) -> Self {
        Self::Framed { writer, chunked }
    }

    pub fn stream(stream: SendStream<Bytes>) -> Self {
        Self::Stream { stream, sent: 0, data: Bytes::new(), last: false }
    }

    /// The bytes that follow the head, when they are no message.
    pub(crate) fn into_raw(self) -> Self {
        match self {
            Self::Framed { writer, .. } => Self::Raw { writer },
            sink => sink,
        }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), BodyError> {
        poll_fn(|cx| self.poll_flush(cx)).await.map_err(BodyError::Sink)
    }

    /// Ready when the next `push` has room.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::Framed { writer, .. } | Self::Raw { writer } => {
                if writer.is_full() {
                    ready!(writer.poll_flush(cx))?;
                }
                Poll::Ready(Ok(()))
            }
            Self::Stream { .. } => self.poll_flush(cx),
        }
    }

    /// Takes bytes; only after `poll_room` was ready. `last`: they end the body, and no trailers follow.
    fn push(&mut self, bytes: Bytes, last: bool) -> Result<(), Failure> {
        match self {
            Self::Framed { writer, chunked: true } => {
                if !bytes.is_empty() {
                    writer.encode(|out| proxy_h1::write_chunk_head(out, bytes.len()));
                    writer.push(bytes);
                    writer.encode(proxy_h1::write_chunk_end);
                }
                if last {
                    self.finish(Trailers::None)?;
                }
            }
            Self::Framed { writer, chunked: false } | Self::Raw { writer } => writer.push(bytes),
            Self::Stream { stream, sent, data, last: held } => {
                if *sent + bytes.len() <= UNASKED_BYTES {
                    *sent += bytes.len();
                    stream.send_data(bytes, last)?;
                } else {
                    *sent = UNASKED_BYTES;
                    stream.reserve_capacity(bytes.len());
                    (*data, *held) = (bytes, last);
                }
            }
        }
        Ok(())
    }

    /// Sends on what was pushed.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::Framed { writer, .. } | Self::Raw { writer } => {
                Poll::Ready(Ok(ready!(writer.poll_flush(cx))?))
            }
            Self::Stream { stream, data, last, .. } => {
                while !data.is_empty() {
                    let granted = match stream.capacity() {
                        0 => ready!(stream.poll_capacity(cx)).unwrap_or_else(|| Err(gone()))?,
                        capacity => capacity,
                    };
                    let part = data.split_to(granted.min(data.len()).min(FRAME_DATA_BYTES));
                    if !part.is_empty() {
                        stream.send_data(part, *last && data.is_empty())?;
                    }
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// The body's end. What is left goes out by `poll_flush`.
    fn finish(&mut self, trailers: Trailers) -> Result<(), Failure> {
        match self {
            Self::Framed { writer, chunked: true } => writer.encode(|out| {
                proxy_h1::write_last_chunk(out);
                match &trailers {
                    Trailers::None => {}
                    Trailers::Fields(fields) => {
                        fields
                            .end_to_end()
                            .for_each(|field| proxy_h1::write_field(out, field.name, field.value));
                    }
                    Trailers::Map(map) => map.iter().for_each(|(name, value)| {
                        proxy_h1::write_field(out, name.as_str().as_bytes(), value.as_bytes());
                    }),
                }
                proxy_h1::write_end(out);
            }),
            Self::Framed { chunked: false, .. } | Self::Raw { .. } => {}
            Self::Stream { stream, .. } => match trailers {
                Trailers::None => stream.send_data(Bytes::new(), true)?,
                Trailers::Fields(fields) => stream.send_trailers(crate::head::to_map(fields.end_to_end()))?,
                Trailers::Map(map) => stream.send_trailers(map)?,
            },
        }
        Ok(())
    }

    /// After the last flush: ends our direction where the end is told by that.
    fn close(&mut self) {
        if let Self::Raw { writer } = self {
            writer.shutdown();
        }
    }

    /// The receiver gave the body up: known without a write only in HTTP/2.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        match self {
            Self::Stream { stream, .. } => match ready!(stream.poll_reset(cx)) {
                Ok(reason) => Poll::Ready(Failure::Refused(reason)),
                Err(error) => Poll::Ready(Failure::Stream(error)),
            },
            Self::Framed { .. } | Self::Raw { .. } => Poll::Pending,
        }
    }

    /// Ends a gRPC response with the outcome that a failure of ours gives it.
    pub(crate) fn fail(&mut self, failed: &Failed) {
        if let Self::Stream { stream, .. } = self
            && stream.send_trailers(grpc::outcome(failed)).is_err()
        {
            // The client has gone, or its answer has ended.
            stream.send_reset(h2::Reason::CANCEL);
        }
    }

    /// Shows the receiver that the body is not whole: RST_STREAM, or a connection that ends in mid-message.
    pub fn abort(&mut self, reason: h2::Reason) {
        match self {
            Self::Stream { stream, .. } => stream.send_reset(reason),
            Self::Framed { writer, .. } | Self::Raw { writer } => writer.reset(),
        }
    }
}

/// The outcome that the trailers of a gRPC response tell.
fn grpc_status(trailers: &Trailers) -> Option<HeaderValue> {
    match trailers {
        Trailers::Map(map) => map.get(grpc::STATUS).cloned(),
        Trailers::None | Trailers::Fields(_) => None,
    }
}

/// A stream that has no capacity to wait for any more has ended.
fn gone() -> h2::Error {
    h2::Reason::STREAM_CLOSED.into()
}

/// Carries a whole body, trailers included, and counts its bytes as they go. When it returns, the last ones are with the
/// kernel, or with the HTTP/2 connection. What it returns is the `grpc-status` among the trailers.
pub async fn pump(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    meter: &Meter<'_>,
) -> Result<Option<HeaderValue>, BodyError> {
    let mut carried = carry(source, sink, meter).await;
    if let Err(BodyError::Sink(failure)) = &mut carried {
        // What is written to a stream that its receiver has reset fails without a word of why.
        poll_fn(|cx| {
            if let Poll::Ready(refused @ Failure::Refused(_)) = sink.poll_refused(cx) {
                *failure = refused;
            }
            Poll::Ready(())
        })
        .await;
    }
    carried
}

async fn carry(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    meter: &Meter<'_>,
) -> Result<Option<HeaderValue>, BodyError> {
    let last = match poll_fn(|cx| poll_body(source, sink, cx, meter)).await {
        Err(BodyError::Source(failure)) => {
            // What did come goes on before the failure does.
            sink.flush().await?;
            return Err(BodyError::Source(failure));
        }
        other => other?,
    };
    let mut status = None;
    if !last {
        let trailers = poll_fn(|cx| source.poll_trailers(cx)).await.map_err(BodyError::Source)?;
        status = grpc_status(&trailers);
        sink.finish(trailers).map_err(BodyError::Sink)?;
    }
    sink.flush().await?;
    sink.close();
    Ok(status)
}

/// Carries data to its end. True when the end was told with the last of it: no trailers, nothing to finish.
fn poll_body(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    cx: &mut Context<'_>,
    meter: &Meter<'_>,
) -> Poll<Result<bool, BodyError>> {
    loop {
        ready!(sink.poll_room(cx)).map_err(BodyError::Sink)?;
        match source.poll_data(cx) {
            Poll::Ready(Ok(Some(data))) => {
                meter.add(data.len() as u64);
                let last = source.is_end();
                sink.push(data, last).map_err(BodyError::Sink)?;
                if last {
                    return Poll::Ready(Ok(true));
                }
            }
            Poll::Ready(Ok(None)) => return Poll::Ready(Ok(false)),
            Poll::Ready(Err(failure)) => return Poll::Ready(Err(BodyError::Source(failure))),
            Poll::Pending => {
                if let Poll::Ready(failure) = sink.poll_refused(cx) {
                    return Poll::Ready(Err(BodyError::Sink(failure)));
                }
                if let Poll::Ready(Err(failure)) = sink.poll_flush(cx) {
                    return Poll::Ready(Err(BodyError::Sink(failure)));
                }
                return Poll::Pending;
            }
        }
    }
}
