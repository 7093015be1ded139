//! Requests: the stages that each passes, and what becomes of a failure. HTTP/1 brings them one after the other on a
//! connection, HTTP/2 side by side on its streams.

mod edit;
mod http1;
mod line;
mod mirror;
mod own;

use crate::{
    destination::{ATTEMPTS, Chosen},
    hop::{Hop, Way},
    logged::{self, Origin},
    respond::Answer,
    routed::Routed,
    streams, tcp,
    telemetry::Direction,
    worker::Worker,
};
use line::log;
use policy::{Protocol, Reason};
use proxy_balance::Outcome;
use proxy_http::{
    client::{Client, Http2},
    connection::Connection,
    exchange::{Answered, Progress, exchange as carry},
    failed::{Failed, Replay},
    grpc,
    head::mark_untouched,
    idle_age::Repeat,
    next_hop::NextHop,
    plain::{Plain, Taken},
    served::Served,
    streams::Lease,
};
use std::{future::Future, rc::Rc};
use tokio::time::{Instant, timeout_at};
use tower::{Service, ServiceBuilder, layer::layer_fn, service_fn};

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
    tried: Vec<Rc<Hop>>,
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
        .layer(layer_fn(|inner| own::answer_by_rule(worker.clone(), direction, inner)))
        .layer(layer_fn(replay))
        .layer(layer_fn(|inner| balance(worker.clone(), direction, inner)))
        .layer(layer_fn(|inner| measure(direction, inner)))
        .service(service_fn({
            let worker = worker.clone();
            move |exchange| forward(worker.clone(), exchange)
        }))
}

impl Exchange {
    fn new(client: Client, routed: Routed) -> Self {
        Self { client, routed, chosen: None, tried: Vec::new(), begun: Instant::now(), failed: None }
    }

    fn chosen(&self) -> &Chosen {
        self.chosen.as_ref().expect("the stage `balance` stands before")
    }
}

/// The last stage: one attempt, to the hop that was chosen.
async fn forward(worker: Rc<Worker>, mut exchange: Box<Exchange>) -> Result<Ended, Stopped> {
    match attempt(&worker, &mut exchange).await {
        Ok(answered) => Ok((exchange, answered)),
        Err(failed) => Err((exchange, failed)),
    }
}

async fn attempt(worker: &Worker, exchange: &mut Exchange) -> Result<Answered, Failed> {
    let Exchange { client, routed, chosen, tried, .. } = exchange;
    let chosen = chosen.as_ref().expect("the stage `balance` stands before");
    let mut held = hold(client, routed, chosen, !tried.is_empty()).await?;
    chosen.connected();
    client.count_down();
    let edits = edit::of_response(routed, client, Some(&chosen.hop));
    let progress =
        Progress { ending: worker.draining(), answered: &|| chosen.answered(), edit: edits.as_deref() };
    let hop = match &mut held {
        Held::Stream(lease) => NextHop::Stream(lease),
        Held::Plain(_, taken) => NextHop::Plain {
            connection: &mut taken.connection,
            reused: taken.reused,
            header_bytes: worker.dialer.header_bytes,
        },
    };
    let answered = carry(client, hop, progress).await;
    if let Held::Plain(plain, taken) = held {
        match &answered {
            Ok(answered) if answered.hop_reusable => plain.give_back(taken.connection),
            Ok(_) => {}
            Err(failed) => plain.lost(&taken, failed),
        }
    }
    answered
}

/// What carries an attempt to its hop.
enum Held<'a> {
    Stream(Lease),
    Plain(&'a Plain, Taken),
}

/// A place on a connection to the hop, in the version of HTTP that is spoken there. `again`: a connection has died under the
/// request before.
async fn hold<'a>(
    client: &Client,
    routed: &Routed,
    chosen: &'a Chosen,
    again: bool,
) -> Result<Held<'a>, Failed> {
    let wait = chosen.wait(routed.connect_wait());
    let (streams, program) = match &chosen.hop.way {
        Way::Peer(streams) => (Some(streams), None),
        Way::Program(program) => (speaks_http2(routed, client).then_some(&program.streams), Some(program)),
    };
    if let Some(streams) = streams {
        let lease = within(client, streams.lease(wait)).await?;
        // Many programs take a WebSocket over HTTP/1.1 alone (RFC 8441 §3).
        if program.is_none() || !client.is_websocket() || lease.upgrades().await {
            return Ok(Held::Stream(lease));
        }
    }
    let plain = &program.expect("a peer has streams").plain;
    let repeatable = !client.has_body() && is_idempotent(client.method());
    let repeat = if repeatable { Repeat::Possible } else { Repeat::Impossible };
    let take = async { if again { plain.fresh(wait).await } else { plain.take(wait, repeat).await } };
    Ok(Held::Plain(plain, within(client, take).await?))
}

