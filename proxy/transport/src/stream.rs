//! One byte stream with both directions usable side by side through a shared reference.

use crate::memory::Memory;
use bytes::{Buf, BufMut, BytesMut};
use policy::limits;
use std::{
    cell::{Cell, RefCell},
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::AsRawFd,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connection. Its two directions belong to one task, which polls them one after the other: hence `&self` and a
/// `RefCell` instead of halves. (`TcpStream::try_read` would do without, but costs a `recv` with EAGAIN a message.)
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    /// With the peer's family, IPv4 or not, where it is known: it saves asking for an address. And whether it is looked after
    /// because its reader is slow.
    Tcp(RefCell<TcpStream>, Option<bool>, Cell<bool>),
    Memory(RefCell<Memory>),
    Layered(RefCell<Box<dyn Layer>>),
}

/// What a stream is within another one: TLS. What is asked of the connection itself, the stream beneath answers.
pub trait Layer: fmt::Debug {
    fn beneath(&self) -> &Stream;
    /// What is read and written.
    fn within(&mut self) -> Pin<&mut dyn Duplex>;
}

/// Both directions.
pub trait Duplex: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite> Duplex for T {}

impl From<Box<dyn Layer>> for Stream {
    fn from(layer: Box<dyn Layer>) -> Self {
        Self(Kind::Layered(RefCell::new(layer)))
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self(Kind::Tcp(RefCell::new(stream), None, Cell::new(false)))
    }
}

impl From<Memory> for Stream {
    fn from(memory: Memory) -> Self {
        Self(Kind::Memory(RefCell::new(memory)))
    }
}

impl Stream {
    /// A connection that was accepted from `peer`.
    pub(crate) fn accepted(stream: TcpStream, peer: SocketAddr) -> Self {
        Self(Kind::Tcp(RefCell::new(stream), Some(peer.ip().to_canonical().is_ipv4()), Cell::new(false)))
    }

