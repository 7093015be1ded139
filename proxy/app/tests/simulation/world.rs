//! One world: two proxies, their networks, clients and applications on one thread in virtual time; what it must end like.

use crate::{
    application::{serve_bytes, serve_http},
    authority::{SERVER, credentials},
    calls::Call,
    client::talk,
    panics,
    plan::{Conversation, Kind, Path, Plan, Request},
    schedule::{Mood, Told, schedule},
    serving::serve_streams,
};
use policy::{Endpoint, Inbound, Outbound, Protocol, ServiceName, Target, WorkloadName};
use proxy_app::{
    discovery::{Discovery, Script},
    identity::Identity,
    inbound, outbound,
    telemetry::{Format, Gauges, Telemetry},
    worker::{Parts, Worker},
};
use proxy_balance::Rng;
use proxy_http::streams::Dialer;
use proxy_transport::{
    Network, Stream,
    memory::{Memory, MemoryNetwork, pair},
};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};
use tokio::{
    runtime::{Builder, Handle, LocalOptions},
    sync::{Notify, mpsc::UnboundedReceiver},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER_POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DEAD_POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const UNMESHED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The ports of the HTTP applications, of versions 1 and 2; each connection of bytes has one of its own, beginning at `BYTES_PORT`.
const HTTP_PORT: u16 = 80;
const STREAMS_PORT: u16 = 81;
const BYTES_PORT: u16 = 9000;
/// Virtual time that no world needs.
const HANG: Duration = Duration::from_secs(300);
/// After it, a sweep finds everything unused.
const IDLE: Duration = Duration::from_secs(400);

pub struct World {
    pub plan: Plan,
    /// Nothing is killed: all must arrive.
    pub mild: bool,
    requests: HashMap<String, Rc<Request>>,
    calls: HashMap<String, Rc<Call>>,
    /// By call: how often it was refused.
    refused: RefCell<HashMap<usize, usize>>,
    /// By conversation: the calls under way that others wait for, and who waits.
    under_way: HashMap<usize, (Cell<usize>, Notify)>,
    begin: Instant,
    /// Conversations in HTTP/2 that the proxies took for bytes.
    bytes_alone: RefCell<HashSet<usize>>,
    wrongs: RefCell<Vec<String>>,
    /// By request: how often its head and how often all of it has come to an application.
    log: RefCell<HashMap<usize, (usize, usize)>>,
    /// By connection of bytes: what has come to an application, over connections that brought anything.
    bytes: RefCell<HashMap<usize, Vec<usize>>>,
}

/// What became of a world.
pub struct Outcome {
    pub wrongs: Vec<String>,
    /// A hash of all that its schedules said.
    pub trace: u64,
}

/// Lives through the world of a seed.
pub fn live(seed: u64, mild: bool) -> Outcome {
    live_as(seed, mild, |rng| Plan::new(rng, !mild))
}

/// Lives through a world of this plan.
pub fn live_as(seed: u64, mild: bool, plan: impl FnOnce(&mut Rng) -> Plan) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .expect("a runtime");
    panics::take();
    let (world, trace) = runtime.block_on(World::run(seed, mild, plan));
    // A sum of h2's own, which only a debug build does, and which nothing hangs on.
    for panic in panics::take().into_iter().filter(|panic| !panic.contains("!self.has_streams()")) {
        world.wrong(format!("a panic: {panic}"));
    }
    let mut wrongs = world.wrongs.take();
    if !wrongs.is_empty() {
        let conversations = &world.plan.conversations;
        wrongs.extend(conversations.iter().map(|conversation| format!("{conversation:?}")));
        wrongs.push(format!("{:?}", Plan { conversations: Vec::new(), ..world.plan }));
    }
    Outcome { wrongs, trace }
}

