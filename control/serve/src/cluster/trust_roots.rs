//! The ConfigMap with the roots in each namespace where proxies are: their first anchors, before they have heard of
//! control. Written by whoever holds the Lease, and written again now and then, as nobody watches them.

use super::{Cluster, FIELD_MANAGER, REQUEST_WAIT, explain};
use crate::{
    Control,
    problems::{Problem, Source},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// The ConfigMap, and its only key.
const NAME: &str = "weft-trust-roots";
const KEY: &str = "ca.pem";
/// A ConfigMap is written again after this long, in case that somebody changed it.
const REFRESH: Duration = Duration::from_secs(300);
/// What failed is tried again after this long; changes that come together are waited for as long as this.
const RETRY: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_millis(50);

/// What was written to a namespace, and when.
struct Written {
    roots: Arc<[u8]>,
    at: Instant,
}

/// Writes what is due at each change, and now and then without one. Serves until it is dropped.
pub async fn keep(control: &Control, cluster: &Cluster) {
    let mut written: BTreeMap<Arc<str>, Written> = BTreeMap::new();
    let mut changes = control.namespaces_changed();
    let Some(mut roots) = control.roots() else { return };
    loop {
        changes.mark_unchanged();
        roots.mark_unchanged();
        let wanted = control.world().meshed_namespaces();
        let pem: Arc<[u8]> = control.authority().roots_pem().into();
        written.retain(|namespace, _| wanted.contains(namespace));
        let now = Instant::now();
        let is_due = |written: Option<&Written>| {
            written.is_none_or(|written| written.roots != pem || now.duration_since(written.at) >= REFRESH)
        };
        let mut problems = BTreeSet::new();
        for namespace in wanted.iter() {
            if !is_due(written.get(namespace)) {
                continue;
            }
            match write(cluster, namespace, &pem).await {
                Ok(()) => {
                    let roots = Arc::clone(&pem);
                    written.insert(Arc::clone(namespace), Written { roots, at: Instant::now() });
                }
                Err(what) => {
                    let object = format!("ConfigMap {namespace}/{NAME}");
                    problems.insert(Problem { object, what, ..Problem::default() });
                }
            }
        }
        let pause = if problems.is_empty() { REFRESH / 10 } else { RETRY };
        control.world().problems_of(Source::TrustRoots, problems);
        tokio::select! {
            _ = changes.changed() => sleep(SETTLE).await,
            told = roots.changed() => if told.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

async fn write(cluster: &Cluster, namespace: &str, pem: &[u8]) -> Result<(), String> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    let body = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "labels": super::labels()},
        "data": {KEY: String::from_utf8_lossy(pem)},
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let what = match timeout(REQUEST_WAIT, api.patch(NAME, &parameters, &Patch::Apply(&body))).await {
        Ok(Ok(_)) => return Ok(()),
        // The namespace went in the meantime.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(()),
        Ok(Err(error)) => explain(&error),
        Err(_) => format!("the API server did not answer for {} s", REQUEST_WAIT.as_secs()),
    };
    Err(format!("it cannot be written ({what}); new Pods with proxies wait for it, and it is tried again"))
}
