//! Certificates as people ask about them: who, vouched for by whom, until when. Nothing is trusted by this.

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a certificate says (RFC 5280).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    /// The URI among its alternative names: the SPIFFE ID of a workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The DNS names among its alternative names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Hexadecimal, as in `a1:b2`.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    #[serde(skip)]
    der: Vec<u8>,
}

impl Certificate {
    /// Every certificate in PEM (RFC 7468), in order; at least one. The error says what is wrong with the text.
    pub fn all(pem: &str) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        for (number, block) in (1..).zip(Pem::iter_from_buffer(pem.as_bytes())) {
            let block = block.map_err(|error| format!("it is no PEM: {error}"))?;
            if block.label == "CERTIFICATE" {
                all.push(
                    Self::parse(block.contents).map_err(|error| format!("certificate {number}: {error}"))?,
                );
            }
        }
        if all.is_empty() { Err("there is no certificate in it".into()) } else { Ok(all) }
    }

    fn parse(der: Vec<u8>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let names = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let time = |seconds| Timestamp::from_second(seconds).map_err(|error| error.to_string());
        Ok(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            uri: names.iter().find_map(|name| match name {
                GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            }),
            dns_names: names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                })
                .collect(),
            serial: parsed.raw_serial_as_string(),
            not_before: time(parsed.validity().not_before.timestamp())?,
            not_after: time(parsed.validity().not_after.timestamp())?,
            der,
        })
    }

    /// Whether this one's key has signed `other`.
    pub fn vouches_for(&self, other: &Self) -> bool {
        let parse = |certificate: &Self| {
            X509Certificate::from_der(&certificate.der)
                .map(|(_, parsed)| (parsed.subject().as_raw().to_vec(), parsed.issuer().as_raw().to_vec()))
        };
        let (Ok((subject, _)), Ok((_, issuer))) = (parse(self), parse(other)) else { return false };
        let (Ok((_, signer)), Ok((_, signed))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&other.der))
        else {
            return false;
        };
        subject == issuer && signed.verify_signature(Some(signer.public_key())).is_ok()
    }

    /// Whether the bytes are the same.
    pub fn is(&self, other: &Self) -> bool {
        self.der == other.der
    }
}
