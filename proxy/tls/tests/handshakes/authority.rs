//! An authority for the tests: roots, and leaves of any kind that one may want to see refused.

use proxy_tls::{Certificate, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::time::{Duration, SystemTime};

pub const DOMAIN: &str = "cluster.local";
pub const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
pub const ORDER: &str = "spiffe://cluster.local/ns/shop/sa/order";

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What stands in a leaf; `leaf(CART)` is a good one.
pub struct Leaf {
    pub names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub purposes: Vec<ExtendedKeyUsagePurpose>,
}

pub fn leaf(identity: &str) -> Leaf {
    let now = SystemTime::now();
    Leaf {
        names: vec![identity.into()],
        not_before: now - Duration::from_secs(3600),
        not_after: now + Duration::from_secs(3600),
        purposes: vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
    }
}

impl Leaf {
    /// Valid from and to so many seconds from now.
    pub fn valid(mut self, from: i64, to: i64) -> Self {
        let now = SystemTime::now();
        let at = |seconds: i64| {
            let span = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { now - span } else { now + span }
        };
        (self.not_before, self.not_after) = (at(from), at(to));
        self
    }

    pub fn only_for(mut self, purpose: ExtendedKeyUsagePurpose) -> Self {
        self.purposes = vec![purpose];
        self
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(parameters, key).expect("a root") }
    }

    /// A root above this authority's issuer: its leaves then come with an intermediate.
    pub fn below(&self, name: &str) -> Self {
        self.below_from(name, -3600)
    }

    /// The same, with an issuer that is valid from so many seconds from now.
    pub fn below_from(&self, name: &str, from: i64) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.not_before = leaf(CART).valid(from, from).not_before.into();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::signed_by(parameters, key, &self.issuer).expect("an issuer") }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn trust(&self) -> Trust {
        Trust::new(DOMAIN.parse().expect("a trust domain"), [self.root()]).expect("a root")
    }

    pub fn sign(&self, leaf: &Leaf, key: &impl rcgen::PublicKeyData) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names =
            leaf.names.iter().map(|name| SanType::URI(name.as_str().try_into().expect("ASCII"))).collect();
        parameters.not_before = leaf.not_before.into();
        parameters.not_after = leaf.not_after.into();
        parameters.extended_key_usages = leaf.purposes.clone();
        parameters.signed_by(key, &self.issuer).expect("a leaf").der().clone()
    }

    pub fn certificate(&self, leaf: &Leaf) -> Certificate {
        self.chain(leaf, &[])
    }

    pub fn chain(&self, leaf: &Leaf, intermediates: &[CertificateDer<'static>]) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let mut chain = vec![self.sign(leaf, &key)];
        chain.extend_from_slice(intermediates);
        Certificate::new(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into()).expect("a certificate")
    }
}
