//! `data/<case>.in.yaml`: rules, and last a document of requests and connections. `data/<case>.out.yaml`: what is decided about each,
//! and why. `UPDATE=1` writes the answers anew; read the difference before committing it. The rules are written in a short form of
//! these tests' own; how Kubernetes' objects become rules is told by the tests of control-translate.

#![allow(clippy::disallowed_methods, reason = "UPDATE is read from the environment, and only by the test")]

use policy::{
    Action, BackendRef, Cors, Decision, Facts, Filter, Forward, HeaderEdit, Match, Origin, Outbound,
    PathEdit, PathMatch, Pattern, Protocol, Redirect, Rewrite, RouteRef, Routes, Rule, RuleRef, RuleTable,
    Set, Settings, Target, TextMatch, TlsRule, Trace, ValueMatch, WeightedBackend, path::split, route,
    route_connection, settings::DirectResponse,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    /// `HTTP`, `gRPC`, `TLS`, `TCP`; nothing: no routes.
    #[serde(default)]
    routes: String,
    #[serde(default)]
    rules: Vec<Written>,
    /// `service product.shop:80` (if not said), `external`.
    #[serde(default)]
    target: String,
    /// An answer of the destination's own policy.
    respond: Option<u16>,
    /// `GET /p?a=b x-user=beta`; `sni a.example`, `no sni`, `bytes`.
    ask: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    /// `shop/product`
    route: String,
    #[serde(default)]
    created: u64,
    #[serde(default)]
    index: u32,
    name: Option<String>,
    #[serde(default)]
    matches: Vec<WrittenMatch>,
    #[serde(default)]
    hostnames: Vec<String>,
    #[serde(default)]
    filters: Vec<WrittenFilter>,
    /// Answered so by a policy.
    respond: Option<u16>,
    /// By weight; `missing: …` is one that leads nowhere.
    #[serde(default)]
    backends: BTreeMap<String, u32>,
}

/// Texts that begin with `~` are regular expressions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMatch {
    path: Option<String>,
    prefix: Option<String>,
    /// `service/method`, `*` for any.
    rpc: Option<String>,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    query: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum WrittenFilter {
    /// Status, and what replaces the prefix.
    Redirect(u16, String),
    /// What replaces the prefix.
    Rewrite(String),
    Set(String, String),
    Cors(String),
}

#[derive(Serialize)]
struct Answer {
    ask: String,
    decision: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why: Vec<String>,
}

#[test]
fn every_case_is_decided_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let files = fs::read_dir(&folder).expect("the cases").map(|entry| entry.expect("a case").path());
    let mut cases: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".in.yaml")).collect();
    cases.sort();
    assert!(cases.len() >= 8, "cases are missing from {}", folder.display());
    for case in cases {
        let text = fs::read_to_string(&case).expect("a case");
        let read: Case =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let policy = read.policy();
        let answers: Vec<_> = read.ask.iter().map(|ask| answer(&policy, ask)).collect();
        let answers = serde_saphyr::to_string(&answers).expect("answers as YAML");
        let expected = case.to_string_lossy().replace(".in.yaml", ".out.yaml");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &answers).expect("the answers");
        }
        assert_eq!(answers, fs::read_to_string(&expected).unwrap_or_default(), "{}", case.display());
    }
}

fn answer(policy: &Outbound, ask: &str) -> Answer {
    let mut trace = Trace::default();
    let decision = match ask.split_once(' ') {
        None => said(&route_connection(policy, None, &mut trace), ""),
        Some(("no", _)) => said(&route_connection(policy, Some(None), &mut trace), ""),
        Some(("sni", name)) => said(&route_connection(policy, Some(Some(name)), &mut trace), ""),
        Some((method, rest)) => {
            let mut parts = rest.split(' ');
            let target = parts.next().expect("a target");
            let field = |text: &str| {
                let (name, value) = text.split_once('=').expect("name=value");
                (name.to_owned(), value.to_owned())
            };
            let fields: Vec<_> = parts.map(field).collect();
            let facts = Facts { method, target: target.as_bytes(), fields: &fields, grpc: false };
            said(&route(policy, &facts, &mut trace), target)
        }
    };
    let why = trace.considered.iter().map(|one| {
        let by = if one.by.is_empty() { String::new() } else { format!(" by {}", one.by) };
        let fared = one.lost.as_ref().map_or("it holds".into(), ToString::to_string);
        format!("{}{by}: {fared}", one.rule)
    });
    Answer { ask: ask.into(), decision, why: why.collect() }
}

fn said(decision: &Decision<'_>, target: &str) -> String {
    let path = split(target.as_bytes()).0;
    let path = std::str::from_utf8(path).expect("written as text");
    let backend = |one: &WeightedBackend| format!("{} {}", one.weight, one.backend);
    let action = match decision.action {
        Action::Forward(Forward::Split(backends)) => {
            backends.iter().map(backend).collect::<Vec<_>>().join(", ")
        }
        Action::Forward(Forward::Balanced(service, _)) => service.to_string(),
        Action::Forward(Forward::Endpoint(endpoint)) => endpoint.address.to_string(),
        Action::Forward(Forward::Original) => "where it was dialled".into(),
        Action::Redirect(redirect) => {
            let edit = redirect.path.as_ref().map(|edit| edit.apply(path.as_bytes(), decision.prefix));
            format!("{} to {}", redirect.status, edit.as_deref().unwrap_or(path))
        }
        Action::Preflight(cors) => format!("preflight, for {}", cors.allow_origins.join(" ")),
        Action::Respond(response) => format!("answer {}", response.status),
        Action::Refuse(reason) => format!("refuse: {reason}"),
    };
    let rule = decision.rule.map_or("no rule".into(), |rule| rule.source.to_string());
    let edits = decision.rule.iter().flat_map(|rule| &rule.filters).filter_map(|filter| match filter {
        Filter::Rewrite(Rewrite { path: Some(edit), .. }) => {
            Some(format!(", as {}", edit.apply(path.as_bytes(), decision.prefix)))
        }
        _ => None,
    });
    format!("{rule}: {action}{}", edits.collect::<String>())
}

