//! A client's TCP connection on its way to a hop, with what is counted and logged, and what a failure looks like: a reset.

use crate::{
    destination::{ATTEMPTS, Chosen},
    hop::Hop,
    logged::{self, Origin},
    requests::{Deadline, silent},
    routed::{Own, Routed},
    telemetry::{Direction, Limited, Permit},
    worker::Worker,
};
use policy::{Protocol, Reason};
use proxy_balance::Outcome;
use proxy_http::{
    bounds::{Bounds, Over},
    connection::Connection,
    failed::{Failed, Replay},
    kept::Kept,
    tcp::{Carried, Upstream},
};
use proxy_transport::Stream;
use std::{cell::RefCell, rc::Rc};
use tokio::time::Instant;

/// Whose connection it is, and where it may go.
pub struct Path<'a> {
    pub worker: &'a Rc<Worker>,
    direction: Direction,
    pub origin: Origin,
    routed: Routed,
    begun: Instant,
    /// The hops that it was sent to; the last one is where it went.
    tried: RefCell<Vec<Rc<Hop>>>,
    /// Its part of the limit on connections, from the first attempt on.
    permit: RefCell<Option<Permit>>,
    /// Its bytes are TLS already.
    is_tls: bool,
}

impl<'a> Path<'a> {
    pub fn new(worker: &'a Rc<Worker>, direction: Direction, origin: Origin, routed: Routed) -> Self {
        let (begun, tried, permit) = (Instant::now(), RefCell::default(), RefCell::default());
        let is_tls = routed.protocol == Protocol::Tls;
        Self { worker, direction, origin, routed, begun, tried, permit, is_tls }
    }

    /// The same connection, whose client has begun a TLS handshake.
    pub fn tls(self) -> Self {
        Self { is_tls: true, ..self }
    }

    /// TLS is routed by the name that its client asks for.
    pub fn is_named(&self) -> bool {
        self.routed.is_named()
    }

    /// The same connection, of which more is known by now.
    pub fn routed(self, routed: Routed) -> Self {
        Self { routed, tried: RefCell::default(), ..self }
    }

    /// Carries the connection to its end, over the upstream connection that detection has made or over a new one.
    pub async fn carry(self, mut client: Connection, upstream: Option<(Upstream, Chosen)>) {
        let kept = Kept::default();
        let mut upstream = upstream;
        let settings = self.routed.settings();
        let deadline = Deadline::of_tunnel(settings, self.begun);
        let bounds = Bounds {
            deadline: deadline.map(|deadline| deadline.at),
            idle: settings.timeouts.idle(),
            failed: &|over| match (over, deadline) {
                (Over::Deadline, Some(deadline)) => deadline.passed(settings),
                _ => silent("timeouts.idle", &settings.timeouts.idle),
            },
        };
        loop {
            let connected = match upstream.take() {
                Some(connected) => Ok(connected),
                None => self.connect().await,
            };
            let (connection, chosen) = match connected {
                Ok(connected) => connected,
                Err(failed) => return self.refuse(client, &failed),
            };
            let edge = chosen.hop.edge.clone();
            let in_flight = chosen.load.start(Instant::now().into_std());
            edge.connection_opened();
            let (carried, ended) = connection.carry(&mut client, &kept, bounds).await;
            edge.sent(carried.from_client);
            edge.received(carried.to_client);
            edge.connection_closed();
            let failed = ended.err();
            if let Some(failed) = &failed {
                edge.failed(failed.reason);
                if kept.is_whole() && self.may_replay(failed) {
                    in_flight.finish(Instant::now().into_std(), unreached(failed));
                    continue;
                }
                client.stream().reset_on_drop();
            }
            return self.log(carried, failed.as_ref());
        }
    }

    /// Connects to a hop, and to another one when the first is not to be reached.
    pub async fn connect(&self) -> Result<(Upstream, Chosen), Failed> {
        let worker = self.worker;
        let count = |failed: &Failed| {
            worker.telemetry.reason(self.direction, self.routed.service.as_deref(), failed.reason);
        };
        if let Some(Own::Refuse(failed)) = self.routed.own() {
            count(failed);
            return Err(failed.clone());
        }
        self.limit().inspect_err(count)?;
        loop {
            let tried = self.tried.borrow().clone();
            let chosen = self.routed.choose(worker, &tried).await.inspect_err(count)?;
            chosen.start(Instant::now());
            self.tried.borrow_mut().push(chosen.hop.clone());
            match chosen.hop.connect(chosen.wait(self.routed.connect_wait()), self.is_tls).await {
                Ok(upstream) => {
                    chosen.finish(worker, Instant::now(), Outcome::Answered, Some(true));
                    return Ok((upstream, chosen));
                }
                Err(failed) => {
                    chosen.hop.edge.failed(failed.reason);
                    let ours = failed.reason == Reason::ConnectionLimitReached;
                    chosen.finish(worker, Instant::now(), unreached(&failed), (!ours).then_some(false));
                    if !self.may_replay(&failed) {
                        return Err(failed);
                    }
                }
            }
        }
    }

    /// Takes its part of the limit on connections.
    fn limit(&self) -> Result<(), Failed> {
        let (Some(allowance), Some(backend)) = (self.routed.allowance(), self.routed.backend()) else {
            return Ok(());
        };
        if self.permit.borrow().is_none() {
            let permit = allowance.take(Limited::Connections, backend.limits.max_connections.as_ref())?;
            *self.permit.borrow_mut() = permit;
        }
        Ok(())
    }

    /// Nothing of the connection has reached anybody, and there is somebody else.
    fn may_replay(&self, failed: &Failed) -> bool {
        let tried = self.tried.borrow();
        failed.replay == Replay::Untouched && tried.len() < ATTEMPTS && self.routed.hops.others(tried.iter())
    }

    /// A TCP client can be told nothing but that it failed.
    pub fn refuse(self, client: Connection, failed: &Failed) {
        // A client that has gone was not refused by anybody.
        let refused = (!failed.answered).then_some(failed);
        if let Some(failed) = refused {
            tracing::info!(direction = self.direction.as_str(), service = self.routed.service.as_deref(), reason = %failed.reason, "{}", failed.detail);
        }
        client.stream().reset_on_drop();
        self.log(Carried::default(), refused);
    }

    fn log(&self, carried: Carried, failed: Option<&Failed>) {
        let tried = self.tried.borrow();
        let line = logged::Connection {
            origin: &self.origin,
            service: self.routed.service.as_deref(),
            hop: tried.last().map(|hop| &**hop),
            attempts: tried.len(),
            elapsed: self.begun.elapsed(),
            carried,
            failed,
        };
        line.log(self.worker, self.direction);
    }
}

/// What an attempt that reached nobody says of the endpoint: nothing, where it was for want of a resource of our own.
pub fn unreached(failed: &Failed) -> Outcome {
    match failed.reason {
        Reason::ConnectionLimitReached => Outcome::Failed,
        _ => Outcome::ConnectFailed,
    }
}

/// Resets a connection that is not to be served at all, which is counted already.
pub fn turn_away(
    worker: &Worker,
    direction: Direction,
    client: Stream,
    reason: Reason,
    detail: &'static str,
) {
    // Without an original destination there is nothing to say of it.
    if let Ok(destination) = client.original_destination() {
        let (origin, failed) = (Origin::new(worker, destination, &client), Failed::new(reason, detail));
        logged::Connection::refused(&origin, None, &failed).log(worker, direction);
    }
    client.reset_on_drop();
}
