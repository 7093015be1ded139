//! The client's side of a request: where it came from, and where its answer goes to.

use crate::{
    body::{Sink, Source},
    connection::{Connection, Writer},
    copy::Copy,
    failed::Failed,
    grpc,
    head::{ClientFraming, RequestRef, ResponseRef, StreamRequest, origin, write_interim, write_switching},
    inflow::Inflow,
    kept::Kept,
    served::{Incoming, Open},
};
use bytes::Bytes;
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use policy::facts::joined;
use proxy_h1::{BodyLength, Decoder, RequestHead};
use std::{
    borrow::Cow,
    future::poll_fn,
    task::{Context, Poll},
};
use tokio::time::Instant;

/// A request under way.
pub enum Client {
    Http1(Box<Http1>),
    Http2(Box<Http2>),
}

/// On a connection that may bring others afterwards.
pub struct Http1 {
    pub connection: Connection,
    pub head: RequestHead,
    pub body: BodyLength,
    /// The head as a rule changed it.
    edited: Option<Box<StreamRequest>>,
    decoder: Decoder,
    kept: Kept,
}

/// On a stream of its own, of a program or of a peer proxy.
pub struct Http2 {
    pub request: StreamRequest,
    /// The same as a rule changed it.
    edited: Option<Box<StreamRequest>>,
    body: Inflow,
    has_body: bool,
    kept: Kept,
    /// When the caller of a gRPC method gives up.
    deadline: Option<Instant>,
    pub respond: SendResponse<Bytes>,
    _open: Open,
}

/// The client as an exchange takes it apart.
pub(crate) struct Sides<'a> {
    pub(crate) head: RequestRef<'a>,
    pub(crate) source: Source<'a>,
    pub(crate) kept: &'a Kept,
    pub(crate) responder: Responder<'a>,
}

