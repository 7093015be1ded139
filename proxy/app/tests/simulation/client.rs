//! The clients: they say what is planned and hold what they hear against it.

use crate::{
    caller::call,
    plan::{Conversation, Framing, Http, Kind, Path, Request, Tcp},
    wire::{Broken, End, GARBAGE, Head, Heard, Input, Length, announce, converse, frame, garble, write},
    world::World,
};
use futures_util::future::{Either, select};
use proxy_transport::Stream;
use std::{cell::Cell, future::poll_fn, pin::pin, rc::Rc, task::Poll};
use tokio::time::sleep;

/// Has the conversation; `killed` says whether the transport killed this very connection.
pub async fn talk(world: Rc<World>, number: usize, stream: Stream, killed: impl Fn() -> bool) {
    let conversation = &world.plan.conversations[number];
    sleep(conversation.hush).await;
    match &conversation.kind {
        Kind::Tcp(tcp) => {
            let heard = converse(&mut Input::new(&stream), &tcp.up, &tcp.down).await;
            let what = format!("the client of connection {number}");
            judge_bytes(&world, &what, tcp, &heard);
        }
        Kind::Streams(streams) => call(&world, conversation.path, stream, streams).await,
        Kind::Http(http) => Talk { world: &world, conversation, http, killed: &killed }.run(&stream).await,
    }
}

/// What the client of a connection of bytes has heard.
fn judge_bytes(world: &World, what: &str, tcp: &Tcp, heard: &Heard) {
    let whole = heard.bytes == tcp.down.body.len;
    match &heard.end {
        End::Nonsense(why) => world.wrong(format!("{what}: {why}")),
        End::Ended if !whole || tcp.down.reset => {
            world.wrong(format!("{what}: {heard:?} ends as if it were whole"));
        }
        End::Reset if world.mild && !tcp.down.reset => world.wrong(format!("{what}: {heard:?}")),
        _ => {}
    }
}

struct Talk<'a> {
    world: &'a World,
    conversation: &'a Conversation,
    http: &'a Http,
    killed: &'a dyn Fn() -> bool,
}

/// What a response led to.
enum Next {
    /// The next request may go.
    Request,
    /// Bytes follow, as the request asked.
    Tunnel,
    /// No more is to be expected.
    End,
}

