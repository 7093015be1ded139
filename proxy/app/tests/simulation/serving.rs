//! The application that speaks HTTP/2: it replies as planned, and holds what arrives against the plan.

use crate::{
    calls::{Call, Order, Quit, Side},
    frames::{Cut, Send, hear, path_of, say, server, trailers},
    world::World,
};
use bytes::Bytes;
use futures_util::future::{Either, select, try_join};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{
    HeaderValue, Request, Response, StatusCode,
    request::Parts,
    uri::{Authority, PathAndQuery},
};
use proxy_transport::Stream;
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

/// A caller that has given up is heard of before that.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// Serves a connection to its end.
pub async fn serve_streams(world: Rc<World>, stream: Stream) {
    let Ok(mut connection) = server(world.plan.application).handshake::<_, Bytes>(stream).await else {
        return;
    };
    let crash = Rc::new(Notify::new());
    let mut served = 0;
    loop {
        let next = match select(pin!(connection.accept()), pin!(crash.notified())).await {
            Either::Left((next, _)) => next,
            Either::Right(_) => return,
        };
        let Some(Ok((request, respond))) = next else { return };
        served += 1;
        if world.plan.retires == Some(served) {
            connection.graceful_shutdown();
        }
        tokio::task::spawn_local(serve(world.clone(), request, respond, crash.clone()));
    }
}

/// One call.
async fn serve(
    world: Rc<World>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    crash: Rc<Notify>,
) {
    let (head, mut body) = request.into_parts();
    let call = match judge_head(&world, &head) {
        Ok(call) => call,
        Err(why) => return world.wrong(format!("at the application: {why}: {head:?}")),
    };
    if world.refuses(&call) {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    world.seen(call.id);
    tracing::trace!(now = ?world.now(), call.id, "the application");
    let serving =
        Serving { world: &world, call: &call, heard: Cell::new(0), ended: Cell::new(false), crash: &crash };
    let ended = serving.run(&mut body, &mut respond).await;
    tracing::trace!(now = ?world.now(), call.id, ?ended, "the application");
    match ended {
        Ok(()) => {}
        Err(Cut::Nonsense(why)) => world.wrong(format!("call {} at the application: {why}", call.id)),
        Err(cut) => serving.judge(&cut),
    }
}

struct Serving<'a> {
    world: &'a World,
    call: &'a Call,
    heard: Cell<usize>,
    ended: Cell<bool>,
    crash: &'a Notify,
}

