//! Starting and ending: the workers' threads, the one thread for everything else, readiness, drain.

use crate::{
    admin::{self, Admin, Readiness},
    control::{Control, Dial},
    discovery::Discovery,
    identity::{self, Identity},
    inbound, outbound,
    probe::TcpProbe,
    seldom::Seldom,
    tcp,
    telemetry::{
        Direction, Gauges, Telemetry,
        access::{self, AccessLog, Writing},
    },
    why::why,
    worker::{Parts, SWEEP, Worker},
};
use anyhow::{Context, Result, anyhow};
use policy::{Reason, TrustDomain, WorkloadName, limits};
use proxy_http::{failed::Failed, streams::Dialer};
use proxy_tls::{Credentials, Trust};
use proxy_transport::{Listener, Network, Reach, Stream, SystemNetwork, descriptors, heap};
use serde_json::json;
use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, interval, sleep},
};

/// Wait before the next accept when one has failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What the last lines of the access log have at the end, if whoever reads them is stuck.
const ACCESS_LOG_END: Duration = Duration::from_secs(1);

/// What a proxy is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub workload: WorkloadName,
    pub control: String,
    pub trust_anchors: PathBuf,
    pub token_file: PathBuf,
    pub trust_domain: TrustDomain,
    pub outbound: SocketAddr,
    pub inbound: SocketAddr,
    pub admin: SocketAddr,
    pub workers: usize,
    pub mark: Option<u32>,
    pub drain_timeout: Duration,
    /// Bytes of one message's header list.
    pub header_bytes: usize,
    pub access_log: access::Mode,
    pub access_log_target: access::Target,
    /// Ports of the application that `/probe/tcp/PORT` may be asked about.
    pub tcp_probe_ports: Vec<u16>,
}

/// Serves until it is told to end, and drains.
pub fn run(settings: Settings) -> Result<()> {
    heap::keep_freed_memory();
    let anchors = std::fs::read(&settings.trust_anchors)
        .with_context(|| format!("the trust anchors {:?} cannot be read", settings.trust_anchors))?;
    let anchors = Trust::from_pem(settings.trust_domain.clone(), &anchors)
        .with_context(|| format!("the trust anchors {:?} are of no use", settings.trust_anchors))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings, anchors))
}

async fn serve(settings: Settings, anchors: Trust) -> Result<()> {
    let network = SystemNetwork { mark: settings.mark };
    let control = Control::start(dial(network, settings.control.clone()), anchors.clone());
    let discovery = Discovery::start(control.clone(), settings.workload.clone());
    let identity = Identity::start(
        control.clone(),
        identity::Settings {
            workload: settings.workload.clone(),
            token_file: settings.token_file.clone(),
            anchors,
            clock: SystemTime::now,
        },
    );
    let (access_log, writing) = start_access_log(&settings)?;
    let telemetry = Telemetry::logging(gauges(&control, &discovery, &identity), access_log);
    let (stop, stopped) = watch::channel(false);
    let stop = Arc::new(stop);
    let mut workers = start_workers(&settings, &discovery, &identity, &telemetry, &stopped)?;
    let listener = listen_admin(settings.admin)?;
    let admin_port = listener.local_addr()?.port();
    let admin = Admin {
        telemetry,
        ready: Box::new(readiness(&settings.control, &control, &identity, &stopped)),
        config: Box::new(config(&settings, &control, &discovery, &identity)),
        why: Box::new({
            let discovery = discovery.clone();
            move |query| why(&discovery, query)
        }),
        shutdown: Box::new({
            let stop = Arc::clone(&stop);
            move || {
                stop.send_replace(true);
            }
        }),
        tcp_probe: TcpProbe { network, ports: settings.tcp_probe_ports.clone() },
    };
    tokio::spawn(admin::serve(listener, admin));
    tokio::spawn(announce(settings.clone(), admin_port, identity.clone()));

    let mut stopping = stopped.clone();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Told to end by the admin port, idle workers end before this is polled: hence the order.
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stopping.wait_for(|stop| *stop) => {}
        ended = workers.recv() => return Err(anyhow!("a worker has ended: {ended:?}")),
    }
    tracing::info!("draining: existing connections have {:?}", settings.drain_timeout);
    stop.send_replace(true);
    let mut left = 0;
    while let Some(connections) = workers.recv().await {
        left += connections;
    }
    if let Some(writing) = writing {
        writing.end(ACCESS_LOG_END);
    }
    tracing::info!("ended, with {left} connections cut off");
    Ok(())
}

