//! The CustomResourceDefinitions in the chart are those of the types. `UPDATE=1` writes them.

#![allow(clippy::disallowed_methods, reason = "UPDATE is read from the environment, and only by the test")]

use api::{BackendPolicySpec, TrafficPolicySpec, Validate, crds};
use serde_json::Value;
use std::{env, fs, path::Path};

#[test]
fn the_chart_holds_what_the_types_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weft/crds");
    let mut stale = Vec::new();
    for crd in crds() {
        let name = crd["metadata"]["name"].as_str().expect("a name");
        let path = folder.join(format!("{name}.yaml"));
        let text = format!(
            "# Made from the types in api/src (UPDATE=1 cargo test -p api); not edited by hand.\n{}",
            serde_saphyr::to_string(&crd).expect("YAML")
        );
        if env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(&path, &text).expect("a file");
        }
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            stale.push(path.display().to_string());
        }
        let read: Value = serde_saphyr::from_str(&text).expect("YAML");
        assert_eq!(read, crd, "{name} is read as it was written");
    }
    assert!(stale.is_empty(), "UPDATE=1 cargo test -p api writes {stale:?}");
}

/// What the API server asks of a schema, as far as it can go wrong here.
#[test]
fn schemas_are_structural_and_explained() {
    for crd in crds() {
        let schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        walk("", &schema, &mut |path, schema| {
            let typed = schema["type"].is_string() || schema["x-kubernetes-int-or-string"] == true;
            assert!(typed, "{path} has no type");
            assert!(
                schema.get("$ref").is_none() && schema.get("oneOf").is_none(),
                "{path} is not structural"
            );
            let array_of = path.ends_with("[]");
            let described = schema["description"].is_string() || array_of || path.is_empty();
            assert!(described, "{path} is not explained");
            assert!(schema.get("nullable").is_none(), "{path} may be null");
        });
    }
}

fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
}

const TARGET: &str = "targetRefs: [{kind: Service, name: cart}]\n";

fn traffic(text: &str) -> Result<Vec<String>, String> {
    let spec: TrafficPolicySpec =
        serde_saphyr::from_str(&format!("{TARGET}{text}")).map_err(|error| error.to_string())?;
    Ok(spec.breaches().into_iter().map(|breach| breach.field).collect())
}

fn backend(text: &str) -> Result<Vec<String>, String> {
    let spec: BackendPolicySpec =
        serde_saphyr::from_str(&format!("{TARGET}{text}")).map_err(|error| error.to_string())?;
    Ok(spec.breaches().into_iter().map(|breach| breach.field).collect())
}

#[test]
fn a_whole_policy_is_read_and_written_back() {
    let text = "{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: cart, sectionName: beta}], \
        timeouts: {connect: 2s, idle: 0s, streamIdle: 1m, maxStreamDuration: 1h, request: 10s, \
        backendRequest: 3s}, retry: {httpCodes: [502, 503], grpcCodes: [UNAVAILABLE, 8], reasons: [connection_refused], \
        attempts: 3, perTryTimeout: 1s, backoff: {base: 10ms, max: 1s}, bodyLimit: 1Mi, otherHost: false}, \
        hedge: {delay: 50ms, max: 2}, fault: {delay: {duration: 1s, percent: 12.5}, abort: {grpcStatus: 14}, \
        headers: [{name: x-user, value: beta}]}}";
    let spec: TrafficPolicySpec = serde_saphyr::from_str(text).expect("a policy");
    assert_eq!(spec.breaches(), []);
    let written = serde_json::to_value(&spec).expect("JSON");
    assert_eq!(serde_json::from_value::<TrafficPolicySpec>(written.clone()).expect("a policy"), spec);
    assert_eq!(written["retry"]["grpcCodes"], serde_json::json!(["UNAVAILABLE", "RESOURCE_EXHAUSTED"]));
    assert_eq!(written["fault"]["delay"]["percent"], 12.5);
}

#[test]
fn what_breaks_a_rule_is_named() {
    for (text, field) in [
        ("", "spec"),
        ("timeouts: {request: 1s, backendRequest: 2s}", "spec.timeouts.backendRequest"),
        ("timeouts: {request: 1s, backendRequest: 0s}", "spec.timeouts.backendRequest"),
        ("retry: {httpCodes: [200]}", "spec.retry.httpCodes"),
        ("retry: {backoff: {base: 2s, max: 1s}}", "spec.retry.backoff"),
        ("hedge: {delay: 0s}", "spec.hedge.delay"),
        ("fault: {}", "spec.fault"),
        ("fault: {abort: {percent: 5}}", "spec.fault.abort"),
        ("fault: {abort: {httpStatus: 500, grpcStatus: 14}}", "spec.fault.abort"),
        ("directResponse: {status: 99}", "spec.directResponse.status"),
        ("directResponse: {status: 200}\nretry: {}", "spec.directResponse"),
    ] {
        assert_eq!(traffic(text).expect(text), [field], "{text}");
    }
    for text in ["timeouts: {request: 0s, backendRequest: 2s}", "timeouts: {}", "retry: {attempts: 0}"] {
        assert_eq!(traffic(text).expect(text), [""; 0], "{text}");
    }
    for (text, field) in [
        ("limits: {maxRequests: 0}", "spec.limits.maxRequests"),
        ("failureAccrual: {minPenalty: 2m, maxPenalty: 1m}", "spec.failureAccrual.minPenalty"),
        (
            "sessionPersistence: {type: Header, cookieConfig: {lifetimeType: Session}}",
            "spec.sessionPersistence.cookieConfig",
        ),
        (
            "sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}",
            "spec.sessionPersistence.absoluteTimeout",
        ),
        ("retryBudget: {percent: 101}", "spec.retryBudget.percent"),
        ("failureAccrual: {maxEjectionPercent: 101}", "spec.failureAccrual.maxEjectionPercent"),
        ("retryBudget: {interval: 10ms}", "spec.retryBudget.interval"),
    ] {
        assert_eq!(backend(text).expect(text), [field], "{text}");
    }
    let spec: TrafficPolicySpec = serde_saphyr::from_str(
        "{targetRefs: [{kind: HTTPRoute, name: a}, {kind: Namespace, name: shop, sectionName: x}], timeouts: {}}",
    )
    .expect("a policy");
    let fields: Vec<String> = spec.breaches().into_iter().map(|breach| breach.field).collect();
    assert_eq!(fields, ["spec.targetRefs[0].group", "spec.targetRefs[1].sectionName"]);
}

#[test]
fn values_that_cannot_be_are_refused() {
    for text in [
        "timeouts: {request: soon}",
        "retry: {grpcCodes: [GONE]}",
        "retry: {bodyLimit: much}",
        "fault: {delay: {duration: 1s, percent: 101}}",
    ] {
        assert!(traffic(text).is_err(), "{text}");
    }
    assert!(serde_saphyr::from_str::<TrafficPolicySpec>("{targetRefs: [{kind: Gateway, name: a}]}").is_err());
}
