//! Faults on purpose: a share of a rule's requests is held up, or answered with a failure that nobody has met.

use super::{Client, Exchange, Stage, Worker, time};
use crate::telemetry::Direction;
use policy::{
    Reason,
    settings::{Abort, Fault, Set},
};
use proxy_http::failed::{Failed, Told};
use std::{rc::Rc, time::Duration};
use tokio::time::sleep;
use tower::service_fn;

/// What happens to one request.
struct Drawn {
    delay: Option<Duration>,
    abort: Option<Failed>,
}

pub(super) fn inject<S>(worker: Rc<Worker>, direction: Direction, inner: S) -> impl Stage
where
    S: Stage,
{
    service_fn(move |exchange: Box<Exchange>| {
        let (worker, mut inner) = (worker.clone(), inner.clone());
        async move {
            // Boxed: few requests are held up, and a timer would take room in every other's future.
            if let Some(fault) = &exchange.routed.settings().fault
                && let Some(failed) = Box::pin(suffer(&worker, &exchange, fault)).await
            {
                exchange.count_unsent(&worker, direction, &failed);
                return Err((exchange, failed));
            }
            inner.call(exchange).await
        }
    })
}

fn draw(worker: &Worker, fault: &Set<Fault>, client: &Client) -> Drawn {
    let Set { value: Fault { headers, delay, abort }, by } = fault;
    let meant =
        headers.iter().all(|one| client.values(&one.name).is_some_and(|value| one.value.fits(&value)));
    if !meant {
        return Drawn { delay: None, abort: None };
    }
    let mut rng = worker.rng.borrow_mut();
    let delay = delay.filter(|(_, share)| share.takes(rng.bits())).map(|(time, _)| time);
    let abort = abort.filter(|(_, share)| share.takes(rng.bits())).map(|(abort, _)| {
        let told = match abort {
            Abort::Http(status) => Told::Http(status),
            Abort::Grpc(status) => Told::Grpc(status),
        };
        Failed { told: Some(told), ..Failed::new(Reason::FaultInjected, format!("fault.abort of {by}")) }
    });
    Drawn { delay, abort }
}

async fn suffer(worker: &Worker, exchange: &Exchange, fault: &Set<Fault>) -> Option<Failed> {
    let drawn = draw(worker, fault, &exchange.client);
    if let Some(delay) = drawn.delay {
        let settings = exchange.routed.settings();
        let deadline = time::Deadline::of_request(exchange.client.deadline(), settings, exchange.begun);
        let wait = async {
            sleep(delay).await;
            Ok(())
        };
        if let Err(failed) = time::within(deadline, settings, wait).await {
            return Some(failed);
        }
    }
    drawn.abort
}
