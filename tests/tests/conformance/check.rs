//! Applying cases, and finding out whether what they expect is so: answers to a pod's requests, refusals of the API server, conditions in
//! statuses, and what `weft explain` says.

use crate::{
    answer::Answer,
    case::{Case, Explained, Refused, Request, Status},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, thread,
    time::{Duration, Instant},
};
use tests::{
    cluster::{Cluster, namespace::Namespace},
    pod::ADMIN_PORT,
};

const CONTROLLER: &str = "weft.mesh/controller";
/// From the objects to all that they bring about.
const SOON: Duration = Duration::from_secs(20);
/// An expectation that comes up later than that may still be met so late.
const GRACE: Duration = Duration::from_secs(3);
/// Between two times that something is asked.
const PAUSE: Duration = Duration::from_millis(500);
/// Answers in a row that must be right.
const CONSECUTIVE: u32 = 20;
/// Requests by which shares are counted, and how many percent they may be off: five standard deviations of an even split.
const COUNTED: u32 = 1000;
const OFF_PERCENT: f64 = 8.0;

/// A namespace with the pods of `pods.yaml`, and the other one in which clients are.
pub struct Check<'a> {
    pub namespace: Namespace<'a>,
    pub consumer: Namespace<'a>,
    /// The name of the only case that is wanted.
    one: Option<String>,
    until: Instant,
}

impl<'a> Check<'a> {
    /// Both namespaces with their pods, which are asked for and perhaps not there yet.
    pub fn new(cluster: &'a Cluster, name: &str) -> Self {
        let namespace = Namespace::meshed(cluster, name);
        let consumer = Namespace::meshed(cluster, &format!("{name}-consumer"));
        let pods = fs::read_to_string(cluster.root().join("tests/conformance/pods.yaml"));
        namespace.apply(&pods.expect("pods.yaml"));
        Self { namespace, consumer, one: env::var("CASE").ok(), until: Instant::now() }
    }

    /// One case alone is wanted, by `CASE` in the environment.
    pub fn is_of_one(&self) -> bool {
        self.one.is_some()
    }

    /// Applies the cases of the folder that is called as the namespace, `least` at least, and panics with all that is not as they say.
    pub fn cases(&mut self, least: usize) {
        let Namespace { cluster, name } = &self.namespace;
        let mut cases = Case::all(&cluster.root().join("tests/conformance").join(name), name);
        assert!(cases.len() >= least, "only {} cases were found", cases.len());
        if let Some(one) = &self.one {
            cases.retain(|case| case.name == *one);
        }
        for case in &cases {
            let mut items = vec![parent(&case.name, name)];
            items.extend(case.objects.clone());
            cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
        }
        self.namespace.ready(&["pod/echo-v1", "pod/echo-v2", "pod/client"]);
        self.consumer.ready(&["pod/client"]);
        self.until = Instant::now() + SOON;
        let wrong: Vec<_> = cases.iter().flat_map(|case| self.case(case)).collect();
        assert!(wrong.is_empty(), "{} expectations are not met:\n{}", wrong.len(), wrong.concat());
    }

    /// What is not as a case says.
    fn case(&self, case: &Case) -> Vec<String> {
        let mut found = Vec::new();
        let mut add = |what: &str, result: Result<(), String>| {
            found.extend(result.err().map(|why| format!("{}: {what}: {why}\n", case.name)));
        };
        for one in &case.refused {
            add(&one.object.to_string(), self.refused(one));
        }
        for request in &case.requests {
            add(&request.ask, self.asked(request));
        }
        for one in &case.explained {
            add(&one.ask, self.explained(one));
        }
        for status in &case.statuses {
            add(&status.object, self.stated(status));
        }
        let word = if found.is_empty() { "ok  " } else { "FAIL" };
        let counts = [
            (case.refused.len(), "refused"),
            (case.requests.len(), "requests"),
            (case.explained.len(), "explained"),
            (case.statuses.len(), "statuses"),
        ];
        let counts =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        println!("  {word}  {} ({})", case.name, counts.collect::<Vec<_>>().join(", "));
        found
    }

    /// The API server refuses it, and says which field is wrong.
    fn refused(&self, refused: &Refused) -> Result<(), String> {
        match self.namespace.cluster.try_apply(&refused.object.to_string()) {
            Ok(_) => Err("it was taken".into()),
            Err(said) => held(&said, &refused.says),
        }
    }

    /// Asks until the answers are as they should be; the last complaint when they never are.
    fn asked(&self, request: &Request) -> Result<(), String> {
        let count = request.count.unwrap_or(if request.shares.is_empty() { CONSECUTIVE } else { COUNTED });
        let namespace = request.from.as_deref().unwrap_or(&self.namespace.name);
        let count = format!("--count={count}");
        let mut command = vec!["-n", namespace, "exec", "client", "-c", "app", "--", "/client", &count];
        command.extend(request.ask.split_whitespace());
        eventually(self.until, || {
            let answers = Answer::all(&self.namespace.cluster.kubectl(&command)?);
            if request.shares.is_empty() {
                answers.iter().try_for_each(|answer| compared(request, answer))
            } else {
                shared(&request.shares, &answers)
            }
        })
    }

