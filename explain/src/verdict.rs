//! What is decided about a request or a connection, and why, as a value that can be printed.

use crate::{
    Ask, Setting,
    settings::{of_backend, of_requests},
};
use policy::{
    Action, BackendRef, BackendSettings, BackendTls, Decision, Endpoint, Filter, Forward, Outbound, Reason,
    Rewrite, ServicePort, Target, Trace, WeightedBackend,
    backend_tls::{Authorities, SubjectAltName},
    path::split,
    route, route_connection,
};
use serde::Serialize;

/// A decision and its reasons.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// `GET /p/7`
    pub asked: String,
    /// `Service product.shop:8080`
    pub target: String,
    /// What the destination speaks, as far as control knows.
    pub protocol: String,
    pub outcome: Outcome,
    /// `HTTPRoute shop/product rules[0]`; `None`: no rule holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The match that the rule was found by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// All rules of the destination, in the order in which they are tried.
    pub considered: Vec<Considered>,
    pub filters: Vec<String>,
    /// The path that a backend is asked for, where a filter changes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub backends: Vec<Backend>,
    pub settings: Vec<Setting>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// `forward`, `redirect`, `preflight`, `respond`, `refuse`.
    pub action: &'static str,
    /// In a few words.
    pub says: String,
    /// Of an answer that the proxy makes itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Why>,
}

/// A reason for which nobody takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// `destination_not_found`
    pub word: &'static str,
    pub says: &'static str,
    pub remedy: &'static str,
    pub status: u16,
    pub grpc_status: u16,
}

/// One match of one rule, and how it fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    pub rule: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// `None`: it holds.
    pub lost: Option<String>,
}

/// Where it may go.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// `product.shop:8080`, or why it leads nowhere.
    pub to: String,
    pub resolved: bool,
    pub weight: u32,
    /// Of the requests, with three places.
    pub percent: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
    /// `None`: not known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<EndpointView>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView {
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Who must answer there by mTLS; `None`: no proxy.
    pub identity: Option<String>,
    /// How the program itself is spoken to where there is no proxy; `None`: in plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// TLS to a program without a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// The name that is asked for by SNI.
    pub hostname: String,
    /// The certificate must be for one of these; empty: for the hostname.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alt_names: Vec<String>,
    pub authorities: Vouching,
    /// `BackendTLSPolicy shop/product`
    pub by: String,
}

/// Who vouches for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Vouching {
    /// Those that browsers trust.
    WellKnown,
    /// Those that the object names.
    Given,
    /// Nobody: no connection is made.
    None,
}

/// The endpoints of a backend, where whoever asks knows them.
pub type Endpoints<'a> = &'a dyn Fn(&ServicePort) -> Option<Vec<Endpoint>>;

/// Decides about a request, and says why.
pub fn request(policy: &Outbound, ask: &Ask, endpoints: Endpoints<'_>) -> Verdict {
    let mut trace = Trace::default();
    let decision = route(policy, &ask.facts(), &mut trace);
    let mut verdict = verdict(policy, ask.to_string(), &decision, trace, endpoints);
    verdict.path = path(&decision, ask);
    let Outcome { reason, says, .. } = &mut verdict.outcome;
    if let Some(why) = reason.as_ref().filter(|_| ask.grpc) {
        *says = format!("the proxy answers gRPC status {}: {}", why.grpc_status, why.word);
    }
    verdict
}

/// Decides about a connection whose bytes nobody reads; `sni` is the name that a TLS client asks for, empty if none, and `None` for
/// what is no TLS.
pub fn connection(policy: &Outbound, sni: Option<&str>, endpoints: Endpoints<'_>) -> Verdict {
    let mut trace = Trace::default();
    let asked = match sni {
        None => "a connection".to_owned(),
        Some("") => "a TLS connection without a name".to_owned(),
        Some(name) => format!("a TLS connection to {name}"),
    };
    let name = sni.map(|name| Some(name).filter(|name| !name.is_empty()));
    let decision = route_connection(policy, name, &mut trace);
    let mut verdict = verdict(policy, asked, &decision, trace, endpoints);
    let Outcome { reason, says, status, .. } = &mut verdict.outcome;
    // Bytes get no answer of HTTP.
    if let Some(why) = reason {
        *says = format!("the proxy ends it: {}", why.word);
        *status = None;
    }
    verdict
}

impl Verdict {
    /// Somebody takes it, as far as that is known.
    pub fn is_served(&self) -> bool {
        self.outcome.reason.is_none() && self.outcome.status.is_none_or(|status| status < 400)
    }
}

fn verdict(
    policy: &Outbound,
    asked: String,
    decision: &Decision<'_>,
    trace: Trace,
    endpoints: Endpoints<'_>,
) -> Verdict {
    let backends = backends(decision, endpoints);
    let considered: Vec<_> = trace
        .considered
        .into_iter()
        .map(|one| Considered { rule: one.rule, by: one.by, lost: one.lost.map(|lost| lost.to_string()) })
        .collect();
    let by = considered.iter().find(|one| one.lost.is_none()).map(|one| one.by.clone());
    Verdict {
        asked,
        target: target(&policy.target),
        protocol: policy.protocol.to_string(),
        outcome: outcome(decision, &backends),
        rule: decision.rule.map(|rule| rule.source.to_string()),
        by: by.filter(|by| !by.is_empty()),
        considered,
        filters: decision.rule.map(|rule| said(&rule.filters)).unwrap_or_default(),
        path: None,
        backends,
        settings: of_requests(decision.settings),
    }
}

fn target(target: &Target) -> String {
    match target {
        Target::Service(backend) => format!("Service {backend}"),
        Target::Workload(endpoint) => match &endpoint.workload {
            Some(workload) => format!("Pod {workload} at {}", endpoint.address),
            None => format!("a workload at {}", endpoint.address),
        },
        Target::External => "an address outside of the mesh".into(),
    }
}

