//! One request without a body, sent to several next hops: when the first one is slow, another one is asked too. The first head of an
//! answer wins, and what the others have to say is not waited for: their streams are reset, their connections closed.

use super::{Answered, Count, Progress, Way, broken_off};
use crate::{
    body::BodyError,
    client::{Client, Sides},
    failed::Failed,
    head::RequestRef,
    next_hop::{Begun, NextHop},
    streams::Lease,
};
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Makes ready another next hop.
pub type Racer<'a> = Pin<Box<dyn Future<Output = Result<NextHop<'a>, Failed>> + 'a>>;

/// A request that has the first head of its answer.
struct Asked<'a> {
    begun: Begun<'a>,
    status: u16,
    lease: Option<&'a Lease>,
}

type Asking<'a> = Pin<Box<dyn Future<Output = Result<Asked<'a>, Failed>> + 'a>>;

/// Carries a client's request, which has no body, to `first`, and each `delay` to one more as long as there is `another`. How it ended,
/// and with which of them, which `winner` says as soon as it is known: 0 is the first.
pub async fn race<'a>(
    client: &'a mut Client,
    first: NextHop<'a>,
    delay: Duration,
    another: impl FnMut() -> Option<Racer<'a>>,
    winner: &Cell<usize>,
    progress: &'a Progress<'a>,
) -> (Result<Answered, Failed>, usize) {
    let (http1, grpc) = (matches!(client, Client::Http1(_)), client.is_grpc());
    let Sides { head, mut source, kept, mut responder } = client.sides();
    let won = {
        let mut watch = Some(pin!(source.watch()));
        let mut heats = Heats { head, running: Vec::new(), delay, another, failed: None };
        heats.running.push(Some(Box::pin(ask(head, first))));
        let mut next = pin!(sleep(delay));
        let won = poll_fn(|cx| {
            if let Poll::Ready(gone) = responder.poll_gone(cx) {
                return Poll::Ready(Err((gone, 0)));
            }
            if let Some(watched) = &mut watch
                && let Poll::Ready(ended) = watched.as_mut().poll(cx)
            {
                watch = None;
                if let Err(BodyError::Source(failure)) = ended {
                    return Poll::Ready(Err((broken_off(&failure), 0)));
                }
            }
            heats.poll(cx, next.as_mut())
        });
        // Whom a limit stops, it stops as the first one's.
        let won = pin!(async { Ok(won.await) });
        let bounded = progress.bounds.keep(won, || None).await;
        bounded.unwrap_or_else(|over| Err((over, 0)))
    };
    let (Asked { begun: Begun { mut sink, mut answers }, status, lease }, at) = match won {
        Ok(won) => won,
        Err((failed, at)) => return (Err(failed), at),
    };
    winner.set(at);
    let count = Count::of(lease);
    let way = Way { kept, has_body: false, http1, grpc, first: Some(status), progress, count: &count };
    (way.message(&mut source, &mut sink, &mut answers, responder).await, at)
}

/// All that have been asked.
struct Heats<'a, F> {
    head: RequestRef<'a>,
    /// By their number; `None`: it has failed.
    running: Vec<Option<Asking<'a>>>,
    delay: Duration,
    another: F,
    /// How the last one failed.
    failed: Option<(Failed, usize)>,
}

type Won<'a> = Result<(Asked<'a>, usize), (Failed, usize)>;

impl<'a, F: FnMut() -> Option<Racer<'a>>> Heats<'a, F> {
    fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        mut next: Pin<&mut tokio::time::Sleep>,
    ) -> Poll<Won<'a>> {
        let mut begun = 0;
        loop {
            for at in begun..self.running.len() {
                let Some(running) = &mut self.running[at] else { continue };
                match running.as_mut().poll(cx) {
                    Poll::Ready(Ok(asked)) => return Poll::Ready(Ok((asked, at))),
                    Poll::Ready(Err(failed)) => {
                        self.running[at] = None;
                        self.failed = Some((failed, at));
                    }
                    Poll::Pending => {}
                }
            }
            // Once all have failed, nobody else is asked: that is for who repeats requests to say.
            if self.running.iter().all(Option::is_none) {
                return Poll::Ready(Err(self.failed.take().expect("each that has ended has failed")));
            }
            if next.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let Some(racer) = (self.another)() else { return Poll::Pending };
            let head = self.head;
            begun = self.running.len();
            self.running.push(Some(Box::pin(async move { ask(head, racer.await?).await })));
            next.as_mut().reset(Instant::now() + self.delay);
        }
    }
}

async fn ask<'a>(head: RequestRef<'a>, hop: NextHop<'a>) -> Result<Asked<'a>, Failed> {
    let lease = hop.lease();
    let mut begun = hop.begin(head, true)?;
    // A next hop that takes no more may still answer; if it does not, that says more.
    let _ = begun.sink.flush().await;
    let status = poll_fn(|cx| begun.answers.poll_next(cx)).await?;
    Ok(Asked { begun, status, lease })
}
