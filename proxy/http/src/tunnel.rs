//! Bytes both ways: a TCP connection, or what an upgrade or a CONNECT opened.

use crate::{
    body::{BodyError, Meter, Sink, Source, pump},
    bounds::Bounds,
    failed::{Failed, Replay},
};
use policy::{Reason, limits::HALF_CLOSED_IDLE};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};
use tokio::time::timeout;

/// Carries both directions until both have ended. The end of one is passed on and the other lives on (RFC 9293 §3.6), as long
/// as something still moves; a reset of one side becomes a reset of the other, once all that came before it has gone.
pub async fn tunnel(
    mut up: (Source<'_>, Sink<'_>),
    mut down: (Source<'_>, Sink<'_>),
    sent: &Meter<'_>,
    received: &Meter<'_>,
    bounds: Bounds<'_>,
) -> Result<(), Failed> {
    let ended = {
        let upload = async { pump(&mut up.0, &mut up.1, sent).await.map(|_| ()) };
        let download = async { pump(&mut down.0, &mut down.1, received).await.map(|_| ()) };
        let moved = || sent.bytes() + received.bytes();
        let carried = pin!(either_way(upload, download, moved));
        bounds.keep(carried, || Some(moved())).await
    };
    if let Err(failed) = &ended {
        // HTTP/2 forgets what a stream has queued when it is reset: let its connection take that first.
        tokio::task::yield_now().await;
        let code = failed.reset.unwrap_or(h2::Reason::CANCEL);
        up.1.abort(code);
        // A connection that nobody has taken yet may be offered to somebody else.
        if failed.replay != Replay::Untouched {
            down.1.abort(code);
        }
    }
    ended
}

async fn either_way(
    upload: impl Future<Output = Result<(), BodyError>>,
    download: impl Future<Output = Result<(), BodyError>>,
    moved: impl Fn() -> u64,
) -> Result<(), Failed> {
    let (mut upload, mut download) = (pin!(upload), pin!(download));
    let (mut sent, mut received) = (false, false);
    let mut poll_both = |cx: &mut Context<'_>| -> Result<bool, Failed> {
        if !sent && let Poll::Ready(ended) = upload.as_mut().poll(cx) {
            quietly(ended).map_err(|error| broken(&error))?;
            sent = true;
        }
        if !received && let Poll::Ready(ended) = download.as_mut().poll(cx) {
            quietly(ended).map_err(|error| broken(&error))?;
            received = true;
        }
        Ok(sent || received)
    };
    // As long as both directions live, nothing bounds their silence.
    poll_fn(|cx| match poll_both(cx) {
        Ok(false) => Poll::Pending,
        ended => Poll::Ready(ended.map(|_| ())),
    })
    .await?;
    match (sent, received) {
        (true, true) => Ok(()),
        (true, false) => last(download, moved).await,
        (false, _) => last(upload, moved).await,
    }
}

/// The direction that is left, until it ends or nothing moves any more.
async fn last(
    mut direction: Pin<&mut impl Future<Output = Result<(), BodyError>>>,
    moved: impl Fn() -> u64,
) -> Result<(), Failed> {
    loop {
        let before = moved();
        match timeout(HALF_CLOSED_IDLE, direction.as_mut()).await {
            Ok(ended) => return quietly(ended).map_err(|error| broken(&error)),
            Err(_) if moved() > before => {}
            Err(_) => return Err(Failed::new(Reason::ConnectionTerminated, "half-closed and silent")),
        }
    }
}

/// A side that wants no more, but has not failed, lets the other direction go on (RFC 9113 §8.1).
fn quietly(ended: Result<(), BodyError>) -> Result<(), BodyError> {
    match ended {
        Err(BodyError::Sink(failure)) if failure.reset() == Some(h2::Reason::NO_ERROR) => Ok(()),
        ended => ended,
    }
}

fn broken(error: &BodyError) -> Failed {
    let (BodyError::Source(failure) | BodyError::Sink(failure)) = error;
    let reset = failure.reset();
    if reset == Some(h2::Reason::REFUSED_STREAM) {
        let detail = "the peer proxy could not reach its application";
        return Failed::untouched(Reason::ConnectionTerminated, detail).reset(reset);
    }
    Failed::new(Reason::ConnectionTerminated, error.to_string()).reset(reset)
}

#[cfg(test)]
mod tests;
