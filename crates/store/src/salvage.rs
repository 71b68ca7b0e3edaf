//! Salvage: topics, groups and offsets from what is left of them in the log, when the views and every whole state image
//! are lost and the store's owner accepts that.
//! Invariant: no message that the log holds stays without a topic for want of its definition; a number that an old entry
//! may mean is given to no topic.
//! Leaves messages, timers and state records to the replay, which follows, and the choice to `recover`.

use std::collections::BTreeMap;

use gantry_model::{
    PhysicalOffset, QueueId, QueueOffset, TopicConfig, TopicId, TopicName, limits::QUEUES_MAX,
};
use gantry_record::RecordView;
use hashbrown::HashSet;

use crate::{
    apply,
    change::is_internal,
    errors::{OpenError, ReplayError},
    image::{Piece, piece_of},
    log::{Log, Walked},
    options::Now,
    queues::stored_next,
    state::{self, Counters, STATE_TOPIC, StateEntry},
    store::Store,
    topics::DataVersion,
    views::{Direction, Step, View, ViewBatch, ViewError, ViewStore, layout},
};

/// Changes that one batch of views holds.
const BATCH_CHANGES: usize = 8192;

/// What a start did that accepted that state is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Records of broken state images of which each is whole: what they say counts.
    pub image_parts: u64,
    /// Topics that were made anew for the messages that bear their name, since no definition of them is left.
    pub topics_made: Vec<TopicName>,
}

/// Fills empty views with what the records of broken images and the names on messages say. The replay of the whole log
/// that follows sets right what has changed since.
pub(crate) fn salvage(views: &dyn ViewStore, log: &Log) -> Result<Salvaged, OpenError> {
    let mut salvage = Salvage { views, batch: ViewBatch::new(), seen: Seen::default() };
    let mut cursor = log.records(log.start(), log.written());
    loop {
        let position = cursor.position();
        let failed = |error| OpenError::Replay { position, source: ReplayError::Read(error) };
        match cursor.next().map_err(failed)? {
            None => break,
            // The replay reports it.
            Some(Walked::Damage(_)) => {}
            Some(Walked::Record { record, .. }) => salvage.record(&record)?,
        }
    }
    let topics_made = salvage.make_topics(log.start())?;
    salvage.batch.set_applied(log.start());
    salvage.write()?;
    Ok(Salvaged { image_parts: salvage.seen.image_parts, topics_made })
}

/// What the log has told so far.
#[derive(Default)]
struct Seen {
    image_parts: u64,
    counters: Counters,
    defined: HashSet<TopicName>,
    /// Queues of each name that messages bear.
    named: BTreeMap<TopicName, u32>,
}

struct Salvage<'a> {
    views: &'a dyn ViewStore,
    batch: ViewBatch,
    seen: Seen,
}

impl Salvage<'_> {
    fn record(&mut self, record: &RecordView<'_>) -> Result<(), OpenError> {
        let position = record.position();
        let failed = |error| OpenError::Replay { position, source: ReplayError::State(error) };
        if record.topic() == STATE_TOPIC {
            state::decode(record.body())
                .map_err(failed)?
                .iter()
                .for_each(|entry| self.seen.note(entry));
        } else if let Some((_, Piece::Part { state, .. })) = piece_of(record)? {
            self.seen.image_parts += 1;
            for entry in state::decode(state).map_err(failed)? {
                self.seen.note(&entry);
                self.put(&entry)?;
            }
        } else if !is_internal(record.topic()) {
            self.seen.message(record);
        }
        Ok(())
    }

    fn put(&mut self, entry: &StateEntry) -> Result<(), ViewError> {
        // A timer that still waits has its record in the log, and one of an old image may have ended.
        if !matches!(entry, StateEntry::Timer { .. }) {
            apply::put_state(&mut self.batch, &mut self.seen.counters, entry, self.views)?;
        }
        if self.batch.len() < BATCH_CHANGES { Ok(()) } else { self.write() }
    }

    /// Makes the topics that messages name and nothing defines.
    fn make_topics(&mut self, since: PhysicalOffset) -> Result<Vec<TopicName>, ViewError> {
        let mut made = Vec::new();
        for (topic_name, queues) in std::mem::take(&mut self.seen.named) {
            if self.seen.defined.contains(&topic_name) {
                continue;
            }
            let counters = self.seen.counters;
            let (id, version) = (counters.next_topic_id, counters.topics.next(0));
            let config = TopicConfig::new(topic_name.clone(), queues);
            self.put(&StateEntry::Topic { id, since: Some(since), version, config })?;
            made.push(topic_name);
        }
        Ok(made)
    }

    fn write(&mut self) -> Result<(), ViewError> {
        self.views.apply(&self.batch)?;
        self.batch.clear();
        Ok(())
    }
}

