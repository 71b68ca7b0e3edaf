//! Appends: queue offsets are given, the log is written, and everybody learns of it, under one lock.
//! Invariant: all of a batch or none; what the ring and the tables learn is what a replay would tell them.
//! Leaves encoding to `batch` and the write to `log`.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use gantry_model::{GroupConfig, PhysicalOffset, QueueId, QueueOffset, TopicConfig};
use gantry_record::Draft;

use crate::{
    batch::{Batch, Ends, Item, Park, Placed},
    change::TimerSet,
    errors::AppendError,
    log::{self, LogWriter, Purpose, RecordBatch},
    options::{Flush, Now},
    queues::Queue,
    ring::{MESSAGE_BYTES, Side},
    state::{STATE_TOPIC, StateBody, StateEntry},
    store::Store,
    tables::Tables,
    types::{Ticket, Timer},
    views::layout::Entry,
};

/// Part of the ring that only state may use, as a divisor: commits go on while sends are answered busy.
const STATE_SHARE: usize = 16;
/// Staged offsets that one record carries. An entry is at most 141 bytes, so a record stays below 160 KB.
const STAGED_PER_RECORD: usize = 1000;

/// The end of the log. Its lock gives the order of everything.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) writer: LogWriter,
    pub(crate) closed: bool,
    state: RecordBatch,
}

impl Tail {
    pub(crate) fn new(writer: LogWriter) -> Self {
        Self { writer, closed: false, state: RecordBatch::new() }
    }
}

impl Store {
    /// Appends all of `batch`, or nothing. After success `batch.placed` says where each message is.
    pub fn append(&self, batch: &mut Batch, now: Now) -> Result<Ticket, AppendError> {
        self.append_for(Purpose::Messages, batch, now)
    }

    /// [`Store::append`] for what may use the reserve of the log, or may not.
    pub(crate) fn append_for(
        &self,
        purpose: Purpose,
        batch: &mut Batch,
        now: Now,
    ) -> Result<Ticket, AppendError> {
        self.check_room(batch.len() * MESSAGE_BYTES, 0)?;
        self.resolve_queues(batch)?;
        let claimed = self.claim_ends(&batch.items)?;
        let outcome = self.append_claimed(purpose, batch, self.bytes_of(&claimed), now);
        if outcome.is_err() {
            self.release(claimed);
        }
        outcome
    }

    fn append_claimed(
        &self,
        purpose: Purpose,
        batch: &mut Batch,
        ended_bytes: u64,
        now: Now,
    ) -> Result<Ticket, AppendError> {
        let mut tail = self.tail.lock();
        check_open(&tail)?;
        if let Some(topic) = batch.topics.iter().find(|topic| topic.is_gone()) {
            return Err(AppendError::TopicGone { topic: topic.name().clone() });
        }
        give_offsets(batch);
        let appended = match tail.writer.append_for(purpose, &mut batch.records, now.wall_ms) {
            Ok(appended) => appended,
            Err(error) => {
                take_offsets_back(batch);
                return Err(refusal(error));
            }
        };
        note_placed(batch, appended.start, appended.store_time_ms);
        self.note_messages(batch);
        self.upkeep.keys_waiting.add(appended.end, |out| batch.put_keys(out));
        self.note_pending(&batch.items, ended_bytes);
        self.confirm_written(appended.end);
        Ok(Ticket { end: appended.end })
    }

    /// Finds each message's queue, outside the log's lock since it may have to look into the views.
    fn resolve_queues(&self, batch: &mut Batch) -> Result<(), AppendError> {
        batch.queues.clear();
        for item in &batch.items {
            let topic = batch.topics[item.topic as usize].id;
            let same = |queue: &&Arc<Queue>| (queue.topic, queue.id) == (topic, item.queue);
            let queue = match batch.queues.last().filter(same) {
                Some(queue) => Arc::clone(queue),
                None => self.queues.obtain((topic, item.queue), &*self.views)?,
            };
            batch.queues.push(queue);
        }
        Ok(())
    }

