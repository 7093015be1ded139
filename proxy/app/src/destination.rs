//! What a worker remembers of the places traffic goes to: destinations as dialled, backends with their balancers, and
//! the local application. Each follows its watch: a look at a version number a request, and more only when it has moved.

use crate::{
    allowance::Allowance,
    discovery::Watched,
    hop::{Hop, Program, Way},
    session,
    telemetry::{Direction, Edge, EdgeLabels},
    worker::Worker,
};
use policy::{
    BackendRef, Endpoint, Found, Inbound, Outbound, Protocol, Reason, ServicePort, SpiffeId, Target, limits,
    settings::{FailureAccrual, Set},
};
use proxy_balance::{Accrual, Balancer, InFlight, Load, NoChoice, Outcome, Switched};
use proxy_http::{failed::Failed, plain::Plain};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Times that a request may be sent, or a connection tried, the first one included.
pub const ATTEMPTS: usize = 3;

/// An address and port as the application dialled it.
pub struct Destination {
    pub address: SocketAddr,
    watched: Arc<Watched<Outbound>>,
    resolved: RefCell<Option<Rc<Resolved>>>,
    /// Of what is no Service.
    allowance: Rc<Allowance>,
    used: Cell<Instant>,
}

/// What a destination's policy of one version makes of it.
pub struct Resolved {
    version: u64,
    pub policy: Arc<Outbound>,
    pub service: Option<ServicePort>,
    /// `service` as a label.
    pub label: Option<Rc<str>>,
    pub address: SocketAddr,
    /// Of what is no Service.
    pub allowance: Rc<Allowance>,
    /// Where traffic goes that no rule is for.
    target: Hops,
    /// The backends of each rule that was used already, with those of them that were.
    backends: RefCell<HashMap<(usize, usize), Hops, foldhash::fast::RandomState>>,
}

/// The hops to choose from.
#[derive(Clone)]
pub enum Hops {
    /// Nothing was decided yet.
    None,
    Balanced(Rc<Dialled>),
    One(Rc<Hop>),
}

/// A Service port, by the address that the application dialled.
pub struct Dialled {
    address: SocketAddr,
    backend: Rc<Backend>,
}

/// A hop that was chosen, and where its load is kept.
pub struct Chosen {
    pub hop: Rc<Hop>,
    pub load: Load,
    /// Nothing else is left to try.
    last: bool,
    in_flight: RefCell<Option<InFlight>>,
    answered: Cell<Option<Instant>>,
    /// Where its breaker is, if it has one.
    judge: Option<Box<(Rc<Dialled>, Accrual)>>,
}

impl Chosen {
    fn new(hop: Rc<Hop>, load: Load, last: bool) -> Self {
        Self { hop, load, last, in_flight: RefCell::default(), answered: Cell::default(), judge: None }
    }

    /// How long it may take to connect there, where a policy allows `connect`: longer when there is nothing better to do, so
    /// that a lost SYN or two are no failure.
    pub fn wait(&self, connect: Duration) -> Duration {
        if self.last { connect.max(limits::LAST_CONNECT_WAIT) } else { connect }
    }

    /// A request goes there.
    pub fn start(&self, now: Instant) {
        let mut in_flight = self.load.start(now.into_std());
        if self.judge.is_some() {
            in_flight.probe(Instant::now().into_std());
        }
        *self.in_flight.borrow_mut() = Some(in_flight);
    }

    /// A connection stands, which may have had to be made first.
    pub fn connected(&self) {
        if let Some(in_flight) = &mut *self.in_flight.borrow_mut() {
            in_flight.connected(Instant::now().into_std());
        }
    }

    /// The answer has begun. How long it lasts says nothing about the endpoint.
    pub fn answered(&self) {
        let now = Instant::now();
        self.answered.set(Some(now));
        if let Some(in_flight) = &mut *self.in_flight.borrow_mut() {
            in_flight.answered(now.into_std());
        }
    }

    /// When the answer began, if it has.
    pub fn answered_at(&self) -> Option<Instant> {
        self.answered.get()
    }

