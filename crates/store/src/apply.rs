//! Moves what is confirmed and synced from the ring into the views.
//! Invariant: a batch of views carries the position behind its last record, and holds no record that may be undone.
//! Leaves when to do so to the store's owner.

use std::sync::Arc;

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicId};
use hashbrown::HashMap;

use crate::{
    batch::Ends,
    change::TimerSet,
    log_start,
    planted::VIEW_APPLIED_TWICE,
    queues::{Queue, Queues, stored_next},
    ring::{Place, Side},
    state::{self, Counters, StateEntry},
    timers,
    types::Timer,
    views::{
        Direction, Step, View, ViewBatch, ViewError, ViewRead,
        layout::{self, Entry, RunOut},
    },
};

/// What the applying thread keeps between batches.
#[derive(Debug, Default)]
pub(crate) struct Applier {
    counters: Counters,
    batch: ViewBatch,
    places: Vec<Place>,
    pub(crate) sides: Vec<Arc<Side>>,
    touched: HashMap<u32, Touched>,
}

#[derive(Debug)]
struct Touched {
    queue: Arc<Queue>,
    count: usize,
    run: RunOut,
}

/// One filled batch.
pub(crate) struct Filled {
    /// Records in it.
    pub(crate) records: usize,
    /// Sides in it.
    pub(crate) sides: usize,
    /// Position behind its last record.
    pub(crate) applied: PhysicalOffset,
}

impl Applier {
    pub(crate) fn new(counters: Counters) -> Self {
        Self { counters, ..Self::default() }
    }

    /// Space for copies of the oldest records.
    pub(crate) fn oldest(&mut self) -> (&mut Vec<Place>, &mut Vec<Arc<Side>>) {
        (&mut self.places, &mut self.sides)
    }

    /// The filled batch.
    pub(crate) fn batch(&self) -> &ViewBatch {
        &self.batch
    }

    /// Puts the oldest records that end at `limit` or before into the batch.
    pub(crate) fn fill(
        &mut self,
        limit: PhysicalOffset,
        queues: &Queues,
        views: &dyn ViewRead,
    ) -> Result<Filled, ViewError> {
        self.batch.clear();
        self.touched.clear();
        let mut filled = Filled { records: 0, sides: 0, applied: PhysicalOffset(0) };
        for place in std::mem::take(&mut self.places) {
            let side = place.has_side().then(|| Arc::clone(&self.sides[filled.sides]));
            let message = place.queue_slot().map(|slot| self.message(slot, queues));
            let end = match (&message, &side) {
                (Some((_, _, entry)), _) => entry.end(),
                (None, Some(side)) => side.end,
                (None, None) => filled.applied,
            };
            let alone = side.as_ref().is_some_and(|side| side.state.iter().any(is_deletion));
            // A deletion looks for what it removes in the views: all before it must be there.
            if end > limit || (alone && filled.records > 0) {
                break;
            }
            if let Some((slot, offset, entry)) = message {
                self.put_message(slot, offset, &entry);
            }
            if let Some(side) = side {
                self.put_side(&side, views)?;
                filled.sides += 1;
            }
            filled.records += 1;
            filled.applied = end;
        }
        self.end_queues(views)?;
        if filled.records > 0 && !VIEW_APPLIED_TWICE {
            self.batch.set_applied(filled.applied);
        }
        Ok(filled)
    }

    /// Removes what the batch held from the queues.
    pub(crate) fn settle_queues(&mut self, queues: &Queues) {
        for touched in self.touched.drain().map(|(_, touched)| touched) {
            touched.queue.state.lock().applied(touched.count);
        }
        for side in &self.sides {
            for entry in &side.state {
                if let StateEntry::TopicGone { id, .. } = entry {
                    queues.remove_topic(*id);
                }
            }
        }
    }

    fn message(&mut self, slot: u32, queues: &Queues) -> (u32, u64, Entry) {
        let touched = self.touched.entry(slot).or_insert_with(|| Touched {
            queue: queues.at(slot),
            count: 0,
            run: RunOut::default(),
        });
        let state = touched.queue.state.lock();
        // The append pushed the queue's entry before the place that names it.
        let entry = state.entries[touched.count];
        (slot, state.base + touched.count as u64, entry)
    }

    fn put_message(&mut self, slot: u32, offset: u64, entry: &Entry) {
        // `message` made it.
        let touched = self.touched.get_mut(&slot).expect("the queue was touched");
        touched.count += 1;
        // A hole left by a damaged record has no entry.
        if entry.size > 0 {
            let queue = (touched.queue.topic, touched.queue.id);
            touched.run.push(&mut self.batch, queue, QueueOffset(offset), entry);
        }
    }

    fn put_side(&mut self, side: &Side, views: &dyn ViewRead) -> Result<(), ViewError> {
        if let Some(timer) = side.timer {
            put_timer(&mut self.batch, timer);
        }
        if let Some(Ends::Timer { due_ms, position }) = side.ends {
            self.batch.delete(View::Timer, &layout::timer_key(due_ms, position));
        }
        if let Some(start) = side.log_start {
            log_start::put(&mut self.batch, start);
        }
        for entry in &side.state {
            put_state(&mut self.batch, &mut self.counters, entry, views)?;
        }
        Ok(())
    }

