//! Running scenarios: side by side where each has its namespace, alone where one breaks something that all rely on.

use super::Cluster;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
    time::Instant,
};

/// Something that the mesh must show. It panics where it does not.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Cluster),
}

/// The scenarios that were run, and those that failed.
pub struct Run<'a> {
    cluster: &'a Cluster,
    wanted: Vec<String>,
    failed: Mutex<Vec<&'static str>>,
    count: Mutex<usize>,
}

impl<'a> Run<'a> {
    /// Of scenarios whose name contains one of these words; of all when there are none.
    pub fn new(cluster: &'a Cluster, wanted: Vec<String>) -> Self {
        Self { cluster, wanted, failed: Mutex::default(), count: Mutex::default() }
    }

    /// Is it among those that were asked for?
    pub fn wants(&self, scenario: &Scenario) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|word| scenario.name.contains(word.as_str()))
    }

    /// One after the other.
    pub fn alone(&self, scenarios: &[Scenario]) {
        self.side_by_side(1, scenarios);
    }

    /// So many at a time.
    pub fn side_by_side(&self, width: usize, scenarios: &[Scenario]) {
        let queue = Mutex::new(scenarios.iter().filter(|scenario| self.wants(scenario)));
        let next = || queue.lock().expect("nobody panics with it").next();
        thread::scope(|scope| {
            for _ in 0..width {
                scope.spawn(|| {
                    while let Some(scenario) = next() {
                        self.one(scenario);
                    }
                });
            }
        });
    }

    /// One that others need: false when it failed.
    pub fn one(&self, scenario: &Scenario) -> bool {
        let begun = Instant::now();
        *self.count.lock().expect("nobody panics with it") += 1;
        // On a thread of its name, so that its panic's message says whose it is.
        let passed = thread::scope(|scope| {
            let run = || catch_unwind(AssertUnwindSafe(|| (scenario.run)(self.cluster))).is_ok();
            let thread = thread::Builder::new().name(scenario.name.to_owned()).spawn_scoped(scope, run);
            thread.expect("a thread").join().expect("a caught panic")
        });
        let word = if passed { "ok" } else { "FAILED" };
        println!("scenario {} ... {word} ({:.1} s)", scenario.name, begun.elapsed().as_secs_f32());
        if !passed {
            self.failed.lock().expect("nobody panics with it").push(scenario.name);
        }
        passed
    }

    /// Says how it went; true when nothing failed.
    pub fn finish(self) -> bool {
        let (failed, count) =
            (self.failed.into_inner().expect("all are done"), self.count.into_inner().expect("likewise"));
        println!("\n{} of {count} scenarios passed. {}", count - failed.len(), failed.join(", "));
        failed.is_empty() && count > 0
    }
}
