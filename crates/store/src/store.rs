//! The store: one commit log, its views and its tables behind one type.
//! Invariant: readers see what is confirmed and nothing else; answers of a call that succeeded survive as promised.
//! Leaves threads and time to its owner.
#![allow(unused_variables, clippy::unimplemented, dead_code, clippy::unused_self, clippy::needless_pass_by_value)]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gantry_model::*;

use crate::{topics::{DataVersion, Topic}, errors::*, options::*, offsets::*, batch::Batch, views::{ViewError, layout::Entry}};

/// Position at which an append is durable as promised, once it is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// First byte behind the append.
    pub end: PhysicalOffset,
}

/// Offsets that a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First offset still there.
    pub min: QueueOffset,
    /// Offset that the next message gets.
    pub max: QueueOffset,
}

/// How much one read may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Most messages.
    pub messages_max: u32,
    /// Most bytes, if the first message is not larger.
    pub bytes_max: usize,
    /// Most entries looked at. The reference's is 800.
    pub scan_max: u32,
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStatus {
    /// Messages.
    Found,
    /// Entries, none of them accepted.
    NoMatch,
    /// The queue never had a message.
    Empty,
    /// The offset is below the queue's first.
    TooSmall,
    /// The offset is the one that the next message gets.
    AtEnd,
    /// The offset is beyond that.
    BeyondEnd,
    /// The messages there went while they were read.
    Removed,
}

/// Outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRead {
    /// What was found.
    pub status: ReadStatus,
    /// Offset to go on from.
    pub next: QueueOffset,
    /// First offset of the queue.
    pub min: QueueOffset,
    /// Offset that the queue's next message gets.
    pub max: QueueOffset,
    /// Messages read.
    pub messages: u32,
    /// Position of the last one, if any.
    pub last_position: Option<PhysicalOffset>,
}

/// Which of several messages a search by time means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// The first one stored at that time or later.
    Lower,
    /// The last one stored at that time or earlier.
    Upper,
}

/// A parked message whose time may have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// Its due time, in milliseconds since 1970.
    pub due_ms: u64,
    /// Its position.
    pub position: PhysicalOffset,
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// Records replayed from the log.
    pub records_replayed: u64,
    /// Whether the views were rebuilt from nothing.
    pub views_rebuilt: bool,
    /// Bytes cut from the log's torn tail.
    pub bytes_cut: u64,
    /// Damaged places found.
    pub damage: Vec<Damage>,
}

/// A place of the log that cannot be read as what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub position: PhysicalOffset,
    /// What is wrong.
    pub reason: String,
}

/// What upkeep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Log segments let go.
    pub segments_removed: u64,
    /// Whether the views were flushed.
    pub views_flushed: bool,
    /// Whether a state image was written.
    pub image_written: bool,
}

/// The store at one moment.
#[derive(Debug, Clone)]
pub struct StoreStatus {
    /// First byte of the log that is kept.
    pub log_start: PhysicalOffset,
    /// End of what readers see.
    pub confirmed: PhysicalOffset,
    /// End of what is on disk.
    pub synced: PhysicalOffset,
    /// End of the log.
    pub written: PhysicalOffset,
    /// End of what the views hold.
    pub applied: PhysicalOffset,
    /// Bytes of the log kept.
    pub log_bytes: u64,
    /// Number of segments.
    pub segments: usize,
    /// Bytes written and not synced.
    pub dirty_bytes: u64,
    /// Bytes of entries that wait for the views.
    pub ring_bytes: usize,
    /// Rough size of the views, in bytes.
    pub view_bytes: u64,
    /// Number of topics.
    pub topics: usize,
    /// Number of groups.
    pub groups: usize,
    /// Damaged places found since opening, the newest last, at most 100.
    pub damage: Vec<Damage>,
    /// Number of damaged records met since opening.
    pub damaged_records: u64,
}

