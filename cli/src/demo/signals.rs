//! From the proxies' metrics to the service graph: the golden signals of each edge, and the proof of its mTLS. Pure.
//!
//! An edge is counted where it begins, by the client's proxy. Its identities are taken as proven when each proxy
//! names the other's: the client's proxy the server's identity, the server's proxy the client's.

mod exposition;
mod histogram;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use exposition::{Sample, samples};
pub use histogram::Histogram;

/// The classes that count as failed: the answer was an error of the server side, or there was none.
const FAILED: [&str; 2] = ["5xx", "none"];

/// The counters of one pod's proxy at one time.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// What the graph calls the pod.
    pub app: String,
    pub namespace: String,
    /// The identity that the pod's service account should have.
    pub identity: String,
    requests: Vec<Requests>,
    /// Of the outbound side, by service.
    durations: BTreeMap<String, Histogram>,
    /// Of the outbound side, by reason.
    reasons: BTreeMap<String, u64>,
    /// Failed attempts that a policy had sent once more, so that no client saw them, by service.
    repeated: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
struct Requests {
    is_outbound: bool,
    service: String,
    /// The peer's.
    identity: String,
    /// Empty: no endpoint was reached.
    backend: String,
    is_tls: bool,
    class: String,
    count: u64,
}

/// One edge of the graph, since its proxies started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edge {
    pub from: String,
    pub to: String,
    /// As its client counts them: attempts that were repeated are one.
    pub requests: u64,
    pub failed: u64,
    pub durations: Histogram,
    /// Every request that reached an endpoint did so over TLS, and both identities are proven.
    pub mtls: bool,
    pub client_identity: Option<String>,
    pub server_identity: Option<String>,
}

/// An edge as told to machines.
#[derive(Debug, PartialEq, Serialize)]
pub struct Signals {
    pub from: String,
    pub to: String,
    pub requests: u64,
    /// From 0 to 1.
    pub success_rate: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub mtls: bool,
    pub client_identity: Option<String>,
    pub server_identity: Option<String>,
}

impl Scrape {
    /// Takes what it needs of a text in the Prometheus format; lines that it does not know are passed over.
    pub fn read(app: &str, namespace: &str, identity: &str, text: &str) -> Self {
        let mut scrape = Self {
            app: app.into(),
            namespace: namespace.into(),
            identity: identity.into(),
            ..Self::default()
        };
        for sample in samples(text) {
            let is_outbound = sample.label("direction") == "outbound";
            match sample.name {
                "weft_requests_total" => scrape.requests.push(Requests::new(&sample, is_outbound)),
                "weft_request_duration_seconds_bucket" if is_outbound => {
                    let histogram = scrape.durations.entry(sample.label("service").into()).or_default();
                    histogram.add_bucket(sample.label("le").parse().unwrap_or(f64::INFINITY), sample.count());
                }
                "weft_retries_total" if is_outbound && sample.label("outcome") == "repeated" => {
                    *scrape.repeated.entry(sample.label("service").into()).or_default() += sample.count();
                }
                "weft_reasons_total" if is_outbound && sample.count() > 0 => {
                    *scrape.reasons.entry(sample.label("reason").into()).or_default() += sample.count();
                }
                _ => {}
            }
        }
        scrape
    }

    fn outbound(&self) -> impl Iterator<Item = &Requests> {
        self.requests.iter().filter(|requests| requests.is_outbound && requests.count > 0)
    }
}

impl Requests {
    fn new(sample: &Sample<'_>, is_outbound: bool) -> Self {
        let label = |name| sample.label(name).to_owned();
        let is_tls = !matches!(sample.label("tls"), "" | "none");
        let (service, identity, backend, class) =
            (label("service"), label("identity"), label("backend"), label("class"));
        Self { is_outbound, service, identity, backend, is_tls, class, count: sample.count() }
    }
}

/// The graph that the scrapes of all pods, also of those that are gone, make together, in the order of a request's way.
pub fn graph(scrapes: &[Scrape]) -> Vec<Edge> {
    let mut edges: BTreeMap<(String, String), Edge> = BTreeMap::new();
    for scrape in scrapes {
        for requests in scrape.outbound() {
            let key = (scrape.app.clone(), service_name(&requests.service, &scrape.namespace));
            let edge = edges.entry(key).or_insert_with_key(|(from, to)| Edge {
                from: from.clone(),
                to: to.clone(),
                mtls: true,
                client_identity: proven(scrapes, &scrape.identity, requests),
                ..Edge::default()
            });
            edge.add(requests);
        }
        for (service, repeated) in &scrape.repeated {
            let key = (scrape.app.clone(), service_name(service, &scrape.namespace));
            if let Some(edge) = edges.get_mut(&key) {
                edge.requests = edge.requests.saturating_sub(*repeated);
                edge.failed = edge.failed.saturating_sub(*repeated);
            }
        }
        for (service, durations) in &scrape.durations {
            let key = (scrape.app.clone(), service_name(service, &scrape.namespace));
            if let Some(edge) = edges.get_mut(&key) {
                edge.durations.merge(durations);
            }
        }
    }
    let mut edges: Vec<Edge> = edges.into_values().collect();
    for edge in &mut edges {
        edge.mtls &= edge.client_identity.is_some() && edge.server_identity.is_some();
    }
    along_the_way(edges)
}

