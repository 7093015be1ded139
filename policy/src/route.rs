//! The decision: the only place where a rule, an answer and a way are chosen. It draws no lots: what is left to chance (a backend by
//! weight, a share of faults) is in the decision as data.

use crate::{
    BackendSettings, Cors, Endpoint, Facts, Filter, Match, Outbound, PathMatch, Reason, Redirect, Routes,
    Rule, RuleTable, ServicePort, Settings, Target, WeightedBackend,
    path::{normal, split},
    settings::DirectResponse,
    why::{Lost, Why},
};

/// What is to be done with a request or a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision<'a> {
    /// The rule that holds; `None`: there is none.
    pub rule: Option<&'a Rule>,
    /// Where it stands in [`Outbound::routes`].
    pub found: Option<Found>,
    pub action: Action<'a>,
    pub settings: &'a Settings,
    /// The path prefix that the rule was found by, for filters that replace it.
    pub prefix: Option<&'a str>,
}

/// The place of a rule, and of the match that found it where rules have some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    pub rule: usize,
    pub by: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action<'a> {
    Forward(Forward<'a>),
    Redirect(&'a Redirect),
    /// A question of a browser about what it may send (CORS), which the proxy answers.
    Preflight(&'a Cors),
    Respond(&'a DirectResponse),
    /// Nobody takes it, for this reason.
    Refuse(Reason),
}

/// Where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward<'a> {
    /// To an endpoint of one of these backends, by weight ([`crate::rule::pick`]).
    Split(&'a [WeightedBackend]),
    /// To an endpoint of this backend that the balancer picks.
    Balanced(&'a ServicePort, &'a BackendSettings),
    /// To exactly this endpoint.
    Endpoint(&'a Endpoint),
    /// To the address that the application dialled, in plaintext.
    Original,
}

/// Decides about a request.
pub fn route<'a>(policy: &'a Outbound, facts: &Facts<'_>, why: &mut impl Why) -> Decision<'a> {
    let table = match &policy.routes {
        Routes::Http(table) | Routes::Grpc(table) => table,
        Routes::Tcp(rule) => {
            why.holds(rule, None);
            return of_rule(rule, Found { rule: 0, by: None }, None, facts);
        }
        // TLS that carries requests is the application's own: these are none of the routes' business.
        Routes::None | Routes::Tls(_) => return unruled(policy),
    };
    match find(table, facts, why) {
        Some((by, rule)) => {
            let (found, place) = &table.matches()[by];
            let prefix = match &found.path {
                PathMatch::Prefix(prefix) => Some(&**prefix),
                _ => None,
            };
            of_rule(rule, Found { rule: *place, by: Some(by) }, prefix, facts)
        }
        None => nowhere(policy),
    }
}

/// Decides about a connection whose bytes are nobody's to read; `sni` is the name that a TLS client asks for, `None` for what is no TLS.
pub fn route_connection<'a>(
    policy: &'a Outbound,
    sni: Option<Option<&str>>,
    why: &mut impl Why,
) -> Decision<'a> {
    match (&policy.routes, sni) {
        (Routes::Tcp(rule), _) => {
            why.holds(rule, None);
            forward(rule, Found { rule: 0, by: None }, None)
        }
        (Routes::Tls(rules), Some(sni)) => {
            // Of equals the first: they stand in the order of their routes.
            let fits = rules.iter().enumerate().rev().filter_map(|(at, rule)| Some((rule.fits(sni)?, at)));
            let closest = fits.max_by_key(|(fit, _)| *fit).map(|(_, at)| at);
            for (at, one) in rules.iter().enumerate() {
                match one.fits(sni) {
                    _ if closest == Some(at) => why.holds(&one.rule, None),
                    Some(_) => why.lost(&one.rule, None, Lost::Precedence),
                    None => why.lost(&one.rule, None, Lost::Hostname),
                }
            }
            match closest {
                Some(at) => forward(&rules[at].rule, Found { rule: at, by: None }, None),
                None => nowhere(policy),
            }
        }
        // Bytes get no answer of HTTP.
        _ => undecided(policy, Action::Forward(dialled(policy))),
    }
}

/// The place of the first match that fits, and its rule.
fn find<'a>(table: &'a RuleTable, facts: &Facts<'_>, why: &mut impl Why) -> Option<(usize, &'a Rule)> {
    let (path, query) = split(facts.target);
    let path = normal(path);
    let asked = asked_method(facts);
    let mut found = None;
    for (by, (one, at)) in table.matches().iter().enumerate() {
        let rule = &table.rules()[*at];
        match unfit(one, &path, query, asked.as_deref().unwrap_or(facts.method), facts) {
            Some(lost) => why.lost(rule, Some(one), lost),
            None if found.is_some() => why.lost(rule, Some(one), Lost::Precedence),
            None => {
                why.holds(rule, Some(one));
                found = Some((by, rule));
                if !why.wants_all() {
                    break;
                }
            }
        }
    }
    found
}

/// Why a match does not fit.
fn unfit(one: &Match, path: &[u8], query: Option<&[u8]>, method: &str, facts: &Facts<'_>) -> Option<Lost> {
    if !one.path.fits(path) {
        return Some(Lost::Path);
    }
    if one.method.as_ref().is_some_and(|wanted| **wanted != *method) {
        return Some(Lost::Method);
    }
    for header in &one.headers {
        let value = facts.fields.value(&header.name);
        if !value.is_some_and(|value| header.value.fits(&value)) {
            return Some(Lost::Header(header.name.clone()));
        }
    }
    for parameter in &one.query {
        let value = query.and_then(|query| parameter_of(query, &parameter.name));
        if !value.is_some_and(|value| parameter.value.fits(&value)) {
            return Some(Lost::Query(parameter.name.clone()));
        }
    }
    None
}

/// A preflight is decided as the request that it asks about (Fetch standard, CORS-preflight request).
fn asked_method<'f>(facts: &Facts<'f>) -> Option<std::borrow::Cow<'f, str>> {
    if !is_preflight(facts) {
        return None;
    }
    let asked = facts.fields.value("access-control-request-method")?;
    Some(String::from_utf8_lossy(&asked).into_owned().into())
}

