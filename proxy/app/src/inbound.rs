//! A connection that arrives: from a peer proxy, or from outside of the mesh, to the application. Read `serve` from top to
//! bottom; `stream` is the same for each stream of a peer.

use crate::{
    destination::{Hops, Local},
    detection::{Detected, detect},
    requests::{Requests, Routed},
    respond::Answer,
    tcp,
    telemetry::{Direction::Inbound, Edge},
    worker::{Beginning, Worker},
};
use bytes::BytesMut;
use policy::{Reason, limits::LOCAL_CONNECT_WAIT};
use proxy_detect::Protocol;
use proxy_http::{
    accept::{Accepted, Incoming},
    connection::Connection,
    exchange::{self, Answered},
    failed::{Failed, Replay},
    head::StreamRequest,
};
use proxy_transport::Stream;
use std::{future::Future, future::poll_fn, pin::pin, rc::Rc, sync::Arc};
use tokio::time::Instant;

/// accept → original destination → port policy → `weft/1`: handshake, streams; else protocol → requests or bytes → application.
pub async fn serve(worker: Rc<Worker>, client: Stream) {
    let Ok(original) = client.original_destination() else { return client.reset_on_drop() };
    if worker.is_own_port(original.port()) {
        tracing::warn!(%original, reason = %Reason::ProxyLoopDetected, "a connection was made to the proxy itself");
        worker.telemetry.reason(Inbound, None, Reason::ProxyLoopDetected);
        return client.reset_on_drop();
    }
    let local = worker.local(original).await;
    let mut client = Connection::new(client, BytesMut::new());
    let hops = Hops::One(local.hop.clone());
    let service_port = local.service();
    let service: Option<Rc<str>> = service_port.as_ref().map(|service| service.to_string().into());
    // Not that its server speaks first: connecting to it before it is known that no peer proxy calls would be for nothing.
    let remembered = service_port.as_ref().and_then(|service| worker.beginning(service));
    let remembered = remembered.filter(|beginning| *beginning == Beginning::Undecided);
    // Each phase has a box of its own, as in `outbound`.
    let connect = || tcp::connect(&worker, &hops, LOCAL_CONNECT_WAIT);
    match Box::pin(detect(&mut client, remembered, connect)).await {
        // Even if it was slow to speak, so that the application has been connected to: it is not for the application.
        Ok(Detected { protocol: Protocol::Tls(hello), .. }) if hello.offers(proxy_tls::ALPN) => {
            let (stream, read) = client.into_parts();
            Box::pin(peer(worker, local, stream, read)).await;
        }
        Ok(Detected { protocol, how, upstream, beginning }) => {
            if let (Some(beginning), Some(service)) = (beginning, &service_port) {
                worker.remember(service, beginning);
            }
            worker.telemetry.detected(Inbound, protocol.as_str(), how.as_str());
            if protocol == Protocol::Http1 {
                let route = move || Routed {
                    hops: hops.clone(),
                    connect_timeout: LOCAL_CONNECT_WAIT,
                    service: service.clone(),
                };
                Box::pin(Requests { worker, direction: Inbound, route }.serve(client)).await;
            } else {
                let connect_timeout = LOCAL_CONNECT_WAIT;
                let path = tcp::Path { worker: &worker, direction: Inbound, hops, connect_timeout, service };
                Box::pin(path.carry(client, upstream)).await;
            }
        }
        Err(failed) => tcp::refuse(&worker, Inbound, service, client, &failed),
    }
}

/// A peer proxy: the handshake, then its streams, side by side.
async fn peer(worker: Rc<Worker>, local: Rc<Local>, stream: Stream, read: BytesMut) {
    let from = stream.peer_address().map(|address| address.to_string()).unwrap_or_default();
    let accepted = match worker.credentials() {
        Some(credentials) => Box::pin(Accepted::handshake(stream, read, &credentials)).await,
        None => Err(Failed::new(Reason::TlsCertificateError, "this proxy holds no certificate yet")),
    };
    let mut accepted = match accepted {
        Ok(accepted) => accepted,
        Err(failed) => {
            worker.telemetry.handshake(Inbound, failed.reason.as_str(), "");
            let service = local.service().map(|service| service.to_string());
            worker.telemetry.reason(Inbound, service.as_deref(), failed.reason);
            tracing::warn!(from, reason = %failed.reason, "a peer was refused: {}", failed.detail);
            return;
        }
    };
    let outcome = if accepted.is_resumed() { "resumed" } else { "full" };
    worker.telemetry.handshake(Inbound, outcome, accepted.key_exchange());
    let edge = local.edge(&worker, accepted.peer());
    edge.connection_opened();
    let mut drained = pin!(worker.drained());
    let mut draining = false;
    loop {
        let next = poll_fn(|cx| {
            if !draining && drained.as_mut().poll(cx).is_ready() {
                draining = true;
                accepted.drain();
            }
            accepted.poll_next(cx)
        });
        match next.await {
            Some(Ok(incoming)) => {
                tokio::task::spawn_local(stream_of(worker.clone(), local.clone(), edge.clone(), incoming));
            }
            Some(Err(error)) => {
                tracing::debug!(from, "a peer's connection broke: {error}");
                break;
            }
            None => break,
        }
    }
    edge.connection_closed();
}

