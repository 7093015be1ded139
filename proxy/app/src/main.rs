//! `weft-proxy`: its command line.

use clap::Parser;
use policy::{TrustDomain, WorkloadName, limits};
use proxy_app::{
    await_ready::await_ready,
    proxy::{self, Settings},
    telemetry::access::{Mode, Target},
};
use std::{io::IsTerminal, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

/// The sidecar proxy of one workload: takes the connections that weft-init redirects, and carries them with mTLS.
///
/// It serves until SIGTERM or SIGINT, then drains. Exit codes: 0 done, 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "weft-proxy", version, max_term_width = 100)]
struct Arguments {
    /// Whose proxy this is: namespace/pod
    #[arg(
        long,
        env = "WEFT_PROXY_WORKLOAD",
        value_name = "NAMESPACE/POD",
        required_unless_present = "await_ready"
    )]
    workload: Option<WorkloadName>,
    /// Where weft-control answers
    #[arg(
        long,
        env = "WEFT_PROXY_CONTROL",
        value_name = "HOST:PORT",
        required_unless_present = "await_ready"
    )]
    control: Option<String>,
    /// PEM file with the roots to trust at first: ca.pem of weft-control
    #[arg(
        long,
        env = "WEFT_PROXY_TRUST_ANCHORS",
        value_name = "FILE",
        required_unless_present = "await_ready"
    )]
    trust_anchors: Option<PathBuf>,
    /// File with the token that proves the service account; read anew each time it is needed
    #[arg(long, env = "WEFT_PROXY_TOKEN_FILE", value_name = "FILE", required_unless_present = "await_ready")]
    token_file: Option<PathBuf>,
    /// The trust domain of all identities
    #[arg(long, env = "WEFT_PROXY_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// Where connections that leave are redirected to
    #[arg(long, env = "WEFT_PROXY_OUTBOUND_LISTEN", value_name = "[ADDRESS:]PORT", default_value = "4240", value_parser = address)]
    outbound_listen: SocketAddr,
    /// Where connections that arrive are redirected to
    #[arg(long, env = "WEFT_PROXY_INBOUND_LISTEN", value_name = "[ADDRESS:]PORT", default_value = "4243", value_parser = address)]
    inbound_listen: SocketAddr,
    /// Where /metrics, /ready, /live, /config and /shutdown are served
    #[arg(long, env = "WEFT_PROXY_ADMIN_LISTEN", value_name = "[ADDRESS:]PORT", default_value = "4291", value_parser = address)]
    admin_listen: SocketAddr,
    /// Worker threads [default: the CPUs that the cgroup grants, 1 without a grant]
    #[arg(long, env = "WEFT_PROXY_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// SO_MARK for the proxy's own connections (decimal, or 0x…), where weft-init knows them by --proxy-mark
    #[arg(long, env = "WEFT_PROXY_MARK", value_parser = mark)]
    mark: Option<u32>,
    /// How long connections may go on after SIGTERM: 30s, 500ms, 2m
    #[arg(long, env = "WEFT_PROXY_DRAIN_TIMEOUT", default_value = "30s", value_parser = duration)]
    drain_timeout: Duration,
    /// Bytes of one message's header list, of requests (over it: 431) and of responses: 8192 to 1048576
    #[arg(long, env = "WEFT_PROXY_MAX_HEADER_BYTES", value_name = "BYTES", default_value_t = limits::HEADER_LIST_BYTES as u32, value_parser = clap::value_parser!(u32).range(8192..=limits::HEADER_LIST_MOST_BYTES as i64))]
    max_header_bytes: u32,
    /// Access log, a line of JSON each: off, errors (what failed) or all requests and connections
    #[arg(long, env = "WEFT_PROXY_ACCESS_LOG", value_name = "MODE", default_value = "off", value_parser = str::parse::<Mode>)]
    access_log: Mode,
    /// Where the access log goes [default: standard output]; renamed or deleted, the file is made anew
    #[arg(long, env = "WEFT_PROXY_ACCESS_LOG_FILE", value_name = "FILE")]
    access_log_file: Option<PathBuf>,
    /// Ports of the application that /probe/tcp/PORT of the admin port may be asked about: 5432,6379
    #[arg(long, env = "WEFT_PROXY_TCP_PROBE_PORTS", value_name = "PORTS", value_parser = ports)]
    tcp_probe_ports: Option<Ports>,
    /// Serve nothing: wait until the proxy of this pod is ready, for a postStart hook [exit codes: 0 it is, 1 it is not]
    #[arg(long)]
    await_ready: bool,
    /// How long --await-ready waits
    #[arg(long, env = "WEFT_PROXY_AWAIT_TIMEOUT", default_value = "60s", value_parser = duration)]
    await_timeout: Duration,
    /// What to log, on stderr: error, warn, info, debug, or filters as in proxy_app=debug
    #[arg(long, env = "WEFT_PROXY_LOG", default_value = "info")]
    log: String,
}

