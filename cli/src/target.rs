//! Whose proxy is meant: a pod by its name, or the pods of a workload. And what that proxy says of itself.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::{Cluster, Connection, Failure};
use crate::names::{NOT_INJECTED, PROXY_ADMIN, PROXY_CONTAINER};

/// What may stand before the slash, and where the API server keeps such workloads.
const WORKLOADS: [(&[&str], &str); 6] = [
    (&["deploy", "deployment", "deployments"], "apps/v1 deployments"),
    (&["sts", "statefulset", "statefulsets"], "apps/v1 statefulsets"),
    (&["ds", "daemonset", "daemonsets"], "apps/v1 daemonsets"),
    (&["rs", "replicaset", "replicasets"], "apps/v1 replicasets"),
    (&["job", "jobs"], "batch/v1 jobs"),
    (&["pod", "pods", "po"], ""),
];

/// Which proxy.
#[derive(Debug, clap::Args)]
pub struct Target {
    #[command(flatten)]
    connection: Connection,
    /// The pod, or one of a workload's: cart-7f9c, deploy/cart, sts/db, ds/agent, job/import
    #[arg(value_name = "POD|KIND/NAME")]
    name: String,
    /// Namespace of the pod [default: the context's]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// What a proxy says at its admin port's `/config`.
#[derive(Debug)]
pub struct Said {
    /// `namespace/name`.
    pub pod: String,
    pub config: Value,
}

#[derive(Debug, Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    init_containers: Vec<Container>,
    containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Container {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

impl Target {
    /// Asks the proxy.
    pub async fn ask(&self) -> anyhow::Result<Said> {
        let cluster = self.connection.open().await?;
        let namespace = self.namespace.as_deref().unwrap_or(cluster.default_namespace()).to_owned();
        let pod = self.find(&cluster, &namespace).await?;
        let title = format!("{namespace}/{}", pod.metadata.name);
        pod.refuse_without_proxy(&title)?;
        let (status, body) = match cluster.page(&namespace, &pod.metadata.name, PROXY_ADMIN, "/config").await
        {
            Ok(answer) => answer,
            Err(Failure::Forbidden(why)) => {
                bail!("{why}: it needs the right to create pods/portforward in namespace {namespace}")
            }
            Err(why) => bail!("{why}; the pod is {}", pod.status.phase),
        };
        if status != 200 {
            bail!("the proxy of pod {title} answers {status}: {}", body.trim());
        }
        let config = serde_json::from_str(&body)
            .with_context(|| format!("what the proxy of pod {title} says cannot be read"))?;
        Ok(Said { pod: title, config })
    }

    async fn find(&self, cluster: &Cluster, namespace: &str) -> anyhow::Result<Pod> {
        let (kind, name) = self.name.split_once('/').unwrap_or(("pod", &self.name));
        let lower = kind.to_lowercase();
        let Some((_, place)) = WORKLOADS.iter().find(|(kinds, _)| kinds.contains(&lower.as_str())) else {
            bail!("{kind:?} is no kind whose pods are known: pod, deploy, sts, ds, rs or job");
        };
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let absent =
            || format!("there is no {lower} {name} in namespace {namespace}: name another by --namespace");
        let Some((version, plural)) = place.split_once(' ') else {
            let found = cluster.find(&format!("{pods}/{name}")).await?;
            return found.with_context(absent);
        };
        let path = format!("/apis/{version}/namespaces/{namespace}/{plural}/{name}");
        let workload: Value = cluster.find(&path).await?.with_context(absent)?;
        let selector = selector(&workload["spec"]["selector"]).with_context(|| {
            format!("{lower} {name} in namespace {namespace} does not say which pods are its")
        })?;
        let mut found: Vec<Pod> = cluster.list(&pods, &selector).await?;
        found.sort_by_key(|pod| (pod.status.phase != "Running", !pod.has_proxy(), pod.metadata.name.clone()));
        found
            .into_iter()
            .next()
            .with_context(|| format!("{lower} {name} in namespace {namespace} has no pods"))
    }
}

impl Pod {
    fn has_proxy(&self) -> bool {
        self.spec.init_containers.iter().chain(&self.spec.containers).any(|one| one.name == PROXY_CONTAINER)
    }

    fn refuse_without_proxy(&self, title: &str) -> anyhow::Result<()> {
        if self.has_proxy() {
            return Ok(());
        }
        match self.metadata.annotations.get(NOT_INJECTED) {
            Some(why) => bail!("pod {title} is not meshed: {why}"),
            None => bail!(
                "pod {title} is not meshed: label its namespace weft.mesh/inject=enabled and restart it \
                 (`weft check` tells more)"
            ),
        }
    }
}

/// As a label selector in a query: of `matchLabels` and `matchExpressions`.
fn selector(selector: &Value) -> Option<String> {
    let mut terms: Vec<String> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str()?));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values: Vec<_> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let values = values.join(",");
        terms.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!terms.is_empty()).then(|| terms.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_is_written_as_the_api_server_reads_it() {
        let all = json!({
            "matchLabels": { "app": "cart" },
            "matchExpressions": [
                { "key": "tier", "operator": "In", "values": ["a", "b"] },
                { "key": "old", "operator": "DoesNotExist" },
                { "key": "new", "operator": "Exists" },
                { "key": "zone", "operator": "NotIn", "values": ["z"] },
            ],
        });
        assert_eq!(selector(&all).unwrap(), "app=cart,tier in (a,b),!old,new,zone notin (z)");
        assert_eq!(selector(&json!({})), None, "everything is not meant");
        assert_eq!(selector(&json!({ "matchExpressions": [{ "key": "a", "operator": "Odd" }] })), None);
    }

    #[test]
    fn a_pod_without_a_proxy_says_why() {
        let pod = |value| serde_json::from_value::<Pod>(value).unwrap().refuse_without_proxy("shop/cart");
        let native = json!({ "metadata": { "name": "cart" }, "spec": { "initContainers": [{ "name": "weft-proxy" }] } });
        let classic =
            json!({ "metadata": { "name": "cart" }, "spec": { "containers": [{ "name": "weft-proxy" }] } });
        assert!(pod(native).is_ok() && pod(classic).is_ok());
        let left = json!({ "metadata": { "name": "cart", "annotations": { "weft.mesh/not-injected": "hostNetwork" } } });
        assert_eq!(pod(left).unwrap_err().to_string(), "pod shop/cart is not meshed: hostNetwork");
        let plain = json!({ "metadata": { "name": "cart" } });
        assert!(pod(plain).unwrap_err().to_string().contains("label its namespace"));
    }
}