    /// Reads what is there, at most `room` bytes, onto the end of `buffer`. `Ok(0)` is the peer's end.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        buffer.reserve(room);
        let spare = buffer.spare_capacity_mut();
        let room = room.min(spare.len());
        let mut read = ReadBuf::uninit(&mut spare[..room]);
        ready!(self.poll_read_buf(cx, &mut read))?;
        let count = read.filled().len();
        // SAFETY: `read` covered the spare capacity from its start and says that `count` bytes of it are initialised.
        #[allow(unsafe_code)]
        unsafe {
            buffer.advance_mut(count);
        }
        Poll::Ready(Ok(count))
    }

    /// As `AsyncRead::poll_read`.
    pub fn poll_read_buf(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Tcp(tcp, ..) => Pin::new(&mut *tcp.borrow_mut()).poll_read(cx, buffer),
            Kind::Memory(memory) => memory.borrow_mut().poll_read(cx, buffer),
            Kind::Layered(layer) => layer.borrow_mut().within().poll_read(cx, buffer),
        }
    }

    /// Ready when a read would not wait: bytes, the end, or an error are there. Of a layer, when something is there beneath it.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Tcp(tcp, ..) => tcp.borrow().poll_read_ready(cx),
            Kind::Memory(memory) => memory.borrow_mut().poll_readable(cx),
            Kind::Layered(layer) => layer.borrow().beneath().poll_readable(cx),
        }
    }

    /// As `AsyncWrite::poll_write`.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &self.0 {
            Kind::Tcp(tcp, ..) => Pin::new(&mut *tcp.borrow_mut()).poll_write(cx, bytes),
            Kind::Memory(memory) => memory.borrow_mut().poll_write(cx, bytes),
            Kind::Layered(layer) => layer.borrow_mut().within().poll_write(cx, bytes),
        }
    }

    /// As `AsyncWrite::poll_write_vectored`.
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &self.0 {
            Kind::Tcp(tcp, ..) => Pin::new(&mut *tcp.borrow_mut()).poll_write_vectored(cx, slices),
            Kind::Memory(memory) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                memory.borrow_mut().poll_write(cx, first.map_or(&[], |slice| slice))
            }
            Kind::Layered(layer) => layer.borrow_mut().within().poll_write_vectored(cx, slices),
        }
    }

    /// Ready when what was written is with the kernel: at once, but where a layer has it.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Kind::Tcp(..) | Kind::Memory(_) => Poll::Ready(Ok(())),
            Kind::Layered(layer) => layer.borrow_mut().within().poll_flush(cx),
        }
    }

    /// Writes all of `buffer`, taking from its front what went.
    pub fn poll_drain(&self, cx: &mut Context<'_>, buffer: &mut impl Buf) -> Poll<io::Result<()>> {
        while buffer.has_remaining() {
            let count = ready!(self.poll_write(cx, buffer.chunk()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            buffer.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our direction (FIN); the other one stays.
    pub fn shutdown_write(&self) {
        match &self.0 {
            // An error says that the connection is gone already: the end has come either way.
            Kind::Tcp(tcp, ..) => {
                let _ = socket2::SockRef::from(&*tcp.borrow()).shutdown(std::net::Shutdown::Write);
            }
            Kind::Memory(memory) => memory.borrow_mut().shutdown_write(),
            Kind::Layered(layer) => {
                // After a flush there is room for the few bytes by which a layer tells of its end.
                let mut cx = Context::from_waker(Waker::noop());
                if layer.borrow_mut().within().poll_shutdown(&mut cx).is_pending() {
                    layer.borrow().beneath().shutdown_write();
                }
            }
        }
    }

    /// Makes the coming drop a reset (RST) instead of an end. What was written and not yet sent is lost, so flush first.
    pub fn reset_on_drop(&self) {
        match &self.0 {
            Kind::Tcp(tcp, ..) => {
                let _ = tcp.borrow().set_zero_linger();
            }
            Kind::Memory(memory) => memory.borrow_mut().reset_on_drop(),
            Kind::Layered(layer) => layer.borrow().beneath().reset_on_drop(),
        }
    }

    /// The peer takes no more for now. True when somebody should look after it, and does not do so yet: [`Stream::forgive`].
    pub fn is_newly_slow(&self) -> bool {
        match &self.0 {
            Kind::Tcp(tcp, _, slow) => {
                // Local sockets have no time limit, and need nobody.
                let limited = || socket2::SockRef::from(&*tcp.borrow()).tcp_user_timeout();
                !slow.replace(true) && limited().is_ok_and(|limit| limit.is_some())
            }
            Kind::Memory(_) => false,
            Kind::Layered(layer) => layer.borrow().beneath().is_newly_slow(),
        }
    }

    /// The peer takes what it gets again.
    pub fn forgive(&self) {
        self.give_time(limits::USER_TIMEOUT);
        match &self.0 {
            Kind::Tcp(_, _, slow) => slow.set(false),
            Kind::Layered(layer) => layer.borrow().beneath().forgive(),
            Kind::Memory(_) => {}
        }
    }

    /// Sets how long written bytes may be without acknowledgement (`TCP_USER_TIMEOUT`).
    pub fn give_time(&self, limit: Duration) {
        match &self.0 {
            // An error says that the connection is gone, and somebody else will find that.
            Kind::Tcp(tcp, ..) => {
                let _ = socket2::SockRef::from(&*tcp.borrow()).set_tcp_user_timeout(Some(limit));
            }
            Kind::Layered(layer) => layer.borrow().beneath().give_time(limit),
            Kind::Memory(_) => {}
        }
    }

    /// What the kernel knows of the connection's writing side.
    pub fn backlog(&self) -> io::Result<Backlog> {
        let tcp = match &self.0 {
            Kind::Tcp(tcp, ..) => tcp.borrow(),
            Kind::Layered(layer) => return layer.borrow().beneath().backlog(),
            Kind::Memory(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let (queued, info) = (queued(&tcp)?, information(&tcp)?);
        Ok(Backlog {
            queued,
            acknowledged: info.bytes_acknowledged,
            silent: Duration::from_millis(info.common.tcpi_last_ack_recv.into()),
        })
    }

    /// How long ago the peer was last heard of, its end included: where that is known.
    pub fn silent_for(&self) -> Option<Duration> {
        match &self.0 {
            // Each segment has an acknowledgement, a FIN too.
            Kind::Tcp(tcp, ..) => {
                let info = information(&tcp.borrow()).ok()?;
                Some(Duration::from_millis(info.common.tcpi_last_ack_recv.into()))
            }
            Kind::Memory(memory) => memory.borrow().ended_for(),
            Kind::Layered(layer) => layer.borrow().beneath().silent_for(),
        }
    }

    /// Where the client really wanted to go, before a REDIRECT rule brought it here.
    pub fn original_destination(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(tcp, family, _) => {
                let tcp = tcp.borrow();
                let ipv4 = match family {
                    Some(ipv4) => *ipv4,
                    None => crate::original::canonical(tcp.local_addr()?).is_ipv4(),
                };
                crate::original::destination(&tcp, ipv4)
            }
            Kind::Memory(memory) => memory.borrow().original_destination(),
            Kind::Layered(layer) => layer.borrow().beneath().original_destination(),
        }
    }

    /// The address of our end, IPv4 as IPv4 also on a dual-stack socket.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(tcp, ..) => tcp.borrow().local_addr().map(crate::original::canonical),
            Kind::Memory(memory) => memory.borrow().original_destination(),
            Kind::Layered(layer) => layer.borrow().beneath().local_address(),
        }
    }

    /// The address of the other end, IPv4 as IPv4 also on a dual-stack socket.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(tcp, ..) => tcp.borrow().peer_addr().map(crate::original::canonical),
            Kind::Memory(memory) => Ok(memory.borrow().peer_address()),
            Kind::Layered(layer) => layer.borrow().beneath().peer_address(),
        }
    }
}

/// What a connection's writing side has to do.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    /// Bytes that were written and are not acknowledged, whether they were sent or not.
    pub queued: usize,
    /// Bytes that ever were.
    pub acknowledged: u64,
    /// Time since the peer last acknowledged anything, a probe of its closed window included.
    pub silent: Duration,
}

/// `struct tcp_info` of the kernel, somewhat longer than that of the C library (Linux 4.1).
#[repr(C)]
struct Information {
    common: libc::tcp_info,
    pacing_rate: u64,
    greatest_pacing_rate: u64,
    bytes_acknowledged: u64,
}

/// `TCP_INFO`.
fn information(stream: &TcpStream) -> io::Result<Information> {
    let mut info = std::mem::MaybeUninit::<Information>::zeroed();
    let mut length = size_of::<Information>() as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the kernel writes at most `length` bytes, which are ours; all zeroes is a value of `Information`.
    #[allow(unsafe_code)]
    let (outcome, info) = unsafe {
        let outcome =
            libc::getsockopt(stream.as_raw_fd(), level, name, info.as_mut_ptr().cast(), &mut length);
        (outcome, info.assume_init())
    };
    if outcome == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// `SIOCOUTQ` (tcp(7)).
fn queued(stream: &TcpStream) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int where it is told to, which is ours.
    #[allow(unsafe_code)]
    let outcome = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &mut count) };
    if outcome == 0 { Ok(count.max(0) as usize) } else { Err(io::Error::last_os_error()) }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read_buf(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(&self, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Stream::poll_write_vectored(&self, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_flush(&self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
