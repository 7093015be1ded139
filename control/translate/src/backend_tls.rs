//! BackendTLSPolicies (GEP-1897): whom to expect at the endpoints of a Service's port that have no proxy, and who vouches for it.
//!
//! The policy of a port (`sectionName`) goes before the Service's; of two at one place the older one is heard, then the first by
//! name. What is heard and cannot be taken as it is written is kept all the same, with no authority: connections fail then,
//! where they would be plaintext without it.

use crate::{
    findings::ConditionReason,
    policies::attached,
    rules::origin,
    verdicts::{Refusal, governs},
};
use control_index::{
    Index, Key, Kind, Policy, PolicySpec, Port, Problem, Service, Target,
    manifest::{BackendTlsValidation, LocalObjectReference, SubjectAltName as Written},
};
use policy::{
    BackendTls, ServiceName, ServicePort,
    backend_tls::{Authorities, SubjectAltName},
    form::is_hostname_pattern,
    names::is_subdomain,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{net::IpAddr, sync::Arc};

/// The one set of well-known authorities that the mesh knows.
const SYSTEM: &str = "System";
/// What is asked for where the name is none: nobody has it (RFC 6761 §6.4), and nobody is asked.
const NOBODY: &str = "invalid";
/// The tag of a SEQUENCE (X.690 §8.9), of which a certificate is one.
const SEQUENCE: u8 = 0x30;

/// What was read of a policy.
pub(crate) struct Said {
    pub tls: BackendTls,
    /// Why nothing holds of it but that connections fail.
    pub refused: Option<Refusal>,
    /// References that lead to no certificate.
    pub unresolved: Vec<Refusal>,
}

/// What holds for the endpoints of a Service's port that have no proxy.
pub(crate) fn of_port(index: &Index, backend: &ServicePort) -> Option<BackendTls> {
    let service = index.service(&backend.service)?;
    let policy = heard(index, service, service.port(backend.port)?)?;
    Some(read(index, policy)?.tls)
}

/// The policy that goes before all others at a port.
fn heard<'a>(index: &'a Index, service: &Service, port: &Port) -> Option<&'a Policy> {
    let key = Key::new(Kind::Service, &service.name.namespace, &service.name.name);
    let at = |section| attached(index, Kind::BackendTlsPolicy, &key, section).into_iter().next();
    at(Some(&*port.name)).or_else(|| at(None))
}

/// Reads a policy; `None` for one of another kind.
pub(crate) fn read(index: &Index, policy: &Policy) -> Option<Said> {
    let PolicySpec::BackendTls(spec) = &policy.spec else { return None };
    let validation = &spec.validation;
    let mut refused = misnamed(validation).or_else(|| unvouched(validation));
    let mut unresolved = Vec::new();
    let mut given = Vec::new();
    for (at, reference) in validation.ca_certificate_refs.iter().enumerate() {
        match certificates(index, &policy.key.namespace, reference) {
            Ok(certificates) => given.extend(certificates),
            Err((field, reason, what)) => {
                let field = format!("spec.validation.caCertificateRefs[{at}].{field}");
                unresolved.push(Refusal { reason, field, what });
            }
        }
    }
    if let (None, Some(first), true) = (&refused, unresolved.first(), given.is_empty()) {
        let what = format!("{}: {}; no authority is left, and {FAILS}", first.field, first.what);
        refused = Some(Refusal { reason: ConditionReason::NoValidCaCertificate, field: String::new(), what });
    }
    let tls = match (&refused, validation.ca_certificate_refs.is_empty()) {
        (Some(_), _) => failing(policy, validation),
        (None, true) => tls(policy, validation, Authorities::WellKnown),
        (None, false) => tls(policy, validation, Authorities::Given(given)),
    };
    Some(Said { tls, refused, unresolved })
}

/// What follows from a policy that cannot be taken.
pub(crate) const FAILS: &str = "connections to endpoints without a proxy fail";

