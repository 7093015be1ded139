//! One request and its response between a client's side and a next hop's, both directions at once.
//!
//! A response may begin before its request has ended (RFC 9112 §7.5 lets a server answer early): it reaches the client whole,
//! and the connection is given up after it, as its head says. Interim responses go through as they come. What an upgrade or a
//! CONNECT opens is a tunnel.

use crate::{
    accept::Incoming,
    body::{BodyError, Failure, Meter, Sink, Source, pump},
    connection::{Connection, Reader},
    failed::{Failed, Replay},
    head::{self, ClientFraming, StreamRequest},
    peer::{Lease, PeerStream},
    tunnel::tunnel,
};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::Method;
use policy::Reason;
use proxy_h1::{BodyLength, Limits, Parse, RequestHead, ResponseHead, Version};
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, ready},
};

/// An application's answer that reached the client whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
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
}

/// What a client's exchange asks and tells on its way.
#[derive(Clone, Copy)]
pub struct Progress<'a> {
    /// Set by the time of the answer, it is the last one on the client's connection.
    pub ending: &'a Cell<bool>,
    /// Called when the final answer's head has come.
    pub answered: &'a dyn Fn(),
}

/// Bytes of both bodies as they go.
#[derive(Default)]
struct Count<'a> {
    request: Meter<'a>,
    response: Meter<'a>,
    /// The request has gone whole.
    sent: Cell<bool>,
    /// The client has been given a part of the final response.
    begun: Cell<bool>,
}

/// A client's HTTP/1 request over a stream to a peer proxy.
pub async fn client_to_stream(
    client: &mut Connection,
    head: &RequestHead,
    body: BodyLength,
    stream: PeerStream,
    progress: Progress<'_>,
) -> Result<Answered, Failed> {
    let framing = ClientFraming::of(head);
    if opens_tunnel(head, body) {
        return client_tunnel_to_stream(client, framing, stream, progress).await;
    }
    let PeerStream { mut response, send, lease } = stream;
    let count = Count::of(&lease);
    let Connection { reader, writer } = client;
    let upload = async {
        if has_body(body) {
            let (mut source, mut sink) = (Source::framed(reader, body), Sink::stream(send));
            pump(&mut source, &mut sink, &count.request).await?;
        }
        count.sent.set(true);
        watch(reader).await
    };
    let download = async {
        loop {
            let head = poll_fn(|cx| poll_stream_head(&mut response, cx)).await;
            match head.map_err(|failed| lease.explain(failed))? {
                StreamHead::Interim(parts) => {
                    if framing.version == Version::Http11 {
                        writer.encode(|out| head::write_stream_interim(out, &parts));
                        poll_fn(|cx| writer.poll_flush(cx)).await.map_err(|_| Failed::client_gone())?;
                    }
                }
                StreamHead::Final(parts, recv) => {
                    (progress.answered)();
                    let mut following = None;
                    let framing = framing.last_if(progress.ending.get() || !count.sent.get());
                    writer.encode(|out| following = Some(framing.write_stream_response(out, &parts)));
                    let following = following.expect("encode calls its function");
                    count.begun.set(true);
                    let (mut source, mut sink) =
                        (Source::stream(recv), Sink::framed(writer, following.chunked));
                    let carried = pump(&mut source, &mut sink, &count.response).await;
                    carried.map_err(|error| incomplete(&error, &mut sink))?;
                    return Ok((parts.status.as_u16(), following.keep_alive));
                }
            }
        }
    };
    let received = both(upload, download).await;
    let (status, keep_alive) = received.map_err(|failed| replayable(failed, body, &count))?;
    Ok(count.answered(status, keep_alive && count.sent.get(), true))
}

