//! The next hop to one endpoint: its proxy or itself, and what is counted on the way there.

use crate::telemetry::Edge;
use policy::Endpoint;
use proxy_http::{
    connection::Connection,
    failed::Failed,
    peer::{Dialer, Peer},
    plain::Plain,
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
}

/// How the endpoint is reached.
pub enum Way {
    /// mTLS to its proxy.
    Peer(Peer),
    /// In plaintext: no proxy is there.
    Plain(Plain),
}

impl Hop {
    /// `own`: the endpoint is the proxy's own application.
    pub fn new(endpoint: Endpoint, dialer: &Rc<Dialer>, own: bool, edge: Arc<Edge>) -> Self {
        let (network, address) = (dialer.network.clone(), endpoint.address);
        let way = match &endpoint.identity {
            Some(identity) if !own => Way::Peer(Peer::new(dialer.clone(), address, identity.clone())),
            _ if own => Way::Plain(Plain::local(network, address)),
            _ => Way::Plain(Plain::new(network, address)),
        };
        Self { endpoint, way, edge }
    }

    /// A connection for a client's TCP bytes.
    pub async fn connect(&self, wait: Duration) -> Result<Upstream, Failed> {
        match &self.way {
            Way::Peer(peer) => Upstream::open(peer, peer.lease(wait).await?),
            Way::Plain(plain) => {
                let stream = plain.connect(wait).await?;
                Ok(Upstream::Plain(Connection::new(stream, bytes::BytesMut::new())))
            }
        }
    }

    pub fn sweep(&self, now: Instant) {
        match &self.way {
            Way::Peer(peer) => peer.sweep(now),
            Way::Plain(plain) => plain.sweep(now),
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
