//! Where requests go: an outbound proxy, Services whose pods have a proxy or none, and the programs in them.

use crate::{authority, panics, program};
use policy::{Endpoint, Inbound, Outbound, ServiceName, ServicePort, WorkloadName};
use proxy_app::{
    discovery::{Discovery, Script},
    identity::Identity,
    inbound, outbound,
    telemetry::{Format, Gauges, Telemetry},
    worker::{Parts, Worker},
};
use proxy_http::streams::Dialer;
use proxy_tls::Credentials;
use proxy_transport::{
    Network, Stream,
    memory::{MemoryNetwork, Schedule, Step, pair},
};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};
use tokio::{
    runtime::{Builder, LocalOptions},
    time::{sleep, timeout},
};

/// In namespace `shop`, port 80. The `n`th one's pods are 10.0.n.1 and, where it has two, 10.0.n.2.
pub const SERVICES: [&str; 4] = ["v1", "v2", "pair", "none"];
/// What clients dial.
pub const DIALLED: &str = "10.96.0.1:80";
/// Virtual time that nothing here needs.
const HANG: Duration = Duration::from_secs(300);
/// Copies of requests, which nobody waits for, arrive within it.
const SETTLE: Duration = Duration::from_secs(1);

/// How a request is made, and of whom.
#[derive(Clone, Copy)]
pub struct Way {
    pub http2: bool,
    pub meshed: bool,
}

impl Way {
    pub const ALL: [Self; 4] = [
        Self { http2: false, meshed: true },
        Self { http2: false, meshed: false },
        Self { http2: true, meshed: true },
        Self { http2: true, meshed: false },
    ];

    pub fn name(&self) -> &'static str {
        match (self.http2, self.meshed) {
            (false, true) => "1 meshed",
            (false, false) => "1 plain",
            (true, true) => "2 meshed",
            (true, false) => "2 plain",
        }
    }
}

pub struct World {
    pub outbound: Rc<Worker>,
    pub script: Script,
    pub telemetry: Telemetry,
    meshed: bool,
    pub programs: Rc<Programs>,
    clients: Cell<u16>,
    _inbound: Rc<Worker>,
}

/// What the programs say and have heard.
#[derive(Default)]
pub struct Programs {
    /// Instead of their usual words.
    pub reply: RefCell<Option<String>>,
    /// Pod and request, as the program read it.
    pub saw: RefCell<Vec<(String, String)>>,
    /// Pod and body, of each request.
    pub bodies: RefCell<Vec<(String, String)>>,
    /// Pods whose programs answer nothing, and read nothing.
    pub silent: RefCell<Vec<&'static str>>,
}

/// Runs a world of its own runtime, on virtual time.
pub fn run<T, F: Future<Output = T>>(live: impl FnOnce() -> F) -> T {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .expect("a runtime");
    panics::take();
    let lived = runtime.block_on(async { timeout(HANG, live()).await.expect("it hangs") });
    assert_eq!(panics::take(), Vec::<String>::new());
    lived
}

impl World {
    pub fn new(meshed: bool) -> Rc<Self> {
        let (client, server) = authority::credentials();
        let (mesh, node) = (MemoryNetwork::new(smooth()), MemoryNetwork::new(smooth()));
        let (outbound, script, telemetry) = proxy("client-0", client, &mesh);
        let (inbound, inbound_script, _) = proxy("server-0", server, &node);
        inbound_script.inbound(80, Inbound::default());
        let programs = Rc::new(Programs::default());
        for service_name in SERVICES {
            let endpoints = endpoints(service_name, meshed);
            for endpoint in &endpoints {
                let (name, programs) = (pod_of(endpoint).to_owned(), programs.clone());
                let network = if meshed { &node } else { &mesh };
                listen(network, endpoint.address, move |stream| {
                    program::serve(programs.clone(), name.clone(), stream)
                });
                if meshed {
                    let worker = inbound.clone();
                    listen(&mesh, endpoint.address, move |stream| inbound::serve(worker.clone(), stream));
                }
            }
            script.endpoints(&service(service_name), endpoints);
        }
        let clients = Cell::new(0);
        Rc::new(Self { outbound, script, telemetry, meshed, programs, clients, _inbound: inbound })
    }

