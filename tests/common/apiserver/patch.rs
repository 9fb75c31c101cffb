//! Patches.

use serde_json::{Map, Value};

/// JSON merge patch (RFC 7386).
pub(super) fn merge(target: &mut Value, patch: &Value) {
    patch_with(target, patch, &|_, target, patch| {
        *target = patch.clone();
    });
}

/// Strategic merge patch, for the lists that have a key: conditions (by type).
pub(super) fn strategic(target: &mut Value, patch: &Value) {
    patch_with(target, patch, &|field, target, patch| match (field, target.as_array_mut(), patch.as_array()) {
        ("conditions", Some(present), Some(news)) => news.iter().for_each(|new| merge_condition(present, new)),
        _ => *target = without_directives(patch),
    });
}

fn merge_condition(present: &mut Vec<Value>, new: &Value) {
    if new["$patch"] == "delete" {
        present.retain(|old| old["type"] != new["type"]);
    } else if let Some(old) = present.iter_mut().find(|old| old["type"] == new["type"]) {
        strategic(old, new);
    } else {
        present.push(new.clone());
    }
}

fn without_directives(patch: &Value) -> Value {
    match patch {
        Value::Array(items) => Value::Array(items.iter().filter(|item| item["$patch"] != "delete").cloned().collect()),
        other => other.clone(),
    }
}

fn patch_with(target: &mut Value, patch: &Value, list: &dyn Fn(&str, &mut Value, &Value)) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(present) = target.as_object_mut() else { return };
    for (name, value) in fields {
        match value {
            Value::Null => {
                present.remove(name);
            }
            Value::Array(_) => list(name, present.entry(name).or_insert(Value::Null), value),
            _ => patch_with(present.entry(name).or_insert(Value::Null), value, list),
        }
    }
}