impl World {
    async fn run(seed: u64, mild: bool, plan: impl FnOnce(&mut Rng) -> Plan) -> (Rc<Self>, u64) {
        let mut rng = Rng::new(seed);
        let plan = plan(&mut rng);
        let (mut requests, mut calls, mut under_way) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (number, conversation) in plan.conversations.iter().enumerate() {
            match &conversation.kind {
                Kind::Http(http) => requests
                    .extend(http.requests.iter().map(|request| (request.id.to_string(), request.clone()))),
                Kind::Streams(streams) => {
                    let quick = streams.calls.iter().filter(|call| call.slow.is_none()).count();
                    under_way.insert(number, (Cell::new(quick), Notify::new()));
                    calls.extend(streams.calls.iter().map(|call| (call.id.to_string(), call.clone())));
                }
                Kind::Tcp(_) => {}
            }
        }
        let world = Rc::new(Self {
            plan,
            mild,
            requests,
            calls,
            refused: RefCell::default(),
            under_way,
            begin: Instant::now(),
            bytes_alone: RefCell::default(),
            wrongs: RefCell::default(),
            log: RefCell::default(),
            bytes: RefCell::default(),
        });
        let mut stage = Stage::new(&world, &mut rng);
        let begin = Instant::now();
        if timeout(HANG, stage.play(&mut rng)).await.is_err() {
            world.wrong(format!("it hangs; {} tasks", Handle::current().metrics().num_alive_tasks()));
        }
        tracing::trace!(seed, elapsed = ?begin.elapsed(), "a world has ended");
        stage.end().await;
        world.judge();
        let trace = stage.told.iter().fold(seed, |sum, told| sum.rotate_left(9) ^ told.trace());
        (world, trace)
    }

    pub fn wrong(&self, what: String) {
        self.wrongs.borrow_mut().push(what);
    }

    pub fn request(&self, id: &str) -> Option<Rc<Request>> {
        self.requests.get(id).cloned()
    }

    pub fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    pub fn call(&self, id: &str) -> Option<Rc<Call>> {
        self.calls.get(id).cloned()
    }

    /// A call has ended at its client.
    pub fn ended(&self, call: &Call) {
        if call.slow.is_none() {
            let (left, waiting) = &self.under_way[&call.conversation];
            left.set(left.get() - 1);
            waiting.notify_waiters();
        }
    }

    /// Waits for the other calls of a slow one's connection.
    pub async fn others(&self, call: &Call) {
        let (left, waiting) = &self.under_way[&call.conversation];
        while left.get() > 0 {
            waiting.notified().await;
        }
    }

    /// Where nothing is declared, and the server's SETTINGS come before the client's preface, HTTP/2 is carried as any bytes: with
    /// fields that no proxy takes out, and timeouts that none knows of.
    pub fn may_be_bytes(&self, call: &Call) -> bool {
        let outside = self.plan.conversations[call.conversation].path == Path::Outside;
        let may = outside || self.declared(STREAMS_PORT) == Protocol::Auto;
        if may {
            self.bytes_alone.borrow_mut().insert(call.conversation);
        }
        may
    }

    pub fn was_bytes(&self, call: &Call) -> bool {
        self.bytes_alone.borrow().contains(&call.conversation)
    }

    /// Nobody has stood by a call whose application refused it, left it alone, or would take no more.
    pub fn went_alone(&self, call: &Call) -> bool {
        let reply = &call.reply;
        let needy = reply.stalls.is_some() || reply.refusals > 0 || self.plan.retires.is_some();
        needy && self.was_bytes(call)
    }

    /// Is the application to refuse a call, once more?
    pub fn refuses(&self, call: &Call) -> bool {
        let mut refused = self.refused.borrow_mut();
        let count = refused.entry(call.id).or_default();
        *count += 1;
        *count <= call.reply.refusals
    }

    /// An application has the head of a request.
    pub fn seen(&self, id: usize) {
        self.log.borrow_mut().entry(id).or_default().0 += 1;
    }

    /// An application has all of a request.
    pub fn done(&self, id: usize) {
        self.log.borrow_mut().entry(id).or_default().1 += 1;
    }

    /// An application has had so many bytes of a connection.
    pub fn heard(&self, number: usize, bytes: usize) {
        self.bytes.borrow_mut().entry(number).or_default().push(bytes);
    }

