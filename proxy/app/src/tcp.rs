//! A client's TCP connection on its way to a hop, with what is counted and logged, and what a failure looks like: a reset.

use crate::{
    destination::{ATTEMPTS, Chosen},
    hop::Hop,
    logged::{self, Origin},
    routed::{Own, Routed},
    telemetry::Direction,
    worker::Worker,
};
use policy::Reason;
use proxy_balance::Outcome;
use proxy_http::{
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
}

impl<'a> Path<'a> {
    pub fn new(worker: &'a Rc<Worker>, direction: Direction, origin: Origin, routed: Routed) -> Self {
        Self { worker, direction, origin, routed, begun: Instant::now(), tried: RefCell::default() }
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
            let (carried, ended) = connection.carry(&mut client, &kept).await;
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
        let (worker, hops) = (self.worker, &self.routed.hops);
        if let Some(Own::Refuse(failed)) = self.routed.own() {
            worker.telemetry.reason(self.direction, self.routed.service.as_deref(), failed.reason);
            return Err(failed.clone());
        }
        loop {
            let tried = self.tried.borrow().clone();
            let chosen = hops.choose(worker, &tried).await.inspect_err(|failed| {
                worker.telemetry.reason(self.direction, self.routed.service.as_deref(), failed.reason);
            })?;
            let in_flight = chosen.load.start(Instant::now().into_std());
            self.tried.borrow_mut().push(chosen.hop.clone());
            match chosen.hop.connect(chosen.wait(self.routed.connect_wait())).await {
                Ok(upstream) => {
                    in_flight.finish(Instant::now().into_std(), Outcome::Answered);
                    return Ok((upstream, chosen));
                }
                Err(failed) => {
                    chosen.hop.edge.failed(failed.reason);
                    in_flight.finish(Instant::now().into_std(), unreached(&failed));
                    if !self.may_replay(&failed) {
                        return Err(failed);
                    }
                }
            }
        }
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
