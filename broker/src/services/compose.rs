//! What the broker reads of a message's properties, and the properties that it stores instead.
//! Invariant: one pass over the text of a usual message, and no copy but the stored one.
//! Leaves the meaning of a message's topic to `send`. Source: RocketMQ remoting, request code 310.

use gantry_model::{
    QueueId,
    properties::{
        CLUSTER, CRC32, DELAY, ENDS, INNER_NUM, KEYS, MSG_REGION, POP_CK, REAL_QUEUE_ID,
        REAL_TOPIC, SHARDING_KEY, TAGS, TIMER_DELAY_MS, TIMER_DELAY_SEC, TIMER_DELIVER_MS,
        TRACE_ON, TRANSACTION_PREPARED, UNIQ_KEY, WAIT,
    },
};
use gantry_record::{
    RecordView, UniqueIds,
    properties::{self, VALUE_END},
};
use gantry_store::{Index, KeySource, Now, Topic, change::TIMER_OUT_MS};

/// Key that asks to cancel a timed message.
const TIMER_CANCEL: &str = "TIMER_DEL_UNIQKEY";

/// Region that every broker says it is in.
pub const REGION: &str = "DefaultRegion";

/// Properties that only the broker may write.
const BROKER_KEYS: [&str; 5] = [POP_CK, CLUSTER, MSG_REGION, TRACE_ON, TIMER_OUT_MS];
/// Properties of a parked message that are gone when it is delivered, and that a message to be parked must
/// not have yet.
pub const PARK_KEYS: [&str; 3] = [REAL_TOPIC, REAL_QUEUE_ID, TIMER_OUT_MS];
/// Properties that ask for a delay.
pub const DELAY_KEYS: [&str; 4] = [DELAY, TIMER_DELAY_SEC, TIMER_DELAY_MS, TIMER_DELIVER_MS];

