//! The CustomResourceDefinitions, as they are checked in and applied.

use crate::{BackendPolicy, TrafficPolicy};
use kube_core::CustomResourceExt;
use serde_json::{Map, Value, json};

/// All of them, by name.
pub fn crds() -> Vec<Value> {
    [serde_json::to_value(BackendPolicy::crd()), serde_json::to_value(TrafficPolicy::crd())]
        .map(|crd| finish(crd.expect("a CustomResourceDefinition is JSON")))
        .into()
}

/// What the derivation cannot say.
fn finish(mut crd: Value) -> Value {
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        tidy(schema);
        let status = &mut schema["properties"]["status"]["properties"]["ancestors"];
        status["x-kubernetes-list-type"] = json!("atomic");
        let conditions = &mut status["items"]["properties"]["conditions"];
        conditions["x-kubernetes-list-type"] = json!("map");
        conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    }
    let metadata = crd["metadata"].as_object_mut().expect("a CustomResourceDefinition has metadata");
    let labels = metadata.entry("labels").or_insert_with(|| Value::Object(Map::new()));
    labels["app.kubernetes.io/name"] = json!("weft");
    labels["app.kubernetes.io/part-of"] = json!("weft");
    crd
}

/// `null` says nothing in our objects, so it is not allowed: the API server drops it or refuses it, and no rule meets it.
/// The formats are ones that Kubernetes does not know and warns of; whole numbers are written as such.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
            }
            let format = fields.get("format").and_then(Value::as_str);
            if format.is_some_and(|format| format.starts_with("uint")) {
                fields.remove("format");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Number(number) => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e9);
            if let Some(whole) = whole {
                *schema = json!(whole as i64);
            }
        }
        _ => {}
    }
}
