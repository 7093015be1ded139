//! weft-control as a process: told where the API server is, started, measured by what the kernel knows of it, ended.

use anyhow::{Context, bail};
use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Ticks of the clock that CPU time is counted in (`_SC_CLK_TCK`, which is 100 on every Linux).
const TICK: Duration = Duration::from_millis(10);
/// Control lists 10,000 Pods in less, also in a build for debugging.
const START_WAIT: Duration = Duration::from_secs(120);

/// A running control, which ends when it is dropped.
pub struct Control {
    child: Child,
    folder: TempDir,
}

/// What a process holds and has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory, in bytes, now and at its highest.
    pub rss: u64,
    pub peak: u64,
    pub cpu: Duration,
}

impl Control {
    /// Starts `program`, on one CPU if it is said which.
    pub fn start(program: &Path, kubeconfig: &str, cpu: Option<usize>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("weft-scale.").tempdir()?;
        let path = folder.path();
        fs::write(path.join("kubeconfig"), kubeconfig)?;
        let log = File::create(path.join("log"))?;
        let mut command = match cpu {
            Some(cpu) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", &cpu.to_string()]).arg(program);
                pinned
            }
            None => Command::new(program),
        };
        command
            .args(["--kubernetes", "--namespace", "weft-system", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--state"])
            .arg(path.join("state"))
            .env("KUBECONFIG", path.join("kubeconfig"))
            .env("HOSTNAME", "weft-control-0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { child, folder })
    }

    /// Waits until it has read the cluster and listens; answers where.
    pub async fn ready(&mut self) -> anyhow::Result<SocketAddr> {
        let patience = Instant::now() + START_WAIT;
        loop {
            let log = self.log();
            // A line that is not whole yet may end within the address.
            let whole = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
            if let Some((_, rest)) = whole.split_once("ready: serving ") {
                let address = rest.split_whitespace().next().unwrap_or_default();
                return address.parse().context("control's address");
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("control ended ({status}) before it was ready:\n{log}");
            }
            if Instant::now() > patience {
                bail!("control was not ready in {} s:\n{log}", START_WAIT.as_secs());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn usage(&self) -> anyhow::Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.child.id());
            fs::read_to_string(&path).with_context(|| format!("{path}: has control ended?\n{}", self.log()))
        };
        let (status, stat) = (read("status")?, read("stat")?);
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_matches([':', '\t', ' ']).strip_suffix(" kB")?.parse::<u64>().ok()
        };
        // After the name in parentheses: the state is the first field, user and system time the 12th and 13th (proc(5)).
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default().split_whitespace();
        let ticks: u32 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
        let bytes = |name| field(name).map(|kilobytes| kilobytes * 1024).context("memory in /proc");
        Ok(Usage { rss: bytes("VmRSS")?, peak: bytes("VmHWM")?, cpu: TICK * ticks })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
