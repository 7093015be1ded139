//! TrafficPolicies and BackendPolicies: which of them are attached where, and what holds when several say something.
//!
//! Per field (of a TrafficPolicy) or group of fields (of a BackendPolicy) the most specific policy wins: rule, route, port of
//! the Service, Service, Namespace of the Service. Of two at one place the older one wins, then the first by name. What an
//! HTTPRoute says itself wins over all of them, and XBackendTrafficPolicy over BackendPolicy where both say the same.

use crate::{rules::origin, sessions};
use api::{AccrualMode, BackendPolicySpec, TrafficPolicySpec};
use control_index::{Index, Key, Kind, Policy, PolicySpec, Port, Service};
use policy::{
    BackendRef, BackendSettings, Origin, Rule, ServicePort, Set, Settings, TextMatch, ValueMatch,
    filter::Share,
    form::is_token,
    settings::{Abort, DirectResponse, FailureAccrual, Fault, Hedge, Limits, RetryBudget},
};
use std::sync::Arc;

/// Policies of one kind by their precedence, the first one first.
struct Layers<'a, S>(Vec<(&'a S, Origin)>);

/// Adds to a rule what policies say about it; `port` is the one that was dialled, and `route` the route of the rule.
pub(crate) fn govern(index: &Index, service: &Service, port: &Port, route: &Key, rule: &mut Rule) {
    let mut places: Vec<(Key, Option<&str>)> = Vec::new();
    places.extend(rule.source.name.as_deref().map(|name| (route.clone(), Some(name))));
    places.push((route.clone(), None));
    let around = places.len();
    places.extend(of_port(service, port));
    traffic(index, &places).fill(&mut rule.settings);
    places.truncate(around);
    for backend in &mut rule.backends {
        if let BackendRef::Service(to) = &backend.backend {
            fill_backend(index, &places, to, &rule.source, &mut backend.settings);
        }
    }
}

/// What holds for a Service's port where no rule does.
pub(crate) fn of_destination(index: &Index, backend: &ServicePort) -> (Settings, BackendSettings) {
    let (mut settings, mut held) = (Settings::default(), BackendSettings::default());
    let found = index.service(&backend.service);
    let Some((service, port)) = found.and_then(|service| Some((service, service.port(backend.port)?))) else {
        return (settings, held);
    };
    traffic(index, &of_port(service, port)).fill(&mut settings);
    fill_backend(index, &[], backend, backend, &mut held);
    (settings, held)
}

/// The policies of a kind at a place (an object, or a part of it), by their precedence.
pub(crate) fn attached<'a>(
    index: &'a Index,
    kind: Kind,
    place: &Key,
    section: Option<&str>,
) -> Vec<&'a Policy> {
    let here = |policy: &&Policy| {
        policy.key.kind == kind
            && !policy.invalid
            && breaches(policy).is_empty()
            // A Namespace is governed from within.
            && (place.kind != Kind::Namespace || policy.key.namespace == place.name)
            && policy.targets().iter().any(|one| one.object == *place && one.section.as_deref() == section)
    };
    let mut found: Vec<&Policy> = index.policies_on(place).filter(here).collect();
    found.sort_by(|one, other| (&one.created, &one.key).cmp(&(&other.created, &other.key)));
    found
}

/// What makes a policy one that is left out, besides the rules of its schema: fields, and what is wrong with them.
pub(crate) fn breaches(policy: &Policy) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut session = |session: &Option<api::SessionPersistence>| {
        if let Some(name) = session.as_ref().and_then(sessions::misnamed) {
            let what = format!("{name:?} is no name of a cookie or a header field");
            found.push(("spec.sessionPersistence.sessionName".into(), what));
        }
    };
    match &policy.spec {
        PolicySpec::Traffic(spec) => {
            for (at, word) in spec.retry.iter().flat_map(|retry| retry.reasons.iter().enumerate()) {
                if policy::Reason::of(word).is_none() {
                    let what = format!("{word:?} is no reason; weft explain reason lists them all");
                    found.push((format!("spec.retry.reasons[{at}]"), what));
                }
            }
            for (at, header) in spec.fault.iter().flat_map(|fault| fault.headers.iter().enumerate()) {
                if !is_token(&header.name) {
                    let what = format!("{:?} is no name of a header field", header.name);
                    found.push((format!("spec.fault.headers[{at}].name"), what));
                }
            }
        }
        PolicySpec::Backend(spec) => session(&spec.session_persistence),
        PolicySpec::XBackendTraffic(spec) => {
            session(&spec.session_persistence);
            let budget = spec.retry_constraint.as_ref().map(|constraint| constraint.budget());
            if budget.as_ref().and_then(|budget| budget.percent).is_some_and(|percent| percent > 100) {
                found.push(("spec.retryConstraint.budget.percent".into(), "it must be 0 to 100".into()));
            }
            let rate = budget.as_ref().and_then(|budget| budget.min_retry_rate.as_ref());
            for (field, time) in [
                ("budget.interval", budget.as_ref().and_then(|budget| budget.interval)),
                ("minRetryRate.interval", rate.and_then(|rate| rate.interval)),
            ] {
                if time.is_some_and(|time| time.0.is_zero()) {
                    found.push((format!("spec.retryConstraint.{field}"), "it may not be 0s".into()));
                }
            }
        }
        PolicySpec::BackendTls(_) => {}
    }
    found
}

