//! A call of the plugin as the CNI specification 1.1 writes it: environment and standard input in, result or error out.
//!
//! Pure. Not here: what is done about it (`plugin.rs`).

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The specification's versions that are spoken. Results are only passed on, so their shapes do not matter; before 0.3.0 plugins
/// could not be chained.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Under this key a runtime that can tells a pod's annotations, to plugins whose configuration asks for it.
pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Codes of errors: below 100 the specification's own.
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO: u32 = 5;
    pub const UNDECODABLE: u32 = 6;
    pub const INVALID_CONFIGURATION: u32 = 7;
    /// The pod could not be redirected.
    pub const NOT_REDIRECTED: u32 = 100;
    /// CHECK: the pod is not redirected as it should be.
    pub const DIFFERS: u32 = 101;
}

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Add,
    Check,
    Del,
    Gc,
    Status,
    Version,
}

/// The network's configuration, as far as it concerns this plugin.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Configuration {
    pub cni_version: String,
    /// What the plugins before this one have made; passed on as it is, byte for byte.
    pub prev_result: Option<Box<RawValue>>,
    runtime_config: BTreeMap<String, Value>,
    /// Where the agent of this node answers.
    pub socket: Option<PathBuf>,
}

/// One call.
#[derive(Debug)]
pub struct Call {
    pub command: Command,
    pub configuration: Configuration,
    /// The network namespace's file; none for commands that concern no pod.
    pub namespace: PathBuf,
    /// `NAMESPACE/NAME` and, from most runtimes, the UID of the pod; none outside of Kubernetes.
    pub pod: Option<Pod>,
}

/// Whose network it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: u32,
    pub message: String,
    /// What to do about it.
    pub details: String,
}

impl Failure {
    pub fn new(code: u32, message: impl Into<String>, details: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), details: details.into() }
    }

    /// As it is printed.
    pub fn print(&self, version: &str) -> String {
        let version = if VERSIONS.contains(&version) { version } else { VERSIONS[VERSIONS.len() - 1] };
        let failure =
            json!({"cniVersion": version, "code": self.code, "msg": self.message, "details": self.details});
        format!("{failure}\n")
    }
}

/// The answer to VERSION.
pub fn versions(asked: &str) -> String {
    let version = if asked.is_empty() { VERSIONS[VERSIONS.len() - 1] } else { asked };
    format!("{}\n", json!({"cniVersion": version, "supportedVersions": VERSIONS}))
}

impl Call {
    /// Reads a call. DEL and GC are read with indulgence: what has half gone must be removable.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>, input: &str) -> Result<Call, Failure> {
        let command = command(variable)?;
        let configuration = match serde_json::from_str::<Configuration>(input) {
            Ok(configuration) => configuration,
            Err(_) if matches!(command, Command::Del | Command::Gc | Command::Version) => {
                Configuration::default()
            }
            Err(error) => {
                let message = format!("the configuration on standard input cannot be read: {error}");
                return Err(Failure::new(code::UNDECODABLE, message, "is the .conflist whole?"));
            }
        };
        let concerns_a_pod = matches!(command, Command::Add | Command::Check);
        if concerns_a_pod && !VERSIONS.contains(&configuration.cni_version.as_str()) {
            return Err(Failure::new(
                code::INCOMPATIBLE_VERSION,
                format!("cniVersion {:?} is not spoken", configuration.cni_version),
                format!("the .conflist must say one of {}", VERSIONS.join(", ")),
            ));
        }
        let namespace = variable("CNI_NETNS").unwrap_or_default();
        if concerns_a_pod && namespace.is_empty() {
            let message = "CNI_NETNS is not set: the network namespace is not known";
            let details = "the runtime sets it; called by hand, weft-init is the program to use";
            return Err(Failure::new(code::INVALID_ENVIRONMENT, message, details));
        }
        if concerns_a_pod && configuration.prev_result.is_none() {
            let message = "prevResult is missing: no plugin has made an interface";
            let details = "weft-cni stands behind the plugin that does, in the same .conflist";
            return Err(Failure::new(code::INVALID_CONFIGURATION, message, details));
        }
        let pod = pod(&variable("CNI_ARGS").unwrap_or_default());
        Ok(Call { command, configuration, namespace: namespace.into(), pod })
    }
}

impl Configuration {
    /// The pod's annotations; none from a runtime that does not tell them.
    pub fn annotations(&self) -> Option<BTreeMap<&str, &str>> {
        let annotations = self.runtime_config.get(ANNOTATIONS)?.as_object()?;
        Some(
            annotations
                .iter()
                .filter_map(|(name, value)| value.as_str().map(|value| (name.as_str(), value)))
                .collect(),
        )
    }
}

fn command(variable: &dyn Fn(&str) -> Option<String>) -> Result<Command, Failure> {
    let name = variable("CNI_COMMAND").unwrap_or_default();
    match name.as_str() {
        "ADD" => Ok(Command::Add),
        "CHECK" => Ok(Command::Check),
        "DEL" => Ok(Command::Del),
        "GC" => Ok(Command::Gc),
        "STATUS" => Ok(Command::Status),
        "VERSION" => Ok(Command::Version),
        _ => Err(Failure::new(
            code::INVALID_ENVIRONMENT,
            format!("CNI_COMMAND is {name:?}"),
            "expected ADD, CHECK, DEL, GC, STATUS or VERSION",
        )),
    }
}

/// Reads `K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_UID=…`.
fn pod(arguments: &str) -> Option<Pod> {
    let value = |key: &str| {
        let pair =
            arguments.split(';').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key);
        pair.map(|(_, value)| value.to_owned()).filter(|value| !value.is_empty())
    };
    Some(Pod {
        namespace: value("K8S_POD_NAMESPACE")?,
        name: value("K8S_POD_NAME")?,
        uid: value("K8S_POD_UID"),
    })
}