    /// `good`: what its breaker is told of it, if anything.
    pub fn finish(&self, worker: &Worker, now: Instant, outcome: Outcome, good: Option<bool>) {
        let Some(in_flight) = self.in_flight.take() else { return };
        if let (Some(judge), Some(good)) = (&self.judge, good) {
            let (dialled, accrual) = &**judge;
            let (mut balancer, mut rng) = (dialled.backend.balancer.borrow_mut(), worker.rng.borrow_mut());
            match balancer.judge(&in_flight, good, now.into_std(), accrual, &mut rng) {
                Some(Switched::Opened) => self.hop.edge.breaker_opened(),
                Some(Switched::Closed) => self.hop.edge.breaker_closed(),
                None => {}
            }
        }
        in_flight.finish(now.into_std(), outcome);
    }
}

impl Destination {
    pub fn new(address: SocketAddr, watched: Arc<Watched<Outbound>>) -> Self {
        let (resolved, allowance, used) = (RefCell::default(), Rc::default(), Cell::new(Instant::now()));
        Self { address, watched, resolved, allowance, used }
    }

    /// Until control's first word, or for as long as that may take.
    pub async fn wait(&self, limit: Duration) {
        if self.watched.version() == 0 {
            self.watched.first(limit).await;
        }
        self.used.set(Instant::now());
    }

    /// Where traffic goes now.
    pub fn resolve(&self, worker: &Rc<Worker>) -> Rc<Resolved> {
        let version = self.watched.version();
        if let Some(resolved) = &*self.resolved.borrow()
            && resolved.version == version
        {
            return resolved.clone();
        }
        let resolved = Rc::new(self.route(worker, version));
        *self.resolved.borrow_mut() = Some(resolved.clone());
        resolved
    }

    fn route(&self, worker: &Rc<Worker>, version: u64) -> Resolved {
        let policy = self.watched.latest().unwrap_or_else(|| Arc::new(Outbound::external()));
        let address = self.address;
        let (service, target) = match &policy.target {
            Target::Service(service) => (Some(service.clone()), Hops::balanced(worker, service, address)),
            Target::Workload(endpoint) => (None, Hops::One(worker.hop(endpoint, None))),
            Target::External => (None, Hops::One(worker.hop(&Endpoint::plain(address), None))),
        };
        let label = service.as_ref().map(|service| service.to_string().into());
        let (allowance, backends) = (self.allowance.clone(), RefCell::default());
        Resolved { version, policy, service, label, address, allowance, target, backends }
    }

    /// False when it is to be forgotten: nobody holds or has used it for long, or no news of it will come any more.
    pub fn sweep(&self, now: Instant, held: bool) -> bool {
        if let Some(Hops::One(hop)) = self.resolved.borrow().as_ref().map(|resolved| &resolved.target) {
            hop.sweep(now);
        }
        !self.watched.is_closed() && (held || now - self.used.get() < limits::WATCH_IDLE)
    }
}

impl Resolved {
    /// Where traffic goes that no rule is for.
    pub fn target(&self) -> Hops {
        self.target.clone()
    }

    /// The hops of one of a rule's backends; `None` when that leads nowhere. Who is there is asked when it is first needed.
    pub fn backend(&self, worker: &Rc<Worker>, found: Found, backend: usize) -> Option<Hops> {
        let place = (found.rule, backend);
        if let Some(hops) = self.backends.borrow().get(&place) {
            return Some(hops.clone());
        }
        let rule = self.policy.routes.rule(found)?;
        let BackendRef::Service(service) = &rule.backends.get(backend)?.backend else { return None };
        let hops = Hops::balanced(worker, service, self.address);
        self.backends.borrow_mut().insert(place, hops.clone());
        Some(hops)
    }
}

impl Hops {
    /// The endpoints of a Service, of the family that the application dialled.
    pub fn balanced(worker: &Rc<Worker>, service: &ServicePort, address: SocketAddr) -> Self {
        Self::Balanced(Rc::new(Dialled { address, backend: worker.backend(service, address.is_ipv4()) }))
    }

