//! `weft inject`: the proxy put into manifests before they are applied, by what the webhook decides with. Reads and
//! writes text alone; no cluster is asked.

use std::fs;
use std::io::{Read, Write, stderr, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use injector::values::{Redirection, Sidecar};
use injector::{Config, manifest};

#[derive(Args)]
pub struct Options {
    /// A file of manifests, a folder of them (*.yaml, *.yml, *.json, one after the other), or - for standard input
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    /// The injector's configuration, as in key config.yaml of ConfigMap weft-injector [default: that of the chart]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the proxy stands in the pod: native (an init container that goes on) or classic (a container)
    #[arg(long, value_name = "KIND", value_parser = value::<Sidecar>)]
    sidecar: Option<Sidecar>,
    /// Who redirects connections: init (container weft-init, with NET_ADMIN) or cni (the node's plugin)
    #[arg(long, value_name = "WHO", value_parser = value::<Redirection>)]
    redirection: Option<Redirection>,
}

/// Nothing is written unless all of it can be: half of a manifest would be applied by the next command of a pipe.
pub fn run(options: &Options) -> Result<ExitCode> {
    let config = options.config()?;
    let mut yaml = String::new();
    let mut notes = Vec::new();
    for path in expand(&options.files)? {
        let text = read(&path)?;
        let injected = manifest::inject(&config, &text).with_context(|| path.display().to_string())?;
        if !yaml.is_empty() && !injected.yaml.starts_with("---") {
            yaml.push_str("---\n");
        }
        yaml.push_str(&injected.yaml);
        if !yaml.ends_with('\n') {
            yaml.push('\n');
        }
        notes.extend(injected.notes);
    }
    for note in &notes {
        writeln!(stderr(), "weft inject: {}: {}", note.object, note.outcome)?;
    }
    if notes.is_empty() {
        writeln!(stderr(), "weft inject: there is no pod, and no template of pods")?;
    }
    stdout().write_all(yaml.as_bytes()).context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn config(&self) -> Result<Config> {
        let mut config = match &self.config {
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
                Config::parse(&text).with_context(|| path.display().to_string())?
            }
            None => Config::default(),
        };
        config.sidecar = self.sidecar.unwrap_or(config.sidecar);
        config.redirection = self.redirection.unwrap_or(config.redirection);
        Ok(config)
    }
}

/// The files that are named, and those of folders, by name.
pub fn expand(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
        let mut found = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let is_manifest = |end: &str| ["yaml", "yml", "json"].contains(&end);
        found.retain(|path| path.extension().and_then(|end| end.to_str()).is_some_and(is_manifest));
        found.sort();
        if found.is_empty() {
            bail!("{}: there is no *.yaml, *.yml or *.json in this folder", path.display());
        }
        files.extend(found);
    }
    Ok(files)
}

/// A file's text, or that of standard input for `-`.
pub fn read(path: &Path) -> Result<String> {
    if path != Path::new("-") {
        return fs::read_to_string(path).with_context(|| path.display().to_string());
    }
    let mut text = String::new();
    stdin().read_to_string(&mut text).context("standard input")?;
    Ok(text)
}

fn value<T: injector::values::Form>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("expected {}", T::EXPECTED))
}
