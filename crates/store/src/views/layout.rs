//! Keys and values of the views.
//!
//! ```text
//! queue   topic u32 | queue u32 | queue offset u64  →  run of entries, each: position u64 | size u32 | tag hash i64 |
//!                                                      store time u64; of consecutive offsets that end at that of the key
//! timer   due time u64 | position u64               →  target topic u32 (0xFFFF_FFFF: none)
//! offset  topic u32 | queue u32 | group             →  next offset u64
//! meta    'A'                                       →  applied position u64 | layout version u32
//!         'C'                                       →  counters (a state entry)
//!         'T' topic u32                             →  topic definition (a state entry)
//!         'H' topic u32                             →  time before which its messages are hidden (a state entry)
//!         'G' group                                 →  group definition (a state entry)
//!         'Q' topic u32 | queue u32                 →  next queue offset u64
//!         'L' end u64                               →  messages that a damaged place may have held, u64; while a replay
//!                                                      goes on
//!         'S'                                       →  newest start of the log that a record says, position u64
//! ```
//!
//! Invariant: integers are big-endian, so that the order of keys is the order of numbers. The key `A` and its value stay
//! as they are in every version; views of another version are made again from the log.
//! Leaves state entries to `state`.

use std::ops::Range;

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicId};

use super::{View, ViewBatch, ViewError};

/// Version of the layout above. It changes with any key, value, or meaning of one; the log's format need not.
pub const VERSION: u32 = 1;
/// Key of the applied position, in `meta`.
pub const APPLIED: &[u8] = b"A";
/// Key of the counters, in `meta`.
pub const COUNTERS: &[u8] = b"C";
/// Key of the newest start of the log, in `meta`.
pub const LOG_START: &[u8] = b"S";
/// What the keys of damaged places begin with, in `meta`.
pub const LOST: &[u8] = b"L";
/// Beyond every key.
pub const END: &[u8] = &[0xFF; 32];
/// Target of a timer whose topic does not exist.
const NO_TOPIC: u32 = u32::MAX;

/// Where a record is, and what is needed to choose it without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its first byte in the log.
    pub position: PhysicalOffset,
    /// Its length in bytes.
    pub size: u32,
    /// Hash of its tag, 0 without one.
    pub tag_hash: i64,
    /// When it was stored, in milliseconds since 1970.
    pub store_time_ms: u64,
}

impl Entry {
    /// First byte behind the record.
    pub fn end(&self) -> PhysicalOffset {
        self.position.plus(self.size.into())
    }
}

/// Bytes of an encoded entry.
pub const ENTRY_BYTES: usize = 28;

/// Entries in a run at most: to find one, a reader unpacks no more than these.
pub const RUN_ENTRIES_MAX: usize = 128;

/// Key of a run of entries, the last of which has this offset.
pub fn queue_key(topic: TopicId, queue: QueueId, offset: QueueOffset) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&queue_prefix(topic, queue));
    key[8..].copy_from_slice(&offset.0.to_be_bytes());
    key
}

/// What the keys of one queue begin with.
pub fn queue_prefix(topic: TopicId, queue: QueueId) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&topic.0.to_be_bytes());
    key[4..].copy_from_slice(&queue.0.to_be_bytes());
    key
}

/// Queue of a run of entries, and offset of the last of them.
pub fn decode_queue_key(key: &[u8]) -> Result<(TopicId, QueueId, QueueOffset), ViewError> {
    let malformed = || malformed(View::Queue, key);
    let key: &[u8; 16] = key.try_into().map_err(|_| malformed())?;
    Ok((TopicId(u32_at(key, 0)), QueueId(u32_at(key, 4)), QueueOffset(u64_at(key, 8))))
}

/// An entry in a run, or a run of it alone.
pub fn encode_entry(entry: &Entry) -> [u8; ENTRY_BYTES] {
    let mut value = [0; ENTRY_BYTES];
    value[..8].copy_from_slice(&entry.position.0.to_be_bytes());
    value[8..12].copy_from_slice(&entry.size.to_be_bytes());
    value[12..20].copy_from_slice(&entry.tag_hash.to_be_bytes());
    value[20..].copy_from_slice(&entry.store_time_ms.to_be_bytes());
    value
}

