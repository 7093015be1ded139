//! Whether the agent ends for good, as its DaemonSet has been deleted, or comes back: after an update, a drain, a crash of its node.
//! For good, the plugin goes with it: nobody would look after it any more.

use super::said;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::timeout;

/// Wait for the API server's answer, within the time that a pod has to end.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Asks the API server. Without a clear answer the plugin stays: it works alone, if with less.
pub(super) async fn is_for_good(client: Client, daemonset: Option<(String, String)>) -> bool {
    let Some((namespace, name)) = daemonset else { return false };
    let daemonsets = Api::<DaemonSet>::namespaced(client, &namespace);
    match timeout(ANSWER_WAIT, daemonsets.get_metadata_opt(&name)).await {
        Ok(Ok(None)) => true,
        Ok(Ok(Some(daemonset))) => daemonset.metadata.deletion_timestamp.is_some(),
        // An uninstallation deletes what allowed the question, too.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => true,
        Ok(Err(error)) => {
            tracing::warn!(
                "whether DaemonSet {namespace}/{name} is gone is not known: {}; the plugin stays",
                said(&error)
            );
            false
        }
        Err(_) => {
            tracing::warn!(
                "whether DaemonSet {namespace}/{name} is gone was not told within {ANSWER_WAIT:?}; the plugin stays"
            );
            false
        }
    }
}
