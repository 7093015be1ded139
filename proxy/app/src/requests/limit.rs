//! Limits of a backend on what is under way to it. What is over them is refused at once: who waits would only make it worse.

use super::Exchange;
use crate::{
    routed::Routed,
    telemetry::{Limited, Permit},
};
use proxy_http::failed::Failed;
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

/// What a request takes of the limits, for as long as it lasts.
pub(super) struct Permits {
    _request: Option<Permit>,
    _tunnel: Option<Permit>,
}

/// Of the limits of its backend.
pub(super) fn permits(exchange: &Exchange) -> Result<Permits, Failed> {
    let routed = &exchange.routed;
    let (Some(allowance), Some(backend)) = (routed.allowance(), routed.backend()) else {
        return Ok(Permits { _request: None, _tunnel: None });
    };
    let limits = &backend.limits;
    let connections = limits.max_connections.as_ref().filter(|_| exchange.client.opens_tunnel());
    Ok(Permits {
        _request: allowance.take(Limited::Requests, limits.max_requests.as_ref())?,
        _tunnel: allowance.take(Limited::Connections, connections)?,
    })
}

/// Waits for a connection, if so many may.
pub(super) async fn pending<T>(
    routed: &Routed,
    mut wait: Pin<&mut impl Future<Output = Result<T, Failed>>>,
) -> Result<T, Failed> {
    let limit = routed.backend().and_then(|backend| backend.limits.max_pending_requests.as_ref());
    let mut _permit = None;
    if let (Some(_), Some(allowance)) = (limit, routed.allowance()) {
        // Nearly always there is a connection, and nobody waits.
        if let Poll::Ready(held) = poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await {
            return held;
        }
        _permit = allowance.take(Limited::Pending, limit)?;
    }
    wait.await
}
