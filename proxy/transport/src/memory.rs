//! Connections without a kernel, whose every read and write a schedule may cut short, hold up or kill.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::ReadBuf,
    sync::mpsc,
    time::{Instant, Sleep},
};

/// Bytes that one direction holds before its writer waits: a small socket buffer.
const PIPE_BYTES: usize = 64 * 1024;

/// What happens to the next read or write of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It goes through, at most this many bytes of it.
    Pass(usize),
    /// It goes through later.
    Stall(Duration),
    /// The connection is reset, in both directions.
    Kill,
}

/// Asked before each read and write.
pub type Schedule = Rc<dyn Fn() -> Step>;

/// One end of a connection.
pub struct Memory {
    incoming: Rc<RefCell<Pipe>>,
    outgoing: Rc<RefCell<Pipe>>,
    schedule: Schedule,
    stalled: Option<Pin<Box<Sleep>>>,
    reset_on_drop: Cell<bool>,
    local: SocketAddr,
    peer: SocketAddr,
}

#[derive(Default)]
struct Pipe {
    bytes: std::collections::VecDeque<u8>,
    ended: bool,
    reset: bool,
    /// When either came.
    since: Option<Instant>,
    /// A reader was told of the reset; from now on, as with a kernel's socket, it finds an end.
    told: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Two connected ends: the first is the side that dialled `to`.
pub fn pair(from: SocketAddr, to: SocketAddr, schedule: &Schedule) -> (Memory, Memory) {
    let (up, down) = (Rc::new(RefCell::new(Pipe::default())), Rc::new(RefCell::new(Pipe::default())));
    let end = |incoming: &Rc<RefCell<Pipe>>, outgoing: &Rc<RefCell<Pipe>>, local, peer| Memory {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
        schedule: schedule.clone(),
        stalled: None,
        reset_on_drop: Cell::new(false),
        local,
        peer,
    };
    (end(&down, &up, from, to), end(&up, &down, to, from))
}

impl Memory {
    /// The schedule's word for the next operation: how many bytes may go. `Pending` while it is held up.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.stalled.is_none() {
            match (self.schedule)() {
                Step::Pass(limit) => return Poll::Ready(Ok(limit.max(1))),
                Step::Stall(time) => self.stalled = Some(Box::pin(tokio::time::sleep(time))),
                Step::Kill => {
                    self.kill();
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
            }
        }
        if let Some(stalled) = &mut self.stalled {
            ready!(stalled.as_mut().poll(cx));
            self.stalled = None;
        }
        Poll::Ready(Ok(usize::MAX))
    }

    fn kill(&self) {
        for pipe in [&self.incoming, &self.outgoing] {
            pipe.borrow_mut().reset();
        }
    }

    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.incoming.borrow_mut();
        if pipe.bytes.is_empty() && !pipe.ended && !pipe.reset {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_readable(cx))?;
        let limit = ready!(self.poll_step(cx))?;
        let mut pipe = self.incoming.borrow_mut();
        if pipe.reset {
            return Poll::Ready(match std::mem::replace(&mut pipe.told, true) {
                false => Err(io::ErrorKind::ConnectionReset.into()),
                true => Ok(()),
            });
        }
        let count = pipe.bytes.len().min(limit).min(buffer.remaining());
        let (front, back) = pipe.bytes.as_slices();
        let from_front = count.min(front.len());
        buffer.put_slice(&front[..from_front]);
        buffer.put_slice(&back[..count - from_front]);
        pipe.bytes.drain(..count);
        wake(&mut pipe.writer);
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let limit = ready!(self.poll_step(cx))?;
        let mut pipe = self.outgoing.borrow_mut();
        if pipe.reset || pipe.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = PIPE_BYTES - pipe.bytes.len();
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(room).min(limit);
        pipe.bytes.extend(&bytes[..count]);
        wake(&mut pipe.reader);
        Poll::Ready(Ok(count))
    }

    pub(crate) fn shutdown_write(&mut self) {
        self.outgoing.borrow_mut().end();
    }

    pub(crate) fn reset_on_drop(&self) {
        self.reset_on_drop.set(true);
    }

    /// How long ago the other end ended its direction, or the connection.
    pub(crate) fn ended_for(&self) -> Option<Duration> {
        self.incoming.borrow().since.map(|since| since.elapsed())
    }

    /// On the accepted end, what the other one dialled: a memory network redirects by handing the end to a proxy.
    pub(crate) fn original_destination(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    pub(crate) fn peer_address(&self) -> SocketAddr {
        self.peer
    }
}

impl Drop for Memory {
    /// As the kernel does: bytes that nobody read make a reset of a close.
    fn drop(&mut self) {
        let unread = !self.incoming.borrow().bytes.is_empty();
        if self.reset_on_drop.get() || unread {
            self.kill();
        } else {
            self.outgoing.borrow_mut().end();
            self.incoming.borrow_mut().reset();
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} -> {})", self.local, self.peer)
    }
}

impl Pipe {
    fn end(&mut self) {
        self.ended = true;
        self.since.get_or_insert_with(Instant::now);
        wake(&mut self.reader);
    }

    fn reset(&mut self) {
        self.reset = true;
        self.since.get_or_insert_with(Instant::now);
        self.bytes.clear();
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Addresses and who listens there; every connection made through it runs on its schedule.
#[derive(Clone)]
pub struct MemoryNetwork(Rc<Inside>);

struct Inside {
    schedule: Schedule,
    listeners: RefCell<HashMap<SocketAddr, mpsc::UnboundedSender<Memory>>>,
    failures: RefCell<HashMap<SocketAddr, io::ErrorKind>>,
    ports: Cell<u16>,
}

impl MemoryNetwork {
    pub fn new(schedule: Schedule) -> Self {
        let (listeners, failures) = (RefCell::default(), RefCell::default());
        Self(Rc::new(Inside { schedule, listeners, failures, ports: Cell::new(1024) }))
    }

    /// Connections to `address` come out of the receiver; those to addresses where nobody listens are refused.
    pub fn listen(&self, address: SocketAddr) -> mpsc::UnboundedReceiver<Memory> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.listeners.borrow_mut().insert(address, sender);
        receiver
    }

    /// Connections to `address` fail so from now on, whoever listens there.
    pub fn fail(&self, address: SocketAddr, how: io::ErrorKind) {
        self.0.failures.borrow_mut().insert(address, how);
    }

    pub fn connect(&self, address: SocketAddr) -> io::Result<Memory> {
        if let Some(how) = self.0.failures.borrow().get(&address) {
            return Err((*how).into());
        }
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let port = self.0.ports.get().checked_add(1).unwrap_or(1024);
        self.0.ports.set(port);
        let from = SocketAddr::from(([127, 0, 0, 1], port));
        let (near, far) = pair(from, address, &self.0.schedule);
        self.0.listeners.borrow().get(&address).ok_or_else(refused)?.send(far).map_err(|_| refused())?;
        Ok(near)
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryNetwork({} listeners)", self.0.listeners.borrow().len())
    }
}
