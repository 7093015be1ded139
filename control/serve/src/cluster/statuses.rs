//! The statuses of routes and policies: the conditions that `control-translate` finds, where the object does not hold them
//! yet. Other controllers' entries in the same status stay as they are, and so does the time of a condition that holds on.
//! Written by whoever holds the Lease, from the index alone: the watch that brings back what was written ends the matter.

use super::{Cluster, FIELD_MANAGER, REQUEST_WAIT, explain};
use crate::{
    Control,
    problems::{Problem, Source},
    world::Unsaid,
};
use control_index::{Key, Kind, manifest::ParentRef};
use control_translate::Entry;
use futures_util::{StreamExt, stream};
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// Objects written at once.
const AT_ONCE: usize = 8;
/// Changes that come together are written together.
const SETTLE: Duration = Duration::from_millis(20);
/// What was written and has not come back after this long is written again; what failed is, too.
const PATIENCE: Duration = Duration::from_secs(5);
/// All objects are looked at again after this long, in case that something was missed.
const REFRESH: Duration = Duration::from_secs(300);
/// Problems that are told apart; the others would be the same.
const TOLD: usize = 20;

/// What became of an attempt.
enum Outcome {
    /// It is written, or there is nothing to write to.
    Done,
    /// The object is another one by now; the watch will tell.
    Stale,
    Failed(String),
}

/// Writes what is due at each change. Serves until it is dropped.
pub async fn keep(control: &Control, cluster: &Cluster) {
    let mut changes = control.world().unjudged();
    let mut due = control.world().judged();
    let mut looked = Instant::now();
    // What was written and is awaited back.
    let mut written: BTreeMap<Key, (Unsaid, Instant)> = BTreeMap::new();
    let mut failed: BTreeMap<Key, String> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        due.append(&mut control.world().take_unjudged());
        let overdue = written.iter().filter(|(_, (_, at))| at.elapsed() >= PATIENCE);
        due.extend(overdue.map(|(key, _)| key.clone()));
        let mut unsaid = Vec::new();
        for key in std::mem::take(&mut due) {
            // The lock is free between two of them.
            match control.world().unsaid(&key) {
                None => {
                    written.remove(&key);
                    failed.remove(&key);
                }
                Some(now) => match written.get(&key) {
                    Some((before, at)) if *before == now && at.elapsed() < PATIENCE => {}
                    _ => unsaid.push((key, now)),
                },
            }
        }
        let writing = unsaid.into_iter().map(|(key, unsaid)| async {
            let outcome = write(&cluster.client, &key, &unsaid).await;
            (key, unsaid, outcome)
        });
        let mut outcomes = stream::iter(writing).buffer_unordered(AT_ONCE);
        while let Some((key, unsaid, outcome)) = outcomes.next().await {
            failed.remove(&key);
            if let Outcome::Failed(what) = outcome {
                failed.insert(key.clone(), what);
            }
            written.insert(key, (unsaid, Instant::now()));
        }
        control.world().problems_of(Source::Statuses, problems(&failed));
        let pause = if written.is_empty() { REFRESH } else { PATIENCE };
        tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => sleep(SETTLE).await,
                Err(_) => return,
            },
            () = sleep(pause) => {}
        }
        if looked.elapsed() >= REFRESH {
            looked = Instant::now();
            due.append(&mut control.world().judged());
        }
    }
}

fn problems(failed: &BTreeMap<Key, String>) -> BTreeSet<Problem> {
    let problem = |(key, what): (&Key, &String)| Problem {
        object: key.to_string(),
        field: "status".into(),
        what: format!("it cannot be written ({what}); traffic goes on, and it is tried again"),
        ..Problem::default()
    };
    failed.iter().take(TOLD).map(problem).collect()
}

/// Tries the versions that may be served, the best one first.
async fn write(client: &Client, key: &Key, unsaid: &Unsaid) -> Outcome {
    for version in key.kind.versions() {
        let api = api(client, key, version);
        match timeout(REQUEST_WAIT, attempt(&api, key, version, unsaid)).await {
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            // Somebody else was faster.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => return Outcome::Stale,
            Ok(Err(error)) => return Outcome::Failed(explain(&error)),
            Ok(Ok(outcome)) => return outcome,
            Err(_) => {
                let waited = REQUEST_WAIT.as_secs();
                return Outcome::Failed(format!("the API server did not answer for {waited} s"));
            }
        }
    }
    Outcome::Done
}

