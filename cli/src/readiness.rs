//! What an installed mesh still lacks to be ready, in sentences: replicas, and the webhook's certificate.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::manifests::Object;

/// Empty when all is ready.
pub async fn missing(cluster: &Cluster, objects: &[Object]) -> anyhow::Result<BTreeSet<String>> {
    let mut missing = BTreeSet::new();
    for object in objects {
        let judge: fn(&Value) -> Option<String> = match object.resource.kind {
            "Deployment" => deployment,
            "DaemonSet" => daemon_set,
            "MutatingWebhookConfiguration" => webhooks,
            _ => continue,
        };
        let current: Option<Value> = match cluster.find(&object.path()).await {
            Ok(current) => current,
            Err(why) => {
                missing.insert(format!("{}: {why}", object.title()));
                continue;
            }
        };
        let what = current.as_ref().map_or_else(|| Some("it is gone".to_owned()), judge);
        let Some(what) = what else { continue };
        missing.insert(format!("{}: {what}", object.title()));
        if let Some(reason) = pods(cluster, object).await {
            missing.insert(reason);
        }
    }
    Ok(missing)
}

fn deployment(object: &Value) -> Option<String> {
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let count = |field: &str| object["status"][field].as_i64().unwrap_or(0);
    if !is_observed(object) {
        return Some("its change has not been seen by the controller yet".into());
    }
    let (updated, available, all) = (count("updatedReplicas"), count("availableReplicas"), count("replicas"));
    if updated < wanted || available < wanted {
        return Some(format!("{} of {wanted} replicas available", available.min(updated)));
    }
    (all > updated).then(|| format!("{} replicas of the version before are ending", all - updated))
}

fn daemon_set(object: &Value) -> Option<String> {
    let count = |field: &str| object["status"][field].as_i64().unwrap_or(0);
    if !is_observed(object) {
        return Some("its change has not been seen by the controller yet".into());
    }
    let (wanted, updated) = (count("desiredNumberScheduled"), count("updatedNumberScheduled"));
    let available = count("numberAvailable").min(updated);
    (available < wanted).then(|| format!("{available} of {wanted} nodes have it available"))
}

fn webhooks(object: &Value) -> Option<String> {
    let webhooks = object["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lacks = |webhook: &&Value| webhook["clientConfig"]["caBundle"].as_str().unwrap_or("").is_empty();
    webhooks.iter().find(lacks).map(|webhook| {
        let name = webhook["name"].as_str().unwrap_or_default();
        format!("{name} has no caBundle: the injector has not written it yet")
    })
}

fn is_observed(object: &Value) -> bool {
    let generation = |at: &str| object.pointer(at).and_then(Value::as_i64);
    generation("/status/observedGeneration") >= generation("/metadata/generation")
}

/// Why the first pod that waits does so, as its containers or the scheduler tell it.
async fn pods(cluster: &Cluster, object: &Object) -> Option<String> {
    let labels = object.value.pointer("/spec/selector/matchLabels")?.as_object()?;
    let selector: Vec<_> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let path = format!("/api/v1/namespaces/{}/pods", object.namespace.as_deref()?);
    let pods: Vec<Value> = cluster.list(&path, &selector.join(",")).await.ok()?;
    pods.iter().find_map(|pod| {
        let name = pod.pointer("/metadata/name")?.as_str()?;
        Some(format!("Pod {}/{name}: {}", object.namespace.as_deref()?, reason(pod)?))
    })
}

fn reason(pod: &Value) -> Option<String> {
    let list = |at: &str| pod.pointer(at).and_then(Value::as_array).into_iter().flatten();
    let waiting = list("/status/initContainerStatuses")
        .chain(list("/status/containerStatuses"))
        .filter_map(|status| {
            let waiting = status.pointer("/state/waiting").filter(|waiting| {
                !matches!(waiting["reason"].as_str(), None | Some("ContainerCreating" | "PodInitializing"))
            });
            let why = waiting.or_else(|| status.pointer("/state/terminated"))?;
            Some(format!("{} {}", why["reason"].as_str()?, why["message"].as_str().unwrap_or_default()))
        })
        .next();
    let unscheduled = || {
        list("/status/conditions")
            .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")
            .map(|condition| condition["message"].as_str().unwrap_or("no node takes it").to_owned())
    };
    waiting.or_else(unscheduled).map(|reason| reason.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_is_ready_when_all_replicas_are_of_this_version() {
        let of = |replicas, updated, available, observed| {
            deployment(&json!({
                "metadata": { "generation": 2 },
                "spec": { "replicas": 2 },
                "status": {
                    "observedGeneration": observed, "replicas": replicas,
                    "updatedReplicas": updated, "availableReplicas": available,
                },
            }))
        };
        assert_eq!(of(2, 2, 2, 2), None);
        assert!(of(2, 2, 2, 1).unwrap().contains("not been seen"));
        assert_eq!(of(2, 2, 1, 2).unwrap(), "1 of 2 replicas available");
        assert_eq!(of(3, 1, 2, 2).unwrap(), "1 of 2 replicas available");
        assert_eq!(of(3, 2, 2, 2).unwrap(), "1 replicas of the version before are ending");
    }

    #[test]
    fn a_webhook_needs_a_bundle() {
        let of = |bundle: &str| {
            webhooks(&json!({ "webhooks": [
            { "name": "a.inject.weft.mesh", "clientConfig": { "caBundle": "eA==" } },
            { "name": "b.inject.weft.mesh", "clientConfig": { "caBundle": bundle } },
        ] }))
        };
        assert_eq!(of("eA=="), None);
        assert!(of("").unwrap().starts_with("b.inject.weft.mesh has no caBundle"));
    }

    #[test]
    fn what_keeps_a_pod_is_named() {
        let pulling = json!({ "status": { "containerStatuses": [
            { "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } } },
        ] } });
        assert_eq!(reason(&pulling).unwrap(), "ImagePullBackOff no such image");
        let unscheduled = json!({ "status": { "conditions": [
            { "type": "PodScheduled", "status": "False", "message": "0/2 nodes are available" },
        ] } });
        assert_eq!(reason(&unscheduled).unwrap(), "0/2 nodes are available");
        let starting = json!({ "status": { "containerStatuses": [
            { "state": { "waiting": { "reason": "ContainerCreating" } } },
        ] } });
        assert_eq!(reason(&starting), None);
    }
}
