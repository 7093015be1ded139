//! One request and its response between a client's side and a next hop's, both directions at once.
//!
//! A response may begin before its request has ended (RFC 9112 §7.5, RFC 9113 §8.1 let a server answer early): it reaches the
//! client whole. Interim responses go through as they come. What an upgrade or a CONNECT opens is a tunnel.

use crate::{
    body::{BodyError, Failure, Meter, Sink, Source, pump},
    bounds::{Bounds, Over},
    client::{Client, Responder, Sides},
    failed::{Failed, Replay},
    grpc,
    head::{self, RequestRef, ResponseRef},
    kept::Kept,
    next_hop::{Answers, Begun, NextHop},
    streams::Lease,
    tunnel::tunnel,
};
use http::{HeaderMap, HeaderValue};
use policy::Reason;
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};
use tokio::time::Instant;

mod race;

pub use race::{Racer, race};

mod copied;

pub use copied::{Copied, copied};

/// An application's answer that reached the client whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    /// The outcome of a gRPC call, as its server told it.
    pub grpc_status: Option<u16>,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    /// The client's connection can carry another request.
    pub client_reusable: bool,
    /// The client's request was read to its end.
    pub request_whole: bool,
    /// The next hop's connection can (a plain one).
    pub hop_reusable: bool,
    /// The client has heard nothing of it: the request is to be sent once more.
    pub withheld: bool,
}

/// What the head of a final answer says of how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub status: u16,
    /// The outcome of a gRPC call, where the head tells it.
    pub grpc_status: Option<u16>,
    /// It is a peer proxy's own answer, for this reason.
    pub failed: Option<Reason>,
    /// Bytes that have gone of the request's body, if all of them are there to be sent again.
    pub kept: Option<usize>,
}

/// What a client's exchange asks and tells on its way.
#[derive(Clone, Copy)]
pub struct Progress<'a> {
    /// Set by the time of the answer, it is the last one on the client's connection.
    pub ending: &'a Cell<bool>,
    /// Called when the final answer's head has come.
    pub answered: &'a dyn Fn(),
    /// Changes the final answer's fields.
    pub edit: Option<&'a dyn Fn(&mut HeaderMap)>,
    /// How long it may take.
    pub bounds: Bounds<'a>,
    /// When the tunnel that it has become is over.
    pub tunnel_deadline: Option<Instant>,
    /// Is the final answer to be withheld from the client, since the request will be sent once more?
    pub judge: Option<&'a dyn Fn(&Verdict) -> bool>,
}

impl Progress<'_> {
    /// Gives the head of the final answer, as it goes to the client, to `give`.
    fn final_head<T>(&self, head: ResponseRef<'_>, give: impl FnOnce(ResponseRef<'_>) -> T) -> T {
        match self.edit {
            None => give(head),
            Some(edit) => {
                let mut parts = head.into_parts();
                edit(&mut parts.headers);
                give(ResponseRef::Http2(&mut parts))
            }
        }
    }
}

/// Both bodies as they go.
struct Count<'a> {
    request: Meter<'a>,
    response: Meter<'a>,
    /// The request has gone whole.
    sent: Cell<bool>,
    /// The client broke its request off, perhaps after its answer had ended: with this code.
    broken_off: Cell<Option<h2::Reason>>,
    /// The client has been given a part of the final response.
    begun: Cell<bool>,
    status: Cell<u16>,
    grpc_status: RefCell<Option<HeaderValue>>,
}

/// Carries a client's request to the next hop and the answer back.
pub async fn exchange(
    client: &mut Client,
    hop: NextHop<'_>,
    progress: &Progress<'_>,
) -> Result<Answered, Failed> {
    let count = Count::of(hop.lease());
    let ended = !client.has_body() && !client.opens_tunnel();
    let (http1, grpc) = (matches!(client, Client::Http1(_)), client.is_grpc());
    let Sides { head, source, kept, responder } = client.sides();
    let Begun { mut sink, mut answers } = hop.begin(head, ended)?;
    kept.rewind();
    if head.opens_tunnel() {
        // Boxed: few requests do so, and it would take room in every other's future.
        return Box::pin(tunnelled(head, source, sink, answers, responder, progress, &count)).await;
    }
    let way = Way { kept, has_body: !ended, http1, grpc, first: None, progress, count: &count };
    let mut source = source.keeping(kept);
    way.message(&mut source, &mut sink, &mut answers, responder).await
}

/// What a message's two directions share.
struct Way<'a> {
    kept: &'a Kept,
    has_body: bool,
    http1: bool,
    grpc: bool,
    /// The status of the first response's head, which has come already.
    first: Option<u16>,
    progress: &'a Progress<'a>,
    count: &'a Count<'a>,
}

/// What a message leaves behind.
#[derive(Clone, Copy)]
struct Left {
    client_reusable: bool,
    hop_reusable: bool,
    withheld: bool,
}

