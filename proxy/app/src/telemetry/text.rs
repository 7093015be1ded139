//! The two exposition formats: OpenMetrics 1.0, and Prometheus' classic text made from it line by line.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::scrape::Snapshot;

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
    /// `text/plain; version=0.0.4`.
    Classic,
}

impl Format {
    /// What a scraper's `Accept` header asks for: OpenMetrics where it is named, else the classic text, which
    /// everything reads.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Classic }
    }

    /// The `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The snapshot as text, and at its end how many series it has.
pub(super) fn encode(snapshot: &Snapshot, format: Format) -> String {
    let mut text = String::with_capacity(16 * 1024);
    let write = |collector: Box<dyn Collector>, text: &mut String| {
        let mut registry = Registry::default();
        registry.register_collector(collector);
        encode_registry(text, &registry).expect("writing to a string cannot fail");
    };
    write(Box::new(snapshot.clone()), &mut text);
    let series = text.lines().filter(|line| !line.starts_with('#')).count() as u64;
    // The two that say so are series as well.
    write(Box::new(Size { series: series + 2, folded: snapshot.totals.folded }), &mut text);
    encode_eof(&mut text).expect("writing to a string cannot fail");
    match format {
        Format::OpenMetrics => text,
        Format::Classic => classic(&text),
    }
}

#[derive(Debug)]
struct Size {
    series: u64,
    folded: u64,
}

impl Collector for Size {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Series in this exposition.";
        encoder
            .encode_descriptor("weft_series", help, None, MetricType::Gauge)?
            .encode_gauge(&self.series)?;
        let help = "Times that a label set found no room and was counted as other.";
        encoder
            .encode_descriptor("weft_series_folded", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&self.folded, None)
    }
}

/// OpenMetrics names a family without its `_total` or `_info`; the classic text names the series. It knows no units,
/// no info type and no end mark. Families without series are left out.
fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = "";
    let mut pending = String::new();
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            pending = format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text.push_str(&pending);
            pending.clear();
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
