//! HTTP/1 requests of one client connection, one after the other: the stages that each passes, and what becomes of a failure.

use crate::{
    destination::{Chosen, Hops},
    hop::{Hop, Way},
    respond::Answer,
    telemetry::Direction,
    worker::Worker,
};
use policy::{Reason, limits};
use proxy_balance::Outcome;
use proxy_h1::{BodyLength, Limits, Parse, Refusal, RequestHead};
use proxy_http::{
    connection::Connection,
    exchange::{self, Answered, Progress},
    failed::{Failed, Replay},
};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tower::{Service, ServiceBuilder, layer::layer_fn, service_fn};

/// Times that a request may be sent, the first one included.
const ATTEMPTS: usize = 3;

/// After the last answer, what a client may still send before it is cut off.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// Who asks, and where requests may go.
pub struct Requests<F> {
    pub worker: Rc<Worker>,
    pub direction: Direction,
    /// Asked anew for each request: policy may have changed.
    pub route: F,
}

/// Where one request may go.
pub struct Routed {
    pub hops: Hops,
    pub connect_timeout: Duration,
    /// The service that was asked for: a label of refusals.
    pub service: Option<Rc<str>>,
}

/// A request under way, with the connection that it came on and that its answer goes to.
pub struct Exchange {
    client: Connection,
    head: RequestHead,
    body: BodyLength,
    routed: Routed,
    chosen: Option<Chosen>,
    tried: Vec<Rc<Hop>>,
}

/// An exchange comes back from each stage with what it led to.
type Ended = (Box<Exchange>, Answered);
type Stopped = (Box<Exchange>, Failed);

impl<F: Fn() -> Routed> Requests<F> {
    /// Serves the connection to its end.
    pub async fn serve(self, client: Connection) {
        let Self { worker, direction, route } = self;
        let mut stages = ServiceBuilder::new()
            .layer(layer_fn(|inner| answer_failures(worker.clone(), direction, inner)))
            .layer(layer_fn(replay))
            .layer(layer_fn(|inner| balance(worker.clone(), direction, inner)))
            .layer(layer_fn(measure))
            .service(service_fn(|exchange| forward(worker.clone(), exchange)));
        let mut exchange = Box::new(Exchange::new(client, route()));
        loop {
            match next_request(&worker, &mut exchange).await {
                Next::Request => {}
                Next::Refused(refusal) => {
                    return Box::pin(refuse(&worker, direction, exchange, refusal)).await;
                }
                Next::End => return,
            }
            exchange.routed = route();
            // Boxed, so that a connection that waits for its next request is small: the stages are most of its state.
            let (ended, answered) = match Box::pin(stages.call(exchange)).await {
                Ok(ended) => ended,
                // What the client has of an answer must not look whole.
                Err((exchange, _)) => return exchange.client.stream().reset_on_drop(),
            };
            exchange = ended;
            if worker.draining().get() || !answered.request_whole {
                return Box::pin(linger(exchange.client)).await;
            }
            if !answered.client_reusable {
                return;
            }
            exchange.rest();
        }
    }
}

impl Exchange {
    fn new(client: Connection, routed: Routed) -> Self {
        let (head, body) = (RequestHead::default(), BodyLength::None);
        Self { client, head, body, routed, chosen: None, tried: Vec::new() }
    }

    fn chosen(&self) -> &Chosen {
        self.chosen.as_ref().expect("the stage `balance` stands before")
    }

    /// Between two requests nothing is held but the connection.
    fn rest(&mut self) {
        self.client.rest();
        self.head.clear();
        self.chosen = None;
        self.tried.clear();
    }
}

enum Next {
    Request,
    Refused(Refusal),
    End,
}

