//! Where a world plays: two proxies, their networks, clients and applications on one thread in virtual time.

use crate::{
    application::{serve_bytes, serve_http},
    authority::{SERVER, credentials},
    client::talk,
    plan::{Kind, Path},
    schedule::{Mood, Told, schedule},
    serving::serve_streams,
    world::{BYTES_PORT, HTTP_PORT, STREAMS_PORT, World},
};
use policy::{Endpoint, Inbound, Outbound, Protocol, ServiceName, Settings, Target, WorkloadName};
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
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::mpsc::UnboundedReceiver,
    task::AbortHandle,
    time::{Instant, sleep},
};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER_POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const DEAD_POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const UNMESHED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// After it, a sweep finds everything unused.
const IDLE: Duration = Duration::from_secs(400);

/// Where a world plays.
pub struct Stage {
    world: Rc<World>,
    outbound: Rc<Worker>,
    inbound: Rc<Worker>,
    telemetry: [Telemetry; 2],
    script: Script,
    /// What the outbound proxy, and what the inbound one connects through.
    mesh: MemoryNetwork,
    node: MemoryNetwork,
    accepting: Vec<AbortHandle>,
    pub told: Vec<Rc<Told>>,
    mood: fn(&mut Rng, bool) -> Mood,
}

impl Stage {
    pub fn new(world: &Rc<World>, rng: &mut Rng) -> Self {
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
                tls: None,
            };
            let service = ServiceName::new("shop", "server").port(port);
            let mut endpoints = vec![endpoint(pod, true)];
            if self.world.plan.dead_endpoint {
                endpoints.push(endpoint(DEAD_POD, true));
            }
            self.script.endpoints(&service, endpoints);
            let protocol = self.world.declared(port);
            let say = |ip: Ipv4Addr, target| {
                let settings = Settings { retry: self.world.plan.retry.clone(), ..Settings::default() };
                let policy = Outbound { settings, ..Outbound::new(target, protocol) };
                self.script.outbound(SocketAddr::new(ip.into(), port), policy);
            };
            say(SERVICE, Target::Service(service));
            say(POD, Target::Workload(endpoint(POD, true)));
            say(UNMESHED, Target::External);
        }
    }

    /// Has every conversation to its end.
    pub async fn play(&mut self, rng: &mut Rng) {
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
    pub async fn end(&mut self) {
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
