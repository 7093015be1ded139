//! The injected pods of this node, looked at now and then: one that runs without its redirection, as the plugin was not there when
//! its network was made, is given it in place.

use super::processes::{first_processes, network_namespace};
use super::{Status, said};
use crate::annotation::{self, INJECTED, REDIRECT};
use crate::namespace::within;
use futures_util::StreamExt;
use init::Plan;
use k8s_openapi::api::core::v1::Pod;
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

/// Between two looks at all pods.
const LOOK: Duration = Duration::from_secs(5);
/// How soon after a pod is heard of it is looked at: its first process comes a moment after its network.
const SOON: Duration = Duration::from_millis(500);
/// Longest wait for an event to be taken.
const EVENT_WAIT: Duration = Duration::from_secs(5);
const PROC: &str = "/proc";

type Meta = PartialObjectMeta<Pod>;

/// What was found of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    InForce,
    /// It is redirected now; this is what was missing.
    Mended(Vec<String>),
    /// It has no process yet, or no more, or the node's network.
    NotRunning,
    Failed(String),
}

/// Watches and mends; ends only when it is dropped.
pub(super) async fn keep(client: Client, node: &str, status: &Status) {
    let reporter = Reporter { controller: "weft.mesh/cni".to_owned(), instance: Some(node.to_owned()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let wanted = watcher::Config::default()
        .fields(&format!("spec.nodeName={node}"))
        .labels(&format!("{INJECTED}=true"));
    let events = watcher(Api::<Meta>::all(client), wanted).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut pods = Pods::default();
    let mut next = Instant::now() + LOOK;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => {
                    pods.apply(event);
                    if pods.known {
                        Status::set(&status.watching, Ok(()));
                        next = next.min(Instant::now() + SOON);
                    }
                }
                Some(Err(error)) if !pods.known => {
                    Status::set(&status.watching, Err(format!("the pods of node {node} are not known: {}", why(&error))));
                }
                // What is known stays known, and is mended.
                Some(Err(error)) => tracing::warn!("the pods of node {node} are watched again: {}", why(&error)),
                None => return,
            },
            () = sleep_until(next) => {
                look(&mut pods, &recorder, status).await;
                next = Instant::now() + LOOK;
            }
        }
    }
}

fn why(error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchFailed(error) | WatchStartFailed(error) => said(error),
        other => other.to_string(),
    }
}

/// The pods of this node.
#[derive(Default)]
struct Pods {
    /// A first list has been read whole.
    known: bool,
    by_uid: BTreeMap<String, Meta>,
    listing: BTreeMap<String, Meta>,
    /// What was last told of a pod, so that it is told once.
    told: BTreeMap<String, Outcome>,
}

impl Pods {
    fn apply(&mut self, event: watcher::Event<Meta>) {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(pod) => keep_wanted(&mut self.listing, pod),
            watcher::Event::InitDone => {
                self.by_uid = std::mem::take(&mut self.listing);
                self.known = true;
            }
            watcher::Event::Apply(pod) => keep_wanted(&mut self.by_uid, pod),
            watcher::Event::Delete(pod) => {
                self.by_uid.remove(&pod.uid().unwrap_or_default());
            }
        }
        self.told.retain(|uid, _| self.by_uid.contains_key(uid));
    }
}

fn keep_wanted(pods: &mut BTreeMap<String, Meta>, mut pod: Meta) {
    let Some(uid) = pod.uid() else { return };
    if !pod.annotations().contains_key(REDIRECT) {
        // Its init container redirects it.
        pods.remove(&uid);
        return;
    }
    pod.managed_fields_mut().clear();
    pods.insert(uid, pod);
}

