//! The objects of the mesh as data: the chart's rendered manifests, fitted to a namespace and a registry. No cluster.
//!
//! What can be chosen beyond that (values, replicas, resources) is the Helm chart's; `weft install` knows its three
//! usual renderings.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::{Value, json};

#[cfg(test)]
mod tests;

/// The namespace, prefix and tag that the renderings are written with.
pub const NAMESPACE: &str = "weft-system";
pub const IMAGE_PREFIX: &str = "weft.mesh";
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Who installed an object, and that it is of the mesh.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// What `MANAGED_BY` says of the objects that the command line applies.
pub const MANAGER: &str = "weft";
/// The kind that defines other kinds: ours come with the mesh.
pub const CRD: &str = "CustomResourceDefinition";
/// Our images.
const IMAGES: [&str; 4] = ["control", "injector", "init", "proxy"];

/// A kind of object that the mesh consists of: where the API server keeps it.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub is_namespaced: bool,
}

const fn resource(
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
    is_namespaced: bool,
) -> Resource {
    Resource { api_version, kind, plural, is_namespaced }
}

/// In the order in which they are applied; they are deleted in the reverse one, but for the webhooks, which go first.
pub const RESOURCES: &[Resource] = &[
    resource("v1", "Namespace", "namespaces", false),
    resource("apiextensions.k8s.io/v1", CRD, "customresourcedefinitions", false),
    resource("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", false),
    resource("v1", "ServiceAccount", "serviceaccounts", true),
    resource("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    resource("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", false),
    resource("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true),
    resource("v1", "ConfigMap", "configmaps", true),
    resource("v1", "Secret", "secrets", true),
    resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
    resource("v1", "Service", "services", true),
    resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    resource("apps/v1", "Deployment", "deployments", true),
    resource("apps/v1", "DaemonSet", "daemonsets", true),
    resource(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    ),
];

impl Resource {
    pub fn of(object: &Value) -> Option<&'static Resource> {
        let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
        RESOURCES.iter().find(|one| one.api_version == api_version && one.kind == kind)
    }

    pub fn group(&self) -> &'static str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Where all of them are, or those of a namespace.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group().is_empty() { "api" } else { "apis" };
        let place = namespace.filter(|_| self.is_namespaced);
        let place = place.map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
        format!("/{root}/{}/{place}{}", self.api_version, self.plural)
    }
}

/// An object and where it belongs.
#[derive(Clone, Debug)]
pub struct Object {
    pub resource: &'static Resource,
    pub namespace: Option<String>,
    pub name: String,
    pub value: Value,
}

impl Object {
    fn parse(value: Value) -> anyhow::Result<Self> {
        let resource = Resource::of(&value).with_context(|| {
            format!("{} {} is no kind that is installed here", value["apiVersion"], value["kind"])
        })?;
        let name =
            value.pointer("/metadata/name").and_then(Value::as_str).context("an object has no name")?;
        let namespace = value.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
        if resource.is_namespaced != namespace.is_some() {
            bail!("{} {name} and its namespace do not fit", resource.kind);
        }
        Ok(Self { resource, namespace, name: name.to_owned(), value })
    }

    pub fn path(&self) -> String {
        format!("{}/{}", self.resource.collection(self.namespace.as_deref()), self.name)
    }

    /// As in messages: `Deployment weft-system/weft-control`.
    pub fn title(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.resource.kind, self.name),
            None => format!("{} {}", self.resource.kind, self.name),
        }
    }
}

/// Which rendering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// One replica of each.
    #[default]
    Default,
    /// Several replicas.
    Ha,
    /// One replica of each, and redirection by the CNI plugin.
    Cni,
}

impl Variant {
    /// The chart's manifests, as its real renderer writes them, and the definitions of our kinds, which stand beside them.
    pub fn rendering(self) -> &'static str {
        macro_rules! with_definitions {
            ($rendered:literal) => {
                concat!(
                    include_str!($rendered),
                    "\n---\n",
                    include_str!("../../charts/weft/crds/backendpolicies.policy.weft.mesh.yaml"),
                    "\n---\n",
                    include_str!("../../charts/weft/crds/trafficpolicies.policy.weft.mesh.yaml"),
                )
            };
        }
        match self {
            Self::Default => with_definitions!("../../charts/rendered/default.yaml"),
            Self::Ha => with_definitions!("../../charts/rendered/ha.yaml"),
            Self::Cni => with_definitions!("../../charts/rendered/cni.yaml"),
        }
    }
}

/// Where the objects go and where the images come from.
#[derive(Clone, Debug)]
pub struct Fit {
    pub namespace: String,
    pub image_prefix: String,
    pub image_tag: String,
}

impl Default for Fit {
    fn default() -> Self {
        Self { namespace: NAMESPACE.into(), image_prefix: IMAGE_PREFIX.into(), image_tag: VERSION.into() }
    }
}

/// The objects of a rendering in the order in which they are applied, the namespace first.
pub fn objects(rendering: &str, fit: &Fit) -> anyhow::Result<Vec<Object>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(rendering).context("the embedded manifests cannot be read")?;
    let mut objects = Vec::new();
    for mut document in documents.into_iter().filter(|document| !document.is_null()) {
        fit_text(&mut document, fit);
        fit_injector(&mut document, fit)?;
        relabel(&mut document);
        objects.push(Object::parse(document)?);
    }
    let order = |object: &Object| RESOURCES.iter().position(|resource| resource == object.resource);
    objects.sort_by_key(order);
    Ok(objects)
}

