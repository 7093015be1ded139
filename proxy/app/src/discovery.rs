//! What a proxy knows from control: destinations, endpoints, its own ports. Asked on demand, watched while used.
//! The last known good answer survives any outage. Here is no connection (`control`) and no identity (`identity`).
//!
//! | file | what it has |
//! |---|---|
//! | `question` | what is asked, and how answers are read |
//! | `follower` | the conversation with control about one question |
//! | `intake` | when an answer takes effect |
//! | `watched` | the answer in effect, as workers read it |
//! | `registry` | all questions of a kind, bounded |
//! | `script` | knowledge that is set by hand |
//!
//! Workers hold [`Watched`] values and never wait for control once a value is there; all that talks runs on the runtime
//! that `Discovery::start` was called on.

mod follower;
mod intake;
mod question;
mod registry;
mod script;
mod watched;

use crate::{
    control::{Connection, Control},
    generated::report_client::ReportClient,
};
use follower::Follower;
use policy::{Endpoint, Inbound, Outbound, Protocol, ServicePort, WorkloadName, limits::WATCHES};
use proxy_wire::v1;
use question::{Backend, Destination, Port, Question};
use registry::Registry;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, interval, timeout},
};
use watched::Progress;

pub use script::Script;
pub use watched::Watched;

/// Wait for control to accept a question.
const ASK_WAIT: Duration = Duration::from_secs(10);
/// Between looks for watches that nobody uses.
const RETIRE_INTERVAL: Duration = Duration::from_secs(30);
/// Ports of its own that a proxy watches; somebody may dial them all.
const PORTS: usize = 512;
/// Reports that wait to be sent; further ones are dropped, as the next connection will find out the same.
const REPORTS: usize = 64;

/// The proxy's knowledge, for every thread of it.
#[derive(Clone)]
pub struct Discovery(Arc<Inner>);

struct Inner {
    destinations: Registry<Destination>,
    backends: Registry<Backend>,
    ports: Registry<Port>,
    counters: Counters,
    reported: Mutex<HashMap<ServicePort, Protocol>>,
    reports: mpsc::Sender<(ServicePort, Protocol)>,
    source: Source,
}

enum Source {
    Control { control: Control, workload: WorkloadName, runtime: Handle },
    Script(Arc<script::Held>),
}

#[derive(Default)]
struct Counters {
    updates: AtomicU64,
    rejected: AtomicU64,
    withheld: AtomicU64,
    paced: AtomicU64,
    asked: AtomicU64,
    evicted: AtomicU64,
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Questions watched now.
    pub watches: usize,
    /// Of them, those that keep what was known although control says that there is nothing (`limits::EMPTIED_GRACE`).
    pub doubted: usize,
    /// Since the start: answers that changed something, that meant nothing, that were withheld by
    /// `limits::EMPTIED_GRACE`, and by `limits::CHANGE_INTERVAL`.
    pub updates: u64,
    pub rejected: u64,
    pub withheld: u64,
    pub paced: u64,
    /// Since the start: questions put (again ones included), watches dropped for others (`limits::WATCHES`).
    pub asked: u64,
    pub evicted: u64,
    /// The longest time since control confirmed a set of endpoints.
    pub endpoint_age: Option<Duration>,
}

impl Discovery {
    /// Asks `control` in the name of `workload`; its tasks run on this runtime.
    pub fn start(control: Control, workload: WorkloadName) -> Self {
        let runtime = Handle::current();
        let (discovery, reports) = Self::new(Source::Control { control: control.clone(), workload, runtime });
        tokio::spawn(send_reports(control, reports));
        tokio::spawn(discovery.clone().retire());
        discovery
    }

    /// Knowledge that is set by hand, without any network: for tests.
    pub fn scripted() -> (Self, Script) {
        let held = Arc::new(script::Held::default());
        let (discovery, reports) = Self::new(Source::Script(Arc::clone(&held)));
        held.keep(reports);
        (discovery.clone(), Script::new(discovery, held))
    }

    fn new(source: Source) -> (Self, mpsc::Receiver<(ServicePort, Protocol)>) {
        let epoch = Instant::now();
        let (reports, received) = mpsc::channel(REPORTS);
        let discovery = Self(Arc::new(Inner {
            destinations: Registry::new(epoch, WATCHES),
            backends: Registry::new(epoch, WATCHES),
            ports: Registry::new(epoch, PORTS),
            counters: Counters::default(),
            reported: Mutex::default(),
            reports,
            source,
        }));
        (discovery, received)
    }

    /// The policy for an original destination.
    pub fn outbound(&self, target: SocketAddr) -> Arc<Watched<Outbound>> {
        let target = SocketAddr::new(target.ip().to_canonical(), target.port());
        self.watch(&self.0.destinations, Destination(target))
    }

