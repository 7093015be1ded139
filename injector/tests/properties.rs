//! What holds for every pod, however odd: a second decision changes nothing, nothing of the pod's own is lost, and the
//! application's containers are as restricted as they were.

#![allow(clippy::unwrap_used)]

use injector::{Config, INJECT, Namespace, Verdict, decide, patch, sidecar};
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A pod as people write them, and as nobody does.
fn pods() -> impl Strategy<Value = Value> {
    let annotations = option::of(prop_oneof![
        Just(json!({})),
        Just(json!({"weft.mesh/sidecar": "classic"})),
        Just(json!({"weft.mesh/redirection": "cni", "weft.mesh/skip-inbound-ports": "80,8080-8090"})),
        Just(json!({"weft.mesh/proxy-cpu-limit": "1000m", "weft.mesh/proxy-memory-limit": "1024Mi"})),
        Just(json!({"weft.mesh/not-injected": "an earlier reason", "weft.mesh/redirect": "{}"})),
    ]);
    let lists =
        (option::of(vec(containers(), 0..3)), vec(containers(), 1..4), option::of(vec(volumes(), 0..3)));
    let rest = (option::of(0..100i64), any::<bool>(), any::<bool>());
    (annotations, lists, rest).prop_map(|(annotations, (before, beside, volumes), (grace, odd, labelled))| {
        let mut spec = json!({"containers": named(beside, "c"), "fieldOfTomorrow": {"x": [null, 1.5]}});
        let mut set = |key: &str, value: Option<Value>| match value {
            Some(value) => spec[key] = value,
            None if odd => spec[key] = Value::Null,
            None => {}
        };
        set("initContainers", before.map(|before| named(before, "i")));
        set("volumes", volumes.map(|volumes| named(volumes, "v")));
        set("terminationGracePeriodSeconds", grace.map(Value::from));
        let mut metadata = json!({"generateName": "web-"});
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        if labelled {
            metadata["labels"] = json!({"weft.mesh/injected": "true", "app": "web"});
        }
        json!({"metadata": metadata, "spec": spec, "status": {}})
    })
}

fn containers() -> impl Strategy<Value = Value> {
    let probe = prop_oneof![
        Just(json!({"tcpSocket": {"port": 8080}, "periodSeconds": 3})),
        Just(json!({"tcpSocket": {"port": "http"}})),
        Just(json!({"tcpSocket": {"port": "nobody"}})),
        Just(json!({"httpGet": {"path": "/", "port": "http"}})),
        Just(json!({"grpc": {"port": 5000}})),
        Just(Value::Null),
    ];
    (probe.clone(), probe, any::<bool>(), any::<bool>()).prop_map(|(live, ready, always, restricted)| {
        let mut container = json!({
            "image": "web", "ports": [{"name": "http", "containerPort": 8000}], "livenessProbe": live,
            "readinessProbe": ready, "fieldOfTomorrow": [{"name": "weft-proxy"}],
        });
        if always {
            container["restartPolicy"] = "Always".into();
        }
        if restricted {
            container["securityContext"] = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}});
        }
        container
    })
}

fn volumes() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"emptyDir": {}})),
        Just(json!({"secret": {"secretName": "s", "defaultMode": 256}}))
    ]
}

fn named(items: Vec<Value>, prefix: &str) -> Value {
    let named = items.into_iter().enumerate().map(|(place, mut item)| {
        item["name"] = format!("{prefix}{place}").into();
        item
    });
    named.collect()
}

fn namespace() -> Namespace {
    Namespace { labels: BTreeMap::from([(INJECT.into(), "enabled".into())]), annotations: BTreeMap::new() }
}

fn injected(pod: &Value) -> Value {
    let Verdict::Patch { operations, .. } = decide(&Config::default(), &namespace(), pod) else {
        panic!("{pod}");
    };
    let mut after = pod.clone();
    patch::apply(&mut after, &operations).unwrap();
    after
}

/// The pod with nothing of ours in it, and with nothing that says as much as a missing field.
fn without_ours(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for list in ["initContainers", "containers", "volumes"] {
        let items = pod["spec"][list].as_array().cloned().unwrap_or_default();
        let is_ours = |item: &Value| {
            item["name"].as_str().is_some_and(|name| sidecar::OURS.contains(&name) || name == sidecar::VOLUME)
        };
        let mut items: Vec<_> = items.into_iter().filter(|item| !is_ours(item)).collect();
        for item in &mut items {
            for probe in ["livenessProbe", "readinessProbe"] {
                // What a probe asks may change; when and how often it does may not.
                if let Some(probe) = item.get_mut(probe).and_then(Value::as_object_mut) {
                    probe.retain(|key, _| !["tcpSocket", "httpGet"].contains(&key.as_str()));
                }
            }
        }
        pod["spec"][list] = items.into();
    }
    for map in ["labels", "annotations"] {
        let kept = pod["metadata"][map].as_object().cloned().unwrap_or_default();
        let kept: Map<_, _> = kept
            .into_iter()
            .filter(|(key, _)| !key.starts_with("weft.mesh/") && !key.starts_with("kubectl"))
            .collect();
        pod["metadata"][map] = kept.into();
    }
    pod
}

proptest! {
    #[test]
    fn deciding_twice_changes_nothing(pod in pods()) {
        let once = injected(&pod);
        let Verdict::Patch { operations, .. } = decide(&Config::default(), &namespace(), &once) else {
            return Err(TestCaseError::fail("refused"));
        };
        prop_assert_eq!(operations, vec![]);
    }

    #[test]
    fn nothing_of_the_pods_own_is_lost(pod in pods()) {
        prop_assert_eq!(without_ours(&injected(&pod)), without_ours(&pod));
    }

    #[test]
    fn ours_are_there_once_and_without_privileges(pod in pods()) {
        let after = injected(&pod);
        let all: Vec<&Value> = ["initContainers", "containers"]
            .into_iter()
            .flat_map(|list| after["spec"][list].as_array().unwrap())
            .filter(|container| sidecar::OURS.contains(&container["name"].as_str().unwrap()))
            .collect();
        prop_assert_eq!(all.len(), 2);
        for container in all {
            let security = &container["securityContext"];
            prop_assert_eq!(&security["allowPrivilegeEscalation"], false);
            prop_assert_eq!(&security["capabilities"]["drop"], &json!(["ALL"]));
            prop_assert_eq!(&security["seccompProfile"]["type"], "RuntimeDefault");
            // Pod Security "restricted" takes all of ours but the one that redirects.
            let redirects = container["name"] == sidecar::INIT;
            prop_assert_eq!(&security["runAsNonRoot"], !redirects);
            prop_assert_eq!(security["capabilities"].get("add").is_some(), redirects);
        }
    }

    #[test]
    fn whatever_is_written_is_answered(pod in pods(), place in 0..6usize, junk in "[^a]{0,3}|disabled|[0-9]{1,6}m?") {
        let names = ["sidecar", "skip-inbound-ports", "inject", "proxy-cpu-limit", "proxy-log-level", "drain-timeout"];
        let mut pod = pod;
        pod["metadata"]["annotations"] = json!({format!("weft.mesh/{}", names[place]): junk});
        let first = decide(&Config::default(), &namespace(), &pod);
        prop_assert_eq!(decide(&Config::default(), &namespace(), &pod), first);
    }
}
