//! What is said over HTTP/2 in a world, drawn like the rest of it: calls side by side on one connection, each with both
//! bodies, and with how either side ends it before its time. The application of `plan::Path` speaks HTTP/2 alone; a client may
//! speak HTTP/1.1, if the policy says what the application does.

use crate::plan::{Body, Draw, MAX_BODY};
use h2::Reason;
use proxy_balance::Rng;
use std::{rc::Rc, time::Duration};

/// What a crowd is at most.
const CROWD: usize = 60;

/// Calls that are open together: enough for windows smaller than half of the longest body.
const WAITING: usize = 200;

/// What an application may reset a stream with, and a client.
const CODES: [Reason; 7] = [
    Reason::CANCEL,
    Reason::NO_ERROR,
    Reason::INTERNAL_ERROR,
    Reason::ENHANCE_YOUR_CALM,
    Reason::HTTP_1_1_REQUIRED,
    Reason::CONNECT_ERROR,
    Reason::PROTOCOL_ERROR,
];

/// A connection.
#[derive(Debug)]
pub struct Streams {
    pub calls: Vec<Rc<Call>>,
    /// The client speaks HTTP/1.1: one call after the other.
    pub http1: bool,
    pub settings: Settings,
}

/// What one side of an HTTP/2 connection grants the other (RFC 9113 §6.5.2).
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub window: u32,
    pub connection_window: u32,
    pub frame: u32,
    pub streams: u32,
}

impl Settings {
    pub const AMPLE: Self =
        Self { window: 1 << 20, connection_window: 1 << 24, frame: 16_384, streams: 1_000 };
}

/// A request and its reply.
#[derive(Debug)]
pub struct Call {
    pub id: usize,
    /// The place of its connection among the world's conversations.
    pub conversation: usize,
    pub method: &'static str,
    pub grpc: bool,
    /// It is made so long after the connection.
    pub after: Duration,
    pub up: Flow,
    /// The client stops so long in the middle of its body.
    pub pause: Duration,
    /// `grpc-timeout`, far longer than anything takes unless the reply `stalls`.
    pub timeout: Option<Duration>,
    /// This side reads only when every other call of the connection has ended.
    pub slow: Option<Side>,
    /// The client gives it up, with this code.
    pub quits: Option<(Quit, Reason)>,
    pub reply: Reply,
}

/// A body in frames.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Whether there is one; it may be empty.
    pub exists: bool,
    pub body: Body,
    /// The longest DATA frame.
    pub piece: usize,
    /// `content-length` announces it.
    pub length: bool,
    pub trailers: bool,
    /// Without trailers: an empty DATA frame ends it.
    pub bare_end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Application,
}

/// When a client gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quit {
    /// After so many bytes of its body, which are not all.
    Said(usize),
    /// When so many bytes of the reply have come; 0: its head.
    Heard(usize),
}

#[derive(Debug)]
pub struct Reply {
    pub interim: usize,
    pub status: u16,
    pub down: Flow,
    pub order: Order,
    /// Before the head.
    pub sleeps: Duration,
    /// It is refused so many times first, untouched.
    pub refusals: usize,
    /// Reset after so many bytes of the body; `None`: before the head.
    pub resets: Option<(Option<usize>, Reason)>,
    /// Nothing more comes after so many bytes of the body; `None`: not even the head. The call's timeout ends that.
    pub stalls: Option<Option<usize>>,
    /// The application's connection breaks, after so many bytes of the body.
    pub crash: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The request is read whole first.
    After,
    /// The request's body is not read at all.
    Early,
    /// Each side says its second half when it has heard the other's first.
    Duplex,
}

