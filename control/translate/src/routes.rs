//! Which routes hold for a Service's port, by who dials it (GEP-1294).
//!
//! A *producer* route is beside the Service that is its parent, and holds for everybody. A *consumer* route is in another
//! namespace, holds for those who dial from there, and takes the place of all producer routes for them. Of either group one
//! kind holds: GRPCRoute before HTTPRoute before TLSRoute before TCPRoute. Hostnames of HTTPRoutes and GRPCRoutes say nothing
//! here; a TLSRoute has no other match, so its hostnames are held against the name that a TLS client asks for.

use crate::{
    Mesh,
    backends::{carries, declared},
    policies,
    rules::{self, Rules},
};
use control_index::{Index, Kind, Port, Route, RouteSpec, Service, manifest::ParentRef};
use policy::{Match, RouteRef, Routes, Rule, RuleTable, ServicePort, TlsRule};
use std::sync::Arc;

/// A route that holds, and its rules.
pub(crate) struct Holding<'a> {
    pub route: &'a Route,
    pub rules: Rules,
}

impl Mesh<'_> {
    /// The routes for those who dial a Service's port from a namespace.
    pub(crate) fn routes(&self, backend: &ServicePort, namespace: &str) -> Routes {
        let found = self.index.service(&backend.service);
        let Some((service, port)) = found.and_then(|service| Some((service, service.port(backend.port)?)))
        else {
            return Routes::None;
        };
        let holding = holding(self.index, service, port, namespace);
        let Some(kind) = holding.first().map(|one| one.route.key.kind) else { return Routes::None };
        let governed = holding.into_iter().map(|one| (one.route, self.governed(service, port, one)));
        match kind {
            Kind::GrpcRoute => Routes::Grpc(RuleTable::new(governed.flat_map(|(_, rules)| rules))),
            Kind::HttpRoute => Routes::Http(RuleTable::new(governed.flat_map(|(_, rules)| rules))),
            Kind::TlsRoute => Routes::Tls(governed.flat_map(|(route, rules)| tls(route, rules)).collect()),
            _ => {
                let first = governed.flat_map(|(_, rules)| rules).next();
                first.map_or(Routes::None, |(_, rule)| Routes::Tcp(Box::new(rule)))
            }
        }
    }

    /// A route's rules with what policies say about them.
    fn governed(&self, service: &Service, port: &Port, holding: Holding<'_>) -> Vec<(Vec<Match>, Rule)> {
        let mut rules = holding.rules.list;
        for (_, rule) in &mut rules {
            policies::govern(self.index, service, port, &holding.route.key, rule);
        }
        rules
    }
}

/// The routes that hold for a port of a Service and a namespace of its clients, by their age and their names.
pub(crate) fn holding<'a>(
    index: &'a Index,
    service: &Service,
    port: &Port,
    namespace: &str,
) -> Vec<Holding<'a>> {
    let own = &service.name.namespace;
    let consumer = if *namespace == **own { Vec::new() } else { group(index, service, port, namespace) };
    if consumer.is_empty() { group(index, service, port, own) } else { consumer }
}

/// Those of one namespace, of the kind that goes before the others there.
pub(crate) fn group<'a>(
    index: &'a Index,
    service: &Service,
    port: &Port,
    namespace: &str,
) -> Vec<Holding<'a>> {
    let protocol = declared(index, service, port);
    let mut kind = None;
    let mut found: Vec<(RouteRef, Holding<'a>)> = Vec::new();
    // They come by kind, the one that goes before the others first.
    for route in index.routes_of(&service.name).filter(|route| *route.key.namespace == *namespace) {
        if kind.is_some_and(|kind| kind != route.key.kind) {
            break;
        }
        let named = route.parent_refs().iter().any(|parent| names(route, parent, service, port));
        if !named || !carries(route.key.kind, protocol) {
            continue;
        }
        let rules = rules::read(index, route);
        if rules.refused.is_none() {
            kind = Some(route.key.kind);
            found.push((rules::source(route), Holding { route, rules }));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    if kind == Some(Kind::TcpRoute) {
        // It matches everything: a second one has nothing left to match.
        found.truncate(1);
    }
    found.into_iter().map(|(_, holding)| holding).collect()
}

/// A parent is this port of this Service, by its number, by its name, or because all ports are meant.
pub(crate) fn names(route: &Route, parent: &ParentRef, service: &Service, port: &Port) -> bool {
    route.parent_service(parent).is_some_and(|name| name == service.name) && means(parent, port)
}

/// Of a parent that is the port's Service.
pub(crate) fn means(parent: &ParentRef, port: &Port) -> bool {
    parent.port.is_none_or(|number| number == i32::from(port.number))
        && parent.section_name.as_deref().is_none_or(|name| name == port.name)
}

fn tls(route: &Route, rules: Vec<(Vec<Match>, Rule)>) -> Vec<TlsRule> {
    let RouteSpec::Tls(spec) = &route.spec else { return Vec::new() };
    let hostnames: Vec<Arc<str>> =
        spec.hostnames.iter().map(|name| name.to_ascii_lowercase().into()).collect();
    rules.into_iter().map(|(_, rule)| TlsRule { hostnames: hostnames.clone(), rule }).collect()
}
