//! What a store is told when it is opened, and the time it is told with each call.
//! Invariant: plain data; every bound has a default that fits a small container.
//! Leaves reading of settings to the broker.

use std::{path::PathBuf, time::Duration};

pub use crate::log::RoomOptions;

/// Time of a call: the store reads no clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// Milliseconds since any fixed moment; never goes back.
    pub monotonic_ms: u64,
}

/// When a record counts as confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// When it is on disk: it survives a power cut.
    Sync,
    /// When it is written: it survives a crash of the process.
    Async,
}

/// How long messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Age at which messages go, in milliseconds. Default 72 h.
    pub age_ms: u64,
    /// Most bytes of log; the oldest go beyond it. Default none.
    pub bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age_ms: 72 * 3600 * 1000, bytes: None }
    }
}

/// What happens when the log has its size, or the disk is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Messages are refused until retention has made room.
    #[default]
    Refuse,
    /// The oldest messages go, whatever their age.
    DeleteOldest,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Folder of the store; made if it is not there.
    pub dir: PathBuf,
    /// When a record counts as confirmed. Default `Async`.
    pub flush: Flush,
    /// Whether a start goes on, with what is left, that has lost topics, groups and offsets: the views are gone and no
    /// state image is whole. Default no.
    pub accepts_lost_state: bool,
    /// Bytes of a log segment. Default 1 GiB, at least 64 KiB.
    pub segment_bytes: u64,
    /// Bytes written and not synced at which a sync is due. Default 4 MiB.
    pub dirty_bytes_max: u64,
    /// How long messages are kept.
    pub retention: Retention,
    /// How much room the log may take, and keeps for state. Default no limit and no reserve.
    pub room: RoomOptions,
    /// What happens when there is no more. Default `Refuse`.
    pub on_full: OnFull,
    /// Wait between two steps of 64 MiB in which the file of an expired segment is given back, so that syncs come
    /// between them. Default 50 ms.
    pub unlink_pause: Duration,
    /// Bytes of entries that wait for the views. Default 64 MiB, enough for about 800,000 messages.
    pub ring_bytes_max: usize,
    /// A queue whose first record is within so many bytes of the log's end is young. Default 1 GiB.
    pub young_bytes: u64,
    /// Memory for the end of the log and for what was read of it last, in bytes. Reads far behind take up to a quarter of
    /// it, and 528 KiB at least, in addition. Default 16 MiB.
    pub log_block_bytes: usize,
    /// Memory for keys that are in no file of the key index yet, in bytes. Default 32 MiB.
    pub key_bytes: usize,
    /// Memory of the views' block cache, in bytes. Default 32 MiB.
    pub view_cache_bytes: usize,
    /// Memory of the views' write buffers, in bytes. Default 64 MiB.
    pub view_write_bytes: usize,
}

impl StoreOptions {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            flush: Flush::Async,
            accepts_lost_state: false,
            segment_bytes: 1 << 30,
            dirty_bytes_max: 4 << 20,
            retention: Retention::default(),
            room: RoomOptions::default(),
            on_full: OnFull::default(),
            unlink_pause: Duration::from_millis(50),
            ring_bytes_max: 64 << 20,
            young_bytes: 1 << 30,
            log_block_bytes: 16 << 20,
            key_bytes: 32 << 20,
            view_cache_bytes: 32 << 20,
            view_write_bytes: 64 << 20,
        }
    }
}