/// A store that is open.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens the store in `options.dir`, or makes one, and recovers it.
    pub fn open(options: StoreOptions, now: Now) -> Result<(Arc<Self>, OpenReport), OpenError> { unimplemented!() }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> { unimplemented!() }
    /// Every topic, sorted by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> { unimplemented!() }
    /// Makes or changes a topic. An equal definition makes no record.
    pub fn put_topic(&self, config: TopicConfig, now: Now) -> Result<(Arc<Topic>, Ticket), AppendError> { unimplemented!() }
    /// Deletes a topic with its messages, offsets and timers. `None`: there is no such topic.
    pub fn delete_topic(&self, name: &str, now: Now) -> Result<Option<Ticket>, AppendError> { unimplemented!() }
    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<Arc<GroupConfig>> { unimplemented!() }
    /// Every group, sorted by name.
    pub fn groups(&self) -> Vec<Arc<GroupConfig>> { unimplemented!() }
    /// Makes or changes a group. An equal definition makes no record.
    pub fn put_group(&self, config: GroupConfig, now: Now) -> Result<(Arc<GroupConfig>, Ticket), AppendError> { unimplemented!() }
    /// Deletes a group, and its offsets if `clean_offsets`. `None`: there is no such group.
    pub fn delete_group(&self, name: &str, clean_offsets: bool, now: Now) -> Result<Option<Ticket>, AppendError> { unimplemented!() }
    /// Version of the topics.
    pub fn topics_version(&self) -> DataVersion { unimplemented!() }
    /// Version of the groups.
    pub fn groups_version(&self) -> DataVersion { unimplemented!() }

    /// Appends all of `batch`, or nothing.
    pub fn append(&self, batch: &mut Batch, now: Now) -> Result<Ticket, AppendError> { unimplemented!() }
    /// End of the log.
    pub fn written(&self) -> PhysicalOffset { unimplemented!() }
    /// End of what is on disk.
    pub fn synced(&self) -> PhysicalOffset { unimplemented!() }
    /// End of what readers see.
    pub fn confirmed(&self) -> PhysicalOffset { unimplemented!() }
    /// First byte of the log that is kept.
    pub fn log_start(&self) -> PhysicalOffset { unimplemented!() }
    /// Puts on disk what was written before the call.
    pub fn sync(&self) -> Result<PhysicalOffset, SyncError> { unimplemented!() }
    /// Whether a sync is due, by bytes.
    pub fn flush_due(&self) -> bool { unimplemented!() }

    /// First and next offset of a queue.
    pub fn queue_bounds(&self, topic: &Topic, queue: QueueId) -> Result<Bounds, ReadError> { unimplemented!() }
    /// Appends messages of a queue to `out`.
    pub fn read_queue(&self, topic: &Topic, queue: QueueId, from: QueueOffset, limits: ReadLimits, accept: &dyn Fn(i64) -> bool, out: &mut BytesMut) -> Result<QueueRead, ReadError> { unimplemented!() }
    /// The entry of a message.
    pub fn entry(&self, topic: &Topic, queue: QueueId, offset: QueueOffset) -> Result<Option<Entry>, ReadError> { unimplemented!() }
    /// Offset of the message that a time means.
    pub fn search_time(&self, topic: &Topic, queue: QueueId, time_ms: u64, boundary: Boundary) -> Result<QueueOffset, ReadError> { unimplemented!() }
    /// The message at a position that a client names; `None` unless its queue holds it.
    pub fn read_at(&self, position: PhysicalOffset) -> Result<Option<Bytes>, ReadError> { unimplemented!() }
    /// Messages of a topic with that key or unique id, newest first.
    pub fn query_keys(&self, topic: &str, key: &str, begin_ms: u64, end_ms: u64, max: usize) -> Result<Vec<Bytes>, ReadError> { unimplemented!() }
    /// Whether a group without an offset starts this queue at 0.
    pub fn is_young(&self, topic: &Topic, queue: QueueId) -> Result<bool, ReadError> { unimplemented!() }

    /// Next offset to consume.
    pub fn offset(&self, group: &str, topic: &Topic, queue: QueueId) -> Option<QueueOffset> { unimplemented!() }
    /// Every offset of a group, sorted by topic and queue.
    pub fn offsets_of_group(&self, group: &str) -> Vec<(Arc<Topic>, QueueId, QueueOffset)> { unimplemented!() }
    /// Groups that have an offset on a topic.
    pub fn groups_with_offsets_on(&self, topic: &Topic) -> Vec<GroupName> { unimplemented!() }
    /// Writes offsets in one record.
    pub fn commit_offsets(&self, commits: &[OffsetCommit], now: Now) -> Result<Ticket, AppendError> { unimplemented!() }
    /// Takes an offset that promises nothing: visible at once, written with the next staged ones.
    pub fn stage_offset(&self, commit: OffsetCommit) { unimplemented!() }
    /// Number of staged offsets.
    pub fn staged(&self) -> usize { unimplemented!() }
    /// Writes the staged offsets.
    pub fn write_staged_offsets(&self, now: Now) -> Result<(), AppendError> { unimplemented!() }

    /// Timers due at `now_ms` that have not ended, oldest first.
    pub fn due_timers(&self, now_ms: u64, limit: usize) -> Result<Vec<Timer>, ReadError> { unimplemented!() }
    /// Due time of the next timer.
    pub fn next_due_ms(&self) -> Option<u64> { unimplemented!() }
    /// The record at a position that a view gave.
    pub fn read_record(&self, position: PhysicalOffset) -> Result<Option<Bytes>, ReadError> { unimplemented!() }

    /// Moves confirmed and synced entries from the ring to the views.
    pub fn apply_views(&self, records_max: usize) -> Result<usize, ViewError> { unimplemented!() }
    /// Upkeep, to be called every few seconds.
    pub fn maintain(&self, now: Now) -> Result<Maintenance, MaintainError> { unimplemented!() }
    /// Writes what waits and lets go of the folder.
    pub fn close(&self, now: Now) -> Result<(), CloseError> { unimplemented!() }
    /// The store at this moment.
    pub fn status(&self) -> StoreStatus { unimplemented!() }
}
