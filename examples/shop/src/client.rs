//! A plain keep-alive HTTP/1.1 client: one target, a stack of idle connections, names resolved by the system at each
//! connect (so `/etc/hosts` is enough). No redirects and no retries: a request is sent a second time only if not one
//! byte of it was written the first time.

use std::io;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// The whole exchange: name, connection, request, the last byte of the answer.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);
/// Establishing one TCP connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Idle connections kept; what comes back above it is closed.
const IDLE_LIMIT: usize = 64;
/// A connection idle for longer is closed when the next one comes back.
const IDLE_AGE: Duration = Duration::from_secs(45);
/// The longest answer taken, in bytes.
const ANSWER_LIMIT: usize = 1 << 20;

/// Where a service is: the authority of an `http://` URL without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the URL has it, for `Host`.
    authority: HeaderValue,
    /// Name or address, and port, as the resolver wants it.
    address: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err("it must begin with http://".into());
        }
        let authority = uri.authority().filter(|a| !a.host().is_empty()).ok_or("it names no host")?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("only http://host:port is understood".into());
        }
        let port = match (authority.port_u16(), authority.as_str().ends_with(authority.host())) {
            (Some(port), _) => port,
            (None, true) => 80,
            (None, false) => return Err("the port is not a number up to 65535".into()),
        };
        Ok(Self {
            authority: HeaderValue::from_str(authority.as_str()).map_err(|error| format!("{error}"))?,
            address: format!("{}:{port}", authority.host()),
        })
    }
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot resolve {address}: {source}")]
    Resolve { address: String, source: io::Error },
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("no answer: {0}")]
    Unanswered(hyper::Error),
    #[error("the answer broke off: {0}")]
    Truncated(String),
    #[error("no whole answer within {} s", EXCHANGE_LIMIT.as_secs())]
    Timeout,
}

impl Failure {
    /// The failure as one word, for counting. Connection errors use the names of RFC 9209 §2.3.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "dns_error",
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused => "connection_refused",
                io::ErrorKind::TimedOut => "connection_timeout",
                _ => "destination_unavailable",
            },
            Self::Unanswered(_) => "connection_terminated",
            Self::Truncated(_) => "http_response_incomplete",
            Self::Timeout => "http_response_timeout",
        }
    }
}

pub struct Client {
    target: Target,
    /// The most recently used last.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Client {
    pub fn new(target: Target) -> Self {
        Self { target, idle: Mutex::new(Vec::new()) }
    }

    /// Sends `request` (its URI in origin form; `Host` is set here) and collects the answer.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Failure> {
        request.headers_mut().insert(HOST, self.target.authority.clone());
        timeout(EXCHANGE_LIMIT, self.exchange(request)).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Failure> {
        while let Some(mut sender) = self.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return self.finish(sender, response).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failure::Unanswered(error.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(Failure::Unanswered)?;
        self.finish(sender, response).await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let address = &self.target.address;
        let resolve = |source| Failure::Resolve { address: address.clone(), source };
        let mut last = resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for remote in lookup_host(address.as_str()).await.map_err(resolve)? {
            let attempt = timeout(CONNECT_LIMIT, TcpStream::connect(remote)).await;
            match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(stream)
            }) {
                Ok(stream) => {
                    let (sender, connection) =
                        http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Unanswered)?;
                    // What goes wrong on the connection reaches the caller through the sender.
                    tokio::spawn(async move { drop(connection.await) });
                    return Ok(sender);
                }
                Err(source) => last = Failure::Connect { address: remote.to_string(), source },
            }
        }
        Err(last)
    }

    async fn finish(
        &self,
        sender: SendRequest<Full<Bytes>>,
        response: Response<Incoming>,
    ) -> Result<Response<Bytes>, Failure> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| Failure::Truncated(error.to_string()))?
            .to_bytes();
        self.put(sender);
        Ok(Response::from_parts(head, body))
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Idle { sender, .. }) = idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn put(&self, sender: SendRequest<Full<Bytes>>) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| !kept.sender.is_closed() && now.duration_since(kept.since) < IDLE_AGE);
        if idle.len() < IDLE_LIMIT && !sender.is_closed() {
            idle.push(Idle { sender, since: now });
        }
    }
}
