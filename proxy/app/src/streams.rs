//! The streams of an HTTP/2 connection, side by side.

use crate::{telemetry::Direction, worker::Worker};
use policy::limits;
use proxy_http::served::{Incoming, Served};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves a connection to its end, each of its streams by `each`. When the proxy drains, no new ones are taken. `refused` is told
/// of a stream for which there is no room.
pub async fn serve<S, F>(
    worker: &Rc<Worker>,
    direction: Direction,
    mut served: Served<S>,
    refused: impl Fn(),
    each: impl Fn(Incoming) -> F,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()> + 'static,
{
    let mut drained = pin!(worker.drained());
    let mut draining = false;
    loop {
        let next = poll_fn(|cx| {
            if !draining && drained.as_mut().poll(cx).is_ready() {
                draining = true;
                served.drain();
            }
            served.poll_next(cx)
        });
        let mut incoming = match next.await {
            Some(incoming) => incoming?,
            None => return Ok(()),
        };
        let counted = if incoming.open.is_too_much() {
            worker.refuse(direction, "streams with long heads", limits::HEADS_BYTES)
        } else {
            worker.count(direction)
        };
        let Some(counted) = counted else {
            // Not one byte of it has been used: it may be sent to somebody else (RFC 9113 §8.7).
            incoming.respond.send_reset(h2::Reason::REFUSED_STREAM);
            refused();
            continue;
        };
        let stream = each(incoming);
        tokio::task::spawn_local(async move {
            stream.await;
            drop(counted);
        });
    }
}
