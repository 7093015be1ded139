//! Certificates for the two proxies, made once a process. Every part of them has a fixed length, so that a seed replays byte
//! by byte.

use proxy_tls::{Certificate, Credentials, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

pub const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
pub const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";

/// What is trusted, and the certificates of the client and of the server.
pub static MADE: LazyLock<(Trust, Certificate, Certificate)> = LazyLock::new(|| {
    let issuer = issuer();
    let domain = "cluster.local".parse().expect("a trust domain");
    let trust = Trust::new(domain, [issuer.der().clone()]).expect("roots");
    (trust, leaf(&issuer, 2, CLIENT), leaf(&issuer, 3, SERVER))
});

/// Credentials of the proxy at the client and of the one at the server, without any memory of earlier connections.
pub fn credentials() -> (Credentials, Credentials) {
    let (trust, client, server) = &*MADE;
    let credentials = |certificate| Credentials::new(trust, certificate).expect("credentials");
    (credentials(client), credentials(server))
}

/// A new root.
pub fn issuer() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = parameters(1);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(parameters, key()).expect("a root")
}

/// Ed25519 signatures are all of one length.
fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("a key")
}

fn parameters(serial: u8) -> CertificateParams {
    let now = SystemTime::now();
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(SerialNumber::from(vec![serial]));
    parameters.not_before = (now - Duration::from_secs(3600)).into();
    parameters.not_after = (now + Duration::from_secs(3600)).into();
    parameters
}

/// A certificate of this root.
pub fn leaf(issuer: &CertifiedIssuer<'_, KeyPair>, serial: u8, identity: &str) -> Certificate {
    let mut parameters = parameters(serial);
    parameters.subject_alt_names = vec![SanType::URI(identity.try_into().expect("ASCII"))];
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = key();
    let chain = vec![parameters.signed_by(&key, issuer).expect("a leaf").der().clone()];
    Certificate::new(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into()).expect("a certificate")
}
