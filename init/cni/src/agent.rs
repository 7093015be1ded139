//! The agent of one node: the plugin is in place, questions are answered, pods that slipped by are mended, and once all that is so
//! the node's taint is taken off.
//!
//! Parts share nothing but [`Status`]; each says there whether it works.

mod departure;
mod install;
mod metrics;
mod node;
mod pods;
mod processes;
mod questions;

#[cfg(test)]
mod tests;

pub use install::{Folders, InstallError, Known, install, uninstall};
pub use pods::{Outcome, mend};
pub use processes::{first_processes, pod_uid};

use admin::Told;
use anyhow::{Context, Result, anyhow};
use kube::Client;
use metrics::Metrics;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};

/// What an agent is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    pub folders: Folders,
    pub node: String,
    pub socket: PathBuf,
    pub admin: SocketAddr,
    /// Whether the plugin is taken out whenever the agent is told to end.
    pub remove_on_exit: bool,
    /// Namespace and name of the DaemonSet that the agent belongs to: once that is gone, the plugin is taken out at the end.
    pub daemonset: Option<(String, String)>,
}

/// Whether each part works; the reason is for people.
#[derive(Debug)]
pub struct Status {
    /// Program and configuration of the plugin.
    installed: Mutex<Result<(), String>>,
    /// The pods of this node are known.
    watching: Mutex<Result<(), String>>,
    metrics: Metrics,
}

impl Told for Status {
    fn unready(&self) -> Option<String> {
        let of =
            |part: &Mutex<Result<(), String>>| part.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let why: Vec<_> =
            [of(&self.installed), of(&self.watching)].into_iter().filter_map(Result::err).collect();
        (!why.is_empty()).then(|| why.join("; "))
    }

    fn metrics(&self) -> String {
        self.metrics.encode(self.unready().is_none())
    }
}

impl Status {
    fn new() -> Status {
        let not_yet = |what: &str| Mutex::new(Err(what.to_owned()));
        Status {
            installed: not_yet("the plugin is not in place yet"),
            watching: not_yet("the pods of this node are not known yet"),
            metrics: Metrics::new(),
        }
    }

    /// All reasons why not.
    fn set(part: &Mutex<Result<(), String>>, result: Result<(), String>) {
        let mut held = part.lock().unwrap_or_else(PoisonError::into_inner);
        if *held != result {
            match &result {
                Ok(()) => {
                    tracing::info!("what hindered has gone: {}", held.clone().err().unwrap_or_default())
                }
                Err(why) => tracing::warn!("{why}"),
            }
            *held = result;
        }
    }
}

/// An answer of the API server, for people: without the structure that its Display shows.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            format!("{}; does the ClusterRole weft-cni stand, and is it bound?", status.message)
        }
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Serves until SIGTERM or SIGINT.
pub fn run(settings: Settings) -> Result<()> {
    // The one provider that is compiled in; an error says that it is in place already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let status = Arc::new(Status::new());
    let admin = admin::listen(settings.admin)
        .await
        .with_context(|| format!("--admin-listen {}: cannot listen", settings.admin))?;
    let listener = questions::listen(&settings.socket)
        .with_context(|| format!("--socket {}: cannot listen", settings.socket.display()))?;
    let client =
        Client::try_default().await.context("the API server cannot be found (in-cluster, or KUBECONFIG)")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = admin::serve(admin, status.clone()) => return Err(anyhow!("the admin port has ended")),
        () = install::keep(&settings, &status) => return Err(anyhow!("installing has ended")),
        () = questions::serve(listener, client.clone(), status.clone()) => {
            return Err(anyhow!("answering has ended"));
        }
        () = pods::keep(client.clone(), &settings.node, &status) => return Err(anyhow!("watching has ended")),
        () = node::keep(client.clone(), &settings.node, &status) => return Err(anyhow!("the node's taint is not watched")),
    }
    // Nobody is answered from now on: a plugin that asks shall be told so at once.
    let _ = std::fs::remove_file(&settings.socket);
    if settings.remove_on_exit || departure::is_for_good(client, settings.daemonset).await {
        uninstall(&settings.folders)?;
        tracing::info!("the plugin has been taken out of this node");
    }
    Ok(())
}