/// As `kubectl apply -f -` reads it.
pub fn yaml(objects: &[Object]) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        text += "---\n";
        text += &serde_saphyr::to_string(&object.value).context("writing YAML")?;
    }
    Ok(text)
}

/// Each text in the object: the namespace where it stands as a whole DNS label, and our images.
fn fit_text(value: &mut Value, fit: &Fit) {
    match value {
        Value::String(text) => {
            let fitted = replace_label(text, NAMESPACE, &fit.namespace);
            *text = IMAGES.iter().fold(fitted, |text, image| {
                let (from, to) = (
                    format!("{IMAGE_PREFIX}/{image}:{VERSION}"),
                    format!("{}/{image}:{}", fit.image_prefix, fit.image_tag),
                );
                text.replace(&from, &to)
            });
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fit_text(item, fit)),
        Value::Object(fields) => fields.values_mut().for_each(|field| fit_text(field, fit)),
        _ => {}
    }
}

/// The injector's configuration is YAML within the ConfigMap, and holds prefix and tag by themselves.
fn fit_injector(object: &mut Value, fit: &Fit) -> anyhow::Result<()> {
    if object["kind"] != "ConfigMap" {
        return Ok(());
    }
    let Some(Value::String(text)) = object.pointer_mut("/data/config.yaml") else { return Ok(()) };
    let mut config: Value =
        serde_saphyr::from_str(text).context("the injector's configuration cannot be read")?;
    if let Some(Value::Object(image)) = config.get_mut("image") {
        image.insert("prefix".into(), json!(fit.image_prefix));
        image.insert("tag".into(), json!(fit.image_tag));
        *text = serde_saphyr::to_string(&config).context("writing the injector's configuration")?;
    }
    Ok(())
}

/// Says that these objects are not Helm's.
fn relabel(object: &mut Value) {
    let Some(Value::Object(metadata)) = object.get_mut("metadata") else { return };
    let Value::Object(labels) = metadata.entry("labels").or_insert_with(|| json!({})) else { return };
    labels.retain(|key, _| !key.starts_with("helm.sh/"));
    labels.insert(MANAGED_BY.into(), json!(MANAGER));
    labels.insert(PART_OF.into(), json!("weft"));
    for template in ["/spec/template/metadata/labels", "/spec/template/metadata/annotations"] {
        if let Some(Value::Object(labels)) = object.pointer_mut(template) {
            labels.retain(|key, _| !key.starts_with("helm.sh/"));
            if labels.contains_key(MANAGED_BY) {
                labels.insert(MANAGED_BY.into(), json!(MANAGER));
            }
        }
    }
}

fn replace_label(text: &str, from: &str, to: &str) -> String {
    let is_label = |symbol: char| symbol.is_ascii_alphanumeric() || symbol == '-';
    let (mut result, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let is_whole = !before.ends_with(is_label) && !after.starts_with(is_label);
        result += before;
        result += if is_whole { to } else { from };
        rest = after;
    }
    result + rest
}

/// A right that a service account of the mesh is given, as one question to the API server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Namespace and name of the service account.
    pub account: (String, String),
    /// Where it may: a namespace, or everywhere.
    pub namespace: Option<String>,
    pub verb: String,
    pub group: String,
    /// With its subresource: `pods/log`.
    pub resource: String,
    /// Of one object only.
    pub name: Option<String>,
}

/// All rights that the objects give to service accounts, each once, in order.
pub fn rights(objects: &[Object]) -> Vec<Right> {
    let rules: BTreeMap<(&str, Option<&str>, &str), &Value> = objects
        .iter()
        .filter(|object| matches!(object.resource.kind, "Role" | "ClusterRole"))
        .map(|role| {
            ((role.resource.kind, role.namespace.as_deref(), role.name.as_str()), &role.value["rules"])
        })
        .collect();
    let mut rights = Vec::new();
    for binding in objects {
        if !matches!(binding.resource.kind, "RoleBinding" | "ClusterRoleBinding") {
            continue;
        }
        let (kind, name) = (text(&binding.value["roleRef"]["kind"]), text(&binding.value["roleRef"]["name"]));
        let at = binding.namespace.as_deref().filter(|_| kind == "Role");
        let Some(rules) = rules.get(&(kind, at, name)) else { continue };
        for subject in list(&binding.value["subjects"]).iter().filter(|one| one["kind"] == "ServiceAccount") {
            let account = (text(&subject["namespace"]).to_owned(), text(&subject["name"]).to_owned());
            for rule in list(rules) {
                expand(&account, binding.namespace.as_ref(), rule, &mut rights);
            }
        }
    }
    rights.sort();
    rights.dedup();
    rights
}

fn expand(account: &(String, String), namespace: Option<&String>, rule: &Value, into: &mut Vec<Right>) {
    let names: Vec<_> = match list(&rule["resourceNames"]) {
        [] => vec![None],
        names => names.iter().map(|name| Some(text(name).to_owned())).collect(),
    };
    for verb in list(&rule["verbs"]) {
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                into.extend(names.iter().map(|name| Right {
                    account: account.clone(),
                    namespace: namespace.cloned(),
                    verb: text(verb).to_owned(),
                    group: text(group).to_owned(),
                    resource: text(resource).to_owned(),
                    name: name.clone(),
                }));
            }
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
