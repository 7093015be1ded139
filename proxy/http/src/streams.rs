//! The HTTP/2 connections of one worker to one next hop: `weft/1` to a peer proxy, or plaintext to a program.
//!
//! A stream of an existing connection costs no wait and no task. Bulk streams keep to themselves, so that a lost packet or
//! a full window of theirs never holds small messages. A new connection is made by a task of its own: who asked for it may
//! give up, and others who wait for it get it.

use crate::{
    dial::{self, Dialed},
    failed::Failed,
    plain::Plain,
    windows::Credit,
};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, Uri};
use policy::{Reason, SpiffeId, limits};
use proxy_tls::Credentials;
use proxy_transport::Network;
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

/// How a worker reaches other proxies.
pub struct Dialer {
    pub network: Network,
    /// Our certificate and the roots to trust; none until control has given one.
    pub credentials: Arc<ArcSwapOption<Credentials>>,
    /// Bytes of one message's header list from programs.
    pub header_bytes: usize,
}

/// The connections to one address.
#[derive(Clone)]
pub struct Streams(Rc<Inside>);

struct Inside {
    to: To,
    authority: Uri,
    connections: RefCell<Vec<Rc<Connection>>>,
    dialing: Cell<bool>,
    /// A connection has come, or could not be made.
    dialed: Notify,
    /// How the last dialling failed, for those who waited for it.
    failed: RefCell<Option<Failed>>,
    /// A stream has ended.
    freed: Notify,
    /// Who waits for a stream to end.
    waiting: Cell<usize>,
}

/// What is at the other end.
pub(crate) enum To {
    /// A proxy: an address and the identity that must answer there.
    Peer { dialer: Rc<Dialer>, address: SocketAddr, identity: SpiffeId },
    /// A program that speaks HTTP/2: in plaintext by prior knowledge (RFC 9113 §3.3), or in TLS.
    Program { plain: Rc<Plain>, header_bytes: usize },
}

/// One connection, as its streams see it.
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    /// To a proxy: `weft-*` fields are understood.
    wire: bool,
    streams: Cell<u32>,
    /// Most streams at once.
    peak: Cell<u32>,
    bulk: Cell<u32>,
    closed: Cell<bool>,
    pub(crate) credit: Credit,
    /// The other side has said its settings.
    pub(crate) greeted: Cell<bool>,
    pub(crate) greeting: Notify,
    /// Why the peer ended it, where it said so. In TLS 1.3 it refuses our certificate when streams are open already.
    alert: RefCell<Option<Failed>>,
    used: Cell<Instant>,
}

/// A place on a connection, given back when dropped.
pub struct Lease {
    connection: Rc<Connection>,
    of: Rc<Inside>,
    bulk: Cell<bool>,
}

impl Streams {
    /// To a peer proxy.
    pub fn peer(dialer: Rc<Dialer>, address: SocketAddr, identity: SpiffeId) -> Self {
        Self::new(To::Peer { dialer, address, identity }, address)
    }

    /// To a program, whose header lists may have so many bytes.
    pub fn program(plain: Rc<Plain>, header_bytes: usize) -> Self {
        let address = plain.address();
        Self::new(To::Program { plain, header_bytes }, address)
    }

    fn new(to: To, address: SocketAddr) -> Self {
        Self(Rc::new(Inside {
            to,
            authority: address.to_string().parse().expect("an address and port is an authority"),
            connections: RefCell::default(),
            dialing: Cell::new(false),
            dialed: Notify::new(),
            failed: RefCell::default(),
            freed: Notify::new(),
            waiting: Cell::new(0),
        }))
    }

    /// A place for one more stream, on a connection that is there or on a new one. `connect` bounds the dialling.
    pub async fn lease(&self, connect: Duration) -> Result<Lease, Failed> {
        loop {
            if let Some(lease) = self.held() {
                return Ok(lease);
            }
            let inside = &self.0;
            if inside.connections.borrow().len() >= inside.most() {
                inside.wait_for_place().await?;
                continue;
            }
            let dialed = inside.dialed.notified();
            if !inside.dialing.replace(true) {
                tokio::task::spawn_local(dial(inside.clone(), connect));
            }
            dialed.await;
            if let (None, Some(failed)) = (self.held(), &*inside.failed.borrow()) {
                return Err(failed.clone());
            }
        }
    }

    /// The least loaded connection, if another one is not called for.
    fn held(&self) -> Option<Lease> {
        let inside = &self.0;
        let mut connections = inside.connections.borrow_mut();
        if connections.iter().any(|one| one.closed.get()) {
            connections.retain(|one| !one.closed.get());
        }
        let full = connections.len() >= inside.most();
        let free = connections.iter().filter(|one| one.has_place());
        let best = free.min_by_key(|one| (one.bulk.get(), one.streams.get()))?;
        if best.bulk.get() > 0 && !full && best.wire {
            return None;
        }
        Some(Lease::new(best, inside))
    }

    /// Lets go of connections that nobody has used for a while; they close in good order.
    pub fn sweep(&self, now: Instant) {
        self.0.connections.borrow_mut().retain(|one| {
            !one.closed.get() && (one.streams.get() > 0 || now - one.used.get() < one.idle_age())
        });
    }
}

impl Inside {
    /// Connections that are kept at most.
    fn most(&self) -> usize {
        match self.to {
            To::Peer { .. } => limits::CONNECTIONS_PER_PEER,
            To::Program { .. } => limits::CONNECTIONS_PER_APPLICATION,
        }
    }

