//! The kubelet's part: starts each pod's init, proxy and application in their order, probes them, tells the directory
//! that control watches, and ends them in the opposite order. One `sync` moves every pod on by what has happened.

mod process;
mod running;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::cluster::{Condition, Manifest, Pod};
use super::directory::Directory;
use super::http;
use super::sandbox::{Network, Sandbox};
use super::signals::Scrape;
use process::Process;
use running::{Node, Running, Step};

/// Each proxy's admin server.
pub const ADMIN_PORT: u16 = 4291;
const CONTROL_PORT: u16 = 8486;
const CONTROL_ADMIN_PORT: u16 = 8487;
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// Where the programs, files and logs are.
pub struct Places {
    pub programs: PathBuf,
    pub run: PathBuf,
}

pub struct Kubelet {
    places: Places,
    directory: Directory,
    network: Network,
    control: Control,
    pods: Vec<Running>,
    /// The last counters of the proxies that are gone.
    gone: Vec<Scrape>,
}

struct Control {
    address: IpAddr,
    process: Process,
    _sandbox: Sandbox,
}

impl Kubelet {
    /// Starts control at its addresses, in a namespace of its own.
    pub fn start(
        places: Places,
        directory: Directory,
        mut network: Network,
        addresses: &[IpAddr],
    ) -> anyhow::Result<Self> {
        let sandbox = network.sandbox(addresses.to_vec(), &places.hosts())?;
        let mut command = places.program("weft-control");
        command.arg("--directory").arg(places.manifests()).arg("--state").arg(places.state());
        let process = Process::start(&sandbox, command, &places.control_log())?;
        let address = *addresses.first().context("control has no address")?;
        let control = Control { address, process, _sandbox: sandbox };
        Ok(Self { places, directory, network, control, pods: Vec::new(), gone: Vec::new() })
    }

    pub fn is_control_ready(&mut self) -> anyhow::Result<bool> {
        self.control.process.alive()?;
        Ok(probe(SocketAddr::new(self.control.address, CONTROL_ADMIN_PORT), "/ready").is_ok())
    }

    /// Takes a pod on: its namespaces are made, and the directory says that it starts.
    pub fn run(&mut self, pod: Pod) -> anyhow::Result<()> {
        let sandbox = self.network.sandbox(pod.addresses.clone(), &self.places.hosts())?;
        self.directory.write(&pod.manifest(Condition::Starting))?;
        self.pods.push(Running::new(pod, sandbox));
        Ok(())
    }

    /// Gives an object to control, in the place of the one of the same name if there is one.
    pub fn apply(&self, manifest: &Manifest) -> anyhow::Result<()> {
        self.directory.write(manifest)
    }

    /// Begins the graceful end of the pod of this name.
    pub fn delete(&mut self, name: &str) -> anyhow::Result<()> {
        let running = self.pods.iter_mut().find(|running| running.pod.name == name);
        running.with_context(|| format!("no pod is called {name}"))?.delete(&self.directory)
    }

    /// Moves every pod on. An error when a program failed, with the end of its log.
    pub fn sync(&mut self) -> anyhow::Result<()> {
        self.control.process.alive()?;
        let control = SocketAddr::new(self.control.address, CONTROL_PORT);
        let node = Node { places: &self.places, directory: &self.directory, control };
        for running in &mut self.pods {
            running.sync(&node)?;
        }
        for running in self.pods.extract_if(.., |running| running.step() == Step::Gone) {
            self.gone.extend(running.scrape()?);
        }
        Ok(())
    }

    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().map(|running| &running.pod)
    }

    pub fn is_ready(&self, name: &str) -> bool {
        self.pods.iter().any(|running| running.pod.name == name && running.step() == Step::Ready)
    }

    pub fn ready(&self) -> usize {
        self.pods.iter().filter(|running| running.step() == Step::Ready).count()
    }

    /// Whether the application of that pod has ended, so that its proxy counts no more.
    pub fn is_quiet(&self, name: &str) -> bool {
        self.pods.iter().all(|running| running.pod.name != name || running.step() > Step::AppEnd)
    }

    /// Where the application of a pod writes.
    pub fn log(&self, pod: &Pod) -> PathBuf {
        self.places.log(pod, "app")
    }

    /// The end of control's log.
    pub fn control_tail(&self) -> String {
        self.control.process.tail()
    }

    /// The counters of all proxies, of those that are gone too.
    pub fn scrape(&self) -> anyhow::Result<Vec<Scrape>> {
        let mut scrapes = self.gone.clone();
        for running in &self.pods {
            scrapes.extend(running.scrape()?);
        }
        Ok(scrapes)
    }
}

impl Places {
    /// The directory that control watches.
    pub fn manifests(&self) -> PathBuf {
        self.run.join("manifests")
    }

    /// Control's root key and the tokens.
    pub fn state(&self) -> PathBuf {
        self.run.join("state")
    }

    pub fn logs(&self) -> PathBuf {
        self.run.join("logs")
    }

    /// What pods see as /etc/hosts.
    pub fn hosts(&self) -> PathBuf {
        self.run.join("hosts")
    }

    /// Where a part of a pod writes: `init`, `proxy` or `app`.
    pub fn log(&self, pod: &Pod, part: &str) -> PathBuf {
        self.logs().join(format!("{}.{part}.log", pod.name))
    }

    fn control_log(&self) -> PathBuf {
        self.logs().join("weft-control.log")
    }

    fn token(&self, pod: &Pod) -> PathBuf {
        self.state().join("tokens").join(&pod.namespace).join(format!("{}.token", pod.account))
    }

    fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }
}

/// Whether a GET there succeeds, as probes see it: any status from 200 to 399. If not: why.
fn probe(address: SocketAddr, path: &str) -> Result<(), String> {
    match http::get(address, path, PROBE_PATIENCE) {
        Ok(answer) if (200..400).contains(&answer.status) => Ok(()),
        Ok(answer) => Err(format!("GET http://{address}{path}: {} {}", answer.status, answer.body.trim())),
        Err(error) => Err(format!("GET http://{address}{path}: {error}")),
    }
}
