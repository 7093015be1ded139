//! Routes: tables of matches and rules, and where the rules lead to.

use super::{each, filters, option, settings, text, within};
use crate::{Malformed, Problem, v1};
use policy::{
    BackendRef, Match, PathMatch, Pattern, RouteRef, Routes, Rule, RuleRef, RuleTable, ServicePort,
    TextMatch, TlsRule, ValueMatch, WeightedBackend,
};

pub(super) fn routes(routes: Option<&v1::outbound_policy::Routes>) -> Result<Routes, Malformed> {
    use v1::outbound_policy::Routes as Wire;
    Ok(match routes {
        None => Routes::None,
        Some(Wire::Http(rules)) => Routes::Http(within("http", table(rules))?),
        Some(Wire::Grpc(rules)) => Routes::Grpc(within("grpc", table(rules))?),
        Some(Wire::Tls(rules)) => Routes::Tls(within("tls", each("rules", &rules.rules, tls_rule))?),
        Some(Wire::Tcp(one)) => Routes::Tcp(within("tcp", rule(one))?.into()),
    })
}

/// The order of the matches is control's: it is not judged here.
fn table(table: &v1::RuleTable) -> Result<RuleTable, Malformed> {
    let rules = each("rules", &table.rules, rule)?;
    let matches = each("matches", &table.matches, |message| {
        let none = || Malformed::new("rule", Problem::Place(message.rule, rules.len()));
        let rule = usize::try_from(message.rule).ok().filter(|at| *at < rules.len()).ok_or_else(none)?;
        Ok((one_match(message)?, rule))
    })?;
    Ok(RuleTable::from_parts(matches, rules).expect("the place of each rule was looked at"))
}

fn one_match(message: &v1::Match) -> Result<Match, Malformed> {
    let path = message.path.as_ref().and_then(|path| path.kind.as_ref());
    let path = path.ok_or_else(|| Malformed::new("path", Problem::Missing))?;
    let method = match message.method.as_str() {
        "" => None,
        method => Some(text::token("method", method)?),
    };
    let parameter = |one: &v1::ValueMatch| value_match(one, text::present);
    Ok(Match {
        path: within("path", path_match(path))?,
        method,
        headers: each("headers", &message.headers, field_match)?,
        query: each("query", &message.query, parameter)?,
    })
}

fn path_match(path: &v1::path_match::Kind) -> Result<PathMatch, Malformed> {
    use v1::path_match::Kind;
    Ok(match path {
        Kind::Exact(path) => PathMatch::Exact(text::path("exact", path)?),
        Kind::Prefix(path) => PathMatch::Prefix(text::path("prefix", path)?),
        Kind::Regex(text) => PathMatch::Regex(pattern("regex", text)?),
        Kind::Rpc(v1::Rpc { service, method }) => PathMatch::Rpc {
            service: option("rpc.service", service.as_ref(), text_match)?,
            method: option("rpc.method", method.as_ref(), text_match)?,
        },
    })
}

/// What the field of a head must be.
pub(super) fn field_match(message: &v1::ValueMatch) -> Result<ValueMatch, Malformed> {
    value_match(message, text::field_name)
}

fn value_match(
    message: &v1::ValueMatch,
    name: impl Fn(&str, &str) -> Result<std::sync::Arc<str>, Malformed>,
) -> Result<ValueMatch, Malformed> {
    let value = message.value.as_ref().ok_or_else(|| Malformed::new("value", Problem::Missing))?;
    Ok(ValueMatch { name: name("name", &message.name)?, value: within("value", text_match(value))? })
}

fn text_match(message: &v1::TextMatch) -> Result<TextMatch, Malformed> {
    use v1::text_match::Kind;
    Ok(match message.kind.as_ref() {
        None => return Err(Malformed::new("kind", Problem::Missing)),
        Some(Kind::Exact(text)) => TextMatch::Exact(text.as_str().into()),
        Some(Kind::Regex(text)) => TextMatch::Regex(pattern("regex", text)?),
    })
}

fn pattern(field: &str, text: &str) -> Result<Pattern, Malformed> {
    Pattern::new(text)
        .map_err(|error| Malformed::new(field, Problem::Pattern(Problem::quote(&error.to_string()))))
}

fn tls_rule(message: &v1::TlsRule) -> Result<TlsRule, Malformed> {
    let one = message.rule.as_ref().ok_or_else(|| Malformed::new("rule", Problem::Missing))?;
    let name = |(at, name): (usize, &String)| text::hostname_pattern(&format!("hostnames[{at}]"), name);
    let hostnames = message.hostnames.iter().enumerate().map(name).collect::<Result<_, _>>()?;
    Ok(TlsRule { hostnames, rule: within("rule", rule(one))? })
}

fn rule(message: &v1::Rule) -> Result<Rule, Malformed> {
    let source = message.source.as_ref().ok_or_else(|| Malformed::new("source", Problem::Missing))?;
    Ok(Rule {
        source: within("source", rule_ref(source))?,
        filters: each("filters", &message.filters, filters::filter)?,
        backends: each("backends", &message.backends, weighted_backend)?,
        settings: within("settings", settings::settings(message.settings.as_ref()))?,
    })
}

fn rule_ref(message: &v1::RuleRef) -> Result<RuleRef, Malformed> {
    let route = RouteRef {
        created: message.created,
        namespace: text::present("namespace", &message.namespace)?,
        name: text::present("name", &message.name)?,
        kind: text::present("kind", &message.kind)?,
    };
    let name = (!message.rule.is_empty()).then(|| message.rule.as_str().into());
    Ok(RuleRef { route, index: message.index, name })
}

fn weighted_backend(message: &v1::WeightedBackend) -> Result<WeightedBackend, Malformed> {
    use v1::weighted_backend::Backend;
    let backend = match message.backend.as_ref() {
        None => return Err(Malformed::new("backend", Problem::Missing)),
        Some(Backend::Service(service)) => service_ref(service)?,
        Some(Backend::Unresolved(why)) => BackendRef::Unresolved(why.as_str().into()),
    };
    Ok(WeightedBackend {
        backend,
        weight: message.weight,
        filters: each("filters", &message.filters, filters::filter)?,
        settings: within("settings", settings::backend(message.settings.as_ref()))?,
    })
}

pub(super) fn service_ref(service: &v1::Backend) -> Result<BackendRef, Malformed> {
    Ok(BackendRef::Service(within("service", ServicePort::try_from(service))?))
}