impl Serving<'_> {
    async fn run(&self, body: &mut RecvStream, respond: &mut SendResponse<Bytes>) -> Result<(), Cut> {
        let reply = &self.call.reply;
        if self.call.slow == Some(Side::Application) {
            unless_reset(respond, self.world.others(self.call)).await?;
        }
        if reply.order == Order::After || reply.stalls == Some(None) {
            self.read(body).await?;
        }
        unless_reset(respond, sleep(reply.sleeps)).await?;
        if reply.stalls == Some(None) {
            let stalled = timeout(GIVEN_UP, poll_fn(|cx| respond.poll_reset(cx))).await;
            self.given_up(stalled.is_ok());
            return Ok(());
        }
        let Some(send) = self.begin(respond)? else { return Ok(()) };
        if reply.order != Order::Duplex {
            return self.write(&send, || true).await;
        }
        let half = self.call.up.body.len / 2;
        let write = self.write(&send, || self.ended.get() || (half > 0 && self.heard.get() >= half));
        try_join(self.read(body), write).await.map(|_| ())
    }

    /// The request's body, and whether it is what was sent.
    async fn read(&self, body: &mut RecvStream) -> Result<(), Cut> {
        let call = self.call;
        let (missing, found) = hear(body, &call.up, &self.heard, None).await?;
        self.ended.set(true);
        if missing > 0 || found != trailers(call, &call.up, false) {
            return Err(Cut::Nonsense(format!("{missing} bytes are missing, trailers: {found:?}")));
        }
        if let Some((Quit::Said(_), _)) = call.quits {
            return Err(Cut::Nonsense("a request that was given up looks whole".to_owned()));
        }
        self.world.done(call.id);
        Ok(())
    }

    /// The interim responses and the head; `None` when no body follows, or the stream was reset.
    fn begin(&self, respond: &mut SendResponse<Bytes>) -> Result<Option<Send>, Cut> {
        let (call, reply) = (self.call, &self.call.reply);
        for _ in 0..reply.interim {
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::EARLY_HINTS;
            interim.headers_mut().insert("link", HeaderValue::from_static("</a>"));
            respond.send_informational(interim)?;
        }
        if let Some((None, code)) = reply.resets {
            respond.send_reset(code);
            return Ok(None);
        }
        let bodiless = !reply.down.exists;
        if bodiless && reply.crash.is_some() {
            self.crash.notify_one();
            return Ok(None);
        }
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::from_u16(reply.status).expect("a status");
        let headers = head.headers_mut();
        headers.insert("x-response", HeaderValue::from(call.id));
        headers.append("set-cookie", HeaderValue::from_static("b=1"));
        headers.append("set-cookie", HeaderValue::from_static("a=2"));
        headers.insert("weft-upgrade", HeaderValue::from_static("x"));
        if call.grpc {
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            if bodiless {
                headers.insert("grpc-status", HeaderValue::from_static(call.grpc_status()));
            }
        }
        if reply.down.length {
            headers.insert("content-length", HeaderValue::from(reply.down.body.len));
        }
        let send = respond.send_response(head, bodiless)?;
        Ok((!bodiless).then(|| RefCell::new(send)))
    }

    /// The reply's body, as far as it goes.
    async fn write(&self, send: &Send, heard: impl Fn() -> bool) -> Result<(), Cut> {
        let (call, reply) = (self.call, &self.call.reply);
        let stop = [reply.crash, reply.stalls.flatten(), reply.resets.and_then(|(after, _)| after)];
        let until = stop.into_iter().flatten().min();
        let said =
            say(send, &reply.down, trailers(call, &reply.down, true), until, Duration::ZERO, heard).await;
        if let Err(cut) = said {
            let reset = poll_fn(|cx| Poll::Ready(send.borrow_mut().poll_reset(cx))).await;
            return Err(match reset {
                Poll::Ready(Ok(code)) => Cut::Reset(code),
                _ => cut,
            });
        }
        if reply.crash.is_some() {
            self.crash.notify_one();
        } else if let Some((Some(_), code)) = reply.resets {
            send.borrow_mut().send_reset(code);
        } else if reply.stalls.is_some() {
            let reset = poll_fn(|cx| send.borrow_mut().poll_reset(cx));
            self.given_up(timeout(GIVEN_UP, reset).await.map(|_| ()).is_ok());
        }
        Ok(())
    }

    fn given_up(&self, given_up: bool) {
        if !given_up && !self.world.was_bytes(self.call) {
            self.world.wrong(format!("call {}: nobody gave it up", self.call.id));
        }
    }

    /// The call did not come to its end.
    fn judge(&self, cut: &Cut) {
        let call = self.call;
        let fits = match (cut, call.quits) {
            // Whose answer is not wanted, it is told so.
            _ if !self.world.mild || call.reply.resets.is_some() || self.world.executions(call) > 1 => true,
            (Cut::Reset(code), Some((_, planned))) => *code == planned,
            (Cut::Connection, Some(_)) => true,
            (_, None) => call.reply.stalls.is_some(),
            _ => false,
        };
        if !fits {
            self.world.wrong(format!("call {} at the application: {cut:?}", call.id));
        }
    }
}

/// Waits, as long as nobody gives the call up.
async fn unless_reset(respond: &mut SendResponse<Bytes>, wait: impl Future<Output = ()>) -> Result<(), Cut> {
    match select(pin!(wait), poll_fn(|cx| respond.poll_reset(cx))).await {
        Either::Left(_) => Ok(()),
        Either::Right((code, _)) => Err(Cut::Reset(code?)),
    }
}

/// Finds the plan of a call, and looks whether it is what the client sent.
fn judge_head(world: &World, head: &Parts) -> Result<Rc<Call>, &'static str> {
    let id = head.headers.get("x-request").and_then(|id| id.to_str().ok());
    let call = id.and_then(|id| world.call(id)).ok_or("a call that nobody made")?;
    let path = head.uri.path_and_query().map(PathAndQuery::as_str);
    let authority = head.uri.authority().map(Authority::as_str);
    if head.method != call.method || path != Some(&path_of(&call)) || authority != Some("shop") {
        return Err("another target");
    }
    let values = |name| -> Vec<_> { head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect() };
    let cookies = values("cookie").join(&b"; "[..]);
    if values("accept") != [b"b", b"a"] || cookies != b"a=1; b=2" || values("te") != [b"trailers"] {
        return Err("other fields");
    }
    let length = call.up.length.then(|| call.up.body.len.to_string());
    if values("content-length") != Vec::from_iter(length.as_ref().map(String::as_bytes)) {
        return Err("another length");
    }
    let timeout = head.headers.contains_key("grpc-timeout");
    if timeout != call.timeout.is_some() {
        return Err("another timeout");
    }
    if head.headers.keys().any(|name| name.as_str().starts_with("weft-")) && !world.may_be_bytes(&call) {
        return Err("a field of the wire");
    }
    Ok(call)
}