    /// What can be said only at the end: how often each thing has happened.
    fn judge(&self) {
        let log = self.log.borrow();
        for request in self.requests.values() {
            let (seen, done) = log.get(&request.id).copied().unwrap_or_default();
            let once = matches!(request.method, "POST" | "CONNECT") || self.mild;
            if once && seen > 1 {
                self.wrong(format!("request {} has come {seen} times", request.id));
            }
            let whole = request.upgrade.as_ref().is_none_or(Option::is_none)
                && request.abort.is_none()
                && !request.garbled
                && !request.response.early;
            if self.mild && whole && done != 1 {
                self.wrong(format!("request {} has been executed {done} times", request.id));
            }
        }
        for call in self.calls.values() {
            let (seen, done) = log.get(&call.id).copied().unwrap_or_default();
            if (call.is_once() || self.mild) && seen > 1 {
                self.wrong(format!("call {} has come {seen} times", call.id));
            }
            if self.mild && call.is_read() && !self.went_alone(call) && done != 1 {
                self.wrong(format!("call {} has been executed {done} times", call.id));
            }
        }
        for (number, conversation) in self.plan.conversations.iter().enumerate() {
            let Kind::Tcp(tcp) = &conversation.kind else { continue };
            let bytes = self.bytes.borrow().get(&number).cloned().unwrap_or_default();
            let resets = tcp.up.reset || tcp.down.reset;
            let twice = bytes.iter().filter(|bytes| **bytes > 0).count() > 1;
            if twice || (self.mild && !resets && !bytes.contains(&tcp.up.body.len)) {
                self.wrong(format!(
                    "connection {number} has brought {bytes:?} bytes, of {}",
                    tcp.up.body.len
                ));
            }
        }
    }
}

/// Where a world plays.
struct Stage {
    world: Rc<World>,
    outbound: Rc<Worker>,
    inbound: Rc<Worker>,
    telemetry: [Telemetry; 2],
    script: Script,
    /// What the outbound proxy, and what the inbound one connects through.
    mesh: MemoryNetwork,
    node: MemoryNetwork,
    accepting: Vec<AbortHandle>,
    told: Vec<Rc<Told>>,
    mood: fn(&mut Rng, bool) -> Mood,
}

impl Stage {
    fn new(world: &Rc<World>, rng: &mut Rng) -> Self {
        let mood = if world.mild { Mood::mild } else { Mood::hostile };
        let mut told = Vec::new();
        let mut network = |rng: &mut Rng| {
            let mood = mood(rng, world.plan.tiny);
            let (schedule, network_told) = schedule(Rng::new(rng.bits()), mood);
            told.push(network_told);
            MemoryNetwork::new(schedule)
        };
        let (mesh, node) = (network(rng), network(rng));
        let (client, server) = credentials();
        let mut worker = |name, credentials, network: &MemoryNetwork| {
            let (discovery, script) = Discovery::scripted();
            let telemetry = Telemetry::new(Gauges::default);
            let network = Network::Memory(network.clone());
            let worker = Worker::new(Parts {
                connections: policy::limits::CONNECTIONS,
                workload: WorkloadName::new("shop", name),
                discovery,
                dialer: Dialer {
                    network,
                    credentials: Identity::fixed(credentials).shared(),
                    header_bytes: policy::limits::HEADER_LIST_BYTES,
                },
                telemetry: telemetry.worker(),
                own_ports: Vec::new(),
                seed: rng.bits(),
            });
            (worker, script, telemetry)
        };
        let (outbound, script, outbound_telemetry) = worker("client-0", client, &mesh);
        let (inbound, inbound_script, inbound_telemetry) = worker("server-0", server, &node);
        let ports = world.ports();
        for port in &ports {
            let protocol = world.declared(*port);
            // A server of bytes is declared to its callers alone.
            let protocol = if protocol == Protocol::Http2 { protocol } else { Protocol::Auto };
            inbound_script.inbound(*port, Inbound { protocol, ..Inbound::default() });
        }
        let mut stage = Self {
            world: world.clone(),
            outbound,
            inbound,
            telemetry: [outbound_telemetry, inbound_telemetry],
            script,
            mesh,
            node,
            accepting: Vec::new(),
            told,
            mood,
        };
        stage.listen(&ports);
        stage.tell(POD);
        stage
    }

