//! What the injector counts, for `/metrics`.

use crate::Verdict;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::time::Duration;

/// The series of the injector.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reviews: Family<ReviewLabels, Counter>,
    duration: Histogram,
    certificate_expiry: Gauge,
    keeping_failed: Counter,
    configuration_failed: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    verdict: &'static str,
    reason: &'static str,
}

impl Metrics {
    /// Counts a pod, and how long it was thought about.
    pub fn reviewed(&self, verdict: &Verdict, took: Duration) {
        let (verdict, reason) = match verdict {
            Verdict::Patch { operations, .. } if operations.is_empty() => ("unchanged", ""),
            Verdict::Patch { .. } => ("patched", ""),
            Verdict::Skip(reason) => ("skipped", reason.word()),
            Verdict::Refuse(_) => ("refused", ""),
        };
        self.reviews.get_or_create(&ReviewLabels { verdict, reason }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a question that could not be answered.
    pub fn failed(&self, reason: &'static str) {
        self.reviews.get_or_create(&ReviewLabels { verdict: "failed", reason }).inc();
    }

    /// When the certificate that is served with ends, since 1970.
    pub fn certificate_expiry(&self, since_epoch: Duration) {
        self.certificate_expiry.set(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX));
    }

    /// Counts a look at the certificate that came to no end.
    pub fn keeping_failed(&self) {
        self.keeping_failed.inc();
    }

    /// Counts a configuration that could not be read.
    pub fn configuration_failed(&self) {
        self.configuration_failed.inc();
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
        let mut metrics = Metrics {
            registry: Registry::with_prefix("weft_injector"),
            reviews: Family::default(),
            duration: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0]),
            certificate_expiry: Gauge::default(),
            keeping_failed: Counter::default(),
            configuration_failed: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("reviews", "Pods that were decided about", metrics.reviews.clone());
        registry.register_with_unit(
            "review_duration",
            "How long a decision took, with what had to be asked for it",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry",
            "End of the webhook's certificate, since 1970",
            Unit::Seconds,
            metrics.certificate_expiry.clone(),
        );
        registry.register(
            "certificate_failures",
            "Looks at the certificate that came to no end",
            metrics.keeping_failed.clone(),
        );
        registry.register(
            "configuration_failures",
            "Configurations that could not be read; the one before stays",
            metrics.configuration_failed.clone(),
        );
        metrics
    }
}
