//! What control counts, for `/metrics`.

use control_index::Kind;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// The series of control.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub problems: Gauge,
    pub skipped: Gauge,
    pub connections: Gauge,
    pub watches: Gauge,
    pub changes: Counter,
    pub issued: Counter,
    pub leader: Gauge,
    pub root_expiry: Gauge,
    objects: Family<ObjectLabels, Gauge>,
    refused: Family<ReasonLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

impl Metrics {
    pub fn objects(&self, kind: Kind) -> Gauge {
        self.objects.get_or_create_owned(&ObjectLabels { kind: kind.as_str() })
    }

    /// Counts a call, connection or watch that was refused.
    pub fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// The OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("weft_control"),
            problems: Gauge::default(),
            skipped: Gauge::default(),
            connections: Gauge::default(),
            watches: Gauge::default(),
            changes: Counter::default(),
            issued: Counter::default(),
            leader: Gauge::default(),
            root_expiry: Gauge::default(),
            objects: Family::default(),
            refused: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("objects", "Objects held", metrics.objects.clone());
        registry.register("objects_skipped", "Objects of kinds that are not taken", metrics.skipped.clone());
        registry.register("problems", "What is wrong now; see /problems", metrics.problems.clone());
        registry.register("connections", "Connections of proxies", metrics.connections.clone());
        registry.register("watches", "Streams that proxies watch", metrics.watches.clone());
        registry.register("changes", "Answers that changed while they were watched", metrics.changes.clone());
        registry.register("certificates_issued", "Certificates signed", metrics.issued.clone());
        registry.register("leader", "1 while this replica writes for all", metrics.leader.clone());
        registry.register("refused", "Calls, connections and watches refused", metrics.refused.clone());
        let root_expiry = metrics.root_expiry.clone();
        let help = "When the issuer's certificate ends, since the epoch";
        registry.register_with_unit("issuer_expiry", help, Unit::Seconds, root_expiry);
        metrics
    }
}