/// Takes the answer.
pub(crate) enum Responder<'a> {
    Http1 { writer: &'a mut Writer, framing: ClientFraming },
    Http2 { respond: &'a mut SendResponse<Bytes>, wire: bool },
}

impl Client {
    pub fn http1(connection: Connection) -> Self {
        Self::Http1(Box::new(Http1 {
            connection,
            head: RequestHead::default(),
            body: BodyLength::None,
            edited: None,
            decoder: Decoder::new(BodyLength::None),
            kept: Kept::default(),
        }))
    }

    pub fn http2(request: StreamRequest, body: Inflow, respond: SendResponse<Bytes>, open: Open) -> Self {
        let has_body = !body.is_end();
        let timeout =
            request.parts.headers.get(grpc::TIMEOUT).and_then(|value| grpc::timeout(value.as_bytes()));
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let kept = Kept::default();
        let client = Http2 { request, edited: None, body, has_body, kept, deadline, respond, _open: open };
        Self::Http2(Box::new(client))
    }

    /// A stream of a program.
    pub fn program(incoming: Incoming) -> Self {
        let Incoming { request, respond, open } = incoming;
        let (parts, body) = request.into_parts();
        Self::http2(StreamRequest::program(parts), body, respond, open)
    }

    /// As it came.
    pub(crate) fn head(&self) -> RequestRef<'_> {
        match self {
            Self::Http1(client) => RequestRef::Http1(&client.head, client.body),
            Self::Http2(client) => RequestRef::Http2(&client.request),
        }
    }

    /// A copy of the head, to be changed: it goes on in the place of the one that came.
    pub fn edit(&mut self) -> &mut StreamRequest {
        if self.edited().is_none() {
            let copy = Box::new(StreamRequest::copy_of(self.head()));
            let edited = match self {
                Self::Http1(client) => &mut client.edited,
                Self::Http2(client) => &mut client.edited,
            };
            *edited = Some(copy);
        }
        match self {
            Self::Http1(client) => client.edited.as_deref_mut(),
            Self::Http2(client) => client.edited.as_deref_mut(),
        }
        .expect("it was made above")
    }

    fn edited(&self) -> Option<&StreamRequest> {
        match self {
            Self::Http1(client) => client.edited.as_deref(),
            Self::Http2(client) => client.edited.as_deref(),
        }
    }

    /// The request for somebody else to see, with its head as it is now. Its body is what passes of this one's.
    pub fn copy(&self) -> Copy {
        let head = self.edited().map_or_else(|| self.head(), RequestRef::Http2);
        let (copy, feed) = Copy::new(StreamRequest::copy_of(head), self.has_body());
        if let Some(feed) = feed {
            match self {
                Self::Http1(client) => client.kept.feed(feed),
                Self::Http2(client) => client.kept.feed(feed),
            }
        }
        copy
    }

    /// The values of all fields of this name; of `host`, whom the request is for.
    pub fn values(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        if name == "host" {
            return Some(self.authority()).filter(|host| !host.is_empty()).map(Cow::Borrowed);
        }
        match self {
            Self::Http1(client) => joined(
                client
                    .head
                    .fields()
                    .iter()
                    .filter(|one| one.name.eq_ignore_ascii_case(name.as_bytes()))
                    .map(|one| one.value),
            ),
            Self::Http2(client) => {
                joined(client.request.parts.headers.get_all(name).iter().map(http::HeaderValue::as_bytes))
            }
        }
    }

    /// Path and query, whatever the form of the target.
    pub fn path(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Http1(client) => origin(&client.head),
            Self::Http2(client) => Cow::Borrowed(client.request.path()),
        }
    }

    pub fn method(&self) -> &str {
        self.head().method()
    }

    /// The request target, as the client wrote it; of HTTP/2, `:path`.
    pub fn target(&self) -> &[u8] {
        match self {
            Self::Http1(client) => client.head.target(),
            Self::Http2(client) => client.request.path(),
        }
    }

    /// Whom the request is for: Host or `:authority`, empty where neither says.
    pub fn authority(&self) -> &[u8] {
        match self {
            Self::Http1(client) => client.head.authority(),
            Self::Http2(client) => match client.request.parts.uri.authority() {
                Some(authority) if client.request.version == http::Version::HTTP_2 => {
                    authority.as_str().as_bytes()
                }
                _ => client.request.parts.headers.get(http::header::HOST).map_or(&[], |host| host.as_bytes()),
            },
        }
    }

    /// What the client speaks; of a peer proxy's stream, what its client does.
    pub fn version(&self) -> http::Version {
        self.head().version()
    }

    /// The value of the first field of this name.
    pub fn field(&self, name: &http::HeaderName) -> Option<&[u8]> {
        self.head().field(name)
    }

    /// It is a call of gRPC, whose outcome is told by `grpc-status`.
    pub fn is_grpc(&self) -> bool {
        self.version() == http::Version::HTTP_2 && grpc::is_grpc(self.field(&CONTENT_TYPE))
    }

    /// When the caller of a gRPC method gives up.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(client) => client.deadline,
        }
    }

    /// Tells the next hop of a call how much time is left until then: its caller's, of which some may have gone already, or less
    /// by a policy.
    pub fn count_down(&mut self, until: Option<Instant>) {
        let is_call = self.is_grpc();
        if let (Self::Http2(client), Some(until)) = (self, until)
            && (is_call || client.deadline.is_some())
        {
            let left = until.saturating_duration_since(Instant::now());
            let going = client.edited.as_deref_mut().unwrap_or(&mut client.request);
            grpc::count_down(&mut going.parts.headers, left);
        }
    }

    /// Bytes that are no message will follow, if the other side agrees.
    pub fn opens_tunnel(&self) -> bool {
        self.head().opens_tunnel()
    }

    /// A WebSocket is asked for.
    pub fn is_websocket(&self) -> bool {
        self.head().is_websocket()
    }

    /// The caller is a peer proxy.
    pub fn is_wire(&self) -> bool {
        matches!(self, Self::Http2(client) if client.request.wire)
    }

    /// Something follows the head of the request.
    pub fn has_body(&self) -> bool {
        match self {
            Self::Http1(client) => has_body(client.body),
            Self::Http2(client) => client.has_body,
        }
    }

    /// So much of its body is kept, for the case that it has to be sent once more. To be said before it is sent.
    pub fn keep(&self, bytes: usize) {
        self.kept().limit(bytes);
    }

    /// Bytes that have gone of its body, if all of them are there to be sent once more; not of what is to become a tunnel.
    pub fn kept_bytes(&self) -> Option<usize> {
        self.kept().bytes().filter(|_| !self.opens_tunnel())
    }

    fn kept(&self) -> &Kept {
        match self {
            Self::Http1(client) => &client.kept,
            Self::Http2(client) => &client.kept,
        }
    }

    pub(crate) fn sides(&mut self) -> Sides<'_> {
        match self {
            Self::Http1(client) => {
                let Http1 { connection: Connection { reader, writer }, head, body, edited, decoder, kept } =
                    &mut **client;
                let responder = Responder::Http1 { writer, framing: ClientFraming::of(head) };
                let source = Source::framed(reader, decoder);
                let head = match edited {
                    Some(edited) => RequestRef::Http2(edited),
                    None => RequestRef::Http1(head, *body),
                };
                Sides { head, source, kept, responder }
            }
            Self::Http2(client) => {
                let Http2 { request, edited, body, kept, respond, .. } = &mut **client;
                let responder = Responder::Http2 { respond, wire: request.wire };
                let head = RequestRef::Http2(edited.as_deref().unwrap_or(request));
                Sides { head, source: Source::stream(body), kept, responder }
            }
        }
    }
}

