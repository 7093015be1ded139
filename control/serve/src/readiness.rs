//! What control still waits for before it answers anybody, and why it takes so long.

use std::collections::BTreeMap;
use tokio::sync::watch;

/// What is waited for, with the last fault that was met at it.
#[derive(Debug, Default)]
pub struct Readiness {
    waiting: watch::Sender<BTreeMap<&'static str, Option<String>>>,
}

impl Readiness {
    pub fn wait_for(&self, what: &'static str) {
        self.waiting.send_modify(|waiting| drop(waiting.insert(what, None)));
    }

    /// It is waited for still, and this is in the way.
    pub fn hindered(&self, what: &'static str, by: String) {
        self.waiting.send_if_modified(|waiting| match waiting.get_mut(what) {
            Some(fault) if fault.as_ref() != Some(&by) => {
                tracing::warn!("waiting for {what}: {by}");
                *fault = Some(by);
                true
            }
            _ => false,
        });
    }

    pub fn done(&self, what: &'static str) {
        self.waiting.send_if_modified(|waiting| waiting.remove(what).is_some());
    }

    /// Returns when nothing is waited for any more.
    pub async fn settled(&self) {
        let settled = self.waiting.subscribe().wait_for(BTreeMap::is_empty).await.map(drop);
        settled.expect("the sender is ours");
    }

    /// What is waited for, a line each; `None` when nothing is.
    pub fn text(&self) -> Option<String> {
        let waiting = self.waiting.borrow();
        let lines = waiting.iter().map(|(what, fault)| match fault {
            None => format!("waiting for {what}\n"),
            Some(fault) => format!("waiting for {what}: {fault}\n"),
        });
        (!waiting.is_empty()).then(|| lines.collect())
    }
}