impl Way<'_> {
    /// Both directions of a message. What they use is borrowed: a future that took it would have room for it twice.
    async fn message(
        &self,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
        answers: &mut Answers<'_>,
        responder: Responder<'_>,
    ) -> Result<Answered, Failed> {
        let count = self.count;
        // An HTTP/2 client may be sending on after its answer has ended, and an HTTP/2 server reading.
        let whole = !self.http1 && matches!(answers, Answers::Stream(_));
        let mut down = None;
        let ended = {
            let upload = pin!(self.upload(source, sink));
            let download = pin!(self.download(answers, responder, &mut down));
            let both = pin!(both(upload, download, |left: &Left| whole && !left.withheld));
            self.progress.bounds.keep(both, || self.moved()).await
        };
        let failed = match ended {
            Ok(left) => {
                if let Some(code) = count.broken_off.get() {
                    tokio::task::yield_now().await;
                    sink.abort(code);
                }
                let sent = count.sent.get();
                // An HTTP/1 client that has not sent its request whole may send the rest of it next.
                let client_reusable = left.client_reusable && (sent || !self.http1);
                let answered = count.answered(client_reusable, left.hop_reusable && sent);
                return Ok(Answered { withheld: left.withheld, ..answered });
            }
            Err(failed) => Failed { answered: failed.answered || count.begun.get(), ..failed },
        };
        if failed.answered {
            // HTTP/2 forgets what a stream has queued when it is reset: let its connection take that first.
            tokio::task::yield_now().await;
            sink.abort(failed.reset.unwrap_or(h2::Reason::CANCEL));
        }
        if let Some(down) = &mut down {
            match failed.reset {
                None if self.grpc => down.fail(&failed),
                code => down.abort(code.unwrap_or(h2::Reason::INTERNAL_ERROR)),
            }
        }
        let replay = if self.kept.is_whole() { failed.replay } else { Replay::Never };
        Err(Failed { replay, ..failed })
    }

    /// While the answer is waited for, silence is its own: only a body that has begun and not ended is to move.
    fn moved(&self) -> Option<u64> {
        let count = self.count;
        let moves = count.begun.get() || (self.has_body && !count.sent.get());
        moves.then(|| count.request.bytes() + count.response.bytes())
    }

    async fn upload(&self, source: &mut Source<'_>, sink: &mut Sink<'_>) -> Result<(), BodyError> {
        if self.has_body {
            let carried = pump(source, sink, &self.count.request).await;
            if let Err(BodyError::Source(failure)) = &carried {
                self.count.broken_off.set(Some(failure.reset().unwrap_or(h2::Reason::CANCEL)));
            }
            carried?;
        } else {
            sink.flush().await?;
        }
        self.count.sent.set(true);
        source.watch().await
    }

    async fn download<'s>(
        &self,
        answers: &mut Answers<'_>,
        mut responder: Responder<'s>,
        down: &mut Option<Sink<'s>>,
    ) -> Result<Left, Failed> {
        let count = self.count;
        let mut status = match self.first {
            Some(status) => status,
            None => wanted(answers, &mut responder).await?,
        };
        while status < 200 {
            responder.interim(answers.head()).await?;
            status = wanted(answers, &mut responder).await?;
        }
        (self.progress.answered)();
        count.head_of(answers);
        if let Some(judge) = self.progress.judge
            && judge(&count.verdict(answers, self.kept.bytes()))
        {
            return Ok(Left { client_reusable: false, hop_reusable: answers.discard(), withheld: true });
        }
        self.kept.forget();
        let (length, bodiless) = answers.body()?;
        let last = self.progress.ending.get() || !count.sent.get();
        let (sink, keep_alive) = self
            .progress
            .final_head(answers.head(), |head| responder.respond(head, length, bodiless, last))?;
        count.begun.set(true);
        let stays = answers.stays();
        *down = sink;
        if let Some(sink) = down {
            let carried = pump(&mut answers.source(), sink, &count.response).await;
            if let Some(status) = carried.map_err(|error| incomplete(&error))? {
                count.grpc_status.replace(Some(status));
            }
        }
        Ok(Left { client_reusable: keep_alive, hop_reusable: stays, withheld: false })
    }
}

