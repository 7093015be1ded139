//! What holds for every object that the chart renders, whatever its values: labels, rights, pod security, order.

use crate::{PROFILES, objects, template};
use serde_json::Value;

/// What may be created without a name, since the API server cannot ask for one there; and what has none to ask for.
const NAMELESS: &[(&str, &str)] = &[
    ("secrets", "create"),
    ("leases", "create"),
    ("tokenreviews", "create"),
    ("events", "create"),
    ("events", "patch"),
    ("nodes", "patch"),
];

/// What is only read, and read of the whole cluster. No Secret.
const READ: &[&str] = &[
    "backendpolicies",
    "backendtlspolicies",
    "configmaps",
    "endpointslices",
    "grpcroutes",
    "httproutes",
    "namespaces",
    "nodes",
    "pods",
    "referencegrants",
    "serviceaccounts",
    "services",
    "tcproutes",
    "tlsroutes",
    "trafficpolicies",
    "xbackendtrafficpolicies",
    "xmeshes",
];

/// Parts of objects that are read and written, of the whole cluster: what is said about routes and policies.
const STATUSES: &[&str] = &[
    "backendpolicies/status",
    "backendtlspolicies/status",
    "grpcroutes/status",
    "httproutes/status",
    "tcproutes/status",
    "tlsroutes/status",
    "trafficpolicies/status",
    "xbackendtrafficpolicies/status",
    "xmeshes/status",
];

fn each(check: impl Fn(&str, &Value)) {
    for (profile, flags) in PROFILES {
        for object in objects("weft-system", flags) {
            let name = format!("{profile}: {} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
            check(&name, &object);
        }
    }
}

#[test]
fn every_object_says_whose_it_is_and_where() {
    each(|name, object| {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "weft", "{name}");
        assert_eq!(labels["app.kubernetes.io/part-of"], "weft", "{name}");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{name}");
        assert_eq!(labels["app.kubernetes.io/version"], env!("CARGO_PKG_VERSION"), "{name}");
        let component = text(&labels["app.kubernetes.io/component"]);
        assert!(["control", "injector", "cni", "proxy"].contains(&component), "{name}: {component}");
        assert!(text(&object["metadata"]["name"]).starts_with("weft-"), "{name}");
        let cluster = ["ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"];
        let namespace = &object["metadata"]["namespace"];
        match cluster.contains(&text(&object["kind"])) {
            true => assert!(namespace.is_null(), "{name} is in no namespace"),
            false => assert_eq!(namespace, "weft-system", "{name}"),
        }
    });
}

#[test]
fn the_namespace_is_the_releases() {
    for (profile, flags) in PROFILES {
        let elsewhere = template("mesh", flags);
        assert!(!elsewhere.contains("weft-system"), "{profile}: a name of a namespace is fixed");
        assert_eq!(
            elsewhere.replace("mesh", ""),
            template("weft-system", flags).replace("mesh", "").replace("weft-system", "")
        );
    }
}

#[test]
fn rights_are_the_least() {
    each(|name, object| {
        for rule in list(&object["rules"]).iter().filter(|_| text(&object["kind"]).ends_with("Role")) {
            let named = !list(&rule["resourceNames"]).is_empty();
            for resource in list(&rule["resources"]).iter().map(text) {
                for verb in list(&rule["verbs"]).iter().map(text) {
                    let read = ["get", "list", "watch"].contains(&verb) && READ.contains(&resource);
                    let status = ["get", "patch"].contains(&verb) && STATUSES.contains(&resource);
                    let free = read || status || NAMELESS.contains(&(resource, verb));
                    assert!(named || free, "{name}: {verb} {resource} of any name");
                    assert!(
                        verb != "*" && resource != "*" && (status || !resource.contains('/')),
                        "{name}: {verb} {resource}"
                    );
                    assert!(verb != "delete", "{name}: nothing of the mesh deletes {resource}");
                }
            }
            let secrets = list(&rule["resources"]).iter().any(|one| one == "secrets");
            assert!(!secrets || object["kind"] == "Role", "{name}: Secrets of the whole cluster");
        }
    });
}

