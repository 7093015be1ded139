//! The rules of the routes that are attached to a destination, in the order in which they are tried.

use crate::{BackendSettings, Filter, Found, Match, PathMatch, ServicePort, Settings};
use std::{fmt, sync::Arc};

/// What was attached to a destination. One kind holds at a time: GRPCRoute before HTTPRoute before TLSRoute before TCPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Routes {
    /// Nothing: all of it goes where it was dialled.
    #[default]
    None,
    Http(RuleTable),
    Grpc(RuleTable),
    Tls(Vec<TlsRule>),
    Tcp(Box<Rule>),
}

/// Matches in the order of their precedence, each with its rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleTable {
    matches: Vec<(Match, usize)>,
    rules: Vec<Rule>,
}

/// One rule of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub source: RuleRef,
    pub filters: Vec<Filter>,
    pub backends: Vec<WeightedBackend>,
    pub settings: Settings,
}

/// Which rule it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleRef {
    pub route: RouteRef,
    /// Its place in the route, from 0.
    pub index: u32,
    pub name: Option<Arc<str>>,
}

/// Which route it is. The order is that of Gateway API: the older one first, then by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteRef {
    /// Seconds since the epoch; 0: not known.
    pub created: u64,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// `HTTPRoute`, `GRPCRoute`, `TLSRoute`, `TCPRoute`.
    pub kind: Arc<str>,
}

/// A backend of a rule, and its part of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedBackend {
    pub backend: BackendRef,
    pub weight: u32,
    pub filters: Vec<Filter>,
    pub settings: BackendSettings,
}

/// Where a rule leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendRef {
    Service(ServicePort),
    /// Nowhere, for this reason: its part of the requests fails.
    Unresolved(Arc<str>),
}

/// A rule for TLS connections, by the name that the client asks for (SNI).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsRule {
    /// Lower case; `*.` before a name stands for one label or more. Empty: any.
    pub hostnames: Vec<Arc<str>>,
    pub rule: Rule,
}

impl Routes {
    /// The rule at a place that [`crate::route()`] named.
    pub fn rule(&self, found: Found) -> Option<&Rule> {
        match self {
            Self::None => None,
            Self::Http(table) | Self::Grpc(table) => table.rules.get(found.rule),
            Self::Tls(rules) => rules.get(found.rule).map(|one| &one.rule),
            Self::Tcp(rule) => Some(rule),
        }
    }

    /// The path prefix of the match by which it was found, if it is one.
    pub fn prefix(&self, found: Found) -> Option<&str> {
        match self {
            Self::Http(table) | Self::Grpc(table) => match &table.matches.get(found.by?)?.0.path {
                PathMatch::Prefix(prefix) => Some(prefix),
                _ => None,
            },
            Self::None | Self::Tls(_) | Self::Tcp(_) => None,
        }
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Http(table) | Self::Grpc(table) => table.rules.len(),
            Self::Tls(rules) => rules.len(),
            Self::Tcp(_) => 1,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl RuleTable {
    /// The table of these rules, each with its matches in the order of the route. The order in which the rules are given does not
    /// matter. A rule without a match holds for everything.
    pub fn new(rules: impl IntoIterator<Item = (Vec<Match>, Rule)>) -> Self {
        let mut rules: Vec<(Vec<Match>, Rule)> = rules.into_iter().collect();
        rules.sort_by(|(_, one), (_, other)| one.source.cmp(&other.source));
        let mut table = Self::default();
        for (at, (matches, rule)) in rules.into_iter().enumerate() {
            match matches.is_empty() {
                true => table.matches.push((Match::default(), at)),
                false => table.matches.extend(matches.into_iter().map(|one| (one, at))),
            }
            table.rules.push(rule);
        }
        // Stable: what has the same precedence stays in the order of the routes, and within a route in its own.
        table.matches.sort_by_cached_key(|(one, _)| one.precedence());
        table
    }

    /// As they stood in another one: `matches` in order, each with the place of its rule. `None` when a place is none.
    pub fn from_parts(matches: Vec<(Match, usize)>, rules: Vec<Rule>) -> Option<Self> {
        matches.iter().all(|(_, rule)| *rule < rules.len()).then_some(Self { matches, rules })
    }

    /// Each match, the first one to be tried first, and the place of its rule.
    pub fn matches(&self) -> &[(Match, usize)] {
        &self.matches
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl TlsRule {
    /// How closely it names `sni`: `None` when it does not, else the length of the name that fits; a wildcard's is shorter than
    /// any name's that it stands for.
    pub fn fits(&self, sni: Option<&str>) -> Option<usize> {
        if self.hostnames.is_empty() {
            return Some(0);
        }
        let sni = sni?.to_ascii_lowercase();
        self.hostnames
            .iter()
            .filter(|name| match name.strip_prefix('*') {
                Some(rest) => sni.len() > rest.len() && sni.ends_with(rest),
                None => ***name == *sni,
            })
            .map(|name| name.len() * 2 - usize::from(name.starts_with('*')))
            .max()
    }
}

/// The backend that a request goes to, whose `draw` is any number, evenly drawn. `None` when no backend has a weight.
pub fn pick(backends: &[WeightedBackend], draw: u64) -> Option<usize> {
    let total: u64 = backends.iter().map(|one| u64::from(one.weight)).sum();
    let mut at = ((u128::from(draw) * u128::from(total)) >> 64) as u64;
    backends.iter().position(|one| {
        let weight = u64::from(one.weight);
        let here = at < weight;
        at = at.wrapping_sub(weight);
        here
    })
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} rule {name:?}", self.route),
            None => write!(f, "{} rules[{}]", self.route, self.index),
        }
    }
}

impl fmt::Display for RouteRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl fmt::Display for BackendRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "{service}"),
            Self::Unresolved(why) => write!(f, "nowhere: {why}"),
        }
    }
}
