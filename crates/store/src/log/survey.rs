//! Looks at a log without opening it: which segments there are, where it ends, and every record, its own ones too.
//! Invariant: nothing is written, locked or removed; what changes under the look because a broker runs is not taken
//! for damage.
//! Leaves to its callers what the records mean.

use std::{io, path::Path, sync::Arc};

use gantry_model::PhysicalOffset;
use gantry_record::RecordView;

use super::{
    Damage, DamageReason, LogOptions, OpenError, RECORD_BYTES_LIMIT, ReadError, RoomOptions,
    SegmentHeader, SegmentInfo, StoreId,
    files::{Files, LogFile, StdFiles, open_for_reading},
    reader::{Step, Walked, Walker},
    recover::{self, Found},
    segment::Segment,
};
use crate::planted::verify;

/// A segment may go between the look into the folder and its opening, and the newest one while its end is looked for;
/// so often the look begins anew.
const TRIES: usize = 10;

/// A log as it was found.
pub struct Survey {
    segments: Vec<Surveyed>,
    store_id: StoreId,
    start: PhysicalOffset,
    end: PhysicalOffset,
    synced: PhysicalOffset,
    last_time_ms: u64,
    torn: Option<DamageReason>,
}

/// One segment as it was found.
pub struct Surveyed {
    segment: Arc<Segment>,
    /// Its header; none if it is damaged.
    pub header: Option<SegmentHeader>,
    /// What can be told without reading its records. Its bytes and last time are known when it is sealed.
    pub info: SegmentInfo,
    /// Bytes of its file as they are.
    pub file_bytes: u64,
}

impl Surveyed {
    /// Its file.
    pub fn path(&self) -> &Path {
        &self.segment.path
    }
}

/// What lies at a place of the log.
#[derive(Debug)]
pub enum Item<'a> {
    /// A verified record.
    Record(RecordView<'a>),
    /// The rest of a segment, which holds nothing.
    Filler {
        /// Where it begins.
        position: PhysicalOffset,
        /// Where the next segment begins.
        end: PhysicalOffset,
    },
    /// A damaged place.
    Damage(Damage),
    /// A segment that retention removed meanwhile.
    Gone {
        /// What was still to be read of it begins here.
        position: PhysicalOffset,
        /// Where the next segment begins.
        end: PhysicalOffset,
    },
}

/// Looks at the log in `dir`. Everything before `scan_from` is known to be synced; 0 if nothing is known.
pub fn survey(dir: &Path, scan_from: PhysicalOffset) -> Result<Survey, OpenError> {
    let mut tries = 1;
    loop {
        match survey_once(dir, scan_from) {
            Err(OpenError::Io { path, source, .. })
                if source.kind() == io::ErrorKind::NotFound && path != dir && tries < TRIES =>
            {
                tries += 1;
            }
            Ok(found) if found.has_lost_its_tail() && tries < TRIES => tries += 1,
            outcome => return outcome,
        }
    }
}

fn survey_once(dir: &Path, scan_from: PhysicalOffset) -> Result<Survey, OpenError> {
    let options = LogOptions {
        dir: dir.to_owned(),
        segment_bytes: 0,
        new_store_id: StoreId([0; 16]),
        epoch: 0,
        scan_from,
        room: RoomOptions::default(),
        block_bytes: 1 << 20,
    };
    let files = ReadOnlyFiles;
    let names = files.list(dir).map_err(|source| OpenError::Io {
        action: "list folder",
        path: dir.to_owned(),
        source,
    })?;
    let mut found = recover::find_segments(&options, &files, &names)?;
    let store_id = recover::store_id_of(&found, &options)?;
    let tail = recover::find_tail(&options, &found, store_id)?;
    // Nothing before them leads there: a start removes them, or a running broker has just begun one.
    found.retain(|found| found.segment.base < tail.end);
    recover::note_times(&found, &tail);
    let start = found.first().map_or(tail.end, |found| found.segment.base);
    let segments = found.into_iter().map(|found| surveyed(found, tail.end));
    Ok(Survey {
        segments: segments.collect::<Result<_, _>>()?,
        store_id,
        start: PhysicalOffset(start),
        end: PhysicalOffset(tail.end),
        synced: PhysicalOffset(tail.synced),
        last_time_ms: tail.last_time_ms.unwrap_or(0),
        torn: tail.reason,
    })
}

fn surveyed(Found { segment, header }: Found, end: u64) -> Result<Surveyed, OpenError> {
    let file_bytes = segment.file.len().map_err(|source| OpenError::Io {
        action: "measure",
        path: segment.path.clone(),
        source,
    })?;
    let info = segment.info(segment.end() <= end, end.max(segment.base));
    Ok(Surveyed { header: header.ok().map(|(header, _)| header), info, file_bytes, segment })
}

impl Survey {
    /// Whether the newest segment went while it was looked at: then the end that was found in it is none.
    fn has_lost_its_tail(&self) -> bool {
        self.segments.last().is_some_and(|newest| !newest.path().exists())
    }

    /// The segments in order.
    pub fn segments(&self) -> &[Surveyed] {
        &self.segments
    }

    /// Which store the log belongs to; zeros if no header or mark says.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// First position that is there.
    pub fn start(&self) -> PhysicalOffset {
        self.start
    }

    /// Where the next record would be.
    pub fn end(&self) -> PhysicalOffset {
        self.end
    }

    /// Everything before was synced, as the newest header or mark says.
    pub fn synced(&self) -> PhysicalOffset {
        self.synced
    }

    /// Store time of the last record, in milliseconds since 1970; 0 if there is none.
    pub fn last_time_ms(&self) -> u64 {
        self.last_time_ms
    }