/// The port of a Service, the Service and its Namespace.
fn of_port<'p>(service: &Service, port: &'p Port) -> Vec<(Key, Option<&'p str>)> {
    let key = Key::new(Kind::Service, &service.name.namespace, &service.name.name);
    vec![
        (key.clone(), Some(port.name.as_str())),
        (key, None),
        (Key::new(Kind::Namespace, "", &service.name.namespace), None),
    ]
}

fn traffic<'a>(index: &'a Index, places: &[(Key, Option<&str>)]) -> Layers<'a, TrafficPolicySpec> {
    let policies =
        places.iter().flat_map(|(place, section)| attached(index, Kind::TrafficPolicy, place, *section));
    let spec = |policy: &'a Policy| match &policy.spec {
        PolicySpec::Traffic(spec) => Some((&**spec, origin(&policy.key))),
        _ => None,
    };
    Layers(policies.filter_map(spec).collect())
}

/// What policies say about a backend; `around` are the rule and the route that lead to it.
fn fill_backend(
    index: &Index,
    around: &[(Key, Option<&str>)],
    backend: &ServicePort,
    of: &impl std::fmt::Display,
    settings: &mut BackendSettings,
) {
    let found = index.service(&backend.service);
    let Some((service, port)) = found.and_then(|service| Some((service, service.port(backend.port)?))) else {
        return;
    };
    let key = Key::new(Kind::Service, &service.name.namespace, &service.name.name);
    for policy in attached(index, Kind::XBackendTrafficPolicy, &key, None) {
        let PolicySpec::XBackendTraffic(spec) = &policy.spec else { continue };
        let by = origin(&policy.key);
        if let (None, Some(constraint)) = (&settings.budget, &spec.retry_constraint) {
            settings.budget = Some(Set::new(budget(&constraint.budget()), &by));
        }
        if let (None, Some(session)) = (&settings.session, &spec.session_persistence) {
            settings.session = Some(Set::new(sessions::read(session, of), &by));
        }
    }
    let places = around.iter().cloned().chain(of_port(service, port));
    let policies = places.flat_map(|(place, section)| attached(index, Kind::BackendPolicy, &place, section));
    let spec = |policy: &'_ Policy| match &policy.spec {
        PolicySpec::Backend(spec) => Some((Arc::clone(spec), origin(&policy.key))),
        _ => None,
    };
    let specs: Vec<(Arc<BackendPolicySpec>, Origin)> = policies.filter_map(spec).collect();
    Layers(specs.iter().map(|(spec, by)| (&**spec, by.clone())).collect()).fill(settings, of);
}

impl<S> Layers<'_, S> {
    /// What the first of them that says something says.
    fn pick<T>(&self, field: impl Fn(&S) -> Option<T>) -> Option<Set<T>> {
        self.0.iter().find_map(|(spec, by)| Some(Set::new(field(spec)?, by)))
    }

    /// The same for a field that nobody has set yet.
    fn set<T>(&self, held: &mut Option<Set<T>>, field: impl Fn(&S) -> Option<T>) {
        if held.is_none() {
            *held = self.pick(field);
        }
    }
}

impl Layers<'_, TrafficPolicySpec> {
    fn fill(&self, settings: &mut Settings) {
        let timeouts = &mut settings.timeouts;
        let time = |time: Option<api::Duration>| time.map(|time| time.0);
        self.set(&mut timeouts.connect, |spec| time(spec.timeouts.as_ref()?.connect));
        self.set(&mut timeouts.request, |spec| time(spec.timeouts.as_ref()?.request));
        self.set(&mut timeouts.backend_request, |spec| time(spec.timeouts.as_ref()?.backend_request));
        self.set(&mut timeouts.idle, |spec| time(spec.timeouts.as_ref()?.idle));
        self.set(&mut timeouts.stream_idle, |spec| time(spec.timeouts.as_ref()?.stream_idle));
        self.set(&mut timeouts.max_stream_duration, |spec| time(spec.timeouts.as_ref()?.max_stream_duration));
        self.fill_retry(settings);
        self.set(&mut settings.hedge, |spec| spec.hedge.as_ref().map(hedge));
        self.set(&mut settings.fault, |spec| spec.fault.as_ref().map(fault));
        self.set(&mut settings.direct_response, |spec| spec.direct_response.as_ref().map(direct_response));
    }

    fn fill_retry(&self, settings: &mut Settings) {
        let retry = &mut settings.retry;
        let time = |time: Option<api::Duration>| time.map(|time| time.0);
        self.set(&mut retry.http_codes, |spec| listed(&spec.retry.as_ref()?.http_codes, |code| *code));
        self.set(&mut retry.grpc_codes, |spec| {
            listed(&spec.retry.as_ref()?.grpc_codes, |code| u16::from(code.number()))
        });
        self.set(&mut retry.reasons, |spec| {
            let words = &spec.retry.as_ref()?.reasons;
            let reasons = words.iter().filter_map(|word| policy::Reason::of(word));
            (!words.is_empty()).then(|| reasons.collect())
        });
        self.set(&mut retry.attempts, |spec| spec.retry.as_ref()?.attempts.map(u32::from));
        self.set(&mut retry.per_try_timeout, |spec| time(spec.retry.as_ref()?.per_try_timeout));
        self.set(&mut retry.backoff_base, |spec| time(spec.retry.as_ref()?.backoff.as_ref()?.base));
        self.set(&mut retry.backoff_max, |spec| time(spec.retry.as_ref()?.backoff.as_ref()?.max));
        self.set(&mut retry.body_limit, |spec| spec.retry.as_ref()?.body_limit.map(|size| size.bytes));
        self.set(&mut retry.other_host, |spec| spec.retry.as_ref()?.other_host);
    }
}

