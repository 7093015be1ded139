//! One attempt: a place on a connection to the hop that was chosen, and the exchange over it.

use super::{
    Client, Ended, Exchange, Stopped, Worker, edit, hedge, is_idempotent, limit,
    retry::{Asked, judges},
    time::{Deadline, over, within},
};
use crate::{destination::Chosen, hop::Way, routed::Routed};
use policy::Protocol;
use proxy_http::{
    bounds::Bounds,
    exchange::{Answered, Progress, Verdict, exchange as carry},
    failed::Failed,
    idle_age::Repeat,
    next_hop::NextHop,
    plain::{Plain, Taken},
    streams::Lease,
};
use std::{pin::pin, rc::Rc, time::Duration};

/// The last stage: one attempt, to the hop that was chosen.
pub(super) async fn forward(worker: Rc<Worker>, mut exchange: Box<Exchange>) -> Result<Ended, Stopped> {
    let ended = match hedge::wanted(&exchange) {
        // Boxed: few requests are hedged.
        Some(hedge) => Box::pin(hedge::attempt(&worker, &mut exchange, hedge)).await,
        None => attempt(&worker, &mut exchange).await,
    };
    match ended {
        Ok(answered) => Ok((exchange, answered)),
        Err(failed) => {
            if !exchange.may_replay(&failed) {
                exchange.consider(&worker, &failed);
            }
            Err((exchange, failed))
        }
    }
}

async fn attempt(worker: &Worker, exchange: &mut Exchange) -> Result<Answered, Failed> {
    let Exchange { client, routed, chosen, repeats, begun, attempts, .. } = exchange;
    let chosen = chosen.as_ref().expect("the stage `balance` stands before");
    let settings = routed.settings();
    let asked = Asked { caller: client.deadline(), begun: *begun };
    let deadline = Deadline::of_attempt(asked.caller, settings, *begun);
    let mut held = hold(&Wanted::of(client, routed, deadline, *attempts > 0), routed, chosen).await?;
    chosen.connected();
    client.count_down(deadline.map(|deadline| deadline.at));
    let edits = edit::of_response(routed, client, Some(&chosen.hop));
    let idempotent = is_idempotent(client.method());
    let judge = |verdict: &Verdict| repeats.judge(worker, routed, idempotent, asked, &chosen.hop, verdict);
    let progress = Progress {
        ending: worker.draining(),
        answered: &|| chosen.answered(),
        edit: edits.as_deref(),
        bounds: Bounds {
            deadline: deadline.map(|deadline| deadline.at),
            idle: settings.timeouts.stream_idle(),
            failed: &|hit| over(hit, deadline, asked.begun, settings),
        },
        tunnel_deadline: Deadline::of_tunnel(settings, *begun).map(|deadline| deadline.at),
        judge: judges(settings).then_some(&judge),
    };
    let answered = carry(client, held.next_hop(worker), &progress).await;
    held.give_back(&answered);
    answered
}

/// What carries an attempt to its hop.
pub(super) enum Held<'a> {
    Stream(Lease),
    Plain(&'a Plain, Taken),
}

impl Held<'_> {
    pub(super) fn next_hop(&mut self, worker: &Worker) -> NextHop<'_> {
        match self {
            Self::Stream(lease) => NextHop::Stream(lease),
            Self::Plain(_, taken) => NextHop::Plain {
                connection: &mut taken.connection,
                reused: taken.reused,
                header_bytes: worker.dialer.header_bytes,
            },
        }
    }

    /// After an exchange over it.
    pub(super) fn give_back(self, answered: &Result<Answered, Failed>) {
        if let Self::Plain(plain, taken) = self {
            match answered {
                Ok(answered) if answered.hop_reusable => plain.give_back(taken.connection),
                Ok(_) => {}
                Err(failed) => plain.lost(&taken, failed),
            }
        }
    }
}

/// What a request wants of a connection.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    http2: bool,
    websocket: bool,
    repeat: Repeat,
    /// A new one: another one has died under the request before.
    fresh: bool,
    deadline: Option<Deadline>,
}

impl Wanted {
    pub(super) fn of(client: &Client, routed: &Routed, deadline: Option<Deadline>, fresh: bool) -> Self {
        let repeatable = !client.has_body() && is_idempotent(client.method());
        Self {
            http2: speaks_http2(routed, client),
            websocket: client.is_websocket(),
            repeat: if repeatable { Repeat::Possible } else { Repeat::Impossible },
            fresh,
            deadline,
        }
    }
}

/// A place on a connection to the hop, in the version of HTTP that is spoken there.
pub(super) async fn hold<'a>(
    wanted: &Wanted,
    routed: &Routed,
    chosen: &'a Chosen,
) -> Result<Held<'a>, Failed> {
    // Pinned here, once: each function that took it by value would have it twice.
    let place = pin!(place(wanted, chosen, chosen.wait(routed.connect_wait())));
    let pending = pin!(limit::pending(routed, place));
    within(wanted.deadline, routed.settings(), pending).await
}

async fn place<'a>(wanted: &Wanted, chosen: &'a Chosen, wait: Duration) -> Result<Held<'a>, Failed> {
    let (streams, program) = match &chosen.hop.way {
        Way::Peer(streams) => (Some(streams), None),
        Way::Program(program) => (wanted.http2.then_some(&program.streams), Some(program)),
    };
    if let Some(streams) = streams {
        let lease = streams.lease(wait).await?;
        // Many programs take a WebSocket over HTTP/1.1 alone (RFC 8441 §3).
        if program.is_none() || !wanted.websocket || lease.upgrades().await {
            return Ok(Held::Stream(lease));
        }
    }
    let plain = &program.expect("a peer has streams").plain;
    let taken = if wanted.fresh { plain.fresh(wait).await } else { plain.take(wait, wanted.repeat).await };
    Ok(Held::Plain(plain, taken?))
}

/// The client does so, or the owner of the port says that it does. A WebSocket may meet a server that is of HTTP/1.1 alone.
fn speaks_http2(routed: &Routed, client: &Client) -> bool {
    match routed.protocol {
        Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Http1 if client.is_websocket() => false,
        _ => client.version() == http::Version::HTTP_2,
    }
}
