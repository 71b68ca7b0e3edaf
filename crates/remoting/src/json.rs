//! JSON bodies: strict, standard and legacy writing, lenient reading.
//!
//! RocketMQ's own serializer writes maps whose keys are numbers or objects without quotes
//! (`{0:"ip"}`, `{{"queueId":0}:5}`), which is not JSON. The legacy writer produces that form
//! where clients parse it as text; the reader accepts it, and references to repeated objects.
//! All output is compact: some clients cannot read white space.

mod keys;
mod queues;
mod references;
mod writers;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::ser::Formatter;

pub use self::{
    keys::quote_keys,
    queues::{MessageQueue, QueueTable},
};
use self::{
    references::{follow_references, has_reference},
    writers::{AsciiFormatter, LegacyFormatter},
};

/// Why a body is not what its command needs.
#[derive(Debug, thiserror::Error)]
#[error("body of {bytes} bytes is no {what}: {source}")]
pub struct BodyError {
    /// What was expected.
    pub what: &'static str,
    /// Size of the body.
    pub bytes: usize,
    /// The cause, with its place.
    pub source: serde_json::Error,
}

/// A body in JSON, in one of the two forms its command uses.
pub trait JsonBody: Serialize + DeserializeOwned {
    /// What the body is, for errors.
    const WHAT: &'static str;

    /// Valid JSON: numeric keys are quoted.
    fn to_json(&self) -> Bytes {
        to_json(self)
    }

    /// RocketMQ's own form: numeric and object keys are not quoted.
    fn to_legacy_json(&self) -> Bytes {
        to_legacy_json(self)
    }

    /// Reads either form.
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        from_json(body).map_err(|source| BodyError { what: Self::WHAT, bytes: body.len(), source })
    }
}

/// Writes valid JSON. Text is UTF-8, and only what must be escaped is.
pub fn to_json(value: &impl Serialize) -> Bytes {
    let mut out = Vec::with_capacity(256);
    serde_json::to_writer(&mut out, value).expect(BODIES_SERIALIZE);
    out.into()
}

/// Writes RocketMQ's own form: numeric and object keys without quotes.
pub fn to_legacy_json(value: &impl Serialize) -> Bytes {
    write_with(LegacyFormatter::default(), value)
}

/// Writes valid JSON of ASCII characters alone, as the standard form of a route is.
pub fn to_ascii_json(value: &impl Serialize) -> Bytes {
    write_with(AsciiFormatter, value)
}

/// Bodies have string, integer and `QueueKey` keys only, and memory does not fail to be written.
const BODIES_SERIALIZE: &str = "a body's types serialize into memory";

fn write_with(formatter: impl Formatter, value: &impl Serialize) -> Bytes {
    let mut out = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    value.serialize(&mut serializer).expect(BODIES_SERIALIZE);
    out.into()
}

/// Reads JSON, or failing that RocketMQ's own form of it.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let error = match serde_json::from_slice(body) {
        Ok(value) if !has_reference(body) => return Ok(value),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    let Some(quoted) = quote_keys(body) else {
        return Err(error.unwrap_or_else(|| serde::de::Error::custom("keys cannot be quoted")));
    };
    if has_reference(&quoted) {
        follow_references(&quoted)
    } else {
        serde_json::from_slice(&quoted)
    }
}

