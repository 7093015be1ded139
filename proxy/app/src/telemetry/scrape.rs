//! The sum of the shards as metric families.
//!
//! A series appears with its first event and not before, so that an opaque TCP edge has no request series; 2xx and
//! 5xx appear together, so that `rate` sees the first failure.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use policy::{Reason, grpc::CODES};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::edge::{BUCKETS, CLASSES, EdgeLabels, EdgeTotals, OTHER, Repetition, ScopeTotals};
use super::table::Totals;
use super::{Direction, Event, Gauges, access, process};

/// Services whose endpoint age has a series; the rest show the greatest of theirs as `other`.
const AGES: usize = 128;

/// All that one scrape tells, in the order in which it tells it.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub totals: Totals,
    events: Vec<(Event, u64)>,
    access: Option<access::Lines>,
    gauges: Gauges,
    process: process::Usage,
}

impl Snapshot {
    pub(super) fn new(
        totals: Totals,
        mut events: Vec<(Event, u64)>,
        access: Option<access::Lines>,
        mut gauges: Gauges,
        process: process::Usage,
    ) -> Self {
        events.sort();
        gauges.endpoint_ages = bounded(gauges.endpoint_ages);
        Self { totals, events, access, gauges, process }
    }
}

/// One row a service, at most [`AGES`] of them.
fn bounded(mut ages: Vec<(Arc<str>, Duration)>) -> Vec<(Arc<str>, Duration)> {
    ages.sort();
    ages.dedup_by(|later, kept| {
        later.0 == kept.0 && {
            kept.1 = kept.1.max(later.1);
            true
        }
    });
    if ages.len() > AGES {
        let rest = ages.split_off(AGES - 1);
        let greatest = rest.into_iter().map(|(_, age)| age).max().unwrap_or_default();
        ages.push((OTHER.into(), greatest));
    }
    ages
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.requests(&mut encoder)?;
        self.connections(&mut encoder)?;
        self.reasons(&mut encoder)?;
        self.policy(&mut encoder)?;
        self.events(&mut encoder)?;
        self.access(&mut encoder)?;
        self.state(&mut encoder)?;
        self.control(&mut encoder)?;
        self.process.encode(&mut encoder)
    }
}

