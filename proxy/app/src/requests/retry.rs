//! Sending a request once more: at once, when nothing of it can have been executed, whatever any policy says; and when its rule asks
//! for it, after a pause, within the budget of its backend. Never after the client has been given a part of an answer.

use super::{Exchange, Stage, Worker, is_idempotent, limit, time::Deadline};
use crate::{
    destination::ATTEMPTS,
    hop::Hop,
    routed::Routed,
    telemetry::{Direction, Repetition},
};
use policy::{
    Reason, Settings, limits,
    settings::{Retry, Set},
};
use proxy_balance::Rng;
use proxy_http::{
    exchange::Verdict,
    failed::{Failed, Replay},
};
use std::{cell::Cell, rc::Rc, time::Duration};
use tokio::time::{Instant, sleep};
use tower::service_fn;

/// What a request has had of repetitions.
#[derive(Default)]
pub(super) struct Repeats {
    /// Attempts in a row of which nothing was executed.
    replays: usize,
    /// Of the endpoints that were tried, those from here on were so in this row.
    row: usize,
    /// Times that its rule had it sent once more.
    asked: Cell<u32>,
    /// It is to be sent once more, after this.
    next: Cell<Option<Duration>>,
    /// It was not, as the budget is used up.
    exhausted: Cell<bool>,
}

/// Since when a request is under way, and until when its caller waits.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) caller: Option<Instant>,
    pub(super) begun: Instant,
}

/// Sends a request, within the limits of its backend, and again, to another endpoint if there is one.
pub(super) fn repeat<S>(worker: Rc<Worker>, direction: Direction, inner: S) -> impl Stage
where
    S: Stage,
{
    service_fn(move |exchange: Box<Exchange>| {
        let (worker, mut inner) = (worker.clone(), inner.clone());
        async move {
            let _permits = match limit::permits(&exchange) {
                Ok(permits) => permits,
                Err(failed) => {
                    exchange.count_unsent(&worker, direction, &failed);
                    return Err((exchange, failed));
                }
            };
            let mut exchange = exchange;
            exchange.prepare();
            // One place from which the rest is called: each has room in the future for all that is within.
            loop {
                exchange = match inner.call(exchange).await {
                    Err((mut stopped, failed)) if stopped.may_replay(&failed) => {
                        stopped.repeats.replays += 1;
                        stopped.leave(true);
                        stopped
                    }
                    Err((stopped, failed)) if !stopped.is_to_be_repeated() => return Err((stopped, failed)),
                    Ok((ended, answered)) if !answered.withheld => return Ok((ended, answered)),
                    Ok((stopped, _)) | Err((stopped, _)) => stopped,
                };
                if let Some(pause) = exchange.repeats.next.take() {
                    exchange.repeats.replays = 0;
                    let other = exchange.routed.settings().retry.other_host.as_ref();
                    let other = other.is_none_or(|set| set.value);
                    exchange.leave(other);
                    exchange.repeats.row = exchange.tried.len();
                    // Boxed: few are repeated, and a timer would take room in every other's future.
                    Box::pin(sleep(pause)).await;
                }
            }
        }
    })
}

impl Exchange {
    /// Before the first attempt.
    fn prepare(&self) {
        let settings = self.routed.settings();
        if !settings.retry.is_asked() && settings.hedge.is_none() {
            return;
        }
        // What reached nobody is sent again whatever the rule says.
        self.client.keep(most_bytes(&settings.retry).max(limits::REPLAY_BYTES));
        if let Some(allowance) = self.routed.allowance() {
            allowance.request(self.routed.budget(), Instant::now());
        }
    }

    /// The attempt is over, and another one follows. `avoid`: it goes elsewhere, if it can.
    fn leave(&mut self, avoid: bool) {
        if let Some(chosen) = self.chosen.take() {
            self.attempts += 1;
            if avoid {
                self.tried.push(chosen.hop);
            }
        }
    }

    /// May the request be sent once more after this, whatever its rule says? (RFC 9110 §9.2.2)
    pub(super) fn may_replay(&self, failed: &Failed) -> bool {
        let Some(chosen) = &self.chosen else { return false };
        let tried = self.tried[self.repeats.row..].iter().chain([&chosen.hop]);
        let safe = match failed.replay {
            // The same endpoint again makes sense when it was only the connection that went.
            Replay::Untouched => {
                failed.reason == Reason::ConnectionTerminated || self.routed.hops.others(tried)
            }
            Replay::IfIdempotent => is_idempotent(self.client.method()),
            Replay::Never => false,
        };
        safe && !failed.answered && self.repeats.replays + 1 < ATTEMPTS
    }

