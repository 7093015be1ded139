//! Clients of HTTP/2 that abuse what the protocol lets them do cheaply, frame by frame: they are told to go away or they are borne,
//! in bounded memory; those beside them lose nothing, and nothing of them stays.
//!
//! Each row of [`FLOODS`] goes against the outbound listener, from a meshed program, and against the inbound one, from a
//! stranger. Slow and vanished clients stand in `hostile`.

use bytes::Bytes;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use tests::{
    PATIENCE, eventually,
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GET, GOAWAY, NEWEST, PING,
        PRIORITY, REFUSED_STREAM, RST_STREAM, SETTINGS, UNKNOWN, WHOLE, field, frame, get, headers, indexed,
        path, post, reset, streams, update, window,
    },
    h2::{Client, Exchange, Server, part, response, run, send},
    holds,
    manifest::Port,
    pod::{INBOUND_PORT, OUTBOUND_PORT, Pod},
    world::World,
};

const PORT: u16 = 8080;
/// What a flood may make a proxy hold more than it did before, MiB: next to nothing; as much as small frames or heads may take
/// that are held; as many streams as are allowed, at some 30 KiB each.
const LITTLE: u64 = 20;
const HELD: u64 = 48;
const STREAMS: u64 = 192;
/// A flood goes on until each of the others has had so many answers.
const ANSWERS: u32 = 30;
/// Others beside each flood: enough to be on each worker.
const OTHERS: usize = 4;
/// A flood that meets back-pressure for so long has been borne.
const STUCK: Duration = Duration::from_millis(500);

/// One way to be a nuisance.
struct Flood {
    name: &'static str,
    /// What goes before it, once a connection.
    first: fn() -> Vec<u8>,
    /// Its part of this number, from 0 on.
    part: fn(u32) -> Vec<u8>,
    /// Frames in each part that nobody would send for good, and how many of them it takes to see what comes of it.
    frames: u32,
    enough: u32,
    reads: Reads,
    outcome: Outcome,
    most: u64,
}

#[derive(PartialEq)]
enum Reads {
    /// All along.
    Always,
    /// Nothing: answers find no room.
    Never,
    /// After each part it waits until that has been seen.
    Paced,
}

impl Flood {
    /// It goes on for as long as it likes.
    fn is_borne(&self) -> bool {
        matches!(self.outcome, Outcome::Borne) && self.reads != Reads::Never
    }
}

enum Outcome {
    /// GOAWAY with this code.
    Ended(u32),
    /// The same, after streams were reset with that code.
    Reset(u32, u32),
    /// The connection lives on.
    Borne,
}

