//! One route: its rules in the form in which requests are decided about, and what is wrong with those that are left out.
//! What policies say about them, `policies` adds.

use crate::{
    backends::{self, Scope},
    filters::{self, Level},
    findings::{ConditionReason, Effect, Finding, Notes},
    matches, sessions,
};
use control_index::{Index, Key, Route, RouteSpec, manifest};
use policy::{
    BackendRef, BackendSettings, Match, Origin, RouteRef, Rule, RuleRef, Set, Settings, WeightedBackend,
    form::is_hostname_pattern,
};
use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

/// What was read of a route.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Those that hold, each with its matches; a rule of a TLSRoute or TCPRoute has none.
    pub list: Vec<(Vec<Match>, Rule)>,
    pub findings: Vec<Finding>,
    /// Nothing of the route holds, because of this.
    pub refused: Option<Finding>,
}

/// Reads a route.
pub(crate) fn read(index: &Index, route: &Route) -> Rules {
    let scope = Scope { index, kind: route.key.kind, namespace: &route.key.namespace };
    let source = source(route);
    let mut findings = Vec::new();
    let all: Vec<(Vec<Match>, Rule)> = match &route.spec {
        RouteSpec::Http(spec) => {
            each(&or_default(&spec.rules), &source, |source, rule| http(scope, source, rule, &mut findings))
        }
        RouteSpec::Grpc(spec) => {
            each(&spec.rules, &source, |source, rule| grpc(scope, source, rule, &mut findings))
        }
        RouteSpec::Tls(spec) => {
            findings.extend(misnamed(&spec.hostnames));
            each(&spec.rules, &source, |source, rule| bytes(scope, source, rule, &mut findings))
        }
        RouteSpec::Tcp(spec) => {
            each(&spec.rules, &source, |source, rule| bytes(scope, source, rule, &mut findings))
        }
    };
    let refused = refused(&findings, all.len());
    let left_out = left_out(&findings);
    let holds = |rule: &Rule| refused.is_none() && !left_out.contains(&(rule.source.index as usize));
    let list = all.into_iter().filter(|(_, rule)| holds(rule)).collect();
    Rules { list, findings, refused }
}

/// The route as decisions name it.
pub(crate) fn source(route: &Route) -> RouteRef {
    RouteRef {
        created: crate::time::seconds(&route.created),
        namespace: Arc::clone(&route.key.namespace),
        name: Arc::clone(&route.key.name),
        kind: route.key.kind.as_str().into(),
    }
}

/// The object that set something.
pub(crate) fn origin(key: &Key) -> Origin {
    Origin::new(key.kind.as_str(), &key.namespace, &key.name)
}

/// The places of the rules that are left out.
fn left_out(findings: &[Finding]) -> BTreeSet<usize> {
    let rule = |finding: &Finding| match finding.effect {
        Effect::Dropped(rule, _) => Some(rule),
        _ => None,
    };
    findings.iter().filter_map(rule).collect()
}

/// Hostnames that are none.
fn misnamed(hostnames: &[String]) -> impl Iterator<Item = Finding> {
    let misnamed =
        hostnames.iter().enumerate().filter(|(_, name)| !is_hostname_pattern(&name.to_ascii_lowercase()));
    misnamed.map(|(at, name)| Finding {
        field: format!("spec.hostnames[{at}]"),
        what: format!("{name:?} is no hostname, nor *. before one"),
        effect: Effect::Rejected(ConditionReason::UnsupportedValue),
    })
}

/// A value that is not known refuses the route; rules that make no sense do when there are no others.
fn refused(findings: &[Finding], rules: usize) -> Option<Finding> {
    let rejected = findings.iter().find(|finding| matches!(finding.effect, Effect::Rejected(_)));
    let dropped = || findings.iter().find(|finding| matches!(finding.effect, Effect::Dropped(..)));
    rejected.or_else(|| dropped().filter(|_| left_out(findings).len() == rules)).cloned()
}

/// The schema's default, which nobody sets in a directory.
fn or_default(rules: &[manifest::HttpRule]) -> Cow<'_, [manifest::HttpRule]> {
    match rules {
        [] => Cow::Owned(vec![manifest::HttpRule::default()]),
        rules => Cow::Borrowed(rules),
    }
}

fn each<R: Named, T>(rules: &[R], route: &RouteRef, mut read: impl FnMut(RuleRef, &R) -> T) -> Vec<T> {
    let source = |at: usize, rule: &R| RuleRef {
        route: route.clone(),
        index: at as u32,
        name: rule.name().map(Arc::from),
    };
    rules.iter().enumerate().map(|(at, rule)| read(source(at, rule), rule)).collect()
}

fn http(
    scope: Scope<'_>,
    source: RuleRef,
    rule: &manifest::HttpRule,
    findings: &mut Vec<Finding>,
) -> (Vec<Match>, Rule) {
    let by = Origin::new(&source.route.kind, &source.route.namespace, &source.route.name);
    let mut notes = Notes::of_rule(source.index as usize, findings);
    let matches = matches::http(&rule.matches, &mut notes);
    let level =
        Level::Rule { prefixes: matches::are_prefixes(&matches), backends: !rule.backend_refs.is_empty() };
    let filters = filters::read(scope, &rule.filters, level, &mut notes);
    let mut settings = Settings::default();
    if let Some(timeouts) = &rule.timeouts {
        set_timeouts(timeouts, &by, &mut settings, &mut notes.at("timeouts"));
    }
    if let Some(retry) = &rule.retry {
        set_retry(retry, &by, &mut settings, &mut notes.at("retry"));
    }
    let mut backends = backends::weighted(scope, &rule.backend_refs, &mut notes);
    if let Some(session) = &rule.session_persistence {
        keep_sessions(session, &source, &by, &mut backends, &mut notes);
    }
    (matches, assemble(source, filters, backends, settings))
}

