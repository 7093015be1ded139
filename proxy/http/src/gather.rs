//! A socket under HTTP/2 that collects what is written until its connection's task has nothing more to say.
//!
//! `h2` flushes each DATA frame of 256 bytes or more by itself: a syscall and a TLS record each. Here `poll_write` only
//! appends and `poll_flush` agrees; `Driver` polls the connection and then writes everything gathered at once. Whoever
//! waits for a flush outside that driver would wait for ever, so the TLS handshake comes before the wrapping.

use crate::{failed::Failed, frames::Frames};
use policy::limits::{GATHER_BYTES, READ_AT_ONCE_BYTES};
use std::{
    cell::RefCell,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::yield_now,
};

/// A write of so much is worth a call of its own, and not worth a copy.
const LONG_BYTES: usize = 32 * 1024;

/// The socket, shared by the HTTP/2 connection and its `Driver` on one worker.
pub struct Gather<S>(Rc<RefCell<Inside<S>>>);

impl<S> Clone for Gather<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inside<S> {
    socket: S,
    gathered: Vec<u8>,
    /// Bytes of `gathered` that have gone already.
    written: usize,
    /// The socket may hold bytes back until it is flushed.
    unflushed: bool,
    /// Bytes came since the last look.
    heard: bool,
    /// Bytes that were read since others last had their turn.
    read: usize,
    /// What is watched for floods that `h2` bears without end, and whether one has come: no more is read then.
    frames: Option<Frames>,
    flooded: bool,
    /// The peer's alert, which HTTP/2 does not tell its streams of.
    alert: Option<Failed>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gather<S> {
    pub fn new(socket: S) -> Self {
        Self(Rc::new(RefCell::new(Inside {
            socket,
            gathered: Vec::new(),
            written: 0,
            unflushed: false,
            heard: false,
            read: 0,
            frames: None,
            flooded: false,
            alert: None,
        })))
    }

    /// The same, for a client that is not trusted.
    pub fn watching(socket: S) -> Self {
        let gather = Self::new(socket);
        gather.0.borrow_mut().frames = Some(Frames::new());
        gather
    }

    /// Has a flood come?
    pub fn is_flooded(&self) -> bool {
        self.0.borrow().flooded
    }

    /// To be called after each poll of the connection: writes what it said.
    pub fn after_poll(&self, cx: &mut Context<'_>, pending: bool) {
        let mut inside = self.0.borrow_mut();
        if pending {
            inside.read = 0;
        }
        // A failure to write shows itself at the next read: the socket is broken in both directions.
        let drained = inside.poll_drain(cx);
        if let (true, Poll::Ready(Err(_))) = (pending, drained) {
            cx.waker().wake_by_ref();
        }
    }

    /// Did bytes come since the last look?
    pub fn take_heard(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().heard)
    }

    /// What the peer's TLS alert said, if that is how the connection ended.
    pub fn alert(&self) -> Option<Failed> {
        self.0.borrow().alert.clone()
    }

    /// Polls `future` so that whatever it wrote goes out once it is pending or done.
    pub fn drive<F: Future + Unpin>(&self, future: F) -> Driver<S, F> {
        Driver { socket: self.clone(), future }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inside<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.gathered[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.unflushed = true;
        }
        self.written = 0;
        self.gathered.clear();
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
            // Most connections are idle most of the time: keep no large buffer for them.
            if self.gathered.capacity() > GATHER_BYTES / 4 {
                self.gathered = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inside = self.0.borrow_mut();
        if inside.read >= READ_AT_ONCE_BYTES || inside.flooded {
            // `h2` takes frames for as long as there are any, and a flood of small ones costs its sender less than us. To yield
            // is to look at the other sockets first; a mere wake-up would do so only each 61st time.
            return pin!(yield_now()).poll(cx).map(Ok);
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut inside.socket).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        inside.read += read.len();
        inside.heard |= !read.is_empty();
        if let Some(frames) = &mut inside.frames {
            inside.flooded = !frames.follow(read);
        }
        if let Poll::Ready(Err(error)) = &polled
            && let Some(alert) = proxy_tls::tls_error(error)
        {
            inside.alert = Some(Failed::new(proxy_tls::reason(alert), proxy_tls::detail(alert)));
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inside = self.0.borrow_mut();
        let long = slices.iter().map(|slice| slice.len()).sum::<usize>() >= LONG_BYTES;
        if long || inside.gathered.len() >= GATHER_BYTES {
            ready!(inside.poll_drain(cx))?;
        }
        if long {
            inside.unflushed = true;
            return Pin::new(&mut inside.socket).poll_write_vectored(cx, slices);
        }
        let mut count = 0;
        for slice in slices {
            inside.gathered.extend_from_slice(slice);
            count += slice.len();
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inside = self.0.borrow_mut();
        ready!(inside.poll_drain(cx))?;
        Pin::new(&mut inside.socket).poll_shutdown(cx)
    }
}

/// A future over a gathered socket.
pub struct Driver<S, F> {
    socket: Gather<S>,
    future: F,
}

impl<S, F> Future for Driver<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = Pin::new(&mut self.future).poll(cx);
        self.socket.after_poll(cx, polled.is_pending());
        polled
    }
}