fn outcome(decision: &Decision<'_>, backends: &[Backend]) -> Outcome {
    let answer = |action, says: String, status| Outcome { action, says, status: Some(status), reason: None };
    match decision.action {
        Action::Redirect(redirect) => answer("redirect", redirect.to_string(), redirect.status),
        Action::Preflight(cors) => {
            let says = format!("the proxy answers the preflight: {}", Filter::Cors(cors.clone()));
            answer("preflight", says, 200)
        }
        Action::Respond(response) => {
            let says = format!("the proxy answers {} by itself", response.status);
            answer("respond", says, response.status)
        }
        Action::Refuse(reason) => refused(reason),
        Action::Forward(Forward::Original) => {
            let says = "it goes where it was dialled, as it is".to_owned();
            Outcome { action: "forward", says, status: None, reason: None }
        }
        Action::Forward(_) => forwarded(backends),
    }
}

fn forwarded(backends: &[Backend]) -> Outcome {
    let weighed = || backends.iter().filter(|one| one.weight > 0);
    if weighed().all(|one| !one.resolved) {
        return refused(Reason::ProxyConfigurationError);
    }
    let without = |one: &Backend| one.endpoints.as_ref().is_some_and(Vec::is_empty);
    if weighed().filter(|one| one.resolved).all(without) {
        return refused(Reason::DestinationUnavailable);
    }
    let failing = |one: &&Backend| !one.resolved || without(one);
    let lost: f64 = weighed().filter(failing).map(|one| one.percent).sum();
    let says = match lost > 0.0 {
        true => format!("it is forwarded, and {lost} % of such requests fail"),
        false => "it is forwarded".to_owned(),
    };
    Outcome { action: "forward", says, status: None, reason: None }
}

fn refused(reason: Reason) -> Outcome {
    let why = Why::of(reason);
    let says = format!("the proxy answers {}: {}", why.status, why.word);
    Outcome { action: "refuse", says, status: Some(why.status), reason: Some(why) }
}

impl Why {
    pub fn of(reason: Reason) -> Self {
        Self {
            word: reason.as_str(),
            says: reason.says(),
            remedy: reason.remedy(),
            status: reason.status(),
            grpc_status: reason.grpc_status(),
        }
    }
}

fn said(filters: &[Filter]) -> Vec<String> {
    filters.iter().map(ToString::to_string).collect()
}

fn path(decision: &Decision<'_>, ask: &Ask) -> Option<String> {
    let (path, query) = split(ask.target.as_bytes());
    let edit = decision.rule?.filters.iter().find_map(|filter| match filter {
        Filter::Rewrite(Rewrite { path, .. }) => path.as_ref(),
        _ => None,
    })?;
    let query = query.map(|query| format!("?{}", String::from_utf8_lossy(query))).unwrap_or_default();
    Some(format!("{}{query}", edit.apply(path, decision.prefix)))
}

fn backends(decision: &Decision<'_>, endpoints: Endpoints<'_>) -> Vec<Backend> {
    let alone = |service: &ServicePort, settings: &BackendSettings| {
        let backend = BackendRef::Service(service.clone());
        WeightedBackend { backend, weight: 1, filters: Vec::new(), settings: settings.clone() }
    };
    match decision.action {
        Action::Forward(Forward::Split(split)) => weighted(split, endpoints),
        Action::Forward(Forward::Balanced(service, settings)) => {
            weighted(&[alone(service, settings)], endpoints)
        }
        Action::Forward(Forward::Endpoint(endpoint)) => vec![Backend {
            to: endpoint.address.to_string(),
            resolved: true,
            weight: 1,
            percent: 100.0,
            filters: Vec::new(),
            settings: Vec::new(),
            endpoints: Some(vec![view(endpoint)]),
        }],
        _ => Vec::new(),
    }
}

fn weighted(backends: &[WeightedBackend], endpoints: Endpoints<'_>) -> Vec<Backend> {
    let total: u64 = backends.iter().map(|one| u64::from(one.weight)).sum();
    let one = |one: &WeightedBackend| {
        let percent = f64::from(one.weight) * 100.0 / (total.max(1) as f64);
        let (resolved, known) = match &one.backend {
            BackendRef::Service(service) => (true, endpoints(service)),
            BackendRef::Unresolved(_) => (false, None),
        };
        Backend {
            to: one.backend.to_string(),
            resolved,
            weight: one.weight,
            percent: (percent * 1000.0).round() / 1000.0,
            filters: said(&one.filters),
            settings: of_backend(&one.settings),
            endpoints: known.map(|known| known.iter().map(view).collect()),
        }
    };
    backends.iter().map(one).collect()
}

fn view(endpoint: &Endpoint) -> EndpointView {
    EndpointView {
        address: endpoint.address.to_string(),
        workload: endpoint.workload.as_ref().map(ToString::to_string),
        identity: endpoint.identity.as_ref().map(ToString::to_string),
        tls: endpoint.tls.as_deref().map(tls),
    }
}

fn tls(tls: &BackendTls) -> Tls {
    let name = |name: &SubjectAltName| match name {
        SubjectAltName::Hostname(name) | SubjectAltName::Uri(name) => name.to_string(),
    };
    Tls {
        hostname: tls.hostname.to_string(),
        alt_names: tls.alt_names.iter().map(name).collect(),
        authorities: match &tls.authorities {
            Authorities::WellKnown => Vouching::WellKnown,
            Authorities::Given(given) if given.is_empty() => Vouching::None,
            Authorities::Given(_) => Vouching::Given,
        },
        by: tls.by.to_string(),
    }
}
