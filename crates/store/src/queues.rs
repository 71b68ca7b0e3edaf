//! Queues: next offsets, and the entries that the views do not hold yet.
//! Invariant: offsets below `base` are in the views, the others in `entries`, one for each offset up to `next`;
//! `next` changes under the log's lock alone, so that offsets follow the log's order.
//! Leaves what readers may see of it to `read`.

use std::{collections::VecDeque, sync::Arc};

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicId};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use crate::views::{
    Direction, Step, View, ViewError, ViewRead,
    layout::{self, Entry, Run},
};

/// One queue of one topic.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) topic: TopicId,
    pub(crate) id: QueueId,
    /// Number of the queue in the ring.
    pub(crate) slot: u32,
    pub(crate) state: Mutex<QueueState>,
}

/// What changes in a queue.
#[derive(Debug)]
pub(crate) struct QueueState {
    /// Offset that the next message gets.
    pub(crate) next: u64,
    /// Offset of the first of `entries`.
    pub(crate) base: u64,
    pub(crate) entries: VecDeque<Entry>,
    /// No message before it is kept.
    pub(crate) min: u64,
    /// Start of the log, and time before which messages are hidden, for which `min` was found.
    pub(crate) min_for: Option<(PhysicalOffset, u64)>,
    /// Store time of the message at `min`, if it was looked for and is there.
    pub(crate) min_time_ms: Option<u64>,
}

impl QueueState {
    fn starting_at(next: u64) -> Self {
        Self {
            next,
            base: next,
            entries: VecDeque::new(),
            min: 0,
            min_for: None,
            min_time_ms: None,
        }
    }

    /// Offset behind the last entry that lies below `confirmed`.
    pub(crate) fn confirmed_end(&self, confirmed: PhysicalOffset) -> u64 {
        // Nearly always all of them are.
        let seen = match self.entries.back() {
            Some(last) if last.end() > confirmed => {
                self.entries.partition_point(|entry| entry.end() <= confirmed)
            }
            _ => self.entries.len(),
        };
        self.base + seen as u64
    }

    /// Entry at `offset`, if the ring has it.
    pub(crate) fn entry(&self, offset: u64) -> Option<&Entry> {
        let index = offset.checked_sub(self.base)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    /// Forgets the first `count` entries: the views hold them.
    pub(crate) fn applied(&mut self, count: usize) {
        self.entries.drain(..count);
        self.base += count as u64;
        // A queue that was busy once must not keep its memory.
        if self.entries.is_empty() && self.entries.capacity() > 1024 {
            self.entries.shrink_to(64);
        }
    }
}

type Key = (TopicId, QueueId);

/// All queues that were used since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    by_key: RwLock<HashMap<Key, Arc<Queue>>>,
    by_slot: RwLock<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    queues: Vec<Option<Arc<Queue>>>,
    free: Vec<u32>,
}

impl Queues {
    /// A queue that has, or had, messages.
    pub(crate) fn find(
        &self,
        key: Key,
        views: &dyn ViewRead,
    ) -> Result<Option<Arc<Queue>>, ViewError> {
        if let Some(queue) = self.by_key.read().get(&key) {
            return Ok(Some(Arc::clone(queue)));
        }
        Ok(stored_next(key, views)?.map(|next| self.insert(key, next)))
    }

    /// A queue to write to.
    pub(crate) fn obtain(&self, key: Key, views: &dyn ViewRead) -> Result<Arc<Queue>, ViewError> {
        if let Some(queue) = self.by_key.read().get(&key) {
            return Ok(Arc::clone(queue));
        }
        Ok(self.insert(key, stored_next(key, views)?.unwrap_or(0)))
    }

    fn insert(&self, key: Key, next: u64) -> Arc<Queue> {
        let mut by_key = self.by_key.write();
        let found = by_key.entry(key).or_insert_with(|| {
            self.by_slot.write().put(|slot| Queue {
                topic: key.0,
                id: key.1,
                slot,
                state: Mutex::new(QueueState::starting_at(next)),
            })
        });
        Arc::clone(found)
    }

    /// The queue with that number in the ring.
    pub(crate) fn at(&self, slot: u32) -> Arc<Queue> {
        let slots = self.by_slot.read();
        // The ring holds no entry of a queue after `remove_topic`.
        Arc::clone(slots.queues[slot as usize].as_ref().expect("a queue in the ring has a slot"))
    }

    /// Moves the next offset of a queue that has no entry in the ring.
    pub(crate) fn skip_to(&self, key: Key, next: u64) {
        if let Some(queue) = self.by_key.read().get(&key) {
            let mut state = queue.state.lock();
            state.next = next;
            state.base = next;
        }
    }

    /// Forgets the queues of a topic, none of which has an entry in the ring.
    pub(crate) fn remove_topic(&self, topic: TopicId) {
        let mut by_key = self.by_key.write();
        let mut slots = self.by_slot.write();
        by_key.retain(|key, queue| {
            if key.0 == topic {
                slots.queues[queue.slot as usize] = None;
                slots.free.push(queue.slot);
            }
            key.0 != topic
        });
    }
}

impl Slots {
    fn put(&mut self, make: impl FnOnce(u32) -> Queue) -> Arc<Queue> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.queues.push(None);
            (self.queues.len() - 1) as u32
        });
        let queue = Arc::new(make(slot));
        self.queues[slot as usize] = Some(Arc::clone(&queue));
        queue
    }
}

/// Next offset that the views hold. It outlives the queue's messages.
pub(crate) fn stored_next(
    (topic, queue): Key,
    views: &dyn ViewRead,
) -> Result<Option<u64>, ViewError> {
    let key = layout::next_key(topic, queue);
    let value = views.get(View::Meta, &key)?;
    value.map(|value| layout::decode_u64(View::Meta, &key, &value)).transpose()
}

/// Visits the entries of a queue in the views from `from` up to, but without, `to`.
pub(crate) fn scan_stored(
    (topic, queue): Key,
    from: u64,
    to: u64,
    views: &dyn ViewRead,
    visit: &mut dyn FnMut(QueueOffset, Entry) -> Step,
) -> Result<(), ViewError> {
    if from >= to {
        return Ok(());
    }
    // A run has the key of its last entry, so the first run from here on is the one that has the entry, if there is one.
    let start = layout::queue_key(topic, queue, QueueOffset(from));
    let end = layout::prefix_range(&layout::queue_prefix(topic, queue)).end;
    let (mut at, mut outcome) = (from, Ok(()));
    views.scan(View::Queue, &start[..]..&end[..], Direction::Forward, &mut |key, value| {
        let run = match Run::decode(key, value) {
            Ok(run) => run,
            Err(error) => {
                outcome = Err(error);
                return Step::Stop;
            }
        };
        for (offset, entry) in run.from(at) {
            if offset.0 >= to || visit(offset, entry) == Step::Stop {
                return Step::Stop;
            }
            at = offset.0 + 1;
        }
        Step::Next
    })?;
    outcome
}