    /// The endpoint of this key, if it is one of these and does not rest.
    pub async fn keyed(
        &self,
        worker: &Worker,
        key: u64,
        accrual: Option<&Set<FailureAccrual>>,
    ) -> Option<Chosen> {
        match self {
            Self::None | Self::One(_) => None,
            Self::Balanced(dialled) => dialled.keyed(worker, key, accrual).await,
        }
    }

    /// A hop, another one than those that were tried if there is one.
    pub async fn choose(
        &self,
        worker: &Worker,
        tried: &[Rc<Hop>],
        accrual: Option<&Set<FailureAccrual>>,
    ) -> Result<Chosen, Failed> {
        match self {
            Self::None => Err(Failed::untouched(Reason::ProxyInternalError, "nothing was decided")),
            Self::One(hop) => Ok(Chosen::new(hop.clone(), Load::default(), true)),
            Self::Balanced(dialled) => dialled.choose(worker, tried, accrual).await,
        }
    }

    /// What may be done to the Service.
    pub fn allowance(&self) -> Option<&Allowance> {
        match self {
            Self::None | Self::One(_) => None,
            Self::Balanced(dialled) => Some(&dialled.backend.allowance),
        }
    }

    /// Whether there is one besides these: as control says now, which may be more than when they were chosen.
    pub fn others<'a>(&self, tried: impl Iterator<Item = &'a Rc<Hop>> + Clone) -> bool {
        match self {
            Self::None | Self::One(_) => false,
            Self::Balanced(dialled) => {
                let Dialled { address, backend } = &**dialled;
                backend.others(tried.clone()) || backend.may_fall_back(tried, *address)
            }
        }
    }
}

impl Dialled {
    async fn keyed(
        self: &Rc<Self>,
        worker: &Worker,
        key: u64,
        accrual: Option<&Set<FailureAccrual>>,
    ) -> Option<Chosen> {
        self.backend.look(worker).await;
        let breaker = accrual.map(|set| accrual_of(&set.value));
        let balancer = self.backend.balancer.borrow();
        let (hop, load) = balancer.iter().find(|(hop, _)| hop.key == key)?;
        if breaker.is_some() && load.is_open() {
            return None;
        }
        let chosen = Chosen::new(hop.clone(), load.clone(), balancer.len() == 1);
        Some(Chosen { judge: breaker.map(|breaker| Box::new((self.clone(), breaker))), ..chosen })
    }

    async fn choose(
        self: &Rc<Self>,
        worker: &Worker,
        tried: &[Rc<Hop>],
        accrual: Option<&Set<FailureAccrual>>,
    ) -> Result<Chosen, Failed> {
        let Self { address, backend } = &**self;
        backend.look(worker).await;
        if !tried.is_empty()
            && (tried.len() + 1 >= ATTEMPTS || !backend.others(tried.iter()))
            && backend.may_fall_back(tried.iter(), *address)
        {
            let original = Endpoint::plain(*address);
            return Ok(Chosen::new(worker.hop(&original, Some(&backend.service)), Load::default(), true));
        }
        let (now, mut rng) = (Instant::now().into_std(), worker.rng.borrow_mut());
        let mut balancer = backend.balancer.borrow_mut();
        let attempt = tried.len() + 1;
        let last = attempt >= ATTEMPTS || attempt >= balancer.len();
        let breaker = accrual.map(|set| accrual_of(&set.value));
        let picked = match &breaker {
            None => balancer.pick(now, &mut rng, tried).ok_or(NoChoice::Empty),
            Some(breaker) => balancer.pick_closed(now, &mut rng, tried, breaker),
        };
        match picked {
            Ok(picked) => {
                let chosen = Chosen::new(picked.endpoint.clone(), picked.load, last);
                Ok(Chosen { judge: breaker.map(|breaker| Box::new((self.clone(), breaker))), ..chosen })
            }
            Err(NoChoice::Empty) => {
                let detail = format!("{} has no endpoint", backend.service);
                Err(Failed::untouched(Reason::DestinationUnavailable, detail))
            }
            Err(NoChoice::Open(count)) => {
                let by = accrual.map_or("", |set| set.by.as_str());
                let detail = format!(
                    "{count} of {count} endpoints of {} rest (failureAccrual of {by})",
                    backend.service
                );
                Err(Failed::new(Reason::CircuitOpen, detail))
            }
        }
    }
}

