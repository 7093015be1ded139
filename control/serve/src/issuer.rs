//! The authority that signs certificates: its root made at the first start, kept in the state folder, used again.
//!
//! Three files, each of which may be replaced while control runs: `issuer.key` and `issuer.pem` sign; `ca.pem` holds
//! the roots that proxies trust, several of them while one is being replaced. What is read is used only after a
//! certificate signed by it has been verified against these roots. When it is used is `succession`'s matter.

use crate::file;
use policy::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Clocks of hosts differ: certificates are valid from this long ago.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// How long a root of our own is valid.
const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);

pub const ISSUER: &str = "issuer.pem";
pub const ISSUER_KEY: &str = "issuer.key";
pub const ROOTS: &str = "ca.pem";

/// What signs, and the roots that it leads to.
pub struct Authority {
    signer: Arc<Signer>,
    roots: Vec<CertificateDer<'static>>,
    files: Files,
}

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// What goes with a leaf: the issuer and what stands above it, without roots.
    above: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
    /// `issuer.pem` and `issuer.key`.
    read: [Vec<u8>; 2],
}

/// The files as they were read, to see whether they changed.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    issuer: Vec<u8>,
    key: Vec<u8>,
    roots: Vec<u8>,
}

/// A certificate that was signed.
#[derive(Debug)]
pub struct Signed {
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    pub not_after: SystemTime,
}

/// The state folder holds nothing that control can sign with.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{path}")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{missing} is missing from {folder} while its companions are there; restore it, or remove issuer.pem, \
             issuer.key and ca.pem to begin with a new root (every proxy then needs the new ca.pem)"
    )]
    Incomplete { folder: PathBuf, missing: &'static str },
    #[error("{path} is malformed: {why}; restore it from a copy")]
    Malformed { path: PathBuf, why: String },
    #[error("issuer.pem and issuer.key in {folder} do not work with ca.pem: {why}")]
    Unusable { folder: PathBuf, why: String },
    #[error("signing failed")]
    Sign(#[from] rcgen::Error),
}

/// Why a CSR is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("the CSR is not PKCS #10 in DER")]
    Malformed,
    #[error("the CSR's signature was not made with its key")]
    Signature,
    #[error("the CSR's key is not ECDSA P-256 with SHA-256")]
    Key,
    #[error("the CSR asks for an extension that is never granted; leave all of them out")]
    Extension,
}

impl Authority {
    /// Reads the authority of a state folder, or makes one where there is none at all.
    pub fn open(folder: &Path, trust_domain: &TrustDomain) -> Result<Self, AuthorityError> {
        let present = [ISSUER, ISSUER_KEY, ROOTS].map(|name| folder.join(name).exists());
        if present == [false; 3] {
            create(folder, trust_domain)?;
        }
        Self::read(folder, trust_domain)
    }

    /// Reads the authority again; `None` when no file has changed.
    pub fn reread(&self, folder: &Path, trust_domain: &TrustDomain) -> Result<Option<Self>, AuthorityError> {
        match Files::read(folder)? == self.files {
            true => Ok(None),
            false => Self::read(folder, trust_domain).map(Some),
        }
    }

    fn read(folder: &Path, trust_domain: &TrustDomain) -> Result<Self, AuthorityError> {
        let malformed = |name, why: String| AuthorityError::Malformed { path: folder.join(name), why };
        let files = Files::read(folder)?;
        let issuers = certificates(&files.issuer).map_err(|why| malformed(ISSUER, why))?;
        let roots = certificates(&files.roots).map_err(|why| malformed(ROOTS, why))?;
        let key = String::from_utf8_lossy(&files.key);
        let key = KeyPair::from_pem(&key).map_err(|error| malformed(ISSUER_KEY, error.to_string()))?;
        let first = issuers.first().ok_or_else(|| malformed(ISSUER, "it holds no certificate".into()))?;
        let not_after = not_after(first).map_err(|why| malformed(ISSUER, why))?;
        // Two roots of ours bear the same name: what another key signs might be accepted under one of them.
        if !certifies(first, &key).map_err(|why| malformed(ISSUER, why))? {
            let why = format!("{ISSUER_KEY} is not the key of {ISSUER}");
            return Err(AuthorityError::Unusable { folder: folder.into(), why });
        }
        let issuer =
            Issuer::from_ca_cert_der(first, key).map_err(|error| malformed(ISSUER, error.to_string()))?;
        let above = issuers.into_iter().filter(|one| !roots.contains(one)).collect();
        let read = [files.issuer.clone(), files.key.clone()];
        let authority = Self { signer: Arc::new(Signer { issuer, above, not_after, read }), roots, files };
        match authority.verify(&authority.roots, trust_domain)? {
            None => Ok(authority),
            Some(why) => Err(AuthorityError::Unusable { folder: folder.into(), why }),
        }
    }

    /// These roots and what was read with them, while `signer` goes on to sign.
    pub fn signed_by(&self, signer: &Self) -> Self {
        Self { signer: Arc::clone(&signer.signer), roots: self.roots.clone(), files: self.files.clone() }
    }

    /// Whether both sign with the same key and certificates.
    pub fn signs_as(&self, other: &Self) -> bool {
        self.signer.read == other.signer.read
    }