impl Snapshot {
    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests that are over, by the class of their answer; none where there was no answer.";
        let mut family = encoder.encode_descriptor("weft_requests", help, None, MetricType::Counter)?;
        for (labels, totals) in self.with_requests() {
            for (class, count) in CLASSES.iter().zip(totals.finished) {
                if count > 0 || matches!(*class, "2xx" | "5xx") {
                    counter(&mut family, &edge_and(labels, "class", class), count)?;
                }
            }
        }
        let help = "Requests whose response has not ended.";
        let mut family =
            encoder.encode_descriptor("weft_requests_in_flight", help, None, MetricType::Gauge)?;
        for (labels, totals) in self.with_requests() {
            gauge(&mut family, &edge(labels), totals.in_flight())?;
        }
        let help = "Time from a request's head to the end of its response.";
        let name = "weft_request_duration";
        let mut family =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (key, totals) in &self.totals.scopes {
            let count = totals.durations.iter().sum();
            if count > 0 {
                let bounds = BUCKETS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(totals.durations).collect();
                family.encode_family(&scope(key))?.encode_histogram::<NoLabelSet>(
                    totals.seconds,
                    count,
                    &buckets,
                    None,
                )?;
            }
        }
        self.grpc(encoder)
    }

    fn grpc(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Calls of gRPC by the status that their server told; OK and UNAVAILABLE appear together.";
        let mut family = encoder.encode_descriptor("weft_grpc_responses", help, None, MetricType::Counter)?;
        for (key, totals) in &self.totals.scopes {
            let any = totals.grpc.iter().any(|count| *count > 0);
            for (code, count) in CODES.iter().zip(totals.grpc) {
                if count > 0 || (any && matches!(*code, "OK" | "UNAVAILABLE")) {
                    let [direction, service] = scope(key);
                    counter(&mut family, &[direction, service, ("grpc_status", code)], count)?;
                }
            }
        }
        Ok(())
    }

    fn with_requests(&self) -> impl Iterator<Item = &(EdgeLabels, EdgeTotals)> {
        self.totals.edges.iter().filter(|(_, totals)| totals.started > 0)
    }

    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let opened = || self.totals.edges.iter().filter(|(_, totals)| totals.opened > 0);
        let help = "Connections to backends (outbound) and from peers (inbound), TCP streams between proxies included.";
        let mut family = encoder.encode_descriptor("weft_connections", help, None, MetricType::Counter)?;
        for (labels, totals) in opened() {
            counter(&mut family, &edge(labels), totals.opened)?;
        }
        let help = "Connections that stand now.";
        let mut family = encoder.encode_descriptor("weft_connections_open", help, None, MetricType::Gauge)?;
        for (labels, totals) in opened() {
            gauge(&mut family, &edge(labels), totals.open())?;
        }
        let help = "Payload bytes: sent to the peer, received from it.";
        let mut family = encoder.encode_descriptor("weft", help, Some(&Unit::Bytes), MetricType::Counter)?;
        for (labels, totals) in
            self.totals.edges.iter().filter(|(_, totals)| totals.sent + totals.received > 0)
        {
            counter(&mut family, &edge_and(labels, "flow", "sent"), totals.sent)?;
            counter(&mut family, &edge_and(labels, "flow", "received"), totals.received)?;
        }
        Ok(())
    }

    fn reasons(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What the proxy itself answered, reset or refused, by reason; `weft explain reason WORD` tells more.";
        self.by_reason(encoder, "weft_reasons", help, |totals| &totals.reasons)?;
        let help = "Attempts that reached nobody, after which the request was sent again, by reason.";
        self.by_reason(encoder, "weft_replays", help, |totals| &totals.replays)
    }

    /// What policies made of requests and endpoints.
    fn policy(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests that a policy had sent once more, or to a second endpoint too, and those that were not, as the budget is used up.";
        let mut family = encoder.encode_descriptor("weft_retries", help, None, MetricType::Counter)?;
        for (key, totals) in &self.totals.scopes {
            for (repetition, count) in Repetition::ALL.iter().zip(totals.repetitions) {
                if count > 0 {
                    let [direction, service] = scope(key);
                    counter(&mut family, &[direction, service, ("outcome", repetition.as_str())], count)?;
                }
            }
        }
        let tripped = || self.totals.edges.iter().filter(|(_, totals)| totals.breaker_opened > 0);
        let help = "Times that an endpoint's breaker opened, since it failed too often.";
        let mut family =
            encoder.encode_descriptor("weft_breaker_openings", help, None, MetricType::Counter)?;
        for (labels, totals) in tripped() {
            counter(&mut family, &edge(labels), totals.breaker_opened)?;
        }
        let help = "Workers of this proxy for which an endpoint's breaker is open.";
        let mut family = encoder.encode_descriptor("weft_breakers_open", help, None, MetricType::Gauge)?;
        for (labels, totals) in tripped() {
            gauge(&mut family, &edge(labels), totals.breakers_open())?;
        }
        Ok(())
    }

    fn by_reason(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        counts: impl Fn(&ScopeTotals) -> &[u64],
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (key, totals) in &self.totals.scopes {
            for (reason, count) in Reason::ALL.iter().zip(counts(totals)).filter(|(_, count)| **count > 0) {
                let [direction, service] = scope(key);
                counter(&mut family, &[direction, service, ("reason", reason.as_str())], *count)?;
            }
        }
        Ok(())
    }

    fn events(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Verdicts on the protocol of connections, by what decided.";
        let mut family = encoder.encode_descriptor("weft_detections", help, None, MetricType::Counter)?;
        for (event, count) in &self.events {
            if let Event::Detection { direction, protocol, how } = event {
                let labels = [("direction", direction.as_str()), ("protocol", protocol), ("how", how)];
                counter(&mut family, &labels, *count)?;
            }
        }
        let help =
            "TLS handshakes: full, resumed, or the reason of their failure, and the key exchange agreed.";
        let mut family = encoder.encode_descriptor("weft_handshakes", help, None, MetricType::Counter)?;
        for (event, count) in &self.events {
            if let Event::Handshake { direction, outcome, key_exchange } = event {
                let labels =
                    [("direction", direction.as_str()), ("outcome", outcome), ("key_exchange", key_exchange)];
                counter(&mut family, &labels, *count)?;
            }
        }
        let help = "Copies of requests (RequestMirror), by what became of them.";
        let mut family = encoder.encode_descriptor("weft_mirrors", help, None, MetricType::Counter)?;
        for (event, count) in &self.events {
            if let Event::Mirror { outcome } = event {
                counter(&mut family, &[("outcome", *outcome)], *count)?;
            }
        }
        Ok(())
    }

    fn access(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(lines) = self.access else { return Ok(()) };
        let help = "Lines of the access log: written, dropped for want of room, failed to be written.";
        let mut family =
            encoder.encode_descriptor("weft_access_log_lines", help, None, MetricType::Counter)?;
        let outcomes = [("written", lines.written), ("dropped", lines.dropped), ("failed", lines.failed)];
        for (outcome, count) in outcomes {
            counter(&mut family, &[("outcome", outcome)], count)?;
        }
        Ok(())
    }

    fn state(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Whether the stream to control stands.";
        let connected = u64::from(self.gauges.control_connected);
        encoder
            .encode_descriptor("weft_control_connected", help, None, MetricType::Gauge)?
            .encode_gauge(&connected)?;

        let help = "Time since control last confirmed the endpoints of a service.";
        let seconds = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor("weft_endpoint_age", help, seconds, MetricType::Gauge)?;
        for (service, age) in &self.gauges.endpoint_ages {
            family.encode_family(&[("service", &**service)])?.encode_gauge(&age.as_secs_f64())?;
        }
        if let Some(expires) = self.gauges.certificate_expires {
            let help = "Time until the certificate in use ends; negative after it.";
            encoder
                .encode_descriptor("weft_certificate_expiry", help, seconds, MetricType::Gauge)?
                .encode_gauge(&until(expires))?;
        }
        let help = "The proxy's version.";
        encoder
            .encode_descriptor("weft_build", help, None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

/// What became of the talk with control.
impl Snapshot {
    fn control(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (control, discovery) = (self.gauges.control, self.gauges.discovery);
        let mut outcomes = |name, help, counts: &[(&str, u64)]| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counts
                .iter()
                .try_for_each(|(outcome, count)| counter(&mut family, &[("outcome", *outcome)], *count))
        };
        let help = "Attempts to connect to control.";
        let counts = [("connected", control.connections), ("failed", control.failures)];
        outcomes("weft_control_attempts", help, &counts)?;
        let help = "Attempts to be certified.";
        let (certified, failed) = self.gauges.renewals;
        outcomes("weft_certificate_attempts", help, &[("certified", certified), ("failed", failed)])?;
        let help = "Answers of control that were news, that meant nothing (the last good one stays), that took \
                    everything away and are doubted for a minute, or that changed too often.";
        let counts = [
            ("news", discovery.updates),
            ("rejected", discovery.rejected),
            ("withheld", discovery.withheld),
            ("paced", discovery.paced),
        ];
        outcomes("weft_control_answers", help, &counts)?;
        let help = "Questions put to control, again ones included.";
        let mut family =
            encoder.encode_descriptor("weft_control_questions", help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, u64>(&discovery.asked, None)?;
        let help = "Questions dropped for others, as there are too many.";
        let mut family =
            encoder.encode_descriptor("weft_control_evictions", help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, u64>(&discovery.evicted, None)?;
        let help = "Questions that are watched.";
        let watches = discovery.watches as u64;
        encoder
            .encode_descriptor("weft_control_watches", help, None, MetricType::Gauge)?
            .encode_gauge(&watches)?;
        let help = "Watched questions to which control says that there is nothing, and is not believed yet.";
        let doubted = discovery.doubted as u64;
        encoder
            .encode_descriptor("weft_control_doubted", help, None, MetricType::Gauge)?
            .encode_gauge(&doubted)
    }
}

/// Seconds from now, negative for what has passed.
fn until(instant: SystemTime) -> f64 {
    match instant.duration_since(SystemTime::now()) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(passed) => -passed.duration().as_secs_f64(),
    }
}

type Label<'a> = (&'static str, &'a str);

fn scope((direction, service): &(Direction, Arc<str>)) -> [Label<'_>; 2] {
    [("direction", direction.as_str()), ("service", service)]
}

fn edge(labels: &EdgeLabels) -> [Label<'_>; 6] {
    [
        ("direction", labels.direction.as_str()),
        ("service", &labels.service),
        ("workload", &labels.workload),
        ("identity", &labels.identity),
        ("backend", &labels.backend),
        ("tls", labels.tls),
    ]
}

fn edge_and<'a>(labels: &'a EdgeLabels, name: &'static str, value: &'a str) -> [Label<'a>; 7] {
    let [direction, service, workload, identity, backend, tls] = edge(labels);
    [direction, service, workload, identity, backend, tls, (name, value)]
}

fn counter(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, count: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)
}

fn gauge(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_gauge(&value)
}
