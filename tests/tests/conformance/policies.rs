//! Policies on real traffic: what each does and where it is attached, what its status and `weft explain` say of it, which ones are refused; how
//! soon a change reaches all proxies, and that it ends nothing that is under way. The cases are data, in `tests/conformance/policies`.

use crate::check::Check;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tests::cluster::{Cluster, namespace::Namespace};

/// Longest that a change may take to all proxies: a bound for machines that do much else.
const CHANGED: Duration = Duration::from_secs(10);
/// Between two looks at what the watchers saw.
const PAUSE: Duration = Duration::from_millis(100);
/// How long nothing may be written while requests pass.
const REST: Duration = Duration::from_secs(6);
/// Pods that ask all the time, each beside a proxy of its own, and their nodes.
const WATCHERS: [(&str, &str); 3] = [("watcher-1", "node1"), ("watcher-2", "node2"), ("watcher-3", "node1")];

pub fn policies_govern_traffic(cluster: &Cluster) {
    let mut check = Check::new(cluster, "policies");
    check.cases(10);
    if check.is_of_one() {
        return;
    }
    statuses_rest(&check.namespace);
    analyze_names_what_is_wrong(cluster);
    changes_reach_all_proxies(&check.namespace);
}

/// Who has written what: nothing is written again while nothing changes but the traffic.
fn statuses_rest(namespace: &Namespace<'_>) {
    let versions = || -> BTreeMap<String, String> {
        let all = namespace.json(&["httproutes,trafficpolicies,backendpolicies"]);
        let version = |one: &Value| {
            let name = format!("{} {}", one["kind"], one["metadata"]["name"]);
            (name, one["metadata"]["resourceVersion"].to_string())
        };
        all["items"].as_array().into_iter().flatten().map(version).collect()
    };
    let (before, begun) = (versions(), Instant::now());
    assert!(before.len() > 10, "the cases' objects: {before:?}");
    while begun.elapsed() < REST {
        namespace.exec("client", &["/client", "--count=100", "http://timeouts/other"]);
    }
    let after = versions();
    assert_eq!(before, after, "objects were written while nothing changed");
    println!("  ok    {} objects were not written in {REST:?} of traffic", after.len());
}

/// What the cases have wrong on purpose is listed, and is why it ends with 1.
fn analyze_names_what_is_wrong(cluster: &Cluster) {
    let (code, said) = cluster.weft(&["analyze", "-o", "json"]);
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(code, 1, "there are errors: {said}");
    for (object, field, what) in [
        ("TrafficPolicy policies/conflicts-b", "spec.targetRefs[0]", "TrafficPolicy policies/conflicts-a"),
        ("TrafficPolicy policies/conflicts-lost", "spec.targetRefs[0].name", "no Service policies/nobody"),
        (
            "HTTPRoute policies/conflicts-missing",
            "spec.rules[0].backendRefs[0].name",
            "no Service policies/nobody",
        ),
    ] {
        let problems = report["problems"].as_array().expect("a list");
        let is_it =
            |one: &&Value| one["object"] == object && one["field"] == field && one["level"] == "error";
        let found = problems.iter().find(is_it).unwrap_or_else(|| panic!("{object} is not named: {said}"));
        assert!(found["what"].as_str().is_some_and(|says| says.contains(what)), "{found}");
    }
    println!("  ok    weft analyze names what is wrong, and ends with {code}");
    let (code, said) = cluster.weft(&["analyze", "--context", "nowhere"]);
    assert!(code == 2 && said.contains("nowhere"), "no such cluster ends with {code}: {said}");
}

/// The rule that changes, and what is said about it at first: nothing.
const ROUTE: &str = "
apiVersion: v1
kind: Service
metadata: {name: change, namespace: NAMESPACE}
spec: {selector: {app: echo}, ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: change, namespace: NAMESPACE}
spec:
  parentRefs: [{group: \"\", kind: Service, name: change, port: 80}]
  rules: [{name: all, RULE}]
";
const FORWARD: &str = "backendRefs: [{name: echo-v1, port: 80}]";
const REDIRECT: &str = "filters: [{type: RequestRedirect, requestRedirect: {statusCode: 308}}]";
const POLICY: &str = "
apiVersion: policy.weft.mesh/v1alpha1
kind: TrafficPolicy
metadata: {name: change, namespace: NAMESPACE}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: change, sectionName: all}]
  SETTINGS
";

