//! `weft import istio`: manifests in, manifests and a report out. What they become is decided by crate `import`; here are
//! files and standard streams. No cluster is asked.

use std::fs;
use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use import::{Imported, Source};
use serde_json::json;

use crate::inject::{expand, read};

#[derive(Subcommand)]
pub enum From {
    /// Turn Istio's VirtualServices, DestinationRules, Gateways and ServiceEntries into ours
    ///
    /// They become routes and Gateways of Gateway API, TrafficPolicies, BackendPolicies and Services, printed on standard
    /// output in the order in which they can be applied. Services among the input tell ports and selectors, so all of it is
    /// best imported at once:
    ///
    ///   kubectl get svc,vs,dr,gw,se -A -o yaml | weft import istio -f - > weft.yaml
    ///
    /// Each field that could not be carried is said on standard error with its file and line, and what to do about it;
    /// none is dropped in silence. What was carried with a difference is a note. Exit codes: 0 everything was carried
    /// (there may be notes), 1 something was dropped, or the input cannot be read (nothing is written then), 2 wrong usage.
    #[command(verbatim_doc_comment)]
    Istio(Options),
}

#[derive(Args)]
pub struct Options {
    /// A file of manifests, a folder of them (*.yaml, *.yml, *.json), or - for standard input
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    /// The namespace of objects that name none
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The form of the manifests
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// Where the report goes, instead of standard error
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Form {
    /// Documents of YAML
    #[default]
    Yaml,
    /// One List in JSON
    Json,
}

pub fn run(from: &From) -> Result<ExitCode> {
    let From::Istio(options) = from;
    let mut sources = Vec::new();
    for path in expand(&options.files)? {
        let name = match path.to_str() {
            Some("-") => "stdin".to_owned(),
            _ => path.display().to_string(),
        };
        sources.push(Source { name, text: read(&path)? });
    }
    let imported = import::istio(&sources, &options.namespace)?;
    let manifests = options.output.write(&imported)?;
    let report = report(&imported);
    match &options.report {
        Some(path) => fs::write(path, &report).with_context(|| path.display().to_string())?,
        None => stderr().write_all(report.as_bytes()).context("standard error")?,
    }
    stdout().write_all(manifests.as_bytes()).context("standard output")?;
    Ok(if imported.is_lossy() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Form {
    fn write(self, imported: &Imported) -> Result<String> {
        match self {
            Form::Yaml => imported.yaml().map_err(|error| anyhow!("writing YAML: {error}")),
            Form::Json => {
                let list = json!({"apiVersion": "v1", "kind": "List", "items": imported.objects});
                Ok(serde_json::to_string_pretty(&list).context("writing JSON")? + "\n")
            }
        }
    }
}

/// A line for each finding, and how many there are of each sort.
fn report(imported: &Imported) -> String {
    let mut text = String::new();
    for finding in &imported.findings {
        text += &format!("{finding}\n");
    }
    let dropped = imported.findings.iter().filter(|finding| finding.dropped).count();
    let notes = imported.findings.len() - dropped;
    text + &format!(
        "weft import: {} objects written; {dropped} dropped, {notes} notes\n",
        imported.objects.len()
    )
}
