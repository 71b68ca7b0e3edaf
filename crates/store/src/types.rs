//! Plain values that the store's calls take and give.
//! Invariant: none of them holds a resource or a lock.
//! Leaves their meaning on a wire to the broker.

use gantry_model::{PhysicalOffset, QueueOffset};

use crate::{damage::Damage, salvage::Salvaged, scrub::ScrubStatus};

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
    /// Bytes behind the end of the log within which a read may wait for the disk.
    pub waits_within: u64,
    /// How it is read farther behind.
    pub far: Far,
}

/// How messages are read that lie so far behind the end of the log that the disk may have to be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Far {
    /// If they are in memory; else it is [`crate::ReadError::NotAtHand`].
    AtHand,
    /// In a cold read: in large pieces, past the system's cache.
    Cold,
    /// In a cold read that takes from the system's cache what is there, and tells it in [`QueueRead::in_cache`].
    ColdFromCache,
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
    /// The offset is below the queue's first, or came to be so while it was read.
    TooSmall,
    /// The offset is the one that the next message gets.
    AtEnd,
    /// The offset is beyond that.
    BeyondEnd,
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
    /// Position of the last one that was looked at, whether it was accepted or not.
    pub last_position: Option<PhysicalOffset>,
    /// Of a read [`Far::ColdFromCache`]: whether the system's cache had all that was to be brought. `None`: nothing was.
    pub in_cache: Option<bool>,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Where a torn tail was cut off, if there was one.
    pub cut_at: Option<PhysicalOffset>,
    /// Damaged places found.
    pub damage: Vec<Damage>,
    /// What was saved, if state is lost and that was accepted.
    pub salvaged: Option<Salvaged>,
}

/// What upkeep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Log segments let go.
    pub segments_removed: u64,
    /// Pending timers appended again, because their segment is to go.
    pub timers_carried: u64,
    /// Whether the views were flushed.
    pub views_flushed: bool,
    /// Whether a state image was written.
    pub image_written: bool,
    /// Whether [`crate::Store::index_keys`] has more to do.
    pub is_index_behind: bool,
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
    /// Bytes of the log's files, those that wait to become segments and those that are about to go included.
    pub file_bytes: u64,
    /// Bytes of files that were given up and are still there.
    pub leaving_bytes: u64,
    /// Bytes of files that are gone since opening.
    pub removed_bytes: u64,
    /// Number of segments.
    pub segments: usize,
    /// Files that wait to become segments, the reserve among them.
    pub spare_files: usize,
    /// Why messages are refused for want of room, if they are.
    pub shortage: Option<crate::log::Shortage>,
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
    /// Bytes of the log that were read for the key index since opening.
    pub key_read_bytes: u64,
    /// Keys of appended messages that were too many to wait for the key index since opening: those are read.
    pub keys_forgotten: u64,
    /// Damaged places found since opening, the newest last, at most 100.
    pub damage: Vec<Damage>,
    /// Number of damaged places of the log met since opening.
    pub damaged_records: u64,
    /// Number of damaged files of views and key index met since opening.
    pub damaged_files: u64,
    /// How the scrub goes.
    pub scrub: ScrubStatus,
}
