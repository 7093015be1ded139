//! One pod's life, step by step.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};

use super::process::Process;
use super::{ADMIN_PORT, Places, probe};
use crate::demo::cluster::{Condition, Pod, Probe, TRUST_DOMAIN};
use crate::demo::directory::Directory;
use crate::demo::http;
use crate::demo::sandbox::Sandbox;
use crate::demo::signals::Scrape;

/// SO_MARK of the proxies' own sockets, which exempts them from redirection: as only one uid exists in a user
/// namespace, their uid cannot. Any number would do; it is the proxy's uid in clusters.
const PROXY_MARK: &str = "2140";
/// For each step.
const STEP_LIMIT: Duration = Duration::from_secs(20);
const SCRAPE_PATIENCE: Duration = Duration::from_secs(5);

pub struct Running {
    pub pod: Pod,
    sandbox: Sandbox,
    step: Step,
    since: Instant,
    init: Option<Process>,
    proxy: Option<Process>,
    app: Option<Process>,
    /// Why the last probe failed.
    unready: String,
    /// The proxy's counters when its application had ended: nothing is counted any more.
    last: Option<Scrape>,
}

/// What a pod waits for, in the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Token,
    Init,
    Proxy,
    App,
    Ready,
    AppEnd,
    ProxyEnd,
    Gone,
}

/// What pods need of their node.
pub struct Node<'a> {
    pub places: &'a Places,
    pub directory: &'a Directory,
    pub control: SocketAddr,
}

impl Running {
    pub fn new(pod: Pod, sandbox: Sandbox) -> Self {
        let (step, since) = (Step::Token, Instant::now());
        Self {
            pod,
            sandbox,
            step,
            since,
            init: None,
            proxy: None,
            app: None,
            unready: String::new(),
            last: None,
        }
    }

    pub fn step(&self) -> Step {
        self.step
    }

    /// Goes on as far as what has happened allows.
    pub fn sync(&mut self, node: &Node<'_>) -> anyhow::Result<()> {
        let (waits_for, before) = (self.step.waits_for(), self.step);
        let next = self.next(node).with_context(|| format!("{} ({waits_for})", self.pod.name))?;
        if next != before {
            (self.step, self.since) = (next, Instant::now());
        } else if self.since.elapsed() > STEP_LIMIT && before != Step::Ready {
            let tail = |process: &Option<Process>| process.as_ref().map(Process::tail).unwrap_or_default();
            let (unready, app, proxy) = (&self.unready, tail(&self.app), tail(&self.proxy));
            bail!("{} took longer than {STEP_LIMIT:?}: {waits_for}; {unready}{app}{proxy}", self.pod.name);
        }
        Ok(())
    }

    /// Does what the present step allows and tells the next.
    fn next(&mut self, node: &Node<'_>) -> anyhow::Result<Step> {
        let step = self.step;
        Ok(match step {
            Step::Token if node.places.token(&self.pod).exists() => {
                self.init = Some(self.start_init(node.places)?);
                Step::Init
            }
            Step::Init if succeeded(&mut self.init)? => {
                self.proxy = Some(self.start_proxy(node)?);
                Step::Proxy
            }
            Step::Proxy if self.is_proxy_ready()? => {
                self.app = Some(self.start_app(node.places)?);
                Step::App
            }
            Step::App if self.is_app_ready()? => {
                node.directory.write(&self.pod.manifest(Condition::Ready))?;
                Step::Ready
            }
            Step::Ready => {
                alive(&mut self.proxy)?;
                alive(&mut self.app)?;
                Step::Ready
            }
            Step::AppEnd if succeeded(&mut self.app)? => {
                self.last = Some(self.scrape_now()?);
                terminate(&self.proxy)?;
                Step::ProxyEnd
            }
            Step::ProxyEnd if succeeded(&mut self.proxy)? => {
                node.directory.remove(&self.pod.manifest(Condition::Starting))?;
                Step::Gone
            }
            _ => step,
        })
    }

    /// Begins its end: control hears of it first, then the application.
    pub fn delete(&mut self, directory: &Directory) -> anyhow::Result<()> {
        directory.write(&self.pod.manifest(Condition::Terminating { since: SystemTime::now() }))?;
        terminate(&self.app)?;
        (self.step, self.since) = (Step::AppEnd, Instant::now());
        Ok(())
    }