/// A request to upgrade, or a CONNECT: a tunnel if the next hop accepts, else an ordinary response.
async fn tunnelled(
    request: RequestRef<'_>,
    source: Source<'_>,
    mut sink: Sink<'_>,
    mut answers: Answers<'_>,
    mut responder: Responder<'_>,
    progress: &Progress<'_>,
    count: &Count<'_>,
) -> Result<Answered, Failed> {
    sink.flush().await.map_err(|error| Failed::new(Reason::ConnectionTerminated, error.to_string()))?;
    let wire = answers.is_wire();
    let upgrade = request.upgrade().map(String::from_utf8_lossy);
    let final_head = async {
        loop {
            let status = wanted(&mut answers, &mut responder).await?;
            if status >= 200 || (status == 101 && upgrade.is_some()) {
                return Ok(());
            }
            responder.interim(answers.head()).await?;
        }
    };
    progress.bounds.keep(pin!(final_head), || None).await?;
    (progress.answered)();
    count.head_of(&mut answers);
    let head = answers.head();
    let accepted = match &upgrade {
        Some(_) => head.upgrades(wire),
        None => request.method() == "CONNECT" && (200..300).contains(&head.status()),
    };
    if !accepted {
        // Nothing that follows can be told from the tunnel's first bytes: the client's connection ends with this.
        let (length, bodiless) = answers.body()?;
        let (down, _) =
            progress.final_head(answers.head(), |head| responder.respond(head, length, bodiless, true))?;
        if let Some(mut down) = down {
            let carried = pump(&mut answers.source(), &mut down, &count.response).await;
            carried.map_err(|error| {
                down.abort(h2::Reason::INTERNAL_ERROR);
                incomplete(&error)
            })?;
        }
        return Ok(count.answered(false, false));
    }
    if upgrade.is_some() {
        count.status.set(101);
    }
    let down = responder.open_tunnel(answers.head(), upgrade.as_deref())?;
    let up = (source.into_raw(), sink.into_raw());
    let down = (answers.source().into_raw(), down);
    let over =
        |over| (progress.bounds.failed)(if over == Over::Deadline { Over::TunnelDeadline } else { over });
    let bounds = Bounds { deadline: progress.tunnel_deadline, failed: &over, ..progress.bounds };
    tunnel(up, down, &count.request, &count.response, bounds).await.map_err(Failed::answered)?;
    Ok(count.answered(false, false))
}

/// The next response's head, as long as the client waits for it.
async fn wanted(answers: &mut Answers<'_>, responder: &mut Responder<'_>) -> Result<u16, Failed> {
    poll_fn(|cx| match answers.poll_next(cx) {
        Poll::Pending => responder.poll_gone(cx).map(Err),
        next => next,
    })
    .await
}

/// Runs both directions until the response has ended; what the upload does once the request has gone may be cut off. With
/// `whole`, the rest of the request goes on until it ends, or one of both sides gives it up.
///
/// A client that breaks off ends both. A next hop that takes no more of the request may still answer: that is waited for.
async fn both<T>(
    mut upload: Pin<&mut impl Future<Output = Result<(), BodyError>>>,
    mut download: Pin<&mut impl Future<Output = Result<T, Failed>>>,
    whole: impl Fn(&T) -> bool,
) -> Result<T, Failed> {
    let mut uploading = true;
    let mut answer = None;
    poll_fn(|cx| {
        if uploading && let Poll::Ready(ended) = upload.as_mut().poll(cx) {
            if let (Err(BodyError::Source(failure)), None) = (ended, &answer) {
                return Poll::Ready(Err(broken_off(&failure)));
            }
            uploading = false;
        }
        if answer.is_none()
            && let Poll::Ready(ended) = download.as_mut().poll(cx)
        {
            answer = Some(ended?);
        }
        match answer.take() {
            Some(ended) if !uploading || !whole(&ended) => Poll::Ready(Ok(ended)),
            ended => {
                answer = ended;
                Poll::Pending
            }
        }
    })
    .await
}

fn broken_off(failure: &Failure) -> Failed {
    match failure {
        Failure::Framing(refusal) => Failed::new(Reason::HttpRequestError, refusal.detail()),
        _ => Failed::client_gone().reset(failure.reset()),
    }
}

/// A response that did not arrive whole.
fn incomplete(error: &BodyError) -> Failed {
    match error {
        BodyError::Source(failure) => Failed::receiving(failure).answered(),
        BodyError::Sink(failure) => Failed::client_gone().reset(failure.reset()),
    }
}

impl<'a> Count<'a> {
    fn of(lease: Option<&'a Lease>) -> Self {
        Self {
            request: Meter::of(lease),
            response: Meter::of(lease),
            sent: Cell::new(false),
            broken_off: Cell::new(None),
            begun: Cell::new(false),
            status: Cell::new(0),
            grpc_status: RefCell::default(),
        }
    }

    /// Notes what the final head says of the outcome: of gRPC's trailers-only responses, all.
    fn head_of(&self, answers: &mut Answers<'_>) {
        let stream = matches!(answers, Answers::Stream(_));
        let head = answers.head();
        self.status.set(head.status());
        if stream && let Some(status) = head.field(&grpc::STATUS) {
            self.grpc_status.replace(HeaderValue::from_bytes(status).ok());
        }
    }

    fn grpc_status(&self) -> Option<u16> {
        self.grpc_status.borrow().as_ref().and_then(|status| status.to_str().ok()?.parse().ok())
    }

    fn verdict(&self, answers: &mut Answers<'_>, kept: Option<usize>) -> Verdict {
        let failed = if answers.is_wire() { head::failed(&answers.head()) } else { None };
        Verdict { status: self.status.get(), grpc_status: self.grpc_status(), failed, kept }
    }

    fn answered(&self, client_reusable: bool, hop_reusable: bool) -> Answered {
        Answered {
            status: self.status.get(),
            grpc_status: self.grpc_status(),
            request_bytes: self.request.bytes(),
            response_bytes: self.response.bytes(),
            client_reusable,
            request_whole: self.sent.get(),
            hop_reusable,
            withheld: false,
        }
    }
}
