//! The part of the log that readers, the syncing thread and the writer share.
//! Invariant: `start <= synced <= written`, each only grows; a sync covers segments in order, and once one has failed
//! nothing is synced or appended any more.
//! Leaves writing to `LogWriter`.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::BytesMut;
use gantry_model::PhysicalOffset;
use parking_lot::{Condvar, Mutex, RwLock};

use super::{
    Patience, ReadError, SegmentInfo, Stopped, StoreId, SyncError,
    blocks::{BLOCK_BYTES, Blocks, block_start},
    cold::ColdReads,
    files::Files,
    reader::{RecordCursor, Walker},
    segment::{Segment, segment_path},
    spare::{Shortage, ShortageCell},
};
use crate::planted::sync_data;

/// The shared side of the log. Clones are the same log.
#[derive(Clone)]
pub struct Log(pub(super) Arc<Shared>);

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("start", &self.start())
            .field("synced", &self.synced())
            .field("written", &self.written())
            .finish_non_exhaustive()
    }
}

pub(super) struct Shared {
    pub(super) files: Arc<dyn Files>,
    pub(super) dir: PathBuf,
    pub(super) store_id: StoreId,
    /// Ordered by base; the last one may be the one being written.
    pub(super) segments: RwLock<Vec<Arc<Segment>>>,
    pub(super) start: AtomicU64,
    pub(super) written: AtomicU64,
    synced: AtomicU64,
    /// Store time of the last record.
    pub(super) last_time_ms: AtomicU64,
    /// Whether a name of a segment may not survive a crash yet.
    pub(super) is_dir_dirty: AtomicBool,
    /// What was written last: whoever reads at the end of the log asks the system for nothing.
    pub(super) tail: Blocks,
    /// What readers behind the tail have in common.
    pub(super) read_last: Blocks,
    pub(super) cold: ColdReads,
    /// Why messages are refused for want of room.
    pub(super) shortage: ShortageCell,
    stopped: OnceLock<Stopped>,
    is_led: Mutex<bool>,
    sync_ended: Condvar,
}

impl Shared {
    pub(super) fn new(
        files: Arc<dyn Files>,
        dir: PathBuf,
        store_id: StoreId,
        segments: Vec<Arc<Segment>>,
        end: u64,
        last_time_ms: u64,
        block_bytes: usize,
    ) -> Self {
        let start = segments.first().map_or(end, |segment| segment.base);
        Self {
            files,
            dir,
            store_id,
            segments: RwLock::new(segments),
            start: AtomicU64::new(start),
            written: AtomicU64::new(end),
            synced: AtomicU64::new(end),
            last_time_ms: AtomicU64::new(last_time_ms),
            is_dir_dirty: AtomicBool::new(false),
            shortage: ShortageCell::default(),
            tail: Blocks::new(block_bytes / 2),
            read_last: Blocks::new(block_bytes / 2),
            cold: ColdReads::new(block_bytes / 4),
            stopped: OnceLock::new(),
            is_led: Mutex::new(false),
            sync_ended: Condvar::new(),
        }
    }

    pub(super) fn check_running(&self) -> Result<(), Stopped> {
        self.stopped.get().map_or(Ok(()), |stopped| Err(stopped.clone()))
    }

    /// Stops the log for good. The first cause stays.
    pub(super) fn stop(&self, cause: Stopped) -> Stopped {
        self.stopped.get_or_init(|| cause).clone()
    }

    fn segment_at(&self, at: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let after = segments.partition_point(|segment| segment.base <= at);
        segments[..after].last().filter(|segment| at < segment.end()).cloned()
    }

    /// Syncs everything that is written when it looks. One thread at a time.
    fn sync_now(&self) -> Result<(), Stopped> {
        self.check_running()?;
        let (from, to) =
            (self.synced.load(Ordering::Acquire), self.written.load(Ordering::Acquire));
        if from >= to {
            return Ok(());
        }
        if self.is_dir_dirty.swap(false, Ordering::AcqRel) {
            self.files
                .sync_dir(&self.dir)
                .map_err(|source| self.stop(Stopped::new("sync folder", &self.dir, source)))?;
        }
        let dirty: Vec<_> = self
            .segments
            .read()
            .iter()
            .filter(|s| s.end() > from && s.base < to)
            .cloned()
            .collect();
        for segment in dirty {
            sync_data(&*segment.file)
                .map_err(|source| self.stop(Stopped::new("sync", &segment.path, source)))?;
        }
        self.synced.store(to, Ordering::Release);
        Ok(())
    }
}

/// What a reader wants of one block.
#[derive(Debug, Default)]
struct Wanted {
    block: u64,
    /// Where its last record there begins.
    last: u64,
    bytes: u64,
    runs: u32,
    end: u64,
}

