//! State records: what topics, groups, offsets and images look like in the log.
//!
//! ```text
//! body   = version u8 (1) | entry…
//! entry  = kind u8 | length u32 | payload
//! topic  = id u32 | since u64 (all ones: where this record is) | version | definition as JSON
//! group  = version | definition as JSON
//! hidden = topic id u32 | before u64
//! ```
//!
//! Integers are big-endian; a version is counter u64 and time u64; a name comes last and fills its entry.
//! Invariant: `decode` gives what `encode` was given, and no bytes make it panic.
//! Leaves what an entry changes to `change`.

use gantry_model::{
    GroupConfig, GroupName, PhysicalOffset, QueueId, QueueOffset, TopicConfig, TopicId,
};

use crate::{offsets::OffsetCommit, topics::DataVersion};

/// Topic of state records.
pub const STATE_TOPIC: &str = "rmq_sys_gantry_state";

/// Version of the layout above.
const VERSION: u8 = 1;
const HERE: u64 = u64::MAX;
const NO_TOPIC: u32 = u32::MAX;

/// One change of state, or one piece of a state image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateEntry {
    /// A topic is defined or changed.
    Topic {
        /// Its number.
        id: TopicId,
        /// Where its epoch starts; `None`: at the record that holds this entry.
        since: Option<PhysicalOffset>,
        /// Version of the table after the change.
        version: DataVersion,
        /// Its definition.
        config: TopicConfig,
    },
    /// A topic is deleted, with its messages, offsets and timers.
    TopicGone {
        /// Its number.
        id: TopicId,
        /// Version of the table after the change.
        version: DataVersion,
    },
    /// A group is defined or changed.
    Group {
        /// Version of the table after the change.
        version: DataVersion,
        /// Its definition.
        config: GroupConfig,
    },
    /// A group is deleted.
    GroupGone {
        /// Its name.
        group: GroupName,
        /// Whether its offsets go with it.
        clean_offsets: bool,
        /// Version of the table after the change.
        version: DataVersion,
    },
    /// A group has consumed up to an offset.
    Offset(OffsetCommit),
    /// Image only: next offset of a queue.
    NextOffset {
        /// The topic.
        topic: TopicId,
        /// The queue.
        queue: QueueId,
        /// Offset that its next message gets.
        next: QueueOffset,
    },
    /// Image only: a pending timer.
    Timer {
        /// Due time, in milliseconds since 1970.
        due_ms: u64,
        /// Position of the parked record.
        position: PhysicalOffset,
        /// Topic that it waits for.
        target: Option<TopicId>,
    },
    /// Image only: numbers that no other entry carries.
    Counters(Counters),
    /// Messages of a topic that were stored before a time have expired.
    Hidden {
        /// The topic.
        topic: TopicId,
        /// The time, in milliseconds since 1970.
        before_ms: u64,
    },
}

impl StateEntry {
    /// An epoch that starts "here" starts at the position of the entry's record.
    pub(crate) fn settle(&mut self, position: PhysicalOffset) {
        if let Self::Topic { since: since @ None, .. } = self {
            *since = Some(position);
        }
    }
}

/// Numbers that outlive the topics and groups that they came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Smallest topic id never given.
    pub next_topic_id: TopicId,
    /// Version of the topics.
    pub topics: DataVersion,
    /// Version of the groups.
    pub groups: DataVersion,
}