/// A client's HTTP/1 request over a plain connection.
pub async fn client_to_plain(
    client: &mut Connection,
    head: &RequestHead,
    body: BodyLength,
    hop: &mut Connection,
    reused: bool,
    progress: Progress<'_>,
) -> Result<Answered, Failed> {
    let framing = ClientFraming::of(head);
    let method = head.method();
    let count = Count::default();
    hop.writer.encode(|out| head::write_request(out, head, body));
    let (to_hop, from_hop) = (&mut hop.writer, &mut hop.reader);
    let mut response = ResponseHead::default();
    if opens_tunnel(head, body) {
        poll_fn(|cx| to_hop.poll_flush(cx)).await.map_err(|error| lost(&error, reused))?;
        return client_tunnel_to_plain(client, head, framing, hop, progress).await;
    }
    let Connection { reader, writer } = client;
    let upload = async {
        let chunked = body == BodyLength::Chunked;
        let (mut source, mut sink) = (Source::framed(reader, body), Sink::framed(to_hop, chunked));
        if has_body(body) {
            pump(&mut source, &mut sink, &count.request).await?;
        } else {
            poll_fn(|cx| to_hop.poll_flush(cx)).await.map_err(|error| BodyError::Sink(error.into()))?;
        }
        count.sent.set(true);
        watch(reader).await
    };
    let download = async {
        loop {
            read_response(from_hop, &mut response, reused).await?;
            if response.status() < 200 {
                if framing.version == Version::Http11 {
                    writer.encode(|out| head::write_interim(out, &response, method));
                    poll_fn(|cx| writer.poll_flush(cx)).await.map_err(|_| Failed::client_gone())?;
                }
                continue;
            }
            (progress.answered)();
            let length = response.body(method).map_err(|refusal| Failed::receiving(&refusal.into()))?;
            let mut following = None;
            let framing = framing.last_if(progress.ending.get() || !count.sent.get());
            writer.encode(|out| following = Some(framing.write_response(out, &response, method, length)));
            let following = following.expect("encode calls its function");
            count.begun.set(true);
            let (mut source, mut sink) =
                (Source::framed(from_hop, length), Sink::framed(writer, following.chunked));
            let carried = pump(&mut source, &mut sink, &count.response).await;
            carried.map_err(|error| incomplete(&error, &mut sink))?;
            let reusable = stays(&response, length, head.version());
            return Ok((response.status(), following.keep_alive, reusable));
        }
    };
    let received = both(upload, download).await;
    let (status, keep_alive, hop_reusable) = received.map_err(|failed| replayable(failed, body, &count))?;
    let sent = count.sent.get();
    Ok(count.answered(status, keep_alive && sent, hop_reusable && sent))
}

/// A peer's stream, its body if it has one, over a plain connection to the application. The response goes to `respond` by itself.
pub async fn stream_to_plain(
    request: &StreamRequest,
    incoming: Option<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    hop: &mut Connection,
    reused: bool,
) -> Result<Answered, Failed> {
    let ended = incoming.is_none();
    let mut chunked = false;
    hop.writer.encode(|out| chunked = request.write(out, ended));
    let method = request.method.as_str();
    if request.upgrade.is_some() || request.method == Method::CONNECT {
        return stream_tunnel_to_plain(request, incoming, respond, hop, reused).await;
    }
    let count = Count::default();
    let (to_hop, from_hop) = (&mut hop.writer, &mut hop.reader);
    let mut response = ResponseHead::default();
    let upload = async {
        match incoming {
            None => {
                poll_fn(|cx| to_hop.poll_flush(cx)).await.map_err(|error| BodyError::Sink(error.into()))?
            }
            Some(incoming) => {
                let (mut source, mut sink) = (Source::stream(incoming), Sink::framed(to_hop, chunked));
                pump(&mut source, &mut sink, &count.request).await?;
            }
        }
        count.sent.set(true);
        Ok(())
    };
    let download = async {
        loop {
            wanted(respond, read_response(from_hop, &mut response, reused)).await?;
            if response.status() < 200 {
                respond
                    .send_informational(head::to_stream_response(&response, method, false))
                    .map_err(|error| Failed::stream(&error))?;
                continue;
            }
            let length = response.body(method).map_err(|refusal| Failed::receiving(&refusal.into()))?;
            let bodiless = !has_body(length);
            let send = respond
                .send_response(head::to_stream_response(&response, method, false), bodiless)
                .map_err(|error| Failed::stream(&error).answered())?;
            if !bodiless {
                let (mut source, mut sink) = (Source::framed(from_hop, length), Sink::stream(send));
                let carried = pump(&mut source, &mut sink, &count.response).await;
                carried.map_err(|error| incomplete(&error, &mut sink))?;
            }
            return Ok((response.status(), stays(&response, length, request.version)));
        }
    };
    let received = both(upload, download).await;
    let body = if ended { BodyLength::None } else { BodyLength::Chunked };
    let (status, hop_reusable) = received.map_err(|failed| replayable(failed, body, &count))?;
    Ok(count.answered(status, true, hop_reusable && count.sent.get()))
}

