//! The server as a whole: what its parts share, how it starts and how it ends.

use crate::{
    Config, Objects,
    cluster::{Cluster, ClusterError, duties, secret},
    discovery::Discovery,
    front::Front,
    generated::{
        endpoints_server::EndpointsServer, identity_server::IdentityServer, inbound_server::InboundServer,
        outbound_server::OutboundServer, report_server::ReportServer,
    },
    identity::{Identity, Roots},
    issuer::{Authority, AuthorityError, random},
    limits,
    metrics::Metrics,
    serving::{self, OwnCertificate},
    source::{self, Batch, directory::Directory},
    state,
    succession::Succession,
    tokens::Tokens,
    world::World,
};
use policy::SpiffeId;
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;

/// What the parts of a running control share.
pub struct Control {
    pub(crate) config: Config,
    pub(crate) metrics: Arc<Metrics>,
    /// `None`: objects and tokens are in files.
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) own: Arc<OwnCertificate>,
    /// Drawn by this run for itself: a proxy tells it from another that knows less. Not 0.
    pub(crate) instance: u64,
    identity: SpiffeId,
    world: Mutex<World>,
    tokens: Mutex<Tokens>,
    authority: arc_swap::ArcSwap<Authority>,
    succession: Mutex<Succession>,
    /// `None` once control is closing.
    roots: Mutex<Option<watch::Sender<Roots>>>,
}

/// A control that has read its objects and listens.
pub struct Server {
    control: Arc<Control>,
    listener: TcpListener,
    admin_address: SocketAddr,
    source: Source,
    watch: state::Watch,
    tasks: JoinSet<()>,
}

/// Where objects come from, until it is dropped.
enum Source {
    Directory { _watch: Directory },
    Cluster { _watch: source::kubernetes::Cluster },
}

/// Why control cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the state folder {path} cannot be made")]
    State { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("a directory of manifests cannot be read")]
    Directory(#[source] io::Error),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("the gRPC server failed")]
    Serve(#[from] tonic::transport::Error),
}

impl Server {
    /// Opens the state, reads all objects and listens. Nothing but the admin port is served before `run`; it tells what
    /// is waited for when the cluster cannot be read.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let fault = |source| StartError::State { path: config.state.clone(), source };
        state::open(&config.state).map_err(fault)?;
        let listener = listen(config.admin_listen).await?;
        let admin_address = listener
            .local_addr()
            .map_err(|source| StartError::Listen { address: config.admin_listen, source })?;
        let front = Arc::new(Front::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(admin::serve(listener, Arc::clone(&front)));
        let cluster = match &config.objects {
            Objects::Directories(_) => None,
            Objects::Kubernetes { namespace, audience } => {
                let cluster = Cluster::connect(namespace.clone(), audience.clone()).await?;
                secret::open(&cluster, &config, &front.readiness).await;
                Some(Arc::new(cluster))
            }
        };
        let watch = state::watch(&config.state);
        let authority = Authority::open(&config.state, &config.trust_domain)?;
        let metrics = Arc::clone(&front.metrics);
        let control = Arc::new(Control::new(config, authority, cluster.clone(), metrics)?);
        let source = Source::watch(&control, &front).await?;
        let listener = listen(control.config.listen).await?;
        // Nobody else sets it.
        let _ = front.control.set(Arc::clone(&control));
        if let Some(cluster) = cluster {
            tasks.spawn(secret::keep(Arc::clone(&control), Arc::clone(&cluster)));
            tasks.spawn(duties::keep(Arc::clone(&control), cluster));
        }
        Ok(Self { control, listener, admin_address, source, watch, tasks })
    }

    /// Where proxies and people reach it.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.listener.local_addr()?, self.admin_address))
    }

    /// How many objects are held, and how many problems there are.
    pub fn counts(&self) -> (usize, usize) {
        let world = self.control.world();
        (world.objects(), world.problems().count())
    }

    /// Serves until `stop`, then ends every watch and waits a moment for the connections to close.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let Self { control, listener, admin_address: _, source, watch, mut tasks } = self;
        let (connections, accepted) = mpsc::channel(16);
        let acceptor = serving::acceptor(Arc::clone(&control.own))?;
        tasks.spawn(serving::accept(listener, acceptor, Arc::clone(&control.metrics), connections));
        tasks.spawn(state::keep(Arc::clone(&control), watch));
        let (drain, drained) = oneshot::channel::<()>();
        let serving = routes(&control).serve_with_incoming_shutdown(ReceiverStream::new(accepted), async {
            // An error: the sender is gone, which means the same.
            let _ = drained.await;
        });
        let mut serving = std::pin::pin!(serving);
        let result = tokio::select! {
            result = &mut serving => result,
            () = stop => {
                control.close();
                drop(drain);
                // Who has not gone by then is cut off.
                timeout(limits::DRAIN_WAIT, serving).await.unwrap_or(Ok(()))
            }
        };
        tasks.shutdown().await;
        drop(source);
        Ok(result?)
    }
}