    /// Whether who trusts these roots, and no others, accepts what it signs.
    pub fn leads_to(&self, roots: &[CertificateDer<'static>], trust_domain: &TrustDomain) -> bool {
        self.verify(roots, trust_domain).is_ok_and(|refused| refused.is_none())
    }

    /// Signs for a moment and verifies as a proxy would: finds a key that does not fit, an issuer that has expired or
    /// may not sign, and roots that the issuer does not lead to. Answers why it would be refused.
    fn verify(
        &self,
        roots: &[CertificateDer<'static>],
        trust_domain: &TrustDomain,
    ) -> Result<Option<String>, AuthorityError> {
        let identity = SpiffeId::new(trust_domain, "weft-system", "weft-control").expect("these are names");
        let key = KeyPair::generate()?;
        let now = SystemTime::now();
        let signed = self.sign(&key, &identity, Duration::from_secs(60), now)?;
        let anchors = match roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>() {
            Ok(anchors) => anchors,
            Err(error) => return Ok(Some(format!("a root: {error}"))),
        };
        let leaf = match EndEntityCert::try_from(&signed.chain[0]) {
            Ok(leaf) => leaf,
            Err(error) => return Ok(Some(error.to_string())),
        };
        let time = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let above = &signed.chain[1..];
        let verified =
            leaf.verify_for_usage(algorithms, &anchors, above, time, KeyUsage::server_auth(), None, None);
        Ok(verified.err().map(|error| format!("a certificate signed by them is refused: {error}")))
    }

    /// Signs a certificate for the holder of `key`. It does not outlive the issuer.
    pub fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Signed, AuthorityError> {
        let signer = &*self.signer;
        let not_after = (now + lifetime).min(signer.not_after);
        let mut params = CertificateParams::default();
        // A subject that is not empty keeps the SAN from being critical (RFC 5280 §4.1.2.6); nobody reads it.
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Weft");
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        params.serial_number = Some(serial());
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &signer.issuer)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(signer.above.iter().cloned());
        Ok(Signed { chain, not_after })
    }

    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The roots as they were read.
    pub fn roots_pem(&self) -> &[u8] {
        &self.files.roots
    }

    /// When the issuer's own certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.signer.not_after
    }
}

impl Files {
    fn read(folder: &Path) -> Result<Self, AuthorityError> {
        let read = |missing: &'static str| {
            let path = folder.join(missing);
            fs::read(&path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => AuthorityError::Incomplete { folder: folder.into(), missing },
                _ => AuthorityError::File { path, source },
            })
        };
        Ok(Self { issuer: read(ISSUER)?, key: read(ISSUER_KEY)?, roots: read(ROOTS)? })
    }
}

/// The key of a CSR (RFC 2986). Its names and extensions are not looked at: the token says who asks.
pub fn requested_key(csr: &[u8]) -> Result<impl PublicKeyData + use<>, CsrError> {
    let csr = CertificateSigningRequestParams::from_der(&csr.into()).map_err(|error| match error {
        rcgen::Error::InvalidCertificationRequestSignature => CsrError::Signature,
        rcgen::Error::UnsupportedSignatureAlgorithm => CsrError::Key,
        rcgen::Error::UnsupportedExtension => CsrError::Extension,
        _ => CsrError::Malformed,
    })?;
    // SEC 1 §2.3.3: an uncompressed point of P-256 is 65 bytes; the algorithm alone does not say which curve it is.
    let point = csr.public_key.der_bytes();
    let p256 = *csr.public_key.algorithm() == PKCS_ECDSA_P256_SHA256;
    if !p256 || point.len() != 65 || point[0] != 4 {
        return Err(CsrError::Key);
    }
    Ok(csr.public_key)
}

/// Writes a root of our own. `issuer.pem` comes last: once it is there, all is.
fn create(folder: &Path, trust_domain: &TrustDomain) -> Result<(), AuthorityError> {
    for (name, text) in root(trust_domain)? {
        let path = folder.join(name);
        let mode = if name == ISSUER_KEY { file::SECRET } else { file::PUBLIC };
        file::write(&path, text.as_bytes(), mode).map_err(|source| AuthorityError::File { path, source })?;
    }
    tracing::info!("made a root for {trust_domain} in {}", folder.display());
    Ok(())
}

/// Makes a root of our own: the files that hold it, by name.
pub fn root(trust_domain: &TrustDomain) -> Result<[(&'static str, String); 3], AuthorityError> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Weft");
    params.distinguished_name.push(DnType::CommonName, format!("Weft root of {trust_domain}"));
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    params.serial_number = Some(serial());
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let root = params.self_signed(&key)?.pem();
    Ok([(ISSUER_KEY, key.serialize_pem()), (ROOTS, root.clone()), (ISSUER, root)])
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() {
        return Err("it holds no certificate in PEM".into());
    }
    Ok(found)
}

fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let seconds =
        u64::try_from(parsed.validity().not_after.timestamp()).map_err(|error| error.to_string())?;
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Whether it is the certificate of this key.
fn certifies(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<bool, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    Ok(*parsed.public_key().subject_public_key.data == *key.der_bytes())
}

/// 16 random bytes, positive (RFC 5280 §4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes = [0; 16];
    random(&mut bytes);
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// Fills `bytes` from the cryptography library's generator.
pub fn random(bytes: &mut [u8]) {
    aws_lc_rs::default_provider().secure_random.fill(bytes).expect("the system gives random bytes");
}
