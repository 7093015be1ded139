//! JSON Patch (RFC 6902): the operations that make one document another, and their application. Pure.
//!
//! Arrays keep what they have in common at both ends; so a patch that puts a container in front moves no other.

use serde::Serialize;
use serde_json::Value;

/// One operation; paths are JSON Pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    Add { path: String, value: Value },
    Remove { path: String },
    Replace { path: String, value: Value },
}

/// A patch does not fit the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the document has no {0}")]
pub struct NoSuchPath(pub String);

/// The operations that make `old` into `new`; none when they are equal.
pub fn between(old: &Value, new: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    compare(&mut operations, "", old, new);
    operations
}

fn compare(operations: &mut Vec<Operation>, path: &str, old: &Value, new: &Value) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let path = format!("{path}/{}", escape(key));
                match new.get(key) {
                    Some(changed) => compare(operations, &path, value, changed),
                    None => operations.push(Operation::Remove { path }),
                }
            }
            for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                let path = format!("{path}/{}", escape(key));
                operations.push(Operation::Add { path, value: value.clone() });
            }
        }
        (Value::Array(old), Value::Array(new)) => compare_items(operations, path, old, new),
        _ => operations.push(Operation::Replace { path: path.to_owned(), value: new.clone() }),
    }
}

fn compare_items(operations: &mut Vec<Operation>, path: &str, old: &[Value], new: &[Value]) {
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[start..], &new[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    if old.len() == new.len() {
        for (place, (old, new)) in old.iter().zip(new).enumerate() {
            compare(operations, &format!("{path}/{}", start + place), old, new);
        }
        return;
    }
    operations.extend(old.iter().map(|_| Operation::Remove { path: format!("{path}/{start}") }));
    operations.extend(new.iter().enumerate().map(|(place, value)| Operation::Add {
        path: format!("{path}/{}", start + place),
        value: value.clone(),
    }));
}

/// Carries the operations out; at the first one that does not fit, the document is left half done.
pub fn apply(document: &mut Value, operations: &[Operation]) -> Result<(), NoSuchPath> {
    for operation in operations {
        let (Operation::Add { path, .. } | Operation::Remove { path } | Operation::Replace { path, .. }) =
            operation;
        let missing = || NoSuchPath(path.clone());
        if let (Operation::Replace { value, .. } | Operation::Add { value, .. }, "") =
            (operation, path.as_str())
        {
            document.clone_from(value);
            continue;
        }
        let (parent, key) = path.rsplit_once('/').ok_or_else(missing)?;
        let key = unescape(key);
        match (document.pointer_mut(parent).ok_or_else(missing)?, operation) {
            (Value::Object(object), Operation::Add { value, .. }) => drop(object.insert(key, value.clone())),
            (Value::Object(object), Operation::Remove { .. }) => {
                drop(object.remove(&key).ok_or_else(missing)?)
            }
            (Value::Object(object), Operation::Replace { value, .. }) => {
                object.get_mut(&key).ok_or_else(missing)?.clone_from(value);
            }
            (Value::Array(items), operation) => {
                let place: usize =
                    if key == "-" { items.len() } else { key.parse().map_err(|_| missing())? };
                match operation {
                    Operation::Add { value, .. } if place <= items.len() => {
                        items.insert(place, value.clone())
                    }
                    Operation::Remove { .. } if place < items.len() => drop(items.remove(place)),
                    Operation::Replace { value, .. } if place < items.len() => items[place].clone_from(value),
                    _ => return Err(missing()),
                }
            }
            _ => return Err(missing()),
        }
    }
    Ok(())
}

/// RFC 6901, section 3.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn unescape(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_stands_behind_stays() {
        let old = json!({"containers": [{"name": "a"}, {"name": "b"}], "gone": 1, "a/b~c": null});
        let new = json!({"containers": [{"name": "weft"}, {"name": "a"}, {"name": "b"}], "a/b~c": {}});
        let operations = between(&old, &new);
        assert_eq!(
            serde_json::to_value(&operations).unwrap(),
            json!([
                {"op": "replace", "path": "/a~1b~0c", "value": {}},
                {"op": "add", "path": "/containers/0", "value": {"name": "weft"}},
                {"op": "remove", "path": "/gone"},
            ])
        );
        assert_eq!(between(&new, &new), []);
    }

    #[test]
    fn a_patch_that_does_not_fit_says_where() {
        let mut document = json!({"a": [1]});
        let operations = [Operation::Remove { path: "/a/3".into() }];
        assert_eq!(apply(&mut document, &operations), Err(NoSuchPath("/a/3".into())));
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..3).prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[ab/~]{1,2}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_operations_lead_from_one_to_the_other(old in documents(), new in documents()) {
            let mut document = old.clone();
            apply(&mut document, &between(&old, &new)).unwrap();
            prop_assert_eq!(document, new);
        }
    }
}