impl Streams {
    /// One call with a long pause, in which a crowd of others comes and stays.
    pub fn crowded(rng: &mut Rng) -> Self {
        let mut draw = Draw { rng, tiny: false, hostile: false, refusing: false, ids: 0 };
        let calls = (0..=WAITING).map(|number| {
            let first = number == 0;
            let mut call = draw.call(0, false, true, true);
            (call.method, call.grpc, call.timeout, call.quits) = ("PUT", false, None, None);
            call.after = if first { Duration::ZERO } else { Duration::from_secs(1) };
            call.up = Flow { exists: first, length: false, trailers: false, ..call.up };
            call.up.body = Body::new(draw.rng, if first { MAX_BODY } else { 0 });
            call.pause = if first { Duration::from_secs(10) } else { Duration::ZERO };
            call.slow = (!first).then_some(Side::Application);
            let down = Flow {
                exists: true,
                body: Body::new(draw.rng, 1),
                length: false,
                trailers: false,
                ..call.up
            };
            let (sleeps, order) = (Duration::ZERO, Order::After);
            call.reply = Reply {
                interim: 0,
                status: 200,
                down,
                order,
                sleeps,
                refusals: 0,
                resets: None,
                stalls: None,
                crash: None,
            };
            Rc::new(call)
        });
        Self { calls: calls.collect(), http1: false, settings: Settings::AMPLE }
    }

    /// A call is not read for as long as the others take.
    pub fn waits(&self) -> bool {
        self.calls.iter().any(|call| call.slow.is_some())
    }
}

impl Call {
    /// `grpc-status` of the reply's end.
    pub fn grpc_status(&self) -> &'static str {
        if self.reply.down.exists { "0" } else { "5" }
    }

    /// Does the reply come whole, if nothing else happens?
    pub fn is_answered(&self) -> bool {
        self.quits.is_none() && self.reply.resets.is_none() && self.reply.stalls.is_none()
    }

    /// Is the request read whole, if nothing else happens?
    pub fn is_read(&self) -> bool {
        self.is_answered() && self.reply.order != Order::Early
    }

    /// Sent again by no one, unless it was refused.
    pub fn is_once(&self) -> bool {
        self.method == "POST"
    }
}