impl Http1 {
    /// A request's head has been read: its body begins.
    pub fn begin(&mut self, body: BodyLength) {
        self.body = body;
        self.edited = None;
        self.decoder = Decoder::new(body);
        self.kept.clear();
    }

    /// Lets go of what a connection does not need between two requests.
    pub fn rest(&mut self) {
        self.connection.rest();
        self.head.clear();
        self.edited = None;
        self.kept.clear();
    }
}

impl<'a> Responder<'a> {
    /// Passes an interim response on; not to HTTP/1.0, which knows none (RFC 9110 §15.2).
    pub(crate) async fn interim(&mut self, head: ResponseRef<'_>) -> Result<(), Failed> {
        match self {
            Self::Http1 { framing, .. } if framing.version == proxy_h1::Version::Http10 => Ok(()),
            Self::Http1 { writer, .. } => {
                writer.encode(|out| write_interim(out, &head));
                poll_fn(|cx| writer.poll_flush(cx)).await.map_err(|_| Failed::client_gone())
            }
            Self::Http2 { respond, wire } => respond
                .send_informational(head.into_stream(*wire, None))
                .map_err(|error| Failed::stream(&error)),
        }
    }

    /// Ready when the client has given up its request, which only HTTP/2 tells.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Failed> {
        match self {
            Self::Http1 { .. } => Poll::Pending,
            Self::Http2 { respond, .. } => {
                respond.poll_reset(cx).map(|reset| Failed::client_gone().reset(reset.ok()))
            }
        }
    }

    /// Begins the final response. `ended`: no body follows. The sink for the body, and whether the client's connection can carry
    /// another request.
    pub(crate) fn respond(
        self,
        head: ResponseRef<'_>,
        body: BodyLength,
        ended: bool,
        last: bool,
    ) -> Result<(Option<Sink<'a>>, bool), Failed> {
        match self {
            Self::Http1 { writer, framing } => {
                let mut following = None;
                let framing = framing.last_if(last);
                writer.encode(|out| following = Some(framing.write_response(out, &head, body)));
                let following = following.expect("encode calls its function");
                Ok((Some(Sink::framed(writer, following.chunked)), following.keep_alive))
            }
            Self::Http2 { respond, wire } => {
                let sent = respond.send_response(head.into_stream(wire, None), ended);
                let send = sent.map_err(|error| Failed::stream(&error).answered())?;
                Ok(((!ended).then(|| Sink::stream(send)), true))
            }
        }
    }

    /// Accepts what opens a tunnel: the upgrade to this protocol, or a CONNECT.
    pub(crate) fn open_tunnel(
        self,
        head: ResponseRef<'_>,
        upgrade: Option<&str>,
    ) -> Result<Sink<'a>, Failed> {
        match self {
            Self::Http1 { writer, .. } => {
                writer.encode(|out| match upgrade {
                    Some(_) => write_switching(out, &head),
                    None => write_interim(out, &head),
                });
                Ok(Sink::Raw { writer })
            }
            Self::Http2 { respond, wire } => {
                let sent = respond.send_response(head.into_stream(wire, upgrade), false);
                Ok(Sink::stream(sent.map_err(|error| Failed::stream(&error).answered())?))
            }
        }
    }
}

pub(crate) fn has_body(length: BodyLength) -> bool {
    !matches!(length, BodyLength::None | BodyLength::Fixed(0))
}
