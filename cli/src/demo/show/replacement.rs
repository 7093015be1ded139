//! A pod replaced under load: its successor starts and becomes ready, then it ends, and no request fails.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::{Show, seconds};
use crate::demo::signals::{Edge, graph};

/// How far it is.
pub enum Replacement {
    /// To be begun after this much traffic.
    Due(Duration),
    /// The new pod is started.
    Starting(Change),
    /// The old pod is being ended.
    Ending(Change),
    Over,
}

#[derive(Clone)]
pub struct Change {
    old: String,
    new: String,
    /// When it began, with the counts of then.
    since: Instant,
    requests: u64,
    failed: u64,
}

impl Replacement {
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// Goes on as far as what has happened allows, and says so.
    pub(super) fn advance(&mut self, show: &mut Show, began: Instant) -> anyhow::Result<()> {
        let next = match self {
            Self::Due(after) if began.elapsed() >= *after => Self::Starting(start(show)?),
            Self::Starting(change) if show.kubelet.is_ready(&change.new) => {
                show.kubelet.delete(&change.old)?;
                show.view.say(&format!("      {} is ready; {} is told to end", change.new, change.old))?;
                Self::Ending(change.clone())
            }
            Self::Ending(change) if show.kubelet.pods().all(|pod| pod.name != change.old) => {
                tell(show, change)?;
                Self::Over
            }
            _ => return Ok(()),
        };
        *self = next;
        Ok(())
    }
}

/// Starts another pod of the Deployment whose pod is to go: of a Service with several, so that traffic moves.
fn start(show: &mut Show) -> anyhow::Result<Change> {
    let pods: Vec<_> = show.kubelet.pods().filter(|pod| pod.service.is_some()).collect();
    let of_several = |app: &str| pods.iter().filter(|pod| pod.app() == app).count() > 1;
    let old = pods.iter().rfind(|pod| of_several(pod.app())).or(pods.last()).context("no pod serves")?;
    let new = show.cluster.replacement(old)?;
    let (requests, failed) = totals(&graph(&show.kubelet.scrape()?));
    let change =
        Change { old: old.name.clone(), new: new.name.clone(), since: Instant::now(), requests, failed };
    show.view.say(&format!("      replacing pod {} under load: {} starts", change.old, change.new))?;
    show.kubelet.run(new)?;
    Ok(change)
}

fn tell(show: &mut Show, change: &Change) -> anyhow::Result<()> {
    let (requests, failed) = totals(&graph(&show.kubelet.scrape()?));
    let (requests, failed) = (requests - change.requests, failed - change.failed);
    let failures = if failed == 0 { "no failed request".into() } else { format!("{failed} FAILED requests") };
    show.view.say(&format!(
        "      pod {} is gone, replaced by {} within {}: {requests} requests meanwhile, {failures}",
        change.old,
        change.new,
        seconds(change.since.elapsed()),
    ))
}

fn totals(edges: &[Edge]) -> (u64, u64) {
    edges.iter().fold((0, 0), |(requests, failed), edge| (requests + edge.requests, failed + edge.failed))
}
