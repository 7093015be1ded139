//! Two ends of a connection in one place: bytes are carried by hand until both are done, or one refuses.

use proxy_tls::{Credentials, server_name};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

pub type Pair = (ClientConnection, ServerConnection);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// A handshake, tickets included, or who refused it and how.
pub fn shake(client: &Credentials, server: &Credentials, expected: &str) -> Result<Pair, (Side, Error)> {
    shake_as(&client.client, &server.server, expected)
}

pub fn shake_as(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    expected: &str,
) -> Result<Pair, (Side, Error)> {
    let (mut client, mut server) = ends(client, server, expected);
    while carry(&mut client, &mut server).map_err(|error| (Side::Server, error))?
        | carry(&mut server, &mut client).map_err(|error| (Side::Client, error))?
    {}
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

/// What the server learns when the client refuses it.
pub fn told(client: &Credentials, server: &Credentials, expected: &str) -> Error {
    let (mut client, mut server) = ends(&client.client, &server.server, expected);
    carry(&mut client, &mut server).expect("a ClientHello");
    carry(&mut server, &mut client).expect_err("the client refuses");
    carry(&mut client, &mut server).expect_err("the server is told")
}

fn ends(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, expected: &str) -> Pair {
    let name = server_name(&expected.parse().expect("an identity")).expect("a server name");
    (
        ClientConnection::new(Arc::clone(client), name).expect("a client"),
        ServerConnection::new(Arc::clone(server)).expect("a server"),
    )
}

/// Carries what `from` has to say; whether it was anything.
fn carry<F, T>(
    from: &mut rustls::ConnectionCommon<F>,
    to: &mut rustls::ConnectionCommon<T>,
) -> Result<bool, Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("memory takes all");
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("memory gives all");
        to.process_new_packets()?;
    }
    Ok(!bytes.is_empty())
}

/// A client that believes everyone and shows nothing.
pub fn client_without_certificate() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(anybody())
        .with_no_client_auth()
}

pub fn anybody() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anybody)
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
