//! The Secret of the issuer, which all replicas share, mirrored into the state folder: from there it is used, and
//! replaced while control runs, just as files that somebody else put there.
//!
//! Whoever finds no Secret makes one; of several the first one counts, and the others take it. One that is there is
//! never written, so that a user may bring his own. One that was deleted is written again as it was last seen.

use super::{Backoff, Cluster, REQUEST_WAIT, explain};
use crate::{
    Config, Control, file,
    issuer::{self, AuthorityError, ISSUER, ISSUER_KEY, ROOTS},
    problems::{Problem, Source},
    readiness::Readiness,
};
use futures_util::TryStreamExt;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api,
    api::{PostParams, WatchParams},
};
use policy::TrustDomain;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::{sleep, timeout};

/// The Secret in control's namespace.
pub const NAME: &str = "weft-identity-issuer";
/// What readiness calls it.
const WAITING: &str = "the Secret weft-identity-issuer";
/// The Secret is read this often even when its watch says nothing.
const RESCAN: Duration = Duration::from_secs(30);

/// The files, by the keys under which they stand: ours, and those of a Secret of type kubernetes.io/tls (cert-manager's).
///
/// In this order they are written. A state between two of them is either the one or the other (new roots below which the
/// old issuer signs as well), or refused as a whole when it is read: a certificate that does not fit its key, an issuer
/// that leads to none of the roots.
const FILES: [(&str, &str, u32); 3] = [
    (ROOTS, ROOTS_OF_TLS, file::PUBLIC),
    (ISSUER_KEY, "tls.key", file::SECRET),
    (ISSUER, "tls.crt", file::PUBLIC),
];

const ROOTS_OF_TLS: &str = "ca.crt";

/// Why the Secret could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the Secret {NAME}: {}", explain(.0))]
    Request(#[source] kube::Error),
    #[error("the Secret {NAME}: the API server did not answer for {} s", REQUEST_WAIT.as_secs())]
    Silent,
    #[error(
        "the Secret {NAME} has no key {key} (nor {other}); add it, or delete the Secret to have one made"
    )]
    Incomplete { key: &'static str, other: &'static str },
    #[error("the state folder")]
    State(#[source] io::Error),
    #[error(transparent)]
    Make(#[from] AuthorityError),
}

/// Reads the Secret into the state folder, or makes it. Returns once that is done, and once every proxy can have heard
/// of the roots in it: a run of control takes what it finds at its start for told, and signs with it at once.
pub async fn open(cluster: &Cluster, config: &Config, readiness: &Readiness) {
    readiness.wait_for(WAITING);
    let mut backoff = Backoff::default();
    loop {
        let pause = match look(cluster, &config.state, &config.trust_domain).await {
            Ok(secret) => match untold(&secret, SystemTime::now(), config.root_spread) {
                None => break,
                Some(rest) => {
                    let seconds = rest.as_secs();
                    let why =
                        format!("its roots were changed a moment ago; proxies know them in {seconds} s");
                    readiness.hindered(WAITING, why);
                    rest
                }
            },
            Err(error) => {
                readiness.hindered(WAITING, crate::chain(&error));
                backoff.next()
            }
        };
        sleep(pause).await;
    }
    readiness.done(WAITING);
}

/// How long it takes until the other replicas have told the roots to proxies for long enough; `None`: that is so, or
/// there is only one root, which is no successor's.
fn untold(secret: &Secret, now: SystemTime, spread: Duration) -> Option<Duration> {
    let roots = value(secret, ROOTS, ROOTS_OF_TLS)?;
    let count = CertificateDer::pem_slice_iter(&roots.0).count();
    let written = secret.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
    let written = SystemTime::from(written.max()?.0);
    let age = now.duration_since(written).unwrap_or_default();
    spread.checked_sub(age).filter(|rest| count > 1 && !rest.is_zero())
}

/// What stands under a key of ours, or under that of a Secret of type kubernetes.io/tls.
fn value<'a>(secret: &'a Secret, key: &str, other: &str) -> Option<&'a ByteString> {
    let data = secret.data.as_ref()?;
    data.get(key).or_else(|| data.get(other))
}

