//! The fields of Kubernetes objects that the demo reads, in Kubernetes' own spelling. Everything else of an object is
//! passed on as it stands: control is the one that reads objects whole.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A namespace and a name; `default` where an object of a namespace names none.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    pub name: String,
    #[serde(default = "default_namespace")]
    pub namespace: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    pub metadata: Metadata,
    pub spec: ServiceSpec,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Deployment {
    pub metadata: Metadata,
    pub spec: DeploymentSpec,
}

#[derive(Clone, Debug, Deserialize)]
pub struct DeploymentSpec {
    #[serde(default = "one")]
    pub replicas: usize,
    pub template: Template,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Template {
    #[serde(default)]
    pub metadata: TemplateMetadata,
    /// A `PodSpec`, whole.
    pub spec: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct TemplateMetadata {
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    pub service_account_name: Option<String>,
    pub containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub image: Option<String>,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: Vec<Variable>,
    #[serde(default)]
    pub ports: Vec<Port>,
    pub readiness_probe: Option<ReadinessProbe>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    pub name: String,
    #[serde(default)]
    pub value: String,
    pub value_from: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    pub name: Option<String>,
    pub container_port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessProbe {
    pub http_get: Option<HttpGet>,
}

#[derive(Debug, Deserialize)]
pub struct HttpGet {
    pub path: Option<String>,
    pub port: PortOrName,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum PortOrName {
    Port(u16),
    Name(String),
}

fn default_namespace() -> String {
    "default".into()
}

fn one() -> usize {
    1
}
