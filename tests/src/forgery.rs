//! Certificates that control would never give, by control's own key: to see them refused.

use crate::world::Control;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// The files of a certificate and of its key.
#[derive(Clone, Debug)]
pub struct Forged {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Forged {
    /// A certificate for `identity`, valid in this time in hours from now, in files in `folder`.
    pub fn new(control: &Control, folder: &Path, identity: &str, hours: Range<i32>) -> Self {
        let read = |file: &str| fs::read_to_string(control.state().join(file)).unwrap();
        let issuer_key = KeyPair::from_pem(&read("issuer.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("issuer.pem"), issuer_key).unwrap();
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        parameters.not_before = in_hours(hours.start).into();
        parameters.not_after = in_hours(hours.end).into();
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &issuer).unwrap();
        let forged = Self { certificate: folder.join("forged.pem"), key: folder.join("forged.key") };
        fs::write(&forged.certificate, certificate.pem()).unwrap();
        fs::write(&forged.key, key.serialize_pem()).unwrap();
        forged
    }
}

fn in_hours(hours: i32) -> SystemTime {
    let span = Duration::from_secs(3600 * u64::from(hours.unsigned_abs()));
    if hours < 0 { SystemTime::now() - span } else { SystemTime::now() + span }
}
