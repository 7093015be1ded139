//! HTTP/2 with prior knowledge, both sides, on the `h2` crate: a client and a server that can do whatever a stream can.
//!
//! A test is a thread without a runtime; [`run`] gives it one. Convenience stops at whole answers: what is about frames is
//! written with `h2`'s own types.

use crate::{PATIENCE, pod::Pod};
use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
    server::SendResponse,
};
use http::{HeaderMap, Request, Response};
use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    task::Poll,
    thread,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// Longer than any test takes: what hangs fails.
const HANGS: Duration = Duration::from_secs(60);
/// What both sides here can take.
const HEADER_LIST_BYTES: u32 = 1024 * 1024;
/// Windows of a stream, and of a connection: many streams that are not read do not fill it.
const STREAM_BYTES: u32 = 128 * 1024;
const CONNECTION_BYTES: u32 = 16 * 1024 * 1024;

/// Runs what speaks HTTP/2, on a runtime of this thread.
#[track_caller]
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let ended = runtime().block_on(async { timeout(HANGS, future).await });
    ended.unwrap_or_else(|_| panic!("it hangs"))
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A client's side of a connection.
#[derive(Debug)]
pub struct Client {
    pub requests: SendRequest<Bytes>,
    /// Ends when the connection does.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub head: Response<()>,
    /// 1xx before it.
    pub interim: Vec<Response<()>>,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|value| value.to_str().expect("text"))
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).map(|value| value.to_str().expect("text"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

impl Client {
    pub async fn connect(pod: &Pod, to: SocketAddr) -> Result<Self, h2::Error> {
        let mut builder = h2::client::Builder::new();
        builder.max_header_list_size(HEADER_LIST_BYTES);
        builder.initial_window_size(STREAM_BYTES).initial_connection_window_size(CONNECTION_BYTES);
        Self::with(pod, to, &builder).await
    }

    pub async fn with(pod: &Pod, to: SocketAddr, builder: &h2::client::Builder) -> Result<Self, h2::Error> {
        let stream = pod.connect(to).unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        stream.set_nonblocking(true).unwrap();
        let (requests, connection) = builder.handshake(TcpStream::from_std(stream).unwrap()).await?;
        Ok(Self { requests, connection: tokio::spawn(connection) })
    }

    /// Begins a request as soon as the peer allows one more stream.
    pub async fn start(
        &mut self,
        request: Request<()>,
        whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        poll_fn(|context| self.requests.poll_ready(context)).await?;
        self.requests.send_request(request, whole)
    }

    /// A request without a body, and its answer.
    pub async fn get(&mut self, to: &str) -> Result<Answer, h2::Error> {
        let (answer, _) = self.start(request("GET", to), true).await?;
        receive_answer(answer).await
    }

    /// A request with this body, and its answer, which may come before the body has gone.
    pub async fn post(&mut self, to: &str, body: impl Into<Bytes>) -> Result<Answer, h2::Error> {
        let (answer, mut stream) = self.start(request("POST", to), false).await?;
        let sending = tokio::spawn({
            let body = body.into();
            // What stops it shows in the answer.
            async move { send(&mut stream, body, true).await }
        });
        let answer = receive_answer(answer).await;
        sending.abort();
        answer
    }

    /// Until the connection has ended; `Err` when not by a clean GOAWAY.
    pub async fn ended(self) -> Result<(), h2::Error> {
        drop(self.requests);
        timeout(PATIENCE, self.connection).await.expect("the connection's end").expect("no panic")
    }
}

/// A request to `http://web.test`.
pub fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://web.test{path}")).body(()).unwrap()
}

/// A response without fields.
pub fn response(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).unwrap()
}

