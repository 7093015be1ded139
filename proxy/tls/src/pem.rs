//! Certificates as text (RFC 7468), for people and their tools. Reading it is rustls-pki-types' matter.

use pem::{EncodeConfig, LineEnding, Pem, encode_many_config};
use rustls_pki_types::CertificateDer;

/// Each certificate in order.
pub(crate) fn pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    let blocks: Vec<Pem> =
        certificates.into_iter().map(|one| Pem::new("CERTIFICATE", one.as_ref())).collect();
    encode_many_config(&blocks, EncodeConfig::new().set_line_ending(LineEnding::LF))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn what_is_written_is_read_again() {
        for length in [0, 1, 47, 48, 49, 96, 1000] {
            let written = [CertificateDer::from(vec![0xa5; length]), CertificateDer::from(vec![1, 2, 3])];
            let text = pem(&written);
            // RFC 7468 §2.
            assert!(text.lines().all(|line| line.len() <= 64));
            let read: Vec<_> =
                CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().unwrap();
            assert_eq!(read, written, "{length}");
        }
    }
}
