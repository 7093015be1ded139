//! The facts from a cluster, each asked for once. What cannot be found out is a fact too, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::facts::{Access, Facts, InjectorTls, Issuer, Known, Metadata, Pod, Problem, Proxy};
use crate::cluster::{Cluster, Failure};
use crate::manifests::{self, Fit, Right, Variant};
use crate::names::{
    CNI, CONTROL, CONTROL_ADMIN, INIT_CONTAINER, INJECTOR_TLS, ISSUER, PROXY_ADMIN, TRUST_ROOTS,
};

/// Questions that are on their way at once.
const AT_ONCE: usize = 8;
/// Failed weft-init containers whose logs are read.
const LOGS: usize = 10;
/// Lines of each.
const LOG_LINES: usize = 3;

/// For `weft check --pre`.
pub async fn before(cluster: &Cluster, namespace: &str, cni: bool) -> anyhow::Result<Facts> {
    let mut facts = common(cluster, namespace, cni).await?;
    let variant = if cni { Variant::Cni } else { Variant::Default };
    let fit = Fit { namespace: namespace.to_owned(), ..Fit::default() };
    let objects = manifests::objects(variant.rendering(), &fit)?;
    let mut questions: BTreeSet<(String, String, Option<String>)> = BTreeSet::new();
    for object in &objects {
        let resource = qualified(object.resource.plural, object.resource.group());
        for verb in ["create", "patch"] {
            questions.insert((resource.clone(), verb.to_owned(), object.namespace.clone()));
        }
        if matches!(object.resource.kind, "Role" | "ClusterRole") {
            questions.insert((resource, "escalate".to_owned(), object.namespace.clone()));
        }
    }
    let questions = questions.into_iter().map(|(resource, verb, namespace)| Access {
        account: None,
        verb,
        resource,
        name: None,
        namespace,
        allowed: Known::default(),
    });
    facts.access = ask(cluster, questions.collect()).await;
    Ok(facts)
}

/// For `weft check`.
pub async fn installed(cluster: &Cluster, namespace: &str, proxies: usize) -> anyhow::Result<Facts> {
    let mut facts = common(cluster, namespace, false).await?;
    let apps = format!("/apis/apps/v1/namespaces/{namespace}");
    facts.deployments = list(cluster, &format!("{apps}/deployments"), "").await;
    facts.daemon_sets = list(cluster, &format!("{apps}/daemonsets"), "").await;
    facts.cni = facts.daemon_sets.known().is_some_and(|sets| sets.iter().any(|set| set.metadata.name == CNI));
    facts.issuer = Known::of(secret(cluster, namespace, ISSUER).await.map(|secret| {
        secret.map(|held| Issuer {
            has_key: held.data.contains_key("issuer.key"),
            issuer_pem: held.text("issuer.pem"),
            ca_pem: held.text("ca.pem"),
        })
    }));
    facts.injector_tls = Known::of(
        secret(cluster, namespace, INJECTOR_TLS)
            .await
            .map(|secret| secret.map(|held| InjectorTls { tls_crt: held.text("tls.crt") })),
    );
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{CONTROL}");
    facts.lease = Known::of(cluster.find(&lease).await);
    facts.trust_roots = Known::of(trust_roots(cluster).await);
    facts.pods = list(cluster, "/api/v1/pods", "").await;
    facts.access = rights(cluster, namespace, facts.cni).await?;
    facts.problems = problems(cluster, namespace, &facts).await;
    facts.proxies = ask_proxies(cluster, &facts, proxies).await;
    facts.init_logs = init_logs(cluster, &facts).await;
    Ok(facts)
}

