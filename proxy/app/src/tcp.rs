//! A client's TCP connection on its way to a hop, with what is counted and what a failure looks like: a reset.

use crate::{
    destination::{ATTEMPTS, Chosen, Hops},
    telemetry::Direction,
    worker::Worker,
};
use policy::Reason;
use proxy_balance::Outcome;
use proxy_http::{
    connection::Connection,
    failed::{Failed, Replay},
    tcp::Upstream,
};
use std::{rc::Rc, time::Duration};
use tokio::time::Instant;

/// Whose connection it is, and where it may go.
pub struct Path<'a> {
    pub worker: &'a Rc<Worker>,
    pub direction: Direction,
    pub hops: Hops,
    pub connect_timeout: Duration,
    pub service: Option<Rc<str>>,
}

impl Path<'_> {
    /// Carries the connection to its end, over the upstream connection that detection has made or over a new one.
    pub async fn carry(self, mut client: Connection, upstream: Option<(Upstream, Chosen)>) {
        let connected = match upstream {
            Some(connected) => Ok(connected),
            None => connect(self.worker, &self.hops, self.connect_timeout).await,
        };
        let (upstream, chosen) = match connected {
            Ok(connected) => connected,
            Err(failed) => return refuse(self.worker, self.direction, self.service, client, &failed),
        };
        let edge = chosen.hop.edge.clone();
        let _in_flight = chosen.load.start(Instant::now().into_std());
        edge.connection_opened();
        match upstream.carry(&mut client).await {
            Ok(carried) => {
                edge.sent(carried.request_bytes);
                edge.received(carried.response_bytes);
            }
            Err(failed) => {
                edge.failed(failed.reason);
                client.stream().reset_on_drop();
            }
        }
        edge.connection_closed();
    }
}

/// Connects to a hop, and to another one when the first is not to be reached.
pub async fn connect(worker: &Worker, hops: &Hops, wait: Duration) -> Result<(Upstream, Chosen), Failed> {
    let mut tried = Vec::new();
    loop {
        let chosen = hops.choose(worker, &tried).await?;
        let in_flight = chosen.load.start(Instant::now().into_std());
        match chosen.hop.connect(chosen.wait(wait)).await {
            Ok(upstream) => {
                in_flight.finish(Instant::now().into_std(), Outcome::Answered);
                return Ok((upstream, chosen));
            }
            Err(failed) => {
                chosen.hop.edge.failed(failed.reason);
                in_flight.finish(Instant::now().into_std(), unreached(&failed));
                tried.push(chosen.hop);
                let allowed = failed.replay == Replay::Untouched && tried.len() < ATTEMPTS;
                if !allowed || !hops.others(tried.iter()) {
                    return Err(failed);
                }
            }
        }
    }
}

/// What an attempt that reached nobody says of the endpoint: nothing, where it was for want of a resource of our own.
pub fn unreached(failed: &Failed) -> Outcome {
    match failed.reason {
        Reason::ConnectionLimitReached => Outcome::Failed,
        _ => Outcome::ConnectFailed,
    }
}

/// A TCP client can be told nothing but that it failed.
pub fn refuse(
    worker: &Worker,
    direction: Direction,
    service: Option<Rc<str>>,
    client: Connection,
    failed: &Failed,
) {
    if failed.reason == Reason::DestinationUnavailable {
        worker.telemetry.reason(direction, service.as_deref(), failed.reason);
    }
    // That a client has gone is no news.
    if !failed.answered {
        tracing::info!(direction = direction.as_str(), service = service.as_deref(), reason = %failed.reason, "{}", failed.detail);
    }
    client.stream().reset_on_drop();
}
