//! Keeps the webhook's certificate: in the Secret `weft-injector-tls`, in the API server's configuration, and in what
//! this replica serves with. Any replica does all of it; the Secret's resourceVersion decides who was first.
//!
//! ```text
//! Secret missing, broken or old ──> written anew ──> caBundle says its authority ──> a while later: served with
//! ```
//!
//! The API server learns an authority before anybody serves below it. Both objects are watched: one that is deleted or
//! overwritten is mended at once.

use super::{certificate::Certificate, metrics::Metrics};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// The Secret, and the webhook's configuration.
pub const SECRET: &str = "weft-injector-tls";
pub const CONFIGURATION: &str = "weft-injector";
const MANAGER: &str = "weft-injector";
/// How long API servers have to hear of a new authority.
const SPREAD: Duration = Duration::from_secs(10);
/// The longest time between two looks.
const LOOK: Duration = Duration::from_secs(60);
/// How often another replica may be first in a row before a look is given up.
const ATTEMPTS: usize = 5;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What this replica serves with.
#[derive(Debug, Default)]
pub struct Slot(RwLock<Option<Arc<CertifiedKey>>>);

/// Keeps one replica's certificate.
pub struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    /// What the certificate must prove.
    names: Vec<String>,
    clock: Clock,
    slot: Arc<Slot>,
    metrics: Arc<Metrics>,
    /// What is served with.
    held: Option<Certificate>,
    /// What will be, and since when the API server knows its authority.
    next: Option<(Certificate, Instant)>,
}

