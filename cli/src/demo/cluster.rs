//! From stock manifests to what a cluster makes of them: Services get ClusterIPs, Deployments become Pods with names,
//! addresses and a status. The parts of the API server, the controllers and the scheduler, as data; nothing runs here.

mod pod;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[cfg(test)]
use pod::Program;
pub use pod::{Condition, Pod, Probe};

/// The trust domain of the demo's identities.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// What a namespace carries that wants its pods meshed.
const INJECT: (&str, &str) = ("weft.mesh/inject", "enabled");

/// The node, control and the first pod in 10.42.0.0/24 and fd42::/64; the first Service in 10.43.0.0/24.
const NODE: u8 = 1;
const CONTROL: u8 = 2;
const FIRST: u8 = 10;
const LAST: u8 = 254;

/// The objects of the manifests, with what the cluster added to them.
pub struct Cluster {
    namespaces: Vec<Namespace>,
    accounts: Vec<ServiceAccount>,
    services: Vec<Service>,
    deployments: Vec<Deployment>,
    has_ipv6: bool,
    next_host: u8,
    /// Pods made so far, by Deployment.
    made: BTreeMap<(String, String), usize>,
}

/// An object as the API server would store it.
#[derive(Debug, PartialEq)]
pub struct Manifest {
    /// Its kind, namespace and name, as a file name: `service.shop.cart.json`.
    pub file: String,
    pub object: Value,
}

