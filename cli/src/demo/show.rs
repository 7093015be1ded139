//! The inside of the demo, from the first bridge to the last table: five steps, in their order.

mod policies;
mod replacement;
mod report;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Options;
use super::cluster::{Cluster, Pod};
use super::directory::Directory;
use super::enclosure::{INTERRUPTED, Interrupted, Stop, is_user_namespace, pid_outside, settle};
use super::kubelet::{ADMIN_PORT, Kubelet, Places};
use super::manifests::STOCK;
use super::sandbox::{Gateway, Network};
use super::signals::{Edge, graph};
use super::view::{Row, View, rows, table};
use policies::Policies;
use replacement::Replacement;
pub use report::{Report, Visit};

/// Between two looks at what has happened.
const TICK: Duration = Duration::from_millis(20);
/// Between two tables, and before the first.
const REFRESH: Duration = Duration::from_secs(1);
/// Refreshes over which the present rates and latencies are told.
const WINDOW: usize = 5;
/// For control to serve.
const CONTROL_LIMIT: Duration = Duration::from_secs(20);
/// Traffic before a pod is replaced; a third of the duration where that is less.
const BEFORE_REPLACEMENT: Duration = Duration::from_secs(5);

/// What lives as long as the demo.
struct Show {
    view: View,
    stop: Stop,
    cluster: Cluster,
    kubelet: Kubelet,
    duration: Option<Duration>,
    run: PathBuf,
}

/// Runs the demo in the namespaces of this process. `programs` and `run`: the folders of the binaries and of the run.
pub fn run(options: &Options, programs: PathBuf, run: &Path) -> anyhow::Result<ExitCode> {
    settle()?;
    let stop = Stop::at_end_of_input().context("watching for the end of standard input")?;
    let result = Show::open(options, stop, programs, run).and_then(Show::play);
    match result {
        Ok(report) => {
            if options.json {
                println!("{}", serde_json::to_string(&report).context("writing the report")?);
            }
            report.verdict().map(|()| ExitCode::SUCCESS)
        }
        Err(error) if error.is::<Interrupted>() => Ok(ExitCode::from(INTERRUPTED)),
        Err(error) => Err(error),
    }
}

impl Show {
    /// Steps 1 to 3: the namespaces, the cluster's objects, control.
    fn open(options: &Options, stop: Stop, programs: PathBuf, run: &Path) -> anyhow::Result<Self> {
        let mut view = View::new(options.json);
        let places = Places { programs, run: run.into() };
        let has_ipv6 = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6")
            .is_ok_and(|disabled| disabled.trim() == "0");
        let cluster = Cluster::read(STOCK, has_ipv6)?;
        let families = if has_ipv6 { "IPv4 and IPv6" } else { "IPv4; this kernel has no IPv6" };
        let user = if is_user_namespace() { "user, " } else { "" };
        view.say(&format!(
            "[1/5] namespaces: {user}network, mount and PID, all of them this demo's own; {families}"
        ))?;
        let gateways = cluster.node_addresses().into_iter().map(|address| {
            let prefix_length = if address.is_ipv4() { 24 } else { 64 };
            Gateway { address, prefix_length }
        });
        let network = Network::new(gateways.collect())?;

        let directory = Directory::create(places.manifests())?;
        fs::create_dir_all(places.logs()).context("making a folder for logs")?;
        fs::write(places.hosts(), cluster.hosts()).context("writing the pods' hosts file")?;
        let manifests = cluster.manifests();
        manifests.iter().try_for_each(|manifest| directory.write(manifest))?;
        let (read, written) = (cluster.len(), manifests.len());
        view.say(&format!("[2/5] cluster: {read} stock objects read, {written} of them given to control"))?;

        let began = Instant::now();
        let mut kubelet = Kubelet::start(places, directory, network, &cluster.control_addresses())?;
        while !kubelet.is_control_ready()? {
            if began.elapsed() > CONTROL_LIMIT {
                bail!("control was not ready within {CONTROL_LIMIT:?}{}", kubelet.control_tail());
            }
            stop.pause(TICK)?;
        }
        view.say(&format!("[3/5] control: weft-control serves after {}", seconds(began.elapsed())))?;
        let duration = options.duration.map(Duration::from_secs);
        Ok(Self { view, stop, cluster, kubelet, duration, run: run.into() })
    }

    /// Steps 4 and 5: the pods, then traffic until the end; and the count of it all.
    fn play(mut self) -> anyhow::Result<Report> {
        let began = Instant::now();
        let (services, visitors): (Vec<Pod>, Vec<Pod>) =
            self.cluster.schedule()?.into_iter().partition(|pod| pod.service.is_some());
        let count = services.len();
        self.view
            .say(&format!("[4/5] pods: {count}, each with weft-init, weft-proxy and its application"))?;
        self.run_all(services)?;
        let names: Vec<String> = visitors.iter().map(|pod| pod.name.clone()).collect();
        self.run_all(visitors.into_iter().map(telling_json).collect())?;
        self.view.say(&format!("      all are ready after {}", seconds(began.elapsed())))?;
        self.view.say(&format!(
            "[5/5] traffic: {} drives it{}",
            names.join(", "),
            match self.duration {
                Some(duration) => format!(", for {} s", duration.as_secs()),
                None => ", until Ctrl-C".into(),
            }
        ))?;
        let began = Instant::now();
        self.watch(began)?;
        self.end(&names, began)
    }

