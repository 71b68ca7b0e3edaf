//! Commit log: the sequence of segments that every durable change reaches first.
//! Invariant: `synced <= written`; bytes below `synced` survive a crash; a position is never used for other bytes.
//! Opens no socket and reads no clock: disk, time and randomness arrive as arguments. What records mean is the views'.

mod batch;
mod blocks;
mod cold;
pub mod crash_states;
pub mod files;
mod mark;
pub mod memory_files;
mod own;
mod reader;
mod recover;
mod room;
mod segment;
mod shared;
mod spare;
pub mod survey;
#[cfg(test)]
mod tests;
mod unlink;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_model::PhysicalOffset;
use gantry_record::RecordError;

pub use batch::RecordBatch;
pub(crate) use own::Own;
pub use own::{FORMAT_VERSION, MARK_TOPIC, SEGMENT_TOPIC, SegmentHeader, StoreId};
pub use reader::{RecordCursor, Walked};
pub use recover::{Cut, OpenReport};
pub use segment::SegmentInfo;
pub use shared::Log;
pub use spare::{Purpose, RoomOptions, Shortage};
pub use unlink::{Unlink, Unlinked};
pub use writer::{Appended, LogWriter};

use files::Files;

/// Largest record, in bytes, and so the most memory that one record's size can claim while reading.
/// The largest frame of a client is 16 MiB; carried records and images are smaller.
pub const RECORD_BYTES_LIMIT: u64 = 32 * 1024 * 1024;
/// Smallest segment, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 4096;

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The folder of the segments.
    pub dir: PathBuf,
    /// Length of new segments, in bytes, at least [`SEGMENT_BYTES_MIN`]. Segments that are there keep theirs.
    pub segment_bytes: u64,
    /// Random; becomes the store's id if the folder holds no log.
    pub new_store_id: StoreId,
    /// Written into the headers of new segments.
    pub epoch: u64,
    /// A record boundary before which everything is known to be synced: the oldest view position, or 0.
    pub scan_from: PhysicalOffset,
    /// How much room the log may take, and keeps.
    pub room: RoomOptions,
    /// Memory for the end of the log and for what was read of it last, in bytes; a quarter more is for reads far behind.
    pub block_bytes: usize,
}

/// Opens the log in `options.dir`, or makes one: finds its end, cuts a torn tail, reports damage.
///
/// One writer at a time: the caller holds the folder's lock.
pub fn open(
    options: &LogOptions,
    files: Arc<dyn Files>,
) -> Result<(LogWriter, Log, OpenReport), OpenError> {
    recover::open(options, files)
}

