//! Topics, groups and offsets in memory: what queries are answered from.
//! Invariant: holds every state entry appended, in the log's order; equal to the views plus the ring.
//! Leaves writing to the log to `append`.

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicId};
use parking_lot::RwLock;

use crate::{
    groups::GroupTable,
    offsets::OffsetTable,
    state::{Counters, StateEntry},
    topics::TopicTable,
    views::{Direction, Step, View, ViewError, ViewRead, layout},
};

/// The tables. Locks are taken in the order of the fields.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) topics: RwLock<TopicTable>,
    pub(crate) groups: RwLock<GroupTable>,
    pub(crate) offsets: RwLock<OffsetTable>,
}

impl Tables {
    /// Tables as the views hold them.
    pub(crate) fn load(views: &dyn ViewRead) -> Result<Self, ViewError> {
        let tables = Self::default();
        scan_state(views, &mut |entry| tables.apply(&entry, PhysicalOffset(0)))?;
        Ok(tables)
    }

    /// Applies an entry of the record at `position`.
    pub(crate) fn apply(&self, entry: &StateEntry, position: PhysicalOffset) {
        match entry {
            StateEntry::Topic { id, since, version, config } => {
                let since = since.unwrap_or(position);
                let replaced = {
                    let mut topics = self.topics.write();
                    let replaced = topics.get(&config.topic_name).map(|old| old.id);
                    topics.put(*id, config.clone(), since, *version);
                    replaced.filter(|old| old != id)
                };
                if let Some(old) = replaced {
                    self.offsets.write().remove_topic(old);
                }
            }
            StateEntry::TopicGone { id, version } => {
                self.topics.write().remove(*id, *version);
                self.offsets.write().remove_topic(*id);
            }
            StateEntry::Group { version, config } => {
                self.groups.write().put(config.clone(), *version);
            }
            StateEntry::GroupGone { group, clean_offsets, version } => {
                self.groups.write().remove(group, *version);
                if *clean_offsets {
                    self.offsets.write().remove_group(group);
                }
            }
            StateEntry::Offset(commit) => {
                self.offsets.write().set(commit);
            }
            StateEntry::Counters(counters) => {
                self.topics.write().set_counters(counters.next_topic_id, counters.topics);
                self.groups.write().note_version(counters.groups);
            }
            StateEntry::Hidden { topic, before_ms } => {
                self.topics.read().hide(*topic, *before_ms);
            }
            StateEntry::NextOffset { .. } | StateEntry::Timer { .. } => {}
        }
    }

    /// Numbers that outlive topics and groups.
    pub(crate) fn counters(&self) -> Counters {
        let (next_topic_id, topics) = {
            let topics = self.topics.read();
            (topics.next_id(), topics.version())
        };
        Counters { next_topic_id, topics, groups: self.groups.read().version() }
    }
}

/// Visits what a state image holds, next offsets and timers left out.
fn scan_state(views: &dyn ViewRead, emit: &mut dyn FnMut(StateEntry)) -> Result<(), ViewError> {
    let mut emit_decoded = |key: &[u8], value: &[u8]| {
        let entries =
            crate::state::decode(value).map_err(|_| layout::malformed(View::Meta, key))?;
        entries.into_iter().for_each(&mut *emit);
        Ok(())
    };
    for prefix in [&b"C"[..], b"T", b"H", b"G"] {
        scan_all(views, View::Meta, prefix, &mut emit_decoded)?;
    }
    scan_all(views, View::Offset, &[], &mut |key, value| {
        let (topic, queue, group) = layout::decode_offset_key(key)?;
        let offset = layout::decode_u64(View::Offset, key, value)?;
        let group = gantry_model::GroupName::new(group)
            .map_err(|_| layout::malformed(View::Offset, key))?;
        let offset = QueueOffset(offset);
        emit(StateEntry::Offset(crate::OffsetCommit { group, topic, queue, offset }));
        Ok(())
    })
}

/// Everything that a state image holds: the state in `views`, entry by entry.
pub fn image_entries(
    views: &dyn ViewRead,
    emit: &mut dyn FnMut(StateEntry),
) -> Result<(), ViewError> {
    scan_state(views, emit)?;
    next_offsets(views, &mut |topic, queue, next| {
        emit(StateEntry::NextOffset { topic, queue, next });
    })?;
    scan_all(views, View::Timer, &[], &mut |key, value| {
        let (due_ms, position) = layout::decode_timer_key(key)?;
        let target = layout::decode_timer_target(key, value)?;
        emit(StateEntry::Timer { due_ms, position, target });
        Ok(())
    })
}

/// The next offset of every queue that ever had a message.
pub(crate) fn next_offsets(
    views: &dyn ViewRead,
    emit: &mut dyn FnMut(TopicId, QueueId, QueueOffset),
) -> Result<(), ViewError> {
    scan_all(views, View::Meta, b"Q", &mut |key, value| {
        let (topic, queue) = layout::decode_next_key(key)?;
        emit(topic, queue, QueueOffset(layout::decode_u64(View::Meta, key, value)?));
        Ok(())
    })
}

/// Receives the entries of a scan and may fail at one.
type TryVisit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), ViewError> + 'a;

/// Visits all entries of a view whose keys begin with `prefix`, until one cannot be decoded.
fn scan_all(
    views: &dyn ViewRead,
    view: View,
    prefix: &[u8],
    visit: &mut TryVisit<'_>,
) -> Result<(), ViewError> {
    let keys = layout::prefix_range(prefix);
    let mut outcome = Ok(());
    views.scan(view, &keys.start..&keys.end, Direction::Forward, &mut |key, value| {
        outcome = visit(key, value);
        if outcome.is_ok() { Step::Next } else { Step::Stop }
    })?;
    outcome
}
