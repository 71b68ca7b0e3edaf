//! One file of the log: positions from `base` on, a fixed number of them.
//! Invariant: a file's name is its base as 20 digits; bases and capacities do not change while it has that name.
//! Leaves order and gaps between segments to the log.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gantry_model::PhysicalOffset;

use super::{files::LogFile, own::SegmentHeader};

/// How the names of files begin that wait to be used again.
const FREE_PREFIX: &str = "free-";
const NONE: u64 = u64::MAX;

/// A segment that is open.
pub(super) struct Segment {
    pub(super) base: u64,
    /// Bytes of the file when it is whole.
    pub(super) capacity: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn LogFile>,
    /// Store time of the header, and of the last record; both 0 until known.
    first_time_ms: AtomicU64,
    last_time_ms: AtomicU64,
    newest_image: AtomicU64,
    /// Where the records end and the filler begins, counted from the base; `capacity` if not known.
    data_end: AtomicU64,
}

impl Segment {
    pub(super) fn new(base: u64, capacity: u64, path: PathBuf, file: Arc<dyn LogFile>) -> Self {
        Self {
            base,
            capacity,
            path,
            file,
            first_time_ms: AtomicU64::new(0),
            last_time_ms: AtomicU64::new(0),
            newest_image: AtomicU64::new(NONE),
            data_end: AtomicU64::new(capacity),
        }
    }

    /// First position behind it.
    pub(super) fn end(&self) -> u64 {
        self.base + self.capacity
    }

    pub(super) fn note_header(&self, header: &SegmentHeader, time_ms: u64) {
        self.first_time_ms.store(time_ms, Ordering::Relaxed);
        self.newest_image.store(header.newest_image.map_or(NONE, |at| at.0), Ordering::Relaxed);
    }

    pub(super) fn note_last_time(&self, time_ms: u64) {
        self.last_time_ms.store(time_ms, Ordering::Relaxed);
    }

    pub(super) fn note_data_end(&self, at: u64) {
        self.data_end.store(at, Ordering::Relaxed);
    }

    pub(super) fn info(&self, is_sealed: bool, written: u64) -> SegmentInfo {
        let image = self.newest_image.load(Ordering::Relaxed);
        let data_end = self.base + self.data_end.load(Ordering::Relaxed);
        SegmentInfo {
            base: PhysicalOffset(self.base),
            end: PhysicalOffset(if is_sealed { self.end() } else { written }),
            is_sealed,
            bytes: data_end.min(written) - self.base,
            file_bytes: self.capacity,
            first_time_ms: self.first_time_ms.load(Ordering::Relaxed),
            last_time_ms: self.last_time_ms.load(Ordering::Relaxed),
            newest_image: (image != NONE).then_some(PhysicalOffset(image)),
        }
    }
}

/// What there is to know about a segment without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Position of its first byte.
    pub base: PhysicalOffset,
    /// Position behind its last byte; for the one being written, the position written.
    pub end: PhysicalOffset,
    /// Whether nothing more will be written to it.
    pub is_sealed: bool,
    /// Bytes of records in it.
    pub bytes: u64,
    /// Bytes that its file takes.
    pub file_bytes: u64,
    /// Store time of its header.
    pub first_time_ms: u64,
    /// Store time of its last record; 0 if damage hides it.
    pub last_time_ms: u64,
    /// Newest complete state image that was known when it was begun.
    pub newest_image: Option<PhysicalOffset>,
}

/// Path of the segment that begins at `base`.
pub(super) fn segment_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}"))
}

/// Base of the segment that a file of this name is, if it is one.
pub(super) fn base_of_name(name: &str) -> Option<u64> {
    let is_digits = name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit());
    if is_digits { name.parse().ok() } else { None }
}

/// Path of a file that waits to be used again, named by the base that it had.
pub(super) fn free_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{FREE_PREFIX}{base:020}"))
}

/// Whether a file of this name waits to be used again.
pub(super) fn is_free_name(name: &str) -> bool {
    name.strip_prefix(FREE_PREFIX).is_some_and(|base| base_of_name(base).is_some())
}