fn decode_entry(value: &[u8]) -> Entry {
    Entry {
        position: PhysicalOffset(u64_at(value, 0)),
        size: u32_at(value, 8),
        tag_hash: u64_at(value, 12) as i64,
        store_time_ms: u64_at(value, 20),
    }
}

/// Entries of consecutive offsets of a queue.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The topic.
    pub topic: TopicId,
    /// The queue.
    pub queue: QueueId,
    first: u64,
    entries: &'a [u8],
}

impl<'a> Run<'a> {
    /// Reads one of the queue view.
    pub fn decode(key: &[u8], value: &'a [u8]) -> Result<Self, ViewError> {
        let (topic, queue, last) = decode_queue_key(key)?;
        let count = (value.len() / ENTRY_BYTES) as u64;
        // The first has offset 0 at least, and there is one.
        let before_first = (last.0.checked_add(1)).and_then(|end| end.checked_sub(count));
        match before_first {
            Some(first) if count > 0 && value.len().is_multiple_of(ENTRY_BYTES) => {
                Ok(Self { topic, queue, first, entries: value })
            }
            _ => Err(malformed(View::Queue, key)),
        }
    }

    /// Its entries from an offset on.
    pub fn from(self, offset: u64) -> impl Iterator<Item = (QueueOffset, Entry)> + 'a {
        let skipped = offset.saturating_sub(self.first);
        let start = (skipped as usize).saturating_mul(ENTRY_BYTES).min(self.entries.len());
        let entries = self.entries[start..].chunks_exact(ENTRY_BYTES);
        let offsets = self.first + skipped..;
        offsets.map(QueueOffset).zip(entries.map(decode_entry))
    }

    /// The last one.
    pub fn last(self) -> Entry {
        decode_entry(&self.entries[self.entries.len() - ENTRY_BYTES..])
    }
}

/// A run of entries on its way into the queue view.
#[derive(Debug, Default)]
pub struct RunOut {
    next: u64,
    entries: Vec<u8>,
}

impl RunOut {
    /// Adds an entry of a queue. If it does not go on where the others end, or there are enough, these are put into
    /// `batch` before.
    pub fn push(
        &mut self,
        batch: &mut ViewBatch,
        queue: (TopicId, QueueId),
        offset: QueueOffset,
        entry: &Entry,
    ) {
        if offset.0 != self.next || self.entries.len() >= RUN_ENTRIES_MAX * ENTRY_BYTES {
            self.end(batch, queue);
        }
        self.entries.extend_from_slice(&encode_entry(entry));
        self.next = offset.0 + 1;
    }

    /// Puts what there is into `batch`.
    pub fn end(&mut self, batch: &mut ViewBatch, (topic, queue): (TopicId, QueueId)) {
        if !self.entries.is_empty() {
            let last = QueueOffset(self.next - 1);
            batch.put(View::Queue, &queue_key(topic, queue, last), &self.entries);
            self.entries.clear();
        }
    }
}

/// Key of a timer.
pub fn timer_key(due_ms: u64, position: PhysicalOffset) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&due_ms.to_be_bytes());
    key[8..].copy_from_slice(&position.0.to_be_bytes());
    key
}

/// Due time and position in a timer's key.
pub fn decode_timer_key(key: &[u8]) -> Result<(u64, PhysicalOffset), ViewError> {
    if key.len() != 16 {
        return Err(malformed(View::Timer, key));
    }
    Ok((u64_at(key, 0), PhysicalOffset(u64_at(key, 8))))
}

/// Value of a timer.
pub fn encode_timer_target(target: Option<TopicId>) -> [u8; 4] {
    target.map_or(NO_TOPIC, |topic| topic.0).to_be_bytes()
}

