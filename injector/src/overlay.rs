//! Lays what we want of a container over what is there: ours prevails, and what others added since (defaults of the
//! API server, mounts, limits, variables of other webhooks) stays. Pure.

use crate::values::Quantity;
use serde_json::Value;

/// Makes `there` hold all of `wanted`. Where it does already, nothing changes: that is what makes a second
/// invocation end in an empty patch, though the API server has written its defaults into the first one's result.
pub fn lay(there: &mut Value, wanted: &Value) {
    lay_field("", there, wanted);
}

/// By which field the items of a list are told apart; none where the list is a whole.
fn identity(field: &str) -> Option<&'static str> {
    match field {
        "env" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "ports" => Some("containerPort"),
        _ => None,
    }
}

fn lay_field(field: &str, there: &mut Value, wanted: &Value) {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            for (key, value) in wanted {
                // The fields of these are quantities, and the API server writes them in its own way.
                let inner = if matches!(field, "limits" | "requests") { "quantity" } else { key.as_str() };
                match there.get_mut(key) {
                    Some(there) => lay_field(inner, there, value),
                    None => drop(there.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(there), Value::Array(wanted)) if identity(field).is_some() => {
            let Some(key) = identity(field) else { return };
            for (place, value) in wanted.iter().enumerate() {
                let found = there.iter().position(|item| item.get(key) == value.get(key));
                let mut item = found.map_or(Value::Null, |found| there.remove(found));
                lay_field("", &mut item, value);
                there.insert(place, item);
            }
        }
        (Value::String(there), Value::String(wanted))
            if field == "quantity" && Quantity::same(there, wanted) => {}
        (there, wanted) => there.clone_from(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(there: Value, wanted: Value, expected: Value) {
        let mut laid = there;
        lay(&mut laid, &wanted);
        assert_eq!(laid, expected);
        let again = laid.clone();
        lay(&mut laid, &wanted);
        assert_eq!(laid, again, "a second time");
    }

    #[test]
    fn ours_prevails_and_the_rest_stays() {
        check(
            json!({"image": "old", "stdin": true, "args": ["a", "b"], "securityContext": {"runAsUser": 1}}),
            json!({"image": "new", "args": ["c"], "securityContext": {"runAsGroup": 2}}),
            json!({"image": "new", "stdin": true, "args": ["c"], "securityContext": {"runAsUser": 1, "runAsGroup": 2}}),
        );
    }

    #[test]
    fn items_are_known_by_their_names() {
        check(
            json!({"env": [{"name": "B", "value": "b"}, {"name": "WEFT", "value": "old"}],
                   "volumeMounts": [{"mountPath": "/a", "name": "x"}]}),
            json!({"env": [{"name": "WEFT", "value": "new"}], "volumeMounts": [{"mountPath": "/b", "name": "y"}]}),
            json!({"env": [{"name": "WEFT", "value": "new"}, {"name": "B", "value": "b"}],
                   "volumeMounts": [{"mountPath": "/b", "name": "y"}, {"mountPath": "/a", "name": "x"}]}),
        );
    }

    #[test]
    fn quantities_keep_the_spelling_of_the_api_server() {
        check(
            json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}),
            json!({"resources": {"limits": {"cpu": "1000m", "memory": "2Gi"}}}),
            json!({"resources": {"limits": {"cpu": "1", "memory": "2Gi"}}}),
        );
        check(json!({"value": "1"}), json!({"value": "1000m"}), json!({"value": "1000m"}));
    }
}
