//! The connection to control: one for all questions, kept up, with back-off. Who asks waits for `Control::up`.
//! What is asked stands in `discovery` and `identity`; how a TCP connection is made is the caller's matter (`Dial`).

use arc_swap::ArcSwap;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use policy::limits::HANDSHAKE_WAIT;
use proxy_tls::{Trust, control_client, control_identity, server_name};
use std::{
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// Silence with streams open after which control is asked whether it lives, and the time it has for an answer.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_WAIT: Duration = Duration::from_secs(5);
/// Wait for a TCP connection to control, name look-up included.
const DIAL_WAIT: Duration = Duration::from_secs(5);
/// Bytes of one message of control: some 100,000 endpoints.
pub(crate) const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A connection before TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

pub type Dialled = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;
/// Makes a TCP connection to control; called again for each attempt, so that a name is resolved anew.
pub type Dial = Box<dyn Fn() -> Dialled + Send + Sync>;

/// The connection to control, as all who ask share it.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    state: watch::Sender<State>,
    trust: ArcSwap<Trust>,
    connections: AtomicU64,
    failures: AtomicU64,
}

/// How things stand with control.
#[derive(Clone)]
enum State {
    /// The first attempt, or the first after a connection was lost: it is worth waiting for.
    Connecting,
    Up(Connection),
    /// The last attempt failed, for this reason; further ones follow.
    Down(Arc<str>),
}

/// Attempts since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    pub connections: u64,
    pub failures: u64,
}

impl Control {
    /// Begins to connect, on this runtime, to whoever answers `dial` and is control by `anchors`.
    pub fn start(dial: Dial, anchors: Trust) -> Self {
        let control = Self(Arc::new(Shared {
            state: watch::Sender::new(State::Connecting),
            trust: ArcSwap::from_pointee(anchors),
            connections: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }));
        tokio::spawn(control.clone().keep_up(dial));
        control
    }

    pub fn is_up(&self) -> bool {
        matches!(*self.0.state.borrow(), State::Up(_))
    }

    /// Why control is not reached, if the last attempt failed.
    pub fn failure(&self) -> Option<Arc<str>> {
        match &*self.0.state.borrow() {
            State::Down(why) => Some(Arc::clone(why)),
            State::Connecting | State::Up(_) => None,
        }
    }

    pub fn attempts(&self) -> Attempts {
        Attempts { connections: self.0.connections.load(Relaxed), failures: self.0.failures.load(Relaxed) }
    }

    /// Whom the next connection will be made to: the anchors given at the start and what was learnt since.
    pub(crate) fn trust(&self, trust: Trust) {
        self.0.trust.store(Arc::new(trust));
    }

    /// The connection, as soon as it stands. `down` is called whenever an attempt has failed meanwhile.
    pub(crate) async fn up(&self, mut down: impl FnMut()) -> Connection {
        let mut state = self.0.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Up(connection) => return connection.clone(),
                State::Down(_) => down(),
                State::Connecting => {}
            }
            state.changed().await.expect("`self` holds the sender");
        }
    }

    /// Connects, waits for the end, connects again; for ever.
    async fn keep_up(self, dial: Dial) {
        let mut backoff = Backoff::default();
        loop {
            let trust = self.0.trust.load_full();
            match connect(&dial, &trust).await {
                Ok((connection, end)) => {
                    self.0.connections.fetch_add(1, Relaxed);
                    tracing::info!("control: connected");
                    self.0.state.send_replace(State::Up(connection));
                    let since = Instant::now();
                    match end.await {
                        Ok(()) => tracing::info!("control: it closed the connection"),
                        Err(error) => tracing::warn!("control: the connection was lost: {}", chain(&error)),
                    }
                    self.0.state.send_replace(State::Connecting);
                    if since.elapsed() >= Backoff::LONGEST {
                        backoff = Backoff::default();
                    }
                }
                Err(error) => {
                    let first = self.0.failures.fetch_add(1, Relaxed) == 0 || self.failure().is_none();
                    if first {
                        tracing::warn!("control: {error}; what is known stays, and attempts go on");
                    } else {
                        tracing::debug!("control: {error}");
                    }
                    self.0.state.send_replace(State::Down(error.to_string().into()));
                }
            }
            sleep(backoff.pause()).await;
        }
    }
}

/// Why an attempt to reach control failed.
#[derive(Debug, thiserror::Error)]
enum Unreached {
    #[error("cannot connect: {0}")]
    Dial(io::Error),
    #[error("cannot connect: no answer in {} s", DIAL_WAIT.as_secs())]
    Silent,
    #[error("{0}")]
    Tls(#[from] proxy_tls::Error),
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the TLS handshake was not done in {} s", HANDSHAKE_WAIT.as_secs())]
    Stuck,
    #[error("it does not speak gRPC")]
    Protocol,
    #[error("{0}")]
    Http2(#[from] hyper::Error),
}

type End = hyper::client::conn::http2::Connection<
    TokioIo<tokio_rustls::client::TlsStream<Box<dyn Stream>>>,
    tonic::body::Body,
    TokioExecutor,
>;

async fn connect(dial: &Dial, trust: &Trust) -> Result<(Connection, End), Unreached> {
    let stream = timeout(DIAL_WAIT, dial()).await.map_err(|_| Unreached::Silent)?.map_err(Unreached::Dial)?;
    let connector = tokio_rustls::TlsConnector::from(control_client(trust)?);
    let name = server_name(&control_identity(trust.domain()))?;
    let stream = timeout(HANDSHAKE_WAIT, connector.connect(name, stream))
        .await
        .map_err(|_| Unreached::Stuck)?
        .map_err(|error| match proxy_tls::tls_error(&error) {
            Some(tls) => Unreached::Tls(proxy_tls::Error::Handshake(tls.clone())),
            None => Unreached::Handshake(error),
        })?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(Unreached::Protocol);
    }
    let (sender, end) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_WAIT)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(stream))
        .await?;
    Ok((Connection { sender }, end))
}

/// One HTTP/2 connection to control: what the generated clients call.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: hyper::client::conn::http2::SendRequest<tonic::body::Body>,
}

impl Connection {
    /// Scheme and authority of the requests (RFC 9113 §8.3.1); who control is was settled by TLS.
    pub fn origin() -> http::Uri {
        http::Uri::from_static("https://weft-control")
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Connection {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

/// Exponential back-off with full jitter: a pause between nothing and 100 ms, 200 ms, … 10 s.
pub(crate) struct Backoff {
    ceiling: Duration,
    random: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ceiling: Self::SHORTEST, random: RandomState::new().hash_one(0) }
    }
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_millis(100);
    pub const LONGEST: Duration = Duration::from_secs(10);

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.ceiling.mul_f64(self.random());
        self.ceiling = (self.ceiling * 2).min(Self::LONGEST);
        pause
    }

    /// In [0, 1); splitmix64.
    pub fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        // The upper 53 bits fill a double's mantissa.
        (word >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0.state.borrow() {
            State::Connecting => "Control(connecting)",
            State::Up(_) => "Control(up)",
            State::Down(_) => "Control(down)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_are_spread() {
        let mut ceiling = Backoff::SHORTEST;
        let mut backoff = Backoff::default();
        for _ in 0..50 {
            assert!(backoff.pause() < ceiling);
            ceiling = (ceiling * 2).min(Backoff::LONGEST);
        }
        let pauses: Vec<_> = (0..1000).map(|_| backoff.pause()).collect();
        let mean = pauses.iter().sum::<Duration>() / 1000;
        assert!((4..6).contains(&mean.as_secs()), "uniform up to 10 s, so 5 s in the mean: {mean:?}");
    }
}
