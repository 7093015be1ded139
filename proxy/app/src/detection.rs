//! Finding out what a connection carries: the loop around `proxy-detect`, which decides; here are the sockets and the clock.

use crate::{
    destination::Chosen,
    hop::Way,
    worker::{Beginning, Worker},
};
use proxy_detect::{Detector, How, MAX_PEEK, Protocol, Step, Verdict};
use proxy_http::{connection::Connection, failed::Failed, tcp::Upstream};
use std::{future::Future, future::poll_fn, pin::pin, task::Poll, time::Duration};
use tokio::time::{Instant, timeout};

/// What was found out, and the upstream connection if one was made on the way.
pub struct Detected {
    pub protocol: Protocol,
    pub how: How,
    pub upstream: Option<(Upstream, Chosen)>,
    /// What is to be remembered of it.
    pub beginning: Option<Beginning>,
}

/// A server that has something to say first says so soon. Later, it is one that gives up a silent client.
const GREETING: Duration = Duration::from_secs(5);

/// What HTTP/2 begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What TLS begins with (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// What happened first.
enum Event {
    Client(std::io::Result<usize>),
    /// It has spoken, or without a word ended.
    Server(bool),
    Connected(Box<Result<(Upstream, Chosen), Failed>>),
}

/// Reads until it is known what the client speaks. `connect` makes the upstream connection that a silent client calls for.
pub async fn detect<C>(
    client: &mut Connection,
    remembered: Option<Beginning>,
    connect: impl FnOnce() -> C,
) -> Result<Detected, Failed>
where
    C: Future<Output = Result<(Upstream, Chosen), Failed>>,
{
    let begin = Instant::now();
    let mut detector = match remembered {
        None => Detector::new(),
        Some(Beginning::ServerFirst) => Detector::remembering_server_first(),
        Some(Beginning::Undecided) => Detector::remembering_opaque(),
    };
    let mut step = match client.reader.buffered() {
        // Most clients speak at once: their bytes are here, and no timer is needed.
        [] => match poll_fn(|cx| Poll::Ready(client.reader.poll_fill(cx))).await {
            Poll::Ready(read) => heard(&mut detector, client, read, begin)?,
            Poll::Pending => detector.on_client_silent(Duration::ZERO),
        },
        bytes => detector.on_client(bytes, Duration::ZERO),
    };
    if let Step::Wait(_) = step
        && client.reader.buffered().is_empty()
    {
        // Bytes that are on their way come with the next look at the sockets; a timer for each connection costs more.
        tokio::task::yield_now().await;
        match poll_fn(|cx| Poll::Ready(client.reader.poll_fill(cx))).await {
            Poll::Ready(read) => step = heard(&mut detector, client, read, begin)?,
            Poll::Pending => {}
        }
    }
    while let Step::Wait(wait) = step {
        step = match timeout(wait, poll_fn(|cx| client.reader.poll_fill(cx))).await {
            Ok(read) => heard(&mut detector, client, read, begin)?,
            Err(_) => detector.on_client_silent(begin.elapsed()),
        };
    }
    match step {
        Step::Decided(protocol, how) => Ok(Detected::new(protocol, how, None)),
        _ => both_sides(detector, client, connect(), begin).await,
    }
}

