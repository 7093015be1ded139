//! Hedging: while the first endpoint does not answer, others are asked too. Only of requests that may be executed twice and have no
//! body; each further one costs of the budget of repetitions.

use super::{
    Exchange, Worker,
    attempt::{Held, Wanted, hold},
    edit, is_idempotent,
    retry::{Asked, judges},
    time::{Deadline, over},
};
use crate::{destination::Chosen, hop::Hop, routed::Routed, telemetry::Repetition};
use policy::{Reason, limits, settings::Hedge};
use proxy_balance::Outcome;
use proxy_http::{
    bounds::Bounds,
    exchange::{Answered, Progress, Racer, Verdict, race},
    failed::Failed,
    next_hop::NextHop,
};
use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
};
use tokio::time::Instant;

/// The hedge of a request, if its rule wants one and it may have one.
pub(super) fn wanted(exchange: &Exchange) -> Option<Hedge> {
    let Exchange { client, routed, .. } = exchange;
    let hedge = routed.settings().hedge.as_ref()?;
    // A session has one endpoint.
    let session = routed.backend().is_some_and(|backend| backend.session.is_some());
    let may = !session && !client.has_body() && !client.opens_tunnel() && is_idempotent(client.method());
    may.then(|| hedge.value.clone())
}

/// One attempt, at several endpoints if the first is slow. The one that has answered, or failed last, is the one that was chosen.
pub(super) async fn attempt(
    worker: &Worker,
    exchange: &mut Exchange,
    hedge: Hedge,
) -> Result<Answered, Failed> {
    let Exchange { client, routed, chosen, tried, repeats, begun, attempts, .. } = exchange;
    let first = chosen.as_ref().expect("the stage `balance` stands before");
    let routed = &*routed;
    let settings = routed.settings();
    let called = Asked { caller: client.deadline(), begun: *begun };
    let deadline = Deadline::of_attempt(called.caller, settings, *begun);
    let wanted = Wanted::of(client, routed, deadline, *attempts > 0);
    let mut first_held = hold(&wanted, routed, first).await?;
    first.connected();
    client.count_down(deadline.map(|deadline| deadline.at));
    let edits = edit::of_response(routed, client, None);
    // Who runs besides the first, and over what.
    let most = hedge.max.min(limits::HEDGES);
    let others: Vec<OnceCell<Chosen>> = (0..most).map(|_| OnceCell::new()).collect();
    let mut held: Vec<Option<Held<'_>>> = (0..most).map(|_| None).collect();
    let running = |at: usize| match at.checked_sub(1) {
        None => first,
        Some(other) => others[other].get().expect("who has answered was chosen"),
    };
    let asked = RefCell::new(tried.iter().chain([&first.hop]).cloned().collect::<Vec<_>>());
    let winner = Cell::new(0);
    let judge =
        |verdict: &Verdict| repeats.judge(worker, routed, true, called, &running(winner.get()).hop, verdict);
    let progress = Progress {
        ending: worker.draining(),
        answered: &|| running(winner.get()).answered(),
        edit: edits.as_deref(),
        bounds: Bounds {
            deadline: deadline.map(|deadline| deadline.at),
            idle: settings.timeouts.stream_idle(),
            failed: &|hit| over(hit, deadline, called.begun, settings),
        },
        tunnel_deadline: None,
        judge: judges(settings).then_some(&judge),
    };
    let ended = {
        let mut free = others.iter().zip(held.iter_mut());
        let (asked, wanted) = (&asked, &wanted);
        let another = || {
            if !routed.hops.others(asked.borrow().iter()) {
                return None;
            }
            let (place, held) = free.next()?;
            if !is_affordable(routed) {
                first.hop.edge.repeated(Repetition::OutOfBudget);
                return None;
            }
            Some(Box::pin(enter(worker, routed, wanted, asked, place, held)) as Racer<'_>)
        };
        let (ended, at) =
            race(client, first_held.next_hop(worker), hedge.delay, another, &winner, &progress).await;
        winner.set(at);
        ended
    };
    let won = match winner.get() {
        0 => Some(first_held),
        at => held.swap_remove(at - 1),
    };
    if let Some(won) = won {
        won.give_back(&ended);
    }
    drop(held);
    drop(edits);
    *attempts += others.iter().filter(|other| other.get().is_some()).count();
    let mut started: Vec<Option<Chosen>> = others.into_iter().map(OnceCell::into_inner).collect();
    if let Some(at) = winner.get().checked_sub(1)
        && let Some(won) = started.get_mut(at).and_then(Option::take)
    {
        started.push(chosen.replace(won));
    }
    for lost in started.into_iter().flatten() {
        lose(worker, lost, *begun, tried);
    }
    ended
}

/// Does the budget of repetitions allow one more? If so, it has been paid.
fn is_affordable(routed: &Routed) -> bool {
    routed.allowance().is_none_or(|allowance| allowance.withdraw(routed.budget(), Instant::now()))
}

/// One more endpoint, which nobody has `asked`, and a connection to it.
async fn enter<'c: 'h, 'h>(
    worker: &'h Worker,
    routed: &Routed,
    wanted: &Wanted,
    asked: &RefCell<Vec<Rc<Hop>>>,
    place: &'c OnceCell<Chosen>,
    held: &'h mut Option<Held<'c>>,
) -> Result<NextHop<'h>, Failed> {
    let known = asked.borrow().clone();
    let chosen = routed.choose(worker, &known).await?;
    if known.contains(&chosen.hop) {
        return Err(Failed::untouched(Reason::DestinationUnavailable, "no other endpoint is left"));
    }
    asked.borrow_mut().push(chosen.hop.clone());
    chosen.start(Instant::now());
    chosen.hop.edge.request_started();
    chosen.hop.edge.repeated(Repetition::Hedged);
    let chosen = place.get_or_init(|| chosen);
    let held = held.insert(hold(wanted, routed, chosen).await?);
    chosen.connected();
    Ok(held.next_hop(worker))
}

/// Who was too slow: it was asked for nothing, and its time counts.
fn lose(worker: &Worker, lost: Chosen, begun: Instant, tried: &mut Vec<Rc<Hop>>) {
    let now = Instant::now();
    lost.hop.edge.request_finished(0, now - begun);
    lost.finish(worker, now, Outcome::Failed, None);
    tried.push(lost.hop);
}
