//! What one replica does for all: it holds the Lease, and writes the ConfigMaps of the roots, Events, and the statuses of
//! routes and policies as long as it does.

use super::{Backoff, Cluster, events, meshes, statuses, trust_roots};
use crate::{
    Control,
    problems::{Problem, Source},
};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use std::sync::Arc;
use tokio::time::sleep;

/// The Lease in control's namespace.
const NAME: &str = "weft-control";
/// A holder that says nothing for this long is taken for gone, in seconds; it renews that many before the end.
const DURATION_S: u64 = 15;
const GRACE_S: u64 = 5;

/// Does the duties whenever this replica holds the Lease. Serves until it is dropped.
pub async fn keep(control: Arc<Control>, cluster: Arc<Cluster>) {
    let mut backoff = Backoff::default();
    loop {
        let lost = match lease(&cluster, control.instance).await {
            Ok(lease) => hold(&control, &cluster, &lease, &mut backoff).await,
            Err(error) => error,
        };
        let what = format!(
            "the Lease {NAME} cannot be kept ({}); no ConfigMap with the roots, no Event and no status is written \
             meanwhile",
            crate::chain(&lost)
        );
        control.world().problems_of(Source::Duties, [Problem { what, ..Problem::default() }].into());
        sleep(backoff.next()).await;
    }
}

async fn lease(cluster: &Cluster, instance: u64) -> Result<LeaseManager, LeaseManagerError> {
    // In a Pod this is its name.
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "control".into());
    LeaseManagerBuilder::new(cluster.client.clone(), NAME)
        .with_namespace(cluster.namespace.clone())
        .with_identity(format!("{host}-{instance:016x}"))
        .with_duration(DURATION_S)
        .with_grace(GRACE_S)
        .build()
        .await
}

/// Waits for the Lease and does the duties while it is held; ends with the fault that makes it doubtful.
async fn hold(
    control: &Arc<Control>,
    cluster: &Arc<Cluster>,
    lease: &LeaseManager,
    backoff: &mut Backoff,
) -> LeaseManagerError {
    let mut held = false;
    loop {
        let changed = tokio::select! {
            changed = lease.changed() => changed,
            () = duties(control, cluster), if held => continue,
        };
        match changed {
            Ok(now) => {
                *backoff = Backoff::default();
                control.world().problems_of(Source::Duties, [].into());
                if now != held {
                    let word = if now { "holds" } else { "no longer holds" };
                    tracing::info!("this replica {word} the Lease {NAME}");
                }
                held = now;
                control.metrics.leader.set(i64::from(held));
            }
            Err(error) => {
                control.metrics.leader.set(0);
                return error;
            }
        }
    }
}

async fn duties(control: &Arc<Control>, cluster: &Arc<Cluster>) {
    tokio::join!(
        trust_roots::keep(control, cluster),
        events::keep(control, cluster),
        statuses::keep(control, cluster),
        meshes::keep(control, cluster)
    );
}
