//! Events on Pods that run without a proxy where their namespace asks for one, one a Pod and reason: the name of an Event
//! is made of both, so that neither another holder of the Lease nor this one after a restart says it twice.

use super::{Cluster, REQUEST_WAIT, explain};
use crate::{
    Control,
    problems::{Problem, Source},
    world::Alone,
};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use std::{
    collections::{BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// What an Event's note may hold.
const NOTE_BYTES: usize = 1024;
/// Between two Events: a namespace full of Pods without proxies is told in turn, and the API server not flooded.
const PACE: Duration = Duration::from_millis(100);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Tells of each Pod once. Serves until it is dropped.
pub async fn keep(control: &Control, cluster: &Cluster) {
    let mut told: HashSet<u64> = HashSet::new();
    loop {
        let now = control.world().unmeshed();
        let known: HashSet<u64> = now.iter().map(digest).collect();
        told.retain(|digest| known.contains(digest));
        let mut problems = BTreeSet::new();
        for pod in now.iter().filter(|pod| !told.contains(&digest(pod))).collect::<Vec<_>>() {
            match write(cluster, pod).await {
                Ok(()) => drop(told.insert(digest(pod))),
                Err(what) => {
                    problems.insert(Problem { what, ..Problem::default() });
                    break;
                }
            }
            sleep(PACE).await;
        }
        let pause = if problems.is_empty() { LOOK } else { 10 * LOOK };
        control.world().problems_of(Source::Events, problems);
        sleep(pause).await;
    }
}

fn digest(pod: &Alone) -> u64 {
    // Made with fixed keys: the same in each replica.
    let mut hasher = DefaultHasher::new();
    (&pod.pod.namespace, &pod.pod.name, &pod.uid, &pod.reason.why).hash(&mut hasher);
    hasher.finish()
}

async fn write(cluster: &Cluster, pod: &Alone) -> Result<(), String> {
    let name = pod.pod.name.get(..200).unwrap_or(&pod.pod.name);
    let mut note = pod.reason.why.clone();
    note.truncate((0..=NOTE_BYTES.min(note.len())).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0));
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:016x}", name.trim_end_matches(['.', '-']), digest(pod))),
            namespace: Some(pod.pod.namespace.to_string()),
            labels: Some(super::labels()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        type_: Some(if pod.reason.wanted { "Normal" } else { "Warning" }.into()),
        reason: Some("NotMeshed".into()),
        action: Some("Inject".into()),
        note: Some(note),
        regarding: Some(ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.pod.namespace.to_string()),
            name: Some(pod.pod.name.to_string()),
            uid: Some(pod.uid.to_string()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some("weft.mesh/control".into()),
        reporting_instance: Some("weft-control".into()),
        ..Event::default()
    };
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), &pod.pod.namespace);
    let parameters = PostParams::default();
    match timeout(REQUEST_WAIT, api.create(&parameters, &event)).await {
        Ok(Ok(_)) => Ok(()),
        // It was told before; or the namespace is going, or gone.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.message.contains("being terminated") => Ok(()),
        Ok(Err(error)) => {
            Err(format!("Events of Pods without a proxy cannot be written: {}", explain(&error)))
        }
        Err(_) => {
            Err("Events of Pods without a proxy cannot be written: the API server does not answer".into())
        }
    }
}
