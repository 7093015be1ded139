//! The webhook's certificate: made, read, and judged. What is kept where is `keeper`.
//!
//! Each certificate has an authority of its own, whose key is thrown away when it has signed: nobody can make another
//! one that the API server would believe. Both live 90 days and are replaced after 60, so that there is a month
//! for whoever must find out why it was not done. They begin an hour in the past, as clocks differ; what an older
//! certificate's authority is stays in the bundle, since other replicas serve with it a moment longer.

use ::pem::{EncodeConfig, LineEnding, Pem, encode_config};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, UnixTime,
    pem::{self, PemObject},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// From now on.
pub const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// After this much of it there is a new one.
const USED: Duration = Duration::from_secs(60 * 24 * 3600);
/// How far back it begins.
const BACK: Duration = Duration::from_secs(3600);
/// Authorities in a bundle: of the certificate itself, and of those before it.
const AUTHORITIES: usize = 3;

/// A certificate, its key, and the bundle of authorities that the API server is told, all as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pub chain: String,
    pub key: String,
    pub bundle: String,
    leaf: CertificateDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{0} holds no PEM of what it should")]
    Pem(&'static str, #[source] pem::Error),
    #[error("tls.crt holds no certificate")]
    Empty,
    #[error("tls.crt is no X.509")]
    X509,
    #[error(
        "tls.crt and tls.key, or tls.crt and ca.crt, do not belong together, or are not for this service"
    )]
    Unusable(#[source] rustls::Error),
    #[error("ca.crt holds no usable authority")]
    Authorities,
    #[error("it cannot be made")]
    Make(#[from] rcgen::Error),
}

impl Certificate {
    /// Makes one for these names; the authorities of `before` that are still valid stay in the bundle.
    pub fn make(
        names: &[String],
        now: SystemTime,
        before: Option<&Certificate>,
    ) -> Result<Self, CertificateError> {
        let valid = |params: &mut CertificateParams| {
            params.not_before = (now - BACK).into();
            params.not_after = (now + LIFETIME).into();
        };
        let mut authority = CertificateParams::default();
        valid(&mut authority);
        authority.distinguished_name.push(DnType::CommonName, "weft-injector");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority_key = KeyPair::generate()?;
        let root = authority.self_signed(&authority_key)?;

        let mut leaf = CertificateParams::new(names.to_vec())?;
        valid(&mut leaf);
        leaf.distinguished_name.push(DnType::CommonName, "weft-injector");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let leaf = leaf.signed_by(&key, &Issuer::new(authority, authority_key))?;

        let earlier = before.map(|before| before.authorities_at(now)).unwrap_or_default();
        let authorities = std::iter::once(root.pem()).chain(earlier).take(AUTHORITIES);
        Self::read(&leaf.pem(), &key.serialize_pem(), &authorities.collect::<String>())
    }

    /// Reads one; whether it can be used is another question.
    pub fn read(chain: &str, key: &str, bundle: &str) -> Result<Self, CertificateError> {
        let certificates = CertificateDer::pem_slice_iter(chain.as_bytes());
        let certificates: Vec<_> = certificates
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Pem("tls.crt", error))?;
        let leaf = certificates.first().ok_or(CertificateError::Empty)?.clone().into_owned();
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|_| CertificateError::X509)?;
        let time =
            |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let validity = parsed.validity();
        let [not_before, not_after] =
            [validity.not_before, validity.not_after].map(|at| time(at.timestamp()));
        Ok(Certificate {
            chain: chain.to_owned(),
            key: key.to_owned(),
            bundle: bundle.to_owned(),
            leaf,
            not_before,
            not_after,
        })
    }

    /// What a server answers with, if this certificate proves all these names now to who knows the bundle.
    pub fn serve(&self, names: &[String], now: SystemTime) -> Result<Arc<CertifiedKey>, CertificateError> {
        let provider = aws_lc_rs::default_provider();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|error| CertificateError::Pem("tls.key", error))?;
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        let chain: Vec<_> =
            chain.collect::<Result<_, _>>().map_err(|error| CertificateError::Pem("tls.crt", error))?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.roots()?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone().into())
            .build()
            .map_err(|_| CertificateError::Authorities)?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let intermediates = chain.get(1..).unwrap_or_default();
        for name in names {
            let name = ServerName::try_from(name.as_str()).map_err(|_| {
                CertificateError::Unusable(rustls::Error::General(format!("{name} is no name")))
            })?;
            verifier
                .verify_server_cert(&self.leaf, intermediates, &name, &[], UnixTime::since_unix_epoch(since))
                .map_err(CertificateError::Unusable)?;
        }
        // Also says whether the key is the certificate's.
        CertifiedKey::from_der(chain, key, &provider).map(Arc::new).map_err(CertificateError::Unusable)
    }

    /// Whether it is time for another one.
    pub fn is_due(&self, now: SystemTime) -> bool {
        now >= self.due()
    }

    /// When it is time for another one: after two thirds of its life, however long that is.
    pub fn due(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + life.mul_f64(USED.as_secs_f64() / LIFETIME.as_secs_f64())
    }

    /// When it ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        let roots = CertificateDer::pem_slice_iter(self.bundle.as_bytes());
        roots.collect::<Result<_, _>>().map_err(|error| CertificateError::Pem("ca.crt", error))
    }

    /// The authorities of the bundle that are valid, each as PEM.
    fn authorities_at(&self, now: SystemTime) -> Vec<String> {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let is_valid = |root: &CertificateDer<'_>| {
            X509Certificate::from_der(root).is_ok_and(|(_, parsed)| {
                u64::try_from(parsed.validity().not_after.timestamp()).is_ok_and(|end| end > seconds)
            })
        };
        let block = |root: &CertificateDer<'_>| {
            let block = Pem::new("CERTIFICATE", root.as_ref());
            encode_config(&block, EncodeConfig::new().set_line_ending(LineEnding::LF))
        };
        let roots = self.roots().unwrap_or_default();
        roots.iter().filter(|root| is_valid(root)).map(block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn names() -> Vec<String> {
        vec!["weft-injector.weft-system.svc".into()]
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + 20_000 * DAY
    }

    #[test]
    fn a_new_one_serves_at_once_and_to_clocks_that_are_late() {
        let certificate = Certificate::make(&names(), now(), None).unwrap();
        for at in [now() - Duration::from_secs(3500), now(), now() + 89 * DAY] {
            certificate.serve(&names(), at).unwrap();
        }
        assert!(certificate.serve(&names(), now() - DAY).is_err(), "not yet valid");
        assert!(certificate.serve(&names(), now() + 91 * DAY).is_err(), "expired");
        assert!(certificate.serve(&["other.svc".into()], now()).is_err(), "another name");
        assert!(!certificate.is_due(now() + 59 * DAY) && certificate.is_due(now() + 61 * DAY));
    }

    #[test]
    fn parts_of_two_do_not_serve() {
        let [one, other] = [0, 1].map(|_| Certificate::make(&names(), now(), None).unwrap());
        for (chain, key, bundle) in [(&one, &other, &one), (&one, &one, &other), (&other, &one, &one)] {
            let mixed = Certificate::read(&chain.chain, &key.key, &bundle.bundle).unwrap();
            assert!(mixed.serve(&names(), now()).is_err());
        }
        assert!(Certificate::read("", &one.key, &one.bundle).is_err());
        assert!(Certificate::read("x", &one.key, &one.bundle).is_err());
    }

    #[test]
    fn the_bundle_keeps_what_others_still_serve_with() {
        let first = Certificate::make(&names(), now(), None).unwrap();
        let second = Certificate::make(&names(), now() + 61 * DAY, Some(&first)).unwrap();
        let old = Certificate::read(&first.chain, &first.key, &second.bundle).unwrap();
        old.serve(&names(), now() + 61 * DAY).unwrap();
        // When the first one's authority has ended, it goes.
        let third = Certificate::make(&names(), now() + 122 * DAY, Some(&second)).unwrap();
        assert_eq!(third.bundle.matches("BEGIN").count(), 2);
        let mut last = third;
        for _ in 0..5 {
            last = Certificate::make(&names(), now() + 122 * DAY, Some(&last)).unwrap();
        }
        assert_eq!(last.bundle.matches("BEGIN").count(), AUTHORITIES);
    }
}
