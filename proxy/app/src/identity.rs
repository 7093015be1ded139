//! Who the proxy is: its certificate, asked from control and renewed in time, and the roots it trusts, as control
//! streams them. Both become the `Credentials` that workers shake hands with. How a request is made and what a
//! certificate must be stands in `proxy-tls`.

use crate::{
    control::{Backoff, Connection, Control},
    generated::identity_client::IdentityClient,
};
use arc_swap::ArcSwapOption;
use policy::{SpiffeId, WorkloadName};
use proxy_tls::{Certificate, Credentials, Request, Trust, renew_at};
use proxy_wire::v1;
use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

/// Wait for control to sign.
const CERTIFY_WAIT: Duration = Duration::from_secs(10);
/// Between looks at the clock while a renewal is not due: a timer does not see a suspended machine or a mended clock.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);
/// A certificate is not renewed sooner, whatever its lifetime.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);
/// Age at which the stream of roots is opened anew, should an update have been lost.
const TRUST_STREAM_AGE: Duration = Duration::from_secs(600);
/// Silence of the stream of roots after which it is opened anew: control repeats them each 20 s, and one may be lost.
const TRUST_SILENCE: Duration = Duration::from_secs(45);
/// Bytes of a token file; Kubernetes' are some 1,200.
const TOKEN_BYTES: usize = 64 * 1024;

/// What is needed to be somebody.
#[derive(Clone, Debug)]
pub struct Settings {
    pub workload: WorkloadName,
    /// Holds the service-account token; read at each request, as it is rotated in place.
    pub token_file: PathBuf,
    /// The roots to believe until control has streamed others.
    pub anchors: Trust,
    /// The time of day: `SystemTime::now`, outside of tests.
    pub clock: fn() -> SystemTime,
}

/// The proxy's identity, for every thread of it.
#[derive(Clone)]
pub struct Identity(Arc<Shared>);

struct Shared {
    credentials: Arc<ArcSwapOption<Credentials>>,
    /// Counts the credentials, for those who wait.
    changes: watch::Sender<u64>,
    held: Mutex<Held>,
    renewals: AtomicU64,
    failures: AtomicU64,
    failure: ArcSwapOption<String>,
    /// The certificate does not fit the roots any more.
    outdated: Notify,
}

/// What the credentials are made of.
struct Held {
    certificate: Option<Certificate>,
    trust: Trust,
}

/// Why no certificate was got.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the token file {path:?} cannot be read: {error}")]
    Token { path: PathBuf, error: io::Error },
    #[error("control refused to certify: {} ({:?})", .0.message(), .0.code())]
    Refused(tonic::Status),
    #[error("control did not certify in {} s", CERTIFY_WAIT.as_secs())]
    Silent,
    #[error("{0}")]
    Certificate(#[from] proxy_tls::Error),
    #[error("control issued {actual} for the workload {workload}")]
    WrongNamespace { actual: SpiffeId, workload: WorkloadName },
}

impl Identity {
    /// Asks `control` for a certificate and for the roots, on this runtime, and keeps both fresh.
    pub fn start(control: Control, settings: Settings) -> Self {
        let identity = Self::new(settings.anchors.clone());
        tokio::spawn(identity.clone().keep_certified(control.clone(), settings.clone()));
        tokio::spawn(identity.clone().keep_trusting(control, settings.anchors));
        identity
    }

    /// Credentials from elsewhere, for good: for tests.
    pub fn fixed(credentials: Credentials) -> Self {
        let identity = Self::new(credentials.trust().clone());
        identity.lock().certificate = Some(credentials.certificate().clone());
        identity.publish(credentials);
        identity
    }

    fn new(trust: Trust) -> Self {
        Self(Arc::new(Shared {
            credentials: Arc::default(),
            changes: watch::Sender::new(0),
            held: Mutex::new(Held { certificate: None, trust }),
            renewals: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failure: ArcSwapOption::empty(),
            outdated: Notify::new(),
        }))
    }

