//! One world for each row: a client, two proxies and an application on one thread in virtual time.

use crate::{
    authority, panics,
    table::{Row, Says},
};
use policy::{
    BackendSettings, Endpoint, Inbound, Outbound, Protocol, ServiceName, ServicePort, Settings, Target,
    WorkloadName,
};
use proxy_app::{
    discovery::{Discovery, Script},
    identity::Identity,
    inbound, outbound,
    telemetry::{
        Direction, Format, Gauges, Telemetry,
        access::{AccessLog, Mode},
    },
    worker::{Counted, Parts, Worker},
};
use proxy_http::streams::Dialer;
use proxy_tls::Credentials;
use proxy_transport::{
    Network, Stream,
    memory::{MemoryNetwork, Schedule, Step, pair},
};
use serde_json::Value;
use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, LocalOptions},
    time::{sleep, timeout},
};

/// A Service, its pod, and an address outside of the mesh. The pod's proxy stands before its port.
pub const SERVICE: &str = "10.96.0.1:80";
pub const POD: &str = "10.0.0.1:80";
pub const OUTSIDE: &str = "192.0.2.1:80";
/// The outbound proxy's own port.
pub const OWN: &str = "10.0.0.9:4240";
/// Who asks.
const CLIENT: &str = "10.0.0.9:40000";
/// Virtual time that no world needs.
const HANG: Duration = Duration::from_secs(300);

/// What a row has made happen before its client asks.
const SETTLE: Duration = Duration::from_secs(2);

/// What the client has heard.
#[derive(Debug)]
pub enum Heard {
    Answer(String),
    Reset,
    /// The connection stood on and on.
    Nothing,
}

/// What one proxy has told of its reasons.
#[derive(Debug, Default)]
pub struct Given {
    pub lines: Vec<Value>,
    /// The words that are counted, and how often.
    pub counted: Vec<(String, u64)>,
}

#[derive(Debug)]
pub struct Lived {
    pub heard: Heard,
    /// By direction.
    pub given: [Given; 2],
}

/// The world, as a row finds it and changes it.
pub struct World {
    pub outbound: Proxy,
    pub inbound: Proxy,
    /// Counted connections that stand for others.
    pub crowd: RefCell<Vec<Counted>>,
}

pub struct Proxy {
    pub worker: Rc<Worker>,
    pub script: Script,
    /// What it connects through.
    pub network: MemoryNetwork,
    telemetry: Telemetry,
    access: AccessLog,
}

type Served = Pin<Box<dyn Future<Output = ()>>>;

impl World {
    pub fn live(row: &Row) -> Lived {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build_local(LocalOptions::default())
            .expect("a runtime");
        panics::take();
        let lived = runtime.block_on(async {
            let world = Rc::new(Self::new((row.credentials)()));
            (row.force)(&world);
            sleep(SETTLE).await;
            let heard = timeout(HANG, world.ask(row)).await.unwrap_or(Heard::Nothing);
            // What is counted after the client has been told.
            sleep(Duration::from_secs(60)).await;
            Lived { heard, given: [world.outbound.given(), world.inbound.given()] }
        });
        assert_eq!(panics::take(), Vec::<String>::new(), "{}", row.name);
        lived
    }

    fn new(credentials: Credentials) -> Self {
        let (_, server) = authority::credentials();
        let world = Self {
            outbound: Proxy::new("client-0", credentials),
            inbound: Proxy::new("server-0", server),
            crowd: RefCell::default(),
        };
        let worker = world.inbound.worker.clone();
        world.at(POD, move |stream| Box::pin(inbound::serve(worker.clone(), stream)));
        world.inbound.script.inbound(80, Inbound::default());
        world.endpoints(vec![meshed(authority::SERVER)]);
        for (address, target) in
            [(SERVICE, Target::Service(service())), (OUTSIDE, Target::External), (OWN, Target::External)]
        {
            world.declare(address, target, Protocol::Auto);
        }
        world
    }

