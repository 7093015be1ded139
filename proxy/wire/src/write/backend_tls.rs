//! TLS to programs without a proxy.

use crate::v1;
use policy::{
    BackendTls,
    backend_tls::{Authorities, SubjectAltName},
};

impl From<&BackendTls> for v1::BackendTls {
    fn from(tls: &BackendTls) -> Self {
        use v1::subject_alt_name::Name;
        let name = |name: &SubjectAltName| match name {
            SubjectAltName::Hostname(name) => Name::Hostname(name.as_ref().into()),
            SubjectAltName::Uri(uri) => Name::Uri(uri.as_ref().into()),
        };
        let (well_known, authorities) = match &tls.authorities {
            Authorities::WellKnown => (true, Vec::new()),
            Authorities::Given(given) => (false, given.iter().map(|der| der.to_vec()).collect()),
        };
        Self {
            hostname: tls.hostname.as_ref().into(),
            alt_names: tls.alt_names.iter().map(|one| v1::SubjectAltName { name: Some(name(one)) }).collect(),
            well_known,
            authorities,
            by: tls.by.as_str().into(),
        }
    }
}
