//! Whom we believe: the roots of one trust domain, and the check of a chain against them.

use crate::{Error, Refusal, memory::Memory, provider::provider, validity::Validity};
use policy::{SpiffeId, TrustDomain};
use rustls::{
    CertificateError, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

/// How far a peer's clock may be off when the validity of its certificate is judged.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The roots of one trust domain. Cheap to clone; two with the same roots and domain are equal.
#[derive(Clone)]
pub struct Trust(Arc<Inner>);

struct Inner {
    domain: TrustDomain,
    roots: HashSet<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    memory: Memory,
}

/// Which side of a connection a certificate is shown for (its extended key usage, RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Client,
    Server,
}

impl Trust {
    /// At least one root, and each must be a certificate: half a bundle would cut off half of the mesh.
    pub fn new(
        domain: TrustDomain,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, Error> {
        let roots: HashSet<_> = roots.into_iter().collect();
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|error| Error::Roots(error.to_string()))?;
        }
        let store = Arc::new(store);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), provider())
            .build()
            .map_err(|error| Error::Roots(error.to_string()))?;
        Ok(Self(Arc::new(Inner { domain, roots, store, clients, memory: Memory::default() })))
    }

    /// From PEM (RFC 7468): every certificate in it.
    pub fn from_pem(domain: TrustDomain, pem: &[u8]) -> Result<Self, Error> {
        let roots = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::Roots(error.to_string()))?;
        Self::new(domain, roots)
    }

    /// From DER, as control streams it.
    pub fn from_der(domain: TrustDomain, roots: Vec<Vec<u8>>) -> Result<Self, Error> {
        Self::new(domain, roots.into_iter().map(CertificateDer::from))
    }

    /// The roots of both, in this one's domain.
    pub fn with(&self, other: &Self) -> Self {
        let roots = self.0.roots.union(&other.0.roots).cloned();
        Self::new(self.0.domain.clone(), roots).expect("each root was accepted before")
    }

    pub fn domain(&self) -> &TrustDomain {
        &self.0.domain
    }

    /// In no particular order.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0.roots.iter()
    }

    /// The roots as PEM, in no particular order.
    pub fn pem(&self) -> String {
        crate::pem::pem(self.roots())
    }

    /// Who the chain's leaf is: checked up to a root, for its use, its time (give or take `CLOCK_SKEW`) and the form of
    /// its identity. That the peer holds the key is the handshake's matter.
    pub(crate) fn verify(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, rustls::Error> {
        if let Some(identity) = self.0.memory.recall(role, leaf, intermediates, now) {
            return Ok(identity);
        }
        self.verify_path(role, leaf, intermediates, now).or_else(|error| {
            let skewed = match error {
                rustls::Error::InvalidCertificate(
                    CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. },
                ) => nearest(leaf, intermediates, now),
                _ => None,
            };
            let Some(skewed) = skewed else { return Err(error) };
            self.verify_path(role, leaf, intermediates, skewed).map_err(|_| error)
        })?;
        let identity = identity(leaf)?;
        if identity.trust_domain != self.0.domain {
            let expected = self.0.domain.clone();
            return Err(Refusal::ForeignDomain { expected, actual: identity }.into());
        }
        self.0.memory.keep(role, leaf, intermediates, &identity, now);
        Ok(identity)
    }

    fn verify_path(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        match role {
            Role::Client => self.0.clients.verify_client_cert(leaf, intermediates, now).map(|_| ()),
            Role::Server => verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(leaf)?,
                &self.0.store,
                intermediates,
                now,
                provider().signature_verification_algorithms.all,
            ),
        }
    }

    /// Whom a client expects that wrote this SNI: `<service account>.<namespace>.serviceaccount.identity.<domain>`.
    /// A namespace holds no dot, a service account may.
    pub(crate) fn named(&self, server_name: &str) -> Option<SpiffeId> {
        let (service_account, namespace) = server_name
            .strip_suffix(self.0.domain.as_str())?
            .strip_suffix(".serviceaccount.identity.")?
            .rsplit_once('.')?;
        SpiffeId::new(&self.0.domain, namespace, service_account).ok()
    }
}

/// The time nearest to `now` at which the whole chain is valid, not further off than `CLOCK_SKEW`: no further than need
/// be, since an issuer may be younger than the skew.
fn nearest(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Option<UnixTime> {
    let whole =
        intermediates.iter().try_fold(Validity::of(leaf)?, |held, one| Some(held.and(Validity::of(one)?)))?;
    let seconds = now.as_secs();
    let nearest = seconds.max(whole.not_before).min(whole.not_after);
    (whole.not_before <= nearest && nearest.abs_diff(seconds) <= CLOCK_SKEW.as_secs())
        .then(|| UnixTime::since_unix_epoch(Duration::from_secs(nearest)))
}

/// The one URI in the leaf's alternative names (SPIFFE X509-SVID §2), which must be an identity of the mesh's form.
pub(crate) fn identity(leaf: &CertificateDer<'_>) -> Result<SpiffeId, Refusal> {
    let certificate = webpki::EndEntityCert::try_from(leaf)
        .map_err(|error| Refusal::NoIdentity(format!("it is malformed ({error})")))?;
    let mut names = certificate.valid_uri_names();
    match (names.next(), names.next()) {
        (Some(name), None) => {
            name.parse().map_err(|error: policy::InvalidSpiffeId| Refusal::NoIdentity(error.to_string()))
        }
        (None, _) => Err(Refusal::NoIdentity("it has no URI".into())),
        (Some(_), Some(_)) => Err(Refusal::NoIdentity("it has several URIs".into())),
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.0.domain == other.0.domain && self.0.roots == other.0.roots
    }
}

impl Eq for Trust {}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({}, {} roots)", self.0.domain, self.0.roots.len())
    }
}