    /// Starts pods and waits until they are ready.
    fn run_all(&mut self, pods: Vec<Pod>) -> anyhow::Result<()> {
        for pod in pods {
            self.kubelet.run(pod)?;
        }
        loop {
            self.kubelet.sync()?;
            let (ready, all) = (self.kubelet.ready(), self.kubelet.pods().count());
            if ready == all {
                self.view.clear()?;
                return Ok(());
            }
            self.view.status(&format!("      {ready} of {all} ready\n"))?;
            self.stop.pause(TICK)?;
        }
    }

    /// Shows the traffic until the duration is over, a pod was replaced and each policy shown, or the end is asked for.
    fn watch(&mut self, began: Instant) -> anyhow::Result<()> {
        let third = self.duration.map_or(BEFORE_REPLACEMENT, |duration| duration / 3);
        let mut replacement = Replacement::Due(BEFORE_REPLACEMENT.min(third));
        let mut policies = Policies::default();
        let mut states: VecDeque<(Instant, Vec<Edge>)> = [(began, Vec::new())].into();
        let mut refreshed = began;
        loop {
            self.kubelet.sync()?;
            let was_over = replacement.is_over();
            replacement.advance(self, began)?;
            if replacement.is_over() && !was_over && self.duration.is_none() {
                self.look_further()?;
            }
            if replacement.is_over() {
                policies.advance(self, self.duration.map(|duration| began + duration))?;
            }
            let is_over = self.duration.is_some_and(|duration| began.elapsed() >= duration);
            if is_over && policies.are_over() {
                return Ok(());
            }
            if refreshed.elapsed() >= REFRESH {
                refreshed = Instant::now();
                let edges = graph(&self.kubelet.scrape()?);
                let (since, earlier) = states.front().cloned().unwrap_or((began, Vec::new()));
                self.view.refresh(&table(&rows(&edges, &earlier, since.elapsed()), began.elapsed()))?;
                states.push_back((refreshed, edges));
                if states.len() > WINDOW {
                    states.pop_front();
                }
            }
            if self.stop.pause(TICK).is_err() {
                return Ok(());
            }
        }
    }

    /// Ends the visitors, so that no request is under way, and counts.
    fn end(mut self, visitors: &[String], began: Instant) -> anyhow::Result<Report> {
        let logs: Vec<PathBuf> = self
            .kubelet
            .pods()
            .filter(|pod| visitors.contains(&pod.name))
            .map(|pod| self.kubelet.log(pod))
            .collect();
        let took = began.elapsed();
        visitors.iter().try_for_each(|name| self.kubelet.delete(name))?;
        while visitors.iter().any(|name| !self.kubelet.is_quiet(name)) {
            self.kubelet.sync()?;
            // Not to be interrupted: each step has its limit, and a second Ctrl-C kills.
            thread::sleep(TICK);
        }
        let scrapes = self.kubelet.scrape()?;
        let visits: Vec<Visit> = logs.iter().map(|log| Visit::read(log)).collect::<Result<_, _>>()?;
        let edges = graph(&scrapes);
        let rows: Vec<Row> = rows(&edges, &[], took);
        self.view.settle(&table(&rows, took))?;
        let report = Report::new(&scrapes, &visits, took);
        self.view.say(&report.summary())?;
        if self.duration.is_some() {
            self.view.say("Without --duration it goes on until Ctrl-C, and tells where to look further.")?;
        }
        Ok(report)
    }

    /// Tells where to look while the demo runs, from another terminal, and how to stop it.
    fn look_further(&mut self) -> anyhow::Result<()> {
        let pid = pid_outside().context("asking for the PID outside")?;
        let user = if is_user_namespace() { " --user --preserve-credentials" } else { "" };
        let mut text = format!(
            "\nLook further, from another terminal, by\n  nsenter --target {pid} --net{user} curl URL\nwhere URL is that of \
             an application (an unmeshed client is let in), or its proxy's admin port with /metrics, /config, /ready:\n"
        );
        for pod in self.kubelet.pods() {
            let address = pod.addresses.first().context("a pod has no address")?;
            let app = pod.readiness.as_ref().map(|probe| format!("http://{address}:{}/", probe.port));
            let app = app.unwrap_or_default();
            text += &format!("  {:<20} {app:<26} http://{address}:{ADMIN_PORT}/\n", pod.name);
        }
        let run = self.run.display();
        text += &format!("Manifests that control watches: {run}/manifests\nLogs: {run}/logs\nStop: Ctrl-C\n");
        self.view.say(&text)
    }
}

/// The visitors are clients of which the demo wants the count, in a form that it can read.
fn telling_json(mut visitor: Pod) -> Pod {
    visitor.program.arguments.push("--json".into());
    visitor
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