const FLOODS: &[Flood] = &[
    Flood {
        name: "rapid reset (CVE-2023-44487)",
        first: Vec::new,
        part: |at| streams(at, 100, |id| [headers(id, WHOLE, &get()), reset(id)].concat()),
        frames: 100,
        enough: 20_000,
        reads: Reads::Always,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        most: LITTLE,
    },
    Flood {
        name: "rapid reset, a few at a time",
        first: Vec::new,
        part: |at| streams(at, 10, |id| [headers(id, WHOLE, &get()), reset(id)].concat()),
        frames: 10,
        enough: 3_000,
        reads: Reads::Paced,
        outcome: Outcome::Borne,
        most: LITTLE,
    },
    Flood {
        name: "CONTINUATION without end (CVE-2024-27316)",
        first: || headers(1, END_STREAM, &get()),
        part: |_| frame(CONTINUATION, 0, 1, &field("x-filling", 16_000)),
        frames: 1,
        enough: 200,
        reads: Reads::Always,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        most: LITTLE,
    },
    Flood {
        name: "CONTINUATION without end or content",
        first: || headers(1, END_STREAM, &get()),
        part: |_| frame(CONTINUATION, 0, 1, b"").repeat(100),
        frames: 100,
        enough: 20_000,
        reads: Reads::Always,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        most: LITTLE,
    },
    Flood {
        name: "a field without end",
        first: || headers(1, END_STREAM, &field("x-long", 100_000_000)[..16_000]),
        part: |_| frame(CONTINUATION, 0, 1, &[b'x'; 16_000]),
        frames: 1,
        enough: 200,
        reads: Reads::Always,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        most: LITTLE,
    },
    Flood {
        name: "PING",
        first: Vec::new,
        part: |_| frame(PING, 0, 0, &[0; 8]).repeat(1_000),
        frames: 1_000,
        enough: 200_000,
        reads: Reads::Always,
        outcome: Outcome::Borne,
        most: LITTLE,
    },
    Flood {
        name: "PING, with the answers left alone (CVE-2019-9512)",
        first: Vec::new,
        part: |_| frame(PING, 0, 0, &[0; 8]).repeat(1_000),
        frames: 1_000,
        enough: 1,
        reads: Reads::Never,
        outcome: Outcome::Borne,
        most: LITTLE,
    },
    Flood {
        name: "SETTINGS (CVE-2019-9515)",
        first: Vec::new,
        part: |_| frame(SETTINGS, 0, 0, b"").repeat(50),
        frames: 50,
        enough: 200_000,
        reads: Reads::Always,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        most: LITTLE,
    },
    Flood {
        name: "SETTINGS that change the windows of many streams",
        first: || streams(0, 500, |id| headers(id, END_HEADERS, &post("/hold"))),
        part: |_| [1_000, 1_001].map(|bytes| frame(SETTINGS, 0, 0, &window(bytes))).concat().repeat(50),
        frames: 100,
        enough: 5_000,
        reads: Reads::Always,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        // 500 streams at once, some of which outlive their connection for a moment.
        most: HELD,
    },
    Flood {
        name: "empty DATA (CVE-2019-9518)",
        first: || headers(1, END_HEADERS, &post("/hold")),
        part: |_| frame(DATA, 0, 1, b"").repeat(100),
        frames: 100,
        enough: 20_000,
        reads: Reads::Always,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        most: LITTLE,
    },
    Flood {
        name: "DATA of one byte that nobody reads",
        first: || headers(1, END_HEADERS, &post("/hold")),
        part: |_| frame(DATA, 0, 1, b"x").repeat(1_000),
        frames: 1_000,
        enough: 1_000_000,
        reads: Reads::Always,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        most: HELD,
    },
    Flood {
        name: "WINDOW_UPDATE of one byte",
        first: || headers(1, END_HEADERS, &post("/hold")),
        part: |at| update(at % 2, 1).repeat(1_000),
        frames: 1_000,
        enough: 200_000,
        reads: Reads::Always,
        outcome: Outcome::Borne,
        most: LITTLE,
    },
    Flood {
        name: "an answer taken byte by byte (CVE-2019-9511)",
        first: || [frame(SETTINGS, 0, 0, &window(0)), headers(1, WHOLE, &path(GET, "/1000000"))].concat(),
        part: |_| update(1, 1).repeat(1_000),
        frames: 1_000,
        enough: 100_000,
        reads: Reads::Always,
        outcome: Outcome::Borne,
        most: LITTLE,
    },
    Flood {
        name: "PRIORITY and frames of no known kind",
        first: Vec::new,
        part: |at| {
            let id = 2 * at + 1;
            [frame(PRIORITY, 0, id, &[0, 0, 0, 0, 9]), frame(UNKNOWN, 0, id, &[0; 9])].concat().repeat(500)
        },
        frames: 1_000,
        enough: 200_000,
        reads: Reads::Always,
        outcome: Outcome::Borne,
        most: LITTLE,
    },
    Flood {
        name: "an HPACK bomb (CVE-2016-6581)",
        first: || headers(1, WHOLE, &[get(), indexed("x-bomb", 4_000)].concat()),
        part: |at| streams(at + 1, 1, |id| headers(id, WHOLE, &[get(), vec![NEWEST; 16_000]].concat())),
        frames: 1,
        enough: 100,
        reads: Reads::Always,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        most: LITTLE,
    },
    Flood {
        name: "HPACK bombs of a size that is allowed",
        first: || headers(1, WHOLE, &[get(), indexed("x-bomb", 4_000)].concat()),
        part: |at| streams(at + 1, 10, |id| headers(id, WHOLE, &[get(), vec![NEWEST; 30]].concat())),
        frames: 10,
        enough: 300,
        reads: Reads::Paced,
        outcome: Outcome::Borne,
        most: HELD,
    },
    Flood {
        name: "more streams than are allowed",
        first: Vec::new,
        part: |at| streams(at, 100, |id| headers(id, END_HEADERS, &post("/hold"))),
        frames: 100,
        enough: 10_000,
        reads: Reads::Always,
        outcome: Outcome::Reset(REFUSED_STREAM, ENHANCE_YOUR_CALM),
        most: STREAMS,
    },
    Flood {
        name: "requests that are malformed",
        first: Vec::new,
        part: |at| streams(at, 100, |id| headers(id, WHOLE, b"\x82")),
        frames: 100,
        enough: 20_000,
        reads: Reads::Always,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        most: LITTLE,
    },
    Flood {
        name: "requests that end in an error on purpose (CVE-2025-8671)",
        first: Vec::new,
        part: |at| {
            streams(at, 10, |id| {
                [headers(id, END_HEADERS, &post("/hold")), update(id, (1 << 31) - 1)].concat()
            })
        },
        frames: 10,
        enough: 3_000,
        reads: Reads::Paced,
        outcome: Outcome::Ended(ENHANCE_YOUR_CALM),
        most: LITTLE,
    },
];

