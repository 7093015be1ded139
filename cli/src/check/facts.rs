//! What the checks go by: the cluster's objects, trimmed to what is judged, and answers to questions that were asked.
//!
//! Gathered once (`gather`), or read from a file by the tests. Nothing here judges, and nothing reaches the cluster.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was found, or why it is not known: in the API server's or our words.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Known<T> {
    Unknown { unknown: String },
    Known(T),
}

/// Everything.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// When this was gathered.
    pub now: Timestamp,
    /// The mesh's namespace.
    pub namespace: String,
    /// The command line's own version.
    pub version: String,
    /// Whether redirection is, or is to be, by the CNI plugin.
    pub cni: bool,
    /// The API server's.
    pub server: Known<Server>,
    /// Questions "may … ?" and their answers.
    pub access: Vec<Access>,
    pub nodes: Known<Vec<Node>>,
    pub namespaces: Known<Vec<Namespace>>,
    pub webhooks: Known<Vec<WebhookConfiguration>>,
    /// CustomResourceDefinitions of the Gateway API, and ours.
    pub definitions: Known<Vec<Metadata>>,
    /// Of the mesh's namespace.
    pub deployments: Known<Vec<Workload>>,
    /// Of the mesh's namespace.
    pub daemon_sets: Known<Vec<Workload>>,
    /// Secret `weft-identity-issuer`, without its key. `None`: there is none.
    pub issuer: Known<Option<Issuer>>,
    /// Secret `weft-injector-tls`, without its key. `None`: there is none.
    pub injector_tls: Known<Option<InjectorTls>>,
    /// ConfigMaps `weft-trust-roots`: `ca.pem` by namespace.
    pub trust_roots: Known<BTreeMap<String, String>>,
    /// Lease `weft-control`. `None`: there is none.
    pub lease: Known<Option<Lease>>,
    /// All of the cluster's.
    pub pods: Known<Vec<Pod>>,
    /// What control says is wrong, by its pod.
    pub problems: BTreeMap<String, Known<Vec<Problem>>>,
    /// What proxies hold, by pod (`namespace/name`); some of them only.
    pub proxies: BTreeMap<String, Known<Proxy>>,
    /// What failed `weft-init` containers have said last, by pod.
    pub init_logs: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// `/version`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    pub git_version: String,
}

/// A right, and whether whoever it is about has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// `namespace/name` of a service account; `None` is who runs this command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    pub verb: String,
    /// Resource with its group, as kubectl writes it: `deployments.apps`.
    pub resource: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `None` is the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub allowed: Known<bool>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Node {
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: NodeSpec,
    pub status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct NodeSpec {
    #[serde(default)]
    pub taints: Vec<Taint>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Taint {
    pub key: String,
    pub effect: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    pub node_info: NodeInfo,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    pub kernel_version: String,
    pub kubelet_version: String,
    pub operating_system: String,
    pub architecture: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Namespace {
    pub metadata: Metadata,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WebhookConfiguration {
    pub metadata: Metadata,
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    pub name: String,
    pub client_config: ClientConfig,
    #[serde(default)]
    pub failure_policy: Option<String>,
    #[serde(default)]
    pub namespace_selector: Value,
    #[serde(default)]
    pub object_selector: Value,
    #[serde(default)]
    pub rules: Vec<WebhookRule>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WebhookRule {
    #[serde(default)]
    pub resources: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientConfig {
    /// PEM within base64.
    #[serde(default)]
    pub ca_bundle: Option<ByteString>,
    #[serde(default)]
    pub service: Option<ServiceReference>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ServiceReference {
    pub name: String,
    pub namespace: String,
}

/// A Deployment or a DaemonSet.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Workload {
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: WorkloadSpec,
    #[serde(default)]
    pub status: WorkloadStatus,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct WorkloadSpec {
    pub replicas: Option<i64>,
    pub template: PodTemplate,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct PodTemplate {
    pub spec: PodSpec,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatus {
    /// Of a Deployment.
    pub available_replicas: i64,
    pub updated_replicas: i64,
    /// Of a DaemonSet.
    pub desired_number_scheduled: i64,
    pub number_available: i64,
}

/// `issuer.pem` and `ca.pem`: a chain that control shows, and the roots it believes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    pub issuer_pem: Option<String>,
    pub ca_pem: Option<String>,
    pub has_key: bool,
}

/// `tls.crt` of the webhook.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InjectorTls {
    pub tls_crt: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Lease {
    #[serde(default)]
    pub spec: LeaseSpec,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    pub holder_identity: Option<String>,
    pub lease_duration_seconds: Option<i64>,
    pub renew_time: Option<Timestamp>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Pod {
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: PodSpec,
    #[serde(default)]
    pub status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub host_network: bool,
    pub init_containers: Vec<Container>,
    pub containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Container {
    pub name: String,
    pub image: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    pub init_container_statuses: Vec<ContainerStatus>,
    pub container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub ready: bool,
    pub restart_count: i64,
    pub state: ContainerState,
    pub last_state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ContainerState {
    pub waiting: Option<Waiting>,
    pub terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    pub exit_code: i64,
    pub reason: String,
    pub message: String,
}

/// One of control's `/problems`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Problem {
    #[serde(default)]
    pub object: String,
    #[serde(default)]
    pub field: String,
    #[serde(default)]
    pub what: String,
}

/// What a proxy says of itself at `/config`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Proxy {
    #[serde(default)]
    pub control: ProxyControl,
    #[serde(default)]
    pub certificate: Option<ProxyCertificate>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ProxyControl {
    pub connected: bool,
    pub failure: Option<String>,
}

/// PEM.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ProxyCertificate {
    /// The leaf first.
    pub chain: String,
}

impl<T> Known<T> {
    pub fn of<E: std::fmt::Display>(result: Result<T, E>) -> Self {
        result.map_or_else(|why| Self::Unknown { unknown: why.to_string() }, Self::Known)
    }

    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } => None,
        }
    }
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self::Unknown { unknown: "it was not asked for".into() }
    }
}

impl Metadata {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}

impl Pod {
    /// `namespace/name`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.metadata.namespace.as_deref().unwrap_or_default(), self.metadata.name)
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Its proxy's container, native sidecar or not.
    pub fn proxy(&self) -> Option<&Container> {
        self.containers().find(|container| container.name == "weft-proxy")
    }

    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init_containers.iter().chain(&self.spec.containers)
    }

    pub fn statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.status.init_container_statuses.iter().chain(&self.status.container_statuses)
    }

    pub fn container_status(&self, name: &str) -> Option<&ContainerStatus> {
        self.statuses().find(|status| status.name == name)
    }
}
