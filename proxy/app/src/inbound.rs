//! A connection that arrives: from a peer proxy, or from outside of the mesh, to the application. Read `serve` from top to
//! bottom; `stream` is the same for each stream of a peer.

use crate::{
    destination::{Hops, Local},
    detection::{self, Detected, detect},
    hop::Hop,
    requests::{Requests, Routed},
    streams, tcp,
    telemetry::{Direction::Inbound, Edge},
    worker::{Beginning, Worker},
};
use bytes::BytesMut;
use policy::{Reason, limits::LOCAL_CONNECT_WAIT};
use proxy_detect::Protocol;
use proxy_http::{
    accept::Accepted, client::Client, connection::Connection, failed::Failed, head::StreamRequest,
    served::Incoming, tcp::stream_to_tcp,
};
use proxy_transport::Stream;
use std::rc::Rc;

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
            let route = {
                let local = local.clone();
                move || routed(&local, &local.hop)
            };
            match protocol {
                Protocol::Http1 => {
                    detection::keep(upstream);
                    Box::pin(Requests { worker, direction: Inbound, route }.serve_http1(client)).await;
                }
                Protocol::Http2 => {
                    Box::pin(Requests { worker, direction: Inbound, route }.serve_http2(client)).await;
                }
                Protocol::Tls(_) | Protocol::Opaque => {
                    let connect_timeout = LOCAL_CONNECT_WAIT;
                    let path =
                        tcp::Path { worker: &worker, direction: Inbound, hops, connect_timeout, service };
                    Box::pin(path.carry(client, upstream)).await;
                }
            }
        }
        Err(failed) => tcp::refuse(&worker, Inbound, service, client, &failed),
    }
}

/// A peer proxy: the handshake, then its streams, side by side.
async fn peer(worker: Rc<Worker>, local: Rc<Local>, socket: Stream, read: BytesMut) {
    let from = socket.peer_address().map(|address| address.to_string()).unwrap_or_default();
    let accepted = match worker.credentials() {
        Some(credentials) => Box::pin(Accepted::handshake(socket, read, &credentials)).await,
        None => Err(Failed::new(Reason::TlsCertificateError, "this proxy holds no certificate yet")),
    };
    let accepted = match accepted {
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
    let hop = local.hop_of(&worker, accepted.peer());
    hop.edge.connection_opened();
    let Accepted { streams, .. } = accepted;
    let route = {
        let (local, hop) = (local.clone(), hop.clone());
        move || routed(&local, &hop)
    };
    let requests = Rc::new(Requests { worker: worker.clone(), direction: Inbound, route });
    let ended = streams::serve(&worker, Inbound, streams, |incoming| {
        stream(requests.clone(), local.clone(), hop.clone(), incoming)
    });
    if let Err(error) = ended.await {
        tracing::debug!(from, "a peer's connection broke: {error}");
    }
    hop.edge.connection_closed();
}

/// One stream: a message or a TCP connection, as it says itself.
async fn stream<F: Fn() -> Routed + 'static>(
    requests: Rc<Requests<F>>,
    local: Rc<Local>,
    hop: Rc<Hop>,
    incoming: Incoming,
) {
    let Incoming { request, respond, open } = incoming;
    let (parts, body) = request.into_parts();
    match StreamRequest::wire(parts) {
        Ok(request) => requests.one(Client::http2(request, body, respond, open)).await,
        Err(parts) => {
            let request = http::Request::from_parts(*parts, body);
            tcp_stream(&local, &hop.edge, Incoming { request, respond, open }).await;
        }
    }
}

fn routed(local: &Local, hop: &Rc<Hop>) -> Routed {
    Routed {
        hops: Hops::One(hop.clone()),
        connect_timeout: LOCAL_CONNECT_WAIT,
        protocol: local.protocol(),
        service: local.service().map(|service| service.to_string().into()),
    }
}

async fn tcp_stream(local: &Local, edge: &Edge, incoming: Incoming) {
    let stream = match local.plain().connect(LOCAL_CONNECT_WAIT).await {
        Ok(stream) => stream,
        Err(failed) => {
            edge.failed(failed.reason);
            let mut respond = incoming.respond;
            return respond.send_reset(h2::Reason::CONNECT_ERROR);
        }
    };
    let mut hop = Connection::new(stream, BytesMut::new());
    match stream_to_tcp(incoming, &mut hop).await {
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
