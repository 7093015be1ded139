//! Proves that the redirection works: by a connection of its own where that can be made, and by reading the rules
//! back from the kernel. Says which of the two it was.
//!
//! Not here: putting the rules in force (`redirection.rs`).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::unistd::{Uid, geteuid, setfsuid};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::backend::Choice;
use crate::error::Error;
use crate::plan::{Chain, FAMILIES, Family, Hook, Packet, Plan, Verdict};
use crate::redirection::{Families, check_capability, differences, holders};

/// Longest time that all probes take together.
pub const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Nobody's uid: who the probe is when the caller is the proxy's uid. Two, as the proxy may be one of them.
const OTHER_UIDS: [u32; 2] = [65534, 65533];
/// Ports to which a probe goes, the first that the plan redirects.
const PROBE_PORTS: [u16; 4] = [80, 443, 8080, 9];

/// What was proven, of each family and direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub checks: Vec<Check>,
}

/// One direction of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub family: Family,
    pub hook: Hook,
    pub proof: Proof,
}

/// How well a direction is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A connection to this address arrived at the proxy's port, and `SO_ORIGINAL_DST` named the address.
    Probed(SocketAddr),
    /// The kernel holds exactly the rules of the plan; no connection was made, for this reason.
    ReadBack(String),
    /// It does not work, for these reasons.
    Failed(Vec<String>),
}

impl Report {
    /// Whether nothing failed.
    pub fn holds(&self) -> bool {
        !self.checks.iter().any(|check| matches!(check.proof, Proof::Failed(_)))
    }
}

/// Checks the plan in the network namespace of the calling thread, within `PROBE_LIMIT` for the probes.
pub fn verify(plan: &Plan, choice: Choice) -> Result<Report, Error> {
    plan.check()?;
    // Without it the rules cannot even be read.
    check_capability()?;
    let deadline = Instant::now() + PROBE_LIMIT;
    let families = Families::of(plan)?;
    let mut checks = Vec::new();
    for family in FAMILIES.into_iter().filter(|family| families.contains(*family)) {
        for chain in plan.chains(family) {
            let faults = faults(&chain, choice, family)?;
            let proof = match chain.hook {
                _ if !faults.is_empty() => Proof::Failed(faults),
                Hook::Output => against_rules(probe(plan, family, deadline)),
                Hook::Prerouting => {
                    Proof::ReadBack("a connection from outside cannot be made from within".to_owned())
                }
            };
            checks.push(Check { family, hook: chain.hook, proof });
        }
    }
    Ok(Report { checks })
}

/// What a probe has found where the kernel holds the rules of the plan.
fn against_rules(proof: Proof) -> Proof {
    let explain = |reason| {
        format!(
            "the rules are there, but {reason}; does a rule of another program decide first, or a firewall drop it?"
        )
    };
    match proof {
        Proof::Failed(reasons) => Proof::Failed(reasons.into_iter().map(explain).collect()),
        other => other,
    }
}

/// What the kernel's rules are short of.
fn faults(chain: &Chain, choice: Choice, family: Family) -> Result<Vec<String>, Error> {
    let backends = match choice {
        Choice::Auto => holders(family),
        Choice::This(backend) => vec![backend],
    };
    match backends.as_slice() {
        [] => Ok(vec!["no back end holds any rule of ours: run weft-init first".to_owned()]),
        [backend] => differences(chain, *backend, family),
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            Ok(vec![format!(
                "several back ends hold rules of ours ({}): run weft-init again",
                names.join(", ")
            )])
        }
    }
}

/// Connects as the application would, and looks who gets the connection.
pub(crate) fn probe(plan: &Plan, family: Family, deadline: Instant) -> Proof {
    let port = plan.outbound_port;
    let listener = match listen(family, port) {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            return Proof::ReadBack(format!(
                "port {port} is in use: a proxy runs already, and keeps what a probe sends"
            ));
        }
        Err(error) => return Proof::ReadBack(format!("port {port} cannot be listened on: {error}")),
    };
    let mut unreachable = Vec::new();
    for target in targets(plan, family, &networks()) {
        match connect(plan, target, deadline) {
            Ok(client) => return received(&listener, &client, target, deadline),
            Err(Refusal::Impossible(reason)) => return Proof::ReadBack(reason),
            Err(Refusal::Unreachable(error)) => unreachable.push(format!("{target}: {error}")),
            Err(Refusal::NotRedirected(error)) => {
                return Proof::Failed(vec![format!(
                    "a connection to {target} did not come to port {port}: {error}"
                )]);
            }
        }
    }
    match unreachable.is_empty() {
        true => Proof::ReadBack("the plan redirects no address that a probe could use".to_owned()),
        false => Proof::ReadBack(format!("no address outside has a route ({})", unreachable.join("; "))),
    }
}

