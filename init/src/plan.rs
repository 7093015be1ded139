//! The redirection as data: which TCP connections of a network namespace go to the proxy, in which order that is
//! decided, and a way to ask the rules about a packet without a kernel.
//!
//! Pure. Not here: any syntax (`iptables.rs`, `nftables.rs`), and anything that touches the host (`host.rs`,
//! `tool.rs`, `netlink.rs`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The uid the proxy runs as.
pub const PROXY_UID: u32 = 2140;
/// Where the proxy takes connections that the application makes.
pub const OUTBOUND_PORT: u16 = 4240;
/// Where the proxy takes connections made to the application.
pub const INBOUND_PORT: u16 = 4243;
/// Where the proxy answers `/metrics`, `/ready` and the like.
pub const ADMIN_PORT: u16 = 4291;

/// What is redirected in one network namespace, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Connections of this uid are never redirected: it is the proxy.
    pub proxy_uid: Option<u32>,
    /// Connections with this `SO_MARK` are never redirected. For user namespaces in which a single uid exists, so
    /// that the uid cannot tell the proxy from the application.
    pub proxy_mark: Option<u32>,
    /// Port of the proxy to which the application's outgoing connections go.
    pub outbound_port: u16,
    /// Port of the proxy to which incoming connections go.
    pub inbound_port: u16,
    /// Port of the proxy's admin server; reached directly from outside, as the two ports above are.
    pub admin_port: u16,
    /// Incoming connections to these ports go straight to the application.
    pub skip_inbound_ports: Vec<PortRange>,
    /// Outgoing connections to these ports go straight out.
    pub skip_outbound_ports: Vec<PortRange>,
    /// Outgoing connections to these networks go straight out; each is used in its own address family.
    pub skip_outbound_subnets: Vec<IpNet>,
    /// Whether IPv6 is redirected as well.
    pub ipv6: Ipv6,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            proxy_uid: Some(PROXY_UID),
            proxy_mark: None,
            outbound_port: OUTBOUND_PORT,
            inbound_port: INBOUND_PORT,
            admin_port: ADMIN_PORT,
            skip_inbound_ports: Vec::new(),
            skip_outbound_ports: Vec::new(),
            skip_outbound_subnets: Vec::new(),
            ipv6: Ipv6::Auto,
        }
    }
}

/// Whether IPv6 is redirected as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ipv6 {
    /// When the namespace has it.
    #[default]
    Auto,
    /// Always; it is an error when the kernel has no IPv6.
    On,
    /// Never: IPv6 bypasses the proxy.
    Off,
}

/// An address family, each with rules of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

/// Both families, in the order in which they are applied.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Where the kernel runs a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// The first packet of a connection that a local process makes.
    Output,
    /// The first packet of a connection that arrives by an interface.
    Prerouting,
}

/// An ordered list of rules; the first rule that matches decides, and without one the connection is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub hook: Hook,
    pub rules: Vec<Rule>,
}

/// One rule about TCP connections: when all of `matches` hold, `verdict` is the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub verdict: Verdict,
}

/// One question about the first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// It leaves by this interface.
    OutInterface(&'static str),
    /// It came in by this interface.
    InInterface(&'static str),
    /// The socket belongs to this uid.
    Uid(u32),
    /// The packet carries exactly this mark.
    Mark(u32),
    /// It goes to this network.
    Destination(IpNet),
    /// It goes to one of these TCP ports.
    Port(PortRange),
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes where it wanted to go.
    Return,
    /// It goes to this port of this host, and `SO_ORIGINAL_DST` tells where it wanted to go.
    Redirect(u16),
}

/// TCP ports `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// The first packet of a connection, as far as rules ask about it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    pub destination: SocketAddr,
    /// Uid of the socket; meaningless in `Hook::Prerouting`.
    pub uid: u32,
    /// 0 when there is none.
    pub mark: u32,
    /// The interface by which it leaves (`Hook::Output`) or came in (`Hook::Prerouting`).
    pub interface: &'a str,
}

/// A plan that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(
        "neither a proxy uid nor a proxy mark is given: the proxy's own connections would come back to it for ever"
    )]
    NoExemption,
    #[error("a proxy mark of 0 is what every unmarked packet carries: choose another")]
    ZeroMark,
    #[error("port 0 cannot be listened on: give the proxy's outbound, inbound and admin ports")]
    ZeroPort,
    #[error("the proxy's outbound, inbound and admin ports must differ, but {0} is given twice")]
    SamePort(u16),
}