    fn claim_ends(&self, items: &[Item]) -> Result<Vec<Timer>, AppendError> {
        let mut claimed = Vec::new();
        for ends in items.iter().filter_map(|item| item.ends) {
            let outcome = self.timers.claim(ends.into(), &*self.views);
            if let Ok(true) = outcome {
                claimed.push(ends.into());
                continue;
            }
            self.release(claimed);
            let Ends::Timer { due_ms, position } = ends;
            return Err(match outcome {
                Err(error) => error.into(),
                Ok(_) => AppendError::AlreadyEnded { due_ms, position },
            });
        }
        Ok(claimed)
    }

    fn release(&self, claimed: Vec<Timer>) {
        for timer in claimed {
            self.timers.release(timer);
        }
    }

    fn note_messages(&self, batch: &Batch) {
        let mut ring = self.ring.lock();
        for (index, item) in batch.items.iter().enumerate() {
            let Placed { position, store_time_ms, .. } = batch.placed[index];
            let queue = &batch.queues[index];
            let entry = Entry { position, size: item.size, tag_hash: item.tag_hash, store_time_ms };
            if item.queued {
                queue.state.lock().entries.push_back(entry);
            }
            let side = self.side_of(item, position, entry.end());
            if let Some(side) = &side {
                self.timers.appended(side.timer, side.ends);
            }
            // A half message changes nothing that the views hold.
            if item.queued || side.is_some() {
                ring.push(item.queued.then_some(queue.slot), side);
            }
        }
        self.ring_bytes.store(ring.bytes(), Ordering::Release);
    }

    fn side_of(&self, item: &Item, position: PhysicalOffset, end: PhysicalOffset) -> Option<Side> {
        if item.park.is_none() && item.ends.is_none() {
            return None;
        }
        let timer = item.park.as_ref().map(|park| self.timer_set(park, position));
        Some(Side { end, timer, ends: item.ends, ..Side::default() })
    }

    fn timer_set(&self, park: &Park, position: PhysicalOffset) -> TimerSet {
        let topics = self.tables.topics.read();
        let target = park.target.as_ref().and_then(|name| topics.covering(name, position));
        TimerSet { due_ms: park.due_ms, position, target: target.map(|topic| topic.id) }
    }

    /// Readers follow what is written, unless it has to be on disk first.
    pub(crate) fn confirm_written(&self, end: PhysicalOffset) {
        if self.options.flush == Flush::Async {
            self.confirmed.fetch_max(end.0, Ordering::AcqRel);
        }
    }

    fn check_room(&self, bytes: usize, share: usize) -> Result<(), AppendError> {
        let ring_bytes = self.ring_bytes.load(Ordering::Acquire);
        let ring_bytes_max = self.options.ring_bytes_max + share;
        if ring_bytes > 0 && ring_bytes + bytes > ring_bytes_max {
            return Err(AppendError::Busy { ring_bytes, ring_bytes_max });
        }
        Ok(())
    }

    /// Appends a record of the entries that `make` gives for the tables as they are; none: no record.
    pub(crate) fn append_state(
        &self,
        now: Now,
        make: impl FnOnce(&Tables) -> Vec<StateEntry>,
    ) -> Result<Ticket, AppendError> {
        self.check_room(0, self.options.ring_bytes_max / STATE_SHARE)?;
        let mut tail = self.tail.lock();
        check_open(&tail)?;
        let mut entries = make(&self.tables);
        if entries.is_empty() {
            return Ok(Ticket { end: self.confirmed() });
        }
        let Tail { writer, state, .. } = &mut *tail;
        let appended = write_state(writer, state, &entries, now)?;
        for entry in &mut entries {
            entry.settle(appended.start);
        }
        self.note_state(entries, appended.start, appended.end);
        self.confirm_written(appended.end);
        Ok(Ticket { end: appended.end })
    }