/// Why options are there that are optional for clap.
const REQUIRED: &str = "clap lets nobody serve without it";

/// Ports between commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ports(Vec<u16>);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.await_ready {
        return ended(await_ready(arguments.admin_listen, arguments.await_timeout));
    }
    let filter = match arguments.log.parse::<tracing_subscriber::EnvFilter>() {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("weft-proxy: --log {:?} is no filter: {error}", arguments.log);
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let settings = Settings {
        workload: arguments.workload.expect(REQUIRED),
        control: arguments.control.expect(REQUIRED),
        trust_anchors: arguments.trust_anchors.expect(REQUIRED),
        token_file: arguments.token_file.expect(REQUIRED),
        trust_domain: arguments.trust_domain,
        outbound: arguments.outbound_listen,
        inbound: arguments.inbound_listen,
        admin: arguments.admin_listen,
        workers: arguments.workers.map_or_else(proxy_app::cpus::granted, usize::from),
        mark: arguments.mark,
        drain_timeout: arguments.drain_timeout,
        header_bytes: arguments.max_header_bytes as usize,
        access_log: arguments.access_log,
        access_log_target: arguments.access_log_file.map_or(Target::Stdout, Target::File),
        tcp_probe_ports: arguments.tcp_probe_ports.unwrap_or_default().0,
    };
    ended(proxy::run(settings).map_err(|error| format!("{error:#}")))
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A port alone means all addresses, of both families where there are two.
fn address(text: &str) -> Result<SocketAddr, String> {
    let form = || format!("{text:?} is not of the form PORT or ADDRESS:PORT");
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port)),
        Err(_) => text.parse().map_err(|_| form()),
    }
}

fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is no mark: a number up to 0xffffffff"))
}

/// None of an empty text, as a template writes it into the environment.
fn ports(text: &str) -> Result<Ports, String> {
    let ports = text.split(',').map(str::trim).filter(|port| !port.is_empty());
    let port = |port: &str| match port.parse() {
        Ok(0) | Err(_) => Err(format!("{port:?} is no port from 1 to 65535")),
        Ok(port) => Ok(port),
    };
    ports.map(port).collect::<Result<_, _>>().map(Ports)
}

/// A duration as Gateway API writes it (GEP-2257), in one unit.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|symbol: char| !symbol.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u32 = number.parse().map_err(|_| format!("{text:?} is no duration: 500ms, 30s, 2m, 1h"))?;
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return Err(format!("{text:?} has no unit: ms, s, m or h")),
    };
    Ok(unit * number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!(address("4240"), Ok("[::]:4240".parse().unwrap()));
        assert_eq!(address("127.0.0.1:1"), Ok("127.0.0.1:1".parse().unwrap()));
        assert!(address("localhost").is_err());
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("30").is_err() && duration("s").is_err() && duration("1d").is_err());
        assert_eq!(mark("0x10"), Ok(16));
        assert!(mark("x").is_err());
        assert_eq!(ports("5432, 6379,"), Ok(Ports(vec![5432, 6379])));
        assert_eq!(ports(""), Ok(Ports::default()));
        assert!(ports("0").is_err() && ports("1-2").is_err() && ports("x").is_err());
    }

    #[test]
    fn only_a_proxy_that_serves_must_know_whose_it_is() {
        assert!(Arguments::try_parse_from(["weft-proxy", "--await-ready"]).is_ok());
        let error = Arguments::try_parse_from(["weft-proxy"]).expect_err("nothing says whose proxy it is");
        assert_eq!(error.kind(), clap::error::ErrorKind::MissingRequiredArgument);
    }
}
