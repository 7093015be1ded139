//! A client, its proxy, and the endpoints of one Service, on one thread in virtual time. Endpoints are programs without a proxy, which do
//! what a test's script says.

use policy::{
    BackendSettings, Endpoint, Outbound, Protocol, ServiceName, ServicePort, Settings, Target, WorkloadName,
    settings::{Origin, Set},
};
use proxy_app::{
    discovery::{Discovery, Script},
    outbound,
    telemetry::{
        Format, Gauges, Telemetry,
        access::{AccessLog, Mode},
    },
    worker::{Parts, Worker},
};
use proxy_http::streams::Dialer;
use proxy_transport::{
    Network, Stream,
    memory::{MemoryNetwork, Schedule, Step, pair},
};
use serde_json::Value;
use std::{cell::RefCell, future::Future, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, LocalOptions},
    time::{Instant, sleep},
};

/// The Service's address.
const SERVICE: &str = "10.96.0.1:80";
const CLIENT: &str = "10.0.0.9:40000";
/// Longer than any test takes.
const FOREVER: Duration = Duration::from_secs(100_000);

/// What an endpoint does with a request that it has read.
#[derive(Clone, Debug)]
pub enum Does {
    Status(u16),
    /// After so long, this.
    Late(Duration, u16),
    /// Ends the connection by a reset, without a word.
    Reset,
    /// Never answers.
    Nothing,
    /// Begins an answer, and says a byte of it so often, with this pause before each.
    Drips(usize, Duration),
    /// A switch of protocols, after which nothing comes.
    Switches,
}

/// A request that has come to an endpoint.
#[derive(Clone, Debug)]
pub struct Seen {
    pub endpoint: usize,
    pub at: Duration,
    pub head: String,
    pub body: Vec<u8>,
    /// The number of its connection, of all.
    pub connection: usize,
}

/// The answer as its client reads it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// 0: none.
    pub status: u16,
    pub text: String,
    /// It ended as it should.
    pub whole: bool,
    pub took: Duration,
}

pub struct World {
    pub worker: Rc<Worker>,
    pub script: Script,
    pub network: MemoryNetwork,
    telemetry: Telemetry,
    access: AccessLog,
    seen: Rc<RefCell<Vec<Seen>>>,
    /// Connections to endpoints that their clients have ended before an answer.
    pub given_up: Rc<RefCell<usize>>,
    begun: Instant,
}

/// Runs a test in a world of so many endpoints, which do what `does` says of each request.
pub fn run<F: Future<Output = ()>>(
    endpoints: usize,
    settings: Settings,
    backend: BackendSettings,
    does: impl Fn(&World, &Seen) -> Does + 'static,
    test: impl FnOnce(Rc<World>) -> F,
) {
    without_endpoints(smooth(), |world| async move {
        world.declare(settings, backend);
        let addresses: Vec<_> = (0..endpoints).map(address).collect();
        world.endpoints(&addresses);
        let does = Rc::new(does);
        for (endpoint, address) in addresses.into_iter().enumerate() {
            let mut connections = world.network.listen(address);
            let (world, does) = (world.clone(), does.clone());
            tokio::task::spawn_local(async move {
                while let Some(connection) = connections.recv().await {
                    let (world, does) = (world.clone(), does.clone());
                    tokio::task::spawn_local(async move {
                        world.serve(endpoint, connection.into(), &*does).await;
                    });
                }
            });
        }
        test(world).await;
    });
}

/// Runs a test in a world whose endpoints it makes itself, over connections that do what `schedule` says.
pub fn without_endpoints<F: Future<Output = ()>>(schedule: Schedule, test: impl FnOnce(Rc<World>) -> F) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .expect("a runtime");
    runtime.block_on(async {
        let network = MemoryNetwork::new(schedule);
        let world = Rc::new(World::new(Network::Memory(network.clone()), network));
        world.declare(Settings::default(), BackendSettings::default());
        test(world).await;
    });
}

pub fn service() -> ServicePort {
    ServiceName::new("shop", "web").port(80)
}

pub fn address(endpoint: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, endpoint as u8 + 1], 8080))
}

/// What a policy of this name sets.
pub fn set<T>(value: T) -> Option<Set<T>> {
    Some(Set::new(value, &Origin::new("TrafficPolicy", "shop", "mine")))
}

pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl World {
    pub fn new(dial: Network, network: MemoryNetwork) -> Self {
        let (discovery, script) = Discovery::scripted();
        let access = AccessLog::new(Mode::All);
        let telemetry = Telemetry::logging(Gauges::default, access.clone());
        let worker = Worker::new(Parts {
            connections: policy::limits::CONNECTIONS,
            workload: WorkloadName::new("shop", "client-0"),
            discovery,
            dialer: Dialer {
                network: dial,
                credentials: Arc::default(),
                header_bytes: policy::limits::HEADER_LIST_BYTES,
            },
            telemetry: telemetry.worker(),
            own_ports: Vec::new(),
            seed: 1,
        });
        let (seen, given_up) = Default::default();
        Self { worker, script, network, telemetry, access, seen, given_up, begun: Instant::now() }
    }

    pub fn declare(&self, settings: Settings, backend: BackendSettings) {
        self.declare_as(Protocol::Auto, settings, backend);
    }

    pub fn declare_as(&self, protocol: Protocol, settings: Settings, backend: BackendSettings) {
        let policy = Outbound { settings, backend, ..Outbound::new(Target::Service(service()), protocol) };
        self.script.outbound(at(SERVICE), policy);
    }

    pub fn endpoints(&self, addresses: &[SocketAddr]) {
        let endpoint = |address: &SocketAddr| Endpoint::plain(*address);
        self.script.endpoints(&service(), addresses.iter().map(endpoint).collect());
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// How many requests have come, to all endpoints.
    pub fn count(&self) -> usize {
        self.seen.borrow().len()
    }

    /// The value of a metric's series of which a part is this.
    pub fn metric(&self, name: &str, part: &str) -> u64 {
        let text = self.telemetry.encode(Format::Classic);
        let of = text.lines().filter(|line| line.starts_with(name) && line.contains(part));
        of.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    /// The lines of the access log since the last call.
    pub fn lines(&self) -> Vec<Value> {
        let lines = String::from_utf8(self.access.take()).expect("UTF-8");
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// A connection of the client's.
    pub fn connect(&self) -> Stream {
        let (near, far) = pair(at(CLIENT), at(SERVICE), &smooth());
        tokio::task::spawn_local(outbound::serve(self.worker.clone(), far.into()));
        near.into()
    }

    pub async fn get(&self) -> Heard {
        self.ask("GET", "").await
    }

    pub async fn post(&self, body: &str) -> Heard {
        self.ask("POST", body).await
    }

    /// A request on a connection of its own.
    pub async fn ask(&self, method: &str, body: &str) -> Heard {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.say(&format!("{method} /a HTTP/1.1\r\nHost: web\r\nConnection: close\r\n{length}\r\n{body}"))
            .await
    }

    pub async fn say(&self, text: &str) -> Heard {
        let begin = Instant::now();
        let mut stream = self.connect();
        let mut heard = Vec::new();
        let said = stream.write_all(text.as_bytes()).await;
        let ended = stream.read_to_end(&mut heard).await;
        let text = String::from_utf8_lossy(&heard).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Heard { status, text, whole: said.is_ok() && ended.is_ok(), took: begin.elapsed() }
    }

    /// One connection of an endpoint.
    pub async fn serve(&self, endpoint: usize, mut stream: Stream, does: &dyn Fn(&World, &Seen) -> Does) {
        let connection = self.seen.borrow().iter().map(|seen| seen.connection + 1).max().unwrap_or_default();
        while let Some((head, body)) = request(&mut stream).await {
            let seen = Seen { endpoint, at: self.begun.elapsed(), head, body, connection };
            self.seen.borrow_mut().push(seen.clone());
            let (mut status, mut drips) = (200, None);
            match does(self, &seen) {
                Does::Status(says) => status = says,
                Does::Late(pause, says) => {
                    status = says;
                    if gone(&mut stream, pause).await {
                        *self.given_up.borrow_mut() += 1;
                        return;
                    }
                }
                Does::Reset => return stream.reset_on_drop(),
                Does::Nothing => {
                    gone(&mut stream, FOREVER).await;
                    *self.given_up.borrow_mut() += 1;
                    return;
                }
                Does::Drips(count, pause) => drips = Some((count, pause)),
                Does::Switches => {
                    let text =
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n";
                    let _ = stream.write_all(text.as_bytes()).await;
                    gone(&mut stream, FOREVER).await;
                    return;
                }
            }
            let (count, pause) = drips.unwrap_or((1, Duration::ZERO));
            let head = format!(
                "HTTP/1.1 {status} Mine\r\nContent-Length: {count}\r\nX-Endpoint: {endpoint}\r\n\r\n"
            );
            let mut said = stream.write_all(head.as_bytes()).await;
            for _ in 0..count {
                if said.is_ok() && gone(&mut stream, pause).await {
                    *self.given_up.borrow_mut() += 1;
                    return;
                }
                said = stream.write_all(b"x").await;
            }
            if said.is_err() {
                return;
            }
        }
    }
}

/// Reads a request with its body; `None` at the connection's end.
async fn request(stream: &mut Stream) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = read.split_off(end + 4);
            break (String::from_utf8_lossy(&read).into_owned(), body);
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let (head, mut body) = head;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
    while body.len() < length.unwrap_or(0) {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, body))
}

/// Whether the other side ends the connection within this time.
async fn gone(stream: &mut Stream, pause: Duration) -> bool {
    if pause.is_zero() {
        return false;
    }
    let mut byte = [0];
    tokio::select! {
        () = sleep(pause) => false,
        _ = stream.read(&mut byte) => true,
    }
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address and port")
}

/// All goes through at once.
pub fn smooth() -> Schedule {
    Rc::new(|| Step::Pass(usize::MAX))
}