/// The next request's head. A client that has begun one has a limited time to end it; between requests there is no limit.
async fn next_request(worker: &Worker, exchange: &mut Exchange) -> Next {
    let client = &mut exchange.client;
    if client.reader.buffered().is_empty() {
        let mut drained = pin!(worker.drained());
        let more = poll_fn(|cx| match client.reader.poll_readable(cx) {
            Poll::Ready(readable) => Poll::Ready(readable.is_ok()),
            Poll::Pending => drained.as_mut().poll(cx).map(|()| false),
        });
        if !more.await {
            return Next::End;
        }
    }
    let limits = Limits { head_bytes: limits::HEADER_LIST_BYTES, ..Limits::default() };
    let mut begun = None;
    loop {
        if !client.reader.buffered().is_empty() {
            match proxy_h1::parse_request(client.reader.buffer_mut(), &mut exchange.head, &limits) {
                Ok(Parse::Complete) => {
                    return match exchange.head.body() {
                        Ok(body) => {
                            exchange.body = body;
                            Next::Request
                        }
                        Err(refusal) => Next::Refused(refusal),
                    };
                }
                Ok(Parse::Partial) => {}
                Err(refusal) => return Next::Refused(refusal),
            }
        }
        let fill = poll_fn(|cx| client.reader.poll_fill(cx));
        let read = match begun {
            // Nearly always the head is there at once: no timer for that.
            None => match poll_fn(|cx| Poll::Ready(client.reader.poll_fill(cx))).await {
                Poll::Ready(read) => Ok(read),
                Poll::Pending => {
                    begun = Some(Instant::now());
                    continue;
                }
            },
            Some(begun) => {
                timeout(limits::REQUEST_HEAD_WAIT.saturating_sub(Instant::now() - begun), fill).await
            }
        };
        match read {
            Ok(Ok(count)) if count > 0 => {}
            _ => return Next::End,
        }
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
    let Exchange { client, head, body, routed, chosen, .. } = exchange;
    let chosen = chosen.as_ref().expect("the stage `balance` stands before");
    let progress = Progress { ending: worker.draining(), answered: &|| chosen.answered() };
    match &chosen.hop.way {
        Way::Peer(peer) => {
            let lease = peer.lease(routed.connect_timeout).await?;
            chosen.connected();
            let ended = matches!(body, BodyLength::None | BodyLength::Fixed(0))
                && !exchange::opens_tunnel(head, *body);
            let stream = peer.open(lease, proxy_http::head::to_stream_request(head, *body), ended)?;
            exchange::client_to_stream(client, head, *body, stream, progress).await
        }
        Way::Plain(plain) => {
            let mut taken = plain.take(routed.connect_timeout).await?;
            chosen.connected();
            let (hop, reused) = (&mut taken.connection, taken.reused);
            let answered = exchange::client_to_plain(client, head, *body, hop, reused, progress).await?;
            if answered.hop_reusable {
                plain.give_back(taken.connection);
            }
            Ok(answered)
        }
    }
}

/// Counts an attempt, on the edge to its hop. One that will be made again elsewhere is no request of that edge.
fn measure<S>(mut inner: S) -> impl Stage
where
    S: Stage,
{
    service_fn(move |exchange: Box<Exchange>| {
        let chosen = exchange.chosen();
        let (edge, begin) = (chosen.hop.edge.clone(), Instant::now());
        chosen.start(begin);
        edge.request_started();
        let attempt = inner.call(exchange);
        async move {
            let ended = attempt.await;
            let now = Instant::now();
            match &ended {
                Ok((exchange, answered)) => {
                    edge.request_finished(answered.status, now - begin);
                    edge.sent(answered.request_bytes);
                    edge.received(answered.response_bytes);
                    exchange.chosen().finish(now, Outcome::Answered);
                }
                Err((exchange, failed)) => {
                    edge.failed(failed.reason);
                    if exchange.may_replay(failed) {
                        edge.request_moved();
                    } else {
                        let status = if failed.answered { 0 } else { failed.reason.status() };
                        edge.request_finished(status, now - begin);
                    }
                    let unreachable = failed.replay == Replay::Untouched;
                    let outcome = if unreachable { Outcome::ConnectFailed } else { Outcome::Failed };
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
            match exchange.routed.hops.choose(&worker, &exchange.tried).await {
                Ok(chosen) => exchange.chosen = Some(chosen),
                Err(failed) => {
                    worker.telemetry.reason(direction, exchange.routed.service.as_deref(), failed.reason);
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
            let mut ended = inner.call(exchange).await;
            loop {
                match ended {
                    Err((mut exchange, failed)) if exchange.may_replay(&failed) => {
                        exchange.tried.extend(exchange.chosen.take().map(|chosen| chosen.hop));
                        ended = inner.call(exchange).await;
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
            let next_hop = exchange.chosen.as_ref().map(|chosen| chosen.hop.endpoint.address);
            let answer = Answer::new(direction, &failed, None, next_hop, direction == Direction::Outbound);
            // A body that was not read would be taken for the next request.
            let unread = exchange.body != BodyLength::None;
            let close = unread || !exchange.head.keep_alive() || worker.draining().get();
            match write(&mut exchange.client, &answer, exchange.head.method() == "HEAD", close).await {
                Ok(()) => {
                    let answered = Answered {
                        status: answer.status,
                        client_reusable: !close,
                        request_whole: !close,
                        ..Answered::default()
                    };
                    Ok((exchange, answered))
                }
                Err(_) => Err((exchange, failed)),
            }
        }
    })
}

/// What every stage is: a tower service over exchanges.
trait Stage: Service<Box<Exchange>, Response = Ended, Error = Stopped> + Clone {}

impl<S: Service<Box<Exchange>, Response = Ended, Error = Stopped> + Clone> Stage for S {}

/// Answers a request that is no valid HTTP, and ends the connection: where the next one would begin is not known.
async fn refuse(worker: &Worker, direction: Direction, mut exchange: Box<Exchange>, refusal: Refusal) {
    let failed = Failed::new(Reason::HttpRequestError, refusal.detail());
    worker.telemetry.reason(direction, exchange.routed.service.as_deref(), failed.reason);
    let inside = direction == Direction::Outbound;
    let answer = Answer::new(direction, &failed, Some(refusal.status()), None, inside);
    if write(&mut exchange.client, &answer, false, true).await.is_ok() {
        linger(exchange.client).await;
    }
}

async fn write(client: &mut Connection, answer: &Answer, head: bool, close: bool) -> std::io::Result<()> {
    client.writer.encode(|out| answer.write(out, head, close));
    poll_fn(|cx| client.writer.poll_flush(cx)).await
}

/// Ends a connection whose client may still be sending: closed at once, it would be reset, and the answer lost with it
/// (RFC 9112 §9.6).
async fn linger(mut client: Connection) {
    client.stream().shutdown_write();
    let drain = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            client.reader.buffer_mut().clear();
            match poll_fn(|cx| client.reader.poll_fill(cx)).await {
                Ok(count) if count > 0 => left = left.saturating_sub(count),
                _ => return,
            }
        }
    };
    // Over the time the client is cut off: it has had its answer.
    let _ = timeout(LINGER, drain).await;
}

impl Exchange {
    /// May the request be sent once more after this? (RFC 9110 §9.2.2)
    fn may_replay(&self, failed: &Failed) -> bool {
        let tried = self.tried.iter().chain(self.chosen.as_ref().map(|chosen| &chosen.hop));
        let safe = match failed.replay {
            // The same endpoint again makes sense when it was only the connection that went.
            Replay::Untouched => {
                failed.reason == Reason::ConnectionTerminated || self.routed.hops.others(tried)
            }
            Replay::IfIdempotent => is_idempotent(self.head.method()),
            Replay::Never => false,
        };
        safe && !failed.answered && self.tried.len() + 1 < ATTEMPTS
    }
}

fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}