/// What came back on a connection.
#[derive(Debug)]
struct Heard {
    pongs: AtomicU32,
    /// The code of GOAWAY, of the first RST_STREAM; -1 before.
    goaway: AtomicI64,
    reset: AtomicI64,
    ended: AtomicBool,
}

impl Heard {
    fn listen(mut stream: TcpStream) -> Arc<Self> {
        let [goaway, reset] = [-1, -1].map(AtomicI64::new);
        let heard = Arc::new(Self { pongs: AtomicU32::new(0), goaway, reset, ended: AtomicBool::new(false) });
        thread::spawn({
            let heard = heard.clone();
            move || {
                // The end, or a reset: what matters came before.
                let _ = heard.take(&mut stream);
                heard.ended.store(true, Relaxed);
            }
        });
        heard
    }

    fn take(&self, stream: &mut TcpStream) -> io::Result<()> {
        let mut reader = io::BufReader::new(stream);
        let mut payload = Vec::new();
        loop {
            let mut head = [0; 9];
            reader.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            payload.resize(length as usize, 0);
            reader.read_exact(&mut payload)?;
            let number = |at: usize| i64::from(u32::from_be_bytes(payload[at..at + 4].try_into().unwrap()));
            match head[3] {
                GOAWAY => self.goaway.store(number(4), Relaxed),
                RST_STREAM => {
                    let _ = self.reset.compare_exchange(-1, number(0), Relaxed, Relaxed);
                }
                PING if head[4] & ACK != 0 && payload == TOKEN => drop(self.pongs.fetch_add(1, Relaxed)),
                _ => {}
            }
        }
    }
}

/// A PING of our own among those of a flood.
const TOKEN: &[u8; 8] = b"are you?";

/// One connection of a flood.
struct Nuisance<'a> {
    flood: &'a Flood,
    stream: TcpStream,
    heard: Option<Arc<Heard>>,
    pings: u32,
}

