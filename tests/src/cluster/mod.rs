//! A real Kubernetes for tests: the cluster of `tests/cluster`, and asking it through its own kubectl and Helm.
//!
//! | file | what it has |
//! |---|---|
//! | `mod` | the cluster: made, asked, removed |
//! | `namespace` | one scenario's namespace and its pods |
//! | `workloads` | manifests of the programs that scenarios run |
//! | `load` | requests at a steady rate, each accounted for |
//! | `scenarios` | running scenarios side by side, and telling what failed |
//!
//! Nothing here knows what Weft does: that is what the scenarios in `tests/tests/cluster` and `tests/tests/conformance` say.

pub mod load;
pub mod namespace;
pub mod scenarios;
pub mod workloads;

use crate::metrics::Metrics;
use serde_json::Value;
use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Where Weft itself is installed.
pub const SYSTEM: &str = "weft-system";
/// Longest that one call of kubectl or Helm may take.
const CALL: Duration = Duration::from_secs(180);
/// Between two questions to the API server.
const PAUSE: Duration = Duration::from_millis(300);

/// A cluster that is up.
pub struct Cluster {
    root: PathBuf,
    target: PathBuf,
    name: String,
    /// It was made for these tests, and goes with them.
    ours: bool,
}

impl Cluster {
    /// A fresh cluster for these tests alone; or the one whose name the environment gives as `NAME`, which is left as it stands.
    ///
    /// # Panics
    /// When it does not come up; the reason stands on stderr.
    pub fn up(nodes: u32) -> Self {
        let test = env::current_exe().expect("a process has a program");
        let target = test.ancestors().nth(3).expect("target/PROFILE/deps/TEST").to_owned();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace stands above");
        let given = env::var("NAME").ok();
        let cluster = Self {
            root: root.to_owned(),
            target,
            ours: given.is_none(),
            name: given.unwrap_or_else(|| "wtest".to_owned()),
        };
        if cluster.ours {
            cluster.script("tests/cluster/down", &[]);
        }
        cluster.script("tests/cluster/up", &[&nodes.to_string()]);
        cluster
    }

    /// Runs a script of the project that knows which cluster is meant; panics when it fails.
    pub fn script(&self, path: &str, args: &[&str]) {
        let status = self.command(self.root.join(path)).args(args).status();
        assert!(status.expect("the script").success(), "{path} failed");
    }

