//! What the admin port tells of control, also while it starts: `/ready`, `/live`, `/metrics`, `/problems`.

use crate::{Control, metrics::Metrics, readiness::Readiness};
use admin::Told;
use std::sync::{Arc, OnceLock};

/// What is told of control, also while it starts.
#[derive(Default)]
pub struct Front {
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    /// Not there yet while control starts.
    pub control: OnceLock<Arc<Control>>,
}

impl Told for Front {
    fn unready(&self) -> Option<String> {
        match (self.readiness.text(), self.control.get()) {
            (Some(waiting), _) => Some(waiting),
            (None, None) => Some("starting".into()),
            (None, Some(control)) => control.is_closing().then(|| "shutting down".into()),
        }
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }

    fn pages(&self) -> &'static [&'static str] {
        &["/problems"]
    }

    fn page(&self, _problems: &str) -> String {
        let world = self.control.get().map(|control| control.world());
        let problems: Vec<_> = world.iter().flat_map(|world| world.problems().iter()).collect();
        serde_json::to_string_pretty(&problems).expect("problems are plain text")
    }
}
