//! What the official suite does not look at: where a redirect leads, the path, the Host and the fields that a backend sees, whose
//! rule held, and every condition of every status. The cases are data, in `tests/conformance/strict`; `case.rs` says what stands there.

use crate::check::Check;
use tests::cluster::Cluster;

pub fn requests_and_statuses(cluster: &Cluster) {
    Check::new(cluster, "strict").cases(10);
}