impl Case {
    fn policy(&self) -> Outbound {
        let target = match self.target.as_str() {
            "" => Target::Service("product.shop:80".parse().expect("a port")),
            "external" => Target::External,
            other => Target::Service(other.parse().expect("a port")),
        };
        let kind = format!("{}Route", self.routes.to_uppercase());
        let table = || RuleTable::new(self.rules.iter().map(|one| (one.matches(), one.rule(&kind))));
        let tls = |one: &Written| TlsRule {
            hostnames: one.hostnames.iter().map(|name| name.as_str().into()).collect(),
            rule: one.rule(&kind),
        };
        let routes = match self.routes.as_str() {
            "" => Routes::None,
            "HTTP" => Routes::Http(table()),
            "gRPC" => Routes::Grpc(table()),
            "TLS" => Routes::Tls(self.rules.iter().map(tls).collect()),
            "TCP" => Routes::Tcp(Box::new(self.rules[0].rule(&kind))),
            other => panic!("{other} are no routes"),
        };
        Outbound { routes, settings: settings(self.respond), ..Outbound::new(target, Protocol::Auto) }
    }
}

fn settings(respond: Option<u16>) -> Settings {
    let by = Origin::new("TrafficPolicy", "shop", "answer");
    let response = respond.map(|status| Set::new(DirectResponse { status, body: "".into() }, &by));
    Settings { direct_response: response, ..Settings::default() }
}

impl Written {
    fn matches(&self) -> Vec<Match> {
        self.matches.iter().map(WrittenMatch::read).collect()
    }

    fn rule(&self, kind: &str) -> Rule {
        let (namespace, name) = self.route.split_once('/').expect("namespace/name");
        let (namespace, name) = (namespace.into(), name.into());
        let route = RouteRef { created: self.created, namespace, name, kind: kind.into() };
        let backends = self.backends.iter().map(|(name, weight)| WeightedBackend {
            backend: name
                .parse()
                .map_or_else(|_| BackendRef::Unresolved(name.as_str().into()), BackendRef::Service),
            weight: *weight,
            filters: Vec::new(),
            settings: Default::default(),
        });
        Rule {
            source: RuleRef { route, index: self.index, name: self.name.as_deref().map(Into::into) },
            filters: self.filters.iter().map(WrittenFilter::read).collect(),
            backends: backends.collect(),
            settings: settings(self.respond),
        }
    }
}

impl WrittenMatch {
    fn read(&self) -> Match {
        let values = |values: &BTreeMap<String, String>| {
            let one = |(name, value): (&String, &String)| ValueMatch {
                name: name.as_str().into(),
                value: text(value),
            };
            values.iter().map(one).collect()
        };
        let part = |part: &str| (part != "*").then(|| text(part));
        let path = match (&self.path, &self.prefix, &self.rpc) {
            (None, None, None) => PathMatch::default(),
            (Some(path), None, None) => match text(path) {
                TextMatch::Exact(path) => PathMatch::Exact(path),
                TextMatch::Regex(pattern) => PathMatch::Regex(pattern),
            },
            (None, Some(prefix), None) => PathMatch::Prefix(prefix.as_str().into()),
            (None, None, Some(rpc)) => {
                let (service, method) = rpc.split_once('/').expect("service/method");
                PathMatch::Rpc { service: part(service), method: part(method) }
            }
            _ => panic!("a match has one path"),
        };
        let method = self.method.as_deref().map(Into::into);
        Match { path, method, headers: values(&self.headers), query: values(&self.query) }
    }
}

fn text(written: &str) -> TextMatch {
    match written.strip_prefix('~') {
        Some(pattern) => TextMatch::Regex(Pattern::new(pattern).expect(pattern)),
        None => TextMatch::Exact(written.into()),
    }
}

impl WrittenFilter {
    fn read(&self) -> Filter {
        let prefix = |to: &str| Some(PathEdit::Prefix(to.into()));
        match self {
            Self::Redirect(status, to) => Filter::Redirect(Redirect {
                scheme: None,
                hostname: None,
                port: None,
                path: prefix(to),
                status: *status,
            }),
            Self::Rewrite(to) => Filter::Rewrite(Rewrite { hostname: None, path: prefix(to) }),
            Self::Set(name, value) => Filter::RequestHeaders(HeaderEdit {
                set: vec![(name.as_str().into(), value.as_str().into())],
                ..HeaderEdit::default()
            }),
            Self::Cors(origin) => {
                Filter::Cors(Cors { allow_origins: vec![origin.as_str().into()], ..Cors::default() })
            }
        }
    }
}