/// What is changed, one after the other, and the status that everybody must get then.
fn changes() -> Vec<(String, &'static str)> {
    let policy = |settings: &str| POLICY.replace("SETTINGS", settings);
    let route = |rule: &str| ROUTE.replace("RULE", rule);
    vec![
        (policy("directResponse: {status: 418}"), "418"),
        (policy("fault: {abort: {httpStatus: 429}}"), "429"),
        (policy("timeouts: {request: 1s, streamIdle: 1s, maxStreamDuration: 1s}"), "200"),
        (policy("timeouts: {request: 100ms}\n  directResponse: {status: 451}"), "451"),
        (String::new(), "200"),
        (route(REDIRECT), "308"),
        (route(FORWARD), "200"),
    ]
}

/// Each change is seen by clients of all proxies, on both nodes; an answer that has begun before them ends as it would have.
fn changes_reach_all_proxies(namespace: &Namespace<'_>) {
    namespace.apply(&ROUTE.replace("RULE", FORWARD));
    for (name, node) in WATCHERS {
        namespace.apply(&watcher(name, node));
    }
    namespace.ready(&WATCHERS.map(|(name, _)| format!("pod/{name}")).each_ref().map(String::as_str));
    seen_by_all(namespace, 0, "200");
    thread::scope(|scope| {
        let stream = scope.spawn(|| {
            namespace.try_exec("client", &["/client", "--timeout=1m", "http://change/?hold=stream"])
        });
        held_open(namespace);
        let mut slowest = Duration::ZERO;
        for (manifest, status) in changes() {
            let begun = now();
            match manifest.as_str() {
                "" => drop(namespace.kubectl(&["delete", "trafficpolicy/change", "--wait=false"])),
                manifest => namespace.apply(manifest),
            }
            let applied = now();
            let seen = seen_by_all(namespace, begun, status);
            let (took, behind) = (seen - begun, seen.saturating_sub(applied));
            println!(
                "  change reached {} proxies in {took} ms, {behind} ms after kubectl had returned ({status})",
                WATCHERS.len()
            );
            slowest = slowest.max(Duration::from_millis(took));
        }
        assert!(!stream.is_finished(), "the answer that was held open ended too early: {:?}", stream.join());
        namespace.exec("client", &["/client", "http://echo-v1/?release=stream"]);
        let answer =
            stream.join().expect("a thread that does not panic").unwrap_or_else(|error| panic!("{error}"));
        assert!(
            answer.contains("StatusCode=200") && answer.contains("Ended=stream"),
            "it is not whole: {answer}"
        );
        assert!(slowest <= CHANGED, "the slowest change took {slowest:?}");
    });
}

/// A pod on this node that asks all the time and prints what changes.
fn watcher(name: &str, node: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: NAMESPACE}}, spec: {{nodeName: {node}, \
         terminationGracePeriodSeconds: 1, containers: [{{name: app, image: \"weft.test/conformance:1\", \
         command: [/client, --watch, \"http://change/\"]}}]}}}}"
    )
}

/// The held answer passes through the backend's proxy.
fn held_open(namespace: &Namespace<'_>) {
    namespace.eventually(CHANGED, || {
        let metrics = namespace.metrics("client");
        let open = metrics.sum("weft_requests_in_flight", &[("direction", "outbound")]);
        if open >= 1.0 { Ok(()) } else { Err(format!("no answer is held open: {}", metrics.0)) }
    });
}

/// The time at which the last watcher saw this status, after `begun` unless it is what it sees already. In milliseconds since 1970.
#[track_caller]
fn seen_by_all(namespace: &Namespace<'_>, begun: u64, status: &str) -> u64 {
    let until = Instant::now() + CHANGED + CHANGED;
    loop {
        let seen: Vec<_> = WATCHERS.map(|(name, _)| (name, last_seen(namespace, name))).into_iter().collect();
        let when: Option<Vec<u64>> =
            seen.iter().map(|(_, (at, what))| (*at >= begun && what == status).then_some(*at)).collect();
        match when {
            Some(when) => return when.into_iter().max().unwrap_or(begun),
            None if Instant::now() > until => panic!("not everybody sees {status}: {seen:?}"),
            None => thread::sleep(PAUSE),
        }
    }
}

/// The last change that a watcher printed.
fn last_seen(namespace: &Namespace<'_>, name: &str) -> (u64, String) {
    let said = namespace.try_kubectl(&["logs", name, "-c", "app", "--tail=1"]).unwrap_or_default();
    match said.trim().split_once(' ') {
        Some((at, what)) => (at.parse().unwrap_or_default(), what.to_owned()),
        None => (0, said),
    }
}

/// In milliseconds since 1970. Nodes are on this host, and have its clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("some time before the year 500,000,000")
}
