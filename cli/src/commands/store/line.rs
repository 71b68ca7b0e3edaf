//! One line of a dump: what lies at a position, as fields in a fixed order.
//! Invariant: the same fields reach people and programs; only for people times are dates and long texts are cut.
//! Leaves what is printed to `dump`.

use std::{
    fmt,
    time::{Duration, UNIX_EPOCH},
};

use gantry_model::{
    PhysicalOffset,
    properties::{CRC32, KEYS, TAGS, UNIQ_KEY},
};
use gantry_record::RecordView;
use gantry_store::{
    inspect::{ImagePart, Kind},
    state::StateEntry,
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::dump::Body;

/// Characters of one value that people see.
const VALUE_CHARACTERS_MAX: usize = 120;
/// Fields that a line begins with, each in a column.
const COLUMNS: [&str; 4] = ["position", "kind", "size", "store_time_ms"];

/// What lies at a position.
pub(super) struct Line(Vec<(&'static str, Value)>);

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Line {
    /// A line about a place.
    pub(super) fn new(kind: &'static str, position: PhysicalOffset, end: PhysicalOffset) -> Self {
        let size = end.0 - position.0;
        Self(vec![("position", json!(position)), ("kind", json!(kind)), ("size", json!(size))])
    }

    /// A line about a record.
    pub(super) fn of_record(record: &RecordView<'_>, body: Body) -> Self {
        let kind = Kind::of(record);
        let end = record.position().plus(record.size().into());
        let mut line = Self::new(kind.name(), record.position(), end);
        line.put("store_time_ms", record.store_time_ms());
        match &kind {
            Kind::Message | Kind::Half | Kind::Rollback => line.put_message(record, body),
            Kind::Header(header) => {
                line.put("store_id", header.store_id.to_string());
                line.put("epoch", header.epoch);
                line.put("newest_image", json!(header.newest_image));
                line.put("segment_bytes", header.segment_bytes);
                line.put("synced", json!(header.synced));
                line.put("last_time_ms", header.last_time_ms);
            }
            Kind::Mark { synced, .. } => line.put("synced", json!(synced)),
            Kind::State(entries) => line.put_entries(entries),
            Kind::Image(piece) => {
                line.put("state_of", json!(piece.position));
                match &piece.part {
                    ImagePart::Begin => line.put("part", "begin"),
                    ImagePart::End { parts } => {
                        line.put("part", "end");
                        line.put("parts", *parts);
                    }
                    ImagePart::Entries { number, entries } => {
                        line.put("part", *number);
                        line.put_entries(entries);
                    }
                }
            }
            Kind::Start { position } => line.put("log_start", json!(position)),
            Kind::Unknown { reason } => {
                line.put("topic", record.topic());
                line.put("reason", reason.as_str());
            }
        }
        line
    }

    /// Adds a field.
    pub(super) fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }

    fn put_entries(&mut self, entries: &[StateEntry]) {
        self.put("entries", entries.iter().map(entry_value).collect::<Vec<_>>());
    }

    fn put_message(&mut self, record: &RecordView<'_>, body: Body) {
        self.put("topic", record.topic());
        self.put("queue", record.queue().0);
        self.put("queue_offset", record.queue_offset().0);
        let shown = [("tag", TAGS), ("keys", KEYS), ("unique_key", UNIQ_KEY)];
        for (name, property) in shown {
            if let Some(value) = record.property(property) {
                self.put(name, value);
            }
        }
        // The checksum that ends each record says nothing of the message.
        let is_other =
            |name: &str| name != CRC32 && shown.iter().all(|(_, property)| name != *property);
        let others: serde_json::Map<_, _> = record
            .properties()
            .filter(|(name, _)| is_other(name))
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        if !others.is_empty() {
            self.put("properties", others);
        }
        self.put("body_bytes", record.body().len());
        match (body, std::str::from_utf8(record.body())) {
            (Body::None, _) => {}
            (Body::Text, Ok(text)) => self.put("body", text),
            (Body::Text, Err(_)) | (Body::Hex, _) => self.put("body_hex", hex(record.body())),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn entry_value(entry: &StateEntry) -> Value {
    match entry {
        StateEntry::Topic { id, since, version, config } => json!({
            "entry": "topic", "name": config.topic_name, "id": id, "since": since, "version": version.counter,
            "definition": config,
        }),
        StateEntry::TopicGone { id, version } => {
            json!({"entry": "topic_gone", "id": id, "version": version.counter})
        }
        StateEntry::Group { version, config } => {
            let name = &config.group_name;
            json!({"entry": "group", "name": name, "version": version.counter, "definition": config})
        }
        StateEntry::GroupGone { group, clean_offsets, version } => json!({
            "entry": "group_gone", "name": group, "clean_offsets": clean_offsets, "version": version.counter,
        }),
        StateEntry::Offset(commit) => json!({
            "entry": "offset", "group": commit.group, "topic": commit.topic, "queue": commit.queue,
            "offset": commit.offset,
        }),
        StateEntry::NextOffset { topic, queue, next } => {
            json!({"entry": "next_offset", "topic": topic, "queue": queue, "next": next})
        }
        StateEntry::Timer { due_ms, position, target } => {
            json!({"entry": "timer", "due_ms": due_ms, "position": position, "target": target})
        }
        StateEntry::Counters(counters) => json!({
            "entry": "counters", "next_topic_id": counters.next_topic_id,
            "topics_version": counters.topics.counter, "groups_version": counters.groups.counter,
        }),
        StateEntry::Hidden { topic, before_ms } => {
            json!({"entry": "hidden", "topic": topic, "before_ms": before_ms})
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = |name| self.0.iter().find(|(found, _)| *found == name).map(|(_, value)| value);
        let number = |name| field(name).and_then(Value::as_u64).unwrap_or(0);
        let kind = field("kind").and_then(Value::as_str).unwrap_or("");
        let (position, size) = (number("position"), number("size"));
        let time = stored_text(number("store_time_ms"));
        write!(f, "{position:>12} {kind:<8} {size:>8} {time}")?;
        let others = self.0.iter().filter(|(name, _)| !COLUMNS.contains(name));
        others.clone().try_for_each(|(name, value)| write!(f, " {name}={}", value_text(value)))
    }
}

/// `2026-01-31T12:00:00.123Z`, or `-` for no time.
fn stored_text(time_ms: u64) -> String {
    if time_ms == 0 {
        return "-".into();
    }
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(time_ms)).to_string()
}

/// An entry of state: what it is, its name, its numbers, and its definition at last.
fn entry_text(entry: &Value) -> String {
    let Value::Object(fields) = entry else { return entry.to_string() };
    let is_first = |name: &str| matches!(name, "entry" | "name");
    let first = ["entry", "name"].into_iter().filter_map(|name| fields.get(name)?.as_str());
    let others = fields.iter().filter(|(name, _)| !is_first(name));
    let (definitions, numbers): (Vec<_>, Vec<_>) = others.partition(|(_, value)| value.is_object());
    let others = numbers.into_iter().chain(definitions);
    let others = others.map(|(name, value)| format!("{name}={}", value_text(value)));
    first.map(str::to_owned).chain(others).collect::<Vec<_>>().join(" ")
}

/// A value on one line, and not too long.
fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Array(entries) => {
            let texts: Vec<_> = entries.iter().map(|entry| cut(entry_text(entry))).collect();
            format!("[{}]", texts.join("; "))
        }
        Value::String(text) if is_plain(text) => cut(text.clone()),
        value => cut(value.to_string()),
    }
}

/// Whether a text can be told from what is around it without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"')
}

fn cut(text: String) -> String {
    match text.char_indices().nth(VALUE_CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