async fn client_tunnel_to_stream(
    client: &mut Connection,
    framing: ClientFraming,
    stream: PeerStream,
    progress: Progress<'_>,
) -> Result<Answered, Failed> {
    let PeerStream { mut response, send, lease } = stream;
    let (parts, recv) = loop {
        let head = poll_fn(|cx| poll_stream_head(&mut response, cx)).await;
        if let StreamHead::Final(parts, recv) = head.map_err(|failed| lease.explain(failed))? {
            break (parts, recv);
        }
    };
    (progress.answered)();
    let Connection { reader, writer } = client;
    let switching = head::accepted_upgrade(&parts).cloned();
    let count = Count::of(&lease);
    let status = parts.status.as_u16();
    if let Some(protocol) = &switching {
        writer.encode(|out| head::write_switching(out, &parts, protocol));
    } else if framing.connect && parts.status.is_success() {
        writer.encode(|out| head::write_stream_interim(out, &parts));
    } else {
        // Refused: an ordinary response, and nothing that follows it can be told from the tunnel's first bytes.
        let framing = framing.last_if(true);
        let mut chunked = false;
        writer.encode(|out| chunked = framing.write_stream_response(out, &parts).chunked);
        let (mut source, mut sink) = (Source::stream(recv), Sink::framed(writer, chunked));
        let carried = pump(&mut source, &mut sink, &count.response).await;
        carried.map_err(|error| incomplete(&error, &mut sink))?;
        return Ok(count.answered(status, false, true));
    }
    let up = (Source::Raw { reader }, Sink::stream(send));
    let down = (Source::stream(recv), Sink::Raw { writer });
    tunnel(up, down, &count.request, &count.response).await.map_err(Failed::answered)?;
    Ok(count.answered(if switching.is_some() { 101 } else { status }, false, true))
}

async fn client_tunnel_to_plain(
    client: &mut Connection,
    head: &RequestHead,
    framing: ClientFraming,
    hop: &mut Connection,
    progress: Progress<'_>,
) -> Result<Answered, Failed> {
    let method = head.method();
    let mut response = ResponseHead::default();
    let (Connection { reader, writer }, count) = (client, Count::default());
    loop {
        read_response(&mut hop.reader, &mut response, false).await?;
        if response.status() >= 200 || response.status() == 101 {
            break;
        }
        writer.encode(|out| head::write_interim(out, &response, method));
    }
    (progress.answered)();
    let status = response.status();
    if !(status == 101 && head.upgrade().is_some() || method == "CONNECT" && status < 300) {
        let framing = framing.last_if(true);
        let length = response.body(method).map_err(|refusal| Failed::receiving(&refusal.into()))?;
        let mut chunked = false;
        writer.encode(|out| chunked = framing.write_response(out, &response, method, length).chunked);
        let (mut source, mut sink) = (Source::framed(&mut hop.reader, length), Sink::framed(writer, chunked));
        let carried = pump(&mut source, &mut sink, &count.response).await;
        carried.map_err(|error| incomplete(&error, &mut sink))?;
        return Ok(count.answered(status, false, false));
    }
    writer.encode(|out| head::write_interim(out, &response, method));
    let up = (Source::Raw { reader }, Sink::Raw { writer: &mut hop.writer });
    let down = (Source::Raw { reader: &mut hop.reader }, Sink::Raw { writer });
    tunnel(up, down, &count.request, &count.response).await.map_err(Failed::answered)?;
    Ok(count.answered(status, false, false))
}

