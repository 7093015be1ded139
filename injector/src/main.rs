//! `weft-injector`: flags, log, signals. What it does is in the library.

use anyhow::Context;
use clap::Parser;
use injector::webhook::{Server, Settings};
use std::{io::IsTerminal, net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

/// Puts the proxy into the pods of labelled namespaces, as the API server's mutating admission webhook.
///
/// Makes and replaces its own certificate (Secret weft-injector-tls) and tells it to the API server (caBundle of
/// MutatingWebhookConfiguration weft-injector). Any number of replicas serve. Exit codes: 0 done, 1 failed, 2 wrong usage.
#[derive(Parser)]
#[command(name = "weft-injector", version, max_term_width = 100)]
struct Flags {
    /// The namespace in which Weft is installed
    #[arg(long, value_name = "NAME", env = "WEFT_INJECTOR_NAMESPACE", default_value = "weft-system")]
    namespace: String,
    /// The defaults of all pods (YAML), read again when it changes [default: those of `weft inject`]
    #[arg(long, value_name = "FILE", env = "WEFT_INJECTOR_CONFIG")]
    config: Option<PathBuf>,
    /// Where the API server asks
    #[arg(long, value_name = "[ADDR:]PORT", env = "WEFT_INJECTOR_WEBHOOK_LISTEN", default_value = "8443", value_parser = admin::address)]
    webhook_listen: SocketAddr,
    /// Where /live, /ready and /metrics are served
    #[arg(long, value_name = "[ADDR:]PORT", env = "WEFT_INJECTOR_ADMIN_LISTEN", default_value = "8444", value_parser = admin::address)]
    admin_listen: SocketAddr,
    /// A name or address in the certificate besides the Service's, for a webhook that is configured by URL; several times
    #[arg(
        long = "server-name",
        value_name = "NAME",
        env = "WEFT_INJECTOR_SERVER_NAMES",
        value_delimiter = ','
    )]
    names: Vec<String>,
    /// error, warn, info or debug
    #[arg(long, value_name = "LEVEL", env = "WEFT_INJECTOR_LOG", default_value = "info")]
    log: LevelFilter,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    tracing_subscriber::fmt()
        .with_max_level(flags.log)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let mut settings = Settings::new(flags.namespace);
    settings.config = flags.config;
    settings.webhook_listen = flags.webhook_listen;
    settings.admin_listen = flags.admin_listen;
    settings.names = flags.names;

    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let api = kube::Client::try_default().await;
    let api = api.context("no API server: run it in a pod, or name a kubeconfig by KUBECONFIG")?;
    let server = Server::start(settings, api, Arc::new(SystemTime::now)).await?;
    let [webhook, admin] = server.addresses()?;
    tracing::info!("listening on {webhook} (webhook) and {admin} (admin)");
    let end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Box::pin(server.run(end)).await;
    Ok(())
}
