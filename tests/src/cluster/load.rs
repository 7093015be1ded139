//! Requests at a steady rate from a pod of its own, each of them accounted for.

use super::namespace::Namespace;
use super::workloads;
use serde_json::Value;
use std::{thread, time::Duration};

/// What a load has seen so far.
#[derive(Debug)]
pub struct Report {
    pub sent: u64,
    pub failed: u64,
    /// How many pods have answered.
    pub pods: usize,
    /// The whole line: errors by their text, and who answered how often.
    pub text: String,
}

/// A pod that sends requests until its namespace goes.
pub struct Load<'a> {
    namespace: &'a Namespace<'a>,
    pod: String,
}

impl<'a> Load<'a> {
    /// Begins, and returns once requests are answered.
    pub fn start(namespace: &'a Namespace<'a>, pod: &str, per_second: u32, url: &str) -> Self {
        let args = format!("[load, -rate, '{per_second}', -for, 1h, -after, 30s, '{url}']");
        namespace.apply(&workloads::pod(pod, &args, ""));
        namespace.ready(&[&format!("pod/{pod}")]);
        let load = Self { namespace, pod: pod.to_owned() };
        namespace.eventually(Duration::from_secs(60), || load.try_report());
        load
    }

    /// What it has seen until now. It counts on.
    #[track_caller]
    pub fn report(&self) -> Report {
        self.namespace.eventually(Duration::from_secs(10), || self.try_report())
    }

    /// What it has seen `settle` from now: so late does a failure show that has begun before.
    #[track_caller]
    pub fn report_after(&self, settle: Duration) -> Report {
        thread::sleep(settle);
        self.report()
    }

    fn try_report(&self) -> Result<Report, String> {
        let text = self.namespace.try_kubectl(&["logs", &self.pod, "-c", "app", "--tail=30"])?;
        let last = text.lines().rev().find(|line| line.starts_with('{')).ok_or("no report yet")?;
        let report: Value = serde_json::from_str(last).map_err(|error| error.to_string())?;
        let number = |field: &str| report[field].as_u64().unwrap_or_default();
        Ok(Report {
            sent: number("Sent"),
            failed: number("Failed"),
            pods: report["Pods"].as_object().map_or(0, |pods| pods.len()),
            text: text
                .lines()
                .filter(|line| line.contains("failed after") || *line == last)
                .collect::<Vec<_>>()
                .join("\n"),
        })
    }

    /// Nothing failed, and at least `sent` requests were made.
    #[track_caller]
    pub fn assert_faultless(&self, sent: u64) -> Report {
        // A request that fails does so within its time, 5 s.
        let report = self.report_after(Duration::from_secs(6));
        assert_eq!(
            report.failed, 0,
            "of {} requests, {} failed: {}",
            report.sent, report.failed, report.text
        );
        assert!(report.sent >= sent, "{} requests instead of {sent}: {}", report.sent, report.text);
        report
    }
}