async fn stream_tunnel_to_plain(
    request: &StreamRequest,
    incoming: Option<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    hop: &mut Connection,
    reused: bool,
) -> Result<Answered, Failed> {
    let method = request.method.as_str();
    let mut response = ResponseHead::default();
    let count = Count::default();
    poll_fn(|cx| hop.writer.poll_flush(cx)).await.map_err(|error| lost(&error, reused))?;
    loop {
        wanted(respond, read_response(&mut hop.reader, &mut response, reused)).await?;
        if response.status() >= 200 || response.status() == 101 {
            break;
        }
    }
    let status = response.status();
    let switching = status == 101 && request.upgrade.is_some();
    let tunnels = switching || request.method == Method::CONNECT && (200..300).contains(&status);
    let length = response.body(method).map_err(|refusal| Failed::receiving(&refusal.into()))?;
    let send = respond
        .send_response(head::to_stream_response(&response, method, switching), !tunnels && !has_body(length))
        .map_err(|error| Failed::stream(&error).answered())?;
    let Connection { reader, writer } = hop;
    if tunnels {
        let up = (incoming.map_or(Source::Ended, Source::stream), Sink::Raw { writer });
        let down = (Source::Raw { reader }, Sink::stream(send));
        tunnel(up, down, &count.request, &count.response).await.map_err(Failed::answered)?;
    } else if has_body(length) {
        let (mut source, mut sink) = (Source::framed(reader, length), Sink::stream(send));
        let carried = pump(&mut source, &mut sink, &count.response).await;
        carried.map_err(|error| incomplete(&error, &mut sink))?;
    }
    Ok(count.answered(status, true, false))
}

/// A peer's stream that carries a TCP connection, over a connection to the application.
pub async fn stream_to_tcp(
    (request, mut respond): Incoming,
    hop: &mut Connection,
) -> Result<Answered, Failed> {
    let count = Count::default();
    let send = respond
        .send_response(http::Response::new(()), false)
        .map_err(|error| Failed::stream(&error).answered())?;
    let up = (Source::stream(request.into_body()), Sink::Raw { writer: &mut hop.writer });
    let down = (Source::Raw { reader: &mut hop.reader }, Sink::stream(send));
    tunnel(up, down, &count.request, &count.response).await.map_err(Failed::answered)?;
    Ok(count.answered(0, true, false))
}

enum StreamHead {
    Interim(http::response::Parts),
    Final(http::response::Parts, RecvStream),
}

fn poll_stream_head(
    response: &mut h2::client::ResponseFuture,
    cx: &mut Context<'_>,
) -> Poll<Result<StreamHead, Failed>> {
    if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
        return Poll::Ready(Ok(StreamHead::Interim(interim.into_parts().0)));
    }
    let response = ready!(std::pin::Pin::new(response).poll(cx)).map_err(|error| Failed::stream(&error))?;
    let (parts, body) = response.into_parts();
    Poll::Ready(Ok(StreamHead::Final(parts, body)))
}

/// Waits for a response as long as the peer's client does.
async fn wanted(
    respond: &mut SendResponse<Bytes>,
    reading: impl Future<Output = Result<(), Failed>>,
) -> Result<(), Failed> {
    let mut reading = pin!(reading);
    poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Pending => respond.poll_reset(cx).map(|_| Err(Failed::client_gone())),
        read => read,
    })
    .await
}

/// Reads a response head from a plain connection.
async fn read_response(reader: &mut Reader, head: &mut ResponseHead, reused: bool) -> Result<(), Failed> {
    let limits = Limits::default();
    loop {
        if !reader.buffer.is_empty() {
            match proxy_h1::parse_response(&mut reader.buffer, head, &limits) {
                Ok(Parse::Complete) => return Ok(()),
                Ok(Parse::Partial) => {}
                Err(refusal) if refusal.status() == 431 => {
                    return Err(Failed::new(Reason::HttpResponseHeaderSectionSize, refusal.detail()));
                }
                Err(refusal) => return Err(Failed::receiving(&refusal.into())),
            }
        }
        let begun = !reader.buffer.is_empty();
        match poll_fn(|cx| reader.poll_fill(cx)).await {
            Ok(0) if begun => {
                return Err(Failed::new(
                    Reason::HttpResponseIncomplete,
                    "the connection ended in the response head",
                ));
            }
            Ok(0) => return Err(lost(&std::io::ErrorKind::UnexpectedEof.into(), reused)),
            Ok(_) => {}
            Err(error) if begun => return Err(Failed::receiving(&error.into())),
            Err(error) => return Err(lost(&error, reused)),
        }
    }
}

