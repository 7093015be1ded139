//! TLS between a proxy and control: only control shows a certificate, so that a proxy without one can ask for one.

use crate::{Certificate, Error, Trust, provider::provider, verifier::PeerVerifier};
use policy::{SpiffeId, TrustDomain};
use rustls::{ClientConfig, ServerConfig, client::Resumption, sign::SingleCertAndKey, version::TLS13};
use std::sync::Arc;

/// Who control is in a trust domain.
pub fn control_identity(domain: &TrustDomain) -> SpiffeId {
    SpiffeId::new(domain, "weft-system", "weft-control").expect("both are Kubernetes names")
}

/// To control, whose name in the SNI is `server_name(&control_identity(..))`. ALPN `h2`; no sessions are kept.
pub fn control_client(trust: &Trust) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Handshake)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(trust)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For control's own server: ALPN `h2`, asks for no certificate.
pub fn control_server(certificate: &Certificate) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Handshake)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.key())));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
