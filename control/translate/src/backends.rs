//! Where a rule leads to: Services and their ports, by weight.
//!
//! A route of the mesh may lead to Services of any namespace without a ReferenceGrant (GEP-1294): its clients could dial them
//! anyway, nothing is exposed by it.

use crate::{
    filters::{self, Level},
    findings::{ConditionReason, Notes},
};
use control_index::{Index, Kind, Port, Service, manifest};
use policy::{BackendRef, BackendSettings, Protocol, ServiceName, ServicePort, WeightedBackend};

/// The most that a weight may be (BackendRef.weight).
const WEIGHT_MOST: i32 = 1_000_000;

/// What is known when the references of a route are resolved.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub index: &'a Index,
    /// The route's kind and namespace.
    pub kind: Kind,
    pub namespace: &'a str,
}

/// The backends of a rule. One that leads nowhere keeps its weight: its part of the requests fails.
pub(crate) fn weighted(
    scope: Scope<'_>,
    backends: &[manifest::RouteBackendRef],
    notes: &mut Notes<'_>,
) -> Vec<WeightedBackend> {
    let read = |(at, one): (usize, &manifest::RouteBackendRef)| {
        let mut notes = notes.at(format_args!("backendRefs[{at}]"));
        let weight = one.weight.unwrap_or(1);
        if !(0..=WEIGHT_MOST).contains(&weight) {
            let what = format!("{weight} is no weight (0-{WEIGHT_MOST})");
            notes.at("weight").refuse(ConditionReason::UnsupportedValue, what);
        }
        let mut backend = match resolve(scope, &one.backend, &mut notes) {
            Ok(service) => BackendRef::Service(service),
            Err(why) => BackendRef::Unresolved(why.into()),
        };
        // A TLSRoute and a TCPRoute have none: what stands there is none of their schema.
        let written =
            if matches!(scope.kind, Kind::HttpRoute | Kind::GrpcRoute) { &*one.filters } else { &[] };
        let filters = filters::read(scope, written, Level::Backend, &mut notes);
        if let Some(why) = filters.broken {
            backend = BackendRef::Unresolved(why.into());
        }
        WeightedBackend {
            backend,
            weight: weight.clamp(0, WEIGHT_MOST) as u32,
            filters: filters.list,
            settings: BackendSettings::default(),
        }
    };
    backends.iter().enumerate().map(read).collect()
}

/// The Service port that a reference means, or why there is none, which is noted too.
pub(crate) fn resolve(
    scope: Scope<'_>,
    backend: &manifest::BackendRef,
    notes: &mut Notes<'_>,
) -> Result<ServicePort, String> {
    let mut nowhere = |field: &str, reason, what: String| {
        notes.at(field).unresolved(reason, what.clone());
        Err(what)
    };
    if !backend.is_service() {
        let kind = backend.kind.as_deref().unwrap_or("Service");
        let group = backend.group.as_deref().filter(|group| !group.is_empty());
        let what = match group {
            Some(group) => format!("{kind} of {group} is no kind of backend here; use a Service"),
            None => format!("{kind} is no kind of backend here; use a Service"),
        };
        return nowhere("kind", ConditionReason::InvalidKind, what);
    }
    let namespace = backend.namespace.as_deref().unwrap_or(scope.namespace);
    let name = ServiceName::new(namespace, &backend.name);
    let Some(service) = scope.index.service(&name) else {
        let what = format!("there is no Service {namespace}/{}", backend.name);
        return nowhere("name", ConditionReason::BackendNotFound, what);
    };
    let Some(number) = backend.port.and_then(|port| u16::try_from(port).ok()) else {
        let what = format!(
            "a Service is meant by its port; those of {namespace}/{} are {}",
            backend.name,
            ports(service)
        );
        return nowhere("port", ConditionReason::BackendNotFound, what);
    };
    let Some(port) = service.port(number) else {
        let what = format!(
            "Service {namespace}/{} has no TCP port {number}; its ports are {}",
            backend.name,
            ports(service)
        );
        return nowhere("port", ConditionReason::BackendNotFound, what);
    };
    let word = port.app_protocol.as_deref();
    let declared = word.and_then(|word| Protocol::from_app_protocol(word).ok()).unwrap_or_default();
    if !carries(scope.kind, declared) {
        let what = format!(
            "port {number} of Service {namespace}/{} says appProtocol: {}, to which {}s do not lead",
            backend.name,
            word.unwrap_or_default(),
            scope.kind
        );
        return nowhere("port", ConditionReason::UnsupportedProtocol, what);
    }
    Ok(name.port(number))
}

/// Can traffic of a route be sent to (or found at) a port that speaks this?
pub(crate) fn carries(kind: Kind, protocol: Protocol) -> bool {
    match kind {
        Kind::HttpRoute => !matches!(protocol, Protocol::Tls | Protocol::Opaque),
        Kind::GrpcRoute => !matches!(protocol, Protocol::Http1 | Protocol::Tls | Protocol::Opaque),
        _ => true,
    }
}

/// The numbers of a Service's ports, for people.
pub(crate) fn ports(service: &Service) -> String {
    match service.ports.as_slice() {
        [] => "none".into(),
        ports => ports.iter().map(|port| port.number.to_string()).collect::<Vec<_>>().join(", "),
    }
}

/// What a Service says that its port speaks.
pub(crate) fn declared(index: &Index, service: &Service, port: &Port) -> Protocol {
    if index.is_opaque_service(service, port.number) {
        return Protocol::Opaque;
    }
    let word = port.app_protocol.as_deref();
    word.and_then(|word| Protocol::from_app_protocol(word).ok()).unwrap_or_default()
}