    /// An attempt has failed, and is not made again as a matter of course: does its rule want it to be? From then on
    /// [`Exchange::is_to_be_repeated`].
    pub(super) fn consider(&self, worker: &Worker, failed: &Failed) {
        let settings = self.routed.settings();
        let wanted = settings.retry.is_asked()
            && !failed.answered
            && !failed.by_client
            && wants(&settings.retry, self.is_safe(failed), failed.reason)
            && is_kept(&settings.retry, self.client.kept_bytes());
        if wanted {
            let asked = Asked { caller: self.client.deadline(), begun: self.begun };
            let hop = self.chosen.as_ref().map(|chosen| &*chosen.hop);
            self.repeats.grant(worker, &self.routed, asked, hop);
        }
    }

    /// To send it once more cannot do anything twice that is not meant to be done so often.
    fn is_safe(&self, failed: &Failed) -> bool {
        failed.replay == Replay::Untouched || is_idempotent(self.client.method())
    }

    pub(super) fn is_to_be_repeated(&self) -> bool {
        self.repeats.next.get().is_some()
    }

    /// It would have been sent once more, if its backend's budget allowed that.
    pub(super) fn is_out_of_budget(&self) -> bool {
        self.repeats.exhausted.get()
    }
}

impl Repeats {
    /// Is an answer to be withheld, since the request is to be sent once more?
    pub(super) fn judge(
        &self,
        worker: &Worker,
        routed: &Routed,
        idempotent: bool,
        asked: Asked,
        hop: &Hop,
        verdict: &Verdict,
    ) -> bool {
        let retry = &routed.settings().retry;
        let wanted = match verdict.failed {
            Some(reason) => wants(retry, idempotent, reason),
            None => {
                let has = |codes: &Option<Set<Vec<u16>>>, code| {
                    codes.as_ref().is_some_and(|set| set.value.contains(&code))
                };
                has(&retry.http_codes, verdict.status)
                    || verdict.grpc_status.is_some_and(|status| has(&retry.grpc_codes, status))
            }
        };
        wanted && is_kept(retry, verdict.kept) && self.grant(worker, routed, asked, Some(hop))
    }

    /// There are attempts, time and budget left for one more.
    fn grant(&self, worker: &Worker, routed: &Routed, asked: Asked, hop: Option<&Hop>) -> bool {
        let (settings, now) = (routed.settings(), Instant::now());
        let deadline = Deadline::of_request(asked.caller, settings, asked.begun);
        let pause = pause(&settings.retry, self.asked.get(), &mut worker.rng.borrow_mut());
        let in_time = deadline.is_none_or(|deadline| now + pause < deadline.at);
        if self.asked.get() >= settings.retry.attempts() || !in_time {
            return false;
        }
        let allowed = routed.allowance().is_none_or(|allowance| allowance.withdraw(routed.budget(), now));
        let repetition = if allowed { Repetition::Repeated } else { Repetition::OutOfBudget };
        if let Some(hop) = hop {
            hop.edge.repeated(repetition);
        }
        if allowed {
            self.asked.set(self.asked.get() + 1);
            self.next.set(Some(pause));
        } else {
            self.exhausted.set(true);
        }
        allowed
    }
}

/// Bytes of a body up to which a request is sent once more.
fn most_bytes(retry: &Retry) -> usize {
    let most = limits::REPLAY_MOST_BYTES;
    let asked = |set: &Set<u64>| usize::try_from(set.value).unwrap_or(most).min(most);
    retry.body_limit.as_ref().map_or(limits::REPLAY_BYTES, asked)
}

fn is_kept(retry: &Retry, kept: Option<usize>) -> bool {
    kept.is_some_and(|bytes| bytes <= most_bytes(retry))
}

/// Does a rule want a request repeated that a proxy answered by itself, for this reason? `safe`: nothing can be done twice by that.
fn wants(retry: &Retry, safe: bool, reason: Reason) -> bool {
    let named = retry.reasons.as_ref().is_some_and(|set| set.value.contains(&reason));
    named || (safe && is_broken(reason))
}

/// The next hop was not reached, was lost, or was not heard of in time.
fn is_broken(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectionRefused
            | Reason::ConnectionTimeout
            | Reason::ConnectionTerminated
            | Reason::DestinationIpUnroutable
            | Reason::TlsProtocolError
            | Reason::TlsAlertReceived
            | Reason::HttpResponseIncomplete
            | Reason::HttpResponseTimeout
            | Reason::ConnectionReadTimeout
    )
}

/// How long to wait after so many repetitions: the least that is asked for, and up to twice as much for each, by chance, so that those
/// who failed together do not come back together.
fn pause(retry: &Retry, before: u32, rng: &mut Rng) -> Duration {
    let (base, most) = retry.backoff();
    let ceiling = base.saturating_mul(2u32.saturating_pow(before.saturating_add(1))).min(most);
    base + (ceiling - base).mul_f64(rng.fraction())
}

/// Whether a rule may have a request sent once more, so that an answer has to be judged.
pub(super) fn judges(settings: &Settings) -> bool {
    settings.retry.is_asked() && settings.retry.attempts() > 0
}