/// A connection that broke before a byte of the response came.
fn lost(error: &std::io::Error, reused: bool) -> Failed {
    let replay = if reused { Replay::IfIdempotent } else { Replay::Never };
    let detail = match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "closed before a response came".to_owned(),
        _ => error.to_string(),
    };
    Failed { replay, ..Failed::new(Reason::ConnectionTerminated, detail) }
}

/// After its request, watches the client: what it sends next stays for the next request, and if it is gone, nobody waits for
/// an answer any more.
async fn watch(reader: &mut Reader) -> Result<(), BodyError> {
    let gone = |error: std::io::Error| BodyError::Source(error.into());
    if reader.buffered().is_empty() {
        poll_fn(|cx| reader.poll_readable(cx)).await.map_err(gone)?;
        poll_fn(|cx| reader.poll_fill(cx)).await.map_err(gone)?;
    }
    Ok(())
}

/// Runs both directions until the response has ended; what the upload does once the request has gone may be cut off.
///
/// A client that breaks off ends both. A next hop that takes no more of the request may still answer: that is waited for.
async fn both<T>(
    upload: impl Future<Output = Result<(), BodyError>>,
    download: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    let (mut upload, mut download) = (pin!(upload), pin!(download));
    let mut uploading = true;
    poll_fn(|cx| {
        if uploading && let Poll::Ready(ended) = upload.as_mut().poll(cx) {
            if let Err(BodyError::Source(failure)) = ended {
                return Poll::Ready(Err(broken_off(&failure)));
            }
            uploading = false;
        }
        download.as_mut().poll(cx)
    })
    .await
}

fn broken_off(failure: &Failure) -> Failed {
    match failure {
        Failure::Framing(refusal) => Failed::new(Reason::HttpRequestError, refusal.detail()),
        _ => Failed::client_gone(),
    }
}

/// A response that did not arrive whole: the receiver is shown so.
fn incomplete(error: &BodyError, sink: &mut Sink<'_>) -> Failed {
    sink.abort(h2::Reason::INTERNAL_ERROR);
    match error {
        BodyError::Source(failure) => Failed::receiving(failure).answered(),
        BodyError::Sink(_) => Failed::client_gone(),
    }
}

/// A body that was begun cannot be sent again: nobody kept it.
fn replayable(failed: Failed, body: BodyLength, count: &Count<'_>) -> Failed {
    let replay = if has_body(body) || count.request.bytes() > 0 { Replay::Never } else { failed.replay };
    Failed { replay, answered: failed.answered || count.begun.get(), ..failed }
}

fn has_body(length: BodyLength) -> bool {
    !matches!(length, BodyLength::None | BodyLength::Fixed(0))
}

/// Can the connection that brought the response be used again? Not after a request of HTTP/1.0: it says nothing of keep-alive
/// any more, and its server may close without a word (RFC 9112 §9.3).
fn stays(response: &ResponseHead, length: BodyLength, request: Version) -> bool {
    response.keep_alive(length) && request == Version::Http11
}

/// Will bytes that are no message follow, if the other side agrees?
pub fn opens_tunnel(head: &RequestHead, body: BodyLength) -> bool {
    head::upgrade(head, body).is_some() || head.method() == "CONNECT"
}

impl<'a> Count<'a> {
    fn of(lease: &'a Lease) -> Self {
        Self { request: Meter::of(lease), response: Meter::of(lease), ..Self::default() }
    }

    fn answered(&self, status: u16, client_reusable: bool, hop_reusable: bool) -> Answered {
        Answered {
            status,
            request_bytes: self.request.bytes(),
            response_bytes: self.response.bytes(),
            client_reusable,
            request_whole: self.sent.get(),
            hop_reusable,
        }
    }
}
