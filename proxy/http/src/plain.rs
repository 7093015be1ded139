//! Connections of one worker to one program: to an application, or to an endpoint without a proxy. They are in plaintext, or in
//! TLS where a policy asks for that.
//!
//! A pooled connection has no task: whether its server has closed it is looked at when it is taken out, and now and then by
//! `sweep`. Those that are too old to be used are kept: by their end they tell for how long the server keeps connections
//! (`idle_age`). The race that remains is for replay.

use crate::{
    connection::Connection,
    failed::Failed,
    idle_age::{IdleAge, Repeat},
    origination::Origination,
};
use bytes::BytesMut;
use policy::{BackendTls, Reason, limits};
use proxy_tls::Within;
use proxy_transport::{Network, Stream};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::ReadBuf,
    time::{Instant, timeout},
};

/// A death this soon after a message was sent is the server's idle timeout; a later one is the message's fault.
const CLOSING_RACE: Duration = Duration::from_secs(1);

/// The connections to one address.
pub struct Plain {
    network: Network,
    address: SocketAddr,
    /// It is an application of our own network namespace, which may listen on loopback instead.
    local: bool,
    /// Which of its addresses answered last: 0 is `address`, the others follow.
    answers: Cell<usize>,
    /// In the order of their last use.
    idle: RefCell<VecDeque<Idle>>,
    idle_age: Cell<IdleAge>,
    tls: Option<Origination>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection that was taken out.
pub struct Taken {
    pub connection: Connection,
    /// It has served a request before, and its server may have closed it meanwhile.
    pub reused: bool,
    /// For how long it was idle, and until when.
    idle: Duration,
    at: Instant,
}

impl Plain {
    /// To an endpoint.
    pub fn new(network: Network, address: SocketAddr) -> Self {
        Self {
            network,
            address,
            local: false,
            answers: Cell::new(0),
            idle: RefCell::default(),
            idle_age: Cell::default(),
            tls: None,
        }
    }

    /// To an endpoint that speaks TLS.
    pub fn over_tls(self, tls: Arc<BackendTls>) -> Self {
        Self { tls: Some(Origination::new(tls)), ..self }
    }