    /// Tells tables and ring of the entries of a record, whose epochs are settled.
    pub(crate) fn note_state(
        &self,
        entries: Vec<StateEntry>,
        position: PhysicalOffset,
        end: PhysicalOffset,
    ) {
        for entry in &entries {
            self.tables.apply(entry, position);
        }
        let mut ring = self.ring.lock();
        ring.push(None, Some(Side { end, state: entries, ..Side::default() }));
        self.ring_bytes.store(ring.bytes(), Ordering::Release);
    }

    /// Makes or changes a topic. An equal definition makes no record and no new version.
    #[allow(clippy::needless_pass_by_value)] // the definition becomes the store's
    pub fn put_topic(
        &self,
        config: TopicConfig,
        now: Now,
    ) -> Result<(Arc<crate::Topic>, Ticket), AppendError> {
        let name = config.topic_name.clone();
        loop {
            let ticket = self.append_state(now, |tables| put_topic_entry(tables, &config, now))?;
            // Another call may delete it in between: then it is made again.
            if let Some(topic) = self.topic(&name) {
                return Ok((topic, ticket));
            }
        }
    }

    /// Deletes a topic with its messages, offsets and timers. `None`: there is no such topic.
    pub fn delete_topic(&self, name: &str, now: Now) -> Result<Option<Ticket>, AppendError> {
        let mut found = false;
        let ticket = self.append_state(now, |tables| {
            let topics = tables.topics.read();
            let version = topics.version().next(now.wall_ms);
            let gone =
                topics.get(name).map(|topic| StateEntry::TopicGone { id: topic.id, version });
            found = gone.is_some();
            gone.into_iter().collect()
        })?;
        self.pending.topic_gone();
        Ok(found.then_some(ticket))
    }

    /// Makes or changes a group. An equal definition makes no record and no new version.
    #[allow(clippy::needless_pass_by_value)] // the definition becomes the store's
    pub fn put_group(
        &self,
        config: GroupConfig,
        now: Now,
    ) -> Result<(Arc<GroupConfig>, Ticket), AppendError> {
        let name = config.group_name.clone();
        loop {
            let ticket = self.append_state(now, |tables| {
                let groups = tables.groups.read();
                if groups.get(&name).is_some_and(|old| **old == config) {
                    return Vec::new();
                }
                let version = groups.version().next(now.wall_ms);
                vec![StateEntry::Group { version, config: config.clone() }]
            })?;
            if let Some(group) = self.group(&name) {
                return Ok((group, ticket));
            }
        }
    }

    /// Deletes a group, and its offsets if `clean_offsets`. `None`: there is no such group.
    pub fn delete_group(
        &self,
        name: &str,
        clean_offsets: bool,
        now: Now,
    ) -> Result<Option<Ticket>, AppendError> {
        let mut found = false;
        let ticket = self.append_state(now, |tables| {
            let groups = tables.groups.read();
            let version = groups.version().next(now.wall_ms);
            let gone = groups.get(name).map(|config| StateEntry::GroupGone {
                group: config.group_name.clone(),
                clean_offsets,
                version,
            });
            found = gone.is_some();
            gone.into_iter().collect()
        })?;
        Ok(found.then_some(ticket))
    }

    /// Writes offsets in one record. Those of topics that are gone are left out.
    pub fn commit_offsets(
        &self,
        commits: &[crate::OffsetCommit],
        now: Now,
    ) -> Result<Ticket, AppendError> {
        let mut unstaged = Vec::new();
        let outcome = self.append_state(now, |tables| {
            let topics = tables.topics.read();
            let mut offsets = tables.offsets.write();
            let known = commits.iter().filter(|commit| topics.by_id(commit.topic).is_some());
            let known = known.inspect(|commit| unstaged.extend(offsets.unstage(commit)));
            known.cloned().map(StateEntry::Offset).collect()
        });
        if outcome.is_err() {
            self.tables.offsets.write().restage(unstaged);
        }
        outcome
    }