fn grpc(
    scope: Scope<'_>,
    source: RuleRef,
    rule: &manifest::GrpcRule,
    findings: &mut Vec<Finding>,
) -> (Vec<Match>, Rule) {
    let by = Origin::new(&source.route.kind, &source.route.namespace, &source.route.name);
    let mut notes = Notes::of_rule(source.index as usize, findings);
    let matches = matches::grpc(&rule.matches, &mut notes);
    let level = Level::Rule { prefixes: false, backends: !rule.backend_refs.is_empty() };
    let filters = filters::read(scope, &rule.filters, level, &mut notes);
    let mut backends = backends::weighted(scope, &rule.backend_refs, &mut notes);
    if let Some(session) = &rule.session_persistence {
        keep_sessions(session, &source, &by, &mut backends, &mut notes);
    }
    (matches, assemble(source, filters, backends, Settings::default()))
}

fn bytes(
    scope: Scope<'_>,
    source: RuleRef,
    rule: &manifest::Rule,
    findings: &mut Vec<Finding>,
) -> (Vec<Match>, Rule) {
    let mut notes = Notes::of_rule(source.index as usize, findings);
    let backends = backends::weighted(scope, &rule.backend_refs, &mut notes);
    (Vec::new(), assemble(source, filters::Filters::default(), backends, Settings::default()))
}

/// A rule with a filter that cannot be applied does nothing else than to fail (HTTPRouteFilter.type).
fn assemble(
    source: RuleRef,
    filters: filters::Filters,
    backends: Vec<WeightedBackend>,
    settings: Settings,
) -> Rule {
    let Some(why) = filters.broken else {
        return Rule { source, filters: filters.list, backends, settings };
    };
    let nowhere = WeightedBackend {
        backend: BackendRef::Unresolved(why.into()),
        weight: 1,
        filters: Vec::new(),
        settings: BackendSettings::default(),
    };
    Rule { source, filters: Vec::new(), backends: vec![nowhere], settings: Settings::default() }
}

fn set_timeouts(
    timeouts: &manifest::HttpTimeouts,
    by: &Origin,
    settings: &mut Settings,
    notes: &mut Notes<'_>,
) {
    let set = |time: Option<api::Duration>| time.map(|time| Set::new(time.0, by));
    settings.timeouts.request = set(timeouts.request);
    settings.timeouts.backend_request = set(timeouts.backend_request);
    let (Some(all), Some(one)) = (timeouts.request, timeouts.backend_request) else { return };
    if !all.0.is_zero() && one > all {
        let what = format!("{one} is longer than the {all} of all attempts (timeouts.request)");
        notes.at("backendRequest").refuse(ConditionReason::UnsupportedValue, what);
    }
}

fn set_retry(retry: &manifest::HttpRetry, by: &Origin, settings: &mut Settings, notes: &mut Notes<'_>) {
    for (at, code) in retry.codes.iter().enumerate().filter(|(_, code)| !(400..=599).contains(*code)) {
        let what = format!("{code} is no status to send a request again for (400-599)");
        notes.at(format_args!("codes[{at}]")).refuse(ConditionReason::UnsupportedValue, what);
    }
    let attempts = retry.attempts.map(u32::try_from);
    if let Some(Err(_)) = attempts {
        notes.at("attempts").refuse(ConditionReason::UnsupportedValue, "it is no number of attempts");
    }
    // Who asks for it at all asks for one more attempt.
    let attempts = attempts.and_then(Result::ok).or_else(|| retry.codes.is_empty().then_some(1));
    let settings = &mut settings.retry;
    settings.http_codes = (!retry.codes.is_empty()).then(|| Set::new(retry.codes.clone(), by));
    settings.attempts = attempts.map(|attempts| Set::new(attempts, by));
    settings.backoff_base = retry.backoff.map(|time| Set::new(time.0, by));
}

/// What a rule says of sessions holds for all of its backends (GEP-1619).
fn keep_sessions(
    session: &api::SessionPersistence,
    source: &RuleRef,
    by: &Origin,
    backends: &mut [WeightedBackend],
    notes: &mut Notes<'_>,
) {
    if let Some(name) = sessions::misnamed(session) {
        let what = format!("{name:?} is no name of a cookie or a header field");
        notes.at("sessionPersistence.sessionName").refuse(ConditionReason::UnsupportedValue, what);
    }
    let session = sessions::read(session, source);
    for backend in backends {
        backend.settings.session = Some(Set::new(session.clone(), by));
    }
}

trait Named {
    fn name(&self) -> Option<&str>;
}

impl Named for manifest::HttpRule {
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl Named for manifest::GrpcRule {
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl Named for manifest::Rule {
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}
