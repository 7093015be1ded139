//! `weft`: the command line of the mesh. Here are the commands; each one's work is in a module of its name.
//!
//! Called by the name `kubectl-weft`, which kubectl finds in the PATH, it is `kubectl weft`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod analyze;
mod certificate;
mod check;
mod cluster;
mod demo;
mod explain;
mod identity;
mod import;
mod inject;
mod install;
mod manifests;
mod names;
mod objects;
mod output;
mod proxy_config;
mod readiness;
mod target;
mod uninstall;

use std::env;
use std::ffi::OsStr;
use std::io::stdout;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use install::Mode;

/// A service mesh for Kubernetes and for plain Linux hosts.
#[derive(Parser)]
#[command(name = "weft", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the mesh into a cluster
    ///
    /// Applies the manifests of the Helm chart's default, highly available or CNI rendering, and waits until all is
    /// ready. Other settings are the chart's: `helm install`. Exit codes: 0 installed and ready, 1 not so, 2 wrong usage.
    Install(install::Options),
    /// Replace an installed mesh by this version
    ///
    /// As `install`, for a mesh that is there already; what this version does not consist of any more is deleted. Give
    /// the same options as at the installation.
    Upgrade(install::Options),
    /// Delete the mesh from a cluster
    ///
    /// The webhooks go first, then the rest, then what control and the injector made. Refuses while meshed pods run.
    Uninstall(uninstall::Options),
    /// Look for what is wrong with the mesh, or with a cluster before it is installed
    ///
    /// Each check says what it expects; where that is not so, what it found, why it matters and how to mend it. Exit
    /// codes: 0 nothing is wrong (there may be warnings), 1 something is or could not be looked at, 2 wrong usage.
    Check(check::Options),
    /// Put the proxy into manifests, and print them
    ///
    /// For clusters in which no webhook may do it, and to see what it would do: weft inject -f web.yaml | kubectl apply -f -.
    /// Pods and pod templates of Deployments, StatefulSets, DaemonSets, ReplicaSets, ReplicationControllers, Jobs, CronJobs
    /// and Lists are patched, whatever their namespace is labelled, unless they opt out; their comments and the order of
    /// their fields are lost. All other documents stay to the byte. What was done with each is said on standard error.
    /// Exit codes: 0 all written, 1 something cannot be read (nothing is written), 2 wrong usage.
    Inject(inject::Options),
    /// Turn another mesh's manifests into Gateway API's and Weft's, and print them
    #[command(subcommand)]
    Import(import::From),
    /// Show the certificate that a pod's proxy holds, and the roots that it believes
    ///
    /// The proxy itself is asked, through the API server. Exit codes: 0 its certificate is valid, 1 it is not or was not
    /// learned, 2 wrong usage.
    Identity(identity::Options),
    /// Show what a pod's proxy has learned from control
    ///
    /// Destinations, endpoints and ports, each with its version and the time since control has confirmed it. The proxy
    /// itself is asked, through the API server.
    ProxyConfig(proxy_config::Options),
    /// Explain what becomes of a request or a connection, and why
    ///
    /// Over manifests or a cluster, by the code that control and the proxies run. A proxy answers the same question with
    /// what it holds at /why of its admin port.
    Explain(explain::Options),
    /// List what is wrong with objects: routes and policies that lead nowhere, contradict or hide each other
    ///
    /// Over manifests or a cluster; the same words stand in the status of routes and policies. Exit codes: 0 there is no
    /// error (there may be warnings), 1 there is one, 2 wrong usage or nothing could be read.
    Analyze(analyze::Options),
    /// Print the completion of commands for a shell
    ///
    /// For example: source <(weft completion bash)
    Completion {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Mesh a small shop of six services on this host and watch it; nothing of it remains
    ///
    /// Each pod is a network namespace with a proxy of its own. Traffic is driven through the shop, and the terminal
    /// shows each edge's rate, success, latency and mTLS identities, and a pod replaced under load. Needs root, or a
    /// kernel that lets users make user namespaces. Exit codes: 0 every request succeeded over mTLS, 1 not so, 130
    /// interrupted before there was traffic.
    Demo(demo::Options),
    /// Print the version
    Version,
}

fn main() -> ExitCode {
    let mut command = command(env::args_os().next().as_deref());
    let matches = command.get_matches_mut();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match arguments.command {
        Command::Install(options) => block_on(install::run(&options, Mode::Install)),
        Command::Upgrade(options) => block_on(install::run(&options, Mode::Upgrade)),
        Command::Uninstall(options) => block_on(uninstall::run(&options)),
        Command::Check(options) => block_on(check::run(&options)),
        Command::Inject(options) => inject::run(&options),
        Command::Import(from) => import::run(&from),
        Command::Identity(options) => block_on(identity::run(&options)),
        Command::ProxyConfig(options) => block_on(proxy_config::run(&options)),
        Command::Explain(options) => block_on(explain::run(&options)),
        Command::Analyze(options) => block_on(analyze::run(&options)),
        Command::Completion { shell } => {
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command, name, &mut stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(options) => demo::run(&options),
        Command::Version => {
            println!("weft {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("weft: {error:#}");
        ExitCode::FAILURE
    })
}

/// The commands, under the name by which they are called.
fn command(called: Option<&OsStr>) -> clap::Command {
    let command = Arguments::command();
    let name = called.map(Path::new).and_then(Path::file_stem);
    match name.and_then(OsStr::to_str) {
        // Completion goes by the program's own name, help by what people type.
        Some("kubectl-weft") => {
            command.name("kubectl-weft").bin_name("kubectl weft").display_name("kubectl weft")
        }
        _ => command,
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_names_what_people_type() {
        for (called, typed) in [
            ("weft", "Usage: weft <COMMAND>"),
            ("/usr/local/bin/kubectl-weft", "Usage: kubectl weft <COMMAND>"),
            ("./renamed", "Usage: weft <COMMAND>"),
        ] {
            let help = command(Some(OsStr::new(called))).render_help().to_string();
            assert!(help.contains(typed), "{called}: {help}");
        }
    }

    #[test]
    fn every_shell_is_completed() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let (mut text, mut command) = (Vec::new(), command(None));
            clap_complete::generate(shell, &mut command, "weft", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("uninstall") && text.contains("image-prefix"), "{shell}");
        }
    }
}
