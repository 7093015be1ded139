//! How much load repetitions may add: a share of the requests within a sliding window, and a few at any time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Parts that a window is divided into: what is in it is known to a tenth.
const PARTS: u32 = 10;

/// What repetitions may add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetLimits {
    /// To a hundred requests within `interval`, so many repetitions.
    pub percent: u32,
    /// The window in which both are counted.
    pub interval: Duration,
    /// Repetitions within `min_interval` that are allowed in any case.
    pub min_count: u32,
    /// The window of those.
    pub min_interval: Duration,
}

/// The repetitions of the requests to one backend.
///
/// Over any time, repetitions are at most `percent` of the requests, or `min_count` each `min_interval`: each request pays for its
/// share of one while it is in the window, and a repetition leaves the window no earlier than the requests that paid for it.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetLimits,
    requests: Window,
    repetitions: Window,
    /// Repetitions within the short window.
    recent: Window,
}

impl Budget {
    /// Nothing has been sent yet.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        Self {
            limits,
            requests: Window::new(limits.interval, Leaves::Early),
            repetitions: Window::new(limits.interval, Leaves::Late),
            recent: Window::new(limits.min_interval, Leaves::Late),
        }
    }

    /// What it was made with.
    #[must_use]
    pub fn limits(&self) -> BudgetLimits {
        self.limits
    }

    /// A request is sent for the first time.
    pub fn request(&mut self, now: Instant) {
        self.requests.add(now);
    }

    /// May one be sent once more? If so, it is counted.
    pub fn withdraw(&mut self, now: Instant) -> bool {
        let repetitions = u64::from(self.repetitions.count(now)) + 1;
        let paid = u64::from(self.requests.count(now)) * u64::from(self.limits.percent);
        let allowed = repetitions * 100 <= paid || self.recent.count(now) < self.limits.min_count;
        if allowed {
            self.repetitions.add(now);
            self.recent.add(now);
        }
        allowed
    }
}

/// A count of what happened lately.
#[derive(Debug)]
struct Window {
    part: Duration,
    leaves: Leaves,
    parts: VecDeque<Part>,
    total: u32,
}

/// What happened within a part of a window.
#[derive(Debug)]
struct Part {
    first: Instant,
    last: Instant,
    count: u32,
}

/// When a part leaves its window: what pays does so with the first of it, what is paid for with the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Early,
    Late,
}

impl Window {
    fn new(interval: Duration, leaves: Leaves) -> Self {
        let part = (interval / PARTS).max(Duration::from_micros(1));
        Self { part, leaves, parts: VecDeque::new(), total: 0 }
    }

    fn add(&mut self, now: Instant) {
        self.expire(now);
        self.total = self.total.saturating_add(1);
        match self.parts.back_mut() {
            Some(part) if now.saturating_duration_since(part.first) < self.part => {
                part.last = now;
                part.count = part.count.saturating_add(1);
            }
            _ => self.parts.push_back(Part { first: now, last: now, count: 1 }),
        }
    }

    fn count(&mut self, now: Instant) -> u32 {
        self.expire(now);
        self.total
    }

    fn expire(&mut self, now: Instant) {
        while let Some(part) = self.parts.front() {
            let age_of = if self.leaves == Leaves::Early { part.first } else { part.last };
            if now.saturating_duration_since(age_of) < self.part * PARTS {
                return;
            }
            self.total = self.total.saturating_sub(part.count);
            self.parts.pop_front();
        }
    }
}