/// Declares a body: a struct in camel case whose absent members have their default.
macro_rules! body {
    (
        $(#[$meta:meta])*
        pub struct $name:ident: $what:literal {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        $crate::json::json_bodies!($name: $what,);
    };
}
pub(crate) use body;

/// Declares bodies as such: `Type: "what it is",`.
macro_rules! json_bodies {
    ($($type:ty: $what:literal,)*) => {
        $(impl $crate::json::JsonBody for $type {
            const WHAT: &'static str = $what;
        })*
    };
}
pub(crate) use json_bodies;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::{references::REFERRING_BODY_MAX, *};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        addresses: BTreeMap<u64, String>,
        queues: QueueTable<i64>,
        names: BTreeMap<String, f64>,
    }

    fn sample() -> Sample {
        let queue = MessageQueue { broker_name: "b".into(), queue_id: 1, topic: "T\"\\é".into() };
        Sample {
            addresses: [(0, "1.1.1.1:1".to_owned()), (7, String::new())].into(),
            queues: [(queue, -5)].into_iter().collect(),
            names: [(String::new(), 0.0), ("9".to_owned(), 1.5)].into(),
        }
    }

    #[test]
    fn legacy_form_leaves_numeric_and_object_keys_without_quotes() {
        let text = to_legacy_json(&Sample { names: [("x".to_owned(), 0.5)].into(), ..sample() });
        let expected = r#"{"addresses":{0:"1.1.1.1:1",7:""},"queues":{{"brokerName":"b","queueId":1,"topic":"T\"\\é"}:-5},"names":{"x":0.5}}"#;
        assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
    }

    #[test]
    fn both_forms_are_read_back() {
        let value = Sample { names: [("x".to_owned(), 0.5)].into(), ..sample() };
        assert_eq!(from_json::<Sample>(&to_legacy_json(&value)).unwrap(), value);
        assert_eq!(from_json::<Sample>(&to_json(&sample())).unwrap(), sample());
    }

    #[test]
    fn reference_to_a_repeated_object_is_resolved() {
        let text = br#"{"a":{"list":[{"x":3}]},"b":{"$ref":"$.a.list[0]"},"c":{0:1}}"#;
        let tree: serde_json::Value = from_json(text).unwrap();
        assert_eq!(tree["b"]["x"], 3);
        let text = br#"{"b":{"$ref":"$.nowhere"}}"#;
        assert!(from_json::<serde_json::Value>(text).unwrap()["b"].is_null());
    }

    #[test]
    fn references_cannot_multiply_a_body() {
        let large = "x".repeat(100_000);
        let list = |count| {
            let references = vec![r#"{"$ref":"$.large"}"#; count].join(",");
            format!(r#"{{"large":"{large}","list":[{references}]}}"#)
        };
        let few: serde_json::Value = from_json(list(10).as_bytes()).unwrap();
        assert_eq!(few["list"][9], few["large"]);
        let error = from_json::<serde_json::Value>(list(11).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");
        // Many small values count as what they take, not as what they are written with.
        let nothing = "0,".repeat(20_000);
        let text = format!(r#"{{"large":[{nothing}0],"a":{{"$ref":"$.large"}}}}"#);
        assert!(from_json::<serde_json::Value>(text.as_bytes()).is_err());
        let text = format!(r#"{{"a":{{"$ref":"$"}},"b":[{}0]}}"#, "0,".repeat(REFERRING_BODY_MAX));
        let error = from_json::<serde_json::Value>(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("bodies of at most"), "{error}");
    }

    #[test]
    fn ascii_form_escapes_other_characters_as_utf16() {
        assert_eq!(&to_ascii_json(&"aé日x𝄞")[..], br#""a\u00E9\u65E5x\uD834\uDD1E""#);
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(quote_keys(&b"[".repeat(1_000_000)), None);
        assert_eq!(quote_keys(&b"{{".repeat(1_000_000)), None);
        assert_eq!(quote_keys(br#"{{{"a":1}:2}:3}"#), None);
        assert!(from_json::<serde_json::Value>(&b"{0:".repeat(1_000_000)).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in r#"[{}\[\]",:0-9a$\\ ]{0,64}"#) {
            let _ = from_json::<serde_json::Value>(text.as_bytes());
            let _ = from_json::<QueueTable<i64>>(text.as_bytes());
        }

        #[test]
        fn valid_json_is_left_valid(value in any_json()) {
            let text = to_json(&value);
            let quoted = quote_keys(&text).unwrap();
            prop_assert_eq!(from_json::<serde_json::Value>(&quoted).unwrap(), value);
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
            any::<bool>().prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Value>()),
            ]
        })
    }
}
