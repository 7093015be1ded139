//! The clients of the application that speaks HTTP/2: they make their calls and hold the replies against the plan.

use crate::{
    calls::{Call, Order, Quit, Side, Streams},
    crossing,
    frames::{Cut, Send, client, hear, path_of, said, say, trailers},
    plan::Path,
    world::World,
};
use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderValue, Method, Request, response};
use proxy_transport::Stream;
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};
use tokio::time::sleep;

/// How a reply ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it came.
    Whole,
    /// A proxy's own: the status of HTTP, or of gRPC.
    Failed(u16),
    Cut(Cut),
}

/// Makes all calls of a connection, side by side.
pub async fn call(world: &World, path: Path, stream: Stream, streams: &Streams) {
    if streams.http1 {
        return crossing::call(world, path, stream, &streams.calls).await;
    }
    let (sender, connection) = match client(streams.settings).handshake::<_, Bytes>(stream).await {
        Ok(made) => made,
        Err(error) if world.mild => return world.wrong(format!("no connection: {error:?}")),
        Err(_) => return streams.calls.iter().for_each(|call| world.ended(call)),
    };
    let driven = tokio::task::spawn_local(connection);
    let calls = streams.calls.iter().map(|call| {
        let sender = sender.clone();
        async move {
            let outcome = Caller { world, call, heard: Cell::new(0) }.run(sender).await;
            world.ended(call);
            judge(world, path, call, false, outcome);
        }
    });
    join_all(calls).await;
    drop(sender);
    if driven.await.is_err() {
        world.wrong("a connection panicked".to_owned());
    }
}

/// Holds the end of a call against the plan.
pub fn judge(world: &World, path: Path, call: &Call, http1: bool, outcome: Outcome) {
    tracing::trace!(now = ?world.now(), call.id, ?outcome, "the client");
    let reply = &call.reply;
    let fits = match (&outcome, reply.resets) {
        // A connection that is drained before it has said what it speaks is answered as HTTP/1.1.
        (Outcome::Cut(Cut::Nonsense(why)), _) => {
            world.plan.drained.is_some() && why.contains("FRAME_SIZE_ERROR")
        }
        (Outcome::Whole, _) => call.is_answered() || (reply.stalls.is_none() && call.quits.is_some()),
        _ if !world.mild || call.quits.is_some() => true,
        _ if world.went_alone(call) => true,
        (Outcome::Failed(status), _) if reply.stalls.is_some() => *status == 4,
        (Outcome::Failed(502) | Outcome::Cut(Cut::Connection), Some(_)) => http1,
        (Outcome::Cut(Cut::Reset(code)), Some((_, planned))) => *code == planned,
        _ => false,
    };
    if !fits {
        world.wrong(format!("{path:?}: call {}: {outcome:?}", call.id));
    }
}

struct Caller<'a> {
    world: &'a World,
    call: &'a Rc<Call>,
    heard: Cell<usize>,
}

