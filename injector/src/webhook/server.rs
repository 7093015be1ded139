//! Puts the injector together, and ends it.

use super::{
    Metrics,
    keeper::{CONFIGURATION, Clock, Keeper, SECRET, Slot},
    namespaces::Namespaces,
    serving::{self, Webhook},
};
use crate::config::{Config, ConfigError};
use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret};
use kube::{
    Api, Client,
    api::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};

/// How often the configuration's file is looked at. The kubelet brings a changed ConfigMap within a minute.
const CONFIG_LOOK: Duration = Duration::from_secs(5);
/// After a look at the certificate that failed.
const RETRY: Duration = Duration::from_secs(2);
/// How long it is served on after the end was asked for: so long a Service may send connections here.
const LINGER: Duration = Duration::from_secs(5);
/// And then, until answers under way are finished.
const DRAIN: Duration = Duration::from_secs(5);

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the injector is installed.
    pub namespace: String,
    /// The configuration's file; the defaults without one.
    pub config: Option<PathBuf>,
    pub webhook_listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// Names by which the API server calls it, besides the Service's.
    pub names: Vec<String>,
    /// How long it is served on after the end was asked for.
    pub linger: Duration,
}

impl Settings {
    /// With the ports that the chart uses.
    pub fn new(namespace: String) -> Self {
        let any = |port| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
        Settings {
            namespace,
            config: None,
            webhook_listen: any(8443),
            admin_listen: any(8444),
            names: Vec::new(),
            linger: LINGER,
        }
    }
}

/// The injector cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{address} cannot be listened on")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}")]
    Config { path: PathBuf, source: ConfigError },
}

/// The injector.
pub struct Server {
    webhook: Arc<Webhook>,
    listeners: [TcpListener; 2],
    keeper: Keeper,
    client: Client,
    settings: Settings,
    /// The configuration as it was read.
    text: String,
}

impl Server {
    /// Listens, and reads the configuration.
    pub async fn start(settings: Settings, client: Client, clock: Clock) -> Result<Self, StartError> {
        let (text, config) = match &settings.config {
            Some(path) => read(path)?,
            None => (String::new(), Config::default()),
        };
        let metrics = Arc::new(Metrics::default());
        let slot = Arc::new(Slot::default());
        let service = format!("weft-injector.{}.svc", settings.namespace);
        let names = std::iter::once(service).chain(settings.names.iter().cloned()).collect();
        let webhook = Arc::new(Webhook {
            config: RwLock::new(Arc::new(config)),
            namespaces: Arc::new(Namespaces::new(&client)),
            slot: Arc::clone(&slot),
            metrics: Arc::clone(&metrics),
            is_closing: false.into(),
            namespace: settings.namespace.clone(),
        });
        let keeper = Keeper::new(&client, &settings.namespace, names, clock, slot, metrics);
        let listeners = [listen(settings.webhook_listen).await?, listen(settings.admin_listen).await?];
        Ok(Server { webhook, listeners, keeper, client, settings, text })
    }

    /// Of the webhook and of admin.
    pub fn addresses(&self) -> io::Result<[SocketAddr; 2]> {
        let [webhook, admin] = &self.listeners;
        Ok([webhook.local_addr()?, admin.local_addr()?])
    }

    /// Serves until `end`, and then as long as it takes to leave nobody without an answer.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let Server { webhook, listeners: [listener, admin_listener], keeper, client, settings, text } = self;
        let (close, closing) = watch::channel(false);
        let served = serving::serve(listener, Arc::clone(&webhook), closing);
        let lingering = async {
            end.await;
            tracing::info!("ending");
            webhook.is_closing.store(true, Ordering::Release);
            sleep(settings.linger).await;
        };
        tokio::select! {
            () = lingering => {}
            () = served => {}
            () = admin::serve(admin_listener, Arc::clone(&webhook)) => {}
            () = keep(keeper, client, &settings.namespace, &webhook.metrics) => {}
            () = webhook.namespaces.watch() => {}
            () = follow(&settings.config, text, &webhook) => {}
        }
        // The receivers are the connections.
        let _ = close.send(true);
        let _ = timeout(DRAIN, close.closed()).await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    admin::listen(address).await.map_err(|source| StartError::Listen { address, source })
}

fn read(path: &Path) -> Result<(String, Config), StartError> {
    let at = || path.to_owned();
    let text = std::fs::read_to_string(path).map_err(|source| StartError::File { path: at(), source })?;
    let config = Config::parse(&text).map_err(|source| StartError::Config { path: at(), source })?;
    Ok((text, config))
}

/// Takes a changed configuration; one that cannot be read is said once, and the one before stays.
async fn follow(path: &Option<PathBuf>, mut last: String, webhook: &Webhook) {
    let Some(path) = path else { return std::future::pending().await };
    let mut said = String::new();
    loop {
        sleep(CONFIG_LOOK).await;
        match read(path) {
            Ok((text, config)) => {
                said.clear();
                if text != last {
                    *webhook.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    tracing::info!("the configuration was replaced");
                    last = text;
                }
            }
            Err(error) => {
                let why = crate::chain(&error);
                if why != said {
                    webhook.metrics.configuration_failed();
                    tracing::error!("{why}; the configuration before stays in use");
                    said = why;
                }
            }
        }
    }
}

/// Looks at the certificate at each event of what it consists of, and now and then without one.
async fn keep(mut keeper: Keeper, client: Client, namespace: &str, metrics: &Metrics) {
    let events = stream::select(
        changes::<Secret>(Api::namespaced(client.clone(), namespace), SECRET),
        changes::<MutatingWebhookConfiguration>(Api::all(client), CONFIGURATION),
    );
    let mut events = std::pin::pin!(events);
    loop {
        let pause = match keeper.look().await {
            Ok(pause) => pause,
            Err(error) => {
                metrics.keeping_failed();
                tracing::warn!("{}; it is tried again", crate::chain(&error));
                RETRY
            }
        };
        let pause = sleep(pause);
        tokio::select! {
            () = pause => {}
            event = events.next() => if event.is_none() { return },
        }
    }
}

/// One item for each change of an object.
fn changes<K>(api: Api<PartialObjectMeta<K>>, name: &str) -> impl Stream<Item = ()> + use<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher(api, config).default_backoff().filter_map(|event| async move { event.ok().map(drop) })
}