/// Looks at each pod, on a thread where blocking is no harm.
async fn look(pods: &mut Pods, recorder: &Recorder, status: &Status) {
    let wanted: Vec<(String, String)> = pods
        .by_uid
        .iter()
        .map(|(uid, pod)| (uid.clone(), pod.annotations().get(REDIRECT).cloned().unwrap_or_default()))
        .collect();
    status.metrics.pods(wanted.len());
    let looked = spawn_blocking(move || match first_processes(Path::new(PROC)) {
        Ok(processes) => wanted
            .into_iter()
            .map(|(uid, value)| {
                let outcome = processes
                    .get(&uid)
                    .map_or(Outcome::NotRunning, |pid| mend(Path::new(PROC), &uid, *pid, &value));
                (uid, outcome)
            })
            .collect(),
        Err(error) => {
            tracing::warn!("{PROC} cannot be read: {error}; does the agent run with hostPID?");
            Vec::new()
        }
    });
    let outcomes = match looked.await {
        Ok(outcomes) => outcomes,
        Err(error) => return tracing::error!("looking at the pods has failed: {error}"),
    };
    for (uid, outcome) in outcomes {
        let told = pods.told.insert(uid.clone(), outcome.clone());
        if let (Some(pod), true) = (pods.by_uid.get(&uid), told.as_ref() != Some(&outcome)) {
            tell(pod, &outcome, recorder, status).await;
        }
    }
}

/// Puts the plan of an annotation's value in force where it is not, for the pod with this process.
pub fn mend(proc: &Path, uid: &str, pid: u32, value: &str) -> Outcome {
    let plan = match annotation::plan(value) {
        Ok(plan) => plan,
        Err(error) => return Outcome::Failed(error),
    };
    let namespace = match network_namespace(proc, uid, pid) {
        Ok(Some(namespace)) => namespace,
        Ok(None) => return Outcome::NotRunning,
        Err(error) => {
            return Outcome::Failed(format!(
                "the network namespace of process {pid} cannot be opened: {error}"
            ));
        }
    };
    match within(&namespace, || mend_here(&plan)) {
        Ok(Ok(missing)) if missing.is_empty() => Outcome::InForce,
        Ok(Ok(missing)) => Outcome::Mended(missing),
        Ok(Err(error)) => Outcome::Failed(with_causes(&error)),
        Err(error) => {
            Outcome::Failed(format!("the network namespace of process {pid} cannot be entered: {error}"))
        }
    }
}

fn mend_here(plan: &Plan) -> Result<Vec<String>, init::Error> {
    let missing = init::direct::differences(plan)?;
    if !missing.is_empty() {
        init::direct::install(plan)?;
    }
    Ok(missing)
}

fn with_causes(error: &init::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Says what was done: to the log, to the metrics, and by an Event on the pod.
async fn tell(pod: &Meta, outcome: &Outcome, recorder: &Recorder, status: &Status) {
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    let (reason, note) = match outcome {
        Outcome::InForce | Outcome::NotRunning => return,
        Outcome::Mended(missing) => {
            status.metrics.mended("mended");
            tracing::warn!(
                pod = name,
                "it ran without its redirection, which is in force now; {}",
                missing.join("; ")
            );
            let note = "The CNI plugin weft-cni did not run for this pod, or its rules were taken out: the redirection is in force now. \
                        Connections that were made before go past the proxy until they end";
            ("RedirectionMended", note.to_owned())
        }
        Outcome::Failed(why) => {
            status.metrics.mended("failed");
            tracing::warn!(pod = name, "it runs without its redirection: {why}");
            (
                "RedirectionFailed",
                format!("This pod runs without its redirection, and could not be given it: {why}"),
            )
        }
    };
    let event = Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        // The API's limit is 1 kB.
        note: Some(note.chars().take(1000).collect()),
        action: "Redirect".to_owned(),
        secondary: None,
    };
    match timeout(EVENT_WAIT, recorder.publish(&event, &reference(pod))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(pod = name, "no event could be made: {}", said(&error)),
        Err(_) => tracing::warn!(pod = name, "no event could be made within {EVENT_WAIT:?}"),
    }
}

fn reference(pod: &Meta) -> k8s_openapi::api::core::v1::ObjectReference {
    k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some(Pod::api_version(&()).into_owned()),
        kind: Some(Pod::kind(&()).into_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}
