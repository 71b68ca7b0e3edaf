//! Compares a rendered object with the one that the API server holds.
//! Invariant: what the API server only writes in another form (defaults that it adds, empty values that it drops,
//! quantities that it rewrites) is no difference.
//! Pure; leaves what follows from a difference to `apply`.

use serde_json::Value;

use crate::quantity;

/// Path of the first value of `rendered` that `present` has otherwise, or `None` when it has all of them.
pub(crate) fn within(rendered: &Value, present: &Value) -> Option<String> {
    let mut path = Vec::new();
    differs(rendered, present, &mut path).then(|| path.join("."))
}

fn differs(rendered: &Value, present: &Value, path: &mut Vec<String>) -> bool {
    match (rendered, present) {
        (Value::Object(wanted), Value::Object(held)) => wanted.iter().any(|(key, wanted)| {
            path.push(key.clone());
            let differs = differs(wanted, held.get(key).unwrap_or(&Value::Null), path);
            if !differs {
                path.pop();
            }
            differs
        }),
        (Value::Array(wanted), Value::Array(held)) if wanted.len() == held.len() => {
            wanted.iter().zip(held).enumerate().any(|(index, (wanted, held))| {
                path.push(index.to_string());
                let differs = differs(wanted, held, path);
                if !differs {
                    path.pop();
                }
                differs
            })
        }
        (Value::String(wanted), Value::String(held)) => {
            wanted != held && !quantity::equal(wanted, held)
        }
        (wanted, Value::Null) => !is_empty(wanted),
        (wanted, held) => wanted != held,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_other_forms_of_the_same_are_no_difference() {
        let rendered = json!({
            "spec": { "containers": [{ "name": "a", "resources": { "limits": { "cpu": "0.5", "memory": "1024Mi" } } }],
                "empty": {}, "none": null, "list": [] },
        });
        let present = json!({
            "metadata": { "uid": "x" },
            "spec": { "containers": [{ "name": "a", "imagePullPolicy": "Always",
                "resources": { "limits": { "cpu": "500m", "memory": "1Gi" } } }] },
        });
        assert_eq!(within(&rendered, &present), None);
    }

    #[test]
    fn a_difference_is_named_by_its_path() {
        let present = json!({ "spec": { "items": [{ "name": "a" }, { "name": "b" }], "n": 1 } });
        let cases = [
            (
                json!({ "spec": { "items": [{ "name": "a" }, { "name": "c" }] } }),
                "spec.items.1.name",
            ),
            (json!({ "spec": { "items": [{ "name": "a" }] } }), "spec.items"),
            (json!({ "spec": { "n": 2 } }), "spec.n"),
            (json!({ "spec": { "missing": "x" } }), "spec.missing"),
        ];
        for (rendered, path) in cases {
            assert_eq!(within(&rendered, &present).as_deref(), Some(path));
        }
    }
}