impl Draw<'_> {
    pub fn settings(&mut self, ample: bool, client: bool) -> Settings {
        let small = if self.tiny { 100 } else { 1_000 };
        // Less than clients begin with (RFC 9113 §6.9.2) makes the `h2` of an application forget some of it.
        let windows =
            if client { [small, 16_384, 65_535, 1 << 20] } else { [65_535, 65_535, 1 << 17, 1 << 20] };
        Settings {
            window: windows[self.rng.below(4)],
            connection_window: if ample || self.one_in(2) { 1 << 24 } else { 65_535 },
            frame: [16_384, 20_000, 1 << 20][self.rng.below(3)],
            // A connection takes so many before its first SETTINGS are known; a slow one must not hold up those that wait behind it.
            streams: if ample { 100 } else { [1, 2, 20, 1_000][self.rng.below(4)] },
        }
    }

    pub fn streams(&mut self, conversation: usize) -> Streams {
        let http1 = self.one_in(5);
        let crowded = !self.tiny && !http1 && self.one_in(20);
        let count = 1 + self.rng.below(if crowded { CROWD } else { 6 });
        let calls: Vec<_> = (1..=count)
            .map(|number| Rc::new(self.call(conversation, http1, number == count, crowded)))
            .collect();
        let mut streams = Streams { http1, settings: self.settings(true, true), calls };
        if !streams.waits() {
            streams.settings = self.settings(false, true);
        }
        streams
    }

    fn call(&mut self, conversation: usize, http1: bool, last: bool, crowded: bool) -> Call {
        self.ids += 1;
        let id = self.ids;
        let grpc = !http1 && self.one_in(3);
        let method =
            if grpc { "POST" } else { ["GET", "GET", "HEAD", "POST", "POST", "PUT"][self.rng.below(6)] };
        let sends = matches!(method, "POST" | "PUT");
        let mut up = self.flow(sends, !grpc);
        let mut reply = self.reply(method, grpc, http1, up.body.len);
        if up.body.len > policy::limits::REPLAY_BYTES {
            reply.refusals = 0;
        }
        let most = Duration::from_millis(if self.one_in(3) { 300 } else { 5 });
        let after = self.up_to(most);
        let pause = if self.one_in(8) { self.up_to(Duration::from_secs(1)) } else { Duration::ZERO };
        if http1 {
            // Content-Length or chunks; and what ends the connection comes last.
            up.trailers &= !up.length;
            reply.down.trailers &= !reply.down.length;
            reply.resets = reply.resets.filter(|_| last);
        }
        let mut call = Call {
            id,
            conversation,
            method,
            grpc,
            after,
            up,
            pause,
            timeout: (grpc && self.one_in(2)).then(|| Duration::from_secs(500)),
            slow: None,
            quits: None,
            reply,
        };
        match self.rng.below(8) {
            0 if !http1 && !crowded => call.quits = Some(self.quit(&call)),
            1 if !http1 => call.slow = Some(Side::Client),
            2 if !http1 && call.reply.order == Order::After => call.slow = Some(Side::Application),
            3 if grpc && call.reply.resets.is_none() && call.reply.order != Order::Early => {
                let part = self.rng.below(call.reply.down.body.len.max(1));
                let begun = call.reply.down.exists && self.one_in(2);
                call.reply.stalls = Some(begun.then_some(part));
                call.timeout = Some(Duration::from_millis(1 + self.rng.below(1500) as u64));
            }
            _ => {}
        }
        call
    }

    fn quit(&mut self, call: &Call) -> (Quit, Reason) {
        let code = CODES[self.rng.below(CODES.len())];
        if call.up.body.len > 0 && self.one_in(2) {
            return (Quit::Said(self.rng.below(call.up.body.len)), code);
        }
        (Quit::Heard(self.rng.below(call.reply.down.body.len.max(1))), code)
    }

    fn flow(&mut self, exists: bool, may_announce: bool) -> Flow {
        let body = if exists { self.body() } else { Body::new(self.rng, 0) };
        let piece = if self.tiny { 1 + self.rng.below(200) } else { 1 << (8 + self.rng.below(12)) };
        Flow {
            exists,
            body,
            piece,
            length: exists && may_announce && self.one_in(3),
            trailers: exists && self.one_in(3),
            bare_end: self.one_in(2),
        }
    }

    fn reply(&mut self, method: &str, grpc: bool, http1: bool, up: usize) -> Reply {
        let status = match self.rng.below(8) {
            _ if grpc => 200,
            0 => 204,
            1 if method != "POST" => 304,
            2 => 404,
            3 => 503,
            _ => 200,
        };
        let trailers_only = grpc && self.one_in(4);
        let exists = method != "HEAD" && !matches!(status, 204 | 304) && !trailers_only;
        let mut down = self.flow(exists, !grpc);
        down.trailers |= grpc && exists;
        let order = match self.rng.below(4) {
            0 if up > 0 && !http1 => Order::Early,
            // HTTP/1.1 gives a request up whose reply has ended.
            1 if exists && !http1 => Order::Duplex,
            _ => Order::After,
        };
        let part = |draw: &mut Self| draw.rng.below(down.body.len + 1);
        let resets = self.one_in(8).then(|| {
            let begun = exists && self.one_in(2);
            (begun.then(|| part(self)), CODES[self.rng.below(CODES.len())])
        });
        Reply {
            interim: if self.one_in(8) { 1 + self.rng.below(2) } else { 0 },
            status,
            down,
            order,
            sleeps: if self.one_in(4) { self.up_to(Duration::from_secs(2)) } else { Duration::ZERO },
            refusals: if self.refusing && self.one_in(8) { 1 + self.rng.below(2) } else { 0 },
            resets: resets.filter(|_| order != Order::Early),
            stalls: None,
            crash: (self.hostile && self.one_in(15)).then(|| part(self)),
        }
    }
}
