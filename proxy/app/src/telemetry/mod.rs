//! What the proxy counts, and how it is told: Prometheus metrics over per-worker shards.
//!
//! A worker resolves a handle once per endpoint or client ([`Worker::edge`]) and then only adds to its own numbers:
//! one plain load and store each, no lock, no lookup, no allocation. The scrape thread reads all shards and sums
//! them. Here is no clock and no HTTP: durations are arguments, and `admin` serves the text.
//!
//! | file | what it has |
//! |---|---|
//! | `edge` | the numbers that a worker writes, and their labels |
//! | `table` | which label sets have series of their own: the budget, folding, retirement |
//! | `scrape` | the sum of the shards as metric families |
//! | `process` | the process' own use of the machine |
//! | `usage` | what the workers use together of a backend's limits |
//! | `text` | the two exposition formats |
//! | `access` | the access log, which is no number, but is told by the same workers |

pub mod access;
mod edge;
mod process;
mod scrape;
mod table;
mod text;
mod usage;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use policy::{Reason, ServicePort};

use access::AccessLog;
pub use edge::{BUCKETS, Edge, EdgeLabels, Repetition};
pub use text::Format;
pub use usage::{Limited, Permit, Usage};

use table::Table;

/// Which way the traffic goes, as seen from the workload that the proxy serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the local application to others.
    Outbound,
    /// From others to the local application.
    Inbound,
}

impl Direction {
    /// The word in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// What is not counted but asked for at each scrape.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Whether the stream to control stands.
    pub control_connected: bool,
    /// Connections made to control, and attempts that failed.
    pub control: crate::control::Attempts,
    /// Questions to control, and what became of its answers.
    pub discovery: crate::discovery::Figures,
    /// Certificates got, and attempts that failed.
    pub renewals: (u64, u64),
    /// When the certificate in use ends; `None` while there is none.
    pub certificate_expires: Option<SystemTime>,
    /// Per watched service ("cart.shop:8080"): the time since control last confirmed its endpoints.
    pub endpoint_ages: Vec<(Arc<str>, Duration)>,
}

/// All numbers of one proxy. Clones share them.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    table: Mutex<Table>,
    usages: usage::Usages,
    events: Mutex<Vec<Arc<Mutex<Events>>>>,
    gauges: Box<dyn Fn() -> Gauges + Send + Sync>,
    access: AccessLog,
}

/// Counts of what happens once a connection. The words are literals of the code, so they are few.
type Events = HashMap<Event, u64, foldhash::fast::RandomState>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Event {
    Detection { direction: Direction, protocol: &'static str, how: &'static str },
    Handshake { direction: Direction, outcome: &'static str, key_exchange: &'static str },
    Mirror { outcome: &'static str },
}

impl Telemetry {
    /// Nothing counted yet; `gauges` is called at each scrape, on the thread that scrapes, and must not block.
    pub fn new(gauges: impl Fn() -> Gauges + Send + Sync + 'static) -> Self {
        Self::logging(gauges, AccessLog::new(access::Mode::Off))
    }

    /// The same, with an access log.
    pub fn logging(gauges: impl Fn() -> Gauges + Send + Sync + 'static, access: AccessLog) -> Self {
        Self(Arc::new(Inner {
            table: Mutex::new(Table::new(policy::limits::SERIES)),
            usages: usage::Usages::default(),
            events: Mutex::default(),
            gauges: Box::new(gauges),
            access,
        }))
    }

    /// A new shard, for one worker thread.
    pub fn worker(&self) -> Worker {
        let events = Arc::default();
        let mut all = lock(&self.0.events);
        all.push(Arc::clone(&events));
        Worker { telemetry: self.clone(), index: all.len() - 1, events, access: self.0.access.worker() }
    }

    /// The whole exposition: every shard, summed now.
    pub fn encode(&self, format: Format) -> String {
        text::encode(&self.snapshot(process::Usage::read()), format)
    }

    fn snapshot(&self, process: process::Usage) -> scrape::Snapshot {
        let mut events = Events::default();
        for shard in lock(&self.0.events).iter() {
            for (event, count) in lock(shard).iter() {
                *events.entry(*event).or_default() += count;
            }
        }
        let totals = lock(&self.0.table).totals();
        let events = events.into_iter().collect();
        scrape::Snapshot::new(totals, events, self.0.access.lines(), (self.0.gauges)(), process)
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// One worker's shard. Clones are the same shard: they stay on the worker's thread.
#[derive(Clone, Debug)]
pub struct Worker {
    telemetry: Telemetry,
    index: usize,
    events: Arc<Mutex<Events>>,
    access: access::Handle,
}

impl Worker {
    /// The worker's way into the access log.
    pub fn access(&self) -> &access::Handle {
        &self.access
    }

    /// The worker's numbers under these labels; made where they are new. Keep the handle as long as the endpoint or
    /// the client is known: only label sets that no worker holds make room for new ones when the budget is used up.
    ///
    /// Beyond the budget ([`policy::limits::SERIES`]) the handle is that of `other`, so totals stay exact.
    pub fn edge(&self, labels: &EdgeLabels) -> Arc<Edge> {
        lock(&self.telemetry.0.table).edge(self.index, labels)
    }

    /// What all workers use of a backend's limits.
    pub fn usage(&self, backend: &ServicePort) -> Arc<Usage> {
        self.telemetry.0.usages.of(backend)
    }

    /// Counts one verdict on a connection's protocol and what it was decided by ("client_bytes", "server_first", …).
    pub fn detected(&self, direction: Direction, protocol: &'static str, how: &'static str) {
        self.count(Event::Detection { direction, protocol, how });
    }

    /// Counts one TLS handshake: `outcome` is "full", "resumed" or a reason's word; `key_exchange` the group's name,
    /// "" where none was agreed.
    pub fn handshake(&self, direction: Direction, outcome: &'static str, key_exchange: &'static str) {
        self.count(Event::Handshake { direction, outcome, key_exchange });
    }

    /// Counts a copy of a request that a rule wants: "answered", "failed", or why it was given up or not made ("behind", "slow",
    /// "limit", "unresolved").
    pub fn mirrored(&self, outcome: &'static str) {
        self.count(Event::Mirror { outcome });
    }

    /// Counts a reason where no edge is known yet; with an edge in hand use [`Edge::failed`].
    pub fn reason(&self, direction: Direction, service: Option<&str>, reason: Reason) {
        lock(&self.telemetry.0.table)
            .scope(self.index, direction, service.unwrap_or_default())
            .failed(reason);
    }

    /// Counts a request that was sent nowhere: as one of the service, with no backend. `status` is what its client was told, `reason`
    /// why, unless a rule wants it so.
    pub fn unsent(
        &self,
        direction: Direction,
        service: Option<&str>,
        reason: Option<Reason>,
        status: u16,
        elapsed: Duration,
    ) {
        let nobody = Arc::<str>::from("");
        let edge = self.edge(&EdgeLabels {
            direction,
            service: service.unwrap_or_default().into(),
            workload: nobody.clone(),
            identity: nobody.clone(),
            backend: nobody,
            tls: "none",
        });
        edge.request_started();
        if let Some(reason) = reason {
            edge.failed(reason);
        }
        edge.request_finished(status, elapsed);
    }

    /// The lock is the worker's own: only a scrape ever contends for it, for as long as it takes to copy a few words.
    fn count(&self, event: Event) {
        *lock(&self.events).entry(event).or_default() += 1;
    }
}

/// Numbers stay usable after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