/// Reads the Secret again at each event of its watch, and now and then without one. Serves until it is dropped.
pub async fn keep(control: Arc<Control>, cluster: Arc<Cluster>) {
    let mut backoff = Backoff::default();
    loop {
        let config = &control.config;
        let looked = look(&cluster, &config.state, &config.trust_domain).await;
        let problem = looked.as_ref().err().map(|error| Problem {
            what: format!("{}; what was there before stays in use", crate::chain(error)),
            ..Problem::default()
        });
        control.world().problems_of(Source::Secret, problem.into_iter().collect());
        match looked {
            Ok(secret) => {
                backoff = Backoff::default();
                changed(&cluster, secret.metadata.resource_version.as_deref().unwrap_or_default()).await;
            }
            Err(_) => sleep(backoff.next()).await,
        }
    }
}

/// Returns when the Secret is no longer the one of `version`, or after a while.
async fn changed(cluster: &Cluster, version: &str) {
    let begun = tokio::time::Instant::now();
    let parameters =
        WatchParams::default().fields(&format!("metadata.name={NAME}")).timeout(RESCAN.as_secs() as u32);
    let heard = async {
        let api = api(cluster);
        let mut events = Box::pin(api.watch(&parameters, version).await?);
        events.try_next().await
    };
    if !matches!(timeout(RESCAN, heard).await, Ok(Ok(Some(_)))) {
        // Without a watch it is polled.
        sleep(RESCAN.saturating_sub(begun.elapsed())).await;
    }
}

/// Takes what the Secret says.
async fn look(cluster: &Cluster, state: &Path, trust_domain: &TrustDomain) -> Result<Secret, SecretError> {
    let api = api(cluster);
    let secret = match request(api.get_opt(NAME)).await? {
        Some(secret) => secret,
        None => make(cluster, state, trust_domain).await?,
    };
    mirror(&secret, state)?;
    Ok(secret)
}

/// Makes the Secret, of what is in the state folder if anything is; if another replica was faster, its own is read.
async fn make(cluster: &Cluster, state: &Path, trust_domain: &TrustDomain) -> Result<Secret, SecretError> {
    let held = FILES.map(|(file, _, _)| fs::read(state.join(file)).ok());
    let files: BTreeMap<String, ByteString> = match held {
        [Some(roots), Some(key), Some(issuer)] => [(ROOTS, roots), (ISSUER_KEY, key), (ISSUER, issuer)]
            .map(|(file, bytes)| (file.into(), ByteString(bytes))),
        _ => issuer::root(trust_domain)?.map(|(file, text)| (file.into(), ByteString(text.into_bytes()))),
    }
    .into();
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(cluster.namespace.clone()),
            labels: Some(super::labels()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".into()),
        data: Some(files),
        ..Secret::default()
    };
    let api = api(cluster);
    let parameters = PostParams::default();
    match request(api.create(&parameters, &secret)).await {
        Ok(secret) => {
            tracing::info!("made the Secret {}/{NAME}", cluster.namespace);
            Ok(secret)
        }
        Err(SecretError::Request(kube::Error::Api(status))) if status.code == 409 => {
            request(api.get(NAME)).await
        }
        Err(error) => Err(error),
    }
}

/// Writes the files that differ.
fn mirror(secret: &Secret, state: &Path) -> Result<(), SecretError> {
    let mut files = Vec::new();
    for (key, other, mode) in FILES {
        let Some(value) = value(secret, key, other) else {
            return Err(SecretError::Incomplete { key, other });
        };
        files.push((state.join(key), &value.0, mode));
    }
    for (path, bytes, mode) in files {
        if fs::read(&path).ok().as_ref() != Some(bytes) {
            file::write(&path, bytes, mode).map_err(SecretError::State)?;
        }
    }
    Ok(())
}

async fn request<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, SecretError> {
    timeout(REQUEST_WAIT, request).await.map_err(|_| SecretError::Silent)?.map_err(SecretError::Request)
}

fn api(cluster: &Cluster) -> Api<Secret> {
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}

#[cfg(test)]
mod tests;
