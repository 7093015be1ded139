//! The Gateway API on a real Kubernetes: a cluster is brought up with its definitions and Weft, the official conformance suite
//! runs against the mesh, and all is taken down.
//!
//! `make conformance`; or `cargo test -p tests --test conformance -- WORD...` for scenarios whose name contains a word, with `NAME` in
//! the environment on the cluster of that name, which stays. Needs what `tests/tests/cluster` needs.

// Panics are how a test fails.
#![allow(clippy::unwrap_used)]

mod answer;
mod case;
mod check;
mod install;
mod official;
mod policies;
mod strict;

use std::{env, process::ExitCode};
use tests::cluster::{
    Cluster,
    scenarios::{Run, Scenario},
};

const NODES: u32 = 2;

const INSTALL: Scenario = Scenario { name: "install", run: install::definitions_images_and_weft };
/// What the mesh must show of the Gateway API.
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "official", run: official::every_mesh_test_passes },
    Scenario { name: "strict", run: strict::requests_and_statuses },
    Scenario { name: "policies", run: policies::policies_govern_traffic },
];

fn main() -> ExitCode {
    // What cargo passes to every test program begins with a dash; the rest are words of scenarios' names.
    let wanted = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let cluster = Cluster::up(NODES);
    let run = Run::new(&cluster, wanted);
    if run.one(&INSTALL) {
        run.alone(SCENARIOS);
    }
    if run.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
