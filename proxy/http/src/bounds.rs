//! How long something on its way may take, and how long nothing of it may move. Whose limits these are is for those to say who
//! set them. Without a limit there is no timer.

use crate::{failed::Failed, grpc};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// The limits of one exchange or connection.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// When it is over, whole or not.
    pub deadline: Option<Instant>,
    /// For so long nothing may move.
    pub idle: Option<Duration>,
    /// What it has failed of then.
    pub failed: &'a dyn Fn(Over) -> Failed,
}

/// Which limit was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Deadline,
    /// That of a tunnel.
    TunnelDeadline,
    Idle,
}

impl Bounds<'_> {
    pub const NONE: Bounds<'static> = Bounds { deadline: None, idle: None, failed: &|_| grpc::overdue() };

    /// Runs `carry` within the limits. `moved`: how much has moved; `None` while it is somebody's turn who may be silent.
    pub(crate) async fn keep<T>(
        &self,
        carry: Pin<&mut impl Future<Output = Result<T, Failed>>>,
        moved: impl Fn() -> Option<u64>,
    ) -> Result<T, Failed> {
        if self.deadline.is_none() && self.idle.is_none() {
            return carry.await;
        }
        // Boxed: a timer would take room in the future of everything that has none.
        Box::pin(self.watch(carry, moved)).await
    }

    async fn watch<T>(
        &self,
        mut carry: Pin<&mut impl Future<Output = Result<T, Failed>>>,
        moved: impl Fn() -> Option<u64>,
    ) -> Result<T, Failed> {
        let mut seen = (moved(), Instant::now());
        loop {
            let silent = self.idle.and_then(|idle| seen.0.and_then(|_| seen.1.checked_add(idle)));
            let next = poll_fn(|cx| {
                if let Poll::Ready(ended) = carry.as_mut().poll(cx) {
                    return Poll::Ready(Some(ended));
                }
                let now = moved();
                if now == seen.0 {
                    return Poll::Pending;
                }
                // Silence that counts from now on wants a timer; what has moved meanwhile is seen when the last one rings.
                let begins = self.idle.is_some() && seen.0.is_none();
                seen = (now, Instant::now());
                if begins { Poll::Ready(None) } else { Poll::Pending }
            });
            let ended = match [self.deadline, silent].into_iter().flatten().min() {
                None => Ok(next.await),
                Some(at) => timeout_at(at, next).await,
            };
            match ended {
                Ok(Some(ended)) => return ended,
                Ok(None) => {}
                Err(_) => {
                    let now = Instant::now();
                    if self.deadline.is_some_and(|deadline| deadline <= now) {
                        return Err((self.failed)(Over::Deadline));
                    }
                    let silent = self.idle.zip(seen.0).is_some_and(|(idle, _)| now - seen.1 >= idle);
                    if silent {
                        return Err((self.failed)(Over::Idle));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Reason;
    use std::{cell::Cell, future::pending, pin::pin};
    use tokio::time::sleep;

    fn failed(over: Over) -> Failed {
        Failed::new(
            if over == Over::Idle { Reason::ConnectionReadTimeout } else { Reason::HttpResponseTimeout },
            "",
        )
    }

    async fn ends(
        bounds: Bounds<'_>,
        carry: impl Future<Output = Result<(), Failed>>,
        moved: &Cell<Option<u64>>,
    ) -> (Option<Reason>, u64) {
        let begin = Instant::now();
        let ended = bounds.keep(pin!(carry), || moved.get()).await;
        (ended.err().map(|failed| failed.reason), begin.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn the_nearest_limit_ends_it() {
        let seconds = |count| Some(Duration::from_secs(count));
        for (deadline, idle, expected) in [
            (None, None, (None, 100)),
            (seconds(10), None, (Some(Reason::HttpResponseTimeout), 10)),
            (seconds(10), seconds(5), (Some(Reason::ConnectionReadTimeout), 5)),
            (seconds(10), seconds(50), (Some(Reason::HttpResponseTimeout), 10)),
            (seconds(200), seconds(200), (None, 100)),
        ] {
            let bounds =
                Bounds { deadline: deadline.map(|after| Instant::now() + after), idle, failed: &failed };
            let carry = async {
                sleep(Duration::from_secs(100)).await;
                Ok(())
            };
            assert_eq!(ends(bounds, carry, &Cell::new(Some(0))).await, expected, "{deadline:?} {idle:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_that_moved_and_not_before_anything_may() {
        let moved = Cell::new(None);
        let carry = async {
            sleep(Duration::from_secs(30)).await;
            for count in 0..10 {
                moved.set(Some(count));
                sleep(Duration::from_secs(4)).await;
            }
            pending().await
        };
        let bounds = Bounds { deadline: None, idle: Some(Duration::from_secs(5)), failed: &failed };
        // The last moved at 66 s.
        assert_eq!(ends(bounds, carry, &moved).await, (Some(Reason::ConnectionReadTimeout), 71));
    }
}