impl Talk<'_> {
    async fn run(&self, stream: &Stream) {
        let mut input = Input::new(stream);
        if self.http.pipelined {
            let send = async {
                for request in &self.http.requests {
                    if !self.send(stream, request, &Cell::new(true)).await {
                        return false;
                    }
                }
                if self.http.half_close {
                    stream.shutdown_write();
                }
                true
            };
            let receive = async {
                for request in &self.http.requests {
                    let Next::Request = self.receive(&mut input, request, &Cell::new(true)).await else {
                        return;
                    };
                }
            };
            match select(pin!(send), pin!(receive)).await {
                Either::Left((true, receive)) => receive.await,
                Either::Left((false, _)) | Either::Right(_) => return,
            }
        } else {
            for (number, request) in self.http.requests.iter().enumerate() {
                let last = number + 1 == self.http.requests.len();
                let granted = Cell::new(false);
                let send = async {
                    let all = self.send(stream, request, &granted).await;
                    if last && all && self.http.half_close {
                        stream.shutdown_write();
                    }
                    all
                };
                let receive = self.receive(&mut input, request, &granted);
                // Whoever has its answer sends no more of the request.
                let next = match select(pin!(receive), pin!(send)).await {
                    Either::Left((next, _)) => next,
                    Either::Right((true, receive)) => receive.await,
                    Either::Right((false, _)) => return,
                };
                match (next, &request.upgrade) {
                    (Next::Request, _) => {}
                    (Next::Tunnel, Some(Some(tcp))) => {
                        let heard = converse(&mut input, &tcp.up, &tcp.down).await;
                        let what = format!("the client of the tunnel of request {}", request.id);
                        return judge_bytes(self.world, &what, tcp, &heard);
                    }
                    (Next::Tunnel | Next::End, _) => return,
                }
            }
        }
        stream.shutdown_write();
        match input.drain().await {
            Err(broken) if self.world.mild => self.wrong(&format!("after the last answer: {broken:?}")),
            _ => {}
        }
    }

    /// Sends a request. False when it was broken off as planned.
    async fn send(&self, stream: &Stream, request: &Request, granted: &Cell<bool>) -> bool {
        let mut body = Vec::new();
        frame(&mut body, request.framing, &request.body, request.id);
        let head = head(request);
        if let Some((after, reset)) = request.abort {
            body.truncate(after);
            // Errors show at the other half.
            let _ = write(stream, [head, body].concat()).await;
            if reset {
                stream.reset_on_drop();
            }
            return false;
        }
        if request.garbled {
            garble(&mut body);
        }
        if request.garbled && request.response.early {
            // In the middle of the answer, if that is long enough.
            let rest = body.split_off(body.len() - GARBAGE.len());
            let _ = write(stream, [head, body].concat()).await;
            poll_fn(|_| if granted.get() { Poll::Ready(()) } else { Poll::Pending }).await;
            let _ = write(stream, rest).await;
        } else if request.expects {
            let _ = write(stream, head).await;
            // Polled with `receive`, in one task.
            poll_fn(|_| if granted.get() { Poll::Ready(()) } else { Poll::Pending }).await;
            let _ = write(stream, body).await;
        } else {
            let _ = write(stream, [head, body].concat()).await;
        }
        true
    }

    /// Reads the response to a request.
    async fn receive(&self, input: &mut Input<'_>, request: &Request, granted: &Cell<bool>) -> Next {
        let mut interim = 0;
        loop {
            match self.receive_one(input, request, granted).await {
                Ok(Some(Part::Interim(100))) => granted.set(true),
                Ok(Some(Part::Interim(_))) => interim += 1,
                Ok(Some(Part::Answer { next })) => {
                    // Each attempt has its own.
                    let again =
                        self.world.plan.executions(request.method, request.response.status, false) > 1;
                    let fits = interim == request.response.interim
                        || (again && interim.is_multiple_of(request.response.interim))
                        || !self.world.mild
                        || request.garbled;
                    if !fits {
                        self.wrong(&format!("request {}: {interim} interim responses", request.id));
                    }
                    return next;
                }
                Ok(None) => {
                    // A proxy that drains may close a connection that has no request yet; else there is an answer, or a break.
                    let may_close = (self.killed)() || self.world.plan.drained.is_some();
                    if self.world.mild || !may_close {
                        self.wrong(&format!("request {}: closed without an answer", request.id));
                    }
                    return Next::End;
                }
                Err(Broken::Nonsense(why)) => {
                    self.wrong(&format!("request {}: {why}", request.id));
                    return Next::End;
                }
                Err(broken) => {
                    if self.world.mild && !request.garbled {
                        self.wrong(&format!("request {}: {broken:?}", request.id));
                    }
                    return Next::End;
                }
            }
        }
    }

    /// Reads one head, and the body if it is the final one's.
    async fn receive_one(
        &self,
        input: &mut Input<'_>,
        request: &Request,
        granted: &Cell<bool>,
    ) -> Result<Option<Part>, Broken> {
        let Some(head) = input.head().await? else { return Ok(None) };
        let status: u16 = head
            .line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| Broken::Nonsense(format!("{head:?}")))?;
        if head.fields.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("weft-")) {
            return Err(Broken::Nonsense(format!("a field of the wire: {head:?}")));
        }
        let close = head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let persists = !close && (!request.old || head.field("connection").is_some());
        let next = if persists { Next::Request } else { Next::End };
        if status == 101 || (request.method == "CONNECT" && status == 200) {
            self.judge_head(request, &head, status)?;
            return Ok(Some(Part::Answer { next: Next::Tunnel }));
        }
        if status < 200 {
            return Ok(Some(Part::Interim(status)));
        }
        granted.set(true);
        if status >= 500 || (status == 400 && request.garbled) {
            self.judge_failure(input, request, &head, status).await?;
            return Ok(Some(Part::Answer { next }));
        }
        self.judge_head(request, &head, status)?;
        let bodiless = request.method == "HEAD" || matches!(status, 204 | 304);
        if !bodiless {
            let length = head.length()?.unwrap_or(Length::UntilClose);
            if request.old && length == Length::Chunked || length == Length::UntilClose && persists {
                return Err(Broken::Nonsense(format!("a body of no length: {head:?}")));
            }
            let trailers = input.body(length, request.response.body.bytes()).await?;
            let expected = matches!(request.response.framing, Framing::Chunked { trailers: true, .. });
            if !request.old && (trailers.len() == 1) != expected {
                return Err(Broken::Nonsense(format!("trailers {trailers:?}, expected: {expected}")));
            }
        }
        Ok(Some(Part::Answer { next }))
    }

    fn judge_head(&self, request: &Request, head: &Head, status: u16) -> Result<(), Broken> {
        let expected = match &request.upgrade {
            Some(Some(_)) if request.method == "CONNECT" => 200,
            Some(Some(_)) => 101,
            _ => request.response.status,
        };
        let id = request.id.to_string();
        // Names keep their case, and repeated fields their order.
        let marks = |name: &str| -> Vec<&str> {
            head.fields.iter().filter(|(one, _)| one == name).map(|(_, value)| value.as_str()).collect()
        };
        if status != expected || marks("x-ReSPonse") != [id.as_str()] || marks("Set-Cookie") != ["b=1", "a=2"]
        {
            return Err(Broken::Nonsense(format!("not the answer to {request:?}: {head:?}")));
        }
        Ok(())
    }

    /// An answer of a proxy's own.
    async fn judge_failure(
        &self,
        input: &mut Input<'_>,
        request: &Request,
        head: &Head,
        status: u16,
    ) -> Result<(), Broken> {
        let said = head.field("proxy-status");
        if (self.world.mild && !request.garbled)
            || (said.is_none() && self.conversation.path != Path::Outside)
        {
            return Err(Broken::Nonsense(format!("a failure of the proxy's: {status} {said:?}")));
        }
        let Some(Length::Fixed(length)) = head.length()? else {
            return Err(Broken::Nonsense(format!("a failure without a length: {head:?}")));
        };
        if request.method == "HEAD" { Ok(()) } else { input.skip(length).await }
    }

    fn wrong(&self, what: &str) {
        self.world.wrong(format!("{:?}: {what}", self.conversation.path));
    }
}

/// One response.
enum Part {
    Interim(u16),
    Answer { next: Next },
}

fn head(request: &Request) -> Vec<u8> {
    let target =
        if request.method == "CONNECT" { "shop:1".to_owned() } else { format!("/{}?a=%20b", request.id) };
    let version = if request.old { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut text = format!(
        "{} {target} {version}\r\nHost: shop\r\nx-REQuest: {}\r\nAccept: b\r\nAccept: a\r\nWeft-Http: 2\r\n",
        request.method, request.id,
    )
    .into_bytes();
    match (&request.upgrade, request.keep_alive, request.old) {
        (Some(_), ..) if request.method != "CONNECT" => {
            text.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: other\r\n");
        }
        (_, false, false) => text.extend_from_slice(b"Connection: close\r\n"),
        (_, true, true) => text.extend_from_slice(b"Connection: keep-alive\r\n"),
        _ => {}
    }
    if request.expects {
        text.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    announce(&mut text, request.framing, &request.body);
    text.extend_from_slice(b"\r\n");
    text
}
