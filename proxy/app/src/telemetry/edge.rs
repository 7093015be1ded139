//! The numbers that one worker writes, and the labels that they are told under.
//!
//! Each number has one writer, its worker's thread, so an addition is a relaxed load and a relaxed store: plain
//! instructions without a bus lock. Readers on other threads see each number whole, if not all at one instant.
//! What costs many series (durations, reasons) is kept per direction and service, the rest per edge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use policy::{Reason, grpc::CODES};

use super::Direction;

/// One edge of the service graph as this proxy sees it, down to the peer's workload and address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeLabels {
    /// Which way.
    pub direction: Direction,
    /// The service that was asked for, "cart.shop:8080"; "" where the address belongs to none.
    pub service: Arc<str>,
    /// The peer's workload, "shop/cart-1"; "" if unknown.
    pub workload: Arc<str>,
    /// The peer's verified SPIFFE id; "" where there is none.
    pub identity: Arc<str>,
    /// Outbound: the endpoint's address, "10.1.2.3:8080". Inbound: the local port, "8080".
    pub backend: Arc<str>,
    /// The TLS version towards the peer, "1.3"; "backend" for TLS that a policy asks for to a program without a proxy; or "none".
    pub tls: &'static str,
}

impl EdgeLabels {
    /// What these labels are told as once the budget is used up: the facts of which there are few stay.
    pub(super) fn folded(&self) -> Self {
        let other: Arc<str> = OTHER.into();
        Self {
            direction: self.direction,
            service: other.clone(),
            workload: other.clone(),
            identity: other.clone(),
            backend: other,
            tls: self.tls,
        }
    }
}

/// The label of what has no series of its own.
pub(super) const OTHER: &str = "other";

/// Upper bounds of the duration histogram's buckets, inclusive; one more bucket takes the rest.
pub const BUCKETS: [Duration; 19] = [
    Duration::from_micros(100),
    Duration::from_micros(200),
    Duration::from_micros(300),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(3),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
];

/// Classes of answers: by the status' first digit, and the requests that got none.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// What became of a request that a policy may have sent more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// It was sent once more.
    Repeated,
    /// It was sent to another endpoint too, as the first was slow.
    Hedged,
    /// Neither, as the budget is used up.
    OutOfBudget,
}

impl Repetition {
    pub(super) const ALL: [Self; 3] = [Self::Repeated, Self::Hedged, Self::OutOfBudget];

    /// The word in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::Hedged => "hedged",
            Self::OutOfBudget => "retry_budget_exhausted",
        }
    }
}

/// A status outside 100..=599 is to be treated as a 5xx (RFC 9110 §15); 0 says that there was no answer.
fn class(status: u16) -> usize {
    match status {
        0 => 0,
        100..=599 => usize::from(status / 100),
        _ => 5,
    }
}

/// A number with one writer.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    fn take_back(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One worker's numbers for one edge. Written on that worker's thread only; debug builds check it.
#[derive(Debug)]
pub struct Edge {
    started: Counter,
    finished: [Counter; CLASSES.len()],
    opened: Counter,
    closed: Counter,
    sent: Counter,
    received: Counter,
    breaker_opened: Counter,
    breaker_closed: Counter,
    scope: Arc<Scope>,
    owner: Owner,
}

impl Edge {
    pub(super) fn new(scope: Arc<Scope>) -> Self {
        Self {
            started: Counter::default(),
            finished: Default::default(),
            opened: Counter::default(),
            closed: Counter::default(),
            sent: Counter::default(),
            received: Counter::default(),
            breaker_opened: Counter::default(),
            breaker_closed: Counter::default(),
            scope,
            owner: Owner::default(),
        }
    }

    /// A request's head has been read. Each start has exactly one [`Edge::request_finished`].
    pub fn request_started(&self) {
        self.owner.check();
        self.started.add(1);
    }

    /// A request is over: its response has ended, or there will be none (`status` 0). `elapsed` is the time from the
    /// head to the response's end.
    pub fn request_finished(&self, status: u16, elapsed: Duration) {
        self.owner.check();
        self.finished[class(status)].add(1);
        self.scope.finished(elapsed);
    }

    /// The outcome of a gRPC call, as its server told it.
    pub fn grpc_finished(&self, status: u16) {
        self.scope.grpc(status);
    }

    /// A request that was started here goes elsewhere: it is none of this edge's any more.
    pub fn request_moved(&self, reason: Reason) {
        self.owner.check();
        self.started.take_back(1);
        self.scope.replayed(reason);
    }

    /// What a policy wants of a request after an attempt here.
    pub fn repeated(&self, repetition: Repetition) {
        self.scope.repeated(repetition);
    }

    /// The endpoint has failed too often: it gets nothing for a while.
    pub fn breaker_opened(&self) {
        self.owner.check();
        self.breaker_opened.add(1);
    }

    /// It gets its share again, or is no endpoint any more. Each opened breaker has exactly one such end.
    pub fn breaker_closed(&self) {
        self.owner.check();
        self.breaker_closed.add(1);
    }

