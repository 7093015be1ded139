//! A certificate with its key: asking for one, checking what was issued, knowing when to renew it.

use crate::{
    Error,
    provider::provider,
    trust::{Role, Trust, identity},
    validity::Validity,
};
use policy::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A chain, leaf first, and the key of its leaf, which never leaves the process. Cheap to clone.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    identity: SpiffeId,
    validity: Validity,
}

/// A new key and the request (PKCS #10, RFC 2986) to certify it.
pub struct Request {
    key: rcgen::KeyPair,
    csr: Vec<u8>,
}

impl Request {
    /// ECDSA P-256. The request carries no name: the issuer knows who asks.
    pub fn new() -> Result<Self, Error> {
        let unusable = |error: rcgen::Error| Error::Key(error.to_string());
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(unusable)?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key).map_err(unusable)?;
        Ok(Self { csr: csr.der().to_vec(), key })
    }

    /// DER.
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// What the issuer made of the request: DER, leaf first. It must be for this key.
    pub fn issued(&self, chain: Vec<Vec<u8>>) -> Result<Certificate, Error> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        Certificate::new(chain.into_iter().map(CertificateDer::from).collect(), key.into())
    }
}

impl Certificate {
    /// The chain, leaf first, must not be empty; the leaf must be for the key and hold an identity of the mesh's form.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, Error> {
        let leaf = chain.first().ok_or_else(|| Error::Issued("the chain is empty".into()))?;
        let identity = identity(leaf).map_err(|refusal| Error::Issued(refusal.to_string()))?;
        let validity =
            Validity::of(leaf).ok_or_else(|| Error::Issued("its validity cannot be read".into()))?;
        let key = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| Error::Issued(error.to_string()))?;
        Ok(Self { key: Arc::new(key), identity, validity })
    }

    /// Whether peers that trust `trust` will accept it now, on either side of a connection.
    pub fn check(&self, trust: &Trust) -> Result<(), Error> {
        let (leaf, intermediates) = self.key.cert.split_first().expect("the chain is not empty");
        for role in [Role::Client, Role::Server] {
            trust
                .verify(role, leaf, intermediates, UnixTime::now())
                .map_err(|error| Error::Issued(crate::detail(&error)))?;
        }
        Ok(())
    }

    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// The chain, leaf first, as PEM.
    pub fn pem(&self) -> String {
        crate::pem::pem(&self.key.cert)
    }

    pub fn not_before(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.validity.not_before)
    }

    pub fn not_after(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.validity.not_after)
    }

    pub(crate) fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

/// When to begin renewing: at 30 % of the lifetime, later by `jitter` (0 to 1) of a fifth of it, so that proxies that
/// started together do not ask together, and half of the lifetime remains for an issuer's outage.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, jitter: f64) -> SystemTime {
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    not_before + lifetime.mul_f64(0.3 + 0.2 * jitter.clamp(0.0, 1.0))
}

impl fmt::Debug for Certificate {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_begins_between_30_and_50_percent() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (jitter, seconds) in [(0.0, 1300), (0.5, 1400), (1.0, 1500), (7.0, 1500), (-7.0, 1300)] {
            let renewal = renew_at(at(1000), at(2000), jitter);
            let off = renewal.duration_since(at(seconds)).unwrap_or_else(|error| error.duration());
            assert!(off < Duration::from_millis(1), "jitter {jitter} gives {renewal:?}");
        }
        assert_eq!(renew_at(at(2000), at(1000), 1.0), at(2000), "a certificate that was never valid");
    }
}