    /// The endpoints of a backend, whole.
    pub fn endpoints(&self, backend: &ServicePort) -> Arc<Watched<Vec<Endpoint>>> {
        self.watch(&self.0.backends, Backend(backend.clone()))
    }

    /// What is known of an original destination now; nothing is asked.
    pub fn held(&self, target: SocketAddr) -> Option<Arc<Outbound>> {
        let target = SocketAddr::new(target.ip().to_canonical(), target.port());
        self.0.destinations.held(&Destination(target))
    }

    /// The endpoints of a backend as far as they are known now; nothing is asked.
    pub fn held_endpoints(&self, backend: &ServicePort) -> Option<Vec<Endpoint>> {
        self.0.backends.held(&Backend(backend.clone())).map(|endpoints| endpoints.to_vec())
    }

    /// The policy for one of the workload's own ports.
    pub fn inbound(&self, port: u16) -> Arc<Watched<Inbound>> {
        self.watch(&self.0.ports, Port(port))
    }

    /// Tells the others, through control, what a Service port was found to speak. Returns at once; the same word is sent
    /// once, and may be lost.
    pub fn report_detected(&self, service: &ServicePort, protocol: Protocol) {
        let mut reported = self.0.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.get(service) == Some(&protocol) {
            return;
        }
        if self.0.reports.try_send((service.clone(), protocol)).is_ok() {
            if reported.len() >= WATCHES {
                reported.clear();
            }
            reported.insert(service.clone(), protocol);
        }
    }

    pub fn figures(&self) -> Figures {
        let counters = &self.0.counters;
        Figures {
            watches: self.0.destinations.len() + self.0.backends.len() + self.0.ports.len(),
            doubted: self.0.destinations.doubted() + self.0.backends.doubted() + self.0.ports.doubted(),
            updates: counters.updates.load(Relaxed),
            rejected: counters.rejected.load(Relaxed),
            withheld: counters.withheld.load(Relaxed),
            paced: counters.paced.load(Relaxed),
            asked: counters.asked.load(Relaxed),
            evicted: counters.evicted.load(Relaxed),
            endpoint_age: self.0.backends.oldest(),
        }
    }

    /// Per watched backend: the time since control last confirmed its endpoints.
    pub fn endpoint_ages(&self) -> Vec<(Arc<str>, Duration)> {
        self.0
            .backends
            .ages()
            .into_iter()
            .map(|(Backend(service), age)| (service.to_string().into(), age))
            .collect()
    }

    /// All that is known, for `/config`.
    pub fn snapshot(&self) -> Value {
        let control = match &self.0.source {
            Source::Control { control, .. } => json!({
                "connected": control.is_up(),
                "failure": control.failure().as_deref(),
            }),
            Source::Script(_) => json!("scripted"),
        };
        json!({
            "control": control,
            "outbound": self.0.destinations.describe(),
            "endpoints": self.0.backends.describe(),
            "inbound": self.0.ports.describe(),
        })
    }

    fn watch<Q: Question>(&self, registry: &Registry<Q>, question: Q) -> Arc<Watched<Q::Answer>> {
        let progress = match &self.0.source {
            Source::Control { control, .. } if control.failure().is_some() => Progress::Unreachable,
            Source::Script(held) if held.is_unreachable() => Progress::Unreachable,
            _ => Progress::Asked(Instant::now()),
        };
        let (watched, evicted) =
            registry.watch(question, progress, |question, watched| self.follow(question, watched));
        if evicted {
            self.0.counters.evicted.fetch_add(1, Relaxed);
        }
        watched
    }

    /// Begins to follow a question where there is somebody to ask.
    fn follow<Q: Question>(&self, question: Q, watched: Arc<Watched<Q::Answer>>) -> Option<AbortHandle> {
        let Source::Control { runtime, control, workload } = &self.0.source else { return None };
        let follower =
            Follower::new(question, watched, control.clone(), workload.clone(), Arc::clone(&self.0));
        Some(runtime.spawn(follower.run()).abort_handle())
    }

    async fn retire(self) {
        let mut ticks = interval(RETIRE_INTERVAL);
        loop {
            ticks.tick().await;
            self.0.destinations.retire();
            self.0.backends.retire();
            self.0.ports.retire();
        }
    }
}

/// Sends what was detected, one word after the other; one that fails is lost.
async fn send_reports(control: Control, mut reports: mpsc::Receiver<(ServicePort, Protocol)>) {
    while let Some((service, protocol)) = reports.recv().await {
        let connection = control.up(|| ()).await;
        let mut client = ReportClient::with_origin(connection, Connection::origin());
        let request = v1::DetectedRequest::new(&service, protocol);
        match timeout(ASK_WAIT, client.detected(request)).await {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => tracing::debug!("control: the report about {service} failed: {status}"),
            Err(_) => tracing::debug!("control: the report about {service} was not taken"),
        }
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Discovery({:?})", self.figures())
    }
}
