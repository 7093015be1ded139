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
use proxy_tls::Within;
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
    /// No proxy is there, or it is our own: in plaintext, or in TLS where a policy asks for that.
    Program(Rc<Program>),
}

/// A program that is spoken to by itself, in the version of HTTP that it understands.
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
            _ => {
                let plain = Plain::new(network, address);
                let plain = match &endpoint.tls {
                    Some(tls) => plain.over_tls(tls.clone()),
                    None => plain,
                };
                Way::Program(Program::new(plain, dialer.header_bytes))
            }
        };
        let key = session::key_of(&endpoint);
        Self { endpoint, way, edge, key }
    }

    /// A connection for a client's TCP bytes. `is_tls`: they are TLS already, which is not wrapped in TLS once more.
    pub async fn connect(&self, wait: Duration, is_tls: bool) -> Result<Upstream, Failed> {
        match &self.way {
            Way::Peer(peer) => Upstream::open(peer.lease(wait).await?),
            Way::Program(program) => {
                let stream = match is_tls {
                    true => program.plain.connect_plain(wait).await?,
                    false => program.plain.connect(wait, Within::Bytes).await?,
                };
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
