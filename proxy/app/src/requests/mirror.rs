//! Copies of requests for another backend to see (RequestMirror). Nobody waits for one: it is a task of its own, and whatever
//! becomes of it, its original does not hear of it.

use super::attempt::Held;
use crate::{
    destination::{Chosen, Hops},
    hop::Way,
    routed::Routed,
    tcp,
    worker::Worker,
};
use policy::{BackendRef, Mirror, Protocol, limits};
use proxy_balance::Outcome;
use proxy_http::{
    client::Client,
    copy::Copy,
    exchange::{Copied, copied},
    failed::{Failed, Replay},
    idle_age::Repeat,
};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};
use tokio::time::{Instant, sleep};

/// Sends a copy of the request as it is by now, if it is of the share that is to be seen. A tunnel has no copy.
pub(super) fn begin(worker: &Rc<Worker>, mirror: &Mirror, routed: &Routed, client: &Client) {
    let (all, share) = (mirror.share.numerator >= mirror.share.denominator, mirror.share);
    if client.opens_tunnel() || !(all || share.takes(worker.rng.borrow_mut().bits())) {
        return;
    }
    let (BackendRef::Service(service), Some(dialled)) = (&mirror.backend, routed.dialled()) else {
        return worker.telemetry.mirrored("unresolved");
    };
    if worker.copies.get() >= limits::MIRRORS {
        return worker.telemetry.mirrored("limit");
    }
    worker.copies.set(worker.copies.get() + 1);
    let hops = Hops::balanced(worker, service, dialled);
    let http2 = client.version() == http::Version::HTTP_2
        || matches!(routed.protocol, Protocol::Http2 | Protocol::Grpc);
    let (copy, worker) = (client.copy(), worker.clone());
    tokio::task::spawn_local(async move {
        let outcome = send(&worker, &hops, copy, http2).await;
        worker.telemetry.mirrored(outcome);
        worker.copies.set(worker.copies.get() - 1);
    });
}

/// Sends it, in the time that it has. What became of it, as a word.
async fn send(worker: &Worker, hops: &Hops, copy: Copy, http2: bool) -> &'static str {
    let original = copy.original();
    let sent = pin!(attempt(worker, hops, copy, http2));
    let late = pin!(async {
        original.over().await;
        sleep(limits::MIRROR_WAIT).await;
    });
    match either(sent, late).await {
        Some(Ok(())) => "answered",
        Some(Err(_)) if original.is_ahead() => "behind",
        Some(Err(_)) => "failed",
        None => "slow",
    }
}

/// One attempt: a copy is not worth another one. It counts on the edge to its own backend.
async fn attempt(worker: &Worker, hops: &Hops, mut copy: Copy, http2: bool) -> Result<(), Failed> {
    let chosen = hops.choose(worker, &[], None).await?;
    let (begin, edge) = (Instant::now(), chosen.hop.edge.clone());
    chosen.start(begin);
    edge.request_started();
    let mut cut = CutOff { worker, chosen: &chosen, begin, ended: false };
    let ended = carry(worker, &chosen, &mut copy, http2).await;
    cut.ended = true;
    let now = Instant::now();
    match ended {
        Ok(Copied { status, request_bytes, response_bytes, .. }) => {
            edge.request_finished(status, now - begin);
            edge.sent(request_bytes);
            edge.received(response_bytes);
            chosen.finish(worker, now, Outcome::Answered, None);
            Ok(())
        }
        Err(failed) => {
            edge.failed(failed.reason);
            edge.request_finished(0, now - begin);
            let unreached = failed.replay == Replay::Untouched;
            let outcome = if unreached { tcp::unreached(&failed) } else { Outcome::Failed };
            chosen.finish(worker, now, outcome, None);
            Err(failed)
        }
    }
}

/// Counts an attempt that nobody waits for any longer as one without an answer.
struct CutOff<'a> {
    worker: &'a Worker,
    chosen: &'a Chosen,
    begin: Instant,
    ended: bool,
}

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let now = Instant::now();
            self.chosen.hop.edge.request_finished(0, now - self.begin);
            self.chosen.finish(self.worker, now, Outcome::Failed, None);
        }
    }
}

async fn carry(worker: &Worker, chosen: &Chosen, copy: &mut Copy, http2: bool) -> Result<Copied, Failed> {
    let wait = chosen.wait(limits::LOCAL_CONNECT_WAIT);
    let mut held = match &chosen.hop.way {
        Way::Peer(streams) => Held::Stream(streams.lease(wait).await?),
        Way::Program(program) if http2 => Held::Stream(program.streams.lease(wait).await?),
        Way::Program(program) => {
            Held::Plain(&program.plain, program.plain.take(wait, Repeat::Impossible).await?)
        }
    };
    chosen.connected();
    let ended = copied(copy, held.next_hop(worker)).await;
    if let Held::Plain(plain, taken) = held {
        match &ended {
            Ok(Copied { hop_reusable: true, .. }) => plain.give_back(taken.connection),
            Ok(_) => {}
            Err(failed) => plain.lost(&taken, failed),
        }
    }
    ended
}

/// The first that ends; `None`: the second.
async fn either<T>(
    mut first: Pin<&mut impl Future<Output = T>>,
    mut second: Pin<&mut impl Future<Output = ()>>,
) -> Option<T> {
    poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => second.as_mut().poll(cx).map(|()| None),
    })
    .await
}
