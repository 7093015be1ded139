//! Requests of HTTP/1, one after the other on a connection: reading the next head, and how the connection ends.

use super::{Exchange, Requests, Route, line::log, stages};
use crate::routed::Routed;
use crate::{destination::Hops, logged::Origin, respond::Answer, telemetry::Direction, worker::Worker};
use http::StatusCode;
use policy::{Protocol, Reason, limits};
use proxy_h1::{BodyLength, Limits, Parse, Refusal};
use proxy_http::{
    client::{Client, Http1},
    connection::Connection,
    exchange::Answered,
    failed::Failed,
};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tower::Service;

/// After the last answer, what a client may still send before it is cut off.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

impl<R: Route> Requests<R> {
    /// Serves a connection of HTTP/1 to its end.
    pub async fn serve_http1(self, client: Connection) {
        let Self { worker, direction, origin, route } = self;
        let mut stages = stages(&worker, direction);
        let client = Client::http1(client);
        let nothing = Routed::to(Hops::None, Protocol::Auto, route.service());
        let mut exchange = Box::new(Exchange::new(client, nothing));
        loop {
            match next_request(&worker, exchange.http1()).await {
                Next::Request => {}
                Next::Refused(failed, status) => {
                    return Box::pin(refuse(&worker, direction, &origin, exchange, failed, status)).await;
                }
                Next::End => return,
            }
            exchange.routed = route.route(&exchange.client);
            exchange.begun = Instant::now();
            // Boxed, so that a connection that waits for its next request is small: the stages are most of its state.
            let ended = Box::pin(stages.call(exchange)).await;
            log(&worker, direction, &origin, &ended);
            let (ended, answered) = match ended {
                Ok(ended) => ended,
                // What the client has of an answer must not look whole.
                Err((mut exchange, _)) => return exchange.http1().connection.stream().reset_on_drop(),
            };
            exchange = ended;
            if worker.draining().get() || !answered.request_whole {
                return Box::pin(linger(&mut exchange.http1().connection)).await;
            }
            if !answered.client_reusable {
                return;
            }
            exchange.rest();
        }
    }
}

impl Exchange {
    fn http1(&mut self) -> &mut Http1 {
        match &mut self.client {
            Client::Http1(client) => client,
            Client::Http2(_) => unreachable!("a connection of HTTP/1 has no other clients"),
        }
    }

    /// Lets go of what a connection does not need between two requests.
    fn rest(&mut self) {
        self.http1().rest();
        self.chosen = None;
        self.tried.clear();
        self.attempts = 0;
        self.repeats = super::Repeats::default();
        self.failed = None;
    }
}

enum Next {
    Request,
    /// With this status.
    Refused(Failed, u16),
    End,
}

impl Next {
    fn refused(refusal: &Refusal) -> Self {
        Self::Refused(Failed::new(Reason::HttpRequestError, refusal.detail()), refusal.status())
    }
}

/// The next request's head. A client that has begun one has a limited time to end it; between requests there is no limit.
async fn next_request(worker: &Worker, http1: &mut Http1) -> Next {
    let client = &mut http1.connection;
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
    let limits = Limits { head_bytes: worker.dialer.header_bytes, ..Limits::default() };
    let mut begun = None;
    loop {
        if !client.reader.buffered().is_empty() {
            match proxy_h1::parse_request(client.reader.buffer_mut(), &mut http1.head, &limits) {
                Ok(Parse::Complete) => {
                    return match http1.head.body() {
                        Ok(body) => {
                            http1.begin(body);
                            Next::Request
                        }
                        Err(refusal) => Next::refused(&refusal),
                    };
                }
                Ok(Parse::Partial) => {}
                Err(refusal) => return Next::refused(&refusal),
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
            Ok(_) => return Next::End,
            Err(_) => {
                let slow = format!("the head was not whole after {:?}", limits::REQUEST_HEAD_WAIT);
                let status = StatusCode::REQUEST_TIMEOUT.as_u16();
                return Next::Refused(Failed::new(Reason::HttpRequestError, slow), status);
            }
        }
    }
}

/// Tells a client of a failure.
pub(super) async fn tell(worker: &Worker, client: &mut Http1, answer: &Answer) -> Option<Answered> {
    // A body that was not read would be taken for the next request.
    let unread = client.body != BodyLength::None;
    let close = unread || !client.head.keep_alive() || worker.draining().get();
    write(&mut client.connection, answer, client.head.method() == "HEAD", close).await.ok()?;
    Some(Answered {
        status: answer.status,
        client_reusable: !close,
        request_whole: !close,
        ..Answered::default()
    })
}

/// Answers a request that is no valid HTTP, and ends the connection: where the next one would begin is not known.
async fn refuse(
    worker: &Worker,
    direction: Direction,
    origin: &Origin,
    mut exchange: Box<Exchange>,
    failed: Failed,
    status: u16,
) {
    let service = exchange.routed.service.as_deref();
    worker.telemetry.unsent(direction, service, Some(failed.reason), status, Duration::ZERO);
    let inside = direction == Direction::Outbound;
    let answer = Answer::new(direction, &failed, Some(status), None, inside);
    let written = write(&mut exchange.http1().connection, &answer, false, true).await.is_ok();
    exchange.begun = Instant::now();
    exchange.failed = Some(failed);
    let ended = Ok((exchange, Answered { status, ..Answered::default() }));
    log(worker, direction, origin, &ended);
    if let (true, Ok((mut exchange, _))) = (written, ended) {
        linger(&mut exchange.http1().connection).await;
    }
}

async fn write(client: &mut Connection, answer: &Answer, head: bool, close: bool) -> std::io::Result<()> {
    client.writer.encode(|out| answer.write(out, head, close));
    poll_fn(|cx| client.writer.poll_flush(cx)).await
}

/// Ends a connection whose client may still be sending: closed at once, it would be reset, and the answer lost with it
/// (RFC 9112 §9.6).
async fn linger(client: &mut Connection) {
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