impl Plan {
    /// Says what is wrong with this plan; every way of applying it asks first.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.proxy_uid.is_none() && self.proxy_mark.is_none() {
            return Err(PlanError::NoExemption);
        }
        if self.proxy_mark == Some(0) {
            return Err(PlanError::ZeroMark);
        }
        let [outbound, inbound, admin] = self.proxy_ports();
        if [outbound, inbound, admin].contains(&0) {
            return Err(PlanError::ZeroPort);
        }
        if outbound == inbound || outbound == admin {
            return Err(PlanError::SamePort(outbound));
        }
        if inbound == admin {
            return Err(PlanError::SamePort(inbound));
        }
        Ok(())
    }

    /// The rules of one family: what leaves, then what arrives.
    pub fn chains(&self, family: Family) -> [Chain; 2] {
        [self.output(family), self.prerouting()]
    }

    fn output(&self, family: Family) -> Chain {
        let mut rules = Vec::new();
        // The proxy first: without this its connections would return to it.
        rules.extend(self.proxy_uid.map(|uid| Rule::returns(Match::Uid(uid))));
        rules.extend(self.proxy_mark.map(|mark| Rule::returns(Match::Mark(mark))));
        // What a pod says to itself stays in it. The interface alone would do, were there no `route_localnet`.
        // A pod's own service address is not routed by `lo`, hence redirected as any service is.
        rules.push(Rule::returns(Match::OutInterface("lo")));
        rules.push(Rule::returns(Match::Destination(family.loopback())));
        rules.extend(self.skip_outbound_ports.iter().map(|ports| Rule::returns(Match::Port(*ports))));
        let subnets = self.skip_outbound_subnets.iter().filter(|net| family.holds(net.addr()));
        rules.extend(subnets.map(|net| Rule::returns(Match::Destination(net.trunc()))));
        rules.push(Rule { matches: Vec::new(), verdict: Verdict::Redirect(self.outbound_port) });
        Chain { hook: Hook::Output, rules }
    }

    fn prerouting(&self) -> Chain {
        let mut rules = vec![Rule::returns(Match::InInterface("lo"))];
        // The proxy's own ports: redirected, a connection to the inbound port would have itself as its original
        // destination, and the admin server could not be scraped.
        rules.extend(self.proxy_ports().map(|port| Rule::returns(Match::Port(port.into()))));
        rules.extend(self.skip_inbound_ports.iter().map(|ports| Rule::returns(Match::Port(*ports))));
        rules.push(Rule { matches: Vec::new(), verdict: Verdict::Redirect(self.inbound_port) });
        Chain { hook: Hook::Prerouting, rules }
    }

    fn proxy_ports(&self) -> [u16; 3] {
        [self.outbound_port, self.inbound_port, self.admin_port]
    }
}

impl Chain {
    /// What these rules do with a connection; says what the kernel will say.
    pub fn verdict(&self, packet: &Packet<'_>) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.matches.iter().all(|m| m.holds(self.hook, packet)));
        rule.map_or(Verdict::Return, |rule| rule.verdict)
    }
}

impl Rule {
    fn returns(condition: Match) -> Rule {
        Rule { matches: vec![condition], verdict: Verdict::Return }
    }
}

impl Match {
    fn holds(&self, hook: Hook, packet: &Packet<'_>) -> bool {
        match *self {
            Match::OutInterface(name) => hook == Hook::Output && packet.interface == name,
            Match::InInterface(name) => hook == Hook::Prerouting && packet.interface == name,
            Match::Uid(uid) => hook == Hook::Output && packet.uid == uid,
            Match::Mark(mark) => packet.mark == mark,
            Match::Destination(net) => net.contains(&packet.destination.ip()),
            Match::Port(ports) => ports.contains(packet.destination.port()),
        }
    }
}

impl Family {
    /// The addresses by which a host speaks to itself.
    pub fn loopback(self) -> IpNet {
        match self {
            Family::V4 => Ipv4Net::new_assert([127, 0, 0, 0].into(), 8).into(),
            Family::V6 => Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128).into(),
        }
    }

    /// Whether the address is of this family.
    pub fn holds(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Family::V4)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

impl FromStr for Ipv6 {
    type Err = String;

    fn from_str(text: &str) -> Result<Ipv6, String> {
        match text {
            "auto" => Ok(Ipv6::Auto),
            "on" => Ok(Ipv6::On),
            "off" => Ok(Ipv6::Off),
            _ => Err("expected auto, on or off".to_owned()),
        }
    }
}

impl PortRange {
    /// Ports `first..=last`; none when they are the wrong way round, or begin at 0, which is no port.
    pub fn new(first: u16, last: u16) -> Option<PortRange> {
        (first != 0 && first <= last).then_some(PortRange { first, last })
    }

    pub fn first(self) -> u16 {
        self.first
    }

    pub fn last(self) -> u16 {
        self.last
    }

    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> PortRange {
        PortRange { first: port, last: port }
    }
}

impl FromStr for PortRange {
    type Err = String;

    /// `80`, or a range as `8000-8100`.
    fn from_str(text: &str) -> Result<PortRange, String> {
        let port =
            |text: &str| text.parse::<u16>().map_err(|_| format!("`{text}` is no port from 1 to 65535"));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        PortRange::new(first, last)
            .ok_or_else(|| "expected ports from 1 to 65535, the lower one first".to_owned())
    }
}

/// Values between commas, as options and annotations hold them; none of an empty text, as a template writes it.
pub fn parse_list<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<Vec<T>, String> {
    let values = text.split(',').map(str::trim).filter(|value| !value.is_empty());
    values.map(|value| value.parse().map_err(|error| format!("`{value}`: {error}"))).collect()
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests;
