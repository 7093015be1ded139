//! The mesh on a real Kubernetes: a cluster is brought up, Weft is installed as users do it, scenarios run, and all is taken down.
//!
//! `cargo test -p tests --test cluster -- WORD...` runs those whose name contains a word; with `NAME` in the environment on the cluster of that
//! name (`make cluster` makes `weft0`), which stays. Needs root, the workspace's binaries, and what `tests/cluster/README.md` names.

// Panics are how a test fails.
#![allow(clippy::unwrap_used)]

mod faults;
mod identity;
mod install;
mod jobs;
mod outages;
mod rollout;
mod shop;
mod workloads;

use std::{env, process::ExitCode};
use tests::cluster::{
    Cluster,
    scenarios::{Run, Scenario},
};

const NODES: u32 = 2;
/// Scenarios at a time: what two cores carry.
const WIDTH: usize = 3;

/// Each in a namespace of its own.
const SIDE_BY_SIDE: &[Scenario] = &[
    Scenario { name: "shop", run: shop::everything_is_meshed },
    Scenario { name: "cronjob", run: jobs::a_cronjob_completes },
    Scenario { name: "jobs", run: jobs::jobs_end_with_their_applications },
    Scenario { name: "statefulset", run: workloads::statefulset_with_headless_service },
    Scenario { name: "daemonset", run: workloads::daemonset_on_each_node },
    Scenario { name: "containers", run: workloads::several_containers_and_ports_by_name },
    Scenario { name: "addresses", run: workloads::applications_on_one_address },
    Scenario { name: "filter", run: workloads::a_filter_on_the_original_port },
    Scenario { name: "identity", run: identity::tokens_that_are_not_ones_own },
    Scenario { name: "events", run: faults::events_say_why_a_pod_has_no_proxy },
    Scenario { name: "refusals", run: faults::admission_refuses_what_it_cannot_read },
];

/// What disturbs others.
const ALONE: &[Scenario] = &[
    Scenario { name: "rollout", run: rollout::ten_rolling_restarts },
    Scenario { name: "control outage", run: outages::traffic_without_control },
    Scenario { name: "root rotation", run: identity::roots_change_under_load },
    Scenario { name: "injector outage", run: outages::pods_without_the_injector },
    Scenario { name: "check", run: faults::check_names_what_is_broken },
    Scenario { name: "expired issuer", run: faults::an_issuer_that_has_expired },
    Scenario { name: "gateway api", run: faults::the_gateway_api_is_the_clusters },
];

const HELM_INSTALL: Scenario = Scenario { name: "helm install", run: install::helm_installs_in_time };
const HELM_UNINSTALL: Scenario =
    Scenario { name: "helm uninstall", run: install::helm_leaves_nothing_behind };
const WEFT_INSTALL: Scenario = Scenario { name: "weft install", run: install::weft_installs_the_same };
const SHOP_AGAIN: Scenario = Scenario { name: "weft install: portal", run: shop::everything_is_meshed };
const WEFT_UNINSTALL: Scenario =
    Scenario { name: "weft uninstall", run: install::weft_leaves_nothing_behind };
const CNI: Scenario = Scenario { name: "cni", run: install::pods_without_capabilities };

/// Other ways in and out, one after the other.
const INSTALLATIONS: &[&[Scenario]] = &[&[HELM_UNINSTALL, WEFT_INSTALL, SHOP_AGAIN, WEFT_UNINSTALL], &[CNI]];

fn main() -> ExitCode {
    // What cargo passes to every test program begins with a dash; the rest are words of scenarios' names.
    let wanted = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let cluster = Cluster::up(NODES);
    let run = Run::new(&cluster, wanted);
    if run.one(&HELM_INSTALL) {
        run.side_by_side(WIDTH, SIDE_BY_SIDE);
        run.alone(ALONE);
    }
    for installation in INSTALLATIONS {
        // Each step needs those before it.
        if installation.iter().any(|scenario| run.wants(scenario)) {
            installation.iter().all(|scenario| run.one(scenario));
        }
    }
    if run.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
