//! `weft-load`: arguments in, one line of `key=value` pairs out. What each command does stands in the library.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bench_load::bulk::Direction;
use bench_load::closed::Exchange;
use bench_load::{backend, bulk, burst, closed, exchange, idle, paced};
use clap::{Parser, Subcommand};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// The servers and the load of the benchmark.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves HTTP/1.1 and HTTP/2 on port 8080 (1 KiB a response; gRPC: 133 bytes and trailers), a sink on 9001, a source on 9002, an echo on 9003
    Backend { ip: IpAddr },
    /// Sends to a sink as fast as it takes
    TcpUp { to: SocketAddr, connections: usize, seconds: f64 },
    /// Reads from a source as fast as it gives
    TcpDown { to: SocketAddr, connections: usize, seconds: f64 },
    /// Sends BYTES and waits for their echo, again and again on each connection
    TcpRr {
        to: SocketAddr,
        connections: usize,
        seconds: f64,
        #[arg(default_value_t = 64)]
        bytes: usize,
    },
    /// Connects, sends one byte, waits for its echo, closes; CONNECTIONS at a time
    TcpCrr { to: SocketAddr, connections: usize, seconds: f64 },
    /// Connects, does one GET with `Connection: close`, waits for the end; CONNECTIONS at a time
    HttpCrr { to: SocketAddr, connections: usize, seconds: f64 },
    /// Does RPS requests a second over CONNECTIONS kept-alive connections
    Rate { to: SocketAddr, connections: usize, seconds: f64, rps: f64 },
    /// Opens CONNECTIONS, does one GET on each, prints READY and holds them until it is killed
    Idle { to: SocketAddr, connections: usize },
    /// Opens CONNECTIONS at once, begins to read 128 KiB over each, prints PEAK, reads the rest slowly, closes
    Burst { to: SocketAddr, connections: usize },
    /// Asks until a 200 comes; prints the microsecond of the Unix epoch at which it came
    FirstOk { to: SocketAddr, seconds: f64 },
}

fn main() -> anyhow::Result<()> {
    let command = Arguments::parse().command;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(command))
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Backend { ip } => backend::serve(ip).await?,
        Command::TcpUp { to, connections, seconds } => {
            println!("{}", bulk::run(to, connections, lasting(seconds), Direction::Up).await);
        }
        Command::TcpDown { to, connections, seconds } => {
            println!("{}", bulk::run(to, connections, lasting(seconds), Direction::Down).await);
        }
        Command::TcpRr { to, connections, seconds, bytes } => {
            println!("{}", closed::run(to, connections, lasting(seconds), Exchange::Echo { bytes }).await);
        }
        Command::TcpCrr { to, connections, seconds } => {
            println!("{}", closed::run(to, connections, lasting(seconds), Exchange::ConnectTcp).await);
        }
        Command::HttpCrr { to, connections, seconds } => {
            println!("{}", closed::run(to, connections, lasting(seconds), Exchange::ConnectHttp).await);
        }
        Command::Rate { to, connections, seconds, rps } => {
            println!("{}", paced::run(to, connections, lasting(seconds), rps).await);
        }
        Command::Idle { to, connections } => {
            let held = idle::open(to, connections).await;
            println!("READY open={} err={}", held.open.len(), held.failed);
            std::future::pending::<()>().await;
        }
        Command::Burst { to, connections } => {
            let (ok, failed) = burst::run(to, connections, || println!("PEAK")).await;
            if let Some(error) = failed.first() {
                println!("one of those that failed: {error}");
            }
            println!("ok={ok} err={}", failed.len());
        }
        Command::FirstOk { to, seconds } => {
            println!("{}", exchange::first_ok(to, lasting(seconds)).await?.as_micros());
        }
    }
    Ok(())
}

fn lasting(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}
