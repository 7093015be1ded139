//! Restarts of a Deployment under load: no request notices.

use tests::cluster::{Cluster, load::Load, namespace::Namespace, workloads};

const RESTARTS: usize = 10;
const PER_SECOND: u32 = 500;

pub fn ten_rolling_restarts(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "rollout");
    namespace.apply(&workloads::server("server", 2));
    namespace.ready(&["deployment/server"]);
    let load = Load::start(&namespace, "load", PER_SECOND, "http://server/");
    for _ in 0..RESTARTS {
        namespace.kubectl(&["rollout", "restart", "deployment/server"]);
        namespace.ready(&["deployment/server"]);
    }
    // Each restart takes some seconds, and brings two new pods, each of which was asked.
    let report = load.assert_faultless(RESTARTS as u64 * u64::from(PER_SECOND));
    assert!(report.pods > 2 * RESTARTS, "only {} pods answered: {}", report.pods, report.text);
    namespace.assert_mtls("load", "outbound", "server");
    println!(
        "rollout: {RESTARTS} restarts, {} requests, {} failed, {} pods",
        report.sent, report.failed, report.pods
    );
}
