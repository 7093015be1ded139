//! A stream that is read in larger steps than its user asks for.
//!
//! rustls asks for 4 KiB at a time. The first step here is larger, and while steps come back full they grow; between two
//! messages there is no buffer at all.

use bytes::{Buf, BytesMut};
use policy::limits::READ_AHEAD_BYTES;
use proxy_transport::Stream;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const FIRST_STEP_BYTES: usize = 16 * 1024;

pub struct ReadAhead {
    stream: Stream,
    buffer: BytesMut,
    step: usize,
}

impl ReadAhead {
    /// `read` is what was read of the stream already.
    pub fn new(stream: Stream, read: BytesMut) -> Self {
        Self { stream, buffer: read, step: FIRST_STEP_BYTES }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.buffer.is_empty() {
            if into.remaining() >= this.step {
                return this.stream.poll_read_buf(cx, into);
            }
            let count = match this.stream.poll_read(cx, &mut this.buffer, this.step) {
                Poll::Pending => {
                    this.buffer = BytesMut::new();
                    this.step = FIRST_STEP_BYTES;
                    return Poll::Pending;
                }
                ready => ready!(ready)?,
            };
            if count == this.step {
                this.step = (this.step * 2).min(READ_AHEAD_BYTES);
            }
        }
        let count = this.buffer.len().min(into.remaining());
        into.put_slice(&this.buffer[..count]);
        this.buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
