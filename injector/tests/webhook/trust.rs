//! The API server's side of TLS: it believes what stands in its own configuration.

use crate::api::Api;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use injector::webhook::keeper::Slot;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::WebPkiServerVerifier,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub const NAME: &str = "weft-injector.weft-system.svc";

/// A client that trusts the caBundle of the webhook's configuration, by a clock that says `now`.
pub fn client(api: &Api, now: SystemTime) -> Option<TlsConnector> {
    let bundle = api.webhooks()[0]["clientConfig"]["caBundle"].as_str()?.to_owned();
    let bundle = BASE64_STANDARD.decode(bundle).ok()?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&bundle) {
        roots.add(root.ok()?).ok()?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build().ok()?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(At { verifier, now }))
        .with_no_client_auth();
    Some(TlsConnector::from(Arc::new(config)))
}

/// The certificate that is shown now, if the API server believes it.
pub async fn shown(api: &Api, slot: &Arc<Slot>, now: SystemTime) -> Option<CertificateDer<'static>> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(slot) as _);
    let (near, far) = tokio::net::UnixStream::pair().unwrap();
    let connect = client(api, now)?;
    let accepting = TlsAcceptor::from(Arc::new(config));
    let (connected, _accepted) =
        tokio::join!(connect.connect(ServerName::try_from(NAME).unwrap(), near), accepting.accept(far));
    let connected = connected.ok()?;
    Some(connected.get_ref().1.peer_certificates()?[0].clone().into_owned())
}

/// A verifier with a clock.
#[derive(Debug)]
struct At {
    verifier: Arc<WebPkiServerVerifier>,
    now: SystemTime,
}

impl ServerCertVerifier for At {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let now = UnixTime::since_unix_epoch(self.now.duration_since(UNIX_EPOCH).unwrap());
        self.verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
