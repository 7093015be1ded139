//! Rules of `http` as HTTPRoutes, GRPCRoutes and TrafficPolicies: which rules stand in which route, how many fit into one,
//! and which policy is attached to which of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::object::Object;
use crate::output::{GATEWAY, Output, object as compact};
use crate::virtual_service::Draft;
use crate::virtual_service::action::{Action, Destination, PathRewrite};
use crate::virtual_service::matches::{Match, Path, PathKind};
use crate::virtual_service::order::{Matches, Placed, mend};
use crate::virtual_service::scope::{Holding, Scope};
use crate::world::{Host, World, dns_label};

/// How many rules a route may have, how many matches a rule, and how many all rules of a route.
const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 64;
const MAX_ALL_MATCHES: usize = 127;
/// How many targets a policy may have.
const MAX_TARGETS: usize = 16;

/// Targets of policies that say the same, by namespace and by the place of the rule.
type Policies = BTreeMap<(String, usize, String), (Map<String, Value>, Vec<Value>)>;

/// A rule as it is written.
struct Written {
    name: String,
    matches: Vec<Match>,
    rewrite: Option<Value>,
    /// Its place among the rules of the VirtualService.
    draft: usize,
}

/// Writes the routes for `http`, and their policies.
pub(crate) fn write(
    world: &World<'_>,
    object: &Object,
    holding: &Holding<'_>,
    drafts: &[Draft<'_>],
    output: &mut Output,
) {
    if drafts.is_empty() {
        return;
    }
    let candidates: Vec<_> = drafts.iter().flat_map(|draft| &draft.candidates).collect();
    let needs_port = drafts.iter().any(|draft| follows_port(world, object, &draft.action));
    let mut policies = Policies::new();
    let mut written = BTreeSet::new();
    for scope in holding.scopes(world, &candidates, needs_port) {
        let mut matches: Vec<Matches<'_>> = drafts
            .iter()
            .map(|draft| {
                let here = draft.candidates.iter().filter(|candidate| scope.takes(candidate));
                here.map(|candidate| Placed {
                    matched: candidate.matched.clone(),
                    own: candidate.matched.clone(),
                    node: candidate.node,
                })
                .collect()
            })
            .collect();
        mend(&mut matches);
        let mut rules: Vec<Written> =
            matches.into_iter().enumerate().flat_map(|(at, matches)| split(drafts, at, matches)).collect();
        make_unique(&mut rules);
        let as_grpc = scope.is_grpc && rules.iter().all(|rule| is_grpc(rule, &drafts[rule.draft].action));
        if scope.is_grpc && !as_grpc {
            holding.rules.note(
                "a GRPCRoute cannot say all of it: an HTTPRoute is written, which does not hold beside a GRPCRoute",
                "see that no GRPCRoute has the same parent",
            );
        }
        written.extend(rules.iter().map(|rule| rule.draft));
        let route = Route { world, object, scope: &scope, drafts, as_grpc };
        route.write(rules, output, &mut policies);
    }
    for (_, draft) in drafts.iter().enumerate().filter(|(at, _)| !written.contains(at)) {
        draft.node.note("no request reaches this rule: left out", "delete it");
    }
    for ((namespace, place, _), (policy, targets)) in policies {
        let name = format!("{}-{}", object.name, rule_name(drafts, place));
        for targets in targets.chunks(MAX_TARGETS) {
            let mut spec = policy.clone();
            spec.insert("targetRefs".into(), targets.into());
            output.add(object, "TrafficPolicy", &namespace, &name, spec.into());
        }
    }
}

/// Whether a request goes on to the port that it was sent to, of several.
fn follows_port(world: &World<'_>, object: &Object, action: &Action<'_>) -> bool {
    let backends = action.backends.iter().map(|backend| &backend.destination);
    let mirrors = action.mirrors.iter().map(|mirror| &mirror.destination);
    backends.chain(mirrors).filter(|destination| destination.port.is_none()).any(|destination| {
        let Host::Service(service) = world.host(&destination.host, &object.namespace) else { return false };
        world.services.get(&service).is_some_and(|service| service.only_port().is_none())
    })
}

/// Rules of a route have names of their own.
fn make_unique(rules: &mut [Written]) {
    let mut seen = BTreeSet::new();
    for rule in rules {
        let base = rule.name.clone();
        for number in 2.. {
            if seen.insert(rule.name.clone()) {
                break;
            }
            rule.name = format!("{base}-{number}");
        }
    }
}

fn rule_name(drafts: &[Draft<'_>], at: usize) -> String {
    let name = drafts[at].name.as_deref().map(dns_label).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| format!("rule-{}", at + 1))
}

/// A rule as one or several: each has as many matches as may be, and a path that is rewritten by its prefix has one.
fn split(drafts: &[Draft<'_>], at: usize, matches: Matches<'_>) -> Vec<Written> {
    let mut groups: Vec<(Option<Value>, Vec<Match>)> = Vec::new();
    for placed in matches {
        let rewrite = &drafts[at].action.rewrite_path;
        let (rewrite, matched) = match rewrite {
            Some(rewrite) => match rewritten(rewrite, &placed) {
                Some((path, matched)) => (Some(path), matched),
                None => continue,
            },
            None => (None, placed.matched),
        };
        let is_single = rewrite.as_ref().is_some_and(|path| path["type"] == "ReplacePrefixMatch");
        match groups.last_mut() {
            Some((last, matches)) if *last == rewrite && !is_single && matches.len() < MAX_MATCHES => {
                matches.push(matched);
            }
            _ => groups.push((rewrite, vec![matched])),
        }
    }
    let name = rule_name(drafts, at);
    groups
        .into_iter()
        .map(|(rewrite, matches)| Written { name: name.clone(), matches, rewrite, draft: at })
        .collect()
}

/// What the path of a request that `placed` takes becomes, and the match for which that is so. Istio replaces the prefix
/// that was matched, or all of the path where that was matched otherwise.
fn rewritten(rewrite: &PathRewrite<'_>, placed: &Placed<'_>) -> Option<(Value, Match)> {
    let full = |path: String| json!({"type": "ReplaceFullPath", "replaceFullPath": path});
    let mut matched = placed.matched.clone();
    let own = match &placed.own.path {
        Some(Path { kind: PathKind::Prefix, value }) => value.as_str(),
        None => "",
        Some(_) => return Some((full(rewrite.uri.clone()), matched)),
    };
    // What is matched more closely than the rule asks for keeps what stands after the prefix.
    let below = |path: &str| match (rewrite.uri.trim_end_matches('/'), &path[own.len()..]) {
        (_, "") => rewrite.uri.clone(),
        (uri, rest) => format!("{uri}{rest}"),
    };
    match &matched.path {
        Some(Path { kind: PathKind::Exact, value }) => {
            let path = full(below(value));
            Some((path, matched))
        }
        Some(Path { kind: PathKind::RegularExpression, .. }) => {
            rewrite.node.drop(
                "requests that match a regular expression of a later rule keep their path: no prefix of it is known",
                "put the rule with the regular expression first",
            );
            None
        }
        Some(Path { kind: PathKind::Prefix, value }) => {
            let path = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": below(value)});
            Some((path, matched))
        }
        None => {
            matched.path = Some(Path { kind: PathKind::Prefix, value: "/".to_owned() });
            Some((json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": rewrite.uri}), matched))
        }
    }
}

/// Whether a GRPCRoute can say all of it.
fn is_grpc(rule: &Written, action: &Action<'_>) -> bool {
    let has_http = action.redirect.is_some()
        || action.rewrite_host.is_some()
        || rule.rewrite.is_some()
        || action.filters.iter().any(|filter| filter["type"] == "CORS")
        || action.backends.iter().flat_map(|backend| &backend.filters).any(|f| f["type"] == "URLRewrite");
    !has_http && rule.matches.iter().all(|matched| matched.grpc().is_some())
}

/// The routes of a scope.
struct Route<'a> {
    world: &'a World<'a>,
    object: &'a Object,
    scope: &'a Scope,
    drafts: &'a [Draft<'a>],
    as_grpc: bool,
}

impl Route<'_> {
    fn kind(&self) -> &'static str {
        if self.as_grpc { "GRPCRoute" } else { "HTTPRoute" }
    }

    fn write(&self, rules: Vec<Written>, output: &mut Output, policies: &mut Policies) {
        let mut chunks: Vec<Vec<Written>> = Vec::new();
        for rule in rules {
            match chunks.last_mut() {
                Some(chunk)
                    if chunk.len() < MAX_RULES
                        && chunk.iter().map(|rule| rule.matches.len()).sum::<usize>()
                            + rule.matches.len()
                            <= MAX_ALL_MATCHES =>
                {
                    chunk.push(rule);
                }
                _ => chunks.push(vec![rule]),
            }
        }
        for (number, chunk) in (1..).zip(chunks) {
            // Of routes that match alike, the first by name wins: numbers of two digits keep their order.
            let number = if number == 1 { String::new() } else { format!("-{number:02}") };
            let name = format!("{}{}{number}", self.object.name, self.scope.suffix);
            let written: Vec<Value> = chunk.iter().map(|rule| self.rule(rule, output)).collect();
            let mut spec = compact([
                ("parentRefs", self.scope.parents.clone().into()),
                ("hostnames", self.scope.hostnames.clone().into()),
            ]);
            spec.insert("rules".into(), written.into());
            let name = output.add(self.object, self.kind(), &self.scope.namespace, &name, spec.into());
            for rule in &chunk {
                self.attach(rule, &name, policies);
            }
        }
    }

    /// Attaches what the route itself cannot say.
    fn attach(&self, rule: &Written, route: &str, policies: &mut Policies) {
        let policy = self.drafts[rule.draft].action.resilience.policy(!self.as_grpc);
        if policy.is_empty() {
            return;
        }
        let key = (self.scope.namespace.clone(), rule.draft, Value::from(policy.clone()).to_string());
        let (_, targets) = policies.entry(key).or_insert_with(|| (policy, Vec::new()));
        targets.push(
            json!({"group": GATEWAY, "kind": self.kind(), "name": route, "sectionName": rule.name.as_str()}),
        );
    }

    fn rule(&self, rule: &Written, output: &mut Output) -> Value {
        let action = &self.drafts[rule.draft].action;
        let matches: Vec<Value> = match self.as_grpc {
            true => rule.matches.iter().filter_map(Match::grpc).collect(),
            false => rule.matches.iter().map(Match::http).collect(),
        };
        // One that asks for nothing is the default.
        let matches = if matches == [json!({})] { Vec::new() } else { matches };
        let mut filters = action.filters.clone();
        let hostname = action.rewrite_host.as_deref().map_or(Value::Null, Value::from);
        let rewrite = compact([("hostname", hostname), ("path", rule.rewrite.clone().unwrap_or_default())]);
        if !rewrite.is_empty() {
            filters.push(json!({"type": "URLRewrite", "urlRewrite": rewrite}));
        }
        filters.extend(action.redirect.clone());
        for mirror in &action.mirrors {
            let mut request_mirror = mirror.share.clone();
            request_mirror.insert("backendRef".into(), self.backend_ref(&mirror.destination, output).into());
            filters.push(json!({"type": "RequestMirror", "requestMirror": request_mirror}));
        }
        let is_answered = action.redirect.is_some() || !action.resilience.direct_response.is_empty();
        let backends: Vec<Value> = match is_answered {
            true => Vec::new(),
            false => action.backends.iter().map(|backend| self.backend(backend, output)).collect(),
        };
        let mut fields = compact([
            ("name", rule.name.as_str().into()),
            ("matches", matches.into()),
            ("filters", filters.into()),
            ("backendRefs", backends.into()),
        ]);
        if !self.as_grpc {
            let resilience = &action.resilience;
            fields.extend(compact([
                ("timeouts", resilience.route_timeouts().into()),
                ("retry", resilience.route_retry().into()),
            ]));
        }
        fields.into()
    }

    fn backend(&self, backend: &crate::virtual_service::action::Backend<'_>, output: &mut Output) -> Value {
        let mut fields = self.backend_ref(&backend.destination, output);
        if let Some(weight) = backend.weight {
            fields.insert("weight".into(), weight.into());
        }
        if !backend.filters.is_empty() {
            fields.insert("filters".into(), backend.filters.clone().into());
        }
        fields.into()
    }

    fn backend_ref(&self, destination: &Destination<'_>, output: &mut Output) -> Map<String, Value> {
        let place = Place {
            world: self.world,
            object: self.object,
            kind: self.kind(),
            namespace: &self.scope.namespace,
            port: self.scope.port,
        };
        place.backend_ref(destination, output)
    }
}