fn is_preflight(facts: &Facts<'_>) -> bool {
    facts.method == "OPTIONS"
        && facts.fields.value("origin").is_some()
        && facts.fields.value("access-control-request-method").is_some()
}

/// The first value of a parameter (application/x-www-form-urlencoded), decoded.
fn parameter_of(query: &[u8], name: &str) -> Option<Vec<u8>> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let value = pair.get(at + 1..).unwrap_or_default();
        (form_decoded(&pair[..at]) == name.as_bytes()).then(|| form_decoded(value))
    })
}

fn form_decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_encoding::percent_decode(&spaced).collect()
}

/// What a rule makes of a request.
fn of_rule<'a>(rule: &'a Rule, found: Found, prefix: Option<&'a str>, facts: &Facts<'_>) -> Decision<'a> {
    let decided = forward(rule, found, prefix);
    for filter in &rule.filters {
        match filter {
            Filter::Cors(cors) if is_preflight(facts) => {
                return Decision { action: Action::Preflight(cors), ..decided };
            }
            Filter::Redirect(redirect) => return Decision { action: Action::Redirect(redirect), ..decided },
            _ => {}
        }
    }
    match &rule.settings.direct_response {
        Some(response) => Decision { action: Action::Respond(&response.value), ..decided },
        None => decided,
    }
}

fn forward<'a>(rule: &'a Rule, found: Found, prefix: Option<&'a str>) -> Decision<'a> {
    let weightless = rule.backends.iter().all(|one| one.weight == 0);
    let action = match weightless {
        // HTTPRouteRule.backendRefs: such requests get a 500.
        true => Action::Refuse(Reason::ProxyConfigurationError),
        false => Action::Forward(Forward::Split(&rule.backends)),
    };
    Decision { rule: Some(rule), found: Some(found), action, settings: &rule.settings, prefix }
}

/// Without a rule it goes where it was dialled.
fn unruled(policy: &Outbound) -> Decision<'_> {
    let action = match &policy.settings.direct_response {
        Some(response) => Action::Respond(&response.value),
        None => Action::Forward(dialled(policy)),
    };
    undecided(policy, action)
}

fn dialled(policy: &Outbound) -> Forward<'_> {
    match &policy.target {
        Target::Service(backend) => Forward::Balanced(backend, &policy.backend),
        Target::Workload(endpoint) => Forward::Endpoint(endpoint),
        Target::External => Forward::Original,
    }
}

/// There are rules, and none is for it.
fn nowhere(policy: &Outbound) -> Decision<'_> {
    undecided(policy, Action::Refuse(Reason::DestinationNotFound))
}

/// What is done without a rule.
fn undecided<'a>(policy: &'a Outbound, action: Action<'a>) -> Decision<'a> {
    Decision { rule: None, found: None, action, settings: &policy.settings, prefix: None }
}
