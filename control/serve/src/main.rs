//! `weft-control`: flags, log, signals. What it does is in the library.

use anyhow::Context;
use clap::Parser;
use control_serve::{Config, Objects, Server};
use policy::TrustDomain;
use std::{io::IsTerminal, net::SocketAddr, path::PathBuf, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

/// Weft's control plane: reads Kubernetes' objects from a cluster or from directories of manifests, tells proxies where
/// traffic goes, and gives them their identities.
///
/// The state folder may be edited while control runs: it is watched, and looked at each 30 s besides. To replace the root:
/// (1) add the new root to ca.pem, the old one stays; (2) replace issuer.key and issuer.pem: the new issuer signs
/// --root-spread after its root was told; (3) when every proxy has been certified since (a lifetime later at the latest:
/// weft_certificate_expiry_seconds), take the old root out of ca.pem. Each file is best replaced by a rename.
#[derive(Parser)]
#[command(name = "weft-control", version, max_term_width = 100)]
struct Flags {
    /// A directory of manifests (YAML or JSON), watched with all folders in it; may be given several times
    #[arg(
        long = "directory",
        value_name = "DIR",
        env = "WEFT_CONTROL_DIRECTORY",
        value_delimiter = ',',
        required_unless_present = "kubernetes",
        conflicts_with = "kubernetes"
    )]
    directories: Vec<PathBuf>,
    /// Read objects from the API server, found by KUBECONFIG or the service account of the Pod, instead of directories;
    /// the state folder then mirrors the Secret weft-identity-issuer
    #[arg(long, env = "WEFT_CONTROL_KUBERNETES")]
    kubernetes: bool,
    /// Control's own namespace in Kubernetes: its Secret and its Lease are there
    #[arg(long, value_name = "NAME", env = "WEFT_CONTROL_NAMESPACE", default_value = "weft-system")]
    namespace: String,
    /// In Kubernetes, the audience that proxies' tokens must be for
    #[arg(long, value_name = "NAME", env = "WEFT_CONTROL_TOKEN_AUDIENCE", default_value = policy::identity::TOKEN_AUDIENCE)]
    token_audience: String,
    /// Where the root's key, the roots (ca.pem) and the tokens are kept; made at the first start
    #[arg(long, value_name = "DIR", env = "WEFT_CONTROL_STATE")]
    state: PathBuf,
    /// Where proxies connect
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_CONTROL_LISTEN", default_value = "[::]:8486")]
    listen: SocketAddr,
    /// Where /ready, /live, /metrics and /problems are served
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_CONTROL_ADMIN_LISTEN", default_value = "[::]:8487")]
    admin_listen: SocketAddr,
    /// The SPIFFE trust domain of every identity
    #[arg(long, value_name = "NAME", env = "WEFT_CONTROL_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// How long certificates are valid: 24h, 90m, 1h30m; at least 10s
    #[arg(long, value_name = "TIME", env = "WEFT_CONTROL_CERTIFICATE_LIFETIME", default_value = "24h", value_parser = lifetime)]
    certificate_lifetime: Duration,
    /// How long a root that is new in ca.pem is told to proxies before an issuer below it signs
    #[arg(long, value_name = "TIME", env = "WEFT_CONTROL_ROOT_SPREAD", default_value = "65s", value_parser = duration)]
    root_spread: Duration,
    /// error, warn, info or debug
    #[arg(long, value_name = "LEVEL", env = "WEFT_CONTROL_LOG", default_value = "info")]
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
    let (objects, from) = match flags.kubernetes {
        true => (
            Objects::Kubernetes { namespace: flags.namespace, audience: flags.token_audience },
            "the cluster".into(),
        ),
        false => {
            let names: Vec<String> = flags.directories.iter().map(|one| one.display().to_string()).collect();
            (Objects::Directories(flags.directories), names.join(", "))
        }
    };
    let mut config = Config::new(objects, flags.state, flags.trust_domain);
    config.listen = flags.listen;
    config.admin_listen = flags.admin_listen;
    config.certificate_lifetime = flags.certificate_lifetime;
    config.root_spread = flags.root_spread;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let server = tokio::select! {
        server = Server::start(config) => server?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let (listen, _) = server.addresses()?;
    let (objects, problems) = server.counts();
    eprintln!("weft-control: ready: serving {listen} from {from} ({objects} objects, {problems} problems)");
    server
        .run(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await?;
    Ok(())
}

/// Hours, minutes and seconds, as in Kubernetes' durations (GEP-2257).
fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || format!("{text:?} is not a time such as 24h, 90m or 1h30m");
    let (mut seconds, mut number) = (0_u64, String::new());
    for character in text.chars() {
        let unit = match character {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            digit => {
                number.push(digit);
                continue;
            }
        };
        let count: u64 = number.parse().map_err(|_| malformed())?;
        seconds = count.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(malformed)?;
        number.clear();
    }
    match number.is_empty() && !text.is_empty() {
        true => Ok(Duration::from_secs(seconds)),
        false => Err(malformed()),
    }
}

/// Ten years: what is longer is a mistake, and would not fit into a certificate.
fn lifetime(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(10)..=Duration::from_secs(315_360_000);
    duration(text).and_then(|time| {
        range.contains(&time).then_some(time).ok_or(format!("{text} is not in 10s to 87600h"))
    })
}

#[cfg(test)]
mod tests {
    use super::{duration, lifetime};
    use std::time::Duration;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [("24h", 86_400), ("1h30m", 5_400), ("90m", 5_400), ("61s", 61)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "24", "h", "-1h", "1d", "1.5h", "18446744073709551615h", "1h5"] {
            assert!(duration(text).is_err() && lifetime(text).is_err(), "{text}");
        }
        for (text, fits) in [("0s", false), ("9s", false), ("10s", true), ("87600h", true), ("87601h", false)]
        {
            assert!(duration(text).is_ok() && lifetime(text).is_ok() == fits, "{text}");
        }
    }
}
