//! A batch of messages, encoded outside every lock and appended with one write.
//! Invariant: the record and its index say the same, so that a replay of the log finds what the append did.
//! Leaves positions, offsets and store times to the append.

use std::sync::{Arc, LazyLock};

use gantry_model::{
    PhysicalOffset, QueueId, QueueOffset, TopicName,
    limits::QUEUES_MAX,
    properties::{ENDS, REAL_TOPIC},
};
use gantry_record::{Draft, properties};
use memchr::memmem::Finder;

use crate::{
    change, errors::EncodeError, keys::KeyEntry, log::RecordBatch, queues::Queue, topics::Topic,
};

/// Looks for [`ENDS`] among a message's properties; made once, since that costs more than a look.
static FIND_ENDS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(ENDS));

/// What a record ends: both happen in the same write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ends {
    /// A parked message: it fired, or was recalled.
    Timer {
        /// Its due time, in milliseconds since 1970.
        due_ms: u64,
        /// Its position.
        position: PhysicalOffset,
    },
}

impl Ends {
    /// Value of the property that says so in the record.
    pub fn property_value(self) -> String {
        let Self::Timer { due_ms, position } = self;
        format!("timer:{due_ms}:{position}")
    }

    /// What a property's value says.
    pub fn parse(value: &str) -> Option<Self> {
        let (due_ms, position) = value.strip_prefix("timer:")?.split_once(':')?;
        let position = PhysicalOffset(position.parse().ok()?);
        Some(Self::Timer { due_ms: due_ms.parse().ok()?, position })
    }
}

/// Words by which a message is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeySource<'a> {
    /// Value of `UNIQ_KEY`.
    pub unique: Option<&'a str>,
    /// Value of `KEYS`: words with spaces between them.
    pub keys: Option<&'a str>,
}

impl<'a> KeySource<'a> {
    /// Every word.
    pub fn words(self) -> impl Iterator<Item = &'a str> {
        let keys = self.keys.into_iter().flat_map(|keys| keys.split(' '));
        self.unique.into_iter().chain(keys.filter(|word| !word.is_empty()))
    }
}

/// What the views learn of a record without parsing it. It must say what the record's properties say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Index<'a> {
    /// Hash of the `TAGS` property, 0 without one.
    pub tag_hash: i64,
    /// The `UNIQ_KEY` and `KEYS` properties; default for a record that no key finds.
    pub keys: KeySource<'a>,
    /// Due time of a parked message, the `TIMER_OUT_MS` property of one on `SCHEDULE_TOPIC_XXXX`.
    pub timer_due_ms: Option<u64>,
    /// What the record ends. The store writes the property that says so.
    pub ends: Option<Ends>,
}

/// Where a message was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its first byte in the log.
    pub position: PhysicalOffset,
    /// Its place in the queue.
    pub queue_offset: QueueOffset,
    /// When it was stored, in milliseconds since 1970.
    pub store_time_ms: u64,
}

/// A parked message in a batch.
#[derive(Debug, Clone)]
pub(crate) struct Park {
    pub(crate) due_ms: u64,
    pub(crate) target: Option<TopicName>,
}

/// What the append needs of one message.
#[derive(Debug)]
pub(crate) struct Item {
    /// Index into `Batch::topics`.
    pub(crate) topic: u32,
    pub(crate) queue: QueueId,
    /// Whether it enters its queue: half messages and rollbacks do not.
    pub(crate) queued: bool,
    pub(crate) size: u32,
    pub(crate) tag_hash: i64,
    pub(crate) park: Option<Park>,
    pub(crate) ends: Option<Ends>,
    /// Number of its hashes in `Batch::hashes`.
    pub(crate) keys: usize,
}