fn api(client: &Client, key: &Key, version: &str) -> Api<DynamicObject> {
    let (group, kind) = (key.kind.group(), key.kind);
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: format!("{group}/{version}"),
        kind: kind.as_str().into(),
        plural: kind.plural().into(),
    };
    Api::namespaced_with(client.clone(), &key.namespace, &resource)
}

/// Reads the status and writes it with our entries, provided that nobody writes in between.
async fn attempt(
    api: &Api<DynamicObject>,
    key: &Key,
    version: &str,
    unsaid: &Unsaid,
) -> Result<Outcome, kube::Error> {
    let object = api.get_status(&key.name).await?;
    if object.metadata.generation.is_some_and(|generation| generation != unsaid.generation) {
        return Ok(Outcome::Stale);
    }
    let field = if key.kind.is_route() { "parents" } else { "ancestors" };
    let held = object.data["status"][field].as_array().map(Vec::as_slice).unwrap_or_default();
    let now = Timestamp::now().round(Unit::Second).unwrap_or_default().to_string();
    let body = json!({
        "apiVersion": format!("{}/{version}", key.kind.group()),
        "kind": key.kind.as_str(),
        "metadata": {
            "name": &*key.name,
            "namespace": &*key.namespace,
            "resourceVersion": object.metadata.resource_version,
        },
        "status": {field: merged(key.kind, held, unsaid, &now)},
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&key.name, &parameters, &Patch::Apply(&body)).await?;
    Ok(Outcome::Done)
}

/// The entries of others as they are, and after them ours.
fn merged(kind: Kind, held: &[Value], unsaid: &Unsaid, now: &str) -> Vec<Value> {
    let is_ours = |entry: &&Value| entry["controllerName"] == api::CONTROLLER_NAME;
    let others = held.iter().filter(|entry| !is_ours(entry)).cloned();
    let reference = if kind.is_route() { "parentRef" } else { "ancestorRef" };
    let ours = unsaid.status.entries.iter().map(|entry| {
        let about = parent(&entry.about);
        let before = held.iter().filter(is_ours).find(|one| is_same(&one[reference], &about));
        json!({
            reference: about,
            "controllerName": api::CONTROLLER_NAME,
            "conditions": conditions(entry, before, unsaid.generation, now),
        })
    });
    others.chain(ours).collect()
}

fn conditions(entry: &Entry, before: Option<&Value>, generation: i64, now: &str) -> Vec<Value> {
    let held =
        before.and_then(|before| before["conditions"].as_array()).map(Vec::as_slice).unwrap_or_default();
    let written = entry.conditions.iter().map(|condition| {
        json!({
            "type": condition.type_,
            "status": condition.word(),
            "observedGeneration": generation,
            "lastTransitionTime": since(held, condition.type_, condition.word(), now),
            "reason": condition.reason,
            "message": condition.message,
        })
    });
    written.collect()
}

/// Since when a condition has its status, by the conditions that an object holds.
pub(super) fn since(held: &[Value], type_: &str, status: &str, now: &str) -> String {
    let same = held.iter().find(|one| one["type"] == type_ && one["status"] == status);
    same.and_then(|one| one["lastTransitionTime"].as_str()).unwrap_or(now).to_owned()
}

/// A reference as an object writes it: nothing where nothing was said.
fn parent(parent: &ParentRef) -> Value {
    let texts = [
        ("group", &parent.group),
        ("kind", &parent.kind),
        ("namespace", &parent.namespace),
        ("sectionName", &parent.section_name),
    ];
    let mut fields: Map<String, Value> = texts
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))))
        .collect();
    fields.insert("name".into(), json!(parent.name));
    if let Some(port) = parent.port {
        fields.insert("port".into(), json!(port));
    }
    Value::Object(fields)
}

/// They name the same, also when the API server has added the group and the kind that it takes for granted.
fn is_same(held: &Value, ours: &Value) -> bool {
    ["group", "kind", "namespace", "name", "sectionName", "port"]
        .into_iter()
        .all(|field| ours[field].is_null() || held[field] == ours[field])
}

#[cfg(test)]
mod tests;