    /// `weft explain` names the rule and who set the settings, and the proxy does as it says.
    fn explained(&self, expected: &Explained) -> Result<(), String> {
        let mut command = vec!["explain", "request", "-o", "json"];
        command.extend(expected.ask.split_whitespace());
        let (code, said) = self.namespace.cluster.weft(&command);
        let verdict: Value =
            serde_json::from_str(&said).map_err(|error| format!("{error}: {code}: {said}"))?;
        if expected.rule.as_deref().is_some_and(|rule| verdict["rule"] != rule) {
            return Err(format!("the rule is {}: {}", verdict["rule"], verdict["considered"]));
        }
        let listed = |value: &Value| value["settings"].as_array().cloned().unwrap_or_default();
        let backends = verdict["backends"].as_array().into_iter().flatten().flat_map(listed);
        // What nobody set is none of a case's business.
        let set = backends.chain(listed(&verdict)).filter(|one| one["by"].is_string());
        let found: BTreeMap<String, String> = set
            .map(|one| (text(&one["name"]), format!("{} by {}", text(&one["value"]), text(&one["by"]))))
            .collect();
        for (name, wanted) in &expected.settings {
            if found.get(name) != Some(wanted) {
                return Err(format!("{name} is {:?}, not {wanted:?}; all are {found:?}", found.get(name)));
            }
        }
        self.agreed(&expected.ask, &verdict)
    }

    /// The asking pod's own proxy, which has carried such requests, says the same.
    fn agreed(&self, ask: &str, verdict: &Value) -> Result<(), String> {
        let cluster = self.namespace.cluster;
        let target = text(&verdict["target"]);
        let parts: Vec<&str> = target.split([' ', '.', ':']).collect();
        let ["Service", name, namespace, port] = parts[..] else {
            return Err(format!("{target} is no Service"));
        };
        let address = text(&cluster.json(&["-n", namespace, "service", name])["spec"]["clusterIP"]);
        let (mut query, mut client) = (format!("/why?to={address}:{port}"), None);
        let words: Vec<&str> = ask.split_whitespace().collect();
        for pair in words.windows(2) {
            match pair[0] {
                "--from" => client = pair[1].split_once('/'),
                "--path" => query += &format!("&path={}", pair[1]),
                "--grpc" => query += &format!("&grpc={}", pair[1]),
                "-H" => query += &format!("&header={}", pair[1]),
                _ => {}
            }
        }
        let (namespace, pod) = client.ok_or("--from names no pod")?;
        let said = cluster.fetch(namespace, pod, ADMIN_PORT, &query)?;
        let why: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
        let of_backends = |verdict: &Value| {
            let backends = verdict["backends"].as_array().cloned().unwrap_or_default();
            backends
                .iter()
                .map(|one| [&one["to"], &one["weight"], &one["settings"]].map(Value::clone))
                .collect::<Vec<_>>()
        };
        let same = ["asked", "target", "outcome", "rule", "by", "considered", "settings"]
            .iter()
            .all(|field| why[*field] == verdict[*field]);
        match same && of_backends(&why) == of_backends(verdict) {
            true => Ok(()),
            false => {
                Err(format!("the proxy of {pod} says something else: {why}\nthan weft explain: {verdict}"))
            }
        }
    }

    /// Reads the status until it is as it should be: these parents or targets, these conditions and no others, of this generation.
    fn stated(&self, expected: &Status) -> Result<(), String> {
        let (namespace, object) = match expected.object.split('/').collect::<Vec<_>>()[..] {
            [namespace, kind, name] => (namespace, format!("{kind}/{name}")),
            _ => (self.namespace.name.as_str(), expected.object.clone()),
        };
        eventually(self.until, || {
            let object = self.namespace.cluster.json(&["-n", namespace, &object]);
            let told = serde_json::to_string_pretty(&object["status"]).expect("JSON");
            let of_parents =
                entries(&object, &expected.parents, ["parents", "parentRef"], "parentRefs", PartialEq::eq);
            let of_targets =
                entries(&object, &expected.targets, ["ancestors", "ancestorRef"], "targetRefs", is_target);
            of_parents.and(of_targets).map_err(|why| format!("{why}: {told}"))?;
            held(&told, &expected.says)
        })
    }
}

