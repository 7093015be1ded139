//! A proxy as control sees one: its own TLS connection from its Pod's address, a certificate for its token, the roots, its own
//! ports, and for each destination first the policy and then the endpoints of the backend in it.

use crate::{
    generated::{
        endpoints_client::EndpointsClient, identity_client::IdentityClient, inbound_client::InboundClient,
        outbound_client::OutboundClient,
    },
    ledger::{Ledger, StreamId, Subject},
    mesh::{OTHER_PORT, POD_PORT, SERVICE_PORT},
};
use anyhow::{Context, ensure};
use hyper_util::rt::TokioIo;
use policy::{Inbound, WorkloadName};
use proxy_tls::{Request, Trust};
use proxy_wire::{checksum, v1};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context as Task, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};

/// Attempts to be certified: control may not have heard of the Pod yet.
const ATTEMPTS: u32 = 20;

/// Where control is, whom to believe, and who writes down what it says.
#[derive(Clone)]
pub struct Settings {
    pub control: SocketAddr,
    pub anchors: Trust,
    pub ledger: Arc<Ledger>,
}

/// Who a proxy is and what its application dials.
pub struct Plan {
    pub number: usize,
    pub workload: WorkloadName,
    /// Its Pod's.
    pub address: Ipv4Addr,
    /// The Service that it belongs to.
    pub service: usize,
    /// Services that it dials, and their addresses.
    pub destinations: Vec<(usize, Ipv4Addr)>,
}

/// A proxy with all its watches, until it is dropped.
pub struct Proxy {
    watches: JoinSet<anyhow::Result<()>>,
    received: Arc<AtomicU64>,
}

impl Proxy {
    /// Connects, is certified and opens all watches but those of endpoints, which follow the answers.
    pub async fn start(settings: &Settings, plan: Plan) -> anyhow::Result<Self> {
        let received = Arc::new(AtomicU64::new(0));
        let channel = connect(settings, plan.address, Arc::clone(&received)).await?;
        let mut identity = IdentityClient::new(channel.clone());
        certify(&mut identity, settings, &plan).await?;
        let mut watches = JoinSet::new();
        let mut trust = identity.watch_trust(v1::TrustRequest {}).await?.into_inner();
        watches.spawn(async move {
            while trust.message().await?.is_some() {}
            Ok(())
        });
        let ledger = &settings.ledger;
        for (port, subject) in [(POD_PORT, Some(plan.service)), (OTHER_PORT, None)] {
            let request = v1::InboundPort::new(&plan.workload, port);
            let updates = InboundClient::new(channel.clone()).watch(request).await?.into_inner();
            match subject {
                Some(service) => {
                    let stream = ledger.open(plan.number, Subject::Inbound(service));
                    watches.spawn(follow(updates, Arc::clone(ledger), stream));
                }
                None => {
                    watches.spawn(expect_nothing(updates));
                }
            }
        }
        for (service, address) in plan.destinations {
            let target = SocketAddr::new(address.into(), SERVICE_PORT);
            let request = v1::OutboundTarget::new(target, &plan.workload);
            let stream = ledger.open(plan.number, Subject::Outbound(service));
            let endpoints = ledger.open(plan.number, Subject::Endpoints(service));
            watches.spawn(destination(channel.clone(), request, Arc::clone(ledger), stream, endpoints));
        }
        Ok(Self { watches, received })
    }

    /// Bytes that came over its connection, with all that TLS and HTTP/2 add.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Why a watch ended, if one has.
    pub fn fault(&mut self) -> Option<anyhow::Error> {
        let ended = self.watches.try_join_next()?;
        Some(match ended {
            Ok(Ok(())) => anyhow::anyhow!("control ended a watch"),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        })
    }
}

async fn connect(settings: &Settings, from: Ipv4Addr, received: Arc<AtomicU64>) -> anyhow::Result<Channel> {
    let connector = TlsConnector::from(proxy_tls::control_client(&settings.anchors)?);
    let name = proxy_tls::server_name(&proxy_tls::control_identity(settings.anchors.domain()))?;
    let control = settings.control;
    let connect = move |_| {
        let (connector, name, received) = (connector.clone(), name.clone(), Arc::clone(&received));
        async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(from.into(), 0))?;
            let stream = socket.connect(control).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(name, Counted { stream, received }).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    };
    let endpoint = Endpoint::from_static("http://control");
    endpoint.connect_with_connector(tower::service_fn(connect)).await.with_context(|| format!("from {from}"))
}

