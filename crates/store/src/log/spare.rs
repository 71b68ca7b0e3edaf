//! Room for segments to come: files that wait to be written again, the reserve among them, and the log's limit.
//! Invariant: each file here is as long as a segment and has its place on the disk; messages never take the last
//! `reserve` of them, so that what the store writes for itself goes on when the disk is full.
//! Leaves to the writer which records are which, and to upkeep when new files are made.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

/// Most files that are kept to be written again, beside the reserve.
const KEPT_MAX: usize = 2;
/// Written until the oldest are gone: that takes three syncs, and two seconds on a disk that others use. An eighth of
/// a log for which it is too much, and a sixteenth of one for which it is less than that.
const MEANWHILE_BYTES: u64 = 256 << 20;

/// What a batch is, when there is no room for everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Messages: refused as soon as only the reserve is left.
    Messages,
    /// State, and what keeps it: the reserve is for it.
    State,
}

/// Why messages are refused until there is room for another segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The disk has no room.
    #[error("the disk has no room for another {segment_bytes} bytes of log")]
    Disk {
        /// Bytes of a segment.
        segment_bytes: u64,
    },
    /// The log has its size.
    #[error(
        "the log takes {log_bytes} bytes, with another segment it would pass its limit of {bytes_max}"
    )]
    Limit {
        /// Bytes of all its files.
        log_bytes: u64,
        /// Most bytes that they may take.
        bytes_max: u64,
    },
}

/// The shortage there is, readable by everybody.
#[derive(Debug, Default)]
pub(super) struct ShortageCell {
    is_short: AtomicBool,
    last: Mutex<Option<Shortage>>,
}

impl ShortageCell {
    pub(super) fn set(&self, shortage: Option<Shortage>) {
        *self.last.lock() = shortage;
        self.is_short.store(shortage.is_some(), Ordering::Release);
    }

    pub(super) fn get(&self) -> Option<Shortage> {
        if self.is_short.load(Ordering::Acquire) { *self.last.lock() } else { None }
    }
}

/// How much room the log may take, and keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomOptions {
    /// Files that only state may take, made beside the segments: never more than there are segments. Default 0.
    pub reserve_files: usize,
    /// Most bytes of all files, the reserve included; `None`: as many as the disk takes. Default none.
    pub bytes_max: Option<u64>,
    /// Whether the limit may be passed for a moment, by as much as [`RoomOptions::overshoot_bytes`]: for a log whose
    /// oldest segments are about to go. Default not.
    pub may_pass: bool,
}

impl RoomOptions {
    /// Bytes by which the files may pass the limit: a segment, and what the reserve takes.
    pub fn overshoot_bytes(&self, segment_bytes: u64) -> u64 {
        if self.may_pass { (self.reserve_files as u64 + 1) * segment_bytes } else { 0 }
    }

    /// Most bytes that segments may take so that there is always room for the next one: below the limit by the
    /// reserve, the next segment, and what may be written until the oldest are gone.
    pub fn segments_bytes_max(&self, segment_bytes: u64) -> Option<u64> {
        let kept = (self.reserve_files as u64 + 1) * segment_bytes;
        self.bytes_max.map(|bytes_max| {
            let meanwhile = (bytes_max / 16).max(MEANWHILE_BYTES.min(bytes_max / 8));
            (bytes_max - meanwhile).saturating_sub(kept)
        })
    }
}

/// The files that wait, and the rules of who gets one.
#[derive(Debug)]
pub(super) struct Spares {
    options: RoomOptions,
    segment_bytes: u64,
    /// The newest last: it is the likeliest to be in memory.
    files: VecDeque<PathBuf>,
    /// Numbers the names of files that were made to wait.
    made: u64,
}

impl Spares {
    pub(super) fn new(options: RoomOptions, segment_bytes: u64) -> Self {
        Self { options, segment_bytes, files: VecDeque::new(), made: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Files that are in reserve beside so many segments.
    fn reserve(&self, segments: usize) -> usize {
        self.options.reserve_files.min(segments)
    }

    /// Whether a file that the log has given up is kept.
    pub(super) fn has_place(&self, segments: usize) -> bool {
        self.files.len() < self.reserve(segments) + KEPT_MAX
    }

    pub(super) fn push(&mut self, path: PathBuf) {
        self.files.push_back(path);
    }

    /// A file that is not in reserve.
    pub(super) fn take(&mut self, segments: usize) -> Option<PathBuf> {
        if self.files.len() > self.reserve(segments) { self.files.pop_back() } else { None }
    }

    /// A file of the reserve.
    pub(super) fn take_reserved(&mut self) -> Option<PathBuf> {
        self.files.pop_back()
    }

    /// Whether the log may have another file, where `segments` take `segment_bytes` together.
    pub(super) fn check_limit(&self, segments_bytes: u64) -> Result<(), Shortage> {
        let log_bytes = segments_bytes + self.files.len() as u64 * self.segment_bytes;
        let overshoot = self.options.overshoot_bytes(self.segment_bytes);
        match self.options.bytes_max {
            Some(bytes_max) if log_bytes + self.segment_bytes > bytes_max + overshoot => {
                Err(Shortage::Limit { log_bytes, bytes_max })
            }
            _ => Ok(()),
        }
    }

    /// Whether a file of the reserve is missing.
    pub(super) fn lack_reserve(&self, segments: usize) -> bool {
        self.files.len() < self.reserve(segments)
    }

    /// Files missing in the reserve, and the one that the next segment needs.
    pub(super) fn missing(&self, segments: usize) -> usize {
        (self.reserve(segments) + 1).saturating_sub(self.files.len())
    }

    pub(super) fn no_room(&self) -> Shortage {
        Shortage::Disk { segment_bytes: self.segment_bytes }
    }

    /// A number that no file made to wait has had since the log was opened.
    pub(super) fn next_number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }
}