    /// To an application in our own network namespace.
    pub fn local(network: Network, address: SocketAddr) -> Self {
        Self { local: true, ..Self::new(network, address) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An idle connection that is still open, or a new one. The one used last first: the others may age.
    pub async fn take(&self, connect: Duration, repeat: Repeat) -> Result<Taken, Failed> {
        if let Some(taken) = self.pooled(repeat).await {
            return Ok(taken);
        }
        self.fresh(connect).await
    }

    /// A new connection, for a request that a pooled one has died under: the others may be as dead.
    pub async fn fresh(&self, connect: Duration) -> Result<Taken, Failed> {
        let stream = self.connect(connect, Within::Http1).await?;
        let connection = Connection::new(stream, BytesMut::new());
        Ok(Taken { connection, reused: false, idle: Duration::ZERO, at: Instant::now() })
    }

    async fn pooled(&self, repeat: Repeat) -> Option<Taken> {
        loop {
            let at = Instant::now();
            let Idle { connection, since } = {
                let mut held = self.idle.borrow_mut();
                let idle = at - held.back()?.since;
                if idle >= self.idle_age.get().usable(at, repeat) {
                    return None;
                }
                held.pop_back()?
            };
            let open = poll_fn(|cx| Poll::Ready(is_open(&connection, cx))).await;
            self.seen(&connection, at - since, open, at);
            if open {
                return Some(Taken { connection, reused: true, idle: at - since, at });
            }
        }
    }

    /// Learns of an idle connection's end, or of its life.
    fn seen(&self, connection: &Connection, idle: Duration, open: bool, now: Instant) {
        let mut age = self.idle_age.get();
        if open {
            age.open(idle);
        } else {
            // It was closed some time ago: the kernel has kept when.
            let ago = connection.stream().silent_for().unwrap_or_default();
            age.closed(idle.saturating_sub(ago), now);
        }
        self.idle_age.set(age);
    }

    /// A new connection, for what is to be spoken on it.
    pub async fn connect(&self, wait: Duration, within: Within) -> Result<Stream, Failed> {
        let stream = self.connect_plain(wait).await?;
        match &self.tls {
            // In a box: few have it, and all would be as large.
            Some(tls) => Box::pin(tls.begin(stream, within)).await,
            None => Ok(stream),
        }
    }

    /// A new connection as it is, for a client that speaks TLS itself.
    pub async fn connect_plain(&self, wait: Duration) -> Result<Stream, Failed> {
        let connect = async {
            if !self.local {
                return self.network.connect(self.address).await;
            }
            let last = self.answers.get();
            let found = find_local(self.address, last, |address| self.network.connect_local(address)).await;
            found.map(|(at, stream)| {
                self.answers.set(at);
                stream
            })
        };
        timeout(wait, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| Failed::connecting(&error))
    }

    /// Keeps a connection whose last message is whole, for the next request.
    pub fn give_back(&self, mut connection: Connection) {
        if !connection.is_clean() {
            return;
        }
        if let Some(announced) = connection.reader.announced_idle_age() {
            let mut age = self.idle_age.get();
            age.announced(announced);
            self.idle_age.set(age);
        }
        connection.rest();
        let mut idle = self.idle.borrow_mut();
        if idle.len() == limits::IDLE_CONNECTIONS_PER_ADDRESS {
            idle.pop_front();
        }
        idle.push_back(Idle { connection, since: Instant::now() });
    }

    /// Learns from a message that found no answer on a connection that was taken out.
    pub fn lost(&self, taken: &Taken, failed: &Failed) {
        let raced = !failed.answered
            && failed.reason == Reason::ConnectionTerminated
            && taken.at.elapsed() < CLOSING_RACE;
        if taken.reused && raced {
            let mut age = self.idle_age.get();
            age.closed(taken.idle, Instant::now());
            self.idle_age.set(age);
        }
    }

    /// Lets go of the connections that have been idle for too long or have been closed.
    pub fn sweep(&self, now: Instant) {
        // Nobody waits for what it looks at.
        let mut cx = Context::from_waker(Waker::noop());
        self.idle.borrow_mut().retain(|idle| {
            let (age, open) = (now - idle.since, is_open(&idle.connection, &mut cx));
            self.seen(&idle.connection, age, open, now);
            open && age < limits::IDLE_CONNECTION_AGE
        });
    }
}

/// Connects to an application of our own network namespace. It may listen on one family only, on its pod's address only, on
/// loopback only. Where it does not listen, its kernel says so at once; so its addresses are tried one after the other (the
/// order of RFC 8305, without its delays): the one that answered last, then as dialled, then loopback of that family, then of
/// the other. Gives which one answered, 0 being `address`.
pub async fn find_local<T, C: Future<Output = io::Result<T>>>(
    address: SocketAddr,
    last: usize,
    mut connect: impl FnMut(SocketAddr) -> C,
) -> io::Result<(usize, T)> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let [first, second] = if address.is_ipv4() { [v4, v6] } else { [v6, v4] };
    let loopback = |ip| SocketAddr::new(ip, address.port());
    let addresses = [address, loopback(first), loopback(second)];
    let mut told = None;
    for at in [last].into_iter().chain((0..addresses.len()).filter(|at| *at != last)) {
        match connect(addresses[at]).await {
            Ok(made) => return Ok((at, made)),
            Err(error) if at == 0 => {
                let listens_not = error.kind() == io::ErrorKind::ConnectionRefused;
                told = Some(error);
                if !listens_not {
                    break;
                }
            }
            // Refused too, or the family is switched off.
            Err(_) => {}
        }
    }
    // What the address said that was dialled is the one thing to tell of.
    Err(told.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into()))
}

/// Nothing to read is what an idle connection should have: an end, an error, or bytes nobody asked for make it useless.
fn is_open(connection: &Connection, cx: &mut Context<'_>) -> bool {
    let mut byte = [0; 1];
    connection.stream().poll_read_buf(cx, &mut ReadBuf::new(&mut byte)).is_pending()
}

#[cfg(test)]
mod tests;
