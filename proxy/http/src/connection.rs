//! A plain connection in use: its stream, what was read and not yet used, what is to be written.
//! Both directions are polled by one task. Buffers exist only while there is something in them.

use bytes::{Bytes, BytesMut};
use policy::limits::READ_AHEAD_BYTES;
use proxy_transport::Stream;
use std::{
    io::{self, IoSlice},
    rc::Rc,
    task::{Context, Poll, ready},
};

/// The first read of a message; most heads and many whole messages fit.
const FIRST_READ_BYTES: usize = 8 * 1024;
/// Bodies up to this are copied behind their head and go out with it in one piece; longer ones are not copied.
const COPY_BYTES: usize = 4 * 1024;
/// Collected bytes at which a writer wants to be flushed before it takes more.
const FULL_BYTES: usize = 32 * 1024;

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
}

/// The writing direction.
pub struct Writer {
    stream: Rc<Stream>,
    out: Vec<u8>,
    /// Bytes of `out` that have gone.
    sent: usize,
    /// Goes after `out`, uncopied.
    tail: Bytes,
    /// Goes after `tail`.
    after: Vec<u8>,
}

impl Connection {
    /// `read` is what was read of the stream already.
    pub fn new(stream: Stream, read: BytesMut) -> Self {
        let stream = Rc::new(stream);
        Self {
            reader: Reader { stream: stream.clone(), buffer: read, room: FIRST_READ_BYTES },
            writer: Writer { stream, out: Vec::new(), sent: 0, tail: Bytes::new(), after: Vec::new() },
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
        match ready!(self.reader.poll_fill(cx)) {
            Ok(count) => Poll::Ready(count > 0),
            Err(_) => {
                // The error is told once; whoever reads on finds a plain end. It was a reset, and stays one.
                self.stream().reset_on_drop();
                Poll::Ready(false)
            }
        }
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
            self.writer.after = Vec::new();
        }
    }
}

impl Reader {
    /// Reads what is there onto the end of the buffer; 0 is the peer's end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = ready!(self.stream.poll_read(cx, &mut self.buffer, self.room))?;
        if count >= self.room {
            self.room = (self.room * 2).min(READ_AHEAD_BYTES);
        }
        Poll::Ready(Ok(count))
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
        self.sent == self.out.len() && self.tail.is_empty() && self.after.is_empty()
    }

    /// Full: flush before the next push.
    pub(crate) fn is_full(&self) -> bool {
        !self.tail.is_empty() || self.out.len() >= FULL_BYTES
    }

    /// Writes small things by a function of `proxy-h1`, in order with the pushed bytes.
    pub fn encode(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(if self.tail.is_empty() { &mut self.out } else { &mut self.after });
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_BYTES || !self.tail.is_empty() {
            self.encode(|out| out.extend_from_slice(&bytes));
        } else {
            self.tail = bytes;
        }
    }

    /// Ready when everything is with the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let slices =
                [IoSlice::new(&self.out[self.sent..]), IoSlice::new(&self.tail), IoSlice::new(&self.after)];
            let count = if self.tail.is_empty() && self.after.is_empty() {
                ready!(self.stream.poll_write(cx, &self.out[self.sent..]))?
            } else {
                ready!(self.stream.poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.consume(count);
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn consume(&mut self, mut count: usize) {
        let from_out = count.min(self.out.len() - self.sent);
        self.sent += from_out;
        count -= from_out;
        let from_tail = count.min(self.tail.len());
        let _ = self.tail.split_to(from_tail);
        count -= from_tail;
        if self.sent == self.out.len() && self.tail.is_empty() && !self.after.is_empty() {
            std::mem::swap(&mut self.out, &mut self.after);
            self.after.clear();
            self.sent = count;
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