impl Caller<'_> {
    async fn run(&self, sender: SendRequest<Bytes>) -> Outcome {
        match self.exchange(sender).await {
            Ok(outcome) => outcome,
            Err(cut) => Outcome::Cut(cut),
        }
    }

    async fn exchange(&self, sender: SendRequest<Bytes>) -> Result<Outcome, Cut> {
        let call = self.call;
        sleep(call.after).await;
        let (response, send) = sender.ready().await?.send_request(head(call), !call.up.exists)?;
        let send = RefCell::new(send);
        let answered = Cell::new(false);
        let receive = async {
            let outcome = self.receive(response, &send, &answered).await;
            answered.set(true);
            outcome
        };
        let upload = async {
            if call.up.exists {
                let half = call.reply.down.body.len / 2;
                let whole = call.is_answered() && call.reply.crash.is_none();
                let waits = call.reply.order == Order::Duplex && half > 0 && whole;
                let heard = || !waits || answered.get() || self.heard.get() >= half;
                // What goes wrong shows in the reply.
                let ends = trailers(call, &call.up, false);
                let said = say(&send, &call.up, ends, said(call), call.pause, heard).await;
                if let (Ok(()), Some((Quit::Said(_), code))) = (said, call.quits) {
                    send.borrow_mut().send_reset(code);
                    return Some(());
                }
            }
            None
        };
        let (mut receive, mut upload) = (pin!(receive), pin!(upload));
        let (mut uploading, mut received) = (true, None);
        poll_fn(|cx| {
            if received.is_none()
                && let Poll::Ready(outcome) = receive.as_mut().poll(cx)
            {
                received = Some(outcome);
            }
            if uploading && let Poll::Ready(quit) = upload.as_mut().poll(cx) {
                uploading = false;
                if quit.is_some() {
                    return Poll::Ready(Err(Cut::Own));
                }
            }
            // A reply may be whole before its request is.
            match &received {
                Some(Ok(Outcome::Whole)) if uploading && call.reply.order == Order::Duplex => Poll::Pending,
                Some(outcome) => Poll::Ready(outcome.clone()),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// The reply, all of it.
    async fn receive(
        &self,
        mut response: ResponseFuture,
        send: &Send,
        answered: &Cell<bool>,
    ) -> Result<Outcome, Cut> {
        let call = self.call;
        let mut interim = 0;
        let response = poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(head))) = response.poll_informational(cx) {
                interim += usize::from(head.status() == 103);
            }
            Pin::new(&mut response).poll(cx)
        });
        let (head, mut body) = response.await?.into_parts();
        if !self.is_own(&head)? {
            answered.set(true);
            let status = match head.headers.get("grpc-status") {
                Some(status) if call.grpc => status.to_str().unwrap_or_default().parse().unwrap_or(0),
                _ => head.status.as_u16(),
            };
            while let Some(data) = body.data().await {
                body.flow_control().release_capacity(data?.len())?;
            }
            return Ok(Outcome::Failed(status));
        }
        let again = self.world.executions(call) > 1;
        if interim != call.reply.interim && call.reply.refusals == 0 && !again {
            return nonsense(format!("{interim} interim responses"));
        }
        if call.slow == Some(Side::Client) {
            self.world.others(call).await;
        }
        let quit = match call.quits {
            Some((Quit::Heard(count), _)) => Some(count),
            _ => None,
        };
        let told = hear(&mut body, &call.reply.down, &self.heard, quit).await;
        if let (Err(Cut::Own), Some((_, code))) = (&told, call.quits) {
            send.borrow_mut().send_reset(code);
        }
        let (missing, found) = told?;
        end(call, missing, &found)
    }

    /// Is it the application's? Then it is as planned.
    fn is_own(&self, head: &response::Parts) -> Result<bool, Cut> {
        let (call, headers) = (self.call, &head.headers);
        let wire = headers.keys().any(|name| name.as_str().starts_with("weft-"));
        if wire && !self.world.was_bytes(call) {
            return nonsense(format!("a field of the wire: {head:?}"));
        }
        if !headers.contains_key("x-response") {
            return Ok(false);
        }
        let cookies: Vec<_> = headers.get_all("set-cookie").iter().map(HeaderValue::as_bytes).collect();
        let status = call.reply.down.exists || !call.grpc || headers["grpc-status"] == call.grpc_status();
        if head.status != call.reply.status
            || headers["x-response"] != call.id.to_string()
            || cookies != [b"b=1", b"a=2"]
            || !status
        {
            return nonsense(format!("another reply: {head:?}"));
        }
        Ok(true)
    }
}

/// What a reply's end says of it.
pub fn end(call: &Call, missing: usize, found: &HeaderMap) -> Result<Outcome, Cut> {
    if missing == 0 && *found == trailers(call, &call.reply.down, true) {
        return Ok(Outcome::Whole);
    }
    // A gRPC caller is told so, after whatever came before.
    let status = found.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
    match status {
        Some(status) if call.grpc && status > 0 && !found.contains_key("x-trailer") => {
            Ok(Outcome::Failed(status))
        }
        _ => nonsense(format!("{missing} bytes are missing from what looks whole, trailers: {found:?}")),
    }
}

fn nonsense<T>(why: String) -> Result<T, Cut> {
    Err(Cut::Nonsense(why))
}

fn head(call: &Call) -> Request<()> {
    let request = Request::builder()
        .method(Method::from_bytes(call.method.as_bytes()).expect("a method"))
        .uri(format!("http://shop{}", path_of(call)))
        .header("x-request", call.id)
        .header("accept", "b")
        .header("accept", "a")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .header("weft-http", "1.0");
    let request = match call.up.length {
        true => request.header("content-length", call.up.body.len),
        false => request,
    };
    let request = match call.grpc {
        true => request.header("content-type", "application/grpc"),
        false => request,
    };
    let request = match call.timeout {
        Some(timeout) => request.header("grpc-timeout", format!("{}m", timeout.as_millis())),
        None => request,
    };
    request.body(()).expect("a request")
}
