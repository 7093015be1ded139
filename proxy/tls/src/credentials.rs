//! What a proxy shakes hands with: an immutable snapshot of its certificate and its trust.

use crate::{
    ALPN, Certificate, Error, Refusal, Trust, Verified, provider::provider, trust::Role,
    verifier::PeerVerifier,
};
use policy::SpiffeId;
use rustls::{
    ClientConfig, ClientConnection, CommonState, ServerConfig, ServerConnection,
    client::{ClientSessionMemoryCache, Resumption, Tls12Resumption},
    crypto::aws_lc_rs::Ticketer,
    server::NoServerSessionStorage,
    sign::SingleCertAndKey,
    version::TLS13,
};
use rustls_pki_types::UnixTime;
use std::{fmt, sync::Arc};

/// TLS 1.3 tickets that a proxy holds for its peers (rustls keeps eight a peer).
const TICKETS: usize = 8 * 256;

/// One certificate and one trust, ready for both directions. Renewal of either makes new credentials; connections keep
/// those that they were made with.
///
/// Sessions belong to their credentials: a ticket vouches for the certificates of the handshake that began it, and
/// tickets beget tickets, so one that outlived its certificate would be refused by its age much later, out of the blue.
/// A renewal costs each pair of proxies one full handshake.
#[derive(Clone)]
pub struct Credentials {
    /// To peers: ALPN `weft/1`, the SNI is `server_name` of the expected identity, which is the verified one.
    pub client: Arc<ClientConfig>,
    /// From peers: ALPN `weft/1`, a certificate is required.
    pub server: Arc<ServerConfig>,
    certificate: Certificate,
    trust: Trust,
}

impl Credentials {
    pub fn new(trust: &Trust, certificate: &Certificate) -> Result<Self, Error> {
        Ok(Self {
            client: Arc::new(client(trust, certificate)?),
            server: Arc::new(server(trust, certificate)?),
            certificate: certificate.clone(),
            trust: trust.clone(),
        })
    }

    /// Who the client is, after the handshake. A resumed session's client is judged again, by its certificate's time
    /// and by the roots.
    pub fn accepted(&self, connection: &ServerConnection) -> Result<Verified<SpiffeId>, Error> {
        self.peer(connection, Role::Client)
    }

    /// That the server is `expected`, after the handshake.
    pub fn connected(
        &self,
        connection: &ClientConnection,
        expected: &SpiffeId,
    ) -> Result<Verified<SpiffeId>, Error> {
        let peer = self.peer(connection, Role::Server)?;
        if *peer != *expected {
            let (expected, actual) = (expected.clone(), peer.into_inner());
            return Err(Refusal::WrongIdentity { expected, actual }.into());
        }
        Ok(peer)
    }

    fn peer(&self, connection: &CommonState, role: Role) -> Result<Verified<SpiffeId>, Error> {
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(Refusal::NoProtocol { expected: "weft/1" }.into());
        }
        let (leaf, intermediates) =
            connection.peer_certificates().and_then(<[_]>::split_first).ok_or(Refusal::NoCertificate)?;
        self.trust
            .verify(role, leaf, intermediates, UnixTime::now())
            .map(Verified::new)
            .map_err(Error::Handshake)
    }

    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }
}

fn client(trust: &Trust, certificate: &Certificate) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Handshake)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(trust)))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(TICKETS)))
        .tls12_resumption(Tls12Resumption::Disabled);
    Ok(config)
}

fn server(trust: &Trust, certificate: &Certificate) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Handshake)?
        .with_client_cert_verifier(Arc::new(PeerVerifier::new(trust)))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ticketer = Ticketer::new().map_err(Error::Handshake)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, {:?})", self.certificate, self.trust)
    }
}
