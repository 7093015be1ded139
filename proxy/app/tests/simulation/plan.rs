//! What is said in a world, drawn from a seed: who connects to whom, each message and each stream of bytes, and how it ends.
//! Nothing here is random once it is drawn: both ends look up what they are to say and to hear.

use crate::calls::{Settings, Streams};
use proxy_balance::Rng;
use std::{rc::Rc, sync::LazyLock, time::Duration};

/// The longest body.
pub const MAX_BODY: usize = 200 * 1024;

/// All bodies are windows of this: a byte that is lost, doubled or moved does not fit.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng::new(7);
    (0..MAX_BODY + (1 << 20)).map(|_| rng.bits() as u8 | 0x80).collect()
});

/// Bytes that both ends know. None is ASCII, so none begins like HTTP or TLS.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    from: usize,
    pub len: usize,
}

impl Body {
    pub fn new(rng: &mut Rng, len: usize) -> Self {
        Self { from: rng.below(1 << 20), len }
    }

    pub fn bytes(&self) -> &'static [u8] {
        &PATTERN[self.from..self.from + self.len]
    }
}

#[derive(Debug)]
pub struct Plan {
    pub conversations: Vec<Conversation>,
    /// Little traffic, for connections that are cut into single bytes.
    pub tiny: bool,
    /// The Service has an endpoint more, where nobody listens.
    pub dead_endpoint: bool,
    /// After this time, the Service's endpoint is another one.
    pub replaced: Option<Duration>,
    /// After this time, one of the proxies drains: the outbound one if `true`.
    pub drained: Option<(Duration, bool)>,
    /// Of the application that speaks HTTP/2.
    pub application: Settings,
    /// It lets each connection end in good order after so many calls.
    pub retires: Option<usize>,
    /// What the policy of every destination wants sent once more.
    pub retry: policy::settings::Retry,
}

impl Plan {
    /// How often a request may be executed whose answer has this status; `lost`: it gets none.
    pub fn executions(&self, method: &str, status: u16, lost: bool) -> usize {
        let named = self.retry.http_codes.as_ref().is_some_and(|codes| codes.value.contains(&status));
        let lost = lost && method != "POST" && self.retry.is_asked();
        if named || lost { 1 + self.retry.attempts() as usize } else { 1 }
    }
}

#[derive(Debug)]
pub struct Conversation {
    pub path: Path,
    pub start: Duration,
    /// The client says nothing for so long.
    pub hush: Duration,
    /// The policy says what is spoken.
    pub declared: bool,
    pub kind: Kind,
}

/// The way from the client to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Both proxies, by the Service's address.
    Service,
    /// Both proxies, by the pod's.
    Pod,
    /// The outbound proxy, then an application without one.
    Unmeshed,
    /// The inbound proxy, from a client without one.
    Outside,
}

#[derive(Debug)]
pub enum Kind {
    Http(Http),
    Tcp(Tcp),
    Streams(Streams),
}

#[derive(Debug)]
pub struct Http {
    pub requests: Vec<Rc<Request>>,
    /// All requests are sent before any response is read.
    pub pipelined: bool,
    /// The client ends its side as soon as it has sent everything.
    pub half_close: bool,
}

/// A connection of bytes: what each side says.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    pub up: Half,
    pub down: Half,
}

#[derive(Clone, Copy, Debug)]
pub struct Half {
    pub body: Body,
    /// Speaks when so many bytes of the other side have come; more than there are: when it has ended.
    pub after: usize,
    /// Ends by a reset.
    pub reset: bool,
}

#[derive(Debug)]
pub struct Request {
    pub id: usize,
    pub method: &'static str,
    /// HTTP/1.0.
    pub old: bool,
    pub keep_alive: bool,
    pub framing: Framing,
    pub body: Body,
    /// The client waits for a 100 before it sends the body.
    pub expects: bool,
    /// After so many bytes of the body the client breaks off: by a reset if `true`, else by an end.
    pub abort: Option<(usize, bool)>,
    /// The body's chunks turn into nonsense half way.
    pub garbled: bool,
    /// Asks for an upgrade (or is a CONNECT), and what is said after it if it is granted.
    pub upgrade: Option<Option<Tcp>>,
    pub response: Response,
}

#[derive(Debug)]
pub struct Response {
    pub interim: usize,
    pub status: u16,
    pub framing: Framing,
    pub body: Body,
    /// The answer comes before the request's body was read.
    pub early: bool,
    /// The application announces that it closes, and does.
    pub close: bool,
    /// The application fails after so many bytes of the message: by a reset if `true`, else by an end.
    pub crash: Option<(usize, bool)>,
    /// The application closes afterwards, unannounced.
    pub sulk: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body, and nothing announced.
    None,
    /// Content-Length.
    Length,
    /// In chunks up to this long.
    Chunked { chunk: usize, trailers: bool },
    /// Up to the end of the connection.
    UntilClose,
}