    /// What stands behind an address, and what is spoken there.
    pub fn declare(&self, address: &str, target: Target, protocol: Protocol) {
        let policy = Outbound { target, protocol, ..Outbound::external() };
        self.outbound.script.outbound(at(address), policy);
    }

    /// What holds for the Service.
    pub fn govern(&self, settings: Settings, backend: BackendSettings) {
        let target = Target::Service(service());
        let policy = Outbound { settings, backend, ..Outbound::new(target, Protocol::Auto) };
        self.outbound.script.outbound(at(SERVICE), policy);
    }

    /// The routes of the Service.
    pub fn route(&self, routes: policy::Routes) {
        let policy = Outbound { routes, ..Outbound::new(Target::Service(service()), Protocol::Auto) };
        self.outbound.script.outbound(at(SERVICE), policy);
    }

    pub fn endpoints(&self, endpoints: Vec<Endpoint>) {
        self.outbound.script.endpoints(&service(), endpoints);
    }

    /// Whom the outbound proxy finds at an address.
    pub fn at(&self, address: &str, serve: impl Fn(Stream) -> Served + 'static) {
        listen(&self.outbound.network, address, serve);
    }

    /// The application behind the inbound proxy: reads the request's head, and answers with these bytes.
    pub fn application(&self, answer: impl Into<Vec<u8>>) {
        listen(&self.inbound.network, POD, answering(answer));
    }

    /// The same, of which the first connection is one of HTTP/2, without WebSockets.
    pub fn program(&self, answer: impl Into<Vec<u8>>) {
        let (first, answer) = (Cell::new(true), answering(answer));
        listen(&self.inbound.network, POD, move |stream| {
            if !first.replace(false) {
                return answer(stream);
            }
            Box::pin(async move {
                let mut connection = h2::server::handshake(stream).await.expect("a preface");
                while connection.accept().await.is_some() {}
            })
        });
    }

    /// So many requests to the Service, one after the other, that nobody answers.
    pub fn busy(&self, requests: u32, says: &'static [u8]) {
        for number in 0..requests {
            let (mut near, far) = stream_pair(CLIENT, SERVICE);
            let worker = self.outbound.worker.clone();
            tokio::task::spawn_local(async move {
                sleep(number * SETTLE / (2 * requests)).await;
                tokio::task::spawn_local(outbound::serve(worker, far));
                near.write_all(says).await.expect("the proxy reads");
                sleep(HANG).await;
            });
        }
    }

    async fn ask(&self, row: &Row) -> Heard {
        let (near, far) = stream_pair(CLIENT, row.to);
        match row.through {
            Direction::Outbound => {
                tokio::task::spawn_local(outbound::serve(self.outbound.worker.clone(), far));
            }
            Direction::Inbound => {
                tokio::task::spawn_local(inbound::serve(self.inbound.worker.clone(), far));
            }
        }
        match row.says {
            Says::Bytes(bytes) => talk(near, bytes).await,
            Says::Http2(request) => call(near, request()).await,
        }
    }
}

impl Proxy {
    fn new(name: &str, credentials: Credentials) -> Self {
        let (discovery, script) = Discovery::scripted();
        let access = AccessLog::new(Mode::All);
        let telemetry = Telemetry::logging(Gauges::default, access.clone());
        let network = MemoryNetwork::new(smooth());
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
            own_ports: vec![at(OWN).port()],
            seed: 1,
        });
        Self { worker, script, network, telemetry, access }
    }

    fn given(&self) -> Given {
        let lines = String::from_utf8(self.access.take()).expect("UTF-8");
        let lines = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let text = self.telemetry.encode(Format::Classic);
        let counted = text.lines().filter(|line| line.starts_with("weft_reasons_total{")).map(|line| {
            let (labels, count) = line.rsplit_once("} ").expect("labels and a number");
            let word = labels.split_once("reason=\"").expect("a reason").1.trim_end_matches('"');
            (word.to_owned(), count.parse().expect("a count"))
        });
        Given { counted: counted.collect(), lines }
    }
}

