//! The node's taint: while the agent is not ready, pods should not come here, and whoever bootstraps the node has tainted it. Once
//! ready, the taint is taken off.

use super::{Status, said};
use admin::Told;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// The taint's key; its effect is the bootstrap's choice, NoSchedule by the book.
pub const TAINT: &str = "weft.mesh/cni-not-ready";
/// Between two looks while the agent is not ready, or the taint could not be taken off.
const SOON: Duration = Duration::from_secs(1);
/// Between two looks once it is off: a node that was made anew under the same name is tainted again.
const LATER: Duration = Duration::from_secs(60);

/// Takes the taint off whenever the agent is ready; ends only when it is dropped.
pub(super) async fn keep(client: Client, node: &str, status: &Status) {
    let nodes = Api::<Node>::all(client);
    loop {
        let pause = match status.unready() {
            Some(_) => SOON,
            None => match untaint(&nodes, node).await {
                Ok(0) => LATER,
                Ok(_) => {
                    tracing::info!("the taint {TAINT} of node {node} has been taken off");
                    LATER
                }
                Err(error) => {
                    tracing::warn!(
                        "the taint {TAINT} of node {node} could not be taken off: {}",
                        said(&error)
                    );
                    SOON
                }
            },
        };
        sleep(pause).await;
    }
}

/// Gives how many there were.
pub(super) async fn untaint(nodes: &Api<Node>, name: &str) -> kube::Result<usize> {
    let node = nodes.get(name).await?;
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let (ours, others): (Vec<_>, Vec<_>) = taints.into_iter().partition(|taint| taint.key == TAINT);
    if !ours.is_empty() {
        // With the version that was read, nobody's taint is lost that came meanwhile.
        let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": others}});
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(ours.len())
}