impl<'a> Nuisance<'a> {
    fn new(flood: &'a Flood, pod: &Pod, to: SocketAddr) -> Self {
        let mut stream = pod.connect(to).unwrap_or_else(|error| panic!("{}: connect: {error}", flood.name));
        stream.set_read_timeout(None).unwrap();
        let limit = if flood.reads == Reads::Never { STUCK } else { PATIENCE };
        stream.set_write_timeout(Some(limit)).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, b"")).unwrap();
        // The proxy's own come first. Its limits count from here on.
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[3], SETTINGS, "{}", flood.name);
        let mut settings = vec![0; usize::from(head[2])];
        stream.read_exact(&mut settings).unwrap();
        let heard = (flood.reads != Reads::Never).then(|| Heard::listen(stream.try_clone().unwrap()));
        stream.write_all(&[frame(SETTINGS, ACK, 0, b""), (flood.first)()].concat()).unwrap();
        Self { flood, stream, heard, pings: 0 }
    }

    /// Goes on until it is `over`, or the connection ends. Gives how many frames it took.
    fn flood(&mut self, over: impl Fn(u32) -> bool, mut watch: impl FnMut()) -> u32 {
        let mut frames = 0;
        for at in 0.. {
            if over(frames) || self.heard.as_ref().is_some_and(|heard| heard.ended.load(Relaxed)) {
                break;
            }
            if self.stream.write_all(&(self.flood.part)(at)).is_err() {
                break;
            }
            frames += self.flood.frames;
            if self.flood.reads == Reads::Paced {
                self.ping();
            }
            if at % 16 == 0 {
                watch();
            }
        }
        watch();
        frames
    }

    fn ping(&mut self) {
        let (name, heard) = (self.flood.name, self.heard.as_ref().expect("it reads"));
        self.pings += 1;
        let sent = self.stream.write_all(&frame(PING, 0, 0, TOKEN));
        eventually(PATIENCE, || {
            let pongs = heard.pongs.load(Relaxed);
            let ended = heard.ended.load(Relaxed);
            holds(
                pongs == self.pings || ended,
                format!("{name}: {sent:?}, {pongs} of {}: {heard:?}", self.pings),
            )
        });
    }

    /// Holds what came of it against what should.
    fn end(&mut self) {
        let name = self.flood.name;
        let ended = |code: u32| {
            let heard = self.heard.as_ref().expect("who ends hears");
            eventually(PATIENCE, || {
                holds(heard.ended.load(Relaxed), format!("{name}: it goes on: {heard:?}"))
            });
            assert_eq!(heard.goaway.load(Relaxed), i64::from(code), "{name}: {heard:?}");
            heard.reset.load(Relaxed)
        };
        match self.flood.outcome {
            Outcome::Ended(code) => drop(ended(code)),
            Outcome::Reset(reset, code) => assert_eq!(ended(code), i64::from(reset), "{name}"),
            // It is stuck, and stays so.
            Outcome::Borne if self.flood.reads == Reads::Never => {}
            Outcome::Borne => {
                self.ping();
                let heard = self.heard.as_ref().expect("it reads");
                assert!(!heard.ended.load(Relaxed), "{name}: {heard:?}");
            }
        }
    }
}

impl Drop for Nuisance<'_> {
    fn drop(&mut self) {
        // So that the listening thread ends.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// `/hold` keeps a request without reading it; `/NUMBER` answers by so many bytes.
async fn app(mut exchange: Exchange) -> Result<(), h2::Error> {
    if exchange.path() == "/hold" {
        let closed = std::future::poll_fn(|cx| exchange.respond.poll_reset(cx)).await;
        return closed.map(drop);
    }
    let length = exchange.path()[1..].parse().unwrap_or(2);
    while part(exchange.request.body_mut()).await?.is_some() {}
    let mut stream = exchange.respond.send_response(response(200), false)?;
    send(&mut stream, Bytes::from(vec![b'x'; length]), true).await
}

/// Asks all along, until it is `over`.
fn ask(name: &str, pod: &Pod, to: SocketAddr, answers: &AtomicU32, over: &AtomicBool) {
    run(async {
        let mut client = Client::connect(pod, to).await.unwrap();
        while !over.load(Relaxed) {
            let answer = client.post("/3000", vec![b'x'; 3000]).await;
            let answer = answer.unwrap_or_else(|error| panic!("{name}: beside it: {error}"));
            assert_eq!((answer.status(), answer.body.len()), (200, 3000), "{name}: beside it: {answer:?}");
            answers.fetch_add(1, Relaxed);
        }
    });
}

/// Tells the others to end, however a flood ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Where floods go.
struct Target<'a> {
    from: &'a Pod,
    to: SocketAddr,
    /// The proxy that meets them first, and its listening port.
    first: &'a Pod,
    port: u16,
    direction: &'static str,
    /// Whose memory they are to leave alone.
    proxies: [&'a Pod; 2],
}

impl Target<'_> {
    fn resident(&self) -> [u64; 2] {
        self.proxies.map(|pod| pod.proxy().resident())
    }

    /// One flood, with others beside it.
    fn endure(&self, flood: &Flood) {
        let (name, begun, before) = (flood.name, Instant::now(), self.resident());
        let (over, answers) = (AtomicBool::new(false), <[AtomicU32; OTHERS]>::default());
        let (mut frames, mut connections, mut most) = (0, 0, before);
        thread::scope(|scope| {
            let _over = Over(&over);
            let others: Vec<_> = (answers.iter())
                .map(|answers| scope.spawn(|| ask(name, self.from, self.to, answers, &over)))
                .collect();
            let served =
                || answers.iter().map(|answers| answers.load(Relaxed)).min().expect("there are others");
            // One that waits leaves the others their time; what it must not do is break anything.
            let enough =
                |frames| frames >= flood.enough && (flood.reads == Reads::Paced || served() >= ANSWERS);
            while !enough(frames) {
                let mut nuisance = Nuisance::new(flood, self.from, self.to);
                frames += nuisance.flood(
                    |more| flood.is_borne() && enough(frames + more),
                    || {
                        most = std::array::from_fn(|at| most[at].max(self.resident()[at]));
                        assert!(
                            !others.iter().any(|other| other.is_finished()),
                            "{name}: another one failed"
                        );
                        assert!(begun.elapsed() < 4 * PATIENCE, "{name}: {} answers beside it", served());
                    },
                );
                nuisance.end();
                connections += 1;
                if flood.most == STREAMS {
                    drop(nuisance);
                    self.assert_clean(name, OTHERS);
                }
            }
            eventually(2 * PATIENCE, || holds(served() >= ANSWERS, format!("{name}: {} answers", served())));
        });
        let kib = |bytes: [u64; 2]| bytes.map(|bytes| bytes / 1024);
        let (took, before, most) = (begun.elapsed(), kib(before), kib(most));
        let what = format!(
            "{name}: {frames} frames on {connections} connections, {took:?}; {before:?} KiB, then {most:?}"
        );
        eprintln!("{what}");
        assert!(before.iter().zip(most).all(|(before, most)| most <= before + flood.most * 1024), "{what}");
        self.assert_clean(name, 0);
    }

    /// Nothing is left of its connections, where there are so many others.
    fn assert_clean(&self, name: &str, others: usize) {
        let peer = self.from.at(0).map(|address| address.ip().to_string());
        eventually(PATIENCE, || {
            let sockets = self.first.done("ss", ["-Htn", &format!("sport = :{}", self.port)]);
            let left = sockets.lines().filter(|line| peer.iter().any(|ip| line.contains(ip))).count();
            let open = self.first.metrics().sum("weft_connections_open", &[("direction", self.direction)]);
            let running = self.proxies.map(|pod| pod.metrics().sum("weft_requests_in_flight", &[]));
            holds(
                // Each worker's connection to the other proxy stays.
                left <= others
                    && running.iter().all(|running| *running <= others as f64)
                    && open <= others as f64 + 2.0,
                format!("{name}: {open} connections, {running:?} requests, {left} sockets"),
            )
        });
    }
}

