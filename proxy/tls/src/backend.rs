//! TLS to a program without a proxy, as a BackendTLSPolicy asks for (GEP-1897): no identity of the mesh, and none of ours is shown.

use crate::{Error, Refusal};
use policy::{
    BackendTls,
    backend_tls::{Authorities, SubjectAltName},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// What is to be spoken within TLS (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    Http1,
    Http2,
    /// The application's own bytes, for which no name is offered.
    Bytes,
}

/// What a handshake with such a program needs.
#[derive(Clone, Debug)]
pub struct BackendClient {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl BackendClient {
    /// An error when there is no authority to trust.
    pub fn new(tls: &BackendTls) -> Result<Self, Error> {
        let name = ServerName::try_from(tls.hostname.to_string())
            .map_err(|_| Error::Roots(format!("{} is not a hostname", tls.hostname)))?;
        // Such a server is as it is: TLS 1.2 and every suite that rustls takes.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(BackendVerifier::new(tls, &provider)?);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::Handshake)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        // They share the verifier and the store of sessions.
        let offering = |alpn: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self { http1: offering(&[b"http/1.1"]), http2: offering(&[b"h2"]), bytes: offering(&[]), name })
    }

    /// The configuration of a connection, and the name to ask for.
    pub fn connection(&self, within: Within) -> (Arc<ClientConfig>, ServerName<'static>) {
        let config = match within {
            Within::Http1 => &self.http1,
            Within::Http2 => &self.http2,
            Within::Bytes => &self.bytes,
        };
        (config.clone(), self.name.clone())
    }
}

#[derive(Debug)]
struct BackendVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    /// Verifies what the server signs in the handshake.
    handshake: Arc<WebPkiServerVerifier>,
    alt_names: Vec<SubjectAltName>,
}

impl BackendVerifier {
    fn new(tls: &BackendTls, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        match &tls.authorities {
            Authorities::WellKnown => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Authorities::Given(given) => {
                roots.add_parsable_certificates(given.iter().map(|der| CertificateDer::from(der.to_vec())));
            }
        }
        if roots.is_empty() {
            return Err(Error::Roots("it names no certificate of an authority that can be used".into()));
        }
        let roots = Arc::new(roots);
        let handshake = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| Error::Roots(error.to_string()))?;
        Ok(Self { roots, provider: provider.clone(), handshake, alt_names: tls.alt_names.clone() })
    }

    /// That the certificate is for `asked`, or for one of the names that stand in its place.
    fn is_for(&self, leaf: &CertificateDer<'_>, asked: &ServerName<'_>) -> Result<(), rustls::Error> {
        if self.alt_names.is_empty() {
            return verify_server_name(&ParsedCertificate::try_from(leaf)?, asked);
        }
        let certificate = webpki::EndEntityCert::try_from(leaf)
            .map_err(|error| rustls::Error::General(format!("the peer's certificate: {error}")))?;
        let fits = |name: &SubjectAltName| match name {
            SubjectAltName::Uri(uri) => certificate.valid_uri_names().any(|held| held == &**uri),
            SubjectAltName::Hostname(pattern) => match pattern.strip_prefix("*.") {
                Some(parent) => certificate.valid_dns_names().any(|held| is_child(held, parent)),
                None => ServerName::try_from(&**pattern)
                    .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok()),
            },
        };
        if self.alt_names.iter().any(fits) {
            return Ok(());
        }
        let held = certificate.valid_dns_names().chain(certificate.valid_uri_names());
        Err(Refusal::OtherNames(held.collect::<Vec<_>>().join(", ")).into())
    }
}

/// Is `name`, which may begin with `*` itself, one label before `parent`?
fn is_child(name: &str, parent: &str) -> bool {
    name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent))
}

impl ServerCertVerifier for BackendVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        self.is_for(leaf, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.handshake.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.handshake.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.handshake.supported_verify_schemes()
    }
}