    /// Applications, and before those of the mesh the inbound proxy.
    fn listen(&mut self, ports: &[u16]) {
        for port in ports.iter().copied() {
            for pod in [POD, OTHER_POD] {
                let address = SocketAddr::new(pod.into(), port);
                let connections = self.mesh.listen(address);
                let worker = self.inbound.clone();
                self.accept(connections, move |stream| enter(&worker, stream, inbound::serve));
                let connections = self.node.listen(address);
                self.accept_at_application(connections, port);
            }
            let connections = self.mesh.listen(SocketAddr::new(UNMESHED.into(), port));
            self.accept_at_application(connections, port);
        }
    }

    fn accept(&mut self, mut connections: UnboundedReceiver<Memory>, serve: impl Fn(Stream) + 'static) {
        let accepting = tokio::task::spawn_local(async move {
            while let Some(connection) = connections.recv().await {
                serve(connection.into());
            }
        });
        self.accepting.push(accepting.abort_handle());
    }

    fn accept_at_application(&mut self, connections: UnboundedReceiver<Memory>, port: u16) {
        let world = self.world.clone();
        self.accept(connections, move |stream| {
            match port.checked_sub(BYTES_PORT) {
                None if port == STREAMS_PORT => {
                    tokio::task::spawn_local(serve_streams(world.clone(), stream))
                }
                None => tokio::task::spawn_local(serve_http(world.clone(), stream)),
                Some(number) => tokio::task::spawn_local(serve_bytes(world.clone(), number.into(), stream)),
            };
        });
    }

    /// What control would say: where things are, with `pod` as the Service's endpoint.
    fn tell(&self, pod: Ipv4Addr) {
        for port in self.world.ports() {
            let endpoint = |ip: Ipv4Addr, meshed: bool| Endpoint {
                address: SocketAddr::new(ip.into(), port),
                identity: meshed.then(|| SERVER.parse().expect("an identity")),
                workload: meshed.then(|| WorkloadName::new("shop", "server-0")),
            };
            let service = ServiceName::new("shop", "server").port(port);
            let mut endpoints = vec![endpoint(pod, true)];
            if self.world.plan.dead_endpoint {
                endpoints.push(endpoint(DEAD_POD, true));
            }
            self.script.endpoints(&service, endpoints);
            let protocol = self.world.declared(port);
            let say = |ip: Ipv4Addr, target| {
                let policy = Outbound { target, protocol, ..Outbound::external() };
                self.script.outbound(SocketAddr::new(ip.into(), port), policy);
            };
            say(SERVICE, Target::Service(service));
            say(POD, Target::Workload(endpoint(POD, true)));
            say(UNMESHED, Target::External);
        }
    }

    /// Has every conversation to its end.
    async fn play(&mut self, rng: &mut Rng) {
        let mut talks = Vec::new();
        for number in 0..self.world.plan.conversations.len() {
            let mood = (self.mood)(rng, self.world.plan.tiny);
            let (schedule, told) = schedule(Rng::new(rng.bits()), mood);
            self.told.push(told.clone());
            let (world, outbound, inbound) =
                (self.world.clone(), self.outbound.clone(), self.inbound.clone());
            talks.push(tokio::task::spawn_local(async move {
                let conversation = &world.plan.conversations[number];
                sleep(conversation.start).await;
                let port = match conversation.kind {
                    Kind::Http(_) => HTTP_PORT,
                    Kind::Streams(_) => STREAMS_PORT,
                    Kind::Tcp(_) => BYTES_PORT + number as u16,
                };
                let ip = match conversation.path {
                    Path::Service => SERVICE,
                    Path::Pod | Path::Outside => POD,
                    Path::Unmeshed => UNMESHED,
                };
                let from = SocketAddr::new(IpAddr::from([10, 0, 0, 9]), 40_000 + number as u16);
                let (near, far) = pair(from, SocketAddr::new(ip.into(), port), &schedule);
                if conversation.path == Path::Outside {
                    enter(&inbound, far.into(), inbound::serve);
                } else {
                    enter(&outbound, far.into(), outbound::serve);
                }
                talk(world.clone(), number, near.into(), move || told.killed()).await;
            }));
        }
        let replacing = async {
            if let Some(after) = self.world.plan.replaced {
                sleep(after).await;
                self.tell(OTHER_POD);
            }
        };
        let draining = async {
            if let Some((after, outbound)) = self.world.plan.drained {
                sleep(after).await;
                let worker = if outbound { &self.outbound } else { &self.inbound };
                worker.drain(Duration::ZERO).await;
            }
        };
        let talking = async {
            for talk in talks {
                if talk.await.is_err() {
                    self.world.wrong("a client panicked".to_owned());
                }
            }
        };
        futures_util::future::join3(replacing, draining, talking).await;
    }

