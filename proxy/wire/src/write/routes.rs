//! Routes: tables of matches and rules, and where the rules lead to.

use super::{filters::filters, settings};
use crate::v1;
use policy::{
    BackendRef, Match, PathMatch, Routes, Rule, RuleRef, RuleTable, TextMatch, TlsRule, ValueMatch,
    WeightedBackend,
};

pub(super) fn routes(routes: &Routes) -> Option<v1::outbound_policy::Routes> {
    use v1::outbound_policy::Routes as Wire;
    Some(match routes {
        Routes::None => return None,
        Routes::Http(rules) => Wire::Http(table(rules)),
        Routes::Grpc(rules) => Wire::Grpc(table(rules)),
        Routes::Tls(rules) => Wire::Tls(v1::TlsRules { rules: rules.iter().map(tls_rule).collect() }),
        Routes::Tcp(one) => Wire::Tcp(rule(one)),
    })
}

fn table(table: &RuleTable) -> v1::RuleTable {
    let matches = table.matches().iter().map(|(one, rule)| {
        // A message with so many rules would be refused for its size.
        let rule = u32::try_from(*rule).unwrap_or(u32::MAX);
        one_match(one, rule)
    });
    v1::RuleTable { matches: matches.collect(), rules: table.rules().iter().map(rule).collect() }
}

fn one_match(one: &Match, rule: u32) -> v1::Match {
    v1::Match {
        rule,
        path: Some(v1::PathMatch { kind: Some(path(&one.path)) }),
        method: one.method.as_deref().unwrap_or_default().into(),
        headers: value_matches(&one.headers),
        query: value_matches(&one.query),
    }
}

fn path(path: &PathMatch) -> v1::path_match::Kind {
    use v1::path_match::Kind;
    match path {
        PathMatch::Exact(path) => Kind::Exact(path.as_ref().into()),
        PathMatch::Prefix(prefix) => Kind::Prefix(prefix.as_ref().into()),
        PathMatch::Regex(pattern) => Kind::Regex(pattern.as_str().into()),
        PathMatch::Rpc { service, method } => Kind::Rpc(v1::Rpc {
            service: service.as_ref().map(text_match),
            method: method.as_ref().map(text_match),
        }),
    }
}

pub(super) fn value_matches(matches: &[ValueMatch]) -> Vec<v1::ValueMatch> {
    let one = |one: &ValueMatch| v1::ValueMatch {
        name: one.name.as_ref().into(),
        value: Some(text_match(&one.value)),
    };
    matches.iter().map(one).collect()
}

fn text_match(text: &TextMatch) -> v1::TextMatch {
    use v1::text_match::Kind;
    let kind = match text {
        TextMatch::Exact(text) => Kind::Exact(text.as_ref().into()),
        TextMatch::Regex(pattern) => Kind::Regex(pattern.as_str().into()),
    };
    v1::TextMatch { kind: Some(kind) }
}

fn tls_rule(one: &TlsRule) -> v1::TlsRule {
    v1::TlsRule {
        hostnames: one.hostnames.iter().map(ToString::to_string).collect(),
        rule: Some(rule(&one.rule)),
    }
}

fn rule(rule: &Rule) -> v1::Rule {
    v1::Rule {
        source: Some(rule_ref(&rule.source)),
        filters: filters(&rule.filters),
        backends: rule.backends.iter().map(weighted_backend).collect(),
        settings: settings::settings(&rule.settings),
    }
}

fn rule_ref(RuleRef { route, index, name }: &RuleRef) -> v1::RuleRef {
    v1::RuleRef {
        kind: route.kind.as_ref().into(),
        namespace: route.namespace.as_ref().into(),
        name: route.name.as_ref().into(),
        created: route.created,
        index: *index,
        rule: name.as_deref().unwrap_or_default().into(),
    }
}

fn weighted_backend(one: &WeightedBackend) -> v1::WeightedBackend {
    use v1::weighted_backend::Backend;
    v1::WeightedBackend {
        backend: Some(match &one.backend {
            BackendRef::Service(service) => Backend::Service(service.into()),
            BackendRef::Unresolved(why) => Backend::Unresolved(why.as_ref().into()),
        }),
        weight: one.weight,
        filters: filters(&one.filters),
        settings: settings::backend(&one.settings),
    }
}