/// Messages to be appended together. Made once for each connection: it keeps its memory.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) records: RecordBatch,
    pub(crate) items: Vec<Item>,
    /// Hashes of the keys of all messages, in their order.
    pub(crate) hashes: Vec<u64>,
    /// Topics of the messages; neighbours of the same topic share one.
    pub(crate) topics: Vec<Arc<Topic>>,
    /// Queue of each message, filled by the append.
    pub(crate) queues: Vec<Arc<Queue>>,
    pub(crate) placed: Vec<Placed>,
    properties: Vec<u8>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets every message and keeps the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.items.clear();
        self.hashes.clear();
        self.topics.clear();
        self.queues.clear();
        self.placed.clear();
    }

    /// Puts the keys of the messages, which were placed, into `out`.
    pub(crate) fn put_keys(&self, out: &mut Vec<KeyEntry>) {
        let mut hashes = self.hashes.iter();
        for (item, Placed { position, .. }) in self.items.iter().zip(&self.placed) {
            let hashes = hashes.by_ref().take(item.keys);
            out.extend(hashes.map(|hash| KeyEntry { hash: *hash, position: *position }));
        }
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of the encoded messages.
    pub fn bytes(&self) -> usize {
        self.records.bytes()
    }

    /// Where message `index` was placed by the append.
    ///
    /// # Panics
    /// If the batch was not appended or has no such message.
    pub fn placed(&self, index: usize) -> Placed {
        self.placed[index]
    }

    /// Adds a message and returns its index. `draft.topic` is the name of `topic`.
    ///
    /// # Errors
    /// After an error the batch is unchanged.
    pub fn push(
        &mut self,
        topic: &Arc<Topic>,
        draft: &Draft<'_>,
        index: Index<'_>,
    ) -> Result<usize, EncodeError> {
        check(topic, draft)?;
        debug_assert_eq!(
            index.tag_hash,
            change::tag_hash_of(draft.properties),
            "the index says what the record says, or a rebuilt view would differ"
        );
        debug_assert_eq!(
            index.keys,
            change::keys_in(draft.properties),
            "the same keys are found as in an index that is made from the log"
        );
        let record = self.encode(draft, index.ends)?;
        let keys = self.hashes.len();
        index.keys.words().for_each(|word| self.hashes.push(topic.key_hash(word)));
        let item = Item {
            topic: self.topic_index(topic),
            queue: draft.queue,
            queued: change::enters_queue(draft.sys_flag),
            size: self.records.record_bytes(record),
            tag_hash: index.tag_hash,
            park: index.timer_due_ms.map(|due_ms| park(draft, due_ms)),
            ends: index.ends,
            keys: self.hashes.len() - keys,
        };
        self.items.push(item);
        Ok(self.items.len() - 1)
    }

    /// Encodes with the property that says what the record ends, and with no other of that key:
    /// a client may have copied it from a message that it received.
    fn encode(&mut self, draft: &Draft<'_>, ends: Option<Ends>) -> Result<usize, EncodeError> {
        if ends.is_none() && FIND_ENDS.find(draft.properties).is_none() {
            return Ok(self.records.push(draft)?);
        }
        self.properties.clear();
        properties::edit(draft.properties, &[ENDS], &mut self.properties);
        if let Some(ends) = ends {
            properties::put(&mut self.properties, ENDS, &ends.property_value())
                .expect("the key and the value have no separator");
        }
        let draft = Draft { properties: &self.properties, ..*draft };
        Ok(self.records.push(&draft)?)
    }

    fn topic_index(&mut self, topic: &Arc<Topic>) -> u32 {
        if !self.topics.last().is_some_and(|last| Arc::ptr_eq(last, topic)) {
            self.topics.push(Arc::clone(topic));
        }
        (self.topics.len() - 1) as u32
    }
}

fn check(topic: &Topic, draft: &Draft<'_>) -> Result<(), EncodeError> {
    if draft.topic != topic.name().as_str() {
        return Err(EncodeError::OtherTopic {
            draft: draft.topic.into(),
            topic: topic.name().clone(),
        });
    }
    if draft.queue.0 >= QUEUES_MAX {
        let topic = topic.name().clone();
        return Err(EncodeError::Queue { topic, queue: draft.queue, queues: QUEUES_MAX });
    }
    Ok(())
}

fn park(draft: &Draft<'_>, due_ms: u64) -> Park {
    let target = properties::find(draft.properties, REAL_TOPIC);
    let name = target.and_then(|name| std::str::from_utf8(name).ok());
    Park { due_ms, target: name.and_then(|name| TopicName::new(name).ok()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_record_ends_reads_back_from_its_property() {
        let ends = Ends::Timer { due_ms: 1_700_000_000_123, position: PhysicalOffset(4096) };
        assert_eq!(Ends::parse(&ends.property_value()), Some(ends));
        for bad in ["", "timer:", "timer:1", "timer:1:", "timer:a:b", "timer:1:-2", "half:1:2"] {
            assert_eq!(Ends::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn words_of_keys_are_separated_by_spaces_and_never_empty() {
        let source = KeySource { unique: Some("u"), keys: Some(" a  b ") };
        assert_eq!(source.words().collect::<Vec<_>>(), ["u", "a", "b"]);
        assert_eq!(KeySource::default().words().count(), 0);
    }
}
