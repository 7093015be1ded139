//! One scenario's namespace: what it applies there, waits for and asks. Gone when it is dropped.

use super::Cluster;
use crate::metrics::Metrics;
use serde_json::Value;
use std::time::Duration;

/// Longest that a pod may take from its manifest to Ready, on a machine that does much at once.
pub const READY: Duration = Duration::from_secs(90);

/// A namespace of a scenario's own.
pub struct Namespace<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl<'a> Namespace<'a> {
    /// One whose pods the mesh takes.
    pub fn meshed(cluster: &'a Cluster, name: &str) -> Self {
        Self::labelled(cluster, name, "{weft.mesh/inject: enabled}")
    }

    /// One that nobody labelled.
    pub fn plain(cluster: &'a Cluster, name: &str) -> Self {
        Self::labelled(cluster, name, "{}")
    }

    /// With labels as YAML.
    pub fn labelled(cluster: &'a Cluster, name: &str, labels: &str) -> Self {
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {labels}}}}}"
        ));
        let this = Self { cluster, name: name.to_owned() };
        // A bare pod is refused until its account is there.
        this.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=30s"]);
        this
    }

    /// What kubectl prints; panics when it fails.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).unwrap_or_else(|error| panic!("{error}\n{}", self.cluster.story(&self.name)))
    }

    /// What kubectl prints or complains of.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.cluster.kubectl(&[&["-n", self.name.as_str()], args].concat())
    }

    /// Applies YAML in this namespace, of which it may say nothing itself; panics when it is refused.
    #[track_caller]
    pub fn apply(&self, yaml: &str) {
        self.cluster.apply(&self.within(yaml));
    }

    /// The YAML's `NAMESPACE`, and the documents without one, are this.
    pub fn within(&self, yaml: &str) -> String {
        yaml.replace("NAMESPACE", &self.name)
    }

    /// Waits for the condition `Ready` of pods, or for a rollout.
    #[track_caller]
    pub fn ready(&self, what: &[&str]) {
        let timeout = format!("--timeout={}s", READY.as_secs());
        for one in what {
            if one.starts_with("pod/") {
                self.kubectl(&["wait", "--for=condition=Ready", one, &timeout]);
            } else {
                self.kubectl(&["rollout", "status", one, &timeout]);
            }
        }
    }

    /// What a command in a pod's application prints.
    #[track_caller]
    pub fn exec(&self, pod: &str, command: &[&str]) -> String {
        self.try_exec(pod, command)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.cluster.story(&self.name)))
    }

    /// What a command in a pod's application prints or complains of.
    pub fn try_exec(&self, pod: &str, command: &[&str]) -> Result<String, String> {
        self.try_kubectl(&[&["exec", pod, "-c", "app", "--"], command].concat())
    }

    /// The one answer to a request of a pod's application for this URL, whatever the answer is now, if it gets one in time.
    #[track_caller]
    pub fn get(&self, pod: &str, url: &str) -> String {
        self.cluster.eventually(&self.name, READY, || self.try_exec(pod, &["/echo", "get", url]))
    }

    /// An object or a list of this namespace, as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        self.cluster.json(&[&["-n", self.name.as_str()], args].concat())
    }

    /// The pods that carry these labels.
    pub fn pods(&self, selector: &str) -> Vec<Value> {
        self.json(&["pods", "-l", selector])["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits for something to become true of this namespace.
    #[track_caller]
    pub fn eventually<T>(&self, within: Duration, ask: impl FnMut() -> Result<T, String>) -> T {
        self.cluster.eventually(&self.name, within, ask)
    }

    /// The metrics of the proxy in a pod.
    #[track_caller]
    pub fn metrics(&self, pod: &str) -> Metrics {
        self.cluster.metrics(&self.name, pod)
    }

    /// The pod's requests of this direction were answered with 2xx by mTLS, by or for this service account, and there were some.
    #[track_caller]
    pub fn assert_mtls(&self, pod: &str, direction: &str, account: &str) {
        let identity = format!("spiffe://cluster.local/ns/{}/sa/{account}", self.name);
        let metrics = self.metrics(pod);
        let labels = [("direction", direction), ("identity", &identity), ("tls", "1.3"), ("class", "2xx")];
        let counted = metrics.sum("weft_requests_total", &labels);
        let all: Vec<_> = metrics.0.lines().filter(|line| line.starts_with("weft_requests_total")).collect();
        assert!(
            counted >= 1.0,
            "{pod} counts no {direction} request by mTLS with {identity}, but\n{}",
            all.join("\n")
        );
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // Nobody waits for it: pods that end take CPU from other scenarios, but not their time.
        let _ = self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

/// The name of a pod.
pub fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().expect("an object has a name")
}

/// Is there a proxy in this pod, native or classic?
pub fn is_meshed(pod: &Value) -> bool {
    let containers = |field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
    let mut all = containers("initContainers").into_iter().chain(containers("containers"));
    all.any(|container| container["name"] == "weft-proxy")
}
