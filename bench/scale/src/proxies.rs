//! Proxies, as control sees them: each a TLS connection of its own with some watches. They keep nothing but the time at
//! which an address first came.

use crate::{
    generated::{
        endpoints_client::EndpointsClient, inbound_client::InboundClient, outbound_client::OutboundClient,
    },
    mesh::{Mesh, Pod, Service},
};
use anyhow::Context;
use policy::{ServiceName, TrustDomain, WorkloadName};
use prost::Message;
use proxy_tls::Trust;
use proxy_wire::v1;
use std::{
    collections::HashMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use tokio_rustls::TlsConnector;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// All proxies; dropping it ends them.
pub struct Proxies {
    pub streams: usize,
    _tasks: JoinSet<()>,
}

/// When addresses came into being, and when they were heard of.
#[derive(Default)]
pub struct Arrivals {
    held: Mutex<Held>,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Held {
    made: HashMap<Ipv4Addr, Instant>,
    delays: Vec<Duration>,
}

impl Arrivals {
    pub fn expect(&self, address: Ipv4Addr) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).made.insert(address, Instant::now());
    }

    /// Bytes of all answers so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// How many addresses came to how many proxies, and the median, the 99th percentile and the longest delay in ms.
    pub fn delays(&self) -> (usize, f64, f64, f64) {
        let mut delays = self.held.lock().unwrap_or_else(PoisonError::into_inner).delays.clone();
        delays.sort();
        let at = |part: f64| {
            let place = ((delays.len() as f64 * part) as usize).min(delays.len().saturating_sub(1));
            delays.get(place).map_or(0.0, |delay| delay.as_secs_f64() * 1e3)
        };
        (delays.len(), at(0.5), at(0.99), at(1.0))
    }

    fn heard(&self, address: Ipv4Addr) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = held.made.get(&address) {
            let delay = made.elapsed();
            held.delays.push(delay);
        }
    }
}

impl Proxies {
    /// Connects them one after the other; returns when each watch has its first answer.
    pub async fn start(
        control: SocketAddr,
        roots: &Path,
        mesh: &Mesh,
        count: usize,
        arrivals: &Arc<Arrivals>,
    ) -> anyhow::Result<Self> {
        let domain: TrustDomain = "cluster.local".parse()?;
        let trust = Trust::from_pem(domain.clone(), &fs::read(roots)?)?;
        let mut proxies = Self { streams: 0, _tasks: JoinSet::new() };
        for at in 0..count {
            let channel = connect(control, &trust, &domain).await?;
            let own = &mesh.services[at % mesh.services.len()];
            let workload = name(own, &own.pods[0]);
            let mut inbound = InboundClient::new(channel.clone());
            let stream = inbound.watch(v1::InboundPort::new(&workload, 8080)).await?.into_inner();
            proxies.follow(stream, arrivals, |_| Vec::new()).await?;
            let others =
                [0, at * 7 + 1, at * 13 + 5].map(|other| &mesh.services[other % mesh.services.len()]);
            for service in others {
                let target = SocketAddr::new(service.cluster_ip.into(), 80);
                let mut outbound = OutboundClient::new(channel.clone());
                let stream = outbound.watch(v1::OutboundTarget::new(target, &workload)).await?.into_inner();
                proxies.follow(stream, arrivals, |_| Vec::new()).await?;
                let backend = ServiceName::new(&service.namespace, &service.name).port(80);
                let mut endpoints = EndpointsClient::new(channel.clone());
                let stream =
                    endpoints.watch(v1::EndpointsTarget::new(&backend, &workload)).await?.into_inner();
                proxies.follow(stream, arrivals, addresses).await?;
            }
        }
        Ok(proxies)
    }

    /// Takes the first answer, and then each in a task of its own: addresses that were not in the last one are told.
    async fn follow<M: Message + 'static>(
        &mut self,
        mut updates: Streaming<M>,
        arrivals: &Arc<Arrivals>,
        addresses: fn(&M) -> Vec<Ipv4Addr>,
    ) -> anyhow::Result<()> {
        let first = updates.message().await?.context("control ended a watch")?;
        arrivals.bytes.fetch_add(first.encoded_len() as u64, Relaxed);
        let (arrivals, mut held) = (Arc::clone(arrivals), addresses(&first));
        self.streams += 1;
        self._tasks.spawn(async move {
            while let Ok(Some(update)) = updates.message().await {
                arrivals.bytes.fetch_add(update.encoded_len() as u64, Relaxed);
                let now = addresses(&update);
                now.iter()
                    .filter(|address| !held.contains(address))
                    .for_each(|address| arrivals.heard(*address));
                if !now.is_empty() {
                    held = now;
                }
            }
        });
        Ok(())
    }
}

async fn connect(control: SocketAddr, trust: &Trust, domain: &TrustDomain) -> anyhow::Result<Channel> {
    let connector = TlsConnector::from(proxy_tls::control_client(trust)?);
    let name = proxy_tls::server_name(&proxy_tls::control_identity(domain))?;
    let connect = move |_| {
        let (connector, name) = (connector.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(control).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(connector.connect(name, stream).await?))
        }
    };
    let endpoint = Endpoint::from_static("http://control");
    Ok(endpoint.connect_with_connector(tower::service_fn(connect)).await?)
}

fn name(service: &Service, pod: &Pod) -> WorkloadName {
    WorkloadName::new(&service.namespace, &pod.name)
}

fn addresses(update: &v1::EndpointsUpdate) -> Vec<Ipv4Addr> {
    let endpoints = update.endpoints.iter().flat_map(|set| &set.endpoints);
    let addresses = endpoints.filter_map(|endpoint| {
        let ip: [u8; 4] = endpoint.address.as_ref()?.ip.as_slice().try_into().ok()?;
        Some(Ipv4Addr::from(ip))
    });
    addresses.collect()
}