impl Layers<'_, BackendPolicySpec> {
    fn fill(&self, settings: &mut BackendSettings, of: &impl std::fmt::Display) {
        if let Some(Set { value, by }) = self.pick(|spec| spec.limits.clone()) {
            let set = |limit: Option<u32>| limit.map(|limit| Set::new(limit, &by));
            settings.limits = Limits {
                max_connections: set(value.max_connections),
                max_pending_requests: set(value.max_pending_requests),
                max_requests: set(value.max_requests),
            };
        }
        self.set(&mut settings.accrual, |spec| spec.failure_accrual.as_ref().map(accrual));
        // A policy that wants no breaker is the one that is heard, and there is none.
        settings.accrual.take_if(|set| set.value.max_failures == 0);
        self.set(&mut settings.session, |spec| {
            spec.session_persistence.as_ref().map(|session| sessions::read(session, of))
        });
        self.set(&mut settings.budget, |spec| spec.retry_budget.as_ref().map(budget));
    }
}

fn listed<T, U>(list: &[T], read: impl Fn(&T) -> U) -> Option<Vec<U>> {
    (!list.is_empty()).then(|| list.iter().map(read).collect())
}

fn hedge(hedge: &api::Hedge) -> Hedge {
    Hedge { delay: hedge.delay.0, max: hedge.max.map_or(1, u32::from) }
}

fn fault(fault: &api::Fault) -> Fault {
    let header = |header: &api::HeaderValue| ValueMatch {
        name: header.name.to_ascii_lowercase().into(),
        value: TextMatch::Exact(header.value.as_str().into()),
    };
    let abort = |abort: &api::Abort| {
        let kind = match (abort.http_status, abort.grpc_status) {
            (Some(status), _) => Abort::Http(status),
            (None, Some(code)) => Abort::Grpc(code.number().into()),
            (None, None) => return None,
        };
        Some((kind, share(abort.percent)))
    };
    Fault {
        headers: fault.headers.iter().map(header).collect(),
        delay: fault.delay.as_ref().map(|delay| (delay.duration.0, share(delay.percent))),
        abort: fault.abort.as_ref().and_then(abort),
    }
}

/// To the hundredth of a percent.
fn share(percent: Option<api::Percent>) -> Share {
    percent
        .map_or(Share::ALL, |percent| Share { numerator: percent.hundredths().into(), denominator: 10_000 })
}

fn direct_response(response: &api::DirectResponse) -> DirectResponse {
    DirectResponse { status: response.status, body: response.body.as_deref().unwrap_or_default().into() }
}

/// One that nobody wants never fails often enough: it has no failures to count to.
fn accrual(accrual: &api::FailureAccrual) -> FailureAccrual {
    let default = FailureAccrual::default();
    if accrual.mode == Some(AccrualMode::None) {
        return FailureAccrual { max_failures: 0, ..default };
    }
    FailureAccrual {
        max_failures: accrual.max_failures.unwrap_or(default.max_failures),
        min_penalty: accrual.min_penalty.map_or(default.min_penalty, |time| time.0),
        max_penalty: accrual.max_penalty.map_or(default.max_penalty, |time| time.0),
        jitter: accrual.jitter_ratio.map_or(default.jitter, |percent| percent.hundredths().into()),
        max_ejection: accrual.max_ejection_percent.map_or(default.max_ejection, u32::from),
    }
}

fn budget(budget: &api::RetryBudget) -> RetryBudget {
    let default = RetryBudget::default();
    let least = budget.min_retry_rate.as_ref();
    RetryBudget {
        percent: budget.percent.map_or(default.percent, u32::from),
        interval: budget.interval.map_or(default.interval, |time| time.0),
        min_count: least.and_then(|rate| rate.count).unwrap_or(default.min_count),
        min_interval: least.and_then(|rate| rate.interval).map_or(default.min_interval, |time| time.0),
    }
}