/// Waits no longer than a gRPC caller does.
async fn within<T>(client: &Client, wait: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    match client.deadline() {
        None => wait.await,
        Some(deadline) => timeout_at(deadline, wait).await.unwrap_or_else(|_| Err(grpc::overdue())),
    }
}

/// The client does so, or the owner of the port says that it does. A WebSocket may meet a server that is of HTTP/1.1 alone.
fn speaks_http2(routed: &Routed, client: &Client) -> bool {
    match routed.protocol {
        Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Http1 if client.is_websocket() => false,
        _ => client.version() == http::Version::HTTP_2,
    }
}

/// Counts an attempt, on the edge to its hop. One that will be made again elsewhere is no request of that edge.
fn measure<S>(direction: Direction, inner: S) -> impl Stage
where
    S: Stage,
{
    service_fn(move |exchange: Box<Exchange>| {
        let mut inner = inner.clone();
        async move {
            let chosen = exchange.chosen();
            let edge = chosen.hop.edge.clone();
            let begin = if exchange.tried.is_empty() { exchange.begun } else { Instant::now() };
            chosen.start(begin);
            edge.request_started();
            let ended = inner.call(exchange).await;
            let now = Instant::now();
            match &ended {
                Ok((exchange, answered)) => {
                    edge.request_finished(answered.status, now - begin);
                    if let Some(status) = answered.grpc_status {
                        edge.grpc_finished(status);
                    }
                    let (request, response) = (answered.request_bytes, answered.response_bytes);
                    let outbound = direction == Direction::Outbound;
                    let (sent, received) = if outbound { (request, response) } else { (response, request) };
                    edge.sent(sent);
                    edge.received(received);
                    exchange.chosen().finish(now, Outcome::Answered);
                }
                Err((exchange, failed)) => {
                    if exchange.may_replay(failed) {
                        edge.request_moved(failed.reason);
                    } else {
                        edge.failed(failed.reason);
                        let status = if failed.answered { 0 } else { failed.status() };
                        edge.request_finished(status, now - begin);
                    }
                    let unreachable = failed.replay == Replay::Untouched;
                    let outcome = if unreachable { tcp::unreached(failed) } else { Outcome::Failed };
                    exchange.chosen().finish(now, outcome);
                }
            }
            ended
        }
    })
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
                    let (service, elapsed) = (exchange.routed.service.as_deref(), exchange.begun.elapsed());
                    worker.telemetry.unsent(
                        direction,
                        service,
                        Some(failed.reason),
                        failed.status(),
                        elapsed,
                    );
                    return Err((exchange, failed));
                }
            }
            inner.call(exchange).await
        }
    })
}

/// Sends a request again when nothing of it can have been executed, to another endpoint if there is one.
fn replay<S>(inner: S) -> impl Stage
where
    S: Stage,
{
    service_fn(move |exchange: Box<Exchange>| {
        let mut inner = inner.clone();
        async move {
            let mut exchange = exchange;
            // One place from which the rest is called: each has room in the future for all that is within.
            loop {
                match inner.call(exchange).await {
                    Err((stopped, failed)) if stopped.may_replay(&failed) => {
                        exchange = stopped;
                        exchange.tried.extend(exchange.chosen.take().map(|chosen| chosen.hop));
                    }
                    ended => return ended,
                }
            }
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

impl Exchange {
    /// May the request be sent once more after this? (RFC 9110 §9.2.2)
    fn may_replay(&self, failed: &Failed) -> bool {
        let tried = self.tried.iter().chain(self.chosen.as_ref().map(|chosen| &chosen.hop));
        let safe = match failed.replay {
            // The same endpoint again makes sense when it was only the connection that went.
            Replay::Untouched => {
                failed.reason == Reason::ConnectionTerminated || self.routed.hops.others(tried)
            }
            Replay::IfIdempotent => is_idempotent(self.client.method()),
            Replay::Never => false,
        };
        safe && !failed.answered && self.tried.len() + 1 < ATTEMPTS
    }
}

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
        assert!(size <= 2_944, "{size} bytes");
    }
}
