//! One worker: a thread with its own runtime, its own connections, pools and balancers. Nothing here is shared but the
//! handles to discovery, credentials and telemetry.

use crate::{
    allowance::Allowance,
    destination::{Backend, Destination, Local},
    discovery::Discovery,
    hop::Hop,
    seldom::Seldom,
    telemetry::{self, Direction, EdgeLabels},
};
use policy::{Endpoint, Reason, ServicePort, WorkloadName, limits};
use proxy_balance::Rng;
use proxy_http::streams::Dialer;
use proxy_tls::Credentials;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

type Map<K, V> = RefCell<HashMap<K, V, foldhash::fast::RandomState>>;

/// How often pools and memories are looked through for what nobody uses any more.
pub const SWEEP: Duration = Duration::from_secs(15);

/// What a worker is made of.
pub struct Parts {
    pub workload: WorkloadName,
    pub discovery: Discovery,
    pub dialer: Dialer,
    pub telemetry: telemetry::Worker,
    /// Connections that this worker holds at most, streams of peers included.
    pub connections: usize,
    /// The proxy's own ports: no traffic may be sent to them through it.
    pub own_ports: Vec<u16>,
    pub seed: u64,
}

pub struct Worker {
    pub workload: WorkloadName,
    pub discovery: Discovery,
    pub dialer: Rc<Dialer>,
    pub telemetry: telemetry::Worker,
    pub rng: RefCell<Rng>,
    own_ports: Vec<u16>,
    destinations: Map<SocketAddr, Rc<Destination>>,
    backends: Map<(ServicePort, bool), Rc<Backend>>,
    locals: Map<SocketAddr, Rc<Local>>,
    /// How connections to a Service port were found to begin.
    beginnings: Map<ServicePort, Beginning>,
    connections: Cell<usize>,
    /// Copies of requests under way.
    pub copies: Cell<usize>,
    limit: usize,
    over_limit: Seldom,
    draining: Cell<bool>,
    drain: Notify,
    /// The last connection has ended.
    idle: Notify,
}

/// How a connection of bytes begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// The server speaks first.
    ServerFirst,
    /// The client's first bytes say nothing for certain.
    Undecided,
}

/// Counts a connection for as long as it lives.
pub struct Counted(Rc<Worker>);

