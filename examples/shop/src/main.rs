//! `weft-shop`: the example shop. One binary, one role a process: six services that call each other over HTTP/1.1,
//! and the visitor that drives them. Nothing in this crate knows that a mesh exists; that is its whole point.

// A test may stop at what it does not expect; the program may not.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod client;
mod fault;
mod roles;
mod server;
#[cfg(test)]
mod tests;
mod visitor;

use std::future::Future;
use std::io::{self, Write};

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Args, Role};

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let stop = terminated().context("listening for signals")?;
    if args.role == Role::Visitor {
        let report = visitor::run(&args.visit, stop).await?;
        if args.visit.json {
            println!("{}", serde_json::to_string(&report).context("writing the report")?);
        } else {
            println!("{report}");
        }
        return Ok(());
    }
    let service = roles::Service::new(args.role, &args.version, args.upstreams)?.failing(args.failing);
    let listener =
        server::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let bound = listener.local_addr().context("asking for the address listened on")?;
    say(&format!("{service} ready on {bound}"));
    server::serve(listener, service, args.drain, stop).await;
    Ok(())
}

/// One line to stderr in one write, so that processes which share a terminal do not mix their lines.
fn say(line: &str) {
    // Whoever closed stderr does not want to know.
    let _ = io::stderr().write_all(format!("weft-shop: {line}\n").as_bytes());
}

/// Resolves at the first SIGTERM or SIGINT. The signals are caught from this call on, not from the first poll.
fn terminated() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
