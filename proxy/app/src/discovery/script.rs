//! Knowledge set by hand: what a test says instead of control.

use super::{
    Discovery,
    question::{Backend, Destination, Port, Question},
    registry::Registry,
    watched::Watched,
};
use policy::{Endpoint, Inbound, Outbound, Protocol, ServicePort};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::mpsc;

/// The hand on a scripted [`Discovery`]: what it sets is known at once, whether it was asked for yet or not.
#[derive(Clone)]
pub struct Script {
    discovery: Discovery,
    held: Arc<Held>,
    /// What was set stays watched.
    set: Arc<Mutex<Vec<Arc<dyn Send + Sync>>>>,
}

/// What the script and its discovery share.
#[derive(Default)]
pub(super) struct Held {
    unreachable: AtomicBool,
    reports: Mutex<Option<mpsc::Receiver<(ServicePort, Protocol)>>>,
}

impl Script {
    pub(super) fn new(discovery: Discovery, held: Arc<Held>) -> Self {
        Self { discovery, held, set: Arc::default() }
    }

    pub fn outbound(&self, target: SocketAddr, policy: Outbound) {
        let target = SocketAddr::new(target.ip().to_canonical(), target.port());
        self.set(&self.discovery.0.destinations, Destination(target), policy);
    }

    pub fn endpoints(&self, backend: &ServicePort, endpoints: Vec<Endpoint>) {
        self.set(&self.discovery.0.backends, Backend(backend.clone()), endpoints);
    }

    pub fn inbound(&self, port: u16, policy: Inbound) {
        self.set(&self.discovery.0.ports, Port(port), policy);
    }

    /// From now on, what was not set is not waited for.
    pub fn unreachable(&self) {
        self.held.unreachable.store(true, Relaxed);
    }

    /// What was reported since the last call.
    pub fn detected(&self) -> Vec<(ServicePort, Protocol)> {
        let mut reports = self.held.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.iter_mut().flat_map(|reports| std::iter::from_fn(|| reports.try_recv().ok())).collect()
    }

    fn set<Q: Question>(&self, registry: &Registry<Q>, question: Q, answer: Q::Answer) {
        let watched: Arc<Watched<Q::Answer>> = self.discovery.watch(registry, question);
        watched.store(answer);
        self.set.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
    }
}

impl Held {
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Relaxed)
    }

    pub fn keep(&self, reports: mpsc::Receiver<(ServicePort, Protocol)>) {
        *self.reports.lock().unwrap_or_else(PoisonError::into_inner) = Some(reports);
    }
}