/// The log, and the thread that writes it if there is anything to write.
fn start_access_log(settings: &Settings) -> Result<(AccessLog, Option<Writing>)> {
    let log = AccessLog::new(settings.access_log);
    if settings.access_log == access::Mode::Off {
        return Ok((log, None));
    }
    let target = settings.access_log_target.clone();
    let writing = Writing::start(log.clone(), target)
        .with_context(|| format!("the access log cannot be opened: {:?}", settings.access_log_target))?;
    Ok((log, Some(writing)))
}

/// Starts the threads. Each reports at its end how many connections it had to cut off.
fn start_workers(
    settings: &Settings,
    discovery: &Discovery,
    identity: &Identity,
    telemetry: &Telemetry,
    stopped: &watch::Receiver<bool>,
) -> Result<mpsc::Receiver<usize>> {
    let (ended, workers) = mpsc::channel(settings.workers);
    let connections = connections(settings.workers);
    for number in 0..settings.workers {
        let bind = |address, which, reach| {
            Listener::bind_std(address, reach)
                .with_context(|| format!("cannot listen for {which} connections on {address}"))
        };
        // Bound here, so that a port in use is an error at the start; registered with the worker's runtime there.
        let outbound = bind(settings.outbound, "outbound", Reach::Local)?;
        let inbound = bind(settings.inbound, "inbound", Reach::Remote)?;
        let parts = {
            let (workload, discovery) = (settings.workload.clone(), discovery.clone());
            let (credentials, telemetry) = (identity.shared(), telemetry.clone());
            let header_bytes = settings.header_bytes;
            let own_ports = vec![settings.outbound.port(), settings.inbound.port()];
            let network = SystemNetwork { mark: settings.mark };
            move || Parts {
                workload,
                discovery,
                connections,
                dialer: Dialer { network: Network::System(network), credentials, header_bytes },
                telemetry: telemetry.worker(),
                own_ports,
                seed: seed(number),
            }
        };
        let (ended, stopped, drain) = (ended.clone(), stopped.clone(), settings.drain_timeout);
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let left = work(parts, outbound, inbound, stopped, drain);
            // The receiver is gone only when the process ends.
            let _ = ended.blocking_send(left);
        })?;
    }
    Ok(workers)
}

/// How many connections each worker may hold. A third of the process' descriptors stays for the connections that they call for:
/// idle ones need none, and those to other proxies are shared.
fn connections(workers: usize) -> usize {
    let descriptors = descriptors::raise_limit().unwrap_or_else(|error| {
        tracing::warn!("the limit on file descriptors is not known: {error}");
        u64::MAX
    });
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let all = (descriptors.saturating_sub(limits::OTHER_DESCRIPTORS) / 3 * 2).min(limits::CONNECTIONS);
    if all < limits::CONNECTIONS {
        tracing::info!("{descriptors} file descriptors are allowed: enough for {all} connections");
    }
    (all / workers).max(1)
}

/// The life of one worker's thread.
fn work(
    parts: impl FnOnce() -> Parts,
    outbound: std::net::TcpListener,
    inbound: std::net::TcpListener,
    mut stopped: watch::Receiver<bool>,
    drain: Duration,
) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("epoll is there");
    runtime.block_on(async {
        let worker = Worker::new(parts());
        let listen = |listener| Listener::from_std(listener).expect("a listening socket of ours");
        spawn_accepting(&worker, listen(outbound), Direction::Outbound, outbound::serve);
        spawn_accepting(&worker, listen(inbound), Direction::Inbound, inbound::serve);
        tokio::task::spawn_local({
            let worker = worker.clone();
            async move {
                let mut ticks = interval(SWEEP);
                loop {
                    ticks.tick().await;
                    worker.sweep(Instant::now());
                    heap::give_back_freed_memory();
                }
            }
        });
        // The sender lives as long as the process serves.
        let _ = stopped.wait_for(|stop| *stop).await;
        worker.drain(drain).await
    })
}