    /// The counters of its proxy, the last ones when that has ended; none before it began.
    pub fn scrape(&self) -> anyhow::Result<Option<Scrape>> {
        match (&self.last, self.step) {
            (Some(last), _) => Ok(Some(last.clone())),
            (None, Step::App | Step::Ready | Step::AppEnd) => self.scrape_now().map(Some),
            _ => Ok(None),
        }
    }

    fn scrape_now(&self) -> anyhow::Result<Scrape> {
        let what = || format!("reading the metrics of {}", self.pod.name);
        let answer = http::get(self.admin(), "/metrics", SCRAPE_PATIENCE).with_context(what)?;
        if answer.status != 200 {
            bail!("{}: status {}", what(), answer.status);
        }
        Ok(Scrape::read(self.pod.app(), &self.pod.namespace, &self.pod.identity(), &answer.body))
    }

    fn start_init(&self, places: &Places) -> anyhow::Result<Process> {
        let mut command = places.program("weft-init");
        // Native: what a kernel has, and not which tools the host happens to have.
        command.args(["apply", "--backend", "native", "--proxy-mark", PROXY_MARK]);
        self.start(command, places, "init")
    }

    fn start_proxy(&self, node: &Node<'_>) -> anyhow::Result<Process> {
        let mut command = node.places.program("weft-proxy");
        command
            .args(["--workload", &format!("{}/{}", self.pod.namespace, self.pod.name)])
            .args(["--control", &node.control.to_string()])
            .args(["--trust-domain", TRUST_DOMAIN, "--mark", PROXY_MARK])
            // Enough for the load, and kind to a small machine with so many proxies.
            .args(["--workers", "1"])
            .arg("--trust-anchors")
            .arg(node.places.state().join("ca.pem"))
            .arg("--token-file")
            .arg(node.places.token(&self.pod));
        self.start(command, node.places, "proxy")
    }

    fn start_app(&self, places: &Places) -> anyhow::Result<Process> {
        let program = &self.pod.program;
        let mut command = places.program(&program.name);
        command.args(&program.arguments).envs(program.environment.iter().map(|(name, value)| (name, value)));
        self.start(command, places, "app")
    }

    fn start(&self, command: Command, places: &Places, part: &str) -> anyhow::Result<Process> {
        Process::start(&self.sandbox, command, &places.log(&self.pod, part))
    }

    fn is_proxy_ready(&mut self) -> anyhow::Result<bool> {
        alive(&mut self.proxy)?;
        Ok(self.probe(self.admin(), "/ready"))
    }

    /// By its probe, which comes from the node and so through its proxy, unencrypted, as a kubelet's does.
    fn is_app_ready(&mut self) -> anyhow::Result<bool> {
        alive(&mut self.proxy)?;
        alive(&mut self.app)?;
        let Some(Probe { port, path }) = self.pod.readiness.clone() else { return Ok(true) };
        Ok(self.probe(self.address(port), &path))
    }

    fn probe(&mut self, address: SocketAddr, path: &str) -> bool {
        match probe(address, path) {
            Ok(()) => true,
            Err(why) => {
                self.unready = why;
                false
            }
        }
    }

    fn admin(&self) -> SocketAddr {
        self.address(ADMIN_PORT)
    }

    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(*self.pod.addresses.first().expect("each pod has an IPv4 address"), port)
    }
}

impl Step {
    fn waits_for(self) -> &'static str {
        match self {
            Self::Token => "waiting for control to make its token",
            Self::Init => "installing its redirection",
            Self::Proxy => "waiting for its proxy to be ready",
            Self::App => "waiting for its application to be ready",
            Self::Ready => "running",
            Self::AppEnd => "waiting for its application to end",
            Self::ProxyEnd => "waiting for its proxy to end",
            Self::Gone => "gone",
        }
    }
}

fn succeeded(process: &mut Option<Process>) -> anyhow::Result<bool> {
    process.as_mut().map_or(Ok(true), Process::succeeded)
}

fn alive(process: &mut Option<Process>) -> anyhow::Result<()> {
    process.as_mut().map_or(Ok(()), Process::alive)
}

fn terminate(process: &Option<Process>) -> anyhow::Result<()> {
    process.as_ref().map_or(Ok(()), Process::terminate)
}
