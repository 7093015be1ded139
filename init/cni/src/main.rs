//! `weft-cni`: called by the container runtime it is the plugin; called by a DaemonSet it is the agent that keeps it in place.

use clap::{Args, Parser, Subcommand, builder::FalseyValueParser};
use init::Plan;
use init_cni::agent::{self, Settings};
use init_cni::call::Pod;
use init_cni::namespace::within;
use init_cni::plugin::{self, World};
use init_cni::question;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Redirects pods to the Weft proxy while their network is made (CNI), so that they need no capability for it.
///
/// With CNI_COMMAND in its environment it is a chained CNI plugin (specification 1.1), which the container runtime calls. Exit
/// codes: 0 done, 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "weft-cni", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Install the plugin on this node and keep it there; answer it, mend pods that slipped by, and once ready take off the
    /// node's taint weft.mesh/cni-not-ready, which its bootstrap may set so that no pod comes before
    Install(InstallArguments),
    /// Take the plugin out of the configuration and its program off this node, and end
    Uninstall(Folders),
}

#[derive(Debug, Args)]
struct Folders {
    /// Where the runtime looks for plugins
    #[arg(long, env = "WEFT_CNI_BIN_DIR", value_name = "FOLDER", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Where the runtime looks for configurations
    #[arg(long, env = "WEFT_CNI_CONF_DIR", value_name = "FOLDER", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// The .conflist to join [default: the first by name, which is the one that runtimes take]
    #[arg(long, env = "WEFT_CNI_CONF_FILE", value_name = "NAME")]
    conf_file: Option<String>,
}

#[derive(Debug, Args)]
struct InstallArguments {
    #[command(flatten)]
    folders: Folders,
    /// This node's name
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node: String,
    /// Where the plugin asks; the same path here and on the node
    #[arg(long, env = "WEFT_CNI_SOCKET", value_name = "FILE", default_value = "/run/weft/cni.sock")]
    socket: PathBuf,
    /// Where /ready, /live and /metrics are served
    #[arg(long, env = "WEFT_CNI_ADMIN_LISTEN", value_name = "[ADDRESS:]PORT", default_value = "4295", value_parser = admin::address)]
    admin_listen: SocketAddr,
    /// Take the plugin out again on SIGTERM: for the end of its use, not for updates
    #[arg(long, env = "WEFT_CNI_REMOVE_ON_EXIT", value_parser = FalseyValueParser::new())]
    remove_on_exit: bool,
    /// The DaemonSet of this agent: when the agent ends and that is gone, the plugin is taken out, too
    #[arg(long, env = "WEFT_CNI_DAEMONSET", value_name = "NAMESPACE/NAME", value_parser = daemonset)]
    daemonset: Option<Owner>,
    /// What to log, on stderr: error, warn, info, debug, or filters as in init_cni=debug
    #[arg(long, env = "WEFT_CNI_LOG", default_value = "info")]
    log: String,
}

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner(String, String);

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        return call();
    }
    let ended = match Arguments::parse().action {
        Action::Install(arguments) => install(arguments),
        Action::Uninstall(folders) => agent::uninstall(&folders.into()).map_err(Into::into),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-cni: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A call of the runtime.
fn call() -> ExitCode {
    let mut input = String::new();
    if let Err(error) = io::stdin().read_to_string(&mut input) {
        eprintln!("weft-cni: standard input cannot be read: {error}");
    }
    let variable = |name: &str| std::env::var(name).ok();
    let (output, done) = plugin::run(&variable, &input, &Kernel, &mut |line| eprintln!("{line}"));
    print!("{output}");
    ExitCode::from(u8::from(!done))
}

fn install(arguments: InstallArguments) -> anyhow::Result<()> {
    // The client's own watcher says what the agent says again, less well.
    let filter = format!("kube_runtime=error,{}", arguments.log).parse::<tracing_subscriber::EnvFilter>()?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    agent::run(Settings {
        folders: arguments.folders.into(),
        node: arguments.node,
        socket: arguments.socket,
        admin: arguments.admin_listen,
        remove_on_exit: arguments.remove_on_exit,
        daemonset: arguments.daemonset.map(|Owner(namespace, name)| (namespace, name)),
    })
}

impl From<Folders> for agent::Folders {
    fn from(folders: Folders) -> agent::Folders {
        let Folders { bin_dir, conf_dir, conf_file } = folders;
        agent::Folders { bin: bin_dir, conf: conf_dir, conf_file }
    }
}

/// The kernel of this node, and its agent.
struct Kernel;

impl World for Kernel {
    fn install(&self, namespace: &Path, plan: &Plan) -> Result<(), String> {
        inside(namespace, || init::direct::install(plan).map(drop))
    }

    fn differences(&self, namespace: &Path, plan: &Plan) -> Result<Vec<String>, String> {
        inside(namespace, || init::direct::differences(plan))
    }

    fn ask(&self, socket: &Path, pod: &Pod) -> Result<Option<String>, String> {
        question::ask(socket, pod)
    }
}

fn inside<T: Send>(path: &Path, act: impl FnOnce() -> Result<T, init::Error> + Send) -> Result<T, String> {
    let entered = File::open(path).and_then(|namespace| within(&namespace, act));
    let done = entered.map_err(|error| format!("{} cannot be entered: {error}", path.display()))?;
    done.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}

fn daemonset(text: &str) -> Result<Owner, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(Owner(namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!("{text:?} is not of the form NAMESPACE/NAME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        assert_eq!(daemonset("a/b"), Ok(Owner("a".into(), "b".into())));
        assert!(daemonset("a").is_err() && daemonset("/b").is_err());
    }
}
