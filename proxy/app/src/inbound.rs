//! A connection that arrives: from a peer proxy, or from outside of the mesh, to the application. Read `serve` from top to
//! bottom; `stream` is the same for each stream of a peer.

use crate::{
    destination::{Hops, Local},
    detection::{self, Detected, detect},
    hop::Hop,
    logged::{self, Origin},
    requests::{Requests, Route},
    routed::Routed,
    streams, tcp,
    telemetry::Direction::Inbound,
    worker::{Beginning, Worker},
};
use bytes::BytesMut;
use policy::{Reason, limits::LOCAL_CONNECT_WAIT};
use proxy_detect::Protocol;
use proxy_http::{
    accept::Accepted,
    client::Client,
    connection::Connection,
    failed::Failed,
    head::StreamRequest,
    served::Incoming,
    tcp::{Carried, stream_to_tcp},
};
use proxy_transport::Stream;
use std::rc::Rc;
use tokio::time::Instant;

/// accept → original destination → port policy → `weft/1`: handshake, streams; else protocol → requests or bytes → application.
pub async fn serve(worker: Rc<Worker>, client: Stream) {
    let Ok(original) = client.original_destination() else { return client.reset_on_drop() };
    if worker.is_own_port(original.port()) {
        let reason = Reason::ProxyLoopDetected;
        tracing::warn!(%original, %reason, "a connection was made to the proxy itself");
        worker.telemetry.reason(Inbound, None, reason);
        return tcp::turn_away(&worker, Inbound, client, reason, "it was made to the proxy itself");
    }
    let local = worker.local(original).await;
    let origin = Origin::new(&worker, original, &client);
    let path = Box::new(tcp::Path::new(&worker, Inbound, origin, routed(&local, &local.hop)));
    let mut client = Connection::new(client, BytesMut::new());
    let service_port = local.service();
    // Not that its server speaks first: connecting to it before it is known that no peer proxy calls would be for nothing.
    let remembered = service_port.as_ref().and_then(|service| worker.beginning(service));
    let remembered = remembered.filter(|beginning| *beginning == Beginning::Undecided);
    // Each phase has a box of its own, as in `outbound`.
    match Box::pin(detect(&mut client, remembered, || path.connect())).await {
        // Even if it was slow to speak, so that the application has been connected to: it is not for the application.
        Ok(Detected { protocol: Protocol::Tls(hello), .. }) if hello.offers(proxy_tls::ALPN) => {
            let (stream, read) = client.into_parts();
            let origin = path.origin;
            Box::pin(peer(worker, local, origin, stream, read)).await;
        }
        Ok(Detected { protocol, how, upstream, beginning }) => {
            if let (Some(beginning), Some(service)) = (beginning, &service_port) {
                worker.remember(service, beginning);
            }
            worker.telemetry.detected(Inbound, protocol.as_str(), how.as_str());
            let route = Arrived { hop: local.hop.clone(), local };
            match protocol {
                Protocol::Http1 => {
                    detection::keep(upstream);
                    let origin = path.origin;
                    let requests = Requests { worker, direction: Inbound, origin, route };
                    Box::pin(requests.serve_http1(client)).await;
                }
                Protocol::Http2 => {
                    let origin = path.origin;
                    let requests = Requests { worker, direction: Inbound, origin, route };
                    Box::pin(requests.serve_http2(client)).await;
                }
                Protocol::Tls(_) | Protocol::Opaque => Box::pin(path.carry(client, upstream)).await,
            }
        }
        Err(failed) => path.refuse(client, &failed),
    }
}

/// A peer proxy: the handshake, then its streams, side by side.
async fn peer(worker: Rc<Worker>, local: Rc<Local>, origin: Origin, socket: Stream, read: BytesMut) {
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
            return logged::Connection::refused(&origin, service.as_deref(), &failed).log(&worker, Inbound);
        }
    };
    let outcome = if accepted.is_resumed() { "resumed" } else { "full" };
    worker.telemetry.handshake(Inbound, outcome, accepted.key_exchange());
    let hop = local.hop_of(&worker, accepted.peer());
    hop.edge.connection_opened();
    let origin = Origin { identity: Some(accepted.peer().clone()), ..origin };
    let Accepted { streams, .. } = accepted;
    let route = Arrived { local: local.clone(), hop: hop.clone() };
    let requests = Rc::new(Requests { worker: worker.clone(), direction: Inbound, origin, route });
    let refused = || requests.refuse_stream();
    let ended = streams::serve(&worker, Inbound, streams, refused, |incoming| {
        stream(requests.clone(), local.clone(), hop.clone(), incoming)
    });
    if let Err(error) = ended.await {
        tracing::debug!(from, "a peer's connection broke: {error}");
    }
    hop.edge.connection_closed();
}

/// One stream: a message or a TCP connection, as it says itself.
async fn stream(requests: Rc<Requests<Arrived>>, local: Rc<Local>, hop: Rc<Hop>, incoming: Incoming) {
    let Incoming { request, respond, open } = incoming;
    let (parts, body) = request.into_parts();
    match StreamRequest::wire(parts) {
        Ok(request) => requests.one(Client::http2(request, body, respond, open)).await,
        Err(parts) => {
            let request = http::Request::from_parts(*parts, body);
            tcp_stream(&requests, &local, &hop, Incoming { request, respond, open }).await;
        }
    }
}

/// What has arrived at one of our own ports goes to the application there.
struct Arrived {
    local: Rc<Local>,
    hop: Rc<Hop>,
}

impl Route for Arrived {
    fn service(&self) -> Option<Rc<str>> {
        self.local.said().1
    }

    fn route(&self, _: &Client) -> Routed {
        routed(&self.local, &self.hop)
    }
}

fn routed(local: &Local, hop: &Rc<Hop>) -> Routed {
    let (protocol, service) = local.said();
    Routed::to(Hops::One(hop.clone()), protocol, service)
}

async fn tcp_stream(requests: &Requests<Arrived>, local: &Local, hop: &Hop, mut incoming: Incoming) {
    let (begun, edge) = (Instant::now(), &hop.edge);
    let (carried, ended) = match local.plain().connect_plain(LOCAL_CONNECT_WAIT).await {
        Ok(stream) => {
            let mut connection = Connection::new(stream, BytesMut::new());
            let (carried, ended) = stream_to_tcp(incoming, &mut connection).await;
            if ended.is_err() {
                connection.stream().reset_on_drop();
            }
            (carried, ended)
        }
        Err(failed) => {
            // The application has seen nothing of it: another one may take it.
            incoming.respond.send_reset(h2::Reason::REFUSED_STREAM);
            (Carried::default(), Err(failed))
        }
    };
    edge.sent(carried.to_client);
    edge.received(carried.from_client);
    let failed = ended.err();
    if let Some(failed) = &failed {
        edge.failed(failed.reason);
    }
    let service = requests.route.service();
    let line = logged::Connection {
        origin: &requests.origin,
        service: service.as_deref(),
        hop: Some(hop),
        attempts: 1,
        elapsed: begun.elapsed(),
        carried,
        failed: failed.as_ref(),
    };
    line.log(&requests.worker, Inbound);
}