    /// Waits until a stream has ended or a connection been lost.
    async fn wait_for_place(&self) -> Result<(), Failed> {
        if self.waiting.get() >= limits::PENDING_STREAMS {
            let detail = "every connection to the next hop carries as many streams as it may";
            return Err(Failed::untouched(Reason::ConnectionLimitReached, detail));
        }
        let _counted = Waiting::new(&self.waiting);
        self.freed.notified().await;
        Ok(())
    }
}

/// Makes a connection and drives it to its end.
async fn dial(inside: Rc<Inside>, wait: Duration) {
    let dialed = match dial::dial(&inside.to, wait).await {
        Err(failed) if failed.reason == Reason::TlsProtocolError => {
            // A server that speaks first may have been faster than our delayed ClientHello, and its proxy have taken
            // us for a client without one. Then the answer was no TLS, and another attempt is answered better.
            dial::dial(&inside.to, wait).await
        }
        dialed => dialed,
    };
    inside.dialing.set(false);
    let Dialed { sender, drive } = match dialed {
        Ok(dialed) => dialed,
        Err(failed) => {
            *inside.failed.borrow_mut() = Some(failed);
            inside.dialed.notify_waiters();
            return;
        }
    };
    let connection = Rc::new(Connection::new(sender, matches!(inside.to, To::Peer { .. })));
    inside.failed.take();
    inside.connections.borrow_mut().push(connection.clone());
    inside.dialed.notify_waiters();
    let (watched, of) = (Rc::downgrade(&connection), Rc::downgrade(&inside));
    // The connection ends when nobody can open a stream on it any more: its own task must not hold it.
    drop((connection, inside));
    let alert = drive.run(&watched).await;
    if let Some(connection) = watched.upgrade() {
        connection.closed.set(true);
        *connection.alert.borrow_mut() = alert;
        connection.greeting.notify_waiters();
    }
    if let Some(inside) = of.upgrade() {
        inside.freed.notify_waiters();
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Connection {
    fn new(sender: SendRequest<Bytes>, wire: bool) -> Self {
        Self {
            sender,
            wire,
            streams: Cell::new(0),
            peak: Cell::new(0),
            bulk: Cell::new(0),
            closed: Cell::new(false),
            credit: Credit::default(),
            greeted: Cell::new(false),
            greeting: Notify::new(),
            alert: RefCell::default(),
            used: Cell::new(Instant::now()),
        }
    }

    pub(crate) fn streams(&self) -> u32 {
        self.streams.get()
    }

    /// How long it is kept without use.
    fn idle_age(&self) -> Duration {
        if self.peak.get() > limits::LEAN_STREAMS { limits::IDLE_SWOLLEN_AGE } else { limits::IDLE_PEER_AGE }
    }

    fn has_place(&self) -> bool {
        let most = self.sender.current_max_send_streams().min(u32::MAX as usize) as u32;
        self.streams.get() < most
    }
}

impl Lease {
    fn new(connection: &Rc<Connection>, of: &Rc<Inside>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        connection.peak.set(connection.peak.get().max(connection.streams.get()));
        Self { connection: connection.clone(), of: of.clone(), bulk: Cell::new(false) }
    }

    /// Of the connection's streams.
    pub(crate) fn credit(&self) -> &Credit {
        &self.connection.credit
    }

    /// The other end is a proxy, which understands `weft-*` fields.
    pub fn is_wire(&self) -> bool {
        self.connection.wire
    }

    /// The target of a stream that carries a TCP connection.
    pub fn tcp_request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::CONNECT;
        *request.uri_mut() = self.of.authority.clone();
        request
    }

    /// Does the other end let streams be upgraded (RFC 8441 §3)? A program says so with its settings, for which this waits.
    pub async fn upgrades(&self) -> bool {
        let connection = &self.connection;
        if connection.wire {
            return true;
        }
        let greeting = connection.greeting.notified();
        if !connection.greeted.get()
            && !connection.closed.get()
            && timeout(limits::SETTINGS_WAIT, greeting).await.is_err()
        {
            // It does not speak HTTP/2.
            connection.closed.set(true);
        }
        connection.sender.is_extended_connect_protocol_enabled()
    }

    /// Opens the stream.
    pub fn open(
        &self,
        request: Request<()>,
        ended: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Failed> {
        // A clone for each: a sender remembers, and so keeps open, the last stream that had to wait for one to end, and takes no
        // other one meanwhile.
        let sent = self.connection.sender.clone().send_request(request, ended);
        sent.map_err(|error| {
            // What cannot be sent was not sent. A connection that is gone must not be picked again.
            if error.is_io() || error.is_go_away() || self.connection.closed.get() {
                self.connection.closed.set(true);
                return Failed::untouched(Reason::ConnectionTerminated, error.to_string());
            }
            Failed::untouched(Reason::ProxyInternalError, error.to_string())
        })
    }

    /// Why a stream failed: the peer's alert where it was that.
    pub fn explain(&self, failed: Failed) -> Failed {
        match &*self.connection.alert.borrow() {
            Some(alert) => Failed { answered: failed.answered, ..alert.clone() },
            None => failed,
        }
    }

    /// The stream has shown itself to be bulk.
    pub fn mark_bulk(&self) {
        if !self.bulk.replace(true) {
            self.connection.bulk.set(self.connection.bulk.get() + 1);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get() - 1);
        if self.bulk.get() {
            connection.bulk.set(connection.bulk.get() - 1);
        }
        if connection.streams.get() == 0 {
            connection.used.set(Instant::now());
        }
        self.of.freed.notify_one();
    }
}