/// Why a state record cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The layout is one that this version does not know.
    #[error("the state record has layout version {found}, expected {VERSION}")]
    Version {
        /// What was found.
        found: u8,
    },
    /// An entry is of a kind that this version does not know.
    #[error("the state entry is of kind {found}, this version knows 1 to 9")]
    Kind {
        /// What was found.
        found: u8,
    },
    /// An entry ends too early.
    #[error("the state entry needs {needed} bytes, {available} are left")]
    Truncated {
        /// Bytes needed.
        needed: usize,
        /// Bytes left.
        available: usize,
    },
    /// A name in an entry is not one.
    #[error("decode a name")]
    Name(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A definition in an entry is not one.
    #[error("decode a definition")]
    Definition(#[source] serde_json::Error),
}

/// Writes a body of entries.
#[derive(Debug)]
pub struct StateBody(Vec<u8>);

impl Default for StateBody {
    fn default() -> Self {
        Self::new()
    }
}

impl StateBody {
    /// A body without an entry.
    pub fn new() -> Self {
        Self(vec![VERSION])
    }

    /// Its bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &StateEntry) {
        self.0.push(kind(entry));
        let length_at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        put_payload(entry, &mut self.0);
        let length = (self.0.len() - length_at - 4) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// One entry, as a whole body.
pub fn encode(entry: &StateEntry) -> Vec<u8> {
    let mut body = StateBody::new();
    body.push(entry);
    body.0
}

/// The entries of a body.
pub fn decode(body: &[u8]) -> Result<Vec<StateEntry>, StateError> {
    let mut input = Input(body);
    let version = input.u8()?;
    if version != VERSION {
        return Err(StateError::Version { found: version });
    }
    let mut entries = Vec::new();
    while !input.0.is_empty() {
        let kind = input.u8()?;
        let length = input.u32()? as usize;
        entries.push(decode_payload(kind, Input(input.take(length)?))?);
    }
    Ok(entries)
}

fn kind(entry: &StateEntry) -> u8 {
    match entry {
        StateEntry::Topic { .. } => 1,
        StateEntry::TopicGone { .. } => 2,
        StateEntry::Group { .. } => 3,
        StateEntry::GroupGone { .. } => 4,
        StateEntry::Offset(_) => 5,
        StateEntry::NextOffset { .. } => 6,
        StateEntry::Timer { .. } => 7,
        StateEntry::Counters(_) => 8,
        StateEntry::Hidden { .. } => 9,
    }
}

fn put_payload(entry: &StateEntry, out: &mut Vec<u8>) {
    match entry {
        StateEntry::Topic { id, since, version, config } => {
            put_u32(out, id.0);
            put_u64(out, since.map_or(HERE, |since| since.0));
            put_version(out, *version);
            put_json(out, config);
        }
        StateEntry::TopicGone { id, version } => {
            put_u32(out, id.0);
            put_version(out, *version);
        }
        StateEntry::Group { version, config } => {
            put_version(out, *version);
            put_json(out, config);
        }
        StateEntry::GroupGone { group, clean_offsets, version } => {
            out.push(u8::from(*clean_offsets));
            put_version(out, *version);
            out.extend_from_slice(group.as_bytes());
        }
        StateEntry::Offset(commit) => {
            put_u32(out, commit.topic.0);
            put_u32(out, commit.queue.0);
            put_u64(out, commit.offset.0);
            out.extend_from_slice(commit.group.as_bytes());
        }
        StateEntry::NextOffset { topic, queue, next } => {
            put_u32(out, topic.0);
            put_u32(out, queue.0);
            put_u64(out, next.0);
        }
        StateEntry::Timer { due_ms, position, target } => {
            put_u64(out, *due_ms);
            put_u64(out, position.0);
            put_u32(out, target.map_or(NO_TOPIC, |topic| topic.0));
        }
        StateEntry::Counters(counters) => {
            put_u32(out, counters.next_topic_id.0);
            put_version(out, counters.topics);
            put_version(out, counters.groups);
        }
        StateEntry::Hidden { topic, before_ms } => {
            put_u32(out, topic.0);
            put_u64(out, *before_ms);
        }
    }
}

fn decode_payload(kind: u8, mut input: Input<'_>) -> Result<StateEntry, StateError> {
    Ok(match kind {
        1 => StateEntry::Topic {
            id: TopicId(input.u32()?),
            since: Some(input.u64()?).filter(|since| *since != HERE).map(PhysicalOffset),
            version: input.version()?,
            config: serde_json::from_slice(input.rest()).map_err(StateError::Definition)?,
        },
        2 => StateEntry::TopicGone { id: TopicId(input.u32()?), version: input.version()? },
        3 => StateEntry::Group {
            version: input.version()?,
            config: serde_json::from_slice(input.rest()).map_err(StateError::Definition)?,
        },
        4 => {
            let clean_offsets = input.u8()? != 0;
            let version = input.version()?;
            StateEntry::GroupGone { group: input.group()?, clean_offsets, version }
        }
        5 => {
            let (topic, queue) = (TopicId(input.u32()?), QueueId(input.u32()?));
            let offset = QueueOffset(input.u64()?);
            StateEntry::Offset(OffsetCommit { group: input.group()?, topic, queue, offset })
        }
        6 => StateEntry::NextOffset {
            topic: TopicId(input.u32()?),
            queue: QueueId(input.u32()?),
            next: QueueOffset(input.u64()?),
        },
        7 => StateEntry::Timer {
            due_ms: input.u64()?,
            position: PhysicalOffset(input.u64()?),
            target: Some(input.u32()?).filter(|id| *id != NO_TOPIC).map(TopicId),
        },
        8 => StateEntry::Counters(Counters {
            next_topic_id: TopicId(input.u32()?),
            topics: input.version()?,
            groups: input.version()?,
        }),
        9 => StateEntry::Hidden { topic: TopicId(input.u32()?), before_ms: input.u64()? },
        found => return Err(StateError::Kind { found }),
    })
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_version(out: &mut Vec<u8>, version: DataVersion) {
    put_u64(out, version.counter);
    put_u64(out, version.timestamp_ms);
}

fn put_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Definitions are structs of text, numbers and maps with text keys, and a Vec takes any write.
    serde_json::to_writer(out, value).expect("definitions are valid JSON");
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, needed: usize) -> Result<&'a [u8], StateError> {
        let available = self.0.len();
        let (taken, rest) =
            self.0.split_at_checked(needed).ok_or(StateError::Truncated { needed, available })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, StateError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_be_bytes)
    }

    fn version(&mut self) -> Result<DataVersion, StateError> {
        let (counter, timestamp_ms) = (self.u64()?, self.u64()?);
        Ok(DataVersion { counter, state_version: 0, timestamp_ms })
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn group(&mut self) -> Result<GroupName, StateError> {
        let name = std::str::from_utf8(self.rest()).map_err(|e| StateError::Name(e.into()))?;
        GroupName::new(name).map_err(|e| StateError::Name(e.into()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use gantry_model::{Permission, TopicName};
    use proptest::prelude::*;

    fn any_version() -> impl Strategy<Value = DataVersion> {
        any::<(u64, u64)>().prop_map(|(counter, timestamp_ms)| DataVersion {
            counter,
            state_version: 0,
            timestamp_ms,
        })
    }

    fn any_group() -> impl Strategy<Value = GroupName> {
        "[a-zA-Z0-9_-]{1,40}".prop_map(|name| GroupName::new(&name).unwrap())
    }

    fn any_topic() -> impl Strategy<Value = TopicConfig> {
        ("[a-zA-Z0-9_%-]{1,40}", 1..9_u32, 0..8_u32).prop_map(|(name, queues, perm)| {
            TopicConfig::new(TopicName::new(&name).unwrap(), queues)
                .with_permission(Permission(perm))
        })
    }

    fn any_entry() -> impl Strategy<Value = StateEntry> {
        let id = || (0..NO_TOPIC).prop_map(TopicId);
        let position = || (0..HERE).prop_map(PhysicalOffset);
        prop_oneof![
            (id(), prop::option::of(position()), any_version(), any_topic()).prop_map(
                |(id, since, version, config)| StateEntry::Topic { id, since, version, config }
            ),
            (id(), any_version()).prop_map(|(id, version)| StateEntry::TopicGone { id, version }),
            (any_version(), any_group()).prop_map(|(version, group)| StateEntry::Group {
                version,
                config: GroupConfig::new(group)
            }),
            (any_group(), any::<bool>(), any_version()).prop_map(
                |(group, clean_offsets, version)| {
                    StateEntry::GroupGone { group, clean_offsets, version }
                }
            ),
            (any_group(), id(), any::<u32>(), any::<u64>()).prop_map(
                |(group, topic, queue, offset)| StateEntry::Offset(OffsetCommit {
                    group,
                    topic,
                    queue: QueueId(queue),
                    offset: QueueOffset(offset)
                })
            ),
            (id(), any::<u32>(), any::<u64>()).prop_map(|(topic, queue, next)| {
                StateEntry::NextOffset { topic, queue: QueueId(queue), next: QueueOffset(next) }
            }),
            (any::<u64>(), position(), prop::option::of(id())).prop_map(
                |(due_ms, position, target)| StateEntry::Timer { due_ms, position, target }
            ),
            (id(), any_version(), any_version()).prop_map(|(next_topic_id, topics, groups)| {
                StateEntry::Counters(Counters { next_topic_id, topics, groups })
            }),
        ]
    }

    proptest! {
        #[test]
        fn entries_round_trip(entries in prop::collection::vec(any_entry(), 0..5)) {
            let mut body = StateBody::new();
            for entry in &entries {
                body.push(entry);
            }
            prop_assert_eq!(decode(body.bytes()).unwrap(), entries);
        }

        #[test]
        fn truncated_entry_is_an_error_and_never_another_entry(entry in any_entry()) {
            let body = encode(&entry);
            for cut in 2..body.len() {
                prop_assert!(decode(&body[..cut]).is_err(), "{}", cut);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut body: Vec<u8>) {
            let _ = decode(&body);
            body.insert(0, VERSION);
            let _ = decode(&body);
        }
    }
}
