//! A connection that leaves: from the application to wherever it dialled. Read `serve` from top to bottom.

use crate::{
    destination::Destination,
    detection::{self, Detected, detect, http_of},
    logged::Origin,
    requests::{Requests, Route},
    routed::Routed,
    tcp,
    telemetry::Direction::Outbound,
    worker::Worker,
};
use bytes::BytesMut;
use policy::Reason;
use proxy_detect::{How, Protocol};
use proxy_http::{client::Client, connection::Connection, failed::Failed};
use proxy_transport::Stream;
use std::rc::Rc;

/// accept → original destination → policy → protocol → requests (route, balance, replay, measure) or bytes → next hop.
pub async fn serve(worker: Rc<Worker>, client: Stream) {
    let Ok(original) = client.original_destination() else { return client.reset_on_drop() };
    if worker.is_own_port(original.port()) && is_direct(&client, original) {
        let reason = Reason::ProxyLoopDetected;
        tracing::warn!(%original, %reason, "a connection was made to the proxy itself");
        worker.telemetry.reason(Outbound, None, reason);
        return tcp::turn_away(&worker, Outbound, client, reason, "it was made to the proxy itself");
    }
    let destination = worker.destination(original).await;
    let origin = Origin::new(&worker, original, &client);
    let resolved = destination.resolve(&worker);
    let path =
        Box::new(tcp::Path::new(&worker, Outbound, origin, Routed::connection(&worker, resolved, None)));
    let mut client = Connection::new(client, BytesMut::new());
    // Each phase has a box of its own, so that a connection holds no more memory than its phase needs: 15 KiB otherwise.
    match Box::pin(protocol(&path, &destination, &mut client)).await {
        Ok(Detected { protocol: protocol @ (Protocol::Http1 | Protocol::Http2), upstream, .. }) => {
            detection::keep(upstream.filter(|_| protocol == Protocol::Http1));
            let origin = path.origin;
            let route = Dialled { worker: worker.clone(), destination };
            let requests = Requests { worker, direction: Outbound, origin, route };
            if protocol == Protocol::Http1 {
                Box::pin(requests.serve_http1(client)).await;
            } else {
                Box::pin(requests.serve_http2(client)).await;
            }
        }
        // TLS of the application's own travels as bytes. Where it is routed, the name that its client asks for decides.
        Ok(Detected { protocol: Protocol::Tls(hello), upstream, .. }) if path.is_named() => {
            drop(upstream);
            let resolved = destination.resolve(&worker);
            let routed = Routed::connection(&worker, resolved, Some(hello.server_name()));
            Box::pin(path.tls().routed(routed).carry(client, None)).await;
        }
        Ok(Detected { protocol: Protocol::Tls(_), upstream, .. }) => {
            // One that was made before the client spoke has begun with TLS of ours, if the server is to be spoken to by that.
            let upstream = upstream.filter(|(_, chosen)| chosen.hop.endpoint.tls.is_none());
            Box::pin(path.tls().carry(client, upstream)).await;
        }
        Ok(Detected { upstream, .. }) => Box::pin(path.carry(client, upstream)).await,
        Err(failed) => path.refuse(client, &failed),
    }
}

/// Declared, remembered or detected: what the client speaks.
async fn protocol(
    path: &tcp::Path<'_>,
    destination: &Destination,
    client: &mut Connection,
) -> Result<Detected, Failed> {
    let worker = path.worker;
    let resolved = destination.resolve(worker);
    let remembered = resolved.service.as_ref().and_then(|service| worker.beginning(service));
    let known = match resolved.policy.protocol {
        policy::Protocol::Opaque | policy::Protocol::Tls if path.is_named() => None,
        policy::Protocol::Opaque | policy::Protocol::Tls => Some(Protocol::Opaque),
        declared @ (policy::Protocol::Http1 | policy::Protocol::Http2 | policy::Protocol::Grpc) => {
            Some(http_of(worker, client, declared).await)
        }
        policy::Protocol::Auto => None,
    };
    let detected = match known {
        Some(protocol) => Detected::new(protocol, How::AppProtocol, None),
        None => detect(client, remembered, || path.connect()).await?,
    };
    if let (Some(beginning), Some(service)) = (detected.beginning, &resolved.service) {
        worker.remember(service, beginning);
    }
    worker.telemetry.detected(Outbound, detected.protocol.as_str(), detected.how.as_str());
    Ok(detected)
}

/// What the application dialled: each request is decided by the policy that holds when it comes.
struct Dialled {
    worker: Rc<Worker>,
    destination: Rc<Destination>,
}

impl Route for Dialled {
    fn service(&self) -> Option<Rc<str>> {
        self.destination.resolve(&self.worker).label.clone()
    }

    fn route(&self, client: &Client) -> Routed {
        Routed::request(&self.worker, self.destination.resolve(&self.worker), client)
    }
}

/// Nobody redirected it: the client dialled one of our own addresses, and so the proxy.
fn is_direct(client: &Stream, original: std::net::SocketAddr) -> bool {
    client.local_address().is_ok_and(|local| local == original)
}
