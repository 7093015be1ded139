//! The next hop to one endpoint: its proxy or itself, and what is counted on the way there.

use crate::{session, telemetry::Edge};
use policy::Endpoint;
use proxy_http::{
    connection::Connection,
    failed::Failed,
    plain::Plain,
    streams::{Dialer, Streams},
    tcp::Upstream,
};
use std::{
    hash::{Hash, Hasher},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

pub struct Hop {
    pub endpoint: Endpoint,
    pub way: Way,
    pub edge: Arc<Edge>,
    /// Its name in sessions.
    pub key: u64,
}

/// How the endpoint is reached.
pub enum Way {
    /// mTLS to its proxy.
    Peer(Streams),
    /// In plaintext: no proxy is there, or it is our own.
    Program(Rc<Program>),
}

/// A program that is spoken to in plaintext, in the version of HTTP that it understands.
pub struct Program {
    pub plain: Rc<Plain>,
    pub streams: Streams,
}

impl Program {
    pub fn new(plain: Plain, header_bytes: usize) -> Rc<Self> {
        let plain = Rc::new(plain);
        Rc::new(Self { streams: Streams::program(plain.clone(), header_bytes), plain })
    }
}

impl Hop {
    /// `own`: the endpoint is the proxy's own application.
    pub fn new(endpoint: Endpoint, dialer: &Rc<Dialer>, own: bool, edge: Arc<Edge>) -> Self {
        let (network, address) = (dialer.network.clone(), endpoint.address);
        let way = match &endpoint.identity {
            Some(identity) if !own => Way::Peer(Streams::peer(dialer.clone(), address, identity.clone())),
            _ if own => Way::Program(Program::new(Plain::local(network, address), dialer.header_bytes)),
            _ => Way::Program(Program::new(Plain::new(network, address), dialer.header_bytes)),
        };
        let key = session::key_of(&endpoint);
        Self { endpoint, way, edge, key }
    }

    /// A connection for a client's TCP bytes.
    pub async fn connect(&self, wait: Duration) -> Result<Upstream, Failed> {
        match &self.way {
            Way::Peer(peer) => Upstream::open(peer.lease(wait).await?),
            Way::Program(program) => {
                let stream = program.plain.connect(wait).await?;
                Ok(Upstream::Plain(Connection::new(stream, bytes::BytesMut::new())))
            }
        }
    }

    pub fn sweep(&self, now: Instant) {
        match &self.way {
            Way::Peer(peer) => peer.sweep(now),
            Way::Program(program) => {
                program.plain.sweep(now);
                program.streams.sweep(now);
            }
        }
    }
}

/// Hops are told apart by their endpoint: address, identity and workload.
impl PartialEq for Hop {
    fn eq(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint
    }
}

impl Eq for Hop {}

impl Hash for Hop {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.endpoint.hash(state);
    }
}
