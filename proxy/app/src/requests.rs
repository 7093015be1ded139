//! Requests: the stages that each passes, and what becomes of a failure. HTTP/1 brings them one after the other on a
//! connection, HTTP/2 side by side on its streams.

mod attempt;
mod edit;
mod fault;
mod hedge;
mod http1;
mod limit;
mod line;
mod mirror;
mod own;
mod retry;
mod time;

use crate::{
    destination::Chosen,
    hop::Hop,
    logged::{self, Origin},
    respond::Answer,
    routed::Routed,
    streams, tcp,
    telemetry::Direction,
    worker::Worker,
};
use line::log;
use policy::Reason;
use proxy_balance::Outcome;
use proxy_http::{
    client::{Client, Http2},
    connection::Connection,
    exchange::Answered,
    failed::{Failed, Replay},
    head::{mark_failed, mark_untouched},
    served::Served,
};
use retry::Repeats;
use std::rc::Rc;
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, layer::layer_fn, service_fn};

pub use time::{Deadline, silent};

/// Who asks, and where requests may go.
pub struct Requests<R> {
    pub worker: Rc<Worker>,
    pub direction: Direction,
    pub origin: Origin,
    pub route: R,
}

/// Whom requests are for, and where each may go. Asked anew for each: policy may have changed.
pub trait Route {
    /// The service that is asked for: a label of refusals.
    fn service(&self) -> Option<Rc<str>>;

    fn route(&self, client: &Client) -> Routed;
}

/// A request under way, with the side that it came from and that its answer goes to.
pub struct Exchange {
    client: Client,
    routed: Routed,
    chosen: Option<Chosen>,
    /// Where it is not to go again, if it can be helped.
    tried: Vec<Rc<Hop>>,
    /// How often it was sent before.
    attempts: usize,
    repeats: Repeats,
    /// When its head was there.
    begun: Instant,
    /// What the proxy's own answer was for.
    failed: Option<Failed>,
}

/// An exchange comes back from each stage with what it led to.
type Ended = (Box<Exchange>, Answered);
type Stopped = (Box<Exchange>, Failed);

impl<R: Route + 'static> Requests<R> {
    /// Serves a program's connection of HTTP/2 to its end.
    pub async fn serve_http2(self, client: Connection) {
        let (stream, read) = client.into_parts();
        let served = match Box::pin(Served::clear(stream, read, self.worker.dialer.header_bytes)).await {
            Ok(served) => served,
            Err(failed) => return self.broken(&failed),
        };
        let requests = Rc::new(self);
        let worker = requests.worker.clone();
        let refused = || requests.refuse_stream();
        let ended = streams::serve(&worker, requests.direction, served, refused, |incoming| {
            let requests = requests.clone();
            async move { requests.one(Client::program(incoming)).await }
        });
        if let Err(error) = ended.await {
            let detail = format!("an HTTP/2 connection broke: {error}");
            requests.broken(&Failed::new(Reason::HttpRequestError, detail));
        }
    }
}

impl<R: Route> Requests<R> {
    /// Serves one request that is alone on its stream.
    pub async fn one(&self, client: Client) {
        let routed = self.route.route(&client);
        let exchange = Box::new(Exchange::new(client, routed));
        // Its outcome is with the client, and counted.
        let ended = stages(&self.worker, self.direction).call(exchange).await;
        log(&self.worker, self.direction, &self.origin, &ended);
    }

    /// Tells of a stream that was refused, as there are too many.
    pub fn refuse_stream(&self) {
        let service = self.route.service();
        let failed = Failed::new(Reason::ConnectionLimitReached, "there are as many streams as may be");
        logged::Connection::refused(&self.origin, service.as_deref(), &failed)
            .log(&self.worker, self.direction);
    }

    fn broken(&self, failed: &Failed) {
        let (worker, direction, service) = (&self.worker, self.direction, self.route.service());
        tracing::info!(direction = direction.as_str(), service = service.as_deref(), reason = %failed.reason, "{}", failed.detail);
        worker.telemetry.reason(direction, service.as_deref(), failed.reason);
        logged::Connection::refused(&self.origin, service.as_deref(), failed).log(worker, direction);
    }
}