    /// The proxy itself answered, reset or refused, and why. An answer is also a finished request, with its status.
    pub fn failed(&self, reason: Reason) {
        self.scope.failed(reason);
    }

    /// A connection stands: to the backend (outbound) or from the peer (inbound); a TCP connection that travels as a
    /// stream between proxies is one too.
    pub fn connection_opened(&self) {
        self.owner.check();
        self.opened.add(1);
    }

    /// A connection has ended, in whatever way. Each opened one has exactly one end.
    pub fn connection_closed(&self) {
        self.owner.check();
        self.closed.add(1);
    }

    /// Payload bytes towards the peer.
    pub fn sent(&self, bytes: u64) {
        self.owner.check();
        self.sent.add(bytes);
    }

    /// Payload bytes from the peer.
    pub fn received(&self, bytes: u64) {
        self.owner.check();
        self.received.add(bytes);
    }
}

/// One worker's numbers for one direction and service.
#[derive(Debug, Default)]
pub(super) struct Scope {
    durations: [Counter; BUCKETS.len() + 1],
    nanoseconds: Counter,
    reasons: [Counter; Reason::ALL.len()],
    replays: [Counter; Reason::ALL.len()],
    repetitions: [Counter; Repetition::ALL.len()],
    grpc: [Counter; CODES.len()],
    owner: Owner,
}

impl Scope {
    fn finished(&self, elapsed: Duration) {
        self.owner.check();
        self.durations[BUCKETS.partition_point(|bound| *bound < elapsed)].add(1);
        self.nanoseconds.add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
    }

    fn replayed(&self, reason: Reason) {
        self.owner.check();
        self.replays[reason as usize].add(1);
    }

    fn repeated(&self, repetition: Repetition) {
        self.owner.check();
        self.repetitions[repetition as usize].add(1);
    }

    fn grpc(&self, status: u16) {
        self.owner.check();
        // A code that is not registered counts as UNKNOWN, as clients take it.
        self.grpc[if usize::from(status) < CODES.len() { usize::from(status) } else { 2 }].add(1);
    }

    pub(super) fn failed(&self, reason: Reason) {
        self.owner.check();
        self.reasons[reason as usize].add(1);
    }
}

/// An edge's numbers, summed over workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct EdgeTotals {
    pub started: u64,
    pub finished: [u64; CLASSES.len()],
    pub opened: u64,
    pub closed: u64,
    pub sent: u64,
    pub received: u64,
    pub breaker_opened: u64,
    pub breaker_closed: u64,
}

impl EdgeTotals {
    /// Ends are read before starts, so that what is in flight is not told as less than nothing.
    pub(super) fn add(&mut self, shard: &Edge) {
        for (total, counter) in self.finished.iter_mut().zip(&shard.finished) {
            *total += counter.read();
        }
        self.started += shard.started.read();
        self.closed += shard.closed.read();
        self.opened += shard.opened.read();
        self.sent += shard.sent.read();
        self.received += shard.received.read();
        self.breaker_closed += shard.breaker_closed.read();
        self.breaker_opened += shard.breaker_opened.read();
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.started.saturating_sub(self.finished.iter().sum())
    }

    pub(super) fn breakers_open(&self) -> u64 {
        self.breaker_opened.saturating_sub(self.breaker_closed)
    }

    pub(super) fn open(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }
}

/// A scope's numbers, summed over workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ScopeTotals {
    pub durations: [u64; BUCKETS.len() + 1],
    pub seconds: f64,
    pub reasons: [u64; Reason::ALL.len()],
    pub replays: [u64; Reason::ALL.len()],
    pub repetitions: [u64; Repetition::ALL.len()],
    pub grpc: [u64; CODES.len()],
}

impl ScopeTotals {
    pub(super) fn add(&mut self, shard: &Scope) {
        for (total, counter) in self.durations.iter_mut().zip(&shard.durations) {
            *total += counter.read();
        }
        self.seconds += Duration::from_nanos(shard.nanoseconds.read()).as_secs_f64();
        for (total, counter) in self.reasons.iter_mut().zip(&shard.reasons) {
            *total += counter.read();
        }
        for (total, counter) in self.replays.iter_mut().zip(&shard.replays) {
            *total += counter.read();
        }
        for (total, counter) in self.repetitions.iter_mut().zip(&shard.repetitions) {
            *total += counter.read();
        }
        for (total, counter) in self.grpc.iter_mut().zip(&shard.grpc) {
            *total += counter.read();
        }
    }
}

/// The thread that writes, known from the first write on. Costs nothing in release builds.
#[derive(Debug, Default)]
struct Owner {
    #[cfg(debug_assertions)]
    thread: std::sync::OnceLock<std::thread::ThreadId>,
}

impl Owner {
    #[inline]
    fn check(&self) {
        #[cfg(debug_assertions)]
        {
            let here = std::thread::current().id();
            let owner = *self.thread.get_or_init(|| here);
            // A panic that drops a worker's tasks elsewhere must not become a second one.
            assert!(
                owner == here || std::thread::panicking(),
                "a telemetry shard of {owner:?} is written by {here:?}: additions would be lost"
            );
        }
    }
}
