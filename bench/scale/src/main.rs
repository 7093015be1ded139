//! `weft-scale`: one control plane before a large cluster that is not there. It makes the API server, the objects, their
//! changes and the proxies' watches; control is the real program, in a process of its own.

mod api;
#[rustfmt::skip]
#[path = "../../../proxy/app/src/generated.rs"]
mod generated;
mod mesh;
mod proxies;

use anyhow::{Context, ensure};
use api::Api;
use clap::Parser;
use mesh::Mesh;
use proxies::{Arrivals, Proxies};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// Clock ticks of `/proc/PID/stat` a second (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Wait for control to have read everything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures control's memory, CPU and delay before a cluster of this size; prints a line of `key=value` pairs.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// weft-control
    #[arg(long, default_value = "target/release/weft-control")]
    control: PathBuf,
    #[arg(long, default_value_t = 2000)]
    services: usize,
    /// Of each service
    #[arg(long, default_value_t = 5)]
    pods: usize,
    #[arg(long, default_value_t = 20)]
    namespaces: usize,
    #[arg(long, default_value_t = 500)]
    proxies: usize,
    /// Pods replaced a second: each is a Pod that goes, one that comes, and their EndpointSlice
    #[arg(long, default_value_t = 50.0)]
    changes: f64,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Fails when control holds more, in MB
    #[arg(long)]
    max_rss: Option<f64>,
    /// Fails when the 99th percentile from change to proxy is longer, in ms
    #[arg(long)]
    max_p99: Option<f64>,
}

/// Control in a process of its own; it ends with this.
struct Control {
    process: Child,
    pid: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let mut mesh = Mesh::new(arguments.services, arguments.pods, arguments.namespaces);
    let api = Arc::new(Api::new(mesh.objects()));
    let server = api.serve().await?;
    let begun = Instant::now();
    let control = Control::start(&arguments.control, folder.path(), server)?;
    let grpc = control.address(folder.path()).await?;
    let ready = begun.elapsed();
    let alone = control.rss()?;

    let arrivals = Arc::new(Arrivals::default());
    let roots = folder.path().join("state/ca.pem");
    let proxies = Proxies::start(grpc, &roots, &mesh, arguments.proxies, &arrivals);
    let proxies = proxies.await.context("the proxies could not watch")?;
    sleep(Duration::from_secs(2)).await;
    let (first, cpu, began) = (arrivals.bytes(), control.cpu()?, Instant::now());

    let mut tick = interval(Duration::from_secs_f64(1.0 / arguments.changes));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut changes = 0;
    while began.elapsed() < Duration::from_secs(arguments.seconds) {
        tick.tick().await;
        let change = mesh.change();
        arrivals.expect(change.address);
        change.events.into_iter().for_each(|event| api.say(event));
        changes += 1;
    }
    sleep(Duration::from_secs(2)).await;
    let cpu = control.cpu()? - cpu;
    let (rss, peak) = (control.rss()?, control.peak()?);
    let (count, p50, p99, longest) = arrivals.delays();
    println!(
        "services={} pods={} proxies={} streams={} ready_ms={:.0} rss_mb={rss:.0} rss_alone_mb={alone:.0} \
         rss_peak_mb={peak:.0} changes={changes} arrivals={count} p50_ms={p50:.1} p99_ms={p99:.1} max_ms={longest:.1} \
         cpu_ms_a_change={:.2} first_kib_a_proxy={:.2} kib_a_proxy_a_s={:.2}",
        arguments.services,
        arguments.services * arguments.pods,
        arguments.proxies,
        proxies.streams,
        ready.as_secs_f64() * 1e3,
        cpu * 1e3 / f64::from(changes),
        first as f64 / 1024.0 / arguments.proxies as f64,
        (arrivals.bytes() - first) as f64 / 1024.0 / arguments.proxies as f64 / arguments.seconds as f64,
    );
    ensure!(count > 0, "no change arrived anywhere");
    ensure!(arguments.max_rss.is_none_or(|most| peak <= most), "control held {peak:.0} MB");
    ensure!(arguments.max_p99.is_none_or(|most| p99 <= most), "the 99th percentile was {p99:.1} ms");
    Ok(())
}

impl Control {
    fn start(program: &Path, folder: &Path, api: SocketAddr) -> anyhow::Result<Self> {
        let kubeconfig = folder.join("kubeconfig");
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "scale",
            "clusters": [{"name": "scale", "cluster": {"server": format!("http://{api}")}}],
            "contexts": [{"name": "scale", "context": {"cluster": "scale", "user": "scale"}}],
            "users": [{"name": "scale", "user": {}}],
        });
        fs::write(&kubeconfig, config.to_string())?;
        let log = fs::File::create(folder.join("log"))?;
        let process = Command::new(program)
            .args(["--kubernetes", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--state"])
            .arg(folder.join("state"))
            .env("KUBECONFIG", kubeconfig)
            .stderr(log)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be run; build it, or say --control", program.display()))?;
        let pid = process.id().context("control has ended")?;
        Ok(Self { process, pid })
    }

    /// Where it serves, as its log says once it is ready.
    async fn address(&self, folder: &Path) -> anyhow::Result<SocketAddr> {
        let begun = Instant::now();
        loop {
            let log = fs::read_to_string(folder.join("log"))?;
            let address = log.split_once("ready: serving ").and_then(|(_, rest)| rest.split(' ').next());
            if let Some(address) = address {
                return Ok(address.parse()?);
            }
            ensure!(begun.elapsed() < PATIENCE, "control did not become ready; its log:\n{log}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resident memory in MB.
    fn rss(&self) -> anyhow::Result<f64> {
        self.status("VmRSS:")
    }

    /// The most that it ever was.
    fn peak(&self) -> anyhow::Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> anyhow::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0 / 1e6)
    }

    /// User and system time so far, in seconds.
    fn cpu(&self) -> anyhow::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The fields after the name, which may hold anything (proc_pid_stat(5)).
        let fields: Vec<&str> = text.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let ticks =
            |at: usize| fields.get(at).context("no such field")?.parse::<f64>().map_err(anyhow::Error::from);
        Ok((ticks(11)? + ticks(12)?) / TICKS)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.start_kill();
    }
}
