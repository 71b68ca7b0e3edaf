//! Keys and values of the views.
//!
//! ```text
//! queue   topic u32 | queue u32 | queue offset u64  →  position u64 | size u32 | tag hash i64 | store time u64
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

use super::{View, ViewError};

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

/// Key of a queue's entry.
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

/// Offset in a queue's key.
pub fn decode_queue_key(key: &[u8]) -> Result<(TopicId, QueueId, QueueOffset), ViewError> {
    let malformed = || malformed(View::Queue, key);
    let key: &[u8; 16] = key.try_into().map_err(|_| malformed())?;
    Ok((TopicId(u32_at(key, 0)), QueueId(u32_at(key, 4)), QueueOffset(u64_at(key, 8))))
}

/// Value of a queue's entry.
pub fn encode_entry(entry: &Entry) -> [u8; ENTRY_BYTES] {
    let mut value = [0; ENTRY_BYTES];
    value[..8].copy_from_slice(&entry.position.0.to_be_bytes());
    value[8..12].copy_from_slice(&entry.size.to_be_bytes());
    value[12..20].copy_from_slice(&entry.tag_hash.to_be_bytes());
    value[20..].copy_from_slice(&entry.store_time_ms.to_be_bytes());
    value
}

/// Entry in a queue's value.
pub fn decode_entry(key: &[u8], value: &[u8]) -> Result<Entry, ViewError> {
    if value.len() != ENTRY_BYTES {
        return Err(malformed(View::Queue, key));
    }
    Ok(Entry {
        position: PhysicalOffset(u64_at(value, 0)),
        size: u32_at(value, 8),
        tag_hash: u64_at(value, 12) as i64,
        store_time_ms: u64_at(value, 20),
    })
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
            prop_assert_eq!(decode_entry(&[], &encode_entry(&entry)).unwrap(), entry);
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
            let _ = decode_entry(&key, &value);
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
