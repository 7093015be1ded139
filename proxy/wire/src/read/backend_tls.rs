//! TLS to programs without a proxy. Whether an authority is a certificate, the handshake finds out.

use super::{each, text};
use crate::{Malformed, Problem, v1};
use policy::{
    BackendTls, Origin,
    backend_tls::{Authorities, SubjectAltName},
};

pub(super) fn backend_tls(message: &v1::BackendTls) -> Result<BackendTls, Malformed> {
    let authorities = match message.well_known {
        true => Authorities::WellKnown,
        false => Authorities::Given(message.authorities.iter().map(|der| der.as_slice().into()).collect()),
    };
    Ok(BackendTls {
        hostname: text::hostname("hostname", &message.hostname)?,
        alt_names: each("alt_names", &message.alt_names, alt_name)?,
        authorities,
        by: Origin::of(&message.by),
    })
}

fn alt_name(message: &v1::SubjectAltName) -> Result<SubjectAltName, Malformed> {
    use v1::subject_alt_name::Name;
    match &message.name {
        Some(Name::Hostname(name)) => text::hostname_pattern("hostname", name).map(SubjectAltName::Hostname),
        Some(Name::Uri(uri)) => text::present("uri", uri).map(SubjectAltName::Uri),
        None => Err(Malformed::new("name", Problem::Missing)),
    }
}