impl Plan {
    pub fn new(rng: &mut Rng, hostile: bool) -> Self {
        let tiny = rng.below(5) == 0;
        let mut draw = Draw { rng, tiny, hostile, refusing: false, ids: 0 };
        let (dead_endpoint, retires) = (draw.one_in(4), draw.one_in(4).then(|| 1 + draw.rng.below(5)));
        // A request is sent three times at most, for whatever reasons.
        draw.refusing = !dead_endpoint && retires.is_none() && draw.one_in(2);
        let limited = !draw.refusing && retires.is_none();
        let count = 1 + draw.rng.below(if tiny { 3 } else { 4 });
        let conversations: Vec<_> = (0..count).map(|number| draw.conversation(number)).collect();
        // What is not read for long may not hold up the rest.
        let ample =
            conversations.iter().any(|one| matches!(&one.kind, Kind::Streams(streams) if streams.waits()));
        let mut application = draw.settings(ample, false);
        if !limited {
            // More is asked of each new connection before it can say how much it takes.
            application.streams = 1_000;
        }
        Self {
            conversations,
            tiny,
            dead_endpoint,
            replaced: draw.one_in(5).then(|| draw.up_to(Duration::from_millis(150))),
            drained: (hostile && draw.one_in(6))
                .then(|| (draw.up_to(Duration::from_millis(200)), draw.one_in(2))),
            application,
            retires,
            retry: retry(draw.rng),
        }
    }
}

impl Plan {
    /// One connection of HTTP/2 with very many calls.
    pub fn crowded(rng: &mut Rng) -> Self {
        let conversation = Conversation {
            path: Path::Service,
            start: Duration::ZERO,
            hush: Duration::ZERO,
            declared: true,
            kind: Kind::Streams(Streams::crowded(rng)),
        };
        Self {
            conversations: vec![conversation],
            tiny: false,
            dead_endpoint: false,
            replaced: None,
            drained: None,
            application: Settings::AMPLE,
            retires: None,
            retry: policy::settings::Retry::default(),
        }
    }
}

pub struct Draw<'a> {
    pub rng: &'a mut Rng,
    pub tiny: bool,
    pub hostile: bool,
    /// Applications may refuse streams.
    pub refusing: bool,
    /// The last one that was given.
    pub ids: usize,
}