/// What a request passes, in travel order.
fn stages(worker: &Rc<Worker>, direction: Direction) -> impl Stage + use<> {
    ServiceBuilder::new()
        .layer(layer_fn(|inner| answer_failures(worker.clone(), direction, inner)))
        .layer(layer_fn(|inner| fault::inject(worker.clone(), direction, inner)))
        .layer(layer_fn(|inner| own::answer_by_rule(worker.clone(), direction, inner)))
        .layer(layer_fn(|inner| retry::repeat(worker.clone(), direction, inner)))
        .layer(layer_fn(|inner| balance(worker.clone(), direction, inner)))
        .layer(layer_fn(|inner| measure(worker.clone(), direction, inner)))
        .service(service_fn({
            let worker = worker.clone();
            move |exchange| attempt::forward(worker.clone(), exchange)
        }))
}

impl Exchange {
    fn new(client: Client, routed: Routed) -> Self {
        Self {
            client,
            routed,
            chosen: None,
            tried: Vec::new(),
            attempts: 0,
            repeats: Repeats::default(),
            begun: Instant::now(),
            failed: None,
        }
    }

    fn chosen(&self) -> &Chosen {
        self.chosen.as_ref().expect("the stage `balance` stands before")
    }

    /// It is sent nowhere, for this.
    fn count_unsent(&self, worker: &Worker, direction: Direction, failed: &Failed) {
        let (service, elapsed) = (self.routed.service.as_deref(), self.begun.elapsed());
        worker.telemetry.unsent(direction, service, Some(failed.reason), failed.status(), elapsed);
    }
}

/// Counts an attempt, on the edge to its hop, and judges the endpoint by it. One of which nothing was executed and that will be made
/// again is no request of that edge.
fn measure<S>(worker: Rc<Worker>, direction: Direction, inner: S) -> impl Stage
where
    S: Stage,
{
    service_fn(move |exchange: Box<Exchange>| {
        let (worker, mut inner) = (worker.clone(), inner.clone());
        async move {
            let chosen = exchange.chosen();
            let begin = if exchange.attempts == 0 { exchange.begun } else { Instant::now() };
            chosen.start(begin);
            chosen.hop.edge.request_started();
            let ended = inner.call(exchange).await;
            let (now, good) = (Instant::now(), judgement(&ended));
            // Of several that were asked, the one that has answered.
            let (Ok((exchange, _)) | Err((exchange, _))) = &ended;
            let (chosen, edge) = (exchange.chosen(), &exchange.chosen().hop.edge);
            match &ended {
                Ok((_, answered)) => {
                    edge.request_finished(answered.status, now - begin);
                    if let Some(status) = answered.grpc_status {
                        edge.grpc_finished(status);
                    }
                    let (request, response) = (answered.request_bytes, answered.response_bytes);
                    let outbound = direction == Direction::Outbound;
                    let (sent, received) = if outbound { (request, response) } else { (response, request) };
                    edge.sent(sent);
                    edge.received(received);
                    chosen.finish(&worker, now, Outcome::Answered, good);
                }
                Err((exchange, failed)) => {
                    if exchange.may_replay(failed) {
                        edge.request_moved(failed.reason);
                    } else if exchange.is_to_be_repeated() {
                        edge.request_finished(0, now - begin);
                    } else {
                        edge.failed(failed.reason);
                        let status = if failed.answered { 0 } else { failed.status() };
                        edge.request_finished(status, now - begin);
                    }
                    let unreachable = failed.replay == Replay::Untouched;
                    let outcome = if unreachable { tcp::unreached(failed) } else { Outcome::Failed };
                    chosen.finish(&worker, now, outcome, good);
                }
            }
            ended
        }
    })
}

/// What an attempt says of its endpoint; `None`: nothing.
fn judgement(ended: &Result<Ended, Stopped>) -> Option<bool> {
    match ended {
        Ok((_, answered)) => {
            // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
            let failed = answered.grpc_status.is_some_and(|status| matches!(status, 2 | 4 | 13 | 14 | 15));
            Some(answered.status < 500 && !failed)
        }
        Err((_, failed)) => {
            let ours = matches!(
                failed.reason,
                Reason::ConnectionLimitReached | Reason::RequestLimitReached | Reason::ProxyInternalError
            );
            let of_client = failed.by_client || failed.reason == Reason::HttpRequestError;
            (!ours && !of_client).then_some(false)
        }
    }
}