    /// Puts what is left of their entries, and their next offsets.
    fn end_queues(&mut self, views: &dyn ViewRead) -> Result<(), ViewError> {
        for touched in self.touched.values_mut().filter(|touched| touched.count > 0) {
            let (topic, queue) = (touched.queue.topic, touched.queue.id);
            touched.run.end(&mut self.batch, (topic, queue));
            let base = if VIEW_APPLIED_TWICE {
                stored_next((topic, queue), views)?.unwrap_or(0)
            } else {
                touched.queue.state.lock().base
            };
            let next = base + touched.count as u64;
            put_next(&mut self.batch, topic, queue, QueueOffset(next));
        }
        Ok(())
    }
}

fn is_deletion(entry: &StateEntry) -> bool {
    matches!(
        entry,
        StateEntry::TopicGone { .. } | StateEntry::GroupGone { clean_offsets: true, .. }
    )
}

pub(crate) fn put_next(batch: &mut ViewBatch, topic: TopicId, queue: QueueId, next: QueueOffset) {
    batch.put(View::Meta, &layout::next_key(topic, queue), &next.0.to_be_bytes());
}

pub(crate) fn put_timer(batch: &mut ViewBatch, timer: TimerSet) {
    let key = layout::timer_key(timer.due_ms, timer.position);
    batch.put(View::Timer, &key, &layout::encode_timer_target(timer.target));
}

/// Puts a state entry, whose epoch is settled, into the views.
pub(crate) fn put_state(
    batch: &mut ViewBatch,
    counters: &mut Counters,
    entry: &StateEntry,
    views: &dyn ViewRead,
) -> Result<(), ViewError> {
    let version_of = |counters: &mut Counters, batch: &mut ViewBatch| {
        batch.put(View::Meta, layout::COUNTERS, &state::encode(&StateEntry::Counters(*counters)));
    };
    match entry {
        StateEntry::Topic { id, version, .. } => {
            batch.put(View::Meta, &layout::topic_key(*id), &state::encode(entry));
            counters.next_topic_id = counters.next_topic_id.max(TopicId(id.0 + 1));
            counters.topics = counters.topics.newer(*version);
            version_of(counters, batch);
        }
        StateEntry::TopicGone { id, version } => {
            delete_topic(batch, *id, views)?;
            counters.topics = counters.topics.newer(*version);
            version_of(counters, batch);
        }
        StateEntry::Group { version, config } => {
            batch.put(View::Meta, &layout::group_key(&config.group_name), &state::encode(entry));
            counters.groups = counters.groups.newer(*version);
            version_of(counters, batch);
        }
        StateEntry::GroupGone { group, clean_offsets, version } => {
            batch.delete(View::Meta, &layout::group_key(group));
            if *clean_offsets {
                delete_offsets(batch, group, views)?;
            }
            counters.groups = counters.groups.newer(*version);
            version_of(counters, batch);
        }
        StateEntry::Offset(commit) => {
            let key = layout::offset_key(commit.topic, commit.queue, &commit.group);
            batch.put(View::Offset, &key, &commit.offset.0.to_be_bytes());
        }
        StateEntry::NextOffset { topic, queue, next } => put_next(batch, *topic, *queue, *next),
        StateEntry::Timer { due_ms, position, target } => {
            let (due_ms, position, target) = (*due_ms, *position, *target);
            put_timer(batch, TimerSet { due_ms, position, target });
        }
        StateEntry::Counters(image) => {
            counters.next_topic_id = counters.next_topic_id.max(image.next_topic_id);
            counters.topics = counters.topics.newer(image.topics);
            counters.groups = counters.groups.newer(image.groups);
            version_of(counters, batch);
        }
        StateEntry::Hidden { topic, .. } => {
            batch.put(View::Meta, &layout::hidden_key(*topic), &state::encode(entry));
        }
    }
    Ok(())
}

fn delete_topic(
    batch: &mut ViewBatch,
    topic: TopicId,
    views: &dyn ViewRead,
) -> Result<(), ViewError> {
    let keys = layout::topic_range(topic);
    batch.delete_range(View::Queue, &keys.start..&keys.end);
    batch.delete_range(View::Offset, &keys.start..&keys.end);
    let next = layout::prefix_range(&[&b"Q"[..], &topic.0.to_be_bytes()].concat());
    batch.delete_range(View::Meta, &next.start..&next.end);
    batch.delete(View::Meta, &layout::topic_key(topic));
    batch.delete(View::Meta, &layout::hidden_key(topic));
    let all = Timer::default()..Timer { due_ms: u64::MAX, position: PhysicalOffset(0) };
    timers::scan(views, all, &mut |timer, target| {
        if target == Some(topic) {
            batch.delete(View::Timer, &layout::timer_key(timer.due_ms, timer.position));
        }
        Step::Next
    })
}

fn delete_offsets(
    batch: &mut ViewBatch,
    group: &str,
    views: &dyn ViewRead,
) -> Result<(), ViewError> {
    views.scan(View::Offset, &[][..]..layout::END, Direction::Forward, &mut |key, _| {
        // A key that cannot be decoded is reported where offsets are read.
        if layout::decode_offset_key(key).is_ok_and(|(_, _, of)| of == group) {
            batch.delete(View::Offset, key);
        }
        Step::Next
    })
}
