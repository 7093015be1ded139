//! How proxies reach control: TLS 1.3 with control's own certificate, which carries its SPIFFE identity. The client
//! shows none, so that a proxy whose certificate has expired can come back.

use crate::{connection::Connection, issuer::Authority, limits, metrics::Metrics};
use policy::SpiffeId;
use rcgen::KeyPair;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::PrivateKeyDer;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// A certificate shorter than this would be renewed all the time.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(3600);

/// Control's own certificate, replaced while connections are accepted.
#[derive(Debug, Default)]
pub struct OwnCertificate {
    held: Mutex<Option<Held>>,
}

#[derive(Clone, Debug)]
struct Held {
    certificate: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl OwnCertificate {
    /// Signs a new one with a new key, to be renewed at the half of its life.
    pub fn renew(
        &self,
        authority: &Authority,
        identity: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<(), crate::StartError> {
        let lifetime = lifetime.max(SHORTEST_LIFETIME);
        let key = KeyPair::generate().map_err(crate::issuer::AuthorityError::Sign)?;
        let signed = authority.sign(&key, identity, lifetime, now)?;
        let half = signed.not_after.duration_since(now).unwrap_or_default() / 2;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let certificate = CertifiedKey::from_der(signed.chain, key, &aws_lc_rs::default_provider())?;
        let held = Held { certificate: Arc::new(certificate), renew_at: now + half };
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(())
    }

    pub fn is_due(&self, now: SystemTime) -> bool {
        self.held().is_none_or(|held| held.renew_at <= now)
    }

    fn held(&self) -> Option<Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.held().map(|held| held.certificate)
    }
}

/// TLS 1.3, h2 only.
pub fn acceptor(certificate: Arc<OwnCertificate>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts until `connections` has nobody to take them. Each handshake is its own task: a slow one delays no other.
pub async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    metrics: Arc<Metrics>,
    connections: mpsc::Sender<io::Result<Connection>>,
) {
    let room = Arc::new(Semaphore::new(limits::CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: it passes, and asking again at once does not help.
                    tracing::warn!("a connection could not be accepted: {error}");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = connections.closed() => return,
        };
        let (acceptor, metrics, connections) = (acceptor.clone(), Arc::clone(&metrics), connections.clone());
        tokio::spawn(async move {
            match handshake(stream, &acceptor, &metrics, permit).await {
                // Nobody to take it: control is closing.
                Ok(connection) => drop(connections.send(Ok(connection)).await),
                Err(error) => {
                    metrics.refuse("handshake");
                    tracing::debug!("a TLS handshake failed: {error}");
                }
            }
        });
    }
}

async fn handshake(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    metrics: &Arc<Metrics>,
    permit: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = timeout(limits::HANDSHAKE_WAIT, acceptor.accept(stream)).await??;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the client did not offer h2 by ALPN"));
    }
    Ok(Connection::new(stream, Arc::clone(metrics), permit))
}
