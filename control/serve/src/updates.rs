//! The stream of one watch: the answer at once, then each change of it, then heartbeats while nothing changes.

use crate::{
    Control,
    answers::{Answer, Question},
    connection::WatchPermit,
};
use proxy_wire::v1;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep},
};
use tokio_stream::{Stream, wrappers::WatchStream};
use tonic::Status;

/// What an answer's content travels in.
pub trait Content: prost::Message + Clone + 'static {
    type Update: Send + 'static;

    /// Without content it is the heartbeat of that version; `instance` is this run of control.
    fn update(instance: u64, version: u64, content: Option<Self>, checksum: u64) -> Self::Update;
}

/// The updates of one watch. It ends when control does; the proxy then asks anew.
pub struct Updates<P> {
    answers: WatchStream<Arc<Answer<P>>>,
    /// The version and checksum that were last sent.
    last: Option<(u64, u64)>,
    beat: Pin<Box<Sleep>>,
    heartbeat: Duration,
    // Dropped after `answers`: nobody may watch any more when the question is released.
    lease: Lease,
}

/// That somebody watches the answer to a question.
pub struct Lease {
    control: Arc<Control>,
    question: Question,
    _permit: WatchPermit,
}

impl<P: Content> Updates<P> {
    pub fn new(answers: watch::Receiver<Arc<Answer<P>>>, lease: Lease, heartbeat: Duration) -> Self {
        let beat = Box::pin(sleep(heartbeat));
        Self { answers: WatchStream::new(answers), last: None, beat, heartbeat, lease }
    }

    fn instance(&self) -> u64 {
        self.lease.control.instance
    }

    fn rest(&mut self) {
        let next = Instant::now() + self.heartbeat;
        self.beat.as_mut().reset(next);
    }
}

impl<P: Content> Stream for Updates<P> {
    type Item = Result<P::Update, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match Pin::new(&mut self.answers).poll_next(context) {
            Poll::Ready(Some(answer)) => {
                self.last = Some((answer.version, answer.checksum));
                self.rest();
                let content = Some(answer.content.clone());
                return Poll::Ready(Some(Ok(P::update(
                    self.instance(),
                    answer.version,
                    content,
                    answer.checksum,
                ))));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        match (self.beat.as_mut().poll(context), self.last) {
            (Poll::Ready(()), Some((version, checksum))) => {
                self.rest();
                // The new sleep must know whom to wake.
                context.waker().wake_by_ref();
                Poll::Ready(Some(Ok(P::update(self.instance(), version, None, checksum))))
            }
            _ => Poll::Pending,
        }
    }
}

impl Lease {
    pub fn new(control: Arc<Control>, question: Question, permit: WatchPermit) -> Self {
        control.metrics.watches.inc();
        Self { control, question, _permit: permit }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.control.metrics.watches.dec();
        self.control.world().release(&self.question);
    }
}

impl Content for v1::OutboundPolicy {
    type Update = v1::OutboundUpdate;

    fn update(instance: u64, version: u64, policy: Option<Self>, checksum: u64) -> Self::Update {
        v1::OutboundUpdate { version, policy, checksum, instance }
    }
}

impl Content for v1::EndpointSet {
    type Update = v1::EndpointsUpdate;

    fn update(instance: u64, version: u64, endpoints: Option<Self>, checksum: u64) -> Self::Update {
        v1::EndpointsUpdate { version, endpoints, checksum, instance }
    }
}

impl Content for v1::InboundPolicy {
    type Update = v1::InboundUpdate;

    fn update(instance: u64, version: u64, policy: Option<Self>, checksum: u64) -> Self::Update {
        v1::InboundUpdate { version, policy, checksum, instance }
    }
}