    /// Takes an offset that promises nothing: visible at once, written with the next staged ones.
    pub fn stage_offset(&self, commit: crate::OffsetCommit) {
        let topics = self.tables.topics.read();
        // Held while it is staged, so that a deletion of the topic comes before or after.
        if topics.by_id(commit.topic).is_some() {
            self.tables.offsets.write().stage(commit);
        }
    }

    /// Writes the staged offsets.
    pub fn write_staged_offsets(&self, now: Now) -> Result<(), AppendError> {
        // One round for each thousand that are there now: those staged meanwhile wait for the next call.
        for _ in 0..self.staged().div_ceil(STAGED_PER_RECORD) {
            let mut taken = Vec::new();
            let outcome = self.append_state(now, |tables| {
                let topics = tables.topics.read();
                taken = tables.offsets.write().take_staged(STAGED_PER_RECORD);
                let known = taken.iter().filter(|commit| topics.by_id(commit.topic).is_some());
                known.cloned().map(StateEntry::Offset).collect()
            });
            if outcome.is_err() {
                self.tables.offsets.write().restage(taken);
            }
            outcome?;
        }
        Ok(())
    }
}

fn put_topic_entry(tables: &Tables, config: &TopicConfig, now: Now) -> Vec<StateEntry> {
    let topics = tables.topics.read();
    let version = topics.version().next(now.wall_ms);
    let config = config.clone();
    match topics.get(&config.topic_name) {
        Some(old) if old.config == config => Vec::new(),
        Some(old) => {
            vec![StateEntry::Topic { id: old.id, since: Some(old.since), version, config }]
        }
        None => vec![StateEntry::Topic { id: topics.next_id(), since: None, version, config }],
    }
}

fn check_open(tail: &Tail) -> Result<(), AppendError> {
    if tail.closed { Err(AppendError::Stopped(None)) } else { Ok(()) }
}

fn give_offsets(batch: &mut Batch) {
    for (index, item) in batch.items.iter().enumerate() {
        let offset = if item.queued {
            let mut state = batch.queues[index].state.lock();
            state.next += 1;
            state.next - 1
        } else {
            0
        };
        batch.records.set_queue_offset(index, QueueOffset(offset));
    }
}

fn take_offsets_back(batch: &Batch) {
    for (item, queue) in batch.items.iter().zip(&batch.queues) {
        if item.queued {
            queue.state.lock().next -= 1;
        }
    }
}

fn note_placed(batch: &mut Batch, start: PhysicalOffset, store_time_ms: u64) {
    batch.placed.clear();
    for index in 0..batch.items.len() {
        let position = start.plus(batch.records.offset_in_batch(index));
        let queue_offset = batch.records.queue_offset(index);
        batch.placed.push(Placed { position, queue_offset, store_time_ms });
    }
}

fn write_state(
    writer: &mut LogWriter,
    records: &mut RecordBatch,
    entries: &[StateEntry],
    now: Now,
) -> Result<log::Appended, AppendError> {
    let mut body = StateBody::new();
    for entry in entries {
        body.push(entry);
    }
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    records.clear();
    records
        .push(&Draft {
            topic: STATE_TOPIC,
            queue: QueueId(0),
            flag: 0,
            sys_flag: 0,
            born_time_ms: now.wall_ms as i64,
            born_host: nowhere,
            store_host: nowhere,
            reconsume_times: 0,
            prepared_offset: 0,
            body: body.bytes(),
            properties: &[],
        })
        .map_err(crate::EncodeError::from)?;
    writer.append_for(Purpose::State, records, now.wall_ms).map_err(refusal)
}

fn refusal(error: log::AppendError) -> AppendError {
    match error {
        log::AppendError::Full { .. }
        | log::AppendError::Short(_)
        | log::AppendError::NewSegment { .. } => AppendError::Full(error),
        log::AppendError::TooLarge { .. } => AppendError::RecordTooLarge(error),
        log::AppendError::Stopped(_) => AppendError::Stopped(Some(error)),
    }
}