    /// The credentials of now, once there are any.
    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        self.0.credentials.load_full()
    }

    /// The place that always holds the credentials of now.
    pub fn shared(&self) -> Arc<ArcSwapOption<Credentials>> {
        Arc::clone(&self.0.credentials)
    }

    /// Waits for the first credentials.
    pub async fn ready(&self) -> Arc<Credentials> {
        let mut changes = self.0.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(credentials) = self.credentials() {
                return credentials;
            }
            changes.changed().await.expect("`self` holds the sender");
        }
    }

    /// When the certificate ends.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.0.credentials.load().as_ref().map(|credentials| credentials.certificate().not_after())
    }

    /// Why the last attempt to be certified failed, until one succeeds.
    pub fn failure(&self) -> Option<Arc<String>> {
        self.0.failure.load_full()
    }

    /// Certificates got and attempts failed, since the start.
    pub fn renewals(&self) -> (u64, u64) {
        (self.0.renewals.load(Relaxed), self.0.failures.load(Relaxed))
    }

    async fn keep_certified(self, control: Control, settings: Settings) {
        let mut backoff = Backoff::default();
        loop {
            let connection = control.up(|| ()).await;
            match self.certify(connection, &settings).await {
                Ok(certificate) => {
                    self.0.renewals.fetch_add(1, Relaxed);
                    self.0.failure.store(None);
                    tracing::info!("identity: certified as {}", certificate.identity());
                    backoff = Backoff::default();
                    let now = (settings.clock)();
                    // From now rather than from its beginning, which an issuer may set back for the sake of clocks.
                    let due = renew_at(now, certificate.not_after(), backoff.random());
                    tokio::select! {
                        () = wait_until(due.max(now + SHORTEST_HOLD), settings.clock) => {}
                        () = self.outdated_after(SHORTEST_HOLD) => {}
                    }
                }
                Err(failure) => {
                    self.0.failures.fetch_add(1, Relaxed);
                    let text = failure.to_string();
                    if self.failure().is_none_or(|last| *last != text) {
                        tracing::warn!("identity: {text}; attempts go on");
                    }
                    self.0.failure.store(Some(Arc::new(text)));
                    sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Gets a certificate for a new key and makes it the proxy's.
    async fn certify(&self, connection: Connection, settings: &Settings) -> Result<Certificate, Failure> {
        let token = read_token(&settings.token_file)
            .map_err(|error| Failure::Token { path: settings.token_file.clone(), error })?;
        let request = Request::new()?;
        let message = v1::CertifyRequest { csr: request.csr().to_vec(), token };
        let mut client = IdentityClient::with_origin(connection, Connection::origin());
        let response = timeout(CERTIFY_WAIT, client.certify(message))
            .await
            .map_err(|_| Failure::Silent)?
            .map_err(Failure::Refused)?
            .into_inner();
        let certificate = request.issued(response.chain)?;
        let workload = &settings.workload;
        if certificate.identity().namespace != workload.namespace {
            let (actual, workload) = (certificate.identity().clone(), workload.clone());
            return Err(Failure::WrongNamespace { actual, workload });
        }
        let mut held = self.lock();
        certificate.check(&held.trust)?;
        let credentials = Credentials::new(&held.trust, &certificate)?;
        held.certificate = Some(certificate.clone());
        drop(held);
        self.publish(credentials);
        Ok(certificate)
    }

    async fn keep_trusting(self, control: Control, anchors: Trust) {
        let mut backoff = Backoff::default();
        loop {
            let connection = control.up(|| ()).await;
            if let Err(_elapsed) =
                timeout(TRUST_STREAM_AGE, self.take_roots(connection, &control, &anchors)).await
            {
                backoff = Backoff::default();
            }
            sleep(backoff.pause()).await;
        }
    }

    /// Takes roots as they are streamed, until the stream ends.
    async fn take_roots(&self, connection: Connection, control: &Control, anchors: &Trust) {
        let mut client = IdentityClient::with_origin(connection, Connection::origin());
        let mut updates = match client.watch_trust(v1::TrustRequest {}).await {
            Ok(updates) => updates.into_inner(),
            Err(status) => return tracing::debug!("identity: no stream of roots: {status}"),
        };
        let mut nonsense = false;
        loop {
            match timeout(TRUST_SILENCE, updates.message()).await {
                Ok(Ok(Some(update))) => match Trust::from_der(anchors.domain().clone(), update.roots) {
                    Ok(trust) => self.believe(trust, control, anchors),
                    Err(error) if nonsense => tracing::debug!("identity: {error}"),
                    Err(error) => {
                        nonsense = true;
                        tracing::warn!("identity: {error}; those known stay");
                    }
                },
                Ok(Ok(None)) => return tracing::debug!("identity: the stream of roots ended"),
                Ok(Err(status)) => return tracing::debug!("identity: the stream of roots broke: {status}"),
                Err(_) => return tracing::debug!("identity: the stream of roots was silent for too long"),
            }
        }
    }

    /// Peers are judged by what control says alone, so that a root can be taken away; control itself is found by the
    /// configured anchors too.
    fn believe(&self, trust: Trust, control: &Control, anchors: &Trust) {
        let mut held = self.lock();
        if held.trust == trust {
            return;
        }
        tracing::info!("identity: {} roots are trusted now", trust.roots().count());
        control.trust(anchors.with(&trust));
        held.trust = trust;
        let Some(certificate) = &held.certificate else { return };
        if let Err(error) = certificate.check(&held.trust) {
            tracing::info!("identity: a new certificate is needed: {error}");
            self.0.outdated.notify_one();
        }
        match Credentials::new(&held.trust, certificate) {
            Ok(credentials) => {
                drop(held);
                self.publish(credentials);
            }
            Err(error) => tracing::warn!("identity: {error}"),
        }
    }

    fn publish(&self, credentials: Credentials) {
        self.0.credentials.store(Some(Arc::new(credentials)));
        self.0.changes.send_modify(|count| *count += 1);
    }

    async fn outdated_after(&self, hold: Duration) {
        sleep(hold).await;
        self.0.outdated.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until the time of day is `due`.
async fn wait_until(due: SystemTime, clock: fn() -> SystemTime) {
    while let Ok(rest) = due.duration_since(clock())
        && !rest.is_zero()
    {
        sleep(rest.min(CLOCK_INTERVAL)).await;
    }
}

fn read_token(path: &PathBuf) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    let token = text.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no token"));
    }
    Ok(token.into())
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.credentials())
    }
}
