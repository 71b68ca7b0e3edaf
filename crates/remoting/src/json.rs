//! JSON bodies: strict, standard and legacy writing, lenient reading.
//!
//! RocketMQ's own serializer writes maps whose keys are numbers or objects without quotes
//! (`{0:"ip"}`, `{{"queueId":0}:5}`), which is not JSON. The legacy writer produces that form
//! where clients parse it as text; the reader accepts it, and references to repeated objects.
//! All output is compact: some clients cannot read white space.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::ser::{CharEscape, Formatter};

/// Deepest nesting of a body that is rewritten before it is read.
const DEPTH_MAX: usize = 64;
/// Largest body in which references are followed: clients send them in small bodies only.
const REFERRING_BODY_MAX: usize = 1 << 20;
/// Most memory that copies for references may take, all of one body together.
const COPIES_MAX: usize = 1 << 20;
/// What one value takes at least, with its place in a list or a map.
const VALUE_SIZE: usize = 64;

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

fn has_reference(body: &[u8]) -> bool {
    memchr::memmem::find(body, b"\"$ref\"").is_some()
}

/// A reference of few bytes may name a large value, and many may name the same one: their copies are bounded.
fn follow_references<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
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

/// Turns keys that are numbers or objects into strings and leaves out members that are `null`; `None` when the text is too deep or ends
/// inside a value. What else is wrong with it is left to the JSON reader.
pub fn quote_keys(body: &[u8]) -> Option<Cow<'_, [u8]>> {
    let out = Vec::with_capacity(body.len() + 64);
    let mut rewriter = Rewriter { body, at: 0, out, in_key: false };
    rewriter.value(0)?;
    rewriter.out.extend_from_slice(&body[rewriter.at..]);
    Some(Cow::Owned(rewriter.out))
}

struct Rewriter<'b> {
    body: &'b [u8],
    at: usize,
    out: Vec<u8>,
    /// Whether an object is read that is a key.
    in_key: bool,
}

impl Rewriter<'_> {
    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            _ => self.bare(),
        }
    }

    /// An object without its members that are `null`: for RocketMQ these are the same as absent.
    fn object(&mut self, depth: usize) -> Option<()> {
        self.copy();
        self.space();
        let mut separator: &[u8] = b"";
        while self.peek()? != b'}' {
            let start = self.out.len();
            self.out.extend_from_slice(separator);
            self.key(depth)?;
            self.space();
            (self.peek()? == b':').then_some(())?;
            self.copy();
            let value = self.out.len();
            self.value(depth + 1)?;
            if self.out[value..] == *b"null" {
                self.out.truncate(start);
            } else {
                separator = b",";
            }
            self.end_of_item(b'}')?;
        }
        self.copy();
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.copy();
        self.space();
        let mut separator: &[u8] = b"";
        while self.peek()? != b']' {
            self.out.extend_from_slice(separator);
            self.value(depth + 1)?;
            separator = b",";
            self.end_of_item(b']')?;
        }
        self.copy();
        Some(())
    }

    /// Passes the comma after an item, or stops before the bracket.
    fn end_of_item(&mut self, close: u8) -> Option<()> {
        self.space();
        if self.peek()? == b',' {
            self.at += 1;
            self.space();
            return Some(());
        }
        (self.peek()? == close).then_some(())
    }

    fn key(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string(),
            b'{' => {
                // Each level of keys within keys would double the escapes; the protocol has one.
                (!self.in_key).then_some(())?;
                let start = self.out.len();
                self.in_key = true;
                self.object(depth + 1)?;
                self.in_key = false;
                let key = self.out.split_off(start);
                let text = String::from_utf8(key).ok()?;
                serde_json::to_writer(&mut self.out, &text).ok()
            }
            _ => {
                self.out.push(b'"');
                self.bare()?;
                self.out.push(b'"');
                Some(())
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.copy();
        while self.peek()? != b'"' {
            if self.peek()? == b'\\' {
                self.copy();
                self.peek()?;
            }
            self.copy();
        }
        self.copy();
        Some(())
    }

    /// A number or a word.
    fn bare(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') =
            self.body.get(self.at)
        {
            self.copy();
        }
        (self.at > start).then_some(())
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    /// Copies one byte; callers have peeked at it.
    fn copy(&mut self) {
        self.out.push(self.body[self.at]);
        self.at += 1;
    }
}

/// Writes numeric keys without quotes, and keys that are the JSON of an object as that object.
#[derive(Default)]
struct LegacyFormatter {
    key: KeyState,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum KeyState {
    #[default]
    NotAKey,
    /// A key has begun; its quote is held back until its kind is known.
    Begun,
    Text,
    /// A number or an object: no quotes, no escapes.
    Bare,
}

impl LegacyFormatter {
    fn begin_text<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.key = KeyState::Text;
        writer.write_all(b"\"")
    }
}

impl Formatter for LegacyFormatter {
    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.key = KeyState::Begun;
        if first { Ok(()) } else { writer.write_all(b",") }
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        self.key = KeyState::NotAKey;
        Ok(())
    }

    fn begin_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key == KeyState::Begun { Ok(()) } else { writer.write_all(b"\"") }
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        match self.key {
            // Nothing came between the quotes, or only a number, which left the state alone.
            KeyState::Begun | KeyState::Bare => Ok(()),
            KeyState::Text | KeyState::NotAKey => writer.write_all(b"\""),
        }
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if self.key == KeyState::Begun {
            if fragment.starts_with('{') {
                self.key = KeyState::Bare;
            } else {
                self.begin_text(writer)?;
            }
        }
        writer.write_all(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match (self.key, &escape) {
            (KeyState::Bare, CharEscape::Quote) => return writer.write_all(b"\""),
            (KeyState::Bare, CharEscape::ReverseSolidus) => return writer.write_all(b"\\"),
            (KeyState::Begun, _) => self.begin_text(writer)?,
            _ => {}
        }
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

/// Escapes every character outside ASCII.
struct AsciiFormatter;

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut units = [0; 2];
        for part in fragment.split_inclusive(|c: char| !c.is_ascii()) {
            let ascii = part.trim_end_matches(|c: char| !c.is_ascii());
            writer.write_all(ascii.as_bytes())?;
            for character in part[ascii.len()..].chars() {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04X}")?;
                }
            }
        }
        Ok(())
    }
}

/// A queue as the protocol names it: the "MQ object".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageQueue {
    /// Name of the broker group.
    #[serde(default)]
    pub broker_name: String,
    /// Number of the queue; -1 stands for all queues of the broker.
    #[serde(default)]
    pub queue_id: i32,
    /// Name of the topic.
    #[serde(default)]
    pub topic: String,
}

/// A map keyed by queues, in the order in which it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueTable<V>(pub Vec<(MessageQueue, V)>);

impl<V> Default for QueueTable<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> FromIterator<(MessageQueue, V)> for QueueTable<V> {
    fn from_iter<I: IntoIterator<Item = (MessageQueue, V)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<V: Serialize> Serialize for QueueTable<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (queue, value) in &self.0 {
            let key = serde_json::to_string(queue).map_err(serde::ser::Error::custom)?;
            map.serialize_entry(&key, value)?;
        }
        map.end()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for QueueTable<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = QueueTable<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map keyed by queues")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                Ok(QueueTable::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    let queue = serde_json::from_str(&key).map_err(serde::de::Error::custom)?;
                    entries.push((queue, value));
                }
                Ok(QueueTable(entries))
            }
        }
        deserializer.deserialize_any(Entries(PhantomData))
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

    use super::*;
    use proptest::prelude::*;

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