/// When a message is to be delivered, as its producer wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerWish<'a> {
    /// So many seconds from now.
    DelaySeconds(&'a str),
    /// So many milliseconds from now.
    DelayMillis(&'a str),
    /// At this time, in milliseconds since 1970.
    At(&'a str),
}

/// What the broker reads of a message's properties. Of a repeated key the last value counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent marks of one text")]
pub struct Seen<'a> {
    /// Unique id that the client gave.
    pub unique_key: Option<&'a str>,
    /// Words by which the message is found.
    pub keys: Option<&'a str>,
    /// Its tag.
    pub tag: Option<&'a str>,
    /// Its delay level, as written.
    pub delay: Option<&'a str>,
    /// Its due time, as written.
    pub timer: Option<TimerWish<'a>>,
    /// Whether the producer does not want to wait for disk and replicas.
    pub no_wait: bool,
    /// Whether it is half of a transaction.
    pub half: bool,
    /// Whether it has an ordering key.
    pub ordered: bool,
    /// Whether it says that it holds several messages.
    pub inner_batch: bool,
    /// Whether it cancels a timed message.
    pub cancels: bool,
    /// Whether it has a property that only the broker may write.
    has_broker_keys: bool,
}

impl<'a> Seen<'a> {
    /// Reads the properties' text.
    pub fn of(text: &'a str) -> Self {
        let mut seen = Self::default();
        let (mut seconds, mut millis, mut at) = (None, None, None);
        for (key, value) in entries(text) {
            match key {
                UNIQ_KEY => seen.unique_key = Some(value),
                KEYS => seen.keys = Some(value),
                TAGS => seen.tag = Some(value),
                WAIT => seen.no_wait = value.eq_ignore_ascii_case("false"),
                DELAY => seen.delay = Some(value),
                TIMER_DELAY_SEC => seconds = Some(value),
                TIMER_DELAY_MS => millis = Some(value),
                TIMER_DELIVER_MS => at = Some(value),
                TIMER_CANCEL => seen.cancels = true,
                TRANSACTION_PREPARED => seen.half = value.eq_ignore_ascii_case("true"),
                SHARDING_KEY => seen.ordered = true,
                INNER_NUM => seen.inner_batch = true,
                CRC32 | ENDS => seen.has_broker_keys = true,
                key if BROKER_KEYS.contains(&key) => seen.has_broker_keys = true,
                _ => {}
            }
        }
        seen.timer = (seconds.map(TimerWish::DelaySeconds))
            .or(millis.map(TimerWish::DelayMillis))
            .or(at.map(TimerWish::At));
        seen
    }

    /// Hash of the tag, 0 without one.
    pub fn tag_hash(&self) -> i64 {
        self.tag.map_or(0, |tag| gantry_record::tag_hash(tag).into())
    }
}

/// Entries of a text. The separators are ASCII, so that keys and values are text again.
fn entries(text: &str) -> impl Iterator<Item = (&str, &str)> {
    // Of a text nothing has to be checked but that a part begins and ends between characters.
    let part = move |part: &[u8]| {
        let from = part.as_ptr() as usize - text.as_ptr() as usize;
        text.get(from..from + part.len())
    };
    properties::entries(text.as_bytes())
        .filter_map(move |(key, value)| Some((part(key)?, part(value)?)))
}

/// What every message gets.
pub struct Stamp {
    /// Encoded entries: region, trace switch, cluster.
    entries: Vec<u8>,
    unique_ids: UniqueIds,
}

impl Stamp {
    /// The stamp of a broker in `cluster`, which is a topic name and so has no separator.
    pub fn new(cluster: &str, unique_ids: UniqueIds) -> Self {
        let mut entries = Vec::new();
        for (key, value) in [(MSG_REGION, REGION), (TRACE_ON, "true"), (CLUSTER, cluster)] {
            put(&mut entries, key, value);
        }
        Self { entries, unique_ids }
    }

    /// Most bytes that a stamp adds to a message's properties.
    pub fn bytes_max(&self) -> usize {
        // The key, a unique id with an IPv6 address, two separators; and the entry's end that may be missing.
        self.entries.len() + UNIQ_KEY.len() + 56 + 2 + 1
    }

    /// Writes the stored properties of a message into `out`, without the entries in `drop`, and returns where
    /// its unique id is, whoever gave it.
    pub fn write(
        &self,
        text: &str,
        seen: &Seen<'_>,
        drop: &[&str],
        now: Now,
        out: &mut Vec<u8>,
    ) -> std::ops::Range<usize> {
        out.clear();
        if seen.has_broker_keys || !drop.is_empty() {
            let mut keys: smallvec::SmallVec<[&str; 16]> = BROKER_KEYS.into_iter().collect();
            keys.push(ENDS);
            keys.extend_from_slice(drop);
            properties::edit(text.as_bytes(), &keys, out);
        } else {
            out.extend_from_slice(text.as_bytes());
            if !out.is_empty() && !out.ends_with(&[VALUE_END]) {
                out.push(VALUE_END);
            }
        }
        let unique = match seen.unique_key {
            Some(id) => place_of(id, text, out),
            None => self.put_unique_id(now, out),
        };
        out.extend_from_slice(&self.entries);
        unique
    }

    fn put_unique_id(&self, now: Now, out: &mut Vec<u8>) -> std::ops::Range<usize> {
        out.extend_from_slice(UNIQ_KEY.as_bytes());
        out.push(properties::KEY_END);
        let start = out.len();
        self.unique_ids.put_next(now.wall_ms, out);
        let unique = start..out.len();
        out.push(VALUE_END);
        unique
    }
}

/// Where the value `part` of `text` is in `out`: at the same place if the text was copied whole, else wherever
/// the edited properties have it.
fn place_of(part: &str, text: &str, out: &[u8]) -> std::ops::Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    let same = start..start + part.len();
    if out.get(same.clone()) == Some(part.as_bytes()) {
        return same;
    }
    let found = properties::find(out, UNIQ_KEY).unwrap_or_default();
    let start = (found.as_ptr() as usize).saturating_sub(out.as_ptr() as usize);
    start..start + found.len()
}

/// Appends an entry whose key and value have no separator: names and numbers.
pub fn put(out: &mut Vec<u8>, key: &str, value: &str) {
    properties::put(out, key, value).expect("names and numbers have no separator");
}

/// Appends an entry with a number.
pub fn put_number(out: &mut Vec<u8>, key: &str, value: u64) {
    put(out, key, itoa::Buffer::new().format(value));
}

/// What the views learn of a message with these stored properties.
pub fn index<'a>(stored: &'a [u8], unique: std::ops::Range<usize>, seen: &Seen<'a>) -> Index<'a> {
    // An id that the client gave is stored as it is.
    let stored_id = || std::str::from_utf8(&stored[unique]).ok();
    let unique = seen.unique_key.or_else(stored_id).filter(|id| !id.is_empty());
    let keys = KeySource { unique, keys: seen.keys };
    Index { tag_hash: seen.tag_hash(), keys, ..Index::default() }
}