    /// What is behind the end, if it is anything but unwritten: a torn tail, which the next start cuts off, or what a
    /// running broker is writing.
    pub fn torn(&self) -> Option<&DamageReason> {
        let is_clean = |reason: &&DamageReason| {
            matches!(reason, DamageReason::Unwritten | DamageReason::Truncated)
        };
        self.torn.as_ref().filter(|reason| !is_clean(reason))
    }

    /// Everything from `from` on that is before `to` and before the end.
    ///
    /// `from` need not be where a record begins: the walk begins at the first record at or behind it.
    pub fn items(&self, from: PhysicalOffset, to: PhysicalOffset) -> Result<ItemCursor, ReadError> {
        let limit = self.end.min(to).0;
        let from = from.max(self.start).0;
        let segments = self.segments.iter().map(|found| Arc::clone(&found.segment)).collect();
        let walker = Walker::new(segments, self.end.0, Some(self.store_id));
        let mut cursor = ItemCursor { walker, at: from, limit };
        if from < limit && matches!(cursor.walker.step(from)?, Step::Bad(_)) {
            cursor.align(from)?;
        }
        Ok(cursor)
    }

    /// Gives the record at `position`, which has `size` bytes, to `visit`; else what is wrong with it.
    pub(crate) fn read<T>(
        &self,
        position: PhysicalOffset,
        size: u32,
        visit: impl FnOnce(&RecordView<'_>) -> T,
    ) -> Result<Result<T, DamageReason>, ReadError> {
        let holds = |segment: &Segment| (segment.base..segment.end()).contains(&position.0);
        let Some(found) = self.segments.iter().find(|found| holds(&found.segment)) else {
            return Ok(Err(DamageReason::MissingSegment));
        };
        let segment = &found.segment;
        // Checked before memory is taken: the size comes from elsewhere.
        let left = segment.end().min(self.end.0).saturating_sub(position.0);
        if u64::from(size) > left.min(RECORD_BYTES_LIMIT) {
            return Ok(Err(DamageReason::Truncated));
        }
        let mut bytes = vec![0; size as usize];
        let at = position.0 - segment.base;
        let read = segment.file.read_at(&mut bytes, at).map_err(|source| ReadError::Io {
            path: segment.path.clone(),
            position,
            source,
        })?;
        let record = verify(&bytes[..read], position);
        Ok(record.map(|record| visit(&record)).map_err(DamageReason::from))
    }

    /// The file and the byte in it where a position lies; none outside of the segments.
    pub fn place(&self, position: PhysicalOffset) -> Option<(&Path, u64)> {
        let holds =
            |found: &&Surveyed| (found.segment.base..found.segment.end()).contains(&position.0);
        let found = self.segments.iter().find(holds)?;
        Some((found.path(), position.0 - found.segment.base))
    }
}

/// Walks everything in a range of the log, in large sequential reads.
pub struct ItemCursor {
    walker: Walker,
    at: u64,
    limit: u64,
}

impl ItemCursor {
    /// Position behind what was given out, or of what comes next.
    pub fn position(&self) -> PhysicalOffset {
        PhysicalOffset(self.at)
    }

    /// What comes next; `None` at the end of the range.
    #[allow(clippy::should_implement_trait)] // what it gives borrows from the cursor
    pub fn next(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        let at = self.at;
        if at >= self.limit {
            return Ok(None);
        }
        match self.settled_step(at)? {
            Step::End => Ok(None),
            Step::Filler { end } => {
                self.at = end;
                let (position, end) = (PhysicalOffset(at), PhysicalOffset(end));
                Ok(Some(Item::Filler { position, end }))
            }
            Step::Record(place) => {
                self.at = place.next;
                let Walked::Record { record, .. } = self.walker.held(at, place.next) else {
                    unreachable!("the walker holds the record that it has just verified")
                };
                Ok(Some(Item::Record(record)))
            }
            Step::Bad(reason) => self.skip(at, reason).map(Some),
        }
    }

    /// A bad place is read once more: a running broker may have written it between two reads of the walk.
    fn settled_step(&mut self, at: u64) -> Result<Step, ReadError> {
        match self.walker.step(at)? {
            Step::Bad(_) => {
                self.walker.forget();
                self.walker.step(at)
            }
            step => Ok(step),
        }
    }

    fn skip(&mut self, at: u64, reason: DamageReason) -> Result<Item<'_>, ReadError> {
        if let Some(segment) = self.walker.segment_at(at)
            && !segment.path.exists()
        {
            self.at = segment.end();
            return Ok(Item::Gone { position: PhysicalOffset(at), end: PhysicalOffset(self.at) });
        }
        // The walker's limit is the end of the log, which a search always finds.
        self.at = self.walker.resync(at)?.unwrap_or(self.limit);
        Ok(Item::Damage(self.walker.damage(at, self.at, reason)))
    }

    /// Goes to the first record at or behind `from`, from the begin of its segment on.
    fn align(&mut self, from: u64) -> Result<(), ReadError> {
        let Some(base) = self.walker.segment_at(from).map(|segment| segment.base) else {
            return Ok(());
        };
        let mut at = base;
        while at < from {
            at = match self.settled_step(at)? {
                Step::Record(place) => place.next,
                Step::Filler { end } => end,
                Step::End => break,
                Step::Bad(_) => match self.walker.resync(at)? {
                    // A damaged place around `from` is told as a whole.
                    Some(next) if next > from => break,
                    Some(next) => next,
                    None => break,
                },
            };
        }
        self.at = at;
        Ok(())
    }
}

/// The real disk, for reading alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadOnlyFiles;

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the store is only looked at"))
}

impl Files for ReadOnlyFiles {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        open_for_reading(path)
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn LogFile>> {
        refused()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        StdFiles.list(dir)
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        StdFiles.free_space(dir)
    }
}