/// Everything that answers a request.
pub async fn receive_answer(mut answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let mut interim = Vec::new();
    let head = poll_fn(|context| {
        while let Poll::Ready(Some(one)) = answer.poll_informational(context) {
            match one {
                Ok(one) => interim.push(one),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        std::pin::Pin::new(&mut answer).poll(context)
    })
    .await?;
    let (head, mut stream) = head.into_parts();
    let (body, trailers) = receive(&mut stream).await?;
    Ok(Answer { head: Response::from_parts(head, ()), interim, body, trailers })
}

/// A body to its end, and the trailers. A server may end an answer by a reset without an error, to say that it wants no more of
/// the request (RFC 9113 §8.1); `h2` does not tell whether the answer was whole then: look at its length.
pub async fn receive(stream: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    loop {
        match part(stream).await {
            Ok(Some(part)) => body.extend_from_slice(&part),
            Ok(None) => return Ok((body, stream.trailers().await?)),
            Err(error) if error.is_reset() && error.reason() == Some(h2::Reason::NO_ERROR) => {
                return Ok((body, None));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The next part of a body, for which the peer gets new credit at once.
pub async fn part(stream: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(part) = stream.data().await.transpose()? else { return Ok(None) };
    stream.flow_control().release_capacity(part.len())?;
    Ok(Some(part))
}

/// Sends all of this, as the peer gives credit.
pub async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes, last: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        match poll_fn(|context| stream.poll_capacity(context)).await {
            Some(room) => {
                let part = bytes.split_to(room?.min(bytes.len()));
                stream.send_data(part, false)?;
            }
            None => return Err(poll_fn(|context| stream.poll_reset(context)).await?.into()),
        }
    }
    if last { stream.send_data(Bytes::new(), true) } else { Ok(()) }
}

/// A request as it came to a [`Server`].
#[derive(Debug)]
pub struct Exchange {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

impl Exchange {
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Answers with this text.
    pub async fn answer(&mut self, status: u16, text: &str) -> Result<(), h2::Error> {
        let mut stream = self.respond.send_response(response(status), text.is_empty())?;
        if text.is_empty() { Ok(()) } else { send(&mut stream, text.to_owned().into(), true).await }
    }
}

/// A listening application. Dropped, it ends, and its connections with it.
#[derive(Debug)]
pub struct Server {
    state: watch::Sender<State>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// How often its connections were told to go away.
    goaways: u32,
    ended: bool,
}

impl Server {
    /// Serves each request by a task of its own. What `serve` gives as an error has ended its stream already.
    pub fn start<F, S>(pod: &Pod, port: u16, serve: S) -> Self
    where
        S: Fn(Exchange) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        let mut builder = h2::server::Builder::new();
        builder.max_header_list_size(HEADER_LIST_BYTES).enable_connect_protocol();
        builder.initial_window_size(STREAM_BYTES).initial_connection_window_size(CONNECTION_BYTES);
        Self::with(pod, port, builder, serve)
    }

    pub fn with<F, S>(pod: &Pod, port: u16, builder: h2::server::Builder, serve: S) -> Self
    where
        S: Fn(Exchange) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        let listener = pod.namespace.listen(port);
        listener.set_nonblocking(true).unwrap();
        let (state, mut told) = watch::channel(State { goaways: 0, ended: false });
        let thread = thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let mut connections = JoinSet::new();
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        _ = told.wait_for(|state| state.ended) => return,
                    };
                    let Ok((stream, _)) = accepted else { return };
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection(stream, builder.clone(), told.clone(), serve.clone()));
                }
            });
        });
        Self { state, thread: Some(thread) }
    }

    /// Tells all connections to go away once their streams have ended. New ones are served as ever.
    pub fn go_away(&self) {
        self.state.send_modify(|state| state.goaways += 1);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.ended = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn connection<F, S>(
    stream: TcpStream,
    builder: h2::server::Builder,
    mut told: watch::Receiver<State>,
    serve: S,
) where
    S: Fn(Exchange) -> F,
    F: Future<Output = Result<(), h2::Error>> + Send + 'static,
{
    told.mark_unchanged();
    // A connection that breaks is over; the client's side of the test says whether that was right.
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    let mut going = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = told.changed(), if !going => {
                going = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { return };
        // Its stream ends with it.
        tokio::spawn(serve(Exchange { request, respond }));
    }
}