impl Wanted {
    fn add(&mut self, range: &Range<PhysicalOffset>) {
        self.runs += u32::from(self.runs == 0 || self.end != range.start.0);
        self.bytes += range.end.0 - range.start.0;
        (self.last, self.end) = (range.start.0, range.end.0);
    }

    /// A read call costs as much as copying some 10 KiB: a block pays for itself from an eighth of it on, if it saves
    /// calls at all.
    fn is_worth_a_block(&self) -> bool {
        self.runs > 1 && self.bytes >= BLOCK_BYTES as u64 / 8
    }
}

impl Log {
    /// First position that is there.
    pub fn start(&self) -> PhysicalOffset {
        PhysicalOffset(self.0.start.load(Ordering::Acquire))
    }

    /// Everything before was handed to the system.
    pub fn written(&self) -> PhysicalOffset {
        PhysicalOffset(self.0.written.load(Ordering::Acquire))
    }

    /// Everything before survives a crash.
    pub fn synced(&self) -> PhysicalOffset {
        PhysicalOffset(self.0.synced.load(Ordering::Acquire))
    }

    /// Store time of the last record, in milliseconds since 1970.
    pub fn last_time_ms(&self) -> u64 {
        self.0.last_time_ms.load(Ordering::Acquire)
    }

    /// Which store the log belongs to.
    pub fn store_id(&self) -> StoreId {
        self.0.store_id
    }

    /// The failure that stopped the log, if one did.
    pub fn stopped(&self) -> Option<Stopped> {
        self.0.stopped.get().cloned()
    }

    /// Makes everything that is written at the time of the call survive a crash, and says up to where.
    ///
    /// Blocks. Of concurrent callers one syncs for all: those whose bytes it covers return with it, of the others one
    /// leads the next. After a failure the log is stopped; the sync is not tried again, since the system may have
    /// dropped what it could not write.
    pub fn sync(&self) -> Result<PhysicalOffset, SyncError> {
        let target = self.written();
        let mut is_led = self.0.is_led.lock();
        loop {
            if self.synced() >= target {
                return Ok(self.synced());
            }
            self.0.check_running()?;
            if *is_led {
                self.0.sync_ended.wait(&mut is_led);
                continue;
            }
            *is_led = true;
            drop(is_led);
            let outcome = self.0.sync_now();
            is_led = self.0.is_led.lock();
            *is_led = false;
            self.0.sync_ended.notify_all();
            outcome?;
        }
    }

    /// Appends `bytes` bytes from `position` on to `out`. They are not verified; on error `out` is as before.
    pub fn read(
        &self,
        position: PhysicalOffset,
        bytes: usize,
        patience: Patience,
        out: &mut BytesMut,
    ) -> Result<(), ReadError> {
        let before = out.len();
        // Checked before memory is taken: the size may come from a damaged place.
        let segment = self.check_range(position, bytes)?;
        let (tail, read_last) = (&self.0.tail, &self.0.read_last);
        if tail.copy(position.0, bytes, out) || read_last.copy(position.0, bytes, out) {
            return Ok(());
        }
        out.resize(before + bytes, 0);
        let outcome = self.read_file(&segment, position, patience, &mut out[before..]);
        if outcome.is_err() {
            out.truncate(before);
        }
        outcome
    }

    /// Fills `out` with the bytes from `position` on, all of which lie in `segment`. They are not verified.
    fn read_file(
        &self,
        segment: &Segment,
        position: PhysicalOffset,
        patience: Patience,
        out: &mut [u8],
    ) -> Result<(), ReadError> {
        let failed = |source| ReadError::Io { path: segment.path.clone(), position, source };
        let at = position.0 - segment.base;
        let read = match patience {
            Patience::Wait | Patience::Cold | Patience::ColdFromCache => {
                segment.file.read_at(out, at).map_err(failed)?
            }
            Patience::AtHand if segment.file.read_at_hand(out, at).map_err(failed)? => out.len(),
            Patience::AtHand => return Err(ReadError::NotAtHand { position }),
        };
        // A segment that was given up meanwhile may hold other bytes by now.
        self.check_start(position)?;
        if read < out.len() {
            let position = position.plus(read as u64);
            return Err(ReadError::Truncated { path: segment.path.clone(), position });
        }
        Ok(())
    }

