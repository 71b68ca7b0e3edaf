//! The one owner of the log's end: seals records and writes each batch with one call, two when a segment is full.
//! Invariant: after an error other than `Stopped` the log is as before, and no byte of the refused batch can be taken
//! for a record later; after a failure whose effect is unknown nothing is appended any more.
//! Takes no lock but that on the list of segments, and that only when it changes.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use gantry_model::{PhysicalOffset, QueueOffset};

use super::{
    AppendError, Log, RECORD_BYTES_LIMIT, RecordBatch, SegmentHeader, Stopped,
    files::{LogFile, WriteFailure},
    own::{self, FILLER_BYTES_MIN, HEADROOM_BYTES},
    segment::{Segment, segment_path},
    spare::{Purpose, RoomOptions, Spares},
};

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Position of its first record.
    pub start: PhysicalOffset,
    /// Position behind its last record.
    pub end: PhysicalOffset,
    /// Store time of all its records, in milliseconds since 1970.
    pub store_time_ms: u64,
}

/// The writing side of the log.
pub struct LogWriter {
    pub(super) log: Log,
    epoch: u64,
    pub(super) segment_bytes: u64,
    /// The segment being written; `None` if the next batch begins a new one.
    pub(super) active: Option<Arc<Segment>>,
    /// Position of the next byte.
    pub(super) at: u64,
    pub(super) last_time_ms: u64,
    newest_image: Option<PhysicalOffset>,
    /// Up to where the last header or mark in the log says that it is synced.
    marked: u64,
    /// Where the newest mark ends that covers everything in front of it.
    pub(super) ended: u64,
    /// Frozen by `position_for` until the next append, so that its answer holds.
    pub(super) foretold: Option<Foretold>,
    /// Segments that the log has given up and whose files are still there, oldest first.
    pub(super) doomed: VecDeque<Arc<Segment>>,
    /// Bytes of files that are gone since the log was opened.
    pub(super) removed_bytes: u64,
    /// Files that wait to become segments.
    pub(super) spares: Spares,
    /// A file that was made for the segment at this base, and not used.
    pub(super) prepared: Option<(u64, Arc<dyn LogFile>)>,
    scratch: Vec<u8>,
}

