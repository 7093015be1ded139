//! `weft-init`: the command line of the redirection. All it does is in the library.

use std::fmt::Display;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Error;
use clap::builder::FalseyValueParser;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use init::plan::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT, PROXY_UID, PlanError};
use init::{Choice, Ipv6, Plan, PortRange, apply, parse_list, print, prove, remove, verify};
use ipnet::IpNet;

/// Redirects the TCP connections of this network namespace to the Weft proxy.
///
/// Needs CAP_NET_ADMIN. Running it again, with the same or other options, replaces what is there. Exit codes: 0 done,
/// 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "weft-init", version, max_term_width = 100)]
struct Arguments {
    #[arg(value_enum, default_value_t = Action::Apply)]
    action: Action,
    /// Take everything out that weft-init ever put in
    #[arg(long, env = "WEFT_INIT_REMOVE", value_parser = FalseyValueParser::new())]
    remove: bool,
    /// Print the rules that would be installed, and change nothing
    #[arg(long, env = "WEFT_INIT_PRINT", value_parser = FalseyValueParser::new())]
    print: bool,
    /// What carries the rules: auto, nft (iptables over nf_tables), legacy (iptables), native (no program needed)
    #[arg(long, env = "WEFT_INIT_BACKEND", default_value = "auto")]
    backend: Choice,
    /// Connections of this uid are the proxy's own [default: 2140, unless a mark is given]
    #[arg(long, env = "WEFT_INIT_PROXY_UID", value_name = "UID")]
    proxy_uid: Option<u32>,
    /// Connections with this SO_MARK are the proxy's own (decimal, or 0x…); where only one uid exists
    #[arg(long, env = "WEFT_INIT_PROXY_MARK", value_name = "MARK", value_parser = parse_mark)]
    proxy_mark: Option<u32>,
    /// Port of the proxy for connections that leave
    #[arg(long, env = "WEFT_INIT_OUTBOUND_PORT", value_name = "PORT", default_value_t = OUTBOUND_PORT)]
    outbound_port: u16,
    /// Port of the proxy for connections that arrive
    #[arg(long, env = "WEFT_INIT_INBOUND_PORT", value_name = "PORT", default_value_t = INBOUND_PORT)]
    inbound_port: u16,
    /// Port of the proxy's admin server, reached directly
    #[arg(long, env = "WEFT_INIT_ADMIN_PORT", value_name = "PORT", default_value_t = ADMIN_PORT)]
    admin_port: u16,
    /// Arriving connections to these ports are left alone: 22,9000-9010
    #[arg(long, env = "WEFT_INIT_SKIP_INBOUND_PORTS", value_name = "PORTS")]
    skip_inbound_ports: Vec<List<PortRange>>,
    /// Leaving connections to these ports are left alone: 25,3306
    #[arg(long, env = "WEFT_INIT_SKIP_OUTBOUND_PORTS", value_name = "PORTS")]
    skip_outbound_ports: Vec<List<PortRange>>,
    /// Leaving connections to these networks are left alone: 10.0.0.0/8,fd00::/8
    #[arg(long, env = "WEFT_INIT_SKIP_OUTBOUND_SUBNETS", value_name = "SUBNETS")]
    skip_outbound_subnets: Vec<List<IpNet>>,
    /// Redirect IPv6: auto (when the namespace has it), on, off
    #[arg(long, env = "WEFT_INIT_IPV6", default_value = "auto")]
    ipv6: Ipv6,
    /// How long `prove` tries: 60s, 500ms
    #[arg(long, env = "WEFT_INIT_WAIT", default_value = "0s", value_parser = parse_duration)]
    wait: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Install the redirection
    Apply,
    /// Prove that it works, by a connection where one can be made; before the proxy starts
    Verify,
    /// Prove by a connection, without any capability, that another one has installed it: the CNI plugin
    Prove,
}

/// Values between commas.
#[derive(Debug, Clone)]
struct List<T>(Vec<T>);

impl<T: Clone> List<T> {
    fn flatten(lists: &[List<T>]) -> Vec<T> {
        lists.iter().flat_map(|list| list.0.iter().cloned()).collect()
    }
}

impl<T: FromStr<Err: Display>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<List<T>, String> {
        parse_list(text).map(List)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-init: {}", chain(&error));
            let is_usage = error.chain().any(|cause| cause.is::<PlanError>());
            ExitCode::from(if is_usage { 2 } else { 1 })
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let plan = arguments.plan();
    match (arguments.action, arguments.remove, arguments.print) {
        (Action::Apply, false, false) => say(&apply(&plan, arguments.backend)?.to_string()),
        (Action::Apply, true, false) => say(&remove(arguments.backend)?.to_string()),
        (Action::Apply, false, true) => print!("{}", print(&plan, arguments.backend)?),
        (Action::Verify, false, false) => {
            let report = verify(&plan, arguments.backend)?;
            say(&report.to_string());
            return Ok(ExitCode::from(u8::from(!report.holds())));
        }
        (Action::Prove, false, false) => {
            let proven = prove(&plan, arguments.wait)?;
            if proven.holds() {
                say(&proven.to_string());
                return Ok(ExitCode::SUCCESS);
            }
            // On stderr, and the end of the log: what a kubelet shows as the reason.
            proven.to_string().lines().for_each(|line| eprintln!("weft-init: {line}"));
            return Ok(ExitCode::FAILURE);
        }
        // Not said to clap, which takes a false value from the environment for a use of the flag.
        (_, true, _) | (_, _, true) => {
            let said = "only one of verify, prove, --remove and --print can be used";
            Arguments::command().error(ErrorKind::ArgumentConflict, said).exit();
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn plan(&self) -> Plan {
        // Where a mark is needed the default uid does not exist, and one exemption is enough.
        let default_uid = self.proxy_mark.is_none().then_some(PROXY_UID);
        Plan {
            proxy_uid: self.proxy_uid.or(default_uid),
            proxy_mark: self.proxy_mark,
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_port,
            admin_port: self.admin_port,
            skip_inbound_ports: List::flatten(&self.skip_inbound_ports),
            skip_outbound_ports: List::flatten(&self.skip_outbound_ports),
            skip_outbound_subnets: List::flatten(&self.skip_outbound_subnets),
            ipv6: self.ipv6,
        }
    }
}

fn say(lines: &str) {
    for line in lines.lines() {
        println!("weft-init: {line}");
    }
}

/// An error and its causes in one line.
fn chain(error: &Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => number.parse().map(Duration::from_millis),
        (None, Some(number)) => number.parse().map(Duration::from_secs),
        (None, None) => return Err("expected a number with its unit, ms or s".to_owned()),
    };
    parsed.map_err(|_| "expected a number with its unit, ms or s".to_owned())
}

fn parse_mark(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| "expected a number of 32 bits, decimal or 0x…".to_owned())
}
