//! From stock manifests to what a cluster makes of them: Services get ClusterIPs, Deployments become Pods with names,
//! addresses and a status. The parts of the API server, the controllers and the scheduler, as data; nothing runs here.

mod object;
mod pod;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use object::{Deployment, Metadata, Service};
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
    /// All but the Deployments, as control is to know them.
    manifests: Vec<Manifest>,
    /// Names of the namespaces whose pods are to be meshed.
    meshed: Vec<String>,
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
            manifests: Vec::new(),
            meshed: Vec::new(),
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
        Ok(cluster)
    }

    /// Takes more objects on: those that control is to know, and the Pods of the Deployments among them.
    pub fn apply(&mut self, name: &str, text: &str) -> anyhow::Result<(Vec<Manifest>, Vec<Pod>)> {
        let (known, deployed) = (self.manifests.len(), self.deployments.len());
        let values: Vec<Value> =
            serde_saphyr::from_multiple(text).with_context(|| format!("{name} is not YAML"))?;
        for value in values.into_iter().filter(|value| !value.is_null()) {
            self.add(value).with_context(|| format!("in {name}"))?;
        }
        let mut pods = Vec::new();
        for deployment in self.deployments.split_off(deployed) {
            for _ in 0..deployment.spec.replicas {
                pods.push(self.make(&deployment)?);
            }
            self.deployments.push(deployment);
        }
        Ok((self.manifests.split_off(known), pods))
    }

    fn add(&mut self, mut object: Value) -> anyhow::Result<()> {
        let kind = object["kind"].as_str().context("a document has no kind")?.to_owned();
        match kind.as_str() {
            "Deployment" => {
                self.deployments.push(typed(&object)?);
                return Ok(());
            }
            "Namespace" => {
                let Meta { metadata } = typed(&object)?;
                if metadata.labels.get(INJECT.0).is_some_and(|value| value == INJECT.1) {
                    self.meshed.push(metadata.name);
                }
            }
            "Service" => {
                let mut service: Service = typed(&object)?;
                self.assign_address(&mut service, &mut object)?;
                self.services.push(service);
            }
            "ServiceAccount" | "HTTPRoute" | "TrafficPolicy" | "BackendPolicy" => {}
            _ => bail!(
                "the demo runs no {kind}: only Namespace, ServiceAccount, Service, Deployment, HTTPRoute and policies"
            ),
        }
        self.manifests.push(Manifest::new(object)?);
        Ok(())
    }

    /// Gives a Service a ClusterIP if it wants one.
    fn assign_address(&self, service: &mut Service, object: &mut Value) -> anyhow::Result<()> {
        let spec = &mut service.spec;
        if spec.cluster_ip.is_some() || spec.kind.as_deref().is_some_and(|kind| kind != "ClusterIP") {
            return Ok(());
        }
        let host = u8::try_from(self.services.len()).ok().and_then(|count| FIRST.checked_add(count));
        let host = host.context("too many Services for the demo's network")?;
        let address = Ipv4Addr::new(10, 43, 0, host).to_string();
        object["spec"]["clusterIP"] = address.as_str().into();
        object["spec"]["clusterIPs"] = vec![address.as_str()].into();
        spec.cluster_ip = Some(address);
        Ok(())
    }

    /// The number of objects read.
    pub fn len(&self) -> usize {
        self.manifests.len() + self.deployments.len()
    }

    /// What control is to know besides the Pods.
    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// One Pod for each replica, those first that a Service selects: the others are clients only.
    pub fn schedule(&mut self) -> anyhow::Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for deployment in self.deployments.clone() {
            for _ in 0..deployment.spec.replicas {
                pods.push(self.make(&deployment)?);
            }
        }
        pods.sort_by_key(|pod| pod.service.is_none());
        Ok(pods)
    }

    /// Another Pod of the Deployment that made this one.
    pub fn replacement(&mut self, pod: &Pod) -> anyhow::Result<Pod> {
        let made_by = |deployment: &&Deployment| {
            (&deployment.metadata.name, &deployment.metadata.namespace) == (&pod.deployment, &pod.namespace)
        };
        let deployment = self.deployments.iter().find(made_by).context("the Deployment is gone")?.clone();
        self.make(&deployment)
    }

    fn make(&mut self, deployment: &Deployment) -> anyhow::Result<Pod> {
        let Metadata { name, namespace, .. } = &deployment.metadata;
        if self.next_host == LAST {
            bail!("too many Pods for the demo's network");
        }
        let addresses = self.addresses(self.next_host);
        self.next_host += 1;
        let made = self.made.entry((namespace.clone(), name.clone())).or_default();
        *made += 1;
        let ordinal = *made;
        let is_meshed = self.meshed.contains(namespace);
        Pod::new(deployment, ordinal, addresses, is_meshed, &self.services)
            .with_context(|| format!("making a Pod of Deployment {name}"))
    }

    /// What a pod's /etc/hosts says of the Services, in the place of the cluster's DNS.
    pub fn hosts(&self) -> String {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for Service { metadata: Metadata { name, namespace, .. }, spec } in &self.services {
            if let Some(address) = spec.cluster_ip.as_deref().filter(|address| *address != "None") {
                let full = format!("{name}.{namespace}");
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
    fn new(object: Value) -> anyhow::Result<Self> {
        let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
        let Meta { metadata } = typed(&object)?;
        // A Namespace is in none.
        let file = match object["metadata"].get("namespace") {
            Some(_) => format!("{kind}.{}.{}.json", metadata.namespace, metadata.name),
            None => format!("{kind}.{}.json", metadata.name),
        };
        Ok(Self { file, object })
    }
}

#[derive(Deserialize)]
struct Meta {
    metadata: Metadata,
}

/// The fields of an object that the demo reads.
fn typed<T: DeserializeOwned>(object: &Value) -> anyhow::Result<T> {
    let name = || {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without a name");
        format!("{} {name}", object["kind"].as_str().unwrap_or_default())
    };
    T::deserialize(object).with_context(name)
}