    /// A program that knows which cluster is meant.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        let state = self.target.join("cluster/state").join(&self.name);
        command.env("CARGO_TARGET_DIR", &self.target).env("NAME", &self.name);
        command.env("KUBECONFIG", state.join("admin.conf")).env_remove("STATE");
        if self.ours {
            command.env("NET4", "10.89.0").env("NET6", "fd89:");
        }
        command
    }

    /// The project's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where this build puts what it makes.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// What kubectl prints, or what it complains of.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        let mut command = self.command("timeout");
        command
            .arg(CALL.as_secs().to_string())
            .arg(self.target.join("cluster/bin/kube"))
            .arg("kubectl")
            .args(args);
        answer(&mut command, None)
    }

    /// Applies YAML; panics with what the API server has against it.
    #[track_caller]
    pub fn apply(&self, yaml: &str) {
        self.try_apply(yaml).unwrap_or_else(|error| panic!("{error}\nfor\n{yaml}"));
    }

    /// Applies YAML.
    pub fn try_apply(&self, yaml: &str) -> Result<String, String> {
        let mut command = self.command(self.target.join("cluster/bin/kube"));
        answer(command.args(["kubectl", "apply", "-f", "-"]), Some(yaml))
    }

    /// An object or a list, as JSON; `Null` where there is none.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let all = [&["get", "-o", "json", "--ignore-not-found"], args].concat();
        let text = self.kubectl(&all).unwrap_or_else(|error| panic!("{error}"));
        if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).expect("JSON of kubectl")
        }
    }

    /// What Helm prints, or what it complains of.
    pub fn helm(&self, args: &[&str]) -> Result<String, String> {
        let mut command = self.command("timeout");
        let home = self.target.join("cluster/helm");
        command.env("HELM_CACHE_HOME", &home).env("HELM_CONFIG_HOME", &home).env("HELM_DATA_HOME", &home);
        command.arg(CALL.as_secs().to_string()).arg(self.target.join("cluster/bin/helm")).args(args);
        answer(&mut command, None)
    }

    /// What `weft` says and whether it is content: its exit code, stdout and stderr.
    pub fn weft(&self, args: &[&str]) -> (i32, String) {
        let output =
            self.command(self.target.join("debug/weft")).args(args).output().expect("weft of cargo build");
        (output.status.code().unwrap_or(-1), both(&output))
    }

    /// Runs a command of the host in the namespaces of a node.
    pub fn on_node(&self, node: &str, args: &[&str]) -> Result<String, String> {
        let pid = self.target.join("cluster/state").join(&self.name).join(node).join("pid");
        let pid = std::fs::read_to_string(pid).expect("the node's first process");
        let mut command = Command::new("nsenter");
        command.args(["-t", pid.trim(), "-m", "-n", "-p", "-u"]).args(args);
        answer(&mut command, None)
    }

    /// A path of a pod's HTTP server, by way of the API server.
    pub fn fetch(&self, namespace: &str, pod: &str, port: u16, path: &str) -> Result<String, String> {
        self.kubectl(&[
            "get",
            "--raw",
            &format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"),
        ])
    }

    /// The metrics of the proxy in a pod.
    #[track_caller]
    pub fn metrics(&self, namespace: &str, pod: &str) -> Metrics {
        let text = self.fetch(namespace, pod, crate::pod::ADMIN_PORT, "/metrics");
        Metrics(text.unwrap_or_else(|error| panic!("{namespace}/{pod} has no metrics: {error}")))
    }

    /// Waits until all Deployments of a namespace, and those of their pods that remain, are what they should be.
    #[track_caller]
    pub fn rolled_out(&self, namespace: &str, within: Duration) {
        let timeout = format!("--timeout={}s", within.as_secs());
        let names = self.kubectl(&["-n", namespace, "get", "deployments", "-o", "name"]).expect("a list");
        for name in names.lines() {
            let done = self.kubectl(&["-n", namespace, "rollout", "status", name, &timeout]);
            done.unwrap_or_else(|error| panic!("{name}: {error}\n{}", self.story(namespace)));
        }
    }

    /// Asks again and again until the answer is `Ok`; panics with the last `Err`, and with what happened in the namespace.
    #[track_caller]
    pub fn eventually<T>(
        &self,
        namespace: &str,
        within: Duration,
        mut ask: impl FnMut() -> Result<T, String>,
    ) -> T {
        let begun = Instant::now();
        loop {
            match ask() {
                Ok(answer) => return answer,
                Err(why) if begun.elapsed() > within => {
                    panic!("not within {within:?}: {why}\n{}", self.story(namespace))
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// What happened in a namespace, for whoever reads of a failure: its pods, its events, and the logs of pods that are not ready.
    pub fn story(&self, namespace: &str) -> String {
        let ask = |args: &[&str]| self.kubectl(args).unwrap_or_else(|error| error);
        let mut story = ask(&["-n", namespace, "get", "pods", "-o", "wide"]);
        story += &ask(&["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"]);
        let pods = self.json(&["-n", namespace, "pods"]);
        for pod in pods["items"].as_array().into_iter().flatten() {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True") {
                continue;
            }
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            story += &format!("--- logs of {name}\n");
            story += &ask(&["-n", namespace, "logs", name, "--all-containers", "--prefix", "--tail=15"]);
        }
        story
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.ours {
            let status = self.command(self.root.join("tests/cluster/down")).status();
            if !status.is_ok_and(|status| status.success()) {
                eprintln!("cluster {} is not gone: NAME={0} tests/cluster/down says why", self.name);
            }
        }
    }
}

/// Runs to the end: stdout where it succeeds, else everything.
fn answer(command: &mut Command, stdin: Option<&str>) -> Result<String, String> {
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a program that is installed");
    if let Some(text) = stdin {
        // Whoever ends before it has read all says why.
        let _ = child.stdin.take().expect("asked for").write_all(text.as_bytes());
    }
    let output = child.wait_with_output().expect("a child that is waited for");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        Err(format!("{} ({}): {}", args.join(" "), output.status, both(&output)))
    }
}

fn both(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
