//! What a record changes: the one reading of the log that replay and append share.
//! Invariant: depends on the record's bytes and on the topics known at its position, and on nothing else.
//! Leaves tables and views to those that apply the change.

use gantry_model::{
    PhysicalOffset, QueueId, QueueOffset, TopicId,
    properties::{ENDS, KEYS, REAL_TOPIC, TAGS, UNIQ_KEY},
};
use gantry_record::{RecordView, properties, sys_flag, tag_hash};

use crate::{
    batch::{Ends, KeySource},
    log_start::{self, START_TOPIC},
    state::{self, STATE_TOPIC, StateEntry, StateError},
    topics::TopicTable,
    views::layout::Entry,
};

/// Topic on which messages with a delay level wait.
pub const PARK_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Topic on which messages with a due time wait.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
/// Due time of a parked message, in milliseconds since 1970.
pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
/// What the log's own topics begin with: such a record is in no queue.
const INTERNAL_PREFIX: &str = "rmq_sys_gantry_";

/// A timer that begins to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerSet {
    /// Due time, in milliseconds since 1970.
    pub due_ms: u64,
    /// Position of the parked record.
    pub position: PhysicalOffset,
    /// Topic that it waits for; none if there is no such topic.
    pub target: Option<TopicId>,
}

/// A message and what it does besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: TopicId,
    /// Its queue.
    pub queue: QueueId,
    /// Its place in the queue; none for half messages and rollbacks.
    pub offset: Option<QueueOffset>,
    /// Where it is.
    pub entry: Entry,
    /// The timer that it is.
    pub timer: Option<TimerSet>,
    /// What it ends.
    pub ends: Option<Ends>,
}

/// What one record changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A message, in a topic that exists.
    Message(Message),
    /// State, in the order of the record.
    State(Vec<StateEntry>),
    /// The log starts there.
    LogStart(PhysicalOffset),
    /// A message of a topic that was deleted, which may still end something.
    Dropped {
        /// What it ends.
        ends: Option<Ends>,
    },
}

/// What `record` changes, given the topics defined before it. `None`: a record of the log's own.
pub(crate) fn of_record(
    record: &RecordView<'_>,
    topics: &TopicTable,
) -> Result<Option<Change>, StateError> {
    if record.topic() == STATE_TOPIC {
        let mut entries = state::decode(record.body())?;
        for entry in &mut entries {
            entry.settle(record.position());
        }
        return Ok(Some(Change::State(entries)));
    }
    if record.topic() == START_TOPIC {
        return Ok(Some(Change::LogStart(log_start::decode(record)?)));
    }
    if is_internal(record.topic()) {
        return Ok(None);
    }
    let ends = record.property(ENDS).and_then(Ends::parse);
    let Some(topic) = topics.covering(record.topic(), record.position()) else {
        return Ok(Some(Change::Dropped { ends }));
    };
    let entry = Entry {
        position: record.position(),
        size: record.size(),
        tag_hash: record.tag_hash().into(),
        store_time_ms: record.store_time_ms(),
    };
    Ok(Some(Change::Message(Message {
        topic: topic.id,
        queue: record.queue(),
        offset: enters_queue(record.sys_flag()).then(|| record.queue_offset()),
        entry,
        timer: timer_of(record, topics),
        ends,
    })))
}

/// Whether a topic is one of the store's own.
pub(crate) fn is_internal(topic: &str) -> bool {
    topic.starts_with(INTERNAL_PREFIX)
}

fn timer_of(record: &RecordView<'_>, topics: &TopicTable) -> Option<TimerSet> {
    if !matches!(record.topic(), PARK_TOPIC | TIMER_TOPIC) {
        return None;
    }
    let due_ms = record.property(TIMER_OUT_MS)?.parse().ok()?;
    let position = record.position();
    let target = record.property(REAL_TOPIC).and_then(|name| topics.covering(name, position));
    Some(TimerSet { due_ms, position, target: target.map(|topic| topic.id) })
}

/// Whether a record with this sys flag is in its queue: half messages and rollbacks are not.
pub(crate) fn enters_queue(sys_flag: i32) -> bool {
    matches!(sys_flag & sys_flag::TRANSACTION, 0 | sys_flag::TRANSACTION_COMMIT)
}

/// Words by which the record is found.
pub(crate) fn keys_of<'a>(record: &RecordView<'a>) -> KeySource<'a> {
    keys_in(record.properties_raw().as_bytes())
}

/// Words by which a record with these properties is found.
pub(crate) fn keys_in(raw: &[u8]) -> KeySource<'_> {
    let text = |key| properties::find(raw, key).and_then(|value| std::str::from_utf8(value).ok());
    KeySource { unique: text(UNIQ_KEY), keys: text(KEYS) }
}

/// Tag hash of stored properties.
pub(crate) fn tag_hash_of(raw: &[u8]) -> i64 {
    let tag = properties::find(raw, TAGS).and_then(|tag| std::str::from_utf8(tag).ok());
    tag.map_or(0, |tag| tag_hash(tag).into())
}

/// Hash under which the key index holds `key` of `topic`. Stored on disk: it never changes.
pub fn key_hash(topic: &str, key: &str) -> u64 {
    key_hash_from(key_seed(topic), key)
}

/// What the hashes of a topic's keys have in common.
pub(crate) fn key_seed(topic: &str) -> u64 {
    fnv(fnv(0xCBF2_9CE4_8422_2325, topic.as_bytes()), b"#")
}

/// [`key_hash`] from the topic's [`key_seed`].
pub(crate) fn key_hash_from(seed: u64, key: &str) -> u64 {
    // FNV-1a over `topic#key`, and a finish that spreads the low bits of short keys upwards.
    let hash = fnv(seed, key.as_bytes());
    (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}
