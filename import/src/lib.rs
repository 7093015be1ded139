//! Istio's objects become ours: VirtualService, DestinationRule, Gateway and ServiceEntry of `networking.istio.io` as
//! Gateway API's routes and Gateways, TrafficPolicies and BackendPolicies, Services. Pure: texts in, objects and a
//! report out; files and standard streams are the caller's.
//!
//! Nothing is dropped in silence, and no list of fields stands for that: each value of the input is a `tree::Node`, which is
//! marked when it is read. In the end each tree is walked, and what is unmarked is a finding. Who reads a value and
//! cannot carry it says so at the node.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod destination_rule;
mod duration;
mod gateway;
mod object;
mod output;
mod report;
mod service_entry;
mod tree;
mod virtual_service;
mod world;

use serde_json::Value;

pub use object::{Source, Unreadable};
pub use report::Finding;

use object::Object;
use output::Output;
use world::World;

/// What the input became.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// Manifests, in the order in which they can be applied.
    pub objects: Vec<Value>,
    /// What was dropped and what there is to know, in the order of the input.
    pub findings: Vec<Finding>,
}

impl Imported {
    /// The objects as the documents of a YAML file.
    pub fn yaml(&self) -> Result<String, String> {
        let mut text = String::new();
        for object in &self.objects {
            let options = serde_saphyr::ser_options! { prefer_block_scalars: true };
            if !text.is_empty() {
                text.push_str("---\n");
            }
            text +=
                &serde_saphyr::to_string_with_options(object, options).map_err(|error| error.to_string())?;
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
        Ok(text)
    }

    /// Whether something of the input was lost.
    pub fn is_lossy(&self) -> bool {
        self.findings.iter().any(|finding| finding.dropped)
    }
}

/// Imports Istio's objects from these files. Services among them say which ports and selectors there are; all other objects
/// are passed over. `namespace` is of objects that name none.
pub fn istio(sources: &[Source], namespace: &str) -> Result<Imported, Unreadable> {
    let mut objects = Vec::new();
    for source in sources {
        objects.extend(object::objects(source, namespace)?);
    }
    Ok(convert(&objects))
}

fn convert(objects: &[Object]) -> Imported {
    let world = World::new(objects);
    let mut output = Output::default();
    for object in objects.iter().filter(|object| object.is_istio()) {
        object.read_head();
        match (object.group.as_str(), object.kind.as_str()) {
            ("networking.istio.io", "VirtualService") => virtual_service::import(&world, object, &mut output),
            ("networking.istio.io", "DestinationRule") => {
                destination_rule::import(&world, object, &mut output)
            }
            ("networking.istio.io", "Gateway") => gateway::import(object, &mut output),
            ("networking.istio.io", "ServiceEntry") => service_entry::import(object, &mut output),
            (_, kind) => object.root.drop(format!("{kind} is not imported"), elsewhere(kind)),
        }
    }
    let istio = objects.iter().filter(|object| object.is_istio());
    let findings = istio.flat_map(report::findings).collect();
    Imported { objects: output.finish(), findings }
}

/// What to do about a kind that is not imported.
fn elsewhere(kind: &str) -> &'static str {
    match kind {
        "Sidecar" => "leave it out: proxies learn of a destination when it is dialled",
        "EnvoyFilter" | "WasmPlugin" => "there is no Envoy to configure: see what it is for",
        "PeerAuthentication" => "leave it out if it asks for mTLS: proxies speak it among themselves",
        "AuthorizationPolicy" | "RequestAuthentication" => {
            "until it is imported, guard these workloads by other means, NetworkPolicies for example"
        }
        _ => "carry it by hand if it matters",
    }
}

#[cfg(test)]
mod tests;