/// Why a probe's connection was not made.
enum Refusal {
    /// No probe can be made at all.
    Impossible(String),
    /// This address has no route, another one may.
    Unreachable(io::Error),
    /// It was sent, and not to us.
    NotRedirected(io::Error),
}

fn listen(family: Family, port: u16) -> io::Result<Socket> {
    let (domain, address) = match family {
        Family::V4 => (Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        Family::V6 => (Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let listener = Socket::new(domain, Type::STREAM, None)?;
    if family == Family::V6 {
        listener.set_only_v6(true)?;
    }
    // Connections of the last probe may still be in TIME_WAIT; a listening proxy is in the way all the same.
    listener.set_reuse_address(true)?;
    listener.bind(&SocketAddr::new(address, port).into())?;
    listener.listen(16)?;
    Ok(listener)
}

fn connect(plan: &Plan, target: SocketAddr, deadline: Instant) -> Result<Socket, Refusal> {
    let made = as_other_uid(plan, || Socket::new(Domain::for_address(target), Type::STREAM, None))?;
    let client = made.map_err(|error| Refusal::Impossible(format!("no socket can be made: {error}")))?;
    match client.connect_timeout(&target.into(), remaining(deadline)) {
        Ok(()) => Ok(client),
        Err(error) => match error.raw_os_error() {
            Some(
                libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL | libc::EACCES | libc::EINVAL,
            ) => Err(Refusal::Unreachable(error)),
            _ => Err(Refusal::NotRedirected(error)),
        },
    }
}

/// Makes a socket that is not exempt: a socket belongs to the uid its thread has for files when it is made.
fn as_other_uid<T>(plan: &Plan, make: impl FnOnce() -> T) -> Result<T, Refusal> {
    let own = geteuid();
    if plan.proxy_uid != Some(own.as_raw()) {
        return Ok(make());
    }
    let other = OTHER_UIDS.into_iter().find(|uid| plan.proxy_uid != Some(*uid)).expect("two uids, one proxy");
    let other = Uid::from_raw(other);
    setfsuid(other);
    // The call has no error, but answers with the uid that was in force before it.
    let made = (setfsuid(other) == other).then(make);
    setfsuid(own);
    made.ok_or_else(|| {
        Refusal::Impossible(format!(
            "uid {own} is the proxy's, which is exempt, and cannot become another (CAP_SETUID)"
        ))
    })
}

/// The listener's side: whether the connection arrived, and under which name.
fn received(listener: &Socket, client: &Socket, target: SocketAddr, deadline: Instant) -> Proof {
    let arrived = (|| {
        let own = client.local_addr()?.as_socket();
        loop {
            // A timeout of zero would mean none.
            listener.set_read_timeout(Some(remaining(deadline)))?;
            let (accepted, peer) = listener.accept()?;
            if peer.as_socket() == own {
                break Ok(accepted);
            }
        }
    })();
    let accepted = match arrived {
        Ok(accepted) => accepted,
        Err(error) => {
            let error: io::Error = error;
            return Proof::Failed(vec![format!("somebody else answered a connection to {target}: {error}")]);
        }
    };
    // Ended by a reset, a connection leaves no TIME_WAIT on the port that the proxy is about to take.
    let _ = (client.set_linger(Some(Duration::ZERO)), accepted.set_linger(Some(Duration::ZERO)));
    let original = if target.is_ipv4() { accepted.original_dst_v4() } else { accepted.original_dst_v6() };
    match original.as_ref().map(SockAddr::as_socket) {
        Ok(Some(address)) if address == target => Proof::Probed(target),
        Ok(address) => {
            let named = address.map_or_else(|| "no address".to_owned(), |address| address.to_string());
            Proof::Failed(vec![format!("SO_ORIGINAL_DST names {named} for a connection to {target}")])
        }
        Err(error) => Proof::Failed(vec![format!(
            "a connection to {target} arrived, but SO_ORIGINAL_DST does not answer ({error}): \
             kernel module nf_conntrack is missing or does not track this connection"
        )]),
    }
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// Addresses that the plan redirects: those kept for documentation (RFC 5737, RFC 3849), which nobody has, and for a
/// namespace without a default route a neighbour's; it hears nothing when the redirection works.
pub(crate) fn targets(plan: &Plan, family: Family, networks: &[IpNet]) -> Vec<SocketAddr> {
    let documentation: [IpAddr; 3] = match family {
        Family::V4 => [[192, 0, 2, 1], [198, 51, 100, 1], [203, 0, 113, 1]].map(IpAddr::from),
        Family::V6 => [1, 2, 3].map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])),
    };
    // The first address of an IPv6 network means any of its routers (RFC 4291 §2.6.1).
    let is_neighbour = |net: &IpNet, host: IpAddr| {
        host != net.addr() && (host != net.network() || net.prefix_len() + 1 == net.max_prefix_len())
    };
    let neighbours = networks.iter().filter_map(|net| net.hosts().find(|host| is_neighbour(net, *host)));
    let addresses = documentation.into_iter().chain(neighbours).filter(|address| family.holds(*address));
    let [output, _] = plan.chains(family);
    let redirected = |destination: SocketAddr| {
        let uid = OTHER_UIDS.into_iter().find(|uid| plan.proxy_uid != Some(*uid)).unwrap_or_default();
        let verdict = output.verdict(&Packet { destination, uid, mark: 0, interface: "" });
        verdict == Verdict::Redirect(plan.outbound_port)
    };
    let ports = || PROBE_PORTS.into_iter().chain(1..=u16::MAX);
    let target =
        |address| ports().map(|port| SocketAddr::new(address, port)).find(|target| redirected(*target));
    addresses.filter_map(target).collect()
}

/// The networks of this namespace's interfaces, with the own address in each.
fn networks() -> Vec<IpNet> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let outside = interfaces.filter(|interface| {
        interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    outside
        .filter_map(|interface| {
            let (own, mask) = (address(interface.address?)?, address(interface.netmask?)?);
            IpNet::with_netmask(own, mask).ok()
        })
        // A link-local address says nothing without its interface.
        .filter(|net| !matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local()))
        .collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, check) in self.checks.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{check}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.hook == Hook::Output { "outbound" } else { "inbound" };
        write!(f, "{} {direction}: ", self.family)?;
        match &self.proof {
            Proof::Probed(target) => write!(
                f,
                "proven: a connection to {target} came to the proxy's port, and SO_ORIGINAL_DST named {target}"
            ),
            Proof::ReadBack(why) => write!(f, "the kernel holds the rules of the plan; not probed: {why}"),
            Proof::Failed(reasons) => write!(f, "FAILED: {}", reasons.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_go_where_the_plan_redirects() {
        let plan = Plan {
            skip_outbound_ports: vec![80.into(), "400-500".parse().unwrap()],
            skip_outbound_subnets: vec!["192.0.0.0/16".parse().unwrap(), "2001:db8::/126".parse().unwrap()],
            ..Plan::default()
        };
        let networks = ["10.1.0.1/30", "10.2.0.5/32", "fd00::2/64"].map(|net| net.parse().unwrap());
        let text =
            |family| targets(&plan, family, &networks).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(Family::V4), ["198.51.100.1:8080", "203.0.113.1:8080", "10.1.0.2:8080"]);
        assert_eq!(text(Family::V6), ["[fd00::1]:8080"]);
    }

    #[test]
    fn a_plan_that_redirects_nothing_leaves_nothing_to_probe() {
        let plan = Plan { skip_outbound_ports: vec!["1-65535".parse().unwrap()], ..Plan::default() };
        assert_eq!(targets(&plan, Family::V4, &[]), []);
    }
}
