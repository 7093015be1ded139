//! Jobs end when their applications do: the proxy does not keep them.

use serde_json::Value;
use std::time::Duration;
use tests::cluster::{
    Cluster,
    namespace::{Namespace, is_meshed, name},
    workloads,
};

/// Seconds from the end of the application to that of the pod.
const LATE: f64 = 2.0;

/// The template of a Job that calls the server from its init container and from its application.
const TEMPLATE: &str = r#"
      template:
        metadata: {labels: {app: caller}}
        spec:
          restartPolicy: Never
          serviceAccountName: caller
          initContainers:
          - {name: init, image: "weft.test/echo:1", args: [get, "http://server/", "http://server/"]}
          containers:
          - {name: app, image: "weft.test/echo:1", args: [get, "http://server/"]}
"#;

fn prepared<'a>(cluster: &'a Cluster, name: &str) -> Namespace<'a> {
    let namespace = Namespace::meshed(cluster, name);
    namespace.apply(&workloads::server("server", 1));
    namespace.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: caller, namespace: NAMESPACE}}");
    namespace.ready(&["deployment/server"]);
    namespace
}

pub fn jobs_end_with_their_applications(cluster: &Cluster) {
    let namespace = prepared(cluster, "jobs");
    let template = TEMPLATE.replace("\n    ", "\n");
    namespace.apply(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: job, namespace: NAMESPACE}}\nspec:\n  backoffLimit: 0{template}"
    ));
    namespace.kubectl(&["wait", "--for=condition=Complete", "job/job", "--timeout=90s"]);
    let pods = namespace.pods("app=caller");
    assert_eq!(pods.len(), 1, "one pod was enough");
    assert_ended(&pods[0]);
    // One that stays may be asked how its init container's requests went: they were meshed.
    let waiting = workloads::pod("late", "[sleep]", "").replace(
        "  containers:",
        "  initContainers:\n  - {name: init, image: \"weft.test/echo:1\", args: [get, \"http://server/\", \"http://server/\"]}\n  containers:",
    );
    namespace.apply(&waiting);
    namespace.ready(&["pod/late"]);
    namespace.assert_mtls("late", "outbound", "server");
}

pub fn a_cronjob_completes(cluster: &Cluster) {
    let namespace = prepared(cluster, "cronjob");
    namespace.apply(&format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: each-minute, namespace: NAMESPACE}}\n\
         spec:\n  schedule: '* * * * *'\n  jobTemplate:\n    spec:\n      backoffLimit: 0{TEMPLATE}"
    ));
    let pod = namespace.eventually(Duration::from_secs(120), || {
        let ended =
            namespace.pods("app=caller").into_iter().find(|pod| pod["status"]["phase"] == "Succeeded");
        ended.ok_or("no pod of the CronJob has succeeded".to_owned())
    });
    assert_ended(&pod);
}

/// The pod was meshed, succeeded, and its proxy ended soon after its application.
#[track_caller]
fn assert_ended(pod: &Value) {
    assert!(is_meshed(pod), "{} has no proxy", name(pod));
    assert_eq!(pod["status"]["phase"], "Succeeded", "{:#}", pod["status"]);
    let app = ended(&pod["status"]["containerStatuses"], "app");
    let proxy = ended(&pod["status"]["initContainerStatuses"], "weft-proxy");
    assert!(proxy - app <= LATE, "{}: the application ended at {app}, the proxy at {proxy}", name(pod));
}

/// When a container ended, in seconds of the day.
#[track_caller]
fn ended(statuses: &Value, container: &str) -> f64 {
    let status = statuses.as_array().and_then(|all| all.iter().find(|one| one["name"] == container));
    let status = status.unwrap_or_else(|| panic!("no status of {container} in {statuses}"));
    let at = status["state"]["terminated"]["finishedAt"].as_str();
    // 2026-01-02T03:04:05Z
    let at = at.unwrap_or_else(|| panic!("{container} has not ended: {status}"));
    let clock: Vec<f64> = at[11..19].split(':').map(|number| number.parse().expect("a number")).collect();
    clock[0] * 3600.0 + clock[1] * 60.0 + clock[2]
}
