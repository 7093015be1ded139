//! What the demo tells at its end: to machines as JSON, to people as a sentence, and as its exit code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::demo::signals::{Scrape, Signals, failures, graph};

/// The count of all edges.
#[derive(Debug, PartialEq, Serialize)]
pub struct Report {
    pub requests: u64,
    /// Answered with a 5xx or not at all, on any edge; and what the visitors alone saw fail.
    pub failed: u64,
    pub failures: BTreeMap<String, u64>,
    pub seconds: f64,
    pub edges: Vec<Signals>,
}

/// What a visitor counted.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub struct Visit {
    pub requests: u64,
    pub failed: u64,
    pub failures: BTreeMap<String, u64>,
}

impl Visit {
    /// The last line of its log that is a JSON object.
    pub fn read(log: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
        let line = text.lines().rfind(|line| line.starts_with('{'));
        let line = line.with_context(|| format!("the visitor told no count in {}", log.display()))?;
        serde_json::from_str(line).with_context(|| format!("the visitor's count in {}", log.display()))
    }
}

impl Report {
    pub fn new(scrapes: &[Scrape], visits: &[Visit], took: Duration) -> Self {
        let edges = graph(scrapes);
        let mut failures = failures(scrapes);
        let failed: u64 = edges.iter().map(|edge| edge.failed).sum();
        // A visitor is a client of an edge: what its proxy counted as failed is not counted again.
        let seen: u64 = visits.iter().map(|visit| visit.failed).sum();
        let servers: Vec<&str> = edges.iter().map(|edge| edge.to.as_str()).collect();
        let of_visitors = edges.iter().filter(|edge| !servers.contains(&edge.from.as_str()));
        let unseen = seen.saturating_sub(of_visitors.map(|edge| edge.failed).sum());
        if unseen > 0 {
            for (kind, count) in visits.iter().flat_map(|visit| &visit.failures) {
                *failures.entry(format!("visitor: {kind}")).or_default() += count;
            }
        }
        if failed + unseen == 0 {
            // Attempts that were sent again, and then succeeded: the proxies tell their reasons, no client saw them.
            failures.clear();
        }
        Self {
            requests: edges.iter().map(|edge| edge.requests).sum(),
            failed: failed + unseen,
            failures,
            seconds: (took.as_secs_f64() * 1_000.0).round() / 1_000.0,
            edges: edges.iter().map(|edge| edge.signals()).collect(),
        }
    }

    pub fn summary(&self) -> String {
        let secured = self.edges.iter().filter(|edge| edge.mtls).count();
        let mut text = format!(
            "{} requests on {} edges in {:.1} s, {} failed; mTLS on {secured} of {} edges",
            self.requests,
            self.edges.len(),
            self.seconds,
            self.failed,
            self.edges.len(),
        );
        for (reason, count) in &self.failures {
            text += &format!("\n{count:>8}  {reason}");
        }
        text
    }

    /// An error when the mesh did not keep its promise.
    pub fn verdict(&self) -> anyhow::Result<()> {
        let plain: Vec<_> = self.edges.iter().filter(|edge| !edge.mtls).collect();
        if self.requests == 0 {
            bail!("no request was made");
        }
        if self.failed > 0 {
            bail!("{} of {} requests failed", self.failed, self.requests);
        }
        if !plain.is_empty() {
            let plain: Vec<_> = plain.iter().map(|edge| format!("{} -> {}", edge.from, edge.to)).collect();
            bail!("not proven to be mTLS: {}", plain.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(app: &str, service: &str, class: &str, count: u64) -> Scrape {
        let text = format!(
            "weft_requests_total{{direction=\"outbound\",service=\"{service}.shop:8080\",identity=\"i\",\
             backend=\"b\",tls=\"1.3\",class=\"{class}\"}} {count}\n"
        );
        Scrape::read(app, "shop", app, &text)
    }

    #[test]
    fn failures_are_counted_once() {
        let inner = || scrape("customer", "cart", "2xx", 50);
        let visit = |failed| Visit {
            requests: 10,
            failed,
            failures: if failed > 0 { [("reset".to_owned(), failed)].into() } else { BTreeMap::new() },
        };
        let failed = |scrapes: &[Scrape], visit| {
            let report = Report::new(scrapes, &[visit], Duration::from_secs(1));
            (report.requests, report.failed, report.failures.into_iter().collect::<Vec<_>>())
        };
        let good = [scrape("visitor", "customer", "2xx", 10), inner()];
        let bad = [scrape("visitor", "customer", "5xx", 10), inner()];
        assert_eq!(failed(&good, visit(0)), (60, 0, vec![]));
        assert_eq!(failed(&good, visit(2)), (60, 2, vec![("visitor: reset".into(), 2)]));
        assert_eq!(failed(&bad, visit(10)), (60, 10, vec![("http_5xx".into(), 10)]));
        let moved = "weft_reasons_total{direction=\"outbound\",service=\"\",reason=\"connection_refused\"} 3";
        let moved = [scrape("visitor", "customer", "2xx", 10), Scrape::read("cart", "shop", "cart", moved)];
        assert_eq!(failed(&moved, visit(0)), (10, 0, vec![]));
        assert_eq!(failed(&moved, visit(1)).2[0], ("connection_refused".into(), 3));
        let (all, count, _) = failed(&bad, visit(11));
        assert_eq!((all, count), (60, 11));
    }

    #[test]
    fn a_broken_promise_is_an_error() {
        let verdict = |scrapes: &[Scrape]| {
            let report = Report::new(scrapes, &[], Duration::from_secs(1));
            report.verdict().err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(verdict(&[]), "no request was made");
        assert_eq!(verdict(&[scrape("cart", "auth", "5xx", 1)]), "1 of 1 requests failed");
        assert_eq!(verdict(&[scrape("cart", "auth", "2xx", 1)]), "not proven to be mTLS: cart -> auth");
        let inbound = "weft_requests_total{direction=\"inbound\",service=\"auth.shop:8080\",identity=\"cart\",\
                       backend=\"8080\",tls=\"1.3\",class=\"2xx\"} 1";
        let proven = [scrape("cart", "auth", "2xx", 1), Scrape::read("auth", "shop", "auth", inbound)];
        assert_eq!(verdict(&proven), "");
    }
}
