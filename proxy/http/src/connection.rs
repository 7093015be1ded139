//! A plain connection in use: its stream, what was read and not yet used, what is to be written.
//! Both directions are polled by one task. Buffers exist only while there is something in them.

use crate::slow;
use bytes::{Bytes, BytesMut};
use policy::limits::READ_AHEAD_BYTES;
use proxy_h1::ResponseHead;
use proxy_transport::Stream;
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

/// The first read of a message; most heads and many whole messages fit.
const FIRST_READ_BYTES: usize = 8 * 1024;
/// Bodies up to this are copied behind their head and go out with it in one piece; longer ones are not copied.
const COPY_BYTES: usize = 4 * 1024;
/// Collected bytes at which a writer wants to be flushed before it takes more.
const FULL_BYTES: usize = 64 * 1024;
/// Pieces that go out in one call.
const SLICES: usize = 16;

/// A connection as two directions over one stream.
pub struct Connection {
    pub reader: Reader,
    pub writer: Writer,
}

/// The reading direction.
pub struct Reader {
    stream: Rc<Stream>,
    pub(crate) buffer: BytesMut,
    /// How much the next read asks for: more while reads come back full.
    room: usize,
    /// The kernel tells an error once, and then a plain end: it stays an error for whoever reads on.
    broken: Option<io::ErrorKind>,
    /// For how many seconds the server keeps the connection idle, if it has said so.
    announced: Option<u16>,
}

/// The writing direction.
pub struct Writer {
    stream: Rc<Stream>,
    /// Goes first, uncopied.
    whole: VecDeque<Bytes>,
    /// Goes then: heads, framing and short bodies.
    out: Vec<u8>,
    /// Bytes of the first of these that have gone already.
    sent: usize,
    /// Bytes of all of these.
    held: usize,
}

impl Connection {
    /// `read` is what was read of the stream already.
    pub fn new(stream: Stream, read: BytesMut) -> Self {
        let stream = Rc::new(stream);
        Self {
            reader: Reader {
                stream: stream.clone(),
                buffer: read,
                room: FIRST_READ_BYTES,
                broken: None,
                announced: None,
            },
            writer: Writer { stream, whole: VecDeque::new(), out: Vec::new(), sent: 0, held: 0 },
        }
    }

    pub fn stream(&self) -> &Stream {
        &self.reader.stream
    }

    /// Ready when the peer has said something (true), or has ended or broken the connection without a word.
    pub fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.reader.buffer.is_empty() {
            return Poll::Ready(true);
        }
        Poll::Ready(ready!(self.reader.poll_fill(cx)).is_ok_and(|count| count > 0))
    }

    /// The stream and what was read of it, for somebody else to go on with. Only before anything was written.
    pub fn into_parts(self) -> (Stream, BytesMut) {
        let Self { reader: Reader { stream, buffer, .. }, writer } = self;
        drop(writer);
        (Rc::into_inner(stream).expect("reader and writer alone share it"), buffer)
    }

    /// Nothing is half read or half written.
    pub fn is_clean(&self) -> bool {
        self.reader.buffer.is_empty() && self.writer.is_empty()
    }

    /// Lets go of the buffers of a connection that waits for its next message.
    pub fn rest(&mut self) {
        if self.reader.buffer.is_empty() {
            self.reader.buffer = BytesMut::new();
            self.reader.room = FIRST_READ_BYTES;
        }
        if self.writer.is_empty() {
            self.writer.out = Vec::new();
            self.writer.whole = VecDeque::new();
        }
    }
}

impl Reader {
    /// Reads what is there onto the end of the buffer; 0 is the peer's end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(broken) = self.broken {
            return Poll::Ready(Err(broken.into()));
        }
        let read = ready!(self.stream.poll_read(cx, &mut self.buffer, self.room));
        let count = read.inspect_err(|error| self.broken = Some(error.kind()))?;
        if count >= self.room {
            self.room = (self.room * 2).min(READ_AHEAD_BYTES);
        }
        Poll::Ready(Ok(count))
    }

    /// Takes note of what a response says of the connection's idle age.
    pub(crate) fn heard(&mut self, response: &ResponseHead) {
        if let Some(announced) = response.keep_alive_timeout() {
            self.announced = Some(u16::try_from(announced.as_secs()).unwrap_or(u16::MAX));
        }
    }

    pub(crate) fn announced_idle_age(&self) -> Option<Duration> {
        self.announced.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Ready when bytes, the end or an error are there to be read.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() { self.stream.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }

    /// What was read and not used, to be taken from.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// What was read and not used.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }
}

impl Writer {
    fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Full: flush before the next push.
    pub(crate) fn is_full(&self) -> bool {
        self.held >= FULL_BYTES
    }

    /// Writes small things by a function of `proxy-h1`, in order with the pushed bytes.
    pub fn encode(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.out.len();
        write(&mut self.out);
        self.held += self.out.len() - before;
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_BYTES {
            return self.encode(|out| out.extend_from_slice(&bytes));
        }
        if !self.out.is_empty() {
            self.whole.push_back(std::mem::take(&mut self.out).into());
        }
        self.held += bytes.len();
        self.whole.push_back(bytes);
    }

    /// Ready when everything is with the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held > 0 {
            let Poll::Ready(written) = self.poll_write(cx) else {
                slow::add(&self.stream);
                return Poll::Pending;
            };
            let count = written?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.consume(count);
        }
        let flushed = self.stream.poll_flush(cx);
        if flushed.is_pending() {
            slow::add(&self.stream);
        }
        flushed
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.whole.is_empty() {
            return self.stream.poll_write(cx, &self.out[self.sent..]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let parts = self.whole.iter().map(|bytes| &**bytes).chain([&*self.out]);
        let mut used = 0;
        for (at, part) in parts.take(SLICES).enumerate() {
            slices[at] = IoSlice::new(if at == 0 { &part[self.sent..] } else { part });
            used = at + 1;
        }
        self.stream.poll_write_vectored(cx, &slices[..used])
    }

    fn consume(&mut self, count: usize) {
        self.held -= count;
        self.sent += count;
        while let Some(first) = self.whole.front()
            && self.sent >= first.len()
        {
            self.sent -= first.len();
            self.whole.pop_front();
        }
        if self.held == 0 {
            self.out.clear();
            self.sent = 0;
        }
    }

    /// Ends our direction; only after a flush.
    pub(crate) fn shutdown(&self) {
        self.stream.shutdown_write();
    }

    /// The connection's coming end is to be a reset.
    pub(crate) fn reset(&self) {
        self.stream.reset_on_drop();
    }
}