#[test]
fn bindings_bind_what_is_there() {
    for (profile, flags) in PROFILES {
        let objects = objects("weft-system", flags);
        let is_there = |kind: &Value, name: &Value| {
            objects.iter().any(|object| object["kind"] == *kind && object["metadata"]["name"] == *name)
        };
        for object in &objects {
            let name = format!("{profile}: {}", text(&object["metadata"]["name"]));
            if text(&object["kind"]).ends_with("RoleBinding") {
                assert!(
                    is_there(&object["roleRef"]["kind"], &object["roleRef"]["name"]),
                    "{name}: no such role"
                );
                for subject in list(&object["subjects"]) {
                    assert_eq!(subject["namespace"], "weft-system", "{name}");
                    assert!(is_there(&subject["kind"], &subject["name"]), "{name}: no such account");
                }
            }
            let account = &object["spec"]["template"]["spec"]["serviceAccountName"];
            assert!(
                account.is_null() || is_there(&Value::from("ServiceAccount"), account),
                "{name}: {account}"
            );
        }
    }
}

#[test]
fn pods_are_selected_and_outside_of_the_mesh() {
    each(|name, object| {
        let template = &object["spec"]["template"];
        if template.is_null() {
            return;
        }
        let labels = &template["metadata"]["labels"];
        assert_eq!(labels["weft.mesh/inject"], "disabled", "{name}");
        for (key, value) in object["spec"]["selector"]["matchLabels"].as_object().expect("a selector") {
            assert_eq!(labels[key], *value, "{name}: its own pods are not selected");
            let changing = ["app.kubernetes.io/version", "app.kubernetes.io/managed-by"];
            assert!(!changing.contains(&key.as_str()), "{name}: {key} changes, and a selector cannot");
        }
        for container in list(&template["spec"]["containers"]) {
            let image = text(&container["image"]);
            let (image, tag) = image.split_once(':').expect(name);
            assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{name}");
            assert!(
                ["weft.mesh/control", "weft.mesh/injector", "weft.mesh/init"].contains(&image),
                "{name}: {image}"
            );
            assert!(!container["resources"]["requests"].is_null(), "{name}: no requests");
            for probe in ["livenessProbe", "readinessProbe"] {
                let port = &container[probe]["httpGet"]["port"];
                let ports = list(&container["ports"]);
                assert!(ports.iter().any(|one| one["name"] == *port), "{name}: {probe} asks {port}");
            }
        }
    });
}

/// Pod Security "restricted" takes all pods but those of CNI mode, which work on the node itself.
#[test]
fn pods_are_restricted() {
    each(|name, object| {
        let pod = &object["spec"]["template"]["spec"];
        if pod.is_null() || object["kind"] == "DaemonSet" {
            return;
        }
        for host in ["hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"] {
            assert!(pod[host].is_null(), "{name}: {host}");
        }
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["runAsUser"], 65532, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for volume in list(&pod["volumes"]) {
            assert!(volume["hostPath"].is_null(), "{name}: {volume}");
        }
        for container in list(&pod["containers"]) {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(context["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{name}");
            assert!(context["privileged"].is_null() && context["runAsUser"].is_null(), "{name}");
        }
    });
}

#[test]
fn the_webhook_comes_last_and_leaves_its_bundle_alone() {
    for (profile, flags) in &PROFILES[..3] {
        let objects = objects("weft-system", flags);
        let last = objects.last().expect("objects");
        assert_eq!(last["kind"], "MutatingWebhookConfiguration", "{profile}");
        let kinds: Vec<_> = objects.iter().map(|object| text(&object["kind"])).collect();
        let first = |kind: &str| kinds.iter().position(|one| *one == kind).expect(kind);
        let order = ["ServiceAccount", "ConfigMap", "ClusterRole", "Role", "Service", "Deployment"];
        assert!(order.map(first).is_sorted(), "{profile}: {kinds:?}");
        let webhooks = list(&last["webhooks"]);
        assert_eq!(webhooks.len(), 2, "{profile}");
        for webhook in webhooks {
            assert!(webhook["clientConfig"]["caBundle"].is_null(), "{profile}: the injector's field");
            let namespaces = list(&webhook["namespaceSelector"]["matchExpressions"]);
            let names = namespaces.iter().find(|one| one["key"] == "kubernetes.io/metadata.name");
            let names = names.expect("namespaces that are never touched");
            assert_eq!(names["operator"], "NotIn", "{profile}");
            for namespace in ["kube-system", "weft-system"] {
                assert!(list(&names["values"]).iter().any(|one| one == namespace), "{profile}: {namespace}");
            }
        }
    }
}

#[test]
fn a_budget_never_holds_up_the_only_replica() {
    for (replicas, budgets) in [(1, 0), (2, 2), (3, 2)] {
        let flag = format!("--set=control.replicas={replicas},injector.replicas={replicas}");
        let objects = objects("weft-system", &[&flag]);
        let found = objects.iter().filter(|object| object["kind"] == "PodDisruptionBudget").count();
        assert_eq!(found, budgets, "{replicas} replicas");
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
