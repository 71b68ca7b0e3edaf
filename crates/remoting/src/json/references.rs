//! References in a body: `{"$ref":"$.a.b"}` stands for what is elsewhere in it.
//! Invariant: a reference of few bytes may name a large value, and many may name the same one; their copies are bounded.
//! Leaves keys without quotes to `keys`: it reads valid JSON.

use serde::de::DeserializeOwned;

/// Largest body in which references are followed: clients send them in small bodies only.
pub(super) const REFERRING_BODY_MAX: usize = 1 << 20;
/// Most memory that copies for references may take, all of one body together.
const COPIES_MAX: usize = 1 << 20;
/// What one value takes at least, with its place in a list or a map.
const VALUE_SIZE: usize = 64;

/// Whether there may be one.
pub(super) fn has_reference(body: &[u8]) -> bool {
    memchr::memmem::find(body, b"\"$ref\"").is_some()
}

/// Reads a body with each reference replaced by what it names.
pub(super) fn follow_references<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    use serde::de::Error;
    if body.len() > REFERRING_BODY_MAX {
        let most =
            format!("references are followed in bodies of at most {REFERRING_BODY_MAX} bytes");
        return Err(serde_json::Error::custom(most));
    }
    let mut tree: serde_json::Value = serde_json::from_slice(body)?;
    let whole = tree.clone();
    if resolve(&mut tree, &whole, &mut COPIES_MAX.clone()).is_none() {
        let most = format!("copies for references would take more than {COPIES_MAX} bytes");
        return Err(serde_json::Error::custom(most));
    }
    serde_json::from_value(tree)
}

/// Replaces `{"$ref":"$.a.b"}` by what the path names; references inside what was found stay.
/// `None` when the copies would take more than `left` bytes.
fn resolve(
    value: &mut serde_json::Value,
    whole: &serde_json::Value,
    left: &mut usize,
) -> Option<()> {
    if let Some(path) = value.get("$ref").and_then(serde_json::Value::as_str) {
        let found = look_up(whole, path).unwrap_or(&serde_json::Value::Null);
        charge(found, left)?;
        *value = found.clone();
        return Some(());
    }
    match value {
        serde_json::Value::Array(items) => {
            items.iter_mut().try_for_each(|v| resolve(v, whole, left))
        }
        serde_json::Value::Object(members) => {
            members.values_mut().try_for_each(|v| resolve(v, whole, left))
        }
        _ => Some(()),
    }
}

/// Takes what a copy of `value` needs from `left`; looks no further once that is used up.
fn charge(value: &serde_json::Value, left: &mut usize) -> Option<()> {
    let text = value.as_str().map_or(0, str::len);
    *left = left.checked_sub(VALUE_SIZE + text)?;
    match value {
        serde_json::Value::Array(items) => items.iter().try_for_each(|v| charge(v, left)),
        serde_json::Value::Object(members) => members.iter().try_for_each(|(key, v)| {
            *left = left.checked_sub(key.len())?;
            charge(v, left)
        }),
        _ => Some(()),
    }
}

fn look_up<'v>(whole: &'v serde_json::Value, path: &str) -> Option<&'v serde_json::Value> {
    let steps = path.strip_prefix('$')?.split(['.', '[', ']']).filter(|step| !step.is_empty());
    steps.into_iter().try_fold(whole, |value, step| match value {
        serde_json::Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        value => value.get(step),
    })
}
