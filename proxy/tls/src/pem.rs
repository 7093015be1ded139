//! Certificates as text (RFC 7468), for people and their tools. Reading it is rustls-pki-types' matter.

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls_pki_types::CertificateDer;

/// Characters a line (RFC 7468 §2).
const LINE: usize = 64;

/// Each certificate in order.
pub(crate) fn pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    let mut text = String::new();
    for certificate in certificates {
        let encoded = BASE64_STANDARD.encode(certificate);
        text += "-----BEGIN CERTIFICATE-----\n";
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(LINE));
            text += line;
            text.push('\n');
            rest = after;
        }
        text += "-----END CERTIFICATE-----\n";
    }
    text
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
            assert!(text.lines().all(|line| line.len() <= LINE));
            let read: Vec<_> =
                CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().unwrap();
            assert_eq!(read, written, "{length}");
        }
    }
}
