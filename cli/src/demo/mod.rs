//! `weft demo`: a small shop of stock manifests, each pod a set of namespaces on this host, meshed and watched.
//!
//! Outside: check what is needed, enclose, clean up. Inside, as PID 1 of it all: be a little cluster around the real
//! control plane, init and proxies (`cluster`, `sandbox`, `kubelet`), let the visitor drive traffic, replace a pod,
//! and tell what the proxies counted (`signals`, `view`). Nothing here is known to control or proxies.

mod cluster;
mod directory;
mod enclosure;
mod http;
mod kubelet;
mod links;
mod manifests;
mod sandbox;
mod show;
mod signals;
mod view;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use enclosure::{Ended, INTERRUPTED, enclose};

/// What runs besides `weft` itself.
const PROGRAMS: [&str; 4] = ["weft-proxy", "weft-control", "weft-init", "weft-shop"];

/// What the person wants; `weft demo --help` tells the rest.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Drive traffic this long, then end; without it, until Ctrl-C
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    duration: Option<u64>,
    /// At the end print one JSON object on one line of stdout; everything else goes to stderr
    #[arg(long)]
    json: bool,
    /// Where weft-proxy, weft-control, weft-init and weft-shop are [default: beside weft]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Set by the demo itself, for its inner process
    #[arg(long, hide = true, value_name = "DIR")]
    inside: Option<PathBuf>,
}

/// Runs the demo. The exit code tells whether every request succeeded and every edge was mTLS.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let this = env::current_exe().context("asking for this program's path")?;
    let beside = || this.parent().map(Path::to_path_buf).context("this program is in no folder");
    let programs = options.bin_dir.clone().map_or_else(beside, Ok)?;
    match &options.inside {
        Some(run) => show::run(options, programs, run),
        None => outside(options, &this, &programs),
    }
}

fn outside(options: &Options, this: &Path, programs: &Path) -> anyhow::Result<ExitCode> {
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|name| !programs.join(name).is_file()).collect();
    if !missing.is_empty() {
        let folder = programs.display();
        bail!(
            "{} not in {folder}: build with `make demo`, or name the folder by --bin-dir",
            missing.join(", ")
        );
    }
    let run =
        tempfile::Builder::new().prefix("weft-demo-").tempdir().context("making a folder for the run")?;
    let mut inside = Command::new(this);
    inside.arg("demo").arg("--inside").arg(run.path()).arg("--bin-dir").arg(programs);
    if let Some(seconds) = options.duration {
        inside.args(["--duration", &seconds.to_string()]);
    }
    if options.json {
        inside.arg("--json");
    }
    let code = match enclose(&mut inside)? {
        Ended::With(code) => code,
        Ended::Killed => INTERRUPTED,
    };
    if code == INTERRUPTED {
        eprintln!("weft: interrupted; nothing remains");
    } else if code != 0 {
        let kept = run.keep();
        eprintln!("weft: the demo failed; its logs and manifests are kept in {}", kept.display());
    }
    Ok(ExitCode::from(code))
}
