//! The facts of an access log line that are known here: where something came from, and who took part in it. They are gathered
//! only when the line is wanted.

use crate::{
    hop::{Hop, Way},
    telemetry::{
        Direction,
        access::{Entry, Traffic, Verdict},
    },
    worker::Worker,
};
use policy::SpiffeId;
use proxy_http::{failed::Failed, tcp::Carried};
use proxy_transport::Stream;
use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

/// Where a connection came from and where it wanted to go.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The address that the client dialled.
    pub destination: SocketAddr,
    /// The other end of the connection: asked early, since of a connection that was reset it is not known any more, and not at
    /// all where nothing is logged.
    pub client: Option<SocketAddr>,
    /// Who a peer proxy showed to be.
    pub identity: Option<SpiffeId>,
}

impl Origin {
    pub fn new(worker: &Worker, destination: SocketAddr, client: &Stream) -> Self {
        let client = worker.telemetry.access().is_on().then(|| client.peer_address().ok()).flatten();
        Self { destination, client, identity: None }
    }
}

/// What came from there, and the hop that it was sent to if it came so far.
pub struct Parties<'a> {
    direction: Direction,
    origin: &'a Origin,
    hop: Option<&'a Hop>,
    workload: String,
    client: String,
    server: String,
    tls: &'static str,
}

impl<'a> Parties<'a> {
    pub fn of(worker: &Worker, direction: Direction, origin: &'a Origin, hop: Option<&'a Hop>) -> Self {
        let text = |identity: Option<&SpiffeId>| identity.map(ToString::to_string).unwrap_or_default();
        let credentials = worker.credentials();
        let own = credentials.as_ref().map(|held| held.certificate().identity());
        let outward = hop.filter(|hop| matches!(hop.way, Way::Peer(_)));
        let (client, server, meshed) = match direction {
            Direction::Outbound => {
                (own, outward.and_then(|hop| hop.endpoint.identity.as_ref()), outward.is_some())
            }
            Direction::Inbound => (origin.identity.as_ref(), own, origin.identity.is_some()),
        };
        let workload = hop.and_then(|hop| hop.endpoint.workload.as_ref());
        Self {
            direction,
            origin,
            hop,
            workload: workload.map(ToString::to_string).unwrap_or_default(),
            client: text(client),
            server: text(server),
            tls: match hop {
                _ if meshed => "1.3",
                Some(hop) if hop.endpoint.tls.is_some() => "backend",
                _ => "none",
            },
        }
    }

    /// A line that ends now, after `elapsed`; what is not known here is to be added.
    pub fn entry(&self, elapsed: Duration) -> Entry<'_> {
        Entry {
            direction: self.direction,
            traffic: Traffic::Connection,
            ended: SystemTime::now(),
            elapsed,
            first_byte: None,
            client: self.origin.client,
            destination: Some(self.origin.destination),
            next_hop: self.hop.map(|hop| hop.endpoint.address),
            service: "",
            workload: &self.workload,
            client_identity: &self.client,
            server_identity: &self.server,
            tls: self.tls,
            attempts: 0,
            out_of_budget: false,
            from_client: 0,
            to_client: 0,
            failure: None,
        }
    }
}

/// A connection of bytes that has ended, or one that was refused.
pub struct Connection<'a> {
    pub origin: &'a Origin,
    pub service: Option<&'a str>,
    /// Where it was sent, and how many hops were tried for it.
    pub hop: Option<&'a Hop>,
    pub attempts: usize,
    pub elapsed: Duration,
    pub carried: Carried,
    pub failed: Option<&'a Failed>,
}

impl<'a> Connection<'a> {
    /// One that nobody was asked to take.
    pub fn refused(origin: &'a Origin, service: Option<&'a str>, failed: &'a Failed) -> Self {
        Self {
            origin,
            service,
            hop: None,
            attempts: 0,
            elapsed: Duration::ZERO,
            carried: Carried::default(),
            failed: Some(failed),
        }
    }

    /// Writes its line, if one is wanted.
    pub fn log(&self, worker: &Worker, direction: Direction) {
        let access = worker.telemetry.access();
        let reason = self.failed.map(|failed| failed.reason);
        if !access.wants(Verdict { reason, ..Verdict::default() }) {
            return;
        }
        access.write(&Entry {
            service: self.service.unwrap_or_default(),
            attempts: self.attempts,
            from_client: self.carried.from_client,
            to_client: self.carried.to_client,
            failure: self.failed.map(|failed| (failed.reason, &*failed.detail)),
            ..Parties::of(worker, direction, self.origin, self.hop).entry(self.elapsed)
        });
    }
}