/// Ports where every endpoint has a proxy: what a policy says there changes nothing.
pub fn remarks(index: &Index, key: &Key) -> Vec<Problem> {
    let policy = index.policy(key).filter(|_| key.kind == Kind::BackendTlsPolicy);
    let holds = |policy: &Policy, target: &Target| governs(index, policy, target).is_ok();
    let idle = policy.into_iter().flat_map(|policy| {
        let targets = policy.targets().into_iter().filter(|target| holds(policy, target));
        targets.filter(|target| all_have_proxies(index, target)).map(|target| Problem {
            object: key.clone(),
            field: format!("spec.targetRefs[{}]", target.at),
            what: format!(
                "every endpoint of {} has a proxy: the mesh's mTLS holds there, and the policy changes nothing",
                target.object
            ),
        })
    });
    idle.collect()
}

fn all_have_proxies(index: &Index, target: &Target) -> bool {
    let name = ServiceName::new(&target.object.namespace, &target.object.name);
    let ports = index.service(&name).map(|service| service.ports.as_slice()).unwrap_or_default();
    let meant = ports.iter().filter(|port| target.section.as_deref().is_none_or(|name| *name == port.name));
    let mut backings = meant.flat_map(|port| index.endpoints(&name.port(port.number), None)).peekable();
    backings.peek().is_some() && backings.all(|one| one.pod.is_some_and(|pod| pod.meshed))
}

fn tls(policy: &Policy, validation: &BackendTlsValidation, authorities: Authorities) -> BackendTls {
    BackendTls {
        hostname: validation.hostname.as_str().into(),
        alt_names: validation.subject_alt_names.iter().filter_map(alt_name).collect(),
        authorities,
        by: origin(&policy.key),
    }
}

/// Nobody vouches for anybody.
fn failing(policy: &Policy, validation: &BackendTlsValidation) -> BackendTls {
    let tls = tls(policy, validation, Authorities::Given(Vec::new()));
    match is_name(&tls.hostname) {
        true => tls,
        false => BackendTls { hostname: NOBODY.into(), ..tls },
    }
}

/// A name that is none.
fn misnamed(validation: &BackendTlsValidation) -> Option<Refusal> {
    let invalid = |field: String, what: String| {
        let what = format!("{what}; {FAILS}");
        Refusal { reason: ConditionReason::Invalid, field: format!("spec.validation.{field}"), what }
    };
    let hostname = &validation.hostname;
    if !is_name(hostname) {
        return Some(invalid("hostname".into(), format!("{hostname:?} is no hostname in lower case")));
    }
    let mut names = validation.subject_alt_names.iter().enumerate();
    names.find(|(_, name)| alt_name(name).is_none()).map(|(at, name)| {
        let what = match &*name.type_ {
            "Hostname" => format!("{:?} is no hostname in lower case, nor *. before one", name.hostname),
            "URI" => format!("{:?} is no URI with a scheme", name.uri),
            other => format!("{other:?} is no type of a name: Hostname and URI are"),
        };
        invalid(format!("subjectAltNames[{at}]"), what)
    })
}

/// What says nothing of who vouches for a certificate, or two things.
fn unvouched(validation: &BackendTlsValidation) -> Option<Refusal> {
    let given = !validation.ca_certificate_refs.is_empty();
    let known = validation.well_known_ca_certificates.as_deref().filter(|word| !word.is_empty());
    let (field, what) = match (given, known) {
        (true, None) | (false, Some(SYSTEM)) => return None,
        (true, Some(_)) => {
            ("caCertificateRefs", "wellKnownCACertificates is set too, and one of them can hold".to_owned())
        }
        (false, Some(other)) => {
            ("wellKnownCACertificates", format!("{other:?} is not known here; {SYSTEM} is"))
        }
        (false, None) => {
            ("caCertificateRefs", "there are none, and no wellKnownCACertificates either".to_owned())
        }
    };
    let (field, what) = (format!("spec.validation.{field}"), format!("{what}; {FAILS}"));
    Some(Refusal { reason: ConditionReason::Invalid, field, what })
}