/// Which version of HTTP the client of a port speaks that is declared to be HTTP. The client speaks first there, and takes its
/// time; what is neither version is for the declared one to refuse.
pub async fn http_of(worker: &Worker, client: &mut Connection, declared: policy::Protocol) -> Protocol {
    let declared = match declared {
        policy::Protocol::Http2 | policy::Protocol::Grpc => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let mut drained = pin!(worker.drained());
    loop {
        match proxy_detect::client(client.reader.buffered()) {
            Verdict::Http1 => return Protocol::Http1,
            Verdict::Http2 => return Protocol::Http2,
            Verdict::Tls(_) | Verdict::Opaque => return declared,
            Verdict::NeedMore if PREFACE.starts_with(client.reader.buffered()) => {}
            Verdict::NeedMore => return Protocol::Http1,
        }
        let more = poll_fn(|cx| match client.reader.poll_fill(cx) {
            Poll::Ready(read) => Poll::Ready(read.is_ok_and(|count| count > 0)),
            // A client that has begun is heard.
            Poll::Pending if client.reader.buffered().is_empty() => drained.as_mut().poll(cx).map(|()| false),
            Poll::Pending => Poll::Pending,
        });
        if !more.await {
            return Protocol::Http1;
        }
    }
}

/// The client is silent: listens to both sides, whoever speaks first decides.
async fn both_sides(
    mut detector: Detector,
    client: &mut Connection,
    connect: impl Future<Output = Result<(Upstream, Chosen), Failed>>,
    begin: Instant,
) -> Result<Detected, Failed> {
    let mut connect = pin!(connect);
    let mut upstream: Option<(Upstream, Chosen)> = None;
    let (mut wait, mut greeted) = (None, false);
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(read) = client.reader.poll_fill(cx) {
                return Poll::Ready(Event::Client(read));
            }
            match &mut upstream {
                // Nobody can answer a ClientHello before it is whole: what the server says is not said to this client.
                Some(_) if client.reader.buffered().first() == Some(&HANDSHAKE_RECORD) => Poll::Pending,
                Some((upstream, _)) => upstream.poll_spoken(cx).map(Event::Server),
                None => connect.as_mut().poll(cx).map(|connected| Event::Connected(Box::new(connected))),
            }
        });
        let event = match wait {
            Some(wait) => timeout(wait, event).await.ok(),
            None => Some(event.await),
        };
        let step = match event {
            Some(Event::Connected(connected)) => {
                upstream = Some((*connected)?);
                continue;
            }
            Some(Event::Client(read)) => match heard(&mut detector, client, read, begin) {
                Ok(step) => step,
                Err(failed) => {
                    if let Some((upstream, _)) = upstream {
                        upstream.reset();
                    }
                    return Err(failed);
                }
            },
            Some(Event::Server(spoken)) => {
                greeted = spoken && begin.elapsed() < GREETING;
                detector.on_server_first()
            }
            None => detector.on_client_silent(begin.elapsed()),
        };
        match step {
            Step::Wait(time) => wait = Some(time),
            Step::ConnectUpstream => wait = None,
            Step::Decided(protocol, how) => {
                let beginning = greeted.then_some(Beginning::ServerFirst);
                let detected = Detected::new(protocol, how, upstream);
                return Ok(Detected { beginning: beginning.or(detected.beginning), ..detected });
            }
        }
    }
}

/// The connection that a silent client called for, and that turned out to carry requests: it waits for one in its pool.
pub fn keep(upstream: Option<(Upstream, Chosen)>) {
    if let Some((Upstream::Plain(connection), chosen)) = upstream
        && let Way::Program(program) = &chosen.hop.way
    {
        program.plain.give_back(connection);
    }
}

impl Detected {
    pub fn new(protocol: Protocol, how: How, upstream: Option<(Upstream, Chosen)>) -> Self {
        let undecided = how == How::HoldLimit && protocol == Protocol::Opaque;
        Self { protocol, how, upstream, beginning: undecided.then_some(Beginning::Undecided) }
    }
}

fn heard(
    detector: &mut Detector,
    client: &Connection,
    read: std::io::Result<usize>,
    begin: Instant,
) -> Result<Step, Failed> {
    match read {
        Ok(0) => Ok(detector.on_client_eof()),
        Ok(_) => {
            debug_assert!(client.reader.buffered().len() <= 2 * MAX_PEEK);
            Ok(detector.on_client(client.reader.buffered(), begin.elapsed()))
        }
        Err(_) => Err(Failed::client_gone()),
    }
}