impl Draw<'_> {
    pub fn one_in(&mut self, count: usize) -> bool {
        self.rng.below(count) == 0
    }

    pub fn up_to(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.rng.fraction())
    }

    /// A length: often short, sometimes long, now and then at the edges.
    pub fn body(&mut self) -> Body {
        let most = if self.tiny { 1024 } else { MAX_BODY };
        let len = match self.rng.below(10) {
            0 => 0,
            1 => 1,
            2..=5 => self.rng.below(1024),
            6..=8 => self.rng.below(32 * 1024).min(most),
            _ => self.rng.below(most + 1),
        };
        Body::new(self.rng, len)
    }

    fn conversation(&mut self, number: usize) -> Conversation {
        let path = match self.rng.below(8) {
            0..=3 => Path::Service,
            4 => Path::Pod,
            5 => Path::Outside,
            _ => Path::Unmeshed,
        };
        let kind = match self.rng.below(9) {
            0..=1 => Kind::Tcp(self.tcp()),
            2..=4 => Kind::Http(self.http()),
            _ => Kind::Streams(self.streams(number)),
        };
        let hush = if self.one_in(6) { self.up_to(Duration::from_secs(1)) } else { Duration::ZERO };
        // From outside, what is declared is not known before the connection is: whoever is slow there is taken for silent.
        let crossing = matches!(&kind, Kind::Streams(streams) if streams.http1);
        let path = if crossing && path == Path::Outside { Path::Service } else { path };
        Conversation {
            path,
            start: self.up_to(Duration::from_millis(100)),
            hush,
            declared: self.one_in(4),
            kind,
        }
    }

    fn tcp(&mut self) -> Tcp {
        let half = |draw: &mut Self| Half { body: draw.body(), after: 0, reset: false };
        let (mut up, mut down) = (half(self), half(self));
        match self.rng.below(6) {
            // The server answers a part, or all, of what the client said.
            0 => down.after = self.rng.below(up.body.len + 1),
            // The server speaks first.
            1 => up.after = self.rng.below(down.body.len + 1),
            // One after the other, told by the end.
            2 => down.after = usize::MAX,
            3 => up.after = usize::MAX,
            // Both at once.
            _ => {}
        }
        match self.rng.below(10) {
            0 => up.reset = true,
            1 => down.reset = true,
            _ => {}
        }
        Tcp { up, down }
    }

    fn http(&mut self) -> Http {
        let pipelined = self.one_in(4);
        let count = 1 + self.rng.below(4);
        let mut requests = Vec::new();
        for number in 1..=count {
            let request = self.request(number == count, pipelined);
            let last = !request.keep_alive || request.response.framing == Framing::UntilClose && request.old;
            requests.push(Rc::new(request));
            if last {
                break;
            }
        }
        let tunnels =
            requests.last().is_some_and(|request| request.upgrade.is_some() || request.abort.is_some());
        Http { requests, pipelined, half_close: !tunnels && self.one_in(6) }
    }

    fn request(&mut self, last: bool, pipelined: bool) -> Request {
        self.ids += 1;
        let old = self.one_in(10);
        let method =
            ["GET", "GET", "GET", "GET", "HEAD", "POST", "POST", "POST", "PUT", "DELETE"][self.rng.below(10)];
        let framing = match (method, self.rng.below(2)) {
            ("POST" | "PUT", 0) if !old => self.chunked(),
            ("POST" | "PUT", _) => Framing::Length,
            _ => Framing::None,
        };
        let body = if framing == Framing::None { Body::new(self.rng, 0) } else { self.body() };
        let mut request = Request {
            id: self.ids,
            method,
            old,
            keep_alive: !(last && self.one_in(3) || old && self.one_in(2)),
            framing,
            body,
            expects: body.len > 0 && !old && !pipelined && self.one_in(6),
            abort: None,
            garbled: false,
            upgrade: None,
            response: self.response(method, old),
        };
        if last && !request.expects {
            match self.rng.below(9) {
                0 if body.len > 0 && !pipelined => {
                    request.abort = Some((self.rng.below(body.len), self.rng.below(2) == 0));
                }
                1 | 5 if body.len > 0 && !pipelined => {
                    request.response.early = true;
                    request.keep_alive = true;
                    request.garbled = matches!(framing, Framing::Chunked { .. }) && self.one_in(2);
                }
                4 if body.len > 0 && !pipelined && matches!(framing, Framing::Chunked { .. }) => {
                    request.garbled = true;
                }
                2 if method == "GET" && !old && !pipelined => {
                    let mut tcp = self.tcp();
                    // Its first words are the upgrade itself, and the answer is the server's.
                    tcp.down.reset = false;
                    let granted = !self.one_in(3);
                    request.upgrade = Some(granted.then_some(tcp));
                    request.response.interim = 0;
                    if granted && self.one_in(4) {
                        request.method = "CONNECT";
                    }
                }
                // As Java's client does: an upgrade that nobody grants, on a request with a body.
                3 if body.len > 0 && !old => request.upgrade = Some(None),
                _ => {}
            }
        }
        request
    }

    fn chunked(&mut self) -> Framing {
        let chunk = if self.tiny { 1 + self.rng.below(64) } else { 1 << (6 + self.rng.below(11)) };
        Framing::Chunked { chunk, trailers: self.one_in(3) }
    }

    fn response(&mut self, method: &str, old: bool) -> Response {
        let status = match self.rng.below(8) {
            0 => 204,
            1 if method != "POST" => 304,
            2 => 404,
            3 => 418,
            _ => 200,
        };
        let framing = match self.rng.below(8) {
            _ if status == 204 => Framing::None,
            0 | 1 if !old => self.chunked(),
            2 => Framing::UntilClose,
            _ => Framing::Length,
        };
        let body = if framing == Framing::None { Body::new(self.rng, 0) } else { self.body() };
        let crash = (self.hostile && self.one_in(12)).then(|| {
            let after = if self.one_in(2) { 0 } else { self.rng.below(body.len + 200) };
            // Up to the end, an end would be the end.
            (after, framing == Framing::UntilClose || self.rng.below(2) == 0)
        });
        Response {
            interim: if !old && self.one_in(8) { 1 + self.rng.below(2) } else { 0 },
            status,
            framing,
            body,
            early: false,
            close: framing == Framing::UntilClose || self.one_in(8),
            crash,
            sulk: self.hostile && self.one_in(8),
        }
    }
}

/// Nothing that may have been executed is sent again by this, but what an application itself answered with a 404 or a 503: what the
/// proxies answer has other statuses too, which are none of an application's.
fn retry(rng: &mut Rng) -> policy::settings::Retry {
    use policy::{
        Reason,
        settings::{Origin, Retry, Set},
    };
    fn set<T>(value: T) -> Option<Set<T>> {
        Some(Set::new(value, &Origin::new("TrafficPolicy", "shop", "mine")))
    }
    if rng.below(2) == 0 {
        return Retry::default();
    }
    let codes = [vec![404], vec![502, 503, 504], vec![404, 500, 502, 503, 504]];
    let untouched = vec![Reason::ConnectionRefused, Reason::TlsProtocolError, Reason::DestinationUnavailable];
    Retry {
        http_codes: (rng.below(4) > 0).then(|| codes[rng.below(3)].clone()).and_then(set),
        reasons: (rng.below(2) == 0).then_some(untouched).and_then(set),
        attempts: set(rng.below(4) as u32),
        body_limit: (rng.below(2) == 0).then(|| 1 << rng.below(20)).and_then(set),
        other_host: set(rng.below(2) == 0),
        ..Retry::default()
    }
}