/// Topic in a timer's value.
pub fn decode_timer_target(key: &[u8], value: &[u8]) -> Result<Option<TopicId>, ViewError> {
    let bytes = value.try_into().map_err(|_| malformed(View::Timer, key))?;
    Ok(Some(u32::from_be_bytes(bytes)).filter(|id| *id != NO_TOPIC).map(TopicId))
}

/// Key of a consumer offset.
pub fn offset_key(topic: TopicId, queue: QueueId, group: &str) -> Vec<u8> {
    [&queue_prefix(topic, queue)[..], group.as_bytes()].concat()
}

/// Topic, queue and group in the key of a consumer offset.
pub fn decode_offset_key(key: &[u8]) -> Result<(TopicId, QueueId, &str), ViewError> {
    let malformed = || malformed(View::Offset, key);
    let (numbers, group) = key.split_at_checked(8).ok_or_else(malformed)?;
    let group = std::str::from_utf8(group).map_err(|_| malformed())?;
    Ok((TopicId(u32_at(numbers, 0)), QueueId(u32_at(numbers, 4)), group))
}

/// Key of a topic's definition.
pub fn topic_key(topic: TopicId) -> [u8; 5] {
    let [a, b, c, d] = topic.0.to_be_bytes();
    [b'T', a, b, c, d]
}

/// Key of the time before which a topic's messages are hidden.
pub fn hidden_key(topic: TopicId) -> [u8; 5] {
    let [a, b, c, d] = topic.0.to_be_bytes();
    [b'H', a, b, c, d]
}

/// Key of a group's definition.
pub fn group_key(group: &str) -> Vec<u8> {
    [b"G", group.as_bytes()].concat()
}

/// Key of a queue's next offset.
pub fn next_key(topic: TopicId, queue: QueueId) -> [u8; 9] {
    let mut key = [b'Q'; 9];
    key[1..].copy_from_slice(&queue_prefix(topic, queue));
    key
}

/// Topic and queue in the key of a next offset.
pub fn decode_next_key(key: &[u8]) -> Result<(TopicId, QueueId), ViewError> {
    if key.len() != 9 {
        return Err(malformed(View::Meta, key));
    }
    Ok((TopicId(u32_at(key, 1)), QueueId(u32_at(key, 5))))
}

/// Key of a damaged place that ends at `end`.
pub fn lost_key(end: PhysicalOffset) -> [u8; 9] {
    let mut key = [LOST[0]; 9];
    key[1..].copy_from_slice(&end.0.to_be_bytes());
    key
}

/// End of the place in the key of a damaged place.
pub fn decode_lost_key(key: &[u8]) -> Result<PhysicalOffset, ViewError> {
    if key.len() != 9 {
        return Err(malformed(View::Meta, key));
    }
    Ok(PhysicalOffset(u64_at(key, 1)))
}

/// Number of 8 bytes that is a whole value.
pub fn decode_u64(view: View, key: &[u8], value: &[u8]) -> Result<u64, ViewError> {
    let bytes = value.try_into().map_err(|_| malformed(view, key))?;
    Ok(u64::from_be_bytes(bytes))
}

/// How far views are applied, and in which layout they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Position behind the last record that is in them; 0 in empty views.
    pub position: PhysicalOffset,
    /// Version of their layout; 0 in empty views, and in those made before there was a version.
    pub version: u32,
}

/// Value of the applied position.
pub fn encode_applied(applied: Applied) -> [u8; 12] {
    let mut value = [0; 12];
    value[..8].copy_from_slice(&applied.position.0.to_be_bytes());
    value[8..].copy_from_slice(&applied.version.to_be_bytes());
    value
}

/// Applied position and version. Later versions may add to the value.
pub fn decode_applied(value: &[u8]) -> Result<Applied, ViewError> {
    let (position, rest) =
        value.split_first_chunk().ok_or_else(|| malformed(View::Meta, APPLIED))?;
    let version = rest.first_chunk().map_or(0, |version| u32::from_be_bytes(*version));
    Ok(Applied { position: PhysicalOffset(u64::from_be_bytes(*position)), version })
}

/// Keys of a topic in the views whose keys begin with a topic id.
pub fn topic_range(topic: TopicId) -> Range<Vec<u8>> {
    prefix_range(&topic.0.to_be_bytes())
}