/// How recovery hands the log to its writer.
pub(super) struct Recovered {
    pub(super) active: Option<Arc<Segment>>,
    pub(super) at: u64,
    pub(super) newest_image: Option<PhysicalOffset>,
    pub(super) marked: u64,
    pub(super) ended: u64,
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter")
            .field("at", &self.at)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl LogWriter {
    pub(super) fn new(
        log: Log,
        epoch: u64,
        segment_bytes: u64,
        room: RoomOptions,
        recovered: Recovered,
    ) -> Self {
        let last_time_ms = log.last_time_ms();
        let Recovered { active, at, newest_image, marked, ended } = recovered;
        Self {
            log,
            epoch,
            segment_bytes,
            active,
            at,
            last_time_ms,
            newest_image,
            marked,
            ended,
            foretold: None,
            doomed: VecDeque::new(),
            removed_bytes: 0,
            spares: Spares::new(room, segment_bytes),
            prepared: None,
            scratch: Vec::with_capacity(HEADROOM_BYTES),
        }
    }

    /// Appends all records of the batch, or none, with one write call; with two when a segment is full.
    ///
    /// Store time never goes back: it is `now_ms`, or that of the record before if the clock was set back.
    /// An empty batch writes a mark if one is due, and else nothing.
    pub fn append(
        &mut self,
        batch: &mut RecordBatch,
        now_ms: u64,
    ) -> Result<Appended, AppendError> {
        self.append_for(Purpose::Messages, batch, now_ms)
    }

    /// [`LogWriter::append`] for what may use the reserve, or may not.
    pub fn append_for(
        &mut self,
        purpose: Purpose,
        batch: &mut RecordBatch,
        now_ms: u64,
    ) -> Result<Appended, AppendError> {
        self.log.0.check_running()?;
        self.check_shortage(purpose)?;
        self.check_size(batch)?;
        let Foretold { mark } = self.foretold.take().unwrap_or_else(|| self.foretell());
        let store_time_ms = now_ms.max(self.last_time_ms);
        let bytes = batch.bytes() as u64;
        if batch.is_empty() && mark.is_none() {
            let at = PhysicalOffset(self.at);
            return Ok(Appended { start: at, end: at, store_time_ms: self.last_time_ms });
        }
        if !self.fits(bytes, mark) {
            self.roll(purpose)?;
        }
        let prefix = self.put_prefix(batch, mark, store_time_ms);
        let start = PhysicalOffset(self.at + prefix.bytes as u64);
        batch.seal(start, store_time_ms);
        self.write_padded(&mut batch.buf, HEADROOM_BYTES - prefix.bytes)?;

        self.last_time_ms = store_time_ms;
        self.at = start.0 + bytes;
        self.marked = prefix.synced.unwrap_or(self.marked);
        self.publish(prefix.header.as_ref());
        Ok(Appended { start, end: PhysicalOffset(self.at), store_time_ms })
    }

    /// Where the first record of a batch of `bytes` bytes will lie, if it is the next one appended.
    pub fn position_for(&mut self, bytes: usize) -> PhysicalOffset {
        let Foretold { mark } = self.foretold.unwrap_or_else(|| self.foretell());
        self.foretold = Some(Foretold { mark });
        let bytes = bytes as u64;
        if !self.fits(bytes, mark) {
            let base = self.active.as_ref().map_or(self.at, |segment| segment.end());
            return PhysicalOffset(base + own::header_record_bytes());
        }
        PhysicalOffset(self.at + self.prefix_bytes(mark))
    }

    /// Position of the next byte.
    pub fn next_position(&self) -> PhysicalOffset {
        PhysicalOffset(self.at)
    }

    /// Store time of the last record, below which the next one's will not be.
    pub fn last_time_ms(&self) -> u64 {
        self.last_time_ms
    }

    /// Remembers where the newest complete state image begins, for the headers of later segments.
    pub fn note_image(&mut self, position: PhysicalOffset) {
        self.newest_image = Some(position);
    }

    /// The newest complete state image that headers will name.
    pub fn newest_image(&self) -> Option<PhysicalOffset> {
        self.newest_image
    }

    /// Takes the first segment out of the log, if it lies wholly before `before`.
    pub(super) fn take_front(&self, before: u64) -> Option<Arc<Segment>> {
        let synced = self.log.synced().0;
        let mut segments = self.log.0.segments.write();
        let front = segments.first()?;
        // The next segment's header must have survived: with the last trace of the log its positions would begin anew.
        if segments.len() < 2 || front.end() > before || front.end() >= synced {
            return None;
        }
        // Readers look at the start after they have read: it moves before the file gets other bytes.
        self.log.0.start.store(segments[1].base, Ordering::Release);
        Some(segments.remove(0))
    }

    fn check_size(&self, batch: &RecordBatch) -> Result<(), AppendError> {
        let check = |bytes, bytes_max| {
            if bytes > bytes_max { Err(AppendError::TooLarge { bytes, bytes_max }) } else { Ok(()) }
        };
        for index in 0..batch.len() {
            check(u64::from(batch.record_bytes(index)), RECORD_BYTES_LIMIT)?;
        }
        check(
            batch.bytes() as u64,
            self.segment_bytes - own::header_record_bytes() - FILLER_BYTES_MIN,
        )
    }

    fn foretell(&self) -> Foretold {
        let synced = self.log.synced().0;
        Foretold { mark: (synced > self.marked).then_some(synced) }
    }

    fn prefix_bytes(&self, mark: Option<u64>) -> u64 {
        match &self.active {
            Some(segment) if self.at > segment.base => mark.map_or(0, |_| own::mark_record_bytes()),
            _ => own::header_record_bytes(),
        }
    }

    /// Whether a batch has room in the segment being written, before the filler.
    pub(super) fn fits(&self, bytes: u64, mark: Option<u64>) -> bool {
        self.active.as_ref().is_some_and(|segment| {
            self.at + self.prefix_bytes(mark) + bytes + FILLER_BYTES_MIN <= segment.end()
        })
    }

    /// Ends the segment being written and begins the next.
    fn roll(&mut self, purpose: Purpose) -> Result<(), AppendError> {
        let base = self.active.as_ref().map_or(self.at, |segment| segment.end());
        let file = self.next_file(base, purpose)?;
        if let Some(segment) = self.active.clone()
            && let Err(error) = self.fill_up(&segment)
        {
            self.prepared = Some((base, file));
            return Err(error);
        }
        let shared = &self.log.0;
        let path = segment_path(&shared.dir, base);
        let segment = Arc::new(Segment::new(base, self.segment_bytes, path, file));
        segment.note_data_end(0);
        shared.segments.write().push(segment.clone());
        shared.is_dir_dirty.store(true, Ordering::Release);
        self.active = Some(segment);
        self.at = base;
        shared.written.store(base, Ordering::Release);
        Ok(())
    }

    fn fill_up(&mut self, segment: &Segment) -> Result<(), AppendError> {
        let left = segment.end() - self.at;
        // `fits` keeps so many bytes free; only a damaged place could end so near the border.
        if left >= FILLER_BYTES_MIN {
            let filler = own::filler(self.log.store_id(), PhysicalOffset(self.at), left as u32);
            self.write(&filler, filler.len())?;
        }
        segment.note_data_end(self.at - segment.base);
        segment.note_last_time(self.last_time_ms);
        Ok(())
    }

    /// Puts the header of a new segment, or the mark that is due, right before the batch.
    fn put_prefix(
        &mut self,
        batch: &mut RecordBatch,
        mark: Option<u64>,
        store_time_ms: u64,
    ) -> Prefix {
        self.scratch.clear();
        let is_new = self.active.as_ref().is_none_or(|segment| self.at == segment.base);
        let (slot, header, synced) = if is_new {
            let header = self.header();
            let slot = own::put_header(&header, &mut self.scratch);
            (slot, Some((header, store_time_ms)), header.synced.0)
        } else if let Some(synced) = mark {
            let synced_to = PhysicalOffset(synced);
            (own::put_mark(self.log.store_id(), synced_to, &mut self.scratch), None, synced)
        } else {
            return Prefix { bytes: 0, header: None, synced: None };
        };
        slot.moved_to(0).seal(
            &mut self.scratch,
            QueueOffset(0),
            PhysicalOffset(self.at),
            store_time_ms,
        );
        let at = HEADROOM_BYTES - self.scratch.len();
        batch.buf[at..HEADROOM_BYTES].copy_from_slice(&self.scratch);
        Prefix { bytes: self.scratch.len(), header, synced: Some(synced) }
    }

    fn header(&self) -> SegmentHeader {
        SegmentHeader {
            store_id: self.log.store_id(),
            epoch: self.epoch,
            newest_image: self.newest_image,
            segment_bytes: self.segment_bytes,
            synced: self.log.synced(),
            last_time_ms: self.last_time_ms,
        }
    }

    /// Writes `buf` from `from` on. Of a file that is written again, a block whose first bytes these are is written to its
    /// end: the system would read what it held before, were only a part of it written.
    fn write_padded(&mut self, buf: &mut Vec<u8>, from: usize) -> Result<(), AppendError> {
        let end = buf.len();
        buf.resize(end + self.padding((end - from) as u64), 0);
        let outcome = self.write(&buf[from..], end - from);
        buf.truncate(end);
        outcome
    }

    /// Zeros behind the next `bytes` bytes up to the end of the block in which they end, if they begin it too.
    fn padding(&self, bytes: u64) -> usize {
        let Some(segment) = &self.active else { return 0 };
        let start = self.at - segment.base;
        let (end, block_bytes) = (start + bytes, segment.file.block_bytes());
        let block = end - end % block_bytes;
        let is_begun = start <= block && block < end;
        let block_end = segment.capacity.min(block + block_bytes);
        if is_begun { (block_end - end) as usize } else { 0 }
    }

    /// Writes `bytes`, of which the first `used` are records and the others are padding.
    fn write(&mut self, bytes: &[u8], used: usize) -> Result<(), AppendError> {
        let segment = self.active.as_ref().expect("a roll comes before the first write");
        let at = self.at - segment.base;
        segment.file.write_at(bytes, at).map_err(|failure| {
            let size = bytes.len() as u64;
            self.after_failed_write(segment, at, size, failure)
        })?;
        self.log.0.tail.append(self.at, &bytes[..used]);
        Ok(())
    }

    /// Wipes what a refused write has left, or stops if that is not known.
    fn after_failed_write(
        &self,
        segment: &Segment,
        at: u64,
        bytes: u64,
        failure: WriteFailure,
    ) -> AppendError {
        if !failure.is_known() {
            return self.log.0.stop(Stopped::new("write", &segment.path, failure.source)).into();
        }
        // Records of a refused batch must not come to life after a crash behind a shorter batch.
        if let Err(wipe) = segment.file.write_at(&vec![0; failure.written], at) {
            return self.log.0.stop(Stopped::new("wipe", &segment.path, wipe.source)).into();
        }
        AppendError::Full { position: PhysicalOffset(self.at), bytes, source: failure.source }
    }

    fn publish(&mut self, header: Option<&(SegmentHeader, u64)>) {
        let shared = &self.log.0;
        if let Some(segment) = &self.active {
            if let Some((header, time_ms)) = header {
                segment.note_header(header, *time_ms);
            }
            segment.note_data_end(self.at - segment.base);
            segment.note_last_time(self.last_time_ms);
        }
        shared.last_time_ms.store(self.last_time_ms, Ordering::Release);
        shared.written.store(self.at, Ordering::Release);
    }
}

/// What the next append will do beside writing its batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Foretold {
    /// The position that a mark will tell, if it is news.
    pub(super) mark: Option<u64>,
}

/// What goes in front of a batch.
struct Prefix {
    bytes: usize,
    header: Option<(SegmentHeader, u64)>,
    synced: Option<u64>,
}