    /// What holds where clients dial.
    pub fn declare(&self, policy: Outbound) {
        self.script.outbound(at(DIALLED), policy);
    }

    pub fn reply(&self, reply: Option<&str>) {
        self.programs.reply.replace(reply.map(str::to_owned));
    }

    /// A client's new connection to what it dials.
    pub fn dial(&self) -> Stream {
        self.clients.set(self.clients.get() + 1);
        let from = SocketAddr::from(([10, 0, 0, 9], 40_000 + self.clients.get()));
        let (near, far) = pair(from, at(DIALLED), &smooth());
        tokio::task::spawn_local(outbound::serve(self.outbound.clone(), far.into()));
        near.into()
    }

    /// What the programs have seen since the last call.
    pub async fn saw(&self) -> String {
        sleep(SETTLE).await;
        let mut saw = self.programs.saw.take();
        saw.sort();
        saw.iter().map(|(pod, request)| format!("{pod}: {request}\n")).collect()
    }

    /// The value of a metric whose line begins so, all lines together.
    pub fn metric(&self, begin: &str) -> u64 {
        let text = self.telemetry.encode(Format::Classic);
        let lines = text.lines().filter(|line| line.starts_with(begin));
        lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a count")).sum()
    }

    /// Those of a Service's pods that are to be there.
    pub fn endpoints(&self, service: &ServicePort, are_there: impl Fn(&str) -> bool) -> Vec<Endpoint> {
        endpoints(&service.service.name, self.meshed)
            .into_iter()
            .filter(|one| are_there(pod_of(one)))
            .collect()
    }
}

fn endpoints(service: &str, meshed: bool) -> Vec<Endpoint> {
    let at = SERVICES.iter().position(|one| *one == service).expect("a Service of the world");
    let count = match service {
        "pair" => 2,
        "none" => 0,
        _ => 1,
    };
    let endpoint = |pod| Endpoint {
        address: SocketAddr::from(([10, 0, at as u8 + 1, pod], 80)),
        identity: meshed.then(|| authority::SERVER.parse().expect("an identity")),
        workload: Some(WorkloadName::new("shop", &format!("{service}-{pod}"))),
        tls: None,
    };
    (1..=count).map(endpoint).collect()
}

fn pod_of(endpoint: &Endpoint) -> &str {
    &endpoint.workload.as_ref().expect("a pod").name
}

pub fn service(name: &str) -> ServicePort {
    ServiceName::new("shop", name).port(80)
}

pub fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address and port")
}

fn proxy(name: &str, credentials: Credentials, network: &MemoryNetwork) -> (Rc<Worker>, Script, Telemetry) {
    let (discovery, script) = Discovery::scripted();
    let telemetry = Telemetry::new(Gauges::default);
    let worker = Worker::new(Parts {
        connections: policy::limits::CONNECTIONS,
        workload: WorkloadName::new("shop", name),
        discovery,
        dialer: Dialer {
            network: Network::Memory(network.clone()),
            credentials: Identity::fixed(credentials).shared(),
            header_bytes: policy::limits::HEADER_LIST_BYTES,
        },
        telemetry: telemetry.worker(),
        own_ports: Vec::new(),
        seed: 1,
    });
    (worker, script, telemetry)
}

fn smooth() -> Schedule {
    Rc::new(|| Step::Pass(usize::MAX))
}

fn listen<F>(network: &MemoryNetwork, address: SocketAddr, serve: impl Fn(Stream) -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let mut connections = network.listen(address);
    tokio::task::spawn_local(async move {
        while let Some(connection) = connections.recv().await {
            tokio::task::spawn_local(serve(connection.into()));
        }
    });
}