/// All keys that begin with `prefix`.
pub fn prefix_range(prefix: &[u8]) -> Range<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return prefix.to_vec()..end;
        }
    }
    prefix.to_vec()..END.to_vec()
}

/// Error for an entry that cannot have been written.
pub fn malformed(view: View, key: &[u8]) -> ViewError {
    ViewError::Malformed { view: view.name(), key: key.to_vec() }
}

// Both callers have checked the length of `bytes`.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::Op;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_as_their_numbers(a: (u32, u32, u64), b: (u32, u32, u64)) {
            let key = |(t, q, o)| queue_key(TopicId(t), QueueId(q), QueueOffset(o));
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn entries_round_trip(position: u64, size: u32, tag_hash: i64, store_time_ms: u64) {
            let position = PhysicalOffset(position);
            let entry = Entry { position, size, tag_hash, store_time_ms };
            prop_assert_eq!(decode_entry(&encode_entry(&entry)), entry);
        }

        #[test]
        fn runs_have_the_entries_that_were_pushed_each_of_consecutive_offsets_and_none_too_many(
            gaps in prop::collection::vec(prop_oneof![9 => Just(0_u64), 1 => 1..300_u64], 1..600),
            from in 0..1000_u64,
        ) {
            let queue = (TopicId(3), QueueId(4));
            let entry = |offset: u64| Entry {
                position: PhysicalOffset(offset * 7),
                size: 9,
                tag_hash: -1,
                store_time_ms: offset,
            };
            let (mut run, mut batch, mut next) = (RunOut::default(), ViewBatch::new(), 0);
            let mut pushed = Vec::new();
            for gap in gaps {
                let offset = QueueOffset(next + gap);
                run.push(&mut batch, queue, offset, &entry(offset.0));
                pushed.push((offset, entry(offset.0)));
                next = offset.0 + 1;
            }
            run.end(&mut batch, queue);
            run.end(&mut batch, queue);
            let (mut found, mut found_from) = (Vec::new(), Vec::new());
            for op in batch.ops() {
                let Op::Put(View::Queue, key, value) = op else { panic!("{op:?}") };
                let run = Run::decode(key, value).unwrap();
                prop_assert_eq!((run.topic, run.queue), queue);
                prop_assert!(run.from(0).count() <= RUN_ENTRIES_MAX);
                prop_assert_eq!(Some(run.last()), run.from(0).map(|(_, entry)| entry).last());
                found.extend(run.from(0));
                found_from.extend(run.from(from));
            }
            prop_assert_eq!(&found, &pushed);
            pushed.retain(|(offset, _)| offset.0 >= from);
            prop_assert_eq!(found_from, pushed);
        }

        #[test]
        fn applied_position_and_version_are_read_of_any_version(position: u64, version: u32, more: Vec<u8>) {
            let applied = Applied { position: PhysicalOffset(position), version };
            let value = encode_applied(applied);
            prop_assert_eq!(decode_applied(&[&value[..], &more].concat()).unwrap(), applied);
            let before = Applied { version: 0, ..applied };
            prop_assert_eq!(decode_applied(&value[..8]).unwrap(), before);
        }

        #[test]
        fn malformed_values_are_errors_and_never_panic(key: Vec<u8>, value: Vec<u8>) {
            let run = Run::decode(&key, &value);
            let _ = run.map(|run| (run.from(7).count(), run.last()));
            let _ = decode_timer_key(&key);
            let _ = decode_timer_target(&key, &value);
            let _ = decode_offset_key(&key);
            let _ = decode_queue_key(&key);
            let _ = decode_next_key(&key);
            let _ = decode_applied(&value);
        }

        #[test]
        fn prefix_range_holds_exactly_the_keys_with_the_prefix(
            prefix in prop::collection::vec(any::<u8>(), 1..4),
            key in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            let range = prefix_range(&prefix);
            prop_assert_eq!(range.contains(&key), key.starts_with(&prefix));
        }
    }
}
