//! The connections of one worker to one peer proxy: `weft/1`, client side.
//!
//! A stream of an existing connection costs no wait and no task. Bulk streams keep to themselves, so that a lost packet or
//! a full window of theirs never holds small messages.

use crate::{failed::Failed, gather::Gather, read_ahead::ReadAhead};
use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
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
}

/// One peer proxy: an address and the identity that must answer there.
pub struct Peer {
    dialer: Rc<Dialer>,
    address: SocketAddr,
    identity: SpiffeId,
    authority: Uri,
    connections: RefCell<Vec<Rc<PeerConnection>>>,
    dialing: Cell<bool>,
    dialed: Notify,
    /// How the last dialling failed, for those who waited for it.
    failed: RefCell<Option<Failed>>,
}

struct PeerConnection {
    sender: RefCell<SendRequest<Bytes>>,
    streams: Cell<u32>,
    bulk: Cell<u32>,
    closed: Cell<bool>,
    /// Why the peer ended it, where it said so. In TLS 1.3 it refuses our certificate when streams are open already.
    alert: RefCell<Option<Failed>>,
    used: Cell<Instant>,
}

/// A place on a connection, given back when dropped.
pub struct Lease {
    connection: Rc<PeerConnection>,
    bulk: Cell<bool>,
}

/// A stream that was opened.
pub struct PeerStream {
    pub response: ResponseFuture,
    pub send: h2::SendStream<Bytes>,
    pub lease: Lease,
}

impl Peer {
    pub fn new(dialer: Rc<Dialer>, address: SocketAddr, identity: SpiffeId) -> Self {
        let authority = address.to_string().parse().expect("an address and port is an authority");
        Self {
            dialer,
            address,
            identity,
            authority,
            connections: RefCell::default(),
            dialing: Cell::new(false),
            dialed: Notify::new(),
            failed: RefCell::default(),
        }
    }