/// A field within a reference, and what is wrong there.
type Fault = (&'static str, ConditionReason, String);

/// The certificates that a reference leads to, in DER.
fn certificates(
    index: &Index,
    namespace: &str,
    reference: &LocalObjectReference,
) -> Result<Vec<Arc<[u8]>>, Fault> {
    let LocalObjectReference { group, kind, name } = reference;
    if !(group.is_empty() && kind == Kind::ConfigMap.as_str()) {
        let of = if group.is_empty() { String::new() } else { format!(" of {group}") };
        let what = format!("{kind}{of} holds no certificates here; a ConfigMap does");
        return Err(("kind", ConditionReason::InvalidKind, what));
    }
    let wrong = |what: String| ("name", ConditionReason::InvalidCaCertificateRef, what);
    let pem = index.authorities(namespace, name).ok_or_else(|| {
        wrong(format!(
            "there is no ConfigMap {namespace}/{name} with certificates in PEM under its key ca.crt"
        ))
    })?;
    let mut found: Vec<Arc<[u8]>> = Vec::new();
    for one in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = one.ok().filter(|der| is_sequence(der)).ok_or_else(|| {
            wrong(format!(
                "certificate {} in ca.crt of ConfigMap {namespace}/{name} is none",
                found.len() + 1
            ))
        })?;
        found.push(der.as_ref().into());
    }
    match found.is_empty() {
        true => Err(wrong(format!("ca.crt of ConfigMap {namespace}/{name} holds no certificate in PEM"))),
        false => Ok(found),
    }
}

/// One SEQUENCE, all of it (X.690 §8.1.3). What is in it, the handshake finds out.
fn is_sequence(der: &[u8]) -> bool {
    let [SEQUENCE, length, rest @ ..] = der else { return false };
    let long = usize::from(length & 0x7f);
    match (length & 0x80, rest.split_at_checked(long)) {
        (0, _) => rest.len() == long,
        (_, Some((length, content))) if (1..=4).contains(&long) => {
            length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)) == content.len() as u64
        }
        _ => false,
    }
}

/// A name that an SNI can carry (RFC 6066 §3).
fn is_name(text: &str) -> bool {
    is_subdomain(text) && text.parse::<IpAddr>().is_err()
}

fn alt_name(written: &Written) -> Option<SubjectAltName> {
    match &*written.type_ {
        "Hostname"
            if is_hostname_pattern(&written.hostname) && written.hostname.parse::<IpAddr>().is_err() =>
        {
            Some(SubjectAltName::Hostname(written.hostname.as_str().into()))
        }
        "URI" if is_uri(&written.uri) => Some(SubjectAltName::Uri(written.uri.as_str().into())),
        _ => None,
    }
}

/// A scheme, a colon and something (RFC 3986 §3).
fn is_uri(text: &str) -> bool {
    let scheme = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    let split = text.split_once(':');
    split.is_some_and(|(name, rest)| scheme(name) && !rest.is_empty())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_one_sequence_and_all_of_it() {
        let long = |length: usize| {
            [&[SEQUENCE, 0x82, (length >> 8) as u8, length as u8][..], &vec![0; length]].concat()
        };
        for (der, is_one) in [
            (vec![SEQUENCE, 0], true),
            (vec![SEQUENCE, 2, 5, 0], true),
            (long(300), true),
            (vec![], false),
            (vec![SEQUENCE], false),
            (vec![4, 0], false),
            (vec![SEQUENCE, 3, 5, 0], false),
            (vec![SEQUENCE, 1, 5, 0], false),
            (vec![SEQUENCE, 0x80, 0, 0], false),
            (vec![SEQUENCE, 0x85, 0, 0, 0, 0, 0], false),
            (vec![SEQUENCE, 0x82, 1], false),
            (long(300)[..200].to_vec(), false),
        ] {
            assert_eq!(is_sequence(&der), is_one, "{der:x?}");
        }
    }

    #[test]
    fn names_have_a_form() {
        for (text, is_one) in [("a.example", true), ("a", true), ("10.0.0.1", false), ("*.a.example", false)]
        {
            assert_eq!(is_name(text), is_one, "{text}");
        }
        let uris =
            [("spiffe://a.example/b", true), ("a:b", true), ("a:", false), (":b", false), ("a b:c", false)];
        for (text, is_one) in uris {
            assert_eq!(is_uri(text), is_one, "{text}");
        }
    }
}