fn accrual_of(policy: &FailureAccrual) -> Accrual {
    let FailureAccrual { max_failures, min_penalty, max_penalty, jitter, max_ejection } = *policy;
    Accrual { max_failures, min_penalty, max_penalty, jitter, max_ejection }
}

/// The endpoints of a Service port, of one address family.
pub struct Backend {
    service: ServicePort,
    ipv4: bool,
    watched: Arc<Watched<Vec<Endpoint>>>,
    seen: Cell<u64>,
    balancer: RefCell<Balancer<Rc<Hop>>>,
    allowance: Allowance,
    used: Cell<Instant>,
}

impl Backend {
    pub fn new(
        service: ServicePort,
        ipv4: bool,
        watched: Arc<Watched<Vec<Endpoint>>>,
        allowance: Allowance,
    ) -> Self {
        Self {
            service,
            ipv4,
            watched,
            seen: Cell::new(0),
            balancer: RefCell::default(),
            allowance,
            used: Cell::new(Instant::now()),
        }
    }

    /// Until control's first word, and what it has said since.
    async fn look(&self, worker: &Worker) {
        if self.watched.version() == 0 {
            self.watched.first(limits::DISCOVERY_WAIT).await;
        }
        self.refresh(worker);
        self.used.set(Instant::now());
    }

    fn others<'a>(&self, tried: impl Iterator<Item = &'a Rc<Hop>> + Clone) -> bool {
        let Some(endpoints) = self.watched.latest() else { return false };
        self.taken(&endpoints).any(|endpoint| !tried.clone().any(|hop| hop.endpoint == *endpoint))
    }

    /// May the last attempt go to the address that the application dialled, in plaintext? Whoever stands behind it in the host then
    /// takes its choice, as without a mesh. Only while control has not confirmed the endpoints for longer than it ever takes, so
    /// that they may all have been replaced; and only if all that were known had no proxy: no traffic that was ever to be
    /// encrypted is not, for whatever reason.
    fn may_fall_back<'a>(&self, mut tried: impl Iterator<Item = &'a Rc<Hop>>, dialled: SocketAddr) -> bool {
        let Some(endpoints) = self.watched.latest() else { return false };
        self.watched.age().is_some_and(|age| age > limits::ENDPOINTS_CONFIRMED)
            && endpoints.iter().all(|endpoint| endpoint.identity.is_none() && endpoint.tls.is_none())
            && !tried.any(|hop| hop.endpoint.address == dialled)
    }

    /// Those of the family that the client dialled; all, if there are none.
    fn taken<'a>(&self, endpoints: &'a [Endpoint]) -> impl Iterator<Item = &'a Endpoint> + use<'a> {
        let ipv4 = self.ipv4;
        let of_family = move |endpoint: &&Endpoint| endpoint.address.is_ipv4() == ipv4;
        let any = endpoints.iter().any(|endpoint| of_family(&endpoint));
        endpoints.iter().filter(move |endpoint| !any || of_family(endpoint))
    }

    /// Takes over what control has said since the last time. Connections to endpoints that left are let go of.
    fn refresh(&self, worker: &Worker) {
        let version = self.watched.version();
        if version == self.seen.get() {
            return;
        }
        let Some(endpoints) = self.watched.latest() else { return };
        self.seen.set(version);
        let mut balancer = self.balancer.borrow_mut();
        let held: HashMap<Endpoint, Rc<Hop>> =
            balancer.iter().map(|(hop, _)| (hop.endpoint.clone(), hop.clone())).collect();
        let open: Vec<Rc<Hop>> =
            balancer.iter().filter(|(_, load)| load.is_open()).map(|(hop, _)| hop.clone()).collect();
        let removed = balancer.update(self.taken(&endpoints).map(|endpoint| {
            held.get(endpoint).cloned().unwrap_or_else(|| worker.hop(endpoint, Some(&self.service)))
        }));
        open.iter().filter(|hop| removed.contains(hop)).for_each(|hop| hop.edge.breaker_closed());
    }

    pub fn sweep(&self, now: Instant, held: bool) -> bool {
        self.balancer.borrow().iter().for_each(|(hop, _)| hop.sweep(now));
        !self.watched.is_closed() && (held || now - self.used.get() < limits::WATCH_IDLE)
    }
}

