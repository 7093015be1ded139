//! TLS to the endpoints of a Service that have no proxy, whose program speaks it (BackendTLSPolicy, GEP-1897). Between proxies the
//! mesh's own mTLS holds, of which nothing is here.

use crate::Origin;
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

/// Whom to expect, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTls {
    /// Asked for by SNI (RFC 6066 §3); the certificate must be for it, unless there are `alt_names`.
    pub hostname: Arc<str>,
    /// The certificate must be for one of these.
    pub alt_names: Vec<SubjectAltName>,
    pub authorities: Authorities,
    /// The object that asks for it.
    pub by: Origin,
}

/// Who may have signed the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// Those that browsers trust.
    WellKnown,
    /// These, in DER. None: the object names no valid one, and no connection is made.
    Given(Vec<Arc<[u8]>>),
}

/// A name in a certificate (RFC 5280 §4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubjectAltName {
    /// A hostname, or `*.` before one: then the certificate's name is that pattern or fits it.
    Hostname(Arc<str>),
    Uri(Arc<str>),
}

/// Endpoints are looked up by it: authorities are long, and whom it is for tells enough.
impl Hash for BackendTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hostname.hash(state);
        self.by.hash(state);
    }
}