impl Source {
    /// Reads all there is, and watches on.
    async fn watch(control: &Arc<Control>, front: &Front) -> Result<Self, StartError> {
        let shared = Arc::clone(control);
        let take = move |batch| shared.take(batch);
        match (&control.config.objects, &control.cluster) {
            (Objects::Directories(roots), _) => {
                let watch = Directory::watch(roots.clone(), control.config.rescan, take);
                watch.map(|watch| Self::Directory { _watch: watch }).map_err(StartError::Directory)
            }
            (Objects::Kubernetes { .. }, cluster) => {
                let cluster = cluster.as_ref().expect("control in a cluster has one");
                let watch = source::kubernetes::Cluster::watch(&cluster.client, &front.readiness, take);
                front.readiness.settled().await;
                Ok(Self::Cluster { _watch: watch })
            }
        }
    }
}

impl Control {
    fn new(
        config: Config,
        authority: Authority,
        cluster: Option<Arc<Cluster>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let (roots, _) = watch::channel(Roots::default());
        let identity =
            SpiffeId::new(&config.trust_domain, "weft-system", "weft-control").expect("these are names");
        let authority = Arc::new(authority);
        let control = Self {
            world: Mutex::new(World::new(config.trust_domain.clone(), Arc::clone(&metrics))),
            tokens: Mutex::new(Tokens::new(config.state.join("tokens"))),
            succession: Mutex::new(Succession::new(
                &authority,
                config.trust_domain.clone(),
                config.root_spread,
            )),
            authority: arc_swap::ArcSwap::new(Arc::clone(&authority)),
            roots: Mutex::new(Some(roots)),
            own: Arc::default(),
            instance: instance(),
            identity,
            metrics,
            cluster,
            config,
        };
        control.publish(authority, SystemTime::now())?;
        Ok(control)
    }

    /// What control knows. The lock is held for as long as one change or one question takes.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn authority(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    pub(crate) fn succession(&self) -> MutexGuard<'_, Succession> {
        self.succession.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The roots to trust; `None` when control is closing.
    pub(crate) fn roots(&self) -> Option<watch::Receiver<Roots>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(watch::Sender::subscribe)
    }

    /// Hears when the namespaces may have changed where proxies are.
    pub(crate) fn namespaces_changed(&self) -> watch::Receiver<u64> {
        self.world().namespaces_changed()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.roots().is_none()
    }

    pub(crate) fn renew_own(&self, authority: &Authority, now: SystemTime) -> Result<(), StartError> {
        self.own.renew(authority, &self.identity, self.config.certificate_lifetime, now)
    }

    /// Signs with this authority from now on, and tells the roots to those who watch them.
    pub(crate) fn publish(&self, authority: Arc<Authority>, now: SystemTime) -> Result<(), StartError> {
        self.renew_own(&authority, now)?;
        let expiry = authority.not_after().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.root_expiry.set(expiry.as_secs() as i64);
        if let Some(roots) = self.roots.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let now = Arc::new(authority.roots().to_vec());
            roots.send_if_modified(|held| {
                let differs = *held != now;
                *held = now;
                differs
            });
        }
        self.authority.store(authority);
        Ok(())
    }

    /// Takes what a source found, and makes tokens for the service accounts in it where nobody else does.
    fn take(&self, batch: Batch) {
        let accounts = {
            let mut world = self.world();
            let changed = world.take(batch) && self.cluster.is_none();
            changed.then(|| world.accounts())
        };
        let Some(accounts) = accounts else { return };
        let failed = self.tokens().sync(accounts, Instant::now());
        state::report_tokens(self, failed);
    }

    fn close(&self) {
        self.world().close();
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn instance() -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    u64::from_ne_bytes(bytes) | 1
}

fn routes(control: &Arc<Control>) -> tonic::transport::server::Router {
    let discovery = Arc::new(Discovery(Arc::clone(control)));
    let identity = Identity(Arc::clone(control));
    tonic::transport::Server::builder()
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(limits::PING_INTERVAL))
        .http2_keepalive_timeout(Some(limits::PING_WAIT))
        .add_service(
            OutboundServer::from_arc(Arc::clone(&discovery)).max_decoding_message_size(limits::REQUEST_BYTES),
        )
        .add_service(
            EndpointsServer::from_arc(Arc::clone(&discovery))
                .max_decoding_message_size(limits::REQUEST_BYTES),
        )
        .add_service(
            InboundServer::from_arc(Arc::clone(&discovery)).max_decoding_message_size(limits::REQUEST_BYTES),
        )
        .add_service(ReportServer::from_arc(discovery).max_decoding_message_size(limits::REQUEST_BYTES))
        .add_service(IdentityServer::new(identity).max_decoding_message_size(limits::REQUEST_BYTES))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    admin::listen(address).await.map_err(|source| StartError::Listen { address, source })
}