    /// Reads the blocks ahead that hold many of `ranges`, a reader's next records in the log's order. Records of several
    /// queues lie between each other: one read brings those of all of them.
    ///
    /// What cannot be read is left to [`Log::read`], which says why. Returns, for [`Patience::ColdFromCache`], whether the
    /// system's cache had all that was read; `None` if nothing was.
    pub fn read_ahead(
        &self,
        patience: Patience,
        ranges: impl Iterator<Item = Range<PhysicalOffset>>,
    ) -> Option<bool> {
        if matches!(patience, Patience::Cold | Patience::ColdFromCache) {
            return self.read_ahead_cold(patience, ranges);
        }
        let mut wanted = Wanted::default();
        for range in ranges {
            let block = block_start(range.start.0);
            if wanted.block != block {
                self.load(&wanted, patience);
                wanted = Wanted { block, ..Wanted::default() };
            }
            wanted.add(&range);
        }
        self.load(&wanted, patience);
        None
    }

    /// Forgets what is in memory, so that a test reads the disk.
    #[cfg(test)]
    pub(crate) fn forget_blocks(&self) {
        self.0.tail.clear();
        self.0.read_last.clear();
    }

    /// Whether reads behind the tail have brought the byte at `position` into memory.
    #[cfg(test)]
    pub(crate) fn has_read_ahead(&self, position: PhysicalOffset) -> bool {
        self.0.read_last.holds(position.0)
    }

    fn load(&self, wanted: &Wanted, patience: Patience) {
        if !wanted.is_worth_a_block() || self.0.tail.holds(wanted.last) {
            return;
        }
        if self.0.read_last.holds(wanted.last) {
            return;
        }
        let start = PhysicalOffset(wanted.block.max(self.start().0));
        let end = (wanted.block + BLOCK_BYTES as u64).min(self.written().0);
        let size = end.saturating_sub(start.0) as usize;
        // A block across a segment's border is not kept: there is one a segment.
        let Ok(segment) = self.check_range(start, size) else { return };
        let mut bytes = self.0.read_last.take_memory(start.0);
        bytes.resize(size, 0);
        if self.read_file(&segment, start, patience, &mut bytes).is_ok() {
            self.0.read_last.put(start.0, bytes);
        }
    }

    /// File of a position, and the byte there. Where no segment is, the file is the one that would begin there.
    pub(crate) fn locate(&self, position: PhysicalOffset) -> (PathBuf, Option<u64>) {
        match self.0.segment_at(position.0) {
            Some(segment) => (segment.path.clone(), Some(position.0 - segment.base)),
            None => (segment_path(&self.0.dir, position.0), None),
        }
    }

    /// The segment that holds a position.
    pub(super) fn segment_of(&self, position: PhysicalOffset) -> Option<Arc<Segment>> {
        self.0.segment_at(position.0)
    }

    pub(super) fn check_start(&self, position: PhysicalOffset) -> Result<(), ReadError> {
        let start = self.start();
        if position < start { Err(ReadError::BelowStart { position, start }) } else { Ok(()) }
    }

    pub(super) fn check_range(
        &self,
        position: PhysicalOffset,
        bytes: usize,
    ) -> Result<Arc<Segment>, ReadError> {
        let bytes = bytes as u64;
        let end = position.0.saturating_add(bytes);
        let segment = self.0.segment_at(position.0);
        // Looked at after the segments: one that was given up meanwhile is not damage.
        self.check_start(position)?;
        segment
            .filter(|segment| end <= segment.end() && end <= self.written().0)
            .ok_or(ReadError::OutOfRange { position, bytes })
    }

    /// Walks the verified records from `from`, a record's position, up to `to`, which is at most `written`.
    ///
    /// A `from` before the log's start is taken for the start. Segments that are given up while the cursor is used read
    /// as damage: compare with `start`.
    pub fn records(&self, from: PhysicalOffset, to: PhysicalOffset) -> RecordCursor {
        let segments = self.0.segments.read().clone();
        let from = segments.first().map_or(from.0, |first| from.0.max(first.base));
        let limit = to.0.min(self.written().0);
        RecordCursor::new(Walker::new(segments, limit, Some(self.store_id())), from)
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let written = self.written().0;
        let segments = self.0.segments.read();
        let sealed = segments.len().saturating_sub(1);
        let infos = segments.iter().enumerate().map(|(index, segment)| {
            let is_sealed = index < sealed || written >= segment.end();
            segment.info(is_sealed, written.max(segment.base))
        });
        infos.collect()
    }

    /// Where the newest segment begins.
    pub fn newest_segment(&self) -> Option<PhysicalOffset> {
        self.0.segments.read().last().map(|segment| PhysicalOffset(segment.base))
    }

    /// Bytes that the segments' files take, those that wait to be used again left out.
    pub fn file_bytes(&self) -> u64 {
        self.0.segments.read().iter().map(|segment| segment.capacity).sum()
    }

    /// Why messages are refused for want of room, if they are.
    pub fn shortage(&self) -> Option<Shortage> {
        self.0.shortage.get()
    }

    /// Bytes that the file system has left for the log.
    pub fn free_space(&self) -> std::io::Result<u64> {
        self.0.files.free_space(&self.0.dir)
    }
}