impl Cluster {
    /// Reads YAML or JSON documents, each named for errors, and gives ClusterIPs in the order of the documents.
    pub fn read<'a>(
        documents: impl IntoIterator<Item = (&'a str, &'a str)>,
        has_ipv6: bool,
    ) -> anyhow::Result<Self> {
        let mut cluster = Self {
            namespaces: Vec::new(),
            accounts: Vec::new(),
            services: Vec::new(),
            deployments: Vec::new(),
            has_ipv6,
            next_host: FIRST,
            made: BTreeMap::new(),
        };
        for (name, text) in documents {
            let values: Vec<Value> =
                serde_saphyr::from_multiple(text).with_context(|| format!("{name} is not YAML"))?;
            for value in values.into_iter().filter(|value| !value.is_null()) {
                cluster.add(value).with_context(|| format!("in {name}"))?;
            }
        }
        if cluster.deployments.is_empty() {
            bail!("the manifests hold no Deployment");
        }
        cluster.assign_addresses()?;
        Ok(cluster)
    }

    fn add(&mut self, value: Value) -> anyhow::Result<()> {
        let kind = value.get("kind").and_then(Value::as_str).context("a document has no kind")?.to_owned();
        match kind.as_str() {
            "Namespace" => self.namespaces.push(typed(&kind, value)?),
            "ServiceAccount" => self.accounts.push(typed(&kind, value)?),
            "Service" => self.services.push(typed(&kind, value)?),
            "Deployment" => self.deployments.push(typed(&kind, value)?),
            _ => bail!("the demo runs no {kind}: only Namespace, ServiceAccount, Service and Deployment"),
        }
        Ok(())
    }

    fn assign_addresses(&mut self) -> anyhow::Result<()> {
        let wanting = self.services.iter_mut().filter_map(|service| service.spec.as_mut()).filter(|spec| {
            spec.cluster_ip.is_none() && spec.type_.as_deref().is_none_or(|kind| kind == "ClusterIP")
        });
        let mut hosts = FIRST..=LAST;
        for spec in wanting {
            let host = hosts.next().context("too many Services for the demo's network")?;
            let address = Ipv4Addr::new(10, 43, 0, host).to_string();
            spec.cluster_ips = Some(vec![address.clone()]);
            spec.cluster_ip = Some(address);
        }
        Ok(())
    }

    /// The number of objects read.
    pub fn len(&self) -> usize {
        self.namespaces.len() + self.accounts.len() + self.services.len() + self.deployments.len()
    }

    /// What control is to know besides the Pods.
    pub fn manifests(&self) -> Vec<Manifest> {
        let namespaces = self.namespaces.iter().map(|object| Manifest::new(&object.metadata, object));
        let accounts = self.accounts.iter().map(|object| Manifest::new(&object.metadata, object));
        let services = self.services.iter().map(|object| Manifest::new(&object.metadata, object));
        namespaces.chain(accounts).chain(services).collect()
    }

    /// One Pod for each replica, those first that a Service selects: the others are clients only.
    pub fn schedule(&mut self) -> anyhow::Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for deployment in self.deployments.clone() {
            let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            for _ in 0..replicas {
                pods.push(self.make(&deployment)?);
            }
        }
        pods.sort_by_key(|pod| pod.service.is_none());
        Ok(pods)
    }

    /// Another Pod of the Deployment that made this one.
    pub fn replacement(&mut self, pod: &Pod) -> anyhow::Result<Pod> {
        let made_by = |deployment: &&Deployment| {
            let metadata = &deployment.metadata;
            metadata.name.as_deref() == Some(&pod.deployment) && namespace(metadata) == pod.namespace
        };
        let deployment = self.deployments.iter().find(made_by).context("the Deployment is gone")?.clone();
        self.make(&deployment)
    }

    fn make(&mut self, deployment: &Deployment) -> anyhow::Result<Pod> {
        let metadata = &deployment.metadata;
        let name = metadata.name.clone().context("a Deployment has no name")?;
        if self.next_host == LAST {
            bail!("too many Pods for the demo's network");
        }
        let addresses = self.addresses(self.next_host);
        self.next_host += 1;
        let made = self.made.entry((namespace(metadata).into(), name.clone())).or_default();
        *made += 1;
        let ordinal = *made;
        let is_meshed = self.namespaces.iter().any(|object| {
            object.metadata.name.as_deref() == Some(namespace(metadata))
                && has_label(&object.metadata, INJECT)
        });
        Pod::new(deployment, ordinal, addresses, is_meshed, &self.services)
            .with_context(|| format!("making a Pod of Deployment {name}"))
    }

    /// What a pod's /etc/hosts says of the Services, in the place of the cluster's DNS.
    pub fn hosts(&self) -> String {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for service in &self.services {
            let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
            if let (Some(address), Some(name)) = (address.filter(|ip| *ip != "None"), &service.metadata.name)
            {
                let full = format!("{name}.{}", namespace(&service.metadata));
                writeln!(text, "{address} {full} {full}.svc {full}.svc.{TRUST_DOMAIN}")
                    .expect("a String takes all");
            }
        }
        text
    }

    pub fn node_addresses(&self) -> Vec<IpAddr> {
        self.addresses(NODE)
    }

    pub fn control_addresses(&self) -> Vec<IpAddr> {
        self.addresses(CONTROL)
    }

    fn addresses(&self, host: u8) -> Vec<IpAddr> {
        let v4 = Ipv4Addr::new(10, 42, 0, host).into();
        let v6 = Ipv6Addr::new(0xfd42, 0, 0, 0, 0, 0, 0, host.into()).into();
        if self.has_ipv6 { vec![v4, v6] } else { vec![v4] }
    }
}

impl Manifest {
    fn new<T: serde::Serialize>(metadata: &ObjectMeta, object: &T) -> Self {
        let object = serde_json::to_value(object).expect("Kubernetes objects are JSON");
        let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
        let name = metadata.name.as_deref().unwrap_or_default();
        let file = match &metadata.namespace {
            Some(namespace) => format!("{kind}.{namespace}.{name}.json"),
            None => format!("{kind}.{name}.json"),
        };
        Self { file, object }
    }
}

fn typed<T: DeserializeOwned>(kind: &str, value: Value) -> anyhow::Result<T> {
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without a name").to_owned();
    serde_json::from_value(value).with_context(|| format!("{kind} {name}"))
}

fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or("default")
}

fn has_label(metadata: &ObjectMeta, (key, value): (&str, &str)) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.get(key).is_some_and(|found| found == value))
}
