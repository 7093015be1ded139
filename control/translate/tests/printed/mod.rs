//! Answers as the golden files show them: a line a fact, in the words of `policy`.

use control_index::manifest::ParentRef;
use control_translate::{Condition, Entry};
use policy::{
    BackendSettings, BackendTls, Endpoint, Outbound, Routes, Rule, RuleTable, Set, Settings, Target,
    backend_tls::{Authorities, SubjectAltName},
    settings::{Abort, SessionKind},
};
use std::fmt::{Debug, Display};

/// A destination's policy: what it is, the matches in their order, then the rules.
pub fn outbound(policy: &Outbound) -> Vec<String> {
    let target = match &policy.target {
        Target::Service(backend) => format!("service {backend}"),
        Target::Workload(one) => format!("workload {}", endpoint(one)),
        Target::External => "external".into(),
    };
    let mut lines = vec![format!("{} {target}", policy.protocol)];
    lines.extend(settings(&policy.settings));
    lines.extend(backend(&policy.backend));
    match &policy.routes {
        Routes::None => {}
        Routes::Http(rules) => table("HTTP", rules, &mut lines),
        Routes::Grpc(rules) => table("calls", rules, &mut lines),
        Routes::Tls(rules) => {
            for one in rules {
                lines.push(format!("TLS [{}] -> {}", one.hostnames.join(", "), one.rule.source));
                lines.extend(rule(&one.rule));
            }
        }
        Routes::Tcp(one) => {
            lines.push(format!("TCP -> {}", one.source));
            lines.extend(rule(one));
        }
    }
    lines
}

pub fn endpoint(endpoint: &Endpoint) -> String {
    let workload = endpoint.workload.as_ref().map_or("unknown".into(), ToString::to_string);
    let identity = endpoint.identity.as_ref().map_or("unmeshed".into(), ToString::to_string);
    let tls = endpoint.tls.as_deref().map(|tls| format!(" {}", backend_tls(tls))).unwrap_or_default();
    format!("{} {workload} {identity}{tls}", endpoint.address)
}

/// Whom to expect, by how many authorities, and who says so.
fn backend_tls(tls: &BackendTls) -> String {
    let names = tls.alt_names.iter().map(|name| match name {
        SubjectAltName::Hostname(name) => format!(" or {name}"),
        SubjectAltName::Uri(uri) => format!(" or URI {uri}"),
    });
    let by = match &tls.authorities {
        Authorities::WellKnown => "well-known authorities".to_owned(),
        Authorities::Given(given) => {
            let lengths: Vec<String> = given.iter().map(|der| der.len().to_string()).collect();
            format!("authorities of [{}] bytes", lengths.join(", "))
        }
    };
    format!("TLS to {}{} by {by} ({})", tls.hostname, names.collect::<String>(), tls.by)
}

/// What is said of a route at a parent, or of a policy at a target: a line a condition.
pub fn status(entry: &Entry) -> Vec<String> {
    let ParentRef { kind, namespace, name, section_name, port, .. } = &entry.about;
    let mut about = format!("{} ", kind.as_deref().unwrap_or_default());
    about.extend(namespace.as_ref().map(|namespace| format!("{namespace}/")));
    about.push_str(name);
    about.extend(section_name.as_ref().map(|section| format!(" {section}")));
    about.extend(port.map(|port| format!(" {port}")));
    let line =
        |one: &Condition| format!("{about}: {}={} {}: {}", one.type_, one.word(), one.reason, one.message);
    entry.conditions.iter().map(line).collect()
}

fn table(protocol: &str, rules: &RuleTable, lines: &mut Vec<String>) {
    for (one, at) in rules.matches() {
        lines.push(format!("{protocol} {one} -> {}", rules.rules()[*at].source));
    }
    lines.extend(rules.rules().iter().flat_map(rule));
}

fn rule(rule: &Rule) -> Vec<String> {
    let mut lines = vec![format!("{}:", rule.source)];
    lines.extend(rule.filters.iter().map(|filter| format!("  {filter}")));
    for one in &rule.backends {
        lines.push(format!("  {} to {}", one.weight, one.backend));
        lines.extend(one.filters.iter().map(|filter| format!("    {filter}")));
        lines.extend(backend(&one.settings).into_iter().map(|line| format!("    {line}")));
    }
    lines.extend(settings(&rule.settings).into_iter().map(|line| format!("  {line}")));
    lines
}