/// Appends what a parked message must know: where it goes, and when.
pub(super) fn park(properties: &mut Vec<u8>, topic: &Topic, queue: QueueId, due_ms: u64) {
    put(properties, REAL_TOPIC, topic.name());
    put_number(properties, REAL_QUEUE_ID, queue.0.into());
    put_number(properties, TIMER_OUT_MS, due_ms);
}

/// What the views learn of a message that is stored again with the properties of an earlier record.
pub(super) fn index_of_record<'a>(record: &RecordView<'a>) -> Index<'a> {
    let keys = KeySource { unique: record.property(UNIQ_KEY), keys: record.property(KEYS) };
    Index { tag_hash: record.tag_hash().into(), keys, ..Index::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(entries: &[(&str, &str)]) -> String {
        entries
            .iter()
            .fold(String::new(), |text, (key, value)| text + key + "\u{1}" + value + "\u{2}")
    }

    fn stamp() -> Stamp {
        Stamp::new("c", UniqueIds::new([127, 0, 0, 1].into(), 1, 2))
    }

    fn stored(text: &str, drop: &[&str]) -> (String, String) {
        let (stamp, mut out) = (stamp(), Vec::new());
        let now = Now { wall_ms: 1_700_000_000_000, monotonic_ms: 0 };
        let unique = stamp.write(text, &Seen::of(text), drop, now, &mut out);
        let out = String::from_utf8(out).unwrap();
        assert!(out.len() <= text.len() + stamp.bytes_max());
        (out[unique].to_owned(), out)
    }

    #[test]
    fn usual_message_keeps_its_text_and_gets_the_stamp() {
        let text = text(&[("KEYS", "k"), ("UNIQ_KEY", "ABC"), ("a", "b")]);
        let (unique, out) = stored(&text, &[]);
        assert_eq!(unique, "ABC");
        assert_eq!(
            out,
            format!(
                "{text}MSG_REGION\u{1}DefaultRegion\u{2}TRACE_ON\u{1}true\u{2}CLUSTER\u{1}c\u{2}"
            )
        );
    }

    #[test]
    fn message_without_unique_id_or_last_separator_gets_both() {
        let (unique, out) = stored("a\u{1}b", &[]);
        assert_eq!(unique.len(), 32);
        assert!(out.starts_with(&format!("a\u{1}b\u{2}UNIQ_KEY\u{1}{unique}\u{2}MSG_REGION")));
        let (unique, _) = stored("", &[]);
        assert_eq!(unique.len(), 32);
    }

    #[test]
    fn index_names_the_id_that_is_stored() {
        let repeated = text(&[("UNIQ_KEY", "A"), ("CLUSTER", "x"), ("UNIQ_KEY", "B")]);
        for (text, expected) in
            [(repeated.as_str(), Some("B")), ("UNIQ_KEY\u{1}C", Some("C")), ("", None)]
        {
            let (stamp, seen, mut out) = (stamp(), Seen::of(text), Vec::new());
            let now = Now { wall_ms: 1_700_000_000_000, monotonic_ms: 0 };
            let unique = stamp.write(text, &seen, &[], now, &mut out);
            let found = index(&out, unique, &seen).keys.unique.map(str::as_bytes);
            assert_eq!(found, properties::find(&out, UNIQ_KEY), "{text:?}");
            assert!(expected.is_none() || found == expected.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn what_only_the_broker_may_write_is_replaced() {
        let forged = text(&[
            ("POP_CK", "x"),
            ("CLUSTER", "other"),
            ("TIMER_OUT_MS", "1"),
            ("__GANTRY_ENDS", "timer:1:2"),
            ("UNIQ_KEY", "U"),
            ("__CRC32#", "0000000000"),
        ]);
        let (unique, out) = stored(&forged, &[]);
        assert_eq!(unique, "U");
        assert!(out.starts_with("UNIQ_KEY\u{1}U\u{2}MSG_REGION"), "{out:?}");
    }

    #[test]
    fn last_value_of_a_repeated_key_counts_and_first_kind_of_timer_wins() {
        let text = text(&[
            ("TIMER_DELIVER_MS", "9"),
            ("TIMER_DELAY_SEC", "1"),
            ("TAGS", "a"),
            ("TAGS", "TagA"),
            ("WAIT", "FALSE"),
        ]);
        let seen = Seen::of(&text);
        assert_eq!(seen.timer, Some(TimerWish::DelaySeconds("1")));
        assert_eq!(seen.tag_hash(), 2_598_919);
        assert!(seen.no_wait && !seen.half);
    }
}