/// What stands in a status of these is as expected: an entry each, in the order in which the object's spec names them.
fn entries(
    object: &Value,
    expected: &[BTreeMap<String, String>],
    [place, about]: [&str; 2],
    named: &str,
    is_about: fn(&Value, &Value) -> bool,
) -> Result<(), String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let entries = list(&object["status"][place]);
    if entries.len() != expected.len() {
        return Err(format!("{} {place} instead of {}", entries.len(), expected.len()));
    }
    for ((entry, wanted), reference) in entries.iter().zip(expected).zip(list(&object["spec"][named])) {
        let conditions = list(&entry["conditions"]);
        let word = |one: &Value| format!("{} {}", text(&one["status"]), text(&one["reason"]));
        let got: BTreeMap<String, String> =
            conditions.iter().map(|one| (text(&one["type"]), word(one))).collect();
        if got != *wanted {
            return Err(format!("{got:?}, not {wanted:?}"));
        }
        if entry["controllerName"] != CONTROLLER || !is_about(&entry[about], &reference) {
            return Err(format!("not of {CONTROLLER} about {reference}: {entry}"));
        }
        well_formed(entry, &object["metadata"]["generation"])?;
    }
    Ok(())
}

/// An ancestor is written with all that names it; a target is in its policy's namespace.
fn is_target(ancestor: &Value, target: &Value) -> bool {
    ["kind", "name", "sectionName"].iter().all(|field| ancestor[*field] == target[*field])
}

/// A text says all of these.
fn held(said: &str, words: &[String]) -> Result<(), String> {
    match words.iter().find(|word| !said.contains(word.as_str())) {
        Some(word) => Err(format!("it does not say {word:?}: {said}")),
        None => Ok(()),
    }
}

/// One answer against what is expected of it.
fn compared(request: &Request, answer: &Answer) -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut hold = |what: &str, wanted: Option<&str>, got: Option<&str>| {
        if wanted != got {
            wrong.push(format!("{what} is {}, not {}", got.unwrap_or("absent"), wanted.unwrap_or("absent")));
        }
    };
    if let Some(status) = &request.status {
        hold("the status", Some(&status.to_string()), Some(&answer.status));
    }
    if let Some(backend) = &request.backend {
        hold("the backend", Some(backend), answer.backend());
    }
    for (key, wanted) in &request.sees {
        hold(key, Some(wanted), answer.body.get(key).map(String::as_str));
    }
    for (name, wanted) in &request.request {
        let got = answer.request.get(&name.to_lowercase()).map(|values| values.join(","));
        hold(&format!("the request's {name}"), wanted.as_deref(), got.as_deref());
    }
    for (name, wanted) in &request.response {
        let got = answer.response.get(&name.to_lowercase()).map(|values| values.join(","));
        hold(&format!("the response's {name}"), wanted.as_deref(), got.as_deref());
    }
    for (name, words) in &request.told {
        let got =
            answer.response.get(&name.to_lowercase()).map(|values| values.join(",")).unwrap_or_default();
        wrong.extend(held(&got, words).err().map(|why| format!("the response's {name}: {why}")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}\n{}", wrong.join("; "), answer.text)) }
}

/// Do backends, and errors by their status, have their percentages?
fn shared(wanted: &BTreeMap<String, f64>, answers: &[Answer]) -> Result<(), String> {
    let mut counted: BTreeMap<&str, f64> = BTreeMap::new();
    for answer in answers {
        *counted.entry(answer.backend().unwrap_or(&answer.status)).or_default() += 1.0;
    }
    let total = answers.len() as f64;
    let names: BTreeSet<&str> = counted.keys().copied().chain(wanted.keys().map(String::as_str)).collect();
    for name in names {
        let got = counted.get(name).map_or(0.0, |count| count * 100.0 / total);
        let wanted = wanted.get(name).copied().unwrap_or_default();
        if (got - wanted).abs() > if wanted == 0.0 { 0.0 } else { OFF_PERCENT } {
            return Err(format!("{name} has {got} % of {total} answers, not {wanted} %: {counted:?}"));
        }
    }
    Ok(())
}

/// What holds for each condition: it is of the newest generation, and says why something is wrong.
fn well_formed(entry: &Value, generation: &Value) -> Result<(), String> {
    for condition in entry["conditions"].as_array().into_iter().flatten() {
        let bad = (condition["type"] == "PartiallyInvalid") == (condition["status"] == "True");
        if condition["observedGeneration"] != *generation {
            return Err(format!("not of generation {generation}: {condition}"));
        }
        if bad && text(&condition["message"]).is_empty() {
            return Err(format!("it does not say why: {condition}"));
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Asks again and again, `until` then or for a little while; the last complaint.
fn eventually(until: Instant, mut ask: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let until = until.max(Instant::now() + GRACE);
    loop {
        match ask() {
            Err(why) if Instant::now() > until => return Err(why),
            Err(_) => thread::sleep(PAUSE),
            Ok(()) => return Ok(()),
        }
    }
}

/// The Service that a case's routes are attached to, with both versions behind it.
fn parent(name: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": "echo"}, "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"},
            {"name": "http-alt", "port": 8080, "appProtocol": "http"},
            {"name": "grpc", "port": 7070, "appProtocol": "kubernetes.io/h2c"},
            {"name": "tcp", "port": 9090, "appProtocol": "tcp"},
        ]},
    })
}
