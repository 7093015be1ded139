//! `weft check`: facts are gathered once from the cluster, each check judges them, and the report names what is wrong,
//! why it matters and how to mend it. `before`, `plane` and `workloads` hold the checks; they never see a cluster.

mod before;
mod facts;
mod finding;
mod gather;
mod plane;
mod report;
#[cfg(test)]
mod tests;
mod workloads;

use std::process::ExitCode;

use crate::cluster::Connection;
use crate::manifests;
use crate::output::{self, Form};

use facts::Facts;
use finding::{Check, Finding, Stage, Weight};

/// `weft check --help` tells the rest.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    connection: Connection,
    /// Namespace of the mesh
    #[arg(short, long, value_name = "NAMESPACE", default_value = manifests::NAMESPACE)]
    namespace: String,
    /// Whether a cluster can take the mesh, before it is installed
    #[arg(long)]
    pre: bool,
    /// With --pre: for an installation by `weft install --cni`
    #[arg(long, requires = "pre")]
    cni: bool,
    /// Proxies that are asked for their certificates, the first by name [0 asks none]
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    proxies: usize,
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Checks, and tells by the exit code whether anything is wrong or unknown.
pub async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let cluster = options.connection.open().await?;
    let facts = if options.pre {
        gather::before(&cluster, &options.namespace, options.cni).await?
    } else {
        gather::installed(&cluster, &options.namespace, options.proxies).await?
    };
    let findings = judge(&facts, options.pre);
    output::print(options.output, &findings, || report::text(&findings, &facts))?;
    let is_well = findings.iter().all(|finding| finding.weight < Weight::Unknown);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The whole judgement, in the order in which people mend.
fn judge(facts: &Facts, before: bool) -> Vec<Finding> {
    let wanted = |check: &&Check| match check.stage {
        Stage::Before => before,
        Stage::Installed => !before,
        Stage::Both => true,
    };
    let checks = before::CHECKS.iter().chain(plane::CHECKS).chain(workloads::CHECKS);
    checks.filter(wanted).map(|check| check.judge(facts)).collect()
}