/// The edges in the order in which a request travels: first those of clients that nobody calls.
fn along_the_way(mut edges: Vec<Edge>) -> Vec<Edge> {
    let mut ordered: Vec<Edge> = Vec::with_capacity(edges.len());
    while !edges.is_empty() {
        let is_called =
            |edge: &Edge| edges.iter().any(|other| other.to == edge.from && other.from != edge.from);
        let (free, rest): (Vec<Edge>, Vec<Edge>) = edges.iter().cloned().partition(|edge| !is_called(edge));
        if free.is_empty() {
            // Services that call each other in a circle.
            ordered.extend(rest);
            break;
        }
        ordered.extend(free);
        edges = rest;
    }
    ordered
}

/// The client's identity, if a proxy of that service saw it over TLS; of several Services before the same pods, it knows one by name, and
/// is known by its identity.
fn proven(scrapes: &[Scrape], client: &str, requests: &Requests) -> Option<String> {
    let mut inbound = scrapes.iter().flat_map(|scrape| scrape.requests.iter().map(move |it| (scrape, it)));
    let saw = |(scrape, it): (&Scrape, &Requests)| {
        let meant = it.service == requests.service || scrape.identity == requests.identity;
        !it.is_outbound && meant && it.identity == client && it.is_tls && it.count > 0
    };
    inbound.any(saw).then(|| client.to_owned())
}

/// Failures by reason: the words of the proxies' own errors, and the rest as answers of the applications.
pub fn failures(scrapes: &[Scrape]) -> BTreeMap<String, u64> {
    let mut failures = BTreeMap::new();
    for scrape in scrapes {
        for (reason, count) in &scrape.reasons {
            *failures.entry(reason.clone()).or_default() += count;
        }
    }
    let told: u64 = failures.values().sum();
    let failed: u64 = graph(scrapes).iter().map(|edge| edge.failed).sum();
    if failed > told {
        failures.insert("http_5xx".into(), failed - told);
    }
    failures
}

/// `cart` for `cart.shop:8080` as seen from namespace shop, `cart.shop` from another.
fn service_name(service: &str, seen_from: &str) -> String {
    let name = service.rsplit_once(':').map_or(service, |(name, _)| name);
    match name.split_once('.') {
        Some((short, namespace)) if namespace == seen_from => short.into(),
        _ if name.is_empty() => "outside".into(),
        _ => name.into(),
    }
}

impl Edge {
    fn add(&mut self, requests: &Requests) {
        self.requests += requests.count;
        if FAILED.contains(&requests.class.as_str()) {
            self.failed += requests.count;
        }
        if requests.backend.is_empty() {
            return;
        }
        self.mtls &= requests.is_tls && !requests.identity.is_empty();
        if requests.is_tls && !requests.identity.is_empty() {
            self.server_identity = Some(requests.identity.clone());
        }
    }

    /// What came after an earlier state of the same edge.
    pub fn since(&self, earlier: &Edge) -> Edge {
        Edge {
            requests: self.requests.saturating_sub(earlier.requests),
            failed: self.failed.saturating_sub(earlier.failed),
            durations: self.durations.since(&earlier.durations),
            ..self.clone()
        }
    }

    /// From 0 to 1; 1 when nothing was asked.
    pub fn success_rate(&self) -> f64 {
        if self.requests == 0 { 1.0 } else { 1.0 - self.failed as f64 / self.requests as f64 }
    }

    pub fn signals(&self) -> Signals {
        let quantile_ms = |q| rounded(self.durations.quantile(q) * 1_000.0);
        Signals {
            from: self.from.clone(),
            to: self.to.clone(),
            requests: self.requests,
            success_rate: self.success_rate(),
            p50_ms: quantile_ms(0.5),
            p95_ms: quantile_ms(0.95),
            p99_ms: quantile_ms(0.99),
            mtls: self.mtls,
            client_identity: self.client_identity.clone(),
            server_identity: self.server_identity.clone(),
        }
    }
}

/// To three digits after the point: microseconds, finer than the buckets are.
fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1_000.0).round() / 1_000.0
}