    /// Nothing may be left once everything unused has been swept.
    async fn end(&mut self) {
        for _ in 0..2 {
            sleep(IDLE).await;
            self.outbound.sweep(Instant::now());
            self.inbound.sweep(Instant::now());
        }
        sleep(IDLE).await;
        self.accepting.iter().for_each(AbortHandle::abort);
        tokio::task::yield_now().await;
        let tasks = Handle::current().metrics().num_alive_tasks();
        if tasks > 0 {
            self.world.wrong(format!("{tasks} tasks are left"));
        }
        for worker in [&self.outbound, &self.inbound] {
            let left = worker.drain(Duration::ZERO).await;
            if left > 0 {
                self.world.wrong(format!("{} counts {left} connections too many", worker.workload));
            }
        }
        for telemetry in &self.telemetry {
            let text = telemetry.encode(Format::Classic);
            let open = ["weft_requests_in_flight", "weft_connections_open"];
            for line in text.lines().filter(|line| open.iter().any(|name| line.starts_with(name))) {
                if !line.ends_with(" 0") {
                    self.world.wrong(format!("at the end: {line}"));
                }
            }
        }
    }
}

impl World {
    /// The ports that the world's applications listen on.
    fn ports(&self) -> Vec<u16> {
        let conversations = self.plan.conversations.iter().enumerate();
        let bytes = conversations.filter(|(_, conversation)| matches!(conversation.kind, Kind::Tcp(_)));
        [HTTP_PORT, STREAMS_PORT]
            .into_iter()
            .chain(bytes.map(|(number, _)| BYTES_PORT + number as u16))
            .collect()
    }

    /// What the policy says of a port.
    fn declared(&self, port: u16) -> Protocol {
        let conversations = &self.plan.conversations;
        match port.checked_sub(BYTES_PORT) {
            Some(number) if conversations[usize::from(number)].declared => Protocol::Opaque,
            None if port == STREAMS_PORT => {
                let declared = |one: &Conversation| match &one.kind {
                    Kind::Streams(streams) => one.declared || streams.http1,
                    _ => false,
                };
                if conversations.iter().any(declared) { Protocol::Http2 } else { Protocol::Auto }
            }
            None if conversations[0].declared => Protocol::Http1,
            _ => Protocol::Auto,
        }
    }
}

/// The size of the futures that serve a connection, outbound and inbound, in bytes.
pub fn sizes() -> (usize, usize) {
    fn size<F: Future<Output = ()>>(_: fn(Rc<Worker>, Stream) -> F) -> usize {
        size_of::<F>()
    }
    (size(outbound::serve), size(inbound::serve))
}

/// A connection enters a proxy, as from its listener.
fn enter<F>(worker: &Rc<Worker>, stream: Stream, serve: fn(Rc<Worker>, Stream) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let counted = worker.count(proxy_app::telemetry::Direction::Outbound);
    let served = serve(worker.clone(), stream);
    tokio::task::spawn_local(async move {
        served.await;
        drop(counted);
    });
}