/// Why a look came to no end. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("Secret {SECRET} cannot be {what}")]
    Secret { what: &'static str, source: kube::Error },
    #[error(
        "MutatingWebhookConfiguration {CONFIGURATION} cannot be {what}; without its caBundle the API server does not call \
         the injector"
    )]
    Configuration { what: &'static str, source: kube::Error },
    #[error("MutatingWebhookConfiguration {CONFIGURATION} is missing; install the chart, or `weft install`")]
    NoConfiguration,
    #[error("Secret {SECRET} was written by others {ATTEMPTS} times in a row")]
    Contended,
    #[error("the certificate")]
    Certificate(#[from] super::certificate::CertificateError),
}

impl Slot {
    /// Whether there is anything to serve with.
    pub fn is_filled(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn fill(&self, key: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}

impl ResolvesServerCert for Slot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Keeper {
    pub fn new(
        client: &Client,
        namespace: &str,
        names: Vec<String>,
        clock: Clock,
        slot: Arc<Slot>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Keeper {
            secrets: Api::namespaced(client.clone(), namespace),
            configurations: Api::all(client.clone()),
            names,
            clock,
            slot,
            metrics,
            held: None,
            next: None,
        }
    }

    /// Sets right whatever is not; answers when to look again, were there no event.
    pub async fn look(&mut self) -> Result<Duration, KeeperError> {
        let current = self.current().await?;
        self.tell(&current).await?;
        let now = (self.clock)();
        if self.held.as_ref() != Some(&current) {
            let wait = self.wait(&current, now);
            if !wait.is_zero() {
                return Ok(wait);
            }
            self.slot.fill(current.serve(&self.names, now)?);
            let expiry = current.not_after().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.metrics.certificate_expiry(expiry);
            let end = Timestamp::try_from(current.not_after()).unwrap_or(Timestamp::MAX);
            tracing::info!("serving with a certificate until {end}");
            self.held = Some(current.clone());
        }
        self.next = None;
        let due = current.due().duration_since(now).unwrap_or_default();
        Ok(due.clamp(Duration::from_secs(1), LOOK))
    }

    /// How long API servers still have to hear of another certificate's authority, while the one that is held is good.
    fn wait(&mut self, other: &Certificate, now: SystemTime) -> Duration {
        let good = |held: &&Certificate| held.serve(&self.names, now).is_ok();
        let Some(held) = self.held.as_ref().filter(good) else { return Duration::ZERO };
        if held.chain == other.chain {
            return Duration::ZERO;
        }
        let known = self.next.take().filter(|(next, _)| next == other);
        let (next, since) = known.unwrap_or_else(|| (other.clone(), Instant::now()));
        let waited = since.elapsed();
        self.next = Some((next, since));
        SPREAD.saturating_sub(waited)
    }

    /// The certificate of the Secret; a new one where there is none that can be used for long.
    async fn current(&self) -> Result<Certificate, KeeperError> {
        for _ in 0..ATTEMPTS {
            let stored = self.secrets.get_opt(SECRET).await;
            let stored = stored.map_err(|source| KeeperError::Secret { what: "read", source })?;
            let now = (self.clock)();
            let (wanted, why) = match stored.as_ref().map(|stored| self.judge(stored, now)) {
                Some(Ok(certificate)) if !certificate.is_due(now) => return Ok(certificate),
                Some(Ok(old)) => (Certificate::make(&self.names, now, Some(&old))?, "it is old".to_owned()),
                Some(Err(error)) => (self.anew(now)?, error.to_string()),
                None => (self.anew(now)?, "it is missing".to_owned()),
            };
            tracing::info!("writing Secret {SECRET}: {why}");
            let version = stored.as_ref().and_then(|stored| stored.metadata.resource_version.clone());
            match self.write(&wanted, stored, version).await {
                Ok(()) => return Ok(wanted),
                // Another replica was first: what it wrote is as good.
                Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
                Err(source) => return Err(KeeperError::Secret { what: "written", source }),
            }
        }
        Err(KeeperError::Contended)
    }

    fn judge(
        &self,
        stored: &Secret,
        now: SystemTime,
    ) -> Result<Certificate, super::certificate::CertificateError> {
        let text = |key: &str| {
            let data = stored.data.as_ref().and_then(|data| data.get(key));
            data.map(|data| String::from_utf8_lossy(&data.0).into_owned()).unwrap_or_default()
        };
        let certificate = Certificate::read(&text("tls.crt"), &text("tls.key"), &text("ca.crt"))?;
        certificate.serve(&self.names, now)?;
        Ok(certificate)
    }

    /// What is served with, where it is good: then nobody has to learn anything.
    fn anew(&self, now: SystemTime) -> Result<Certificate, super::certificate::CertificateError> {
        let good = |held: &&Certificate| held.serve(&self.names, now).is_ok() && !held.is_due(now);
        match self.held.as_ref().filter(good) {
            Some(held) => Ok(held.clone()),
            None => Certificate::make(&self.names, now, None),
        }
    }

    async fn write(
        &self,
        certificate: &Certificate,
        stored: Option<Secret>,
        version: Option<String>,
    ) -> kube::Result<()> {
        let data =
            [("tls.crt", &certificate.chain), ("tls.key", &certificate.key), ("ca.crt", &certificate.bundle)];
        let data = data.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())));
        let labels = [
            ("app.kubernetes.io/name", "weft"),
            ("app.kubernetes.io/part-of", "weft"),
            ("app.kubernetes.io/component", "injector"),
            ("app.kubernetes.io/managed-by", "weft"),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let fresh = Secret {
            metadata: ObjectMeta { name: Some(SECRET.into()), ..ObjectMeta::default() },
            type_: Some("kubernetes.io/tls".into()),
            ..Secret::default()
        };
        let is_new = stored.is_none();
        let mut secret = stored.unwrap_or(fresh);
        secret.metadata.resource_version = version;
        secret.metadata.managed_fields = None;
        secret.metadata.labels.get_or_insert_default().extend(labels);
        secret.data = Some(BTreeMap::from(data));
        let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match is_new {
            true => self.secrets.create(&parameters, &secret).await?,
            false => self.secrets.replace(SECRET, &parameters, &secret).await?,
        };
        Ok(())
    }

    /// Makes the API server trust the certificate.
    async fn tell(&self, certificate: &Certificate) -> Result<(), KeeperError> {
        let configuration = self.configurations.get_opt(CONFIGURATION).await;
        let configuration = configuration
            .map_err(|source| KeeperError::Configuration { what: "read", source })?
            .ok_or(KeeperError::NoConfiguration)?;
        let wanted = ByteString(certificate.bundle.clone().into_bytes());
        let webhooks = configuration.webhooks.unwrap_or_default();
        let other =
            webhooks.iter().filter(|webhook| webhook.client_config.ca_bundle.as_ref() != Some(&wanted));
        let patched: Vec<_> = other
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": wanted}}))
            .collect();
        if patched.is_empty() {
            return Ok(());
        }
        tracing::info!("writing caBundle of MutatingWebhookConfiguration {CONFIGURATION}");
        // With the version that was read: nothing newer is overwritten.
        let version = configuration.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "webhooks": patched});
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let done = self.configurations.patch(CONFIGURATION, &parameters, &Patch::Strategic(patch)).await;
        done.map(drop).map_err(|source| KeeperError::Configuration { what: "patched", source })
    }
}
