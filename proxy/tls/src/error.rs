//! What goes wrong in a handshake or with a certificate: whose fault, which reason, in words for people.

use policy::{Reason, SpiffeId};
use rustls::{CertificateError, Error as Rustls};
use std::{io, sync::Arc};

/// An error of this crate.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No root, or one that is no certificate.
    #[error("the trust anchors cannot be used: {0}")]
    Roots(String),
    /// What control signed does not fit what was asked for, or is no certificate.
    #[error("the issued certificate cannot be used: {0}")]
    Issued(String),
    /// The system made no key.
    #[error("no key could be made: {0}")]
    Key(String),
    /// The identity has no DNS form, so it cannot stand in an SNI.
    #[error("{0} is too long a name for TLS")]
    Unnameable(SpiffeId),
    /// The peer's certificate or protocol is not what it must be.
    #[error("{0}")]
    Peer(#[from] Refusal),
    /// The handshake failed.
    #[error("{}", detail(.0))]
    Handshake(#[source] Rustls),
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This proxy's, or its configuration's.
    Ours,
    /// Control's.
    Issuer,
    /// The peer's, or of whatever answers there.
    Peer,
}

/// Why a peer that speaks TLS is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// Its certificate must hold exactly one URI (SPIFFE X509-SVID §2), an identity of the mesh's form.
    #[error("the peer's certificate holds no identity: {0}")]
    NoIdentity(String),
    #[error("expected {expected} but the peer is {actual}")]
    WrongIdentity { expected: SpiffeId, actual: SpiffeId },
    #[error("the peer is {actual}, of another trust domain than {expected}")]
    ForeignDomain { expected: policy::TrustDomain, actual: SpiffeId },
    #[error("{0:?} names no identity of the mesh")]
    UnknownName(String),
    /// Its certificate is for these names, of which none is asked for.
    #[error("the peer's certificate is for other names: {0}")]
    OtherNames(String),
    #[error("the peer does not speak {expected}")]
    NoProtocol { expected: &'static str },
}

impl Error {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Roots(_) | Self::Key(_) | Self::Unnameable(_) => Fault::Ours,
            Self::Issued(_) => Fault::Issuer,
            Self::Peer(_) | Self::Handshake(_) => Fault::Peer,
        }
    }

    pub fn reason(&self) -> Reason {
        match self {
            Self::Roots(_) | Self::Issued(_) | Self::Key(_) => Reason::ProxyInternalError,
            Self::Unnameable(_) => Reason::TlsCertificateError,
            Self::Peer(Refusal::NoProtocol { .. }) => Reason::TlsProtocolError,
            Self::Peer(_) => Reason::TlsCertificateError,
            Self::Handshake(error) => reason(error),
        }
    }
}

/// The reason to report for a failed handshake or connection.
pub fn reason(error: &Rustls) -> Reason {
    match error {
        Rustls::InvalidCertificate(_) | Rustls::NoCertificatesPresented => Reason::TlsCertificateError,
        Rustls::AlertReceived(_) => Reason::TlsAlertReceived,
        _ => Reason::TlsProtocolError,
    }
}

/// What happened, in a sentence for people.
pub fn detail(error: &Rustls) -> String {
    match error {
        Rustls::InvalidCertificate(error) => match error {
            CertificateError::Other(other) => match other.0.downcast_ref() {
                Some(webpki::Error::CaUsedAsEndEntity) => {
                    "the peer shows the certificate of an authority (CA:TRUE), where one is needed that an authority \
                     has signed"
                        .into()
                }
                _ => other.to_string(),
            },
            CertificateError::UnknownIssuer => {
                "the peer's certificate is of no root that is trusted here".into()
            }
            CertificateError::BadSignature => "the peer's certificate or handshake is forged".into(),
            CertificateError::ExpiredContext { time, not_after } => {
                let since = time.as_secs().saturating_sub(not_after.as_secs());
                format!("the peer's certificate expired {since} s ago")
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                let until = not_before.as_secs().saturating_sub(time.as_secs());
                format!("the peer's certificate is valid only in {until} s: compare the clocks")
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "the peer's certificate is not meant for this side of a connection".into()
            }
            other => format!("the peer's certificate: {other}"),
        },
        Rustls::NoCertificatesPresented => Refusal::NoCertificate.to_string(),
        Rustls::AlertReceived(alert) => format!("the peer refused us by the TLS alert {alert:?}"),
        other => format!("TLS: {other}"),
    }
}

/// The TLS error inside an I/O error, where there is one: that is how streams over TLS report it.
pub fn tls_error(error: &io::Error) -> Option<&Rustls> {
    error.get_ref()?.downcast_ref()
}

impl From<Refusal> for Rustls {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(refusal))))
    }
}
