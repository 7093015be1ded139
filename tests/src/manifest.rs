//! The documents that control reads: what `kubectl apply` and the cluster's controllers would have made.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

/// The namespace of everything here.
pub const NAMESPACE: &str = "test";

/// A Service's port.
#[derive(Clone, Debug)]
pub struct Port {
    pub number: u16,
    pub target: u16,
    pub app_protocol: Option<&'static str>,
}

impl Port {
    /// The same port outside and inside, whose protocol nobody declared.
    pub fn auto(number: u16) -> Self {
        Self { number, target: number, app_protocol: None }
    }

    /// The same, with the word of its `appProtocol`.
    pub fn declared(number: u16, word: &'static str) -> Self {
        Self { app_protocol: Some(word), ..Self::auto(number) }
    }
}

/// Where a Pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    NotReady,
    Ready,
    Terminating,
}

/// What a Pod's document says.
#[derive(Clone, Debug)]
pub struct PodManifest {
    pub name: String,
    pub app: String,
    pub meshed: bool,
    pub phase: Phase,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// The directory that a control watches.
#[derive(Clone, Debug)]
pub struct Manifests(PathBuf);

impl Manifests {
    pub fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let manifests = Self(folder);
        manifests.write(
            "namespace.yaml",
            &format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"),
        );
        manifests
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Writes a document as an editor does: the whole file at once.
    pub fn write(&self, file: &str, text: &str) {
        let unfinished = self.0.join(format!(".{file}.new"));
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, self.0.join(file)).unwrap();
    }

    /// How many objects were made here; not what a test wrote by itself.
    pub fn count(&self) -> usize {
        let made = |name: &str| {
            ["namespace", "account-", "service-", "pod-"].iter().any(|kind| name.starts_with(kind))
        };
        let names = fs::read_dir(&self.0).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| made(&name.to_string_lossy())).count()
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.0.join(file)).unwrap();
    }

    /// A ServiceAccount.
    pub fn account(&self, name: &str) {
        self.write(
            &format!("account-{name}.yaml"),
            &format!(
                "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n"
            ),
        );
    }

    /// A Service that selects `app`.
    pub fn service(&self, name: &str, app: &str, v4: Ipv4Addr, v6: Ipv6Addr, ports: &[Port]) {
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n  \
             selector: {{app: {app}}}\n  clusterIP: {v4}\n  clusterIPs: [{v4}, \"{v6}\"]\n  \
             ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n  ports:\n"
        );
        for Port { number, target, app_protocol } in ports {
            write!(text, "  - {{name: p{number}, port: {number}, targetPort: {target}").unwrap();
            if let Some(word) = app_protocol {
                write!(text, ", appProtocol: {word}").unwrap();
            }
            text.push_str("}\n");
        }
        self.write(&format!("service-{name}.yaml"), &text);
    }

    /// A Pod as the kubelet keeps it.
    pub fn pod(&self, pod: &PodManifest) {
        let PodManifest { name, app, meshed, phase, v4, v6 } = pod;
        let ready = if *phase == Phase::Ready { "True" } else { "False" };
        let deleted = match phase {
            Phase::Terminating => ", deletionTimestamp: \"2026-01-01T00:00:00Z\"",
            Phase::NotReady | Phase::Ready => "",
        };
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  {{name: {name}, namespace: {NAMESPACE}{deleted}, labels: \
             {{app: {app}, weft.mesh/injected: \"{meshed}\"}}}}\nspec:\n  serviceAccountName: {app}\n  containers: \
             [{{name: app, image: none}}]\nstatus:\n  phase: Running\n  podIP: {v4}\n  podIPs: [{{ip: {v4}}}, \
             {{ip: \"{v6}\"}}]\n  conditions: [{{type: Ready, status: \"{ready}\"}}]\n"
        );
        self.write(&format!("pod-{name}.yaml"), &text);
    }
}