/// With a new key; what is unavailable is asked again.
async fn certify(
    identity: &mut IdentityClient<Channel>,
    settings: &Settings,
    plan: &Plan,
) -> anyhow::Result<()> {
    let request = Request::new()?;
    let message = v1::CertifyRequest { csr: request.csr().to_vec(), token: plan.workload.to_string() };
    for attempt in 1.. {
        match identity.certify(message.clone()).await {
            Ok(response) => {
                request.issued(response.into_inner().chain)?.check(&settings.anchors)?;
                return Ok(());
            }
            Err(status) if status.code() == Code::Unavailable && attempt < ATTEMPTS => {
                sleep(Duration::from_millis(250)).await;
            }
            Err(status) => {
                return Err(status).with_context(|| format!("a certificate for {}", plan.workload));
            }
        }
    }
    unreachable!("attempts end by an answer")
}

/// The policy of a destination, and of the first one's backend the endpoints.
async fn destination(
    channel: Channel,
    request: v1::OutboundTarget,
    ledger: Arc<Ledger>,
    stream: StreamId,
    endpoints: StreamId,
) -> anyhow::Result<()> {
    let workload = request.workload.clone();
    let mut updates = OutboundClient::new(channel.clone()).watch(request).await?.into_inner();
    let first = updates.message().await?.context("control ended a watch without an answer")?;
    take(&first, &ledger, stream)?;
    let target = first.policy.and_then(|policy| policy.target);
    let Some(v1::outbound_policy::Target::Service(backend)) = target else {
        anyhow::bail!("control says that a Service's address is no Service: {target:?}");
    };
    let v1::Backend { namespace, name, port } = backend;
    let question = v1::EndpointsTarget { namespace, name, port, workload };
    let sets = EndpointsClient::new(channel).watch(question).await?.into_inner();
    tokio::try_join!(follow(updates, Arc::clone(&ledger), stream), follow(sets, ledger, endpoints))?;
    Ok(())
}

/// One answer with its content, or a heartbeat without.
trait Update {
    type Content: prost::Message;

    fn content(&self) -> Option<&Self::Content>;
    fn checksum(&self) -> u64;
}

async fn follow<U: Update>(
    mut updates: Streaming<U>,
    ledger: Arc<Ledger>,
    stream: StreamId,
) -> anyhow::Result<()> {
    while let Some(update) = updates.message().await? {
        take(&update, &ledger, stream)?;
    }
    Ok(())
}

fn take<U: Update>(update: &U, ledger: &Ledger, stream: StreamId) -> anyhow::Result<()> {
    if let Some(content) = update.content() {
        ensure!(checksum(content) == update.checksum(), "an answer does not have the checksum that it says");
        ledger.took(stream, update.checksum(), prost::Message::encoded_len(content), Instant::now());
    }
    Ok(())
}

/// Of a port that no Service leads to there is never anything to tell.
async fn expect_nothing(mut updates: Streaming<v1::InboundUpdate>) -> anyhow::Result<()> {
    let nothing = checksum(&v1::InboundPolicy::from(&Inbound::default()));
    while let Some(update) = updates.message().await? {
        ensure!(update.checksum == nothing, "control says of a port what is not so: {update:?}");
    }
    Ok(())
}

impl Update for v1::OutboundUpdate {
    type Content = v1::OutboundPolicy;

    fn content(&self) -> Option<&Self::Content> {
        self.policy.as_ref()
    }

    fn checksum(&self) -> u64 {
        self.checksum
    }
}

impl Update for v1::EndpointsUpdate {
    type Content = v1::EndpointSet;

    fn content(&self) -> Option<&Self::Content> {
        self.endpoints.as_ref()
    }

    fn checksum(&self) -> u64 {
        self.checksum
    }
}

impl Update for v1::InboundUpdate {
    type Content = v1::InboundPolicy;

    fn content(&self) -> Option<&Self::Content> {
        self.policy.as_ref()
    }

    fn checksum(&self) -> u64 {
        self.checksum
    }
}

/// A connection whose received bytes are counted.
struct Counted {
    stream: TcpStream,
    received: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(task, buffer);
        self.received.fetch_add((buffer.filled().len() - before) as u64, Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}