/// Accepts until the end: also while draining, as the application may still need the network to finish its work.
fn spawn_accepting<F, S>(worker: &Rc<Worker>, listener: Listener, direction: Direction, serve: F)
where
    F: Fn(Rc<Worker>, Stream) -> S + 'static,
    S: Future<Output = ()> + 'static,
{
    let (worker, failures) = (worker.clone(), Seldom::default());
    tokio::task::spawn_local(async move {
        loop {
            match listener.accept().await {
                Ok(stream) => match worker.count(direction) {
                    Some(counted) => {
                        let served = serve(worker.clone(), stream);
                        tokio::task::spawn_local(async move {
                            served.await;
                            drop(counted);
                        });
                    }
                    None => {
                        let reason = Reason::ConnectionLimitReached;
                        tcp::turn_away(&worker, direction, stream, reason, "there are as many as may be");
                    }
                },
                Err(error) => {
                    if let Some(count) = failures.due(Instant::now()) {
                        let (direction, reason) = (direction.as_str(), Failed::connecting(&error).reason);
                        tracing::warn!(direction, %reason, count, "connections cannot be accepted, they wait: {error}");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
}

fn listen_admin(address: SocketAddr) -> Result<tokio::net::TcpListener> {
    let listener = Listener::bind_std(address, Reach::Remote)
        .with_context(|| format!("cannot listen for admin on {address}"))?;
    Ok(tokio::net::TcpListener::from_std(listener)?)
}

/// Says on stderr, once, that the proxy serves: whoever started it may wait for this line.
async fn announce(settings: Settings, admin: u16, identity: Identity) {
    let credentials = identity.ready().await;
    eprintln!(
        "weft-proxy: ready: {} outbound {}, inbound {}, admin {admin}, identity {}",
        settings.workload,
        settings.outbound.port(),
        settings.inbound.port(),
        credentials.certificate().identity(),
    );
}

fn dial(network: SystemNetwork, control: String) -> Dial {
    Box::new(move || {
        let control = control.clone();
        Box::pin(async move {
            let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
            for address in tokio::net::lookup_host(&control).await? {
                match network.connect(address).await {
                    Ok(stream) => return Ok(Box::new(stream) as Box<_>),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    })
}

fn gauges(
    control: &Control,
    discovery: &Discovery,
    identity: &Identity,
) -> impl Fn() -> Gauges + Send + Sync + 'static {
    let (control, discovery, identity) = (control.clone(), discovery.clone(), identity.clone());
    move || Gauges {
        control_connected: control.is_up(),
        control: control.attempts(),
        discovery: discovery.figures(),
        renewals: identity.renewals(),
        certificate_expires: identity.expiry(),
        endpoint_ages: discovery.endpoint_ages(),
    }
}

fn readiness(
    address: &str,
    control: &Control,
    identity: &Identity,
    stopped: &watch::Receiver<bool>,
) -> impl Fn() -> Readiness + Send + Sync + 'static {
    let (address, control, identity, stopped) =
        (address.to_owned(), control.clone(), identity.clone(), stopped.clone());
    move || {
        if *stopped.borrow() {
            return Readiness::NotReady("draining".into());
        }
        if identity.credentials().is_some() {
            return Readiness::Ready;
        }
        let why = match (control.failure(), identity.failure()) {
            (Some(failure), _) => format!("control {address} is not reached: {failure}"),
            (None, Some(failure)) => failure.to_string(),
            (None, None) => format!("waiting for control {address}"),
        };
        Readiness::NotReady(format!("no certificate yet: {why}"))
    }
}

fn config(
    settings: &Settings,
    control: &Control,
    discovery: &Discovery,
    identity: &Identity,
) -> impl Fn() -> serde_json::Value + Send + Sync + 'static {
    let (settings, control) = (settings.clone(), control.clone());
    let (discovery, identity) = (discovery.clone(), identity.clone());
    move || {
        let credentials: Option<Arc<Credentials>> = identity.credentials();
        json!({
            "workload": settings.workload.to_string(),
            "identity": credentials.as_ref().map(|held| held.certificate().identity().to_string()),
            "certificate": credentials.map(|held| {
                json!({ "chain": held.certificate().pem(), "roots": held.trust().pem() })
            }),
            "control": {
                "address": settings.control,
                "connected": control.is_up(),
                "failure": control.failure().map(|failure| failure.to_string()),
            },
            "workers": settings.workers,
            "discovery": discovery.snapshot(),
        })
    }
}

/// Differs from process to process and from worker to worker: equal choices everywhere would pile up.
fn seed(worker: usize) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(worker)
}
