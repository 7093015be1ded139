//! `weft`: the command line of the mesh. Here are the commands; each one's work is in a module of its name.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A service mesh for Kubernetes and for plain Linux hosts.
#[derive(Parser)]
#[command(name = "weft", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
    let result = match Arguments::parse().command {
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