/// Chooses the hop of an attempt.
fn balance<S>(worker: Rc<Worker>, direction: Direction, inner: S) -> impl Stage
where
    S: Stage,
{
    service_fn(move |mut exchange: Box<Exchange>| {
        let (worker, mut inner) = (worker.clone(), inner.clone());
        async move {
            match exchange.routed.choose(&worker, &exchange.tried).await {
                Ok(chosen) => exchange.chosen = Some(chosen),
                Err(failed) => {
                    exchange.consider(&worker, &failed);
                    if !exchange.is_to_be_repeated() {
                        exchange.count_unsent(&worker, direction, &failed);
                    }
                    return Err((exchange, failed));
                }
            }
            inner.call(exchange).await
        }
    })
}

/// Tells the client what went wrong, if it can still be told.
fn answer_failures<S>(worker: Rc<Worker>, direction: Direction, inner: S) -> impl Stage
where
    S: Stage,
{
    service_fn(move |exchange: Box<Exchange>| {
        let (worker, mut inner) = (worker.clone(), inner.clone());
        async move {
            let (mut exchange, failed) = match inner.call(exchange).await {
                Err(stopped) => stopped,
                ended => return ended,
            };
            if failed.answered {
                return Err((exchange, failed));
            }
            let Exchange { client, chosen, .. } = &mut *exchange;
            let next_hop = chosen.as_ref().map(|chosen| chosen.hop.endpoint.address);
            let inside = direction == Direction::Outbound || client.is_wire();
            let answer = Answer::new(direction, &failed, None, next_hop, inside);
            let grpc = client.is_grpc();
            let answered = match client {
                Client::Http1(client) => http1::tell(&worker, client, &answer).await,
                Client::Http2(client) => Some(tell_http2(client, &answer, &failed, grpc)),
            };
            match answered {
                Some(answered) => {
                    exchange.failed = Some(failed);
                    Ok((exchange, answered))
                }
                None => Err((exchange, failed)),
            }
        }
    })
}

/// A client of HTTP/2 sees what its server did, even if that was to reset the stream. A client that has gone needs no answer.
fn tell_http2(client: &mut Http2, answer: &Answer, failed: &Failed, grpc: bool) -> Answered {
    let untouched = client.request.wire && failed.replay == Replay::Untouched;
    if let Some(code) = failed.reset
        && !untouched
    {
        client.respond.send_reset(code);
        return Answered::default();
    }
    let (mut response, mut body) = answer.to_stream();
    if grpc {
        (response, body) = (answer.to_grpc(failed), bytes::Bytes::new());
    } else if client.request.method == http::Method::HEAD {
        body.clear();
    }
    if untouched {
        mark_untouched(response.headers_mut(), failed);
    } else if client.request.wire {
        mark_failed(response.headers_mut(), failed);
    }
    let status = response.status().as_u16();
    if let Ok(mut send) = client.respond.send_response(response, body.is_empty())
        && !body.is_empty()
    {
        let _ = send.send_data(body, true);
    }
    let grpc_status = grpc.then(|| failed.grpc_status());
    Answered { status, grpc_status, ..Answered::default() }
}

/// What every stage is: a tower service over exchanges.
trait Stage: Service<Box<Exchange>, Response = Ended, Error = Stopped> + Clone {}

impl<S: Service<Box<Exchange>, Response = Ended, Error = Stopped> + Clone> Stage for S {}

fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::tests::worker;

    /// Of each request under way; moved when it is made. A stage that holds what is within it twice doubles it.
    #[test]
    fn the_future_of_a_request_stays_small() {
        fn size<S: Stage>(_: &S) -> usize {
            size_of::<S::Future>()
        }
        let (worker, _) = worker(1);
        let size = size(&stages(&worker, Direction::Inbound));
        assert!(size <= 2_856, "{size} bytes");
    }
}