/// The application on one of our own addresses and ports.
pub struct Local {
    /// Plaintext callers: from outside of the mesh.
    pub hop: Rc<Hop>,
    program: Rc<Program>,
    address: SocketAddr,
    watched: Arc<Watched<Inbound>>,
    /// The same application, as callers of the mesh see it: by their identity.
    callers: RefCell<HashMap<SpiffeId, Rc<Hop>>>,
    said: RefCell<Said>,
    used: Cell<Instant>,
}

/// What control has said of a port, by version.
#[derive(Clone, Default)]
struct Said {
    version: u64,
    protocol: Protocol,
    /// The service as a label.
    label: Option<Rc<str>>,
}

impl Local {
    pub fn new(worker: &Rc<Worker>, address: SocketAddr, watched: Arc<Watched<Inbound>>) -> Self {
        let edge = worker.telemetry.edge(&labels(&watched, address, None));
        let program =
            Program::new(Plain::local(worker.dialer.network.clone(), address), worker.dialer.header_bytes);
        Self {
            hop: Rc::new(own(&program, address, edge)),
            program,
            address,
            watched,
            callers: RefCell::default(),
            said: RefCell::default(),
            used: Cell::new(Instant::now()),
        }
    }

    pub async fn wait(&self, limit: Duration) {
        if self.watched.version() == 0 {
            self.watched.first(limit).await;
        }
        self.used.set(Instant::now());
    }

    pub fn plain(&self) -> &Plain {
        &self.program.plain
    }

    /// What its owner says that it speaks, and the service that it is of as a label.
    pub fn said(&self) -> (Protocol, Option<Rc<str>>) {
        let version = self.watched.version();
        let mut said = self.said.borrow_mut();
        if said.version != version
            && let Some(policy) = self.watched.latest()
        {
            let label = policy.service.as_ref().map(|service| service.to_string().into());
            *said = Said { version, protocol: policy.protocol, label };
        }
        (said.protocol, said.label.clone())
    }

    pub fn service(&self) -> Option<ServicePort> {
        self.watched.latest().and_then(|policy| policy.service.clone())
    }

    /// The application, with the numbers of a caller; looked up once a connection.
    pub fn hop_of(&self, worker: &Worker, peer: &SpiffeId) -> Rc<Hop> {
        let mut callers = self.callers.borrow_mut();
        if let Some(hop) = callers.get(peer) {
            return hop.clone();
        }
        let edge = worker.telemetry.edge(&labels(&self.watched, self.address, Some(peer)));
        let hop = Rc::new(own(&self.program, self.address, edge));
        callers.insert(peer.clone(), hop.clone());
        hop
    }

    pub fn sweep(&self, now: Instant, held: bool) -> bool {
        self.hop.sweep(now);
        // A caller's numbers that only this memory holds may make room for others.
        self.callers.borrow_mut().retain(|_, hop| Rc::strong_count(hop) > 1);
        !self.watched.is_closed() && (held || now - self.used.get() < limits::WATCH_IDLE)
    }
}

fn own(program: &Rc<Program>, address: SocketAddr, edge: Arc<Edge>) -> Hop {
    let endpoint = Endpoint::plain(address);
    Hop { key: session::key_of(&endpoint), endpoint, way: Way::Program(program.clone()), edge }
}

fn labels(watched: &Watched<Inbound>, address: SocketAddr, peer: Option<&SpiffeId>) -> EdgeLabels {
    let service = watched.latest().and_then(|policy| policy.service.as_ref().map(ToString::to_string));
    EdgeLabels {
        direction: Direction::Inbound,
        service: service.unwrap_or_default().into(),
        workload: "".into(),
        identity: peer.map(ToString::to_string).unwrap_or_default().into(),
        backend: address.port().to_string().into(),
        tls: if peer.is_some() { "1.3" } else { "none" },
    }
}

#[cfg(test)]
pub(crate) mod tests;