impl Seen {
    fn note(&mut self, entry: &StateEntry) {
        match entry {
            StateEntry::Topic { id, version, config, .. } => {
                self.defined.insert(config.topic_name.clone());
                self.topic_version(*version);
                self.topic_id(*id);
            }
            StateEntry::TopicGone { id, version } => {
                self.topic_version(*version);
                self.topic_id(*id);
            }
            StateEntry::Group { version, .. } | StateEntry::GroupGone { version, .. } => {
                self.counters.groups = self.counters.groups.newer(*version);
            }
            StateEntry::Offset(commit) => self.topic_id(commit.topic),
            StateEntry::NextOffset { topic, .. } | StateEntry::Hidden { topic, .. } => {
                self.topic_id(*topic);
            }
            StateEntry::Timer { target, .. } => {
                if let Some(target) = target {
                    self.topic_id(*target);
                }
            }
            StateEntry::Counters(counters) => {
                let next = counters.next_topic_id;
                self.counters.next_topic_id = self.counters.next_topic_id.max(next);
                self.topic_version(counters.topics);
            }
        }
    }

    fn topic_version(&mut self, version: DataVersion) {
        self.counters.topics = self.counters.topics.newer(version);
    }

    /// A topic that is made anew must not be taken for the one that an entry means.
    fn topic_id(&mut self, id: TopicId) {
        let next = TopicId(id.0.saturating_add(1));
        self.counters.next_topic_id = self.counters.next_topic_id.max(next);
    }

    fn message(&mut self, record: &RecordView<'_>) {
        // Only names that a topic may have were ever stored.
        let Ok(name) = TopicName::new(record.topic()) else { return };
        let queues = record.queue().0.saturating_add(1).min(QUEUES_MAX);
        let known = self.named.entry(name).or_insert(0);
        *known = queues.max(*known);
    }
}

impl Store {
    /// Ends a salvage, behind its replay: what was saved is written to the log as a state image, from which any start
    /// goes on.
    pub(crate) fn finish_salvage(&self, now: Now) -> Result<(), OpenError> {
        self.apply_all()?;
        self.raise_next_offsets()?;
        self.write_image(now).map_err(OpenError::Upkeep)?;
        Ok(())
    }

    /// A queue whose end is lost goes on where some group has consumed to, so that no group is ahead of it.
    fn raise_next_offsets(&self) -> Result<(), ViewError> {
        let ends = self.consumed_to()?;
        let mut batch = ViewBatch::new();
        for ((topic, queue), end) in ends {
            if stored_next((topic, queue), &*self.views)?.unwrap_or(0) < end {
                apply::put_next(&mut batch, topic, queue, QueueOffset(end));
                self.queues.skip_to((topic, queue), end);
            }
        }
        self.views.apply(&batch)
    }
    /// How far the foremost group has consumed each queue.
    fn consumed_to(&self) -> Result<BTreeMap<(TopicId, QueueId), u64>, ViewError> {
        let topics = self.tables.topics.read();
        let (mut ends, mut outcome) = (BTreeMap::new(), Ok(()));
        self.views.scan(
            View::Offset,
            &[][..]..layout::END,
            Direction::Forward,
            &mut |key, value| {
                let decoded = layout::decode_offset_key(key).and_then(|(topic, queue, _)| {
                    Ok((topic, queue, layout::decode_u64(View::Offset, key, value)?))
                });
                match decoded {
                    Ok((topic, queue, offset)) if topics.by_id(topic).is_some() => {
                        let end: &mut u64 = ends.entry((topic, queue)).or_default();
                        *end = offset.max(*end);
                    }
                    Ok(_) => {}
                    Err(error) => outcome = Err(error),
                }
                if outcome.is_ok() { Step::Next } else { Step::Stop }
            },
        )?;
        outcome.map(|()| ends)
    }
}
