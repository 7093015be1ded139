//! `weft-scale`: arguments in, one line of `key=value` pairs out. What is done stands in the library.

use bench_scale::{
    api::Api,
    mesh::{Mesh, Picker, Size},
    run::{Scale, run},
    store::Store,
};
use clap::{Args, Parser, Subcommand};
use std::{collections::HashSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{runtime::Builder, time::interval};

/// Control before a mesh that is only described: how much memory and time it takes, and how soon proxies hear of changes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts control over the mesh, connects proxies, changes the mesh, and tells what happened
    Run {
        /// weft-control
        control: PathBuf,
        #[command(flatten)]
        size: Described,
        /// The CPU that control runs on
        #[arg(long)]
        control_cpu: Option<usize>,
        #[arg(long, default_value_t = 500)]
        proxies: usize,
        /// Services that each proxy dials
        #[arg(long, default_value_t = 20)]
        destinations: usize,
        /// Proxies and what they dial are among the first so many Services; by default among all
        #[arg(long)]
        among: Option<usize>,
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
    },
    /// Serves the mesh as an API server until it is killed, and prints a kubeconfig for it
    Api {
        #[arg(default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        #[command(flatten)]
        size: Described,
    },
}

#[derive(Args)]
struct Described {
    #[arg(long, default_value_t = 2_000)]
    services: usize,
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Changes a second
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
}

impl Described {
    fn size(&self) -> Size {
        Size { services: self.services.max(1), pods: self.pods }
    }
}

fn main() -> anyhow::Result<()> {
    let command = Arguments::parse().command;
    Builder::new_current_thread().enable_all().build()?.block_on(execute(command))
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { control, size, control_cpu, proxies, destinations, among, seconds } => {
            let among = among.unwrap_or(size.size().services);
            let duration = Duration::from_secs_f64(seconds.max(0.0));
            let (size, rate) = (size.size(), size.rate);
            let scale = Scale { control, control_cpu, size, proxies, destinations, among, rate, duration };
            println!("{}", run(&scale).await?);
        }
        Command::Api { listen, size } => {
            let store = Arc::new(Store::new(Mesh::new(size.size())));
            let api = Api::listen(listen, Arc::clone(&store)).await?;
            println!("{}", api.kubeconfig()?);
            tokio::spawn(api.serve());
            let mut picker = Picker::new(1, HashSet::new());
            let mut pace = interval(Duration::from_secs_f64(1.0 / size.rate.max(0.001)));
            loop {
                pace.tick().await;
                let change = store.with_mesh(|mesh| picker.pick(mesh));
                store.change(change, |_| {});
            }
        }
    }
    Ok(())
}