/// Where a backend is named.
pub(crate) struct Place<'a> {
    pub world: &'a World<'a>,
    pub object: &'a Object,
    /// The kind of the route.
    pub kind: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The port for which it holds, where it is only one.
    pub port: Option<u16>,
}

impl Place<'_> {
    /// A destination as a `backendRef`; a grant is written where it is of another namespace.
    pub fn backend_ref(&self, destination: &Destination<'_>, output: &mut Output) -> Map<String, Value> {
        let service = match self.world.host(&destination.host, &self.object.namespace) {
            Host::Service(service) => service,
            Host::Other(host) => {
                destination.node.drop(
                    format!("{host} is no Service of the cluster: what is sent there fails with status 500"),
                    "make a Service for it; ExternalServices are no backends in this version",
                );
                let name = self.world.external(&host);
                return compact([
                    ("group", "weft.mesh".into()),
                    ("kind", "ExternalService".into()),
                    ("name", name.into()),
                    ("port", destination.port.map_or(Value::Null, Value::from)),
                ]);
            }
        };
        let port = destination.port.or_else(|| self.default_port(&service));
        let named = match &destination.subset {
            Some(subset) => {
                if !self.world.has_subset(&service, subset) {
                    destination.node.drop(
                        format!("no DestinationRule of the input has subset {subset} of Service {service}"),
                        format!(
                            "import it too, or make Service {}",
                            self.world.subset_service(&service, subset)
                        ),
                    );
                }
                self.world.subset_service(&service, subset)
            }
            None => service,
        };
        let mut fields = compact([("name", named.name.as_str().into())]);
        if named.namespace != self.namespace {
            fields.insert("namespace".into(), named.namespace.as_str().into());
            output.grant(self.kind, self.namespace, &named.namespace, &named.name);
        }
        let port = port.unwrap_or_else(|| {
            destination.node.drop(
                format!("its port is not said, and Service {named} is not in the input: port 80 is written"),
                "add the Service to the input: kubectl get services -A -o yaml",
            );
            80
        });
        fields.insert("port".into(), port.into());
        fields
    }

    /// The port of a Service that has only one, or the one that the request was sent to.
    fn default_port(&self, service: &crate::world::ServiceName) -> Option<u16> {
        // Of an unknown one, the port that was dialled is as good as in Istio.
        let Some(known) = self.world.services.get(service) else { return self.port };
        known.only_port().or_else(|| self.port.filter(|port| known.port(*port).is_some()))
    }
}
