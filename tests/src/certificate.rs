//! Certificates of servers that are none of the mesh's, each with an authority of its own.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files of a certificate, of its key, and of the authority that signed it.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authority: PathBuf,
}

impl Issued {
    /// A certificate of the common name `name` for `hostname`, in files of that name in `folder`.
    pub fn new(folder: &Path, name: &str, hostname: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![hostname.to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.signed_by(&key, &authority).unwrap();
        let file = |end: &str, text: String| {
            let path = folder.join(format!("{name}.{end}"));
            fs::write(&path, text).unwrap();
            path
        };
        Self {
            certificate: file("pem", certificate.pem()),
            key: file("key", key.serialize_pem()),
            authority: file("ca.pem", authority.pem()),
        }
    }
}