    /// The target of a stream that carries a TCP connection.
    pub fn tcp_request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::CONNECT;
        *request.uri_mut() = self.authority.clone();
        request
    }

    /// A place for one more stream, on a connection that is there or on a new one. `connect` bounds the dialling.
    pub async fn lease(&self, connect: Duration) -> Result<Lease, Failed> {
        loop {
            if let Some(lease) = self.held() {
                return Ok(lease);
            }
            if self.connections.borrow().len() >= limits::CONNECTIONS_PER_PEER {
                let detail = "every connection to the peer carries as many streams as it may";
                return Err(Failed::untouched(Reason::ConnectionLimitReached, detail));
            }
            if !self.dialing.get() {
                let _turn = Dialing::new(self);
                let mut dialed = self.dial(connect).await;
                if dialed.as_ref().is_err_and(|failed| failed.reason == Reason::TlsProtocolError) {
                    // A server that speaks first may have been faster than our delayed ClientHello, and its proxy have taken
                    // us for a client without one. Then the answer was no TLS, and another attempt is answered better.
                    dialed = self.dial(connect).await;
                }
                *self.failed.borrow_mut() = dialed.as_ref().err().cloned();
                dialed?;
                continue;
            }
            self.dialed.notified().await;
            if let (None, Some(failed)) = (self.held(), &*self.failed.borrow()) {
                return Err(failed.clone());
            }
        }
    }

    /// The least loaded connection, if another one is not called for.
    fn held(&self) -> Option<Lease> {
        let mut connections = self.connections.borrow_mut();
        if connections.iter().any(|one| one.closed.get()) {
            connections.retain(|one| !one.closed.get());
        }
        let full = connections.len() >= limits::CONNECTIONS_PER_PEER;
        let free = connections.iter().filter(|one| {
            one.streams.get() < one.sender.borrow().current_max_send_streams().min(u32::MAX as usize) as u32
        });
        let best = free.min_by_key(|one| (one.bulk.get(), one.streams.get()))?;
        if best.bulk.get() > 0 && !full {
            return None;
        }
        Some(Lease::new(best))
    }

    /// Opens a stream.
    pub fn open(&self, lease: Lease, request: Request<()>, ended: bool) -> Result<PeerStream, Failed> {
        let sent = lease.connection.sender.borrow_mut().send_request(request, ended);
        match sent {
            Ok((response, send)) => Ok(PeerStream { response, send, lease }),
            Err(error) => {
                // What cannot be sent was not sent. A connection that is gone must not be picked again.
                if error.is_io() || error.is_go_away() || lease.connection.closed.get() {
                    lease.connection.closed.set(true);
                    return Err(Failed::untouched(Reason::ConnectionTerminated, error.to_string()));
                }
                Err(Failed::untouched(Reason::ProxyInternalError, error.to_string()))
            }
        }
    }

    async fn dial(&self, connect: Duration) -> Result<(), Failed> {
        let credentials = self.dialer.credentials.load_full().ok_or_else(|| {
            Failed::untouched(Reason::TlsCertificateError, "this proxy holds no certificate yet")
        })?;
        let stream = timeout(connect, self.dialer.network.connect(self.address))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|error| Failed::connecting(&error))?;
        let untouched = |error: proxy_tls::Error| Failed::untouched(error.reason(), error.to_string());
        let name = proxy_tls::server_name(&self.identity).map_err(untouched)?;
        let stream = ReadAhead::new(stream, BytesMut::new());
        let tls = tokio_rustls::TlsConnector::from(credentials.client.clone()).connect(name, stream);
        let mut tls = timeout(limits::HANDSHAKE_WAIT, tls)
            .await
            .map_err(|_| Failed::untouched(Reason::ConnectionTimeout, "the TLS handshake took too long"))?
            .map_err(|error| crate::tls_failed(&error))?;
        credentials.connected(tls.get_ref().1, &self.identity).map_err(untouched)?;
        // `Gather` bounds what is written; what it writes is to become records at once.
        tls.get_mut().1.set_buffer_limit(None);
        let gather = Gather::new(tls);
        let handshake = client_builder().handshake::<_, Bytes>(gather.clone());
        let (sender, connection) = gather
            .drive(Box::pin(handshake))
            .await
            .map_err(|error| Failed::untouched(Reason::TlsProtocolError, error.to_string()))?;
        let held = Rc::new(PeerConnection {
            sender: RefCell::new(sender),
            streams: Cell::new(0),
            bulk: Cell::new(0),
            closed: Cell::new(false),
            alert: RefCell::default(),
            used: Cell::new(Instant::now()),
        });
        let watched = Rc::downgrade(&held);
        tokio::task::spawn_local(async move {
            // Its streams hear of an error themselves.
            let _ = gather.drive(connection).await;
            if let Some(connection) = watched.upgrade() {
                connection.closed.set(true);
                *connection.alert.borrow_mut() = gather.alert();
            }
        });
        self.connections.borrow_mut().push(held);
        Ok(())
    }

    /// Lets go of connections that nobody has used for `limits::IDLE_PEER_AGE`; they close in good order.
    pub fn sweep(&self, now: Instant) {
        self.connections.borrow_mut().retain(|one| {
            !one.closed.get() && (one.streams.get() > 0 || now - one.used.get() < limits::IDLE_PEER_AGE)
        });
    }
}

fn client_builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::FRAME_BYTES)
        .max_header_list_size(limits::HEADER_LIST_BYTES as u32)
        .max_concurrent_reset_streams(1024)
        .max_local_error_reset_streams(None)
        .data_frame_budget(limits::CONNECTION_WINDOW_BYTES as usize * 4);
    builder
}

/// One dialler at a time. The others wait for it and share its fate; if it is cancelled, one of them dials.
struct Dialing<'a>(&'a Peer);

impl<'a> Dialing<'a> {
    fn new(peer: &'a Peer) -> Self {
        peer.dialing.set(true);
        // Who waits for this one must not be told of an earlier one's failure if it is cancelled.
        peer.failed.take();
        Self(peer)
    }
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.dialing.set(false);
        self.0.dialed.notify_waiters();
    }
}

impl Lease {
    fn new(connection: &Rc<PeerConnection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self { connection: connection.clone(), bulk: Cell::new(false) }
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
    }
}