/// Why a log cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer release has written here.
    #[error("{}: the log has format {found}, this release knows up to {known}", path.display())]
    NewerFormat {
        /// Segment that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Newest format known here.
        known: u32,
    },
    /// Segments of two stores lie in one folder.
    #[error("{}: the segment belongs to store {found}, the others to store {expected}", path.display())]
    MixedStores {
        /// Segment that does not belong.
        path: PathBuf,
        /// Its store.
        found: StoreId,
        /// Store of the first segment.
        expected: StoreId,
    },
    /// Two segments claim the same positions.
    #[error("{}: the segment begins at {base}, before the one ahead of it ends at {end}", path.display())]
    Overlap {
        /// The later segment.
        path: PathBuf,
        /// Where it begins.
        base: u64,
        /// Where the earlier one ends.
        end: u64,
    },
    /// The segment length in the options is too small.
    #[error("segments of {segment_bytes} bytes are too small, the minimum is {SEGMENT_BYTES_MIN}")]
    SegmentBytes {
        /// Length asked for.
        segment_bytes: u64,
    },
    /// The system refused something.
    #[error("{action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no room on the disk. The log is as before and may be used on.
    #[error("no room for {bytes} bytes at position {position}")]
    Full {
        /// Where they would have been.
        position: PhysicalOffset,
        /// Bytes refused.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Messages are refused until there is room for another segment. The log is as before.
    #[error(transparent)]
    Short(#[from] Shortage),
    /// The batch does not fit into a segment, or one record is beyond the limit.
    #[error("{bytes} bytes are too large, the limit is {bytes_max}")]
    TooLarge {
        /// Size of batch or record.
        bytes: u64,
        /// Largest size accepted.
        bytes_max: u64,
    },
    /// The next segment could not be made. The log is as before; trying again may help.
    #[error("make segment {}", path.display())]
    NewSegment {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier failure left the end of the log unknown: open it again.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a segment's file was not given up. The next try begins with it.
#[derive(Debug, thiserror::Error)]
#[error("unlink {}", path.display())]
pub struct UnlinkError {
    /// The segment.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Why the positions written could not be made durable. The writer is stopped.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// This or an earlier sync or write failed: open the log again.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The failure after which nothing is appended or synced any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the log is stopped since {action} {} failed: {source}", path.display())]
pub struct Stopped {
    /// What was attempted.
    pub action: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: Arc<io::Error>,
}

impl Stopped {
    fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It may.
    Wait,
    /// It may, and reads far behind the end: in large pieces, past the system's cache.
    Cold,
    /// The same, but what the system's cache has is taken from there.
    ColdFromCache,
    /// Only what is in memory is read.
    AtHand,
}

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The position was given up by retention.
    #[error("position {position} lies before the start of the log, {start}")]
    BelowStart {
        /// Position asked for.
        position: PhysicalOffset,
        /// First position that is there.
        start: PhysicalOffset,
    },
    /// The range is not inside what was written, or crosses the border of a segment.
    #[error("{bytes} bytes at position {position} are not in one segment of the log")]
    OutOfRange {
        /// Position asked for.
        position: PhysicalOffset,
        /// Bytes asked for.
        bytes: u64,
    },
    /// The disk would have to be waited for, which the caller did not want.
    #[error("position {position} is not in memory")]
    NotAtHand {
        /// Position asked for.
        position: PhysicalOffset,
    },
    /// The file ends early.
    #[error("{}: the file ends before position {position}", path.display())]
    Truncated {
        /// The segment.
        path: PathBuf,
        /// First position that is missing.
        position: PhysicalOffset,
    },
    /// The system refused.
    #[error("read {} at position {position}", path.display())]
    Io {
        /// The segment.
        path: PathBuf,
        /// Position asked for.
        position: PhysicalOffset,
        /// What the system said.
        source: io::Error,
    },
}

/// A place of the log that does not hold what was synced there. It is kept as it is and never delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment's file.
    pub path: PathBuf,
    /// Byte in the file where it begins.
    pub file_offset: u64,
    /// The same as position in the log.
    pub position: PhysicalOffset,
    /// Where the next good record begins.
    pub end: PhysicalOffset,
    /// What is wrong.
    pub reason: DamageReason,
}

impl Damage {
    /// Whether records that clients know of may have lain there. A header or a filler is none.
    pub(crate) fn may_hide_records(&self) -> bool {
        let bytes = self.end.0 - self.position.0;
        let is_header = self.file_offset == 0 && bytes == own::header_record_bytes();
        !is_header && self.reason != DamageReason::Filler
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, at, position, end) =
            (self.path.display(), self.file_offset, self.position, self.end);
        write!(f, "{path}: damaged at byte {at}, positions {position}..{end}: {}", self.reason)
    }
}

/// What is wrong with a place of the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DamageReason {
    /// No segment holds the position.
    #[error("the segment is missing")]
    MissingSegment,
    /// The file is shorter than its segment.
    #[error("the file ends early")]
    Truncated,
    /// Nothing is written there.
    #[error("there are zeros where a record should be")]
    Unwritten,
    /// The first bytes are no record's.
    #[error("size {size} and magic {magic:#010x} do not begin a record")]
    NotARecord {
        /// Size field.
        size: u32,
        /// Magic field.
        magic: u32,
    },
    /// A record that does not verify.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A filler that does not verify.
    #[error("the filler at the end of the segment is broken")]
    Filler,
    /// The disk refuses to read it, for the reason given.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// A segment without its header.
    #[error("the segment does not begin with its header")]
    Header,
}
