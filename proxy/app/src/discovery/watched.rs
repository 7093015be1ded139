//! One watched value: written by the control thread, read by the workers. Nothing here asks control.

use arc_swap::ArcSwapOption;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// The last known good answer of control to one question. It survives any outage: no error clears it.
pub struct Watched<T> {
    value: ArcSwapOption<T>,
    version: AtomicU64,
    /// When watching began, of which the next two are milliseconds: when control last said or confirmed the value, and
    /// when somebody last asked for it.
    epoch: Instant,
    confirmed: AtomicU64,
    used: AtomicU64,
    /// Control says that there is nothing, and is not believed yet.
    doubted: AtomicBool,
    progress: watch::Sender<Progress>,
}

/// How far the question has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Asked, not yet answered: the wait counts from here.
    Asked(Instant),
    Answered,
    /// Control cannot be asked now, and there is no answer of before.
    Unreachable,
    /// Not watched any more: what is held grows old.
    Closed,
}

impl<T> Watched<T> {
    /// `epoch` is common to all that are compared by their last use.
    pub(super) fn new(epoch: Instant, progress: Progress) -> Self {
        let watched = Self {
            value: ArcSwapOption::empty(),
            version: AtomicU64::new(0),
            epoch,
            confirmed: AtomicU64::new(0),
            used: AtomicU64::new(0),
            doubted: AtomicBool::new(false),
            progress: watch::Sender::new(progress),
        };
        watched.touch();
        watched
    }

    /// The value, if there has ever been one.
    pub fn latest(&self) -> Option<Arc<T>> {
        self.value.load_full()
    }

    /// Grows when the value changes, and is 0 until there is one. Cheap: who keeps an `Arc` of the value compares it
    /// before it takes `latest`.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Time since control last said or confirmed the value.
    pub fn age(&self) -> Option<Duration> {
        let age = milliseconds(self.epoch).saturating_sub(self.confirmed.load(Ordering::Relaxed));
        (self.version() > 0).then(|| Duration::from_millis(age))
    }

    /// No news will come any more: it was dropped for another one (`limits::WATCHES`). Who still needs it asks
    /// `Discovery` again.
    pub fn is_closed(&self) -> bool {
        *self.progress.borrow() == Progress::Closed
    }

    /// The value, or the first one when it comes within `wait` of the question, whoever asked it. At once `None` while
    /// control is known to be unreachable.
    pub async fn first(&self, wait: Duration) -> Option<Arc<T>> {
        // The version, which follows the value: who finds it 0 a moment after the value came would take that for none.
        if self.version() > 0 {
            return self.latest();
        }
        let latest_end = Instant::now() + wait;
        let mut progress = self.progress.subscribe();
        loop {
            let Progress::Asked(asked) = *progress.borrow_and_update() else { break };
            if timeout_at(latest_end.min(asked + wait), progress.changed()).await.is_err() {
                break;
            }
        }
        self.latest()
    }

    pub(super) fn touch(&self) {
        self.used.store(milliseconds(self.epoch), Ordering::Relaxed);
    }

    /// Milliseconds since the epoch at the last use.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Control has confirmed that the value is the current one.
    pub(super) fn confirm(&self) {
        self.confirmed.store(milliseconds(self.epoch), Ordering::Relaxed);
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    pub(super) fn doubt(&self, doubted: bool) {
        self.doubted.store(doubted, Ordering::Relaxed);
    }

    /// The question is on its way; `Closed` stays.
    pub(super) fn ask(&self) {
        self.advance(Progress::Asked(Instant::now()));
    }

    pub(super) fn unreachable(&self) {
        self.advance(Progress::Unreachable);
    }

    pub(super) fn close(&self) {
        self.progress.send_replace(Progress::Closed);
    }

    /// Where no answer has come yet; a watch that is closed stays so.
    fn advance(&self, next: Progress) {
        self.progress.send_if_modified(|progress| {
            let pending = matches!(progress, Progress::Asked(_) | Progress::Unreachable);
            if pending {
                *progress = next;
            }
            pending
        });
    }
}

impl<T: PartialEq> Watched<T> {
    /// Takes what control said; whether it is news.
    pub(super) fn store(&self, value: T) -> bool {
        self.confirm();
        let news = self.value.load().as_deref() != Some(&value);
        if news {
            self.value.store(Some(Arc::new(value)));
            self.version.fetch_add(1, Ordering::Release);
        }
        self.advance(Progress::Answered);
        news
    }
}

/// From `since` until now.
pub(super) fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("version", &self.version())
            .field("value", &self.value.load())
            .field("progress", &*self.progress.borrow())
            .finish()
    }
}