/// What both need. An API server that is not reached ends everything: there is nothing else to tell.
async fn common(cluster: &Cluster, namespace: &str, cni: bool) -> anyhow::Result<Facts> {
    let server = match cluster.read("/version").await {
        Err(why @ Failure::Other(_)) => anyhow::bail!("{why}"),
        other => Known::of(other),
    };
    let crds: Known<Vec<Named>> =
        list(cluster, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "").await;
    Ok(Facts {
        now: Timestamp::now(),
        namespace: namespace.to_owned(),
        version: manifests::VERSION.to_owned(),
        cni,
        server,
        access: Vec::new(),
        nodes: list(cluster, "/api/v1/nodes", "").await,
        namespaces: list(cluster, "/api/v1/namespaces", "").await,
        webhooks: list(cluster, "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", "")
            .await,
        definitions: match crds {
            Known::Known(crds) => {
                let groups = [".gateway.networking.k8s.io", ".policy.weft.mesh"];
                let known =
                    crds.into_iter().filter(|crd| groups.iter().any(|one| crd.metadata.name.ends_with(one)));
                Known::Known(known.map(|crd| crd.metadata).collect())
            }
            Known::Unknown { unknown } => Known::Unknown { unknown },
        },
        deployments: Known::default(),
        daemon_sets: Known::default(),
        issuer: Known::default(),
        injector_tls: Known::default(),
        trust_roots: Known::default(),
        lease: Known::default(),
        pods: Known::default(),
        problems: BTreeMap::new(),
        proxies: BTreeMap::new(),
        init_logs: BTreeMap::new(),
    })
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Secret {
    #[serde(default)]
    data: BTreeMap<String, ByteString>,
}

impl Secret {
    fn text(&self, key: &str) -> Option<String> {
        self.data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
    }
}

#[derive(Deserialize)]
struct ConfigMap {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

async fn list<T: DeserializeOwned>(cluster: &Cluster, path: &str, selector: &str) -> Known<Vec<T>> {
    Known::of(cluster.list(path, selector).await)
}

async fn secret(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<Secret>, Failure> {
    cluster.find(&format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await
}

async fn trust_roots(cluster: &Cluster) -> Result<BTreeMap<String, String>, Failure> {
    let selector = format!("{}=weft", manifests::PART_OF);
    let maps: Vec<ConfigMap> = cluster.list("/api/v1/configmaps", &selector).await?;
    let ours = maps.into_iter().filter(|map| map.metadata.name == TRUST_ROOTS);
    Ok(ours
        .filter_map(|mut map| Some((map.metadata.namespace?, map.data.remove("ca.pem").unwrap_or_default())))
        .collect())
}

/// Whether the accounts of the mesh have what its manifests give them.
async fn rights(cluster: &Cluster, namespace: &str, cni: bool) -> anyhow::Result<Vec<Access>> {
    let variant = if cni { Variant::Cni } else { Variant::Default };
    let fit = Fit { namespace: namespace.to_owned(), ..Fit::default() };
    let questions = manifests::rights(&manifests::objects(variant.rendering(), &fit)?);
    let of = |right: Right| Access {
        account: Some(format!("{}/{}", right.account.0, right.account.1)),
        verb: right.verb,
        resource: qualified(&right.resource, &right.group),
        name: right.name,
        namespace: right.namespace,
        allowed: Known::default(),
    };
    Ok(ask(cluster, questions.into_iter().map(of).collect()).await)
}

/// `deployments.apps`; a subresource stays in its place: `pods/log`.
fn qualified(resource: &str, group: &str) -> String {
    match (group, resource.split_once('/')) {
        ("", _) => resource.to_owned(),
        (_, Some((resource, subresource))) => format!("{resource}.{group}/{subresource}"),
        (_, None) => format!("{resource}.{group}"),
    }
}

async fn ask(cluster: &Cluster, questions: Vec<Access>) -> Vec<Access> {
    let answers = stream::iter(questions).map(|mut question| async move {
        question.allowed = Known::of(may(cluster, &question).await);
        question
    });
    answers.buffered(AT_ONCE).collect().await
}

/// Asks the API server's authorizer (authorization.k8s.io/v1).
async fn may(cluster: &Cluster, question: &Access) -> Result<bool, Failure> {
    let (full, subresource) = question.resource.split_once('/').unwrap_or((&question.resource, ""));
    let (resource, group) = full.split_once('.').unwrap_or((full, ""));
    let attributes = json!({
        "verb": question.verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "name": question.name,
        "namespace": question.namespace,
    });
    let (kind, mut spec) = match &question.account {
        None => ("SelfSubjectAccessReview", json!({})),
        Some(account) => {
            let (namespace, name) = account.split_once('/').unwrap_or(("", account));
            let groups = [
                "system:serviceaccounts",
                &format!("system:serviceaccounts:{namespace}"),
                "system:authenticated",
            ];
            let user = format!("system:serviceaccount:{namespace}:{name}");
            ("SubjectAccessReview", json!({ "user": user, "groups": groups }))
        }
    };
    spec["resourceAttributes"] = attributes;
    let path = format!("/apis/authorization.k8s.io/v1/{}s", kind.to_lowercase());
    let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec });
    let answer: Value = cluster.review(&path, &review).await?;
    Ok(answer["status"]["allowed"] == true)
}

async fn problems(
    cluster: &Cluster,
    namespace: &str,
    facts: &Facts,
) -> BTreeMap<String, Known<Vec<Problem>>> {
    let replicas = facts.pods.known().into_iter().flatten().filter(|pod| {
        pod.metadata.namespace.as_deref() == Some(namespace)
            && pod.metadata.label("app.kubernetes.io/component") == Some("control")
            && pod.container_status(CONTROL).is_some_and(|status| status.ready)
    });
    let pages = stream::iter(replicas).map(|pod| async move {
        let name = &pod.metadata.name;
        (pod.title(), Known::of(page(cluster, namespace, name, CONTROL_ADMIN, "/problems").await))
    });
    pages.buffered(AT_ONCE).collect().await
}

/// Proxies that are ready, or could be, in order of their names.
async fn ask_proxies(cluster: &Cluster, facts: &Facts, most: usize) -> BTreeMap<String, Known<Proxy>> {
    let mut meshed: Vec<&Pod> = facts.pods.known().into_iter().flatten().collect();
    meshed.retain(|pod| pod.status.phase == "Running" && pod.proxy().is_some());
    meshed.sort_by_key(|pod| pod.title());
    let pages = stream::iter(meshed.into_iter().take(most)).map(|pod| async move {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        (pod.title(), Known::of(page(cluster, namespace, &pod.metadata.name, PROXY_ADMIN, "/config").await))
    });
    pages.buffered(AT_ONCE).collect().await
}

async fn page<T: DeserializeOwned>(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
    path: &str,
) -> Result<T, Failure> {
    let (status, body) = cluster.page(namespace, pod, port, path).await?;
    let said = |what: &str| Failure::Other(format!("{path} of pod {namespace}/{pod}: {what}"));
    if status != 200 {
        return Err(said(&format!("{status} {}", body.trim())));
    }
    serde_json::from_str(&body).map_err(|error| said(&error.to_string()))
}

/// What the last runs of failed weft-init containers have said, where their statuses do not hold it.
async fn init_logs(cluster: &Cluster, facts: &Facts) -> BTreeMap<String, String> {
    let failed = facts.pods.known().into_iter().flatten().filter(|pod| {
        pod.container_status(INIT_CONTAINER).is_some_and(|status| {
            let ended =
                [&status.state, &status.last_state].into_iter().filter_map(|state| state.terminated.as_ref());
            ended.take(1).any(|ended| ended.exit_code != 0 && ended.message.is_empty())
        })
    });
    let mut logs = BTreeMap::new();
    for pod in failed.take(LOGS) {
        let (namespace, name) = (pod.metadata.namespace.as_deref().unwrap_or_default(), &pod.metadata.name);
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods/{name}/log?container={INIT_CONTAINER}&tailLines={LOG_LINES}"
        );
        if let Ok(log) = cluster.text(&path).await {
            logs.insert(pod.title(), log);
        }
    }
    logs
}