/// Credentials that nobody believes: the client's identity, but of another root.
pub fn forged() -> Credentials {
    let certificate = authority::leaf(&authority::issuer(), 2, authority::CLIENT);
    Credentials::new(&authority::MADE.0, &certificate).expect("credentials")
}

/// The endpoint of the Service: the pod's proxy, of which this identity is expected.
pub fn meshed(identity: &str) -> Endpoint {
    Endpoint {
        address: at(POD),
        identity: Some(identity.parse().expect("an identity")),
        workload: Some(WorkloadName::new("shop", "server-0")),
        tls: None,
    }
}

pub fn service() -> ServicePort {
    ServiceName::new("shop", "server").port(80)
}

pub fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address and port")
}

/// Reads some of what comes, answers with these bytes, and ends.
pub fn answering(answer: impl Into<Vec<u8>>) -> impl Fn(Stream) -> Served + 'static {
    let answer = Rc::new(answer.into());
    move |mut stream| {
        let answer = answer.clone();
        Box::pin(async move {
            let mut read = [0; 16 * 1024];
            // Whoever has gone needs no answer.
            if matches!(stream.read(&mut read).await, Ok(1..)) {
                let _ = stream.write_all(&answer).await;
            }
        })
    }
}

/// Takes the connection and says nothing.
pub fn silent(stream: Stream) -> Served {
    Box::pin(async move {
        sleep(HANG).await;
        drop(stream);
    })
}

/// A peer proxy that takes one stream a connection, and does not answer.
pub fn with_one_stream(stream: Stream) -> Served {
    Box::pin(async move {
        let (_, server) = authority::credentials();
        let tls = tokio_rustls::TlsAcceptor::from(server.server.clone()).accept(stream).await;
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(1);
        let handshake = builder.handshake::<_, bytes::Bytes>(tls.expect("a handshake")).await;
        let mut connection = handshake.expect("a preface");
        let mut held = Vec::new();
        while let Some(stream) = connection.accept().await {
            held.push(stream);
        }
    })
}

fn stream_pair(from: &str, to: &str) -> (Stream, Stream) {
    let (near, far) = pair(at(from), at(to), &smooth());
    (near.into(), far.into())
}

fn smooth() -> Schedule {
    Rc::new(|| Step::Pass(usize::MAX))
}

fn listen(network: &MemoryNetwork, address: &str, serve: impl Fn(Stream) -> Served + 'static) {
    let mut connections = network.listen(at(address));
    tokio::task::spawn_local(async move {
        while let Some(connection) = connections.recv().await {
            tokio::task::spawn_local(serve(connection.into()));
        }
    });
}

/// Says it, and hears what comes until the proxy ends the connection.
async fn talk(mut stream: Stream, says: &[u8]) -> Heard {
    let mut heard = Vec::new();
    let said = stream.write_all(says).await;
    let ended = stream.read_to_end(&mut heard).await;
    match (said, ended) {
        (Ok(()), Ok(_)) => Heard::Answer(String::from_utf8_lossy(&heard).into_owned()),
        _ => Heard::Reset,
    }
}

/// Sends one request of HTTP/2; its answer's head as text.
async fn call(stream: Stream, request: http::Request<()>) -> Heard {
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("a preface");
    tokio::task::spawn_local(connection);
    // The settings are to come first: without them no WebSocket may be asked for.
    sleep(Duration::from_millis(1)).await;
    let ended = request.method() != http::Method::CONNECT;
    let (response, _send) = sender.send_request(request, ended).expect("a stream");
    let Ok(response) = response.await else { return Heard::Reset };
    let mut text = format!("HTTP/1.1 {} \r\n", response.status().as_u16());
    for (name, value) in response.headers() {
        text += &format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
    }
    Heard::Answer(text)
}