/// One stream: a message or a TCP connection, as it says itself.
async fn stream_of(worker: Rc<Worker>, local: Rc<Local>, edge: Arc<Edge>, (request, respond): Incoming) {
    let Some(_counted) = worker.count(policy::limits::CONNECTIONS) else { return };
    let (parts, body) = request.into_parts();
    match StreamRequest::new(parts) {
        Ok(request) => message(&local, &edge, request, body, respond).await,
        Err(parts) => tcp_stream(&local, &edge, (http::Request::from_parts(*parts, body), respond)).await,
    }
}

async fn message(
    local: &Local,
    edge: &Edge,
    request: StreamRequest,
    body: h2::RecvStream,
    mut respond: h2::server::SendResponse<bytes::Bytes>,
) {
    let begin = Instant::now();
    edge.request_started();
    let mut body = Some(body).filter(|body| !body.is_end_stream());
    let without_body = body.is_none();
    loop {
        let attempted = attempt(local, &request, body.take(), &mut respond).await;
        match attempted {
            Ok(answered) => {
                edge.sent(answered.response_bytes);
                edge.received(answered.request_bytes);
                edge.request_finished(answered.status, begin.elapsed());
                return;
            }
            // A pooled connection to the application had died.
            Err(failed)
                if failed.replay == Replay::IfIdempotent
                    && without_body
                    && request.method.is_idempotent() => {}
            Err(failed) => {
                edge.failed(failed.reason);
                edge.request_finished(
                    if failed.answered { 0 } else { failed.reason.status() },
                    begin.elapsed(),
                );
                return refuse(local, &failed, &mut respond);
            }
        }
    }
}

async fn attempt(
    local: &Local,
    request: &StreamRequest,
    body: Option<h2::RecvStream>,
    respond: &mut h2::server::SendResponse<bytes::Bytes>,
) -> Result<Answered, Failed> {
    let plain = local.plain();
    let mut taken = plain.take(LOCAL_CONNECT_WAIT).await?;
    let (connection, reused) = (&mut taken.connection, taken.reused);
    let answered = exchange::stream_to_plain(request, body, respond, connection, reused).await?;
    if answered.hop_reusable {
        plain.give_back(taken.connection);
    }
    Ok(answered)
}

/// A peer is told what went wrong, or, when its client has a part of an answer already, that it is not whole.
fn refuse(local: &Local, failed: &Failed, respond: &mut h2::server::SendResponse<bytes::Bytes>) {
    if failed.answered {
        return respond.send_reset(h2::Reason::INTERNAL_ERROR);
    }
    let answer = Answer::new(Inbound, failed, None, Some(local.plain().address()), true);
    let (response, body) = answer.to_stream();
    // A peer that has gone meanwhile needs no answer.
    if let Ok(mut send) = respond.send_response(response, false) {
        let _ = send.send_data(body, true);
    }
}

async fn tcp_stream(local: &Local, edge: &Edge, incoming: Incoming) {
    let stream = match local.plain().connect(LOCAL_CONNECT_WAIT).await {
        Ok(stream) => stream,
        Err(failed) => {
            edge.failed(failed.reason);
            let (_, mut respond) = incoming;
            return respond.send_reset(h2::Reason::CONNECT_ERROR);
        }
    };
    let mut hop = Connection::new(stream, BytesMut::new());
    match exchange::stream_to_tcp(incoming, &mut hop).await {
        Ok(carried) => {
            edge.sent(carried.response_bytes);
            edge.received(carried.request_bytes);
        }
        Err(failed) => {
            edge.failed(failed.reason);
            hop.stream().reset_on_drop();
        }
    }
}
