//! One world: what is planned for it, what happens in it, and what must hold at its end.

use crate::{
    calls::Call,
    panics,
    plan::{Conversation, Kind, Path, Plan, Request},
    stage::Stage,
};
use policy::Protocol;
use proxy_balance::Rng;
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    rc::Rc,
    time::Duration,
};
use tokio::{
    runtime::{Builder, Handle, LocalOptions},
    sync::Notify,
    time::{Instant, timeout},
};

/// The ports of the HTTP applications, of versions 1 and 2; each connection of bytes has one of its own, beginning at `BYTES_PORT`.
pub const HTTP_PORT: u16 = 80;
pub const STREAMS_PORT: u16 = 81;
pub const BYTES_PORT: u16 = 9000;
/// Virtual time that no world needs.
const HANG: Duration = Duration::from_secs(300);

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
        wrongs.push(format!(
            "{:?}",
            Plan { conversations: Vec::new(), retry: world.plan.retry.clone(), ..world.plan }
        ));
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

    /// How often a call may come.
    pub fn executions(&self, call: &Call) -> usize {
        self.plan.executions(call.method, call.reply.status, call.reply.resets.is_some())
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
            let most = self.plan.executions(request.method, request.response.status, false);
            if once && seen > most {
                self.wrong(format!("request {} has come {seen} times", request.id));
            }
            let whole = request.upgrade.as_ref().is_none_or(Option::is_none)
                && request.abort.is_none()
                && !request.garbled
                && !request.response.early;
            if self.mild && whole && !(1..=most).contains(&done) {
                self.wrong(format!("request {} has been executed {done} times", request.id));
            }
        }
        for call in self.calls.values() {
            let (seen, done) = log.get(&call.id).copied().unwrap_or_default();
            let most = self.executions(call);
            if (call.is_once() || self.mild) && seen > most {
                self.wrong(format!("call {} has come {seen} times", call.id));
            }
            if self.mild && call.is_read() && !self.went_alone(call) && !(1..=most).contains(&done) {
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

impl World {
    /// The ports that the world's applications listen on.
    pub fn ports(&self) -> Vec<u16> {
        let conversations = self.plan.conversations.iter().enumerate();
        let bytes = conversations.filter(|(_, conversation)| matches!(conversation.kind, Kind::Tcp(_)));
        [HTTP_PORT, STREAMS_PORT]
            .into_iter()
            .chain(bytes.map(|(number, _)| BYTES_PORT + number as u16))
            .collect()
    }

    /// What the policy says of a port.
    pub fn declared(&self, port: u16) -> Protocol {
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
