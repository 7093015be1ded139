//! What the agent counts.

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct What {
    what: &'static str,
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    written: Family<What, Counter>,
    mended: Family<Result, Counter>,
    questions: Family<Result, Counter>,
    pods: Gauge,
    ready: Gauge,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("weft_cni");
        let (written, mended, questions) = (Family::default(), Family::default(), Family::default());
        let (pods, ready) = (Gauge::default(), Gauge::default());
        registry.register(
            "written",
            "Times the plugin's program or configuration had to be written",
            Family::clone(&written),
        );
        registry.register("mended_pods", "Pods that ran without their redirection", Family::clone(&mended));
        registry.register("questions", "Questions of the plugin", Family::clone(&questions));
        registry.register(
            "pods",
            "Injected pods of this node that are redirected by CNI",
            Gauge::clone(&pods),
        );
        registry.register(
            "ready",
            "1 while the plugin is in place and the pods are known",
            Gauge::clone(&ready),
        );
        Metrics { registry, written, mended, questions, pods, ready }
    }

    pub fn wrote(&self, what: &'static str) {
        self.written.get_or_create(&What { what }).inc();
    }

    pub fn mended(&self, result: &'static str) {
        self.mended.get_or_create(&Result { result }).inc();
    }

    pub fn asked(&self, result: &'static str) {
        self.questions.get_or_create(&Result { result }).inc();
    }

    pub fn pods(&self, count: usize) {
        self.pods.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// OpenMetrics text.
    pub fn encode(&self, ready: bool) -> String {
        self.ready.set(i64::from(ready));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }
}
