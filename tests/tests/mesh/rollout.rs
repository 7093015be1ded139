//! Pods are replaced one after the other, as a Deployment does it, under load of every kind: nothing fails.

use ::h2::{SendStream, client::ResponseFuture};
use bytes::Bytes;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use std::{
    collections::VecDeque,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tests::{
    PATIENCE, eventually,
    h2::{self, part, receive, request, send},
    holds,
    http::{self, Message},
    manifest::{Phase, Port},
    pod::Pod,
    program::Program,
    tools::tool,
    world::World,
};

const PORT: u16 = 8080;
const REPLICAS: usize = 3;
const REPLACEMENTS: usize = 50;
/// How long after one order the other comes: the kubelet's signal and the endpoints race.
const RACE: Duration = Duration::from_millis(100);
/// Pods that may be ending at once.
const LEAVING: usize = 6;
/// Streams live some seconds, and their pods until they have ended.
const FAREWELL: Duration = Duration::from_secs(20);

/// 1,000 requests a second in all. A client makes its next request so long after its last.
const PAUSE: Duration = Duration::from_millis(20);
const HTTP1_CLIENTS: usize = 8;
const HTTP2_CLIENTS: usize = 8;
/// Conversations at once, a message each [`TURN`], over some seconds.
const STREAMS: usize = 40;
const TURN: Duration = Duration::from_millis(200);
/// This client of each kind makes a connection for each request.
const FRESH: usize = 0;

/// Failures that are told of, and after which it is enough.
const SHOWN: usize = 20;
const ENOUGH: usize = 100;

#[derive(Default)]
struct Load {
    answered: AtomicU64,
    messages: AtomicU64,
    streams: AtomicU64,
    failures: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Load {
    /// Runs it while `meanwhile` does something else, which gets it too.
    fn around(client: &Pod, to: SocketAddr, meanwhile: impl FnOnce(&Load)) {
        let load = Load::default();
        let begin = Instant::now();
        let ended = thread::scope(|scope| {
            for at in 0..HTTP1_CLIENTS {
                let load = &load;
                scope.spawn(move || load.http1(client, to, at));
            }
            scope.spawn(|| load.http2(client, to));
            let ended = catch_unwind(AssertUnwindSafe(|| meanwhile(&load)));
            load.over.store(true, Ordering::Relaxed);
            ended
        });
        let seconds = begin.elapsed().as_secs_f64();
        let [answered, messages, streams] =
            [load.answered, load.messages, load.streams].map(AtomicU64::into_inner);
        eprintln!(
            "{answered} requests, and {messages} messages of {streams} streams, in {seconds:.1} s: {:.0}/s",
            (answered + messages) as f64 / seconds
        );
        let failures = load.failures.into_inner().unwrap();
        let shown = &failures[..failures.len().min(SHOWN)];
        assert!(
            failures.is_empty(),
            "{} failed of {answered} requests and {streams} streams: {shown:#?}",
            failures.len()
        );
        ended.unwrap_or_else(|panic| resume_unwind(panic));
        assert!(answered > 1000 && streams > 50, "too few: {answered} requests, {streams} streams");
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn fail(&self, what: &str, why: String) {
        self.failures.lock().unwrap().push(format!("{what}: {why}"));
    }

    /// One client of HTTP/1.1: GET and POST by turns.
    fn http1(&self, pod: &Pod, to: SocketAddr, at: usize) {
        let mut kept: Option<http::Client> = None;
        for turn in 0_u64.. {
            if self.is_over() {
                return;
            }
            let (method, target, body) =
                if turn % 2 == 0 { ("GET", "/", "") } else { ("POST", "/echo", "a body") };
            let what = format!("HTTP/1.1 {method} of client {at}");
            let fresh = kept.is_none();
            match kept.take().map_or_else(|| pod.connect(to).map(http::Client::from), Ok) {
                Ok(mut client) => match client.try_request(method, target, body) {
                    Ok(Message { head, body: answer, .. }) => {
                        if head.status() == 200 && (method == "GET" || answer == body.as_bytes()) {
                            self.answered.fetch_add(1, Ordering::Relaxed);
                        } else {
                            self.fail(&what, format!("{head:?} {}", String::from_utf8_lossy(&answer)));
                        }
                        let closes = head.field("connection") == Some("close");
                        kept = Some(client).filter(|_| at != FRESH && !closes);
                    }
                    Err(error) => self.fail(&what, format!("{error}, on a fresh connection: {fresh}")),
                },
                Err(error) => self.fail(&what, format!("connect: {error}")),
            }
            thread::sleep(PAUSE);
        }
    }

    /// All that speaks HTTP/2, on this thread.
    fn http2(&self, pod: &Pod, to: SocketAddr) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let requests = (0..HTTP2_CLIENTS).map(|at| self.http2_requests(pod, to, at));
        let streams = (0..STREAMS).map(|at| self.http2_streams(pod, to, at));
        runtime.block_on(async { tokio::join!(join_all(requests), join_all(streams)) });
    }

    async fn http2_requests(&self, pod: &Pod, to: SocketAddr, at: usize) {
        let mut connection = Connection { pod, to, kept: None };
        for turn in 0_u64.. {
            if self.is_over() {
                return;
            }
            let method = if turn % 2 == 0 { "GET" } else { "POST" };
            let what = format!("HTTP/2 {method} of client {at}");
            match connection.request(method).await {
                Ok(answer) if answer.status() == 200 && (method == "GET" || answer.text() == "a body") => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) => self.fail(&what, format!("{:?} {}", answer.head, answer.text())),
                Err(error) => {
                    connection.kept = None;
                    self.fail(&what, format!("{error:?}"));
                }
            }
            if at == FRESH {
                connection.kept = None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Conversations one after the other, until it is over; the last one to its end.
    async fn http2_streams(&self, pod: &Pod, to: SocketAddr, at: usize) {
        let mut connection = Connection { pod, to, kept: None };
        for number in 0.. {
            if self.is_over() {
                return;
            }
            let turns = 5 + (at + 3 * number) % 16;
            match self.converse(&mut connection, turns).await {
                Ok(()) => {
                    self.streams.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) => {
                    connection.kept = None;
                    self.fail(&format!("stream {number} of client {at}"), why);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn converse(&self, connection: &mut Connection<'_>, turns: usize) -> Result<(), String> {
        let (answer, mut body) = connection.start(request("POST", "/echo"), false).await.map_err(said)?;
        let answer = answer.await.map_err(|error| format!("no answer: {error:?}"))?;
        if answer.status() != 200 {
            return Err(format!("{answer:?}"));
        }
        let mut stream = answer.into_body();
        for turn in 0..turns {
            let at = |error: ::h2::Error| format!("turn {turn} of {turns}: {error:?}");
            let word = format!("message {turn}");
            send(&mut body, word.clone().into(), false).await.map_err(at)?;
            let mut heard = Vec::new();
            while heard.len() < word.len() {
                let Some(part) = part(&mut stream).await.map_err(at)? else {
                    return Err(format!("it ended in turn {turn} of {turns}"));
                };
                heard.extend_from_slice(&part);
            }
            if heard != word.as_bytes() {
                return Err(format!("{word:?} came back as {:?}", String::from_utf8_lossy(&heard)));
            }
            self.messages.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(TURN).await;
        }
        send(&mut body, Bytes::new(), true).await.map_err(said)?;
        let (rest, _) = receive(&mut stream).await.map_err(|error| format!("its end: {error:?}"))?;
        if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes too many", rest.len())) }
    }
}

fn said(error: ::h2::Error) -> String {
    format!("{error:?}")
}

/// A connection that is kept until something fails on it. It leads to the client's own proxy, which stays.
struct Connection<'a> {
    pod: &'a Pod,
    to: SocketAddr,
    kept: Option<h2::Client>,
}

impl Connection<'_> {
    async fn start(
        &mut self,
        request: ::http::Request<()>,
        whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), ::h2::Error> {
        let client = match &mut self.kept {
            Some(client) => client,
            None => self.kept.insert(h2::Client::connect(self.pod, self.to).await?),
        };
        client.start(request, whole).await
    }

    async fn request(&mut self, method: &str) -> Result<h2::Answer, ::h2::Error> {
        let path = if method == "GET" { "/" } else { "/echo" };
        let (answer, mut body) = self.start(request(method, path), method == "GET").await?;
        if method == "POST" {
            // Why it could not be sent is told with the answer.
            let _ = send(&mut body, Bytes::from_static(b"a body"), true).await;
        }
        h2::receive_answer(answer).await
    }
}

/// A pod with its program.
type Running = (Pod, Program);

fn start(world: &World) -> Running {
    let mut pod = world.pod("server", true, Phase::NotReady);
    pod.start_proxy(world.proxy_options(&pod));
    let program = pod.start(&tool("h2app"), ["-http1", "-port", &PORT.to_string()]);
    pod.wait_for_port(PORT);
    pod.set_phase(Phase::Ready);
    (pod, program)
}

fn is_known(client: &Pod, pod: &Pod) {
    let address = pod.at(PORT)[0].to_string();
    eventually(PATIENCE, || {
        let (_, config) = client.page("GET", "/config").map_err(|error| error.to_string())?;
        holds(config.contains(&address), config)
    });
}

/// What a Deployment does to an old pod. Whether the endpoints change before the signals come or after is not for it to say.
fn end((pod, program): &mut Running, signals_first: bool) {
    if !signals_first {
        pod.set_phase(Phase::Terminating);
        thread::sleep(RACE);
    }
    program.signal(Signal::SIGTERM);
    pod.proxy().signal(Signal::SIGTERM);
    if signals_first {
        thread::sleep(RACE);
        pod.set_phase(Phase::Terminating);
    }
}

/// Waits for the end of pods until so many are left.
fn let_go(leaving: &mut VecDeque<Running>, left: usize) {
    while leaving.len() > left {
        let (mut pod, mut program) = leaving.pop_front().expect("there are more");
        for ended in [program.wait(FAREWELL), pod.proxy_mut().wait(FAREWELL)] {
            assert!(ended.success(), "{}: {ended}", pod.manifest.name);
        }
        pod.delete();
    }
}

#[test]
fn fifty_pods_are_replaced_and_nothing_fails() {
    let world = World::new();
    let service = world.service("web", "server", &[Port::auto(PORT)]);
    let client = world.meshed("client");
    let mut running: VecDeque<_> = (0..REPLICAS).map(|_| start(&world)).collect();
    assert_eq!(client.client(service.at(PORT)[0]).get("/").head.status(), 200);
    running.iter().for_each(|(pod, _)| is_known(&client, pod));
    Load::around(&client, service.at(PORT)[0], |load| {
        let mut leaving = VecDeque::new();
        for at in 0..REPLACEMENTS {
            let new = start(&world);
            is_known(&client, &new.0);
            running.push_back(new);
            let mut old = running.pop_front().expect("there are replicas");
            end(&mut old, at % 2 == 1);
            leaving.push_back(old);
            let_go(&mut leaving, LEAVING);
            let failures = load.failures.lock().unwrap().len();
            if failures > ENOUGH {
                eprintln!("{failures} failures after {at} replacements: that is enough");
                break;
            }
        }
        let_go(&mut leaving, 0);
    });
}