impl Worker {
    pub fn new(parts: Parts) -> Rc<Self> {
        Rc::new(Self {
            workload: parts.workload,
            discovery: parts.discovery,
            dialer: Rc::new(parts.dialer),
            telemetry: parts.telemetry,
            rng: RefCell::new(Rng::new(parts.seed)),
            own_ports: parts.own_ports,
            destinations: Map::default(),
            backends: Map::default(),
            locals: Map::default(),
            beginnings: Map::default(),
            connections: Cell::new(0),
            copies: Cell::new(0),
            limit: parts.connections,
            over_limit: Seldom::default(),
            draining: Cell::new(false),
            drain: Notify::new(),
            idle: Notify::new(),
        })
    }

    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        self.dialer.credentials.load_full()
    }

    /// What stands behind an address that the application dialled.
    pub async fn destination(&self, address: SocketAddr) -> Rc<Destination> {
        let known = self.destinations.borrow().get(&address).cloned();
        let destination = known.unwrap_or_else(|| {
            let made = Rc::new(Destination::new(address, self.discovery.outbound(address)));
            self.destinations.borrow_mut().insert(address, made.clone());
            made
        });
        destination.wait(limits::DISCOVERY_WAIT).await;
        destination
    }

    /// The endpoints of a Service port, of the family that the client dialled.
    pub fn backend(self: &Rc<Self>, service: &ServicePort, ipv4: bool) -> Rc<Backend> {
        let key = (service.clone(), ipv4);
        if let Some(backend) = self.backends.borrow().get(&key) {
            return backend.clone();
        }
        let allowance = Allowance::new(self.telemetry.usage(service));
        let watched = self.discovery.endpoints(service);
        let backend = Rc::new(Backend::new(service.clone(), ipv4, watched, allowance));
        self.backends.borrow_mut().insert(key, backend.clone());
        backend
    }

    /// The application behind one of our own addresses and ports.
    pub async fn local(self: &Rc<Self>, address: SocketAddr) -> Rc<Local> {
        let known = self.locals.borrow().get(&address).cloned();
        let local = known.unwrap_or_else(|| {
            let made = Rc::new(Local::new(self, address, self.discovery.inbound(address.port())));
            self.locals.borrow_mut().insert(address, made.clone());
            made
        });
        local.wait(limits::DISCOVERY_WAIT).await;
        local
    }

    /// The next hop to an endpoint; `service` is whose endpoint it is, for the metrics.
    pub fn hop(&self, endpoint: &Endpoint, service: Option<&ServicePort>) -> Rc<Hop> {
        let text = |text: Option<String>| Arc::<str>::from(text.unwrap_or_default());
        // The proxy's own traffic to its own pod does not pass its inbound side: no `weft/1` there.
        let own = endpoint.workload.as_ref() == Some(&self.workload);
        let meshed = endpoint.identity.is_some() && !own;
        let edge = self.telemetry.edge(&EdgeLabels {
            direction: Direction::Outbound,
            service: text(service.map(ServicePort::to_string)),
            workload: text(endpoint.workload.as_ref().map(WorkloadName::to_string)),
            identity: text(endpoint.identity.as_ref().filter(|_| meshed).map(ToString::to_string)),
            backend: endpoint.address.to_string().into(),
            tls: match &endpoint.tls {
                _ if meshed => "1.3",
                Some(_) => "backend",
                None => "none",
            },
        });
        Rc::new(Hop::new(endpoint.clone(), &self.dialer, own, edge))
    }

    /// Connections to this Service port need not be waited with as long any more. That a server speaks first is a fact about it,
    /// for everyone to know; that some client's first bytes say nothing is this worker's own experience.
    pub fn remember(&self, service: &ServicePort, beginning: Beginning) {
        if self.beginnings.borrow_mut().insert(service.clone(), beginning).is_none()
            && beginning == Beginning::ServerFirst
        {
            self.discovery.report_detected(service, policy::Protocol::Opaque);
        }
    }

    pub fn beginning(&self, service: &ServicePort) -> Option<Beginning> {
        self.beginnings.borrow().get(service).copied()
    }

    pub fn is_own_port(&self, port: u16) -> bool {
        self.own_ports.contains(&port)
    }

    /// Counts a new connection, or stream of a peer; none when the limit is hit.
    pub fn count(self: &Rc<Self>, direction: Direction) -> Option<Counted> {
        if self.connections.get() >= self.limit {
            return self.refuse(direction, "connections", self.limit);
        }
        self.connections.set(self.connections.get() + 1);
        Some(Counted(self.clone()))
    }

    /// Tells of one of these for which there is no room.
    pub fn refuse(&self, direction: Direction, what: &str, limit: usize) -> Option<Counted> {
        self.telemetry.reason(direction, None, Reason::ConnectionLimitReached);
        if let Some(count) = self.over_limit.due(Instant::now()) {
            let direction = direction.as_str();
            tracing::warn!(direction, reason = %Reason::ConnectionLimitReached, limit, "{count} {what} refused");
        }
        None
    }

    /// Set when the drain begins.
    pub fn draining(&self) -> &Cell<bool> {
        &self.draining
    }

    /// Ends when the drain begins.
    pub async fn drained(&self) {
        let drain = self.drain.notified();
        if !self.draining.get() {
            drain.await;
        }
    }

    /// No new work on connections; ends when the last one has, or the time is over. The number of those that are left.
    pub async fn drain(&self, wait: Duration) -> usize {
        self.draining.set(true);
        self.drain.notify_waiters();
        let all = async {
            loop {
                let idle = self.idle.notified();
                if self.connections.get() == 0 {
                    return;
                }
                idle.await;
            }
        };
        let _ = tokio::time::timeout(wait, all).await;
        self.connections.get()
    }

    /// Lets go of what nobody has used for long, and looks after slow readers.
    pub fn sweep(&self, now: Instant) {
        proxy_http::slow::sweep(now);
        self.destinations.borrow_mut().retain(|_, one| one.sweep(now, Rc::strong_count(one) > 1));
        self.locals.borrow_mut().retain(|_, one| one.sweep(now, Rc::strong_count(one) > 1));
        self.backends.borrow_mut().retain(|_, one| one.sweep(now, Rc::strong_count(one) > 1));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        if self.0.connections.get() == 0 {
            self.0.idle.notify_waiters();
        }
    }
}