struct Cast {
    client: Pod,
    stranger: Pod,
    server: Pod,
    service: SocketAddr,
    _app: Server,
    _world: World,
}

impl Cast {
    fn new() -> Self {
        let world = World::new();
        let service = world.service("server", "server", &[Port::auto(PORT)]).at(PORT)[0];
        let (client, stranger, server) =
            (world.meshed("client"), world.unmeshed("stranger"), world.meshed("server"));
        let mut builder = h2::server::Builder::new();
        // The proxies pass on what their clients give up. A server may take that for a flood of theirs, which is not the question.
        builder.max_pending_accept_reset_streams(100_000);
        let app = Server::with(&server, PORT, builder, app);
        Self { client, stranger, server, service, _app: app, _world: world }
    }
}

fn endure(target: &Target<'_>) {
    let start = target.resident();
    for flood in FLOODS {
        target.endure(flood);
    }
    eventually(6 * PATIENCE, || {
        let now = target.resident();
        let back = start.iter().zip(now).all(|(start, now)| now <= start + LITTLE * 1024 * 1024);
        holds(back, format!("{start:?} bytes at the start, {now:?} at the end"))
    });
}

#[test]
fn floods_of_the_outbound_listener() {
    let cast = Cast::new();
    let proxies = [&cast.client, &cast.server];
    endure(&Target {
        from: &cast.client,
        to: cast.service,
        first: &cast.client,
        port: OUTBOUND_PORT,
        direction: "outbound",
        proxies,
    });
}

#[test]
fn floods_of_the_inbound_listener() {
    let cast = Cast::new();
    let to = cast.server.at(PORT)[0];
    let proxies = [&cast.client, &cast.server];
    let (from, first) = (&cast.stranger, &cast.server);
    endure(&Target { from, to, first, port: INBOUND_PORT, direction: "inbound", proxies });
}