fn settings(settings: &Settings) -> Vec<String> {
    let (timeouts, retry) = (&settings.timeouts, &settings.retry);
    let mut lines = Vec::new();
    debug(&mut lines, "timeouts.connect", &timeouts.connect);
    debug(&mut lines, "timeouts.request", &timeouts.request);
    debug(&mut lines, "timeouts.backendRequest", &timeouts.backend_request);
    debug(&mut lines, "timeouts.idle", &timeouts.idle);
    debug(&mut lines, "timeouts.streamIdle", &timeouts.stream_idle);
    debug(&mut lines, "timeouts.maxStreamDuration", &timeouts.max_stream_duration);
    debug(&mut lines, "retry.httpCodes", &retry.http_codes);
    debug(&mut lines, "retry.grpcCodes", &retry.grpc_codes);
    debug(&mut lines, "retry.reasons", &retry.reasons);
    debug(&mut lines, "retry.attempts", &retry.attempts);
    debug(&mut lines, "retry.perTryTimeout", &retry.per_try_timeout);
    debug(&mut lines, "retry.backoff.base", &retry.backoff_base);
    debug(&mut lines, "retry.backoff.max", &retry.backoff_max);
    debug(&mut lines, "retry.bodyLimit", &retry.body_limit);
    debug(&mut lines, "retry.otherHost", &retry.other_host);
    set(&mut lines, "hedge", &settings.hedge, |hedge| format!("{} more after {:?}", hedge.max, hedge.delay));
    set(&mut lines, "fault", &settings.fault, |fault| {
        let mut words: Vec<String> =
            fault.headers.iter().map(|one| format!("if {}={}", one.name, one.value)).collect();
        words.extend(fault.delay.map(|(time, share)| format!("{share} wait {time:?}")));
        words.extend(fault.abort.map(|(abort, share)| match abort {
            Abort::Http(status) => format!("{share} get {status}"),
            Abort::Grpc(status) => format!("{share} get gRPC {status}"),
        }));
        words.join(", ")
    });
    set(&mut lines, "directResponse", &settings.direct_response, |response| {
        format!("{} {:?}", response.status, response.body)
    });
    lines
}

fn backend(settings: &BackendSettings) -> Vec<String> {
    let mut lines = Vec::new();
    debug(&mut lines, "limits.maxConnections", &settings.limits.max_connections);
    debug(&mut lines, "limits.maxPendingRequests", &settings.limits.max_pending_requests);
    debug(&mut lines, "limits.maxRequests", &settings.limits.max_requests);
    set(&mut lines, "failureAccrual", &settings.accrual, |one| {
        format!(
            "{} failures, {:?} to {:?}, jitter {} bp, ejection {} %",
            one.max_failures, one.min_penalty, one.max_penalty, one.jitter, one.max_ejection
        )
    });
    set(&mut lines, "retryBudget", &settings.budget, |one| {
        format!("{} % of {:?}, {} in {:?}", one.percent, one.interval, one.min_count, one.min_interval)
    });
    set(&mut lines, "sessionPersistence", &settings.session, |one| {
        let kind = match one.kind {
            SessionKind::Cookie { permanent: true } => "permanent cookie",
            SessionKind::Cookie { permanent: false } => "cookie",
            SessionKind::Header => "header",
        };
        format!("{kind} {}, absolute {:?}, idle {:?}", one.name, one.absolute_timeout, one.idle_timeout)
    });
    lines
}

fn debug<T: Debug>(lines: &mut Vec<String>, name: &str, value: &Option<Set<T>>) {
    set(lines, name, value, |value| format!("{value:?}"));
}

fn set<T, D: Display>(lines: &mut Vec<String>, name: &str, set: &Option<Set<T>>, print: impl Fn(&T) -> D) {
    lines.extend(set.as_ref().map(|set| format!("{name} {} ({})", print(&set.value), set.by)));
}
