//! Opens the log: finds the segments and the end, tells a torn tail from rot, and leaves nothing behind the end.
//! Invariant: what was synced is never cut and never overwritten; behind the end every byte reads as zero before the
//! first append; what the writer starts from is synced.
//! Leaves the content of records to the views.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_model::PhysicalOffset;

use super::{
    Damage, DamageReason, FORMAT_VERSION, Log, LogOptions, LogWriter, OpenError, ReadError,
    SEGMENT_BYTES_MIN, SegmentHeader, StoreId,
    files::{Files, LogFile, is_out_of_space},
    own::Own,
    reader::{Step, Walker},
    segment::{Segment, base_of_name, is_free_name, segment_path},
    shared::Shared,
    writer::Recovered,
};

/// Bytes that are written again at once.
const REWRITE_BYTES: usize = 1024 * 1024;

/// What was found in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// Which store the log belongs to.
    pub store_id: StoreId,
    /// First position that is there.
    pub start: PhysicalOffset,
    /// Where the next record will be.
    pub end: PhysicalOffset,
    /// From where on each record was verified.
    pub scanned_from: PhysicalOffset,
    /// Store time of the last record, in milliseconds since 1970; 0 if there is none.
    pub last_time_ms: u64,
    /// Newest complete state image that a segment's header names.
    pub newest_image: Option<PhysicalOffset>,
    /// Number of segments.
    pub segments: usize,
    /// What a crash had left of bytes never synced, and was cut.
    pub cut: Option<Cut>,
    /// Synced places that do not hold their records any more.
    pub damage: Vec<Damage>,
}

/// A torn tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// First position that is gone, and the end of the log.
    pub position: PhysicalOffset,
    /// What was wrong there.
    pub reason: DamageReason,
    /// Segments behind it that were removed.
    pub segments_removed: usize,
}

/// One segment as found.
pub(super) struct Found {
    pub(super) segment: Arc<Segment>,
    pub(super) header: Result<(SegmentHeader, u64), DamageReason>,
}

/// What the walk to the end has told.
pub(super) struct Tail {
    pub(super) end: u64,
    pub(super) reason: Option<DamageReason>,
    pub(super) last_time_ms: Option<u64>,
    /// Known to be synced, by the newest header or mark or by the caller's word.
    pub(super) synced: u64,
    /// Where a mark ends that covers everything in front of it, if one was met.
    ended: u64,
    newest_image: Option<PhysicalOffset>,
    damage: Vec<Damage>,
}

pub(super) fn open(
    options: &LogOptions,
    files: Arc<dyn Files>,
) -> Result<(LogWriter, Log, OpenReport), OpenError> {
    if options.segment_bytes < SEGMENT_BYTES_MIN {
        return Err(OpenError::SegmentBytes { segment_bytes: options.segment_bytes });
    }
    let dir = &options.dir;
    files.create_dir(dir).map_err(at(dir, "make folder"))?;
    let names = files.list(dir).map_err(at(dir, "list folder"))?;
    let mut found = find_segments(options, files.as_ref(), &names)?;
    let store_id = store_id_of(&found, options)?;
    let tail = find_tail(options, &found, store_id)?;
    remove_free(files.as_ref(), dir, &names)?;
    let removed = cut(&mut found, &tail, files.as_ref(), dir)?;
    make_durable(&found, &tail, files.as_ref(), dir)?;
    note_times(&found, &tail);

    let segments: Vec<_> = found.into_iter().map(|found| found.segment).collect();
    let active = segments.last().filter(|segment| tail.end < segment.end()).cloned();
    let report = OpenReport {
        store_id,
        start: PhysicalOffset(segments.first().map_or(tail.end, |segment| segment.base)),
        end: PhysicalOffset(tail.end),
        scanned_from: PhysicalOffset(scan_start(options, &segments, tail.synced)),
        last_time_ms: tail.last_time_ms.unwrap_or(0),
        newest_image: tail.newest_image,
        segments: segments.len(),
        cut: cut_of(&tail, removed),
        damage: tail.damage,
    };
    let last_time_ms = report.last_time_ms;
    let (dir_of_log, block_bytes) = (dir.clone(), options.block_bytes);
    let shared =
        Shared::new(files, dir_of_log, store_id, segments, tail.end, last_time_ms, block_bytes);
    let log = Log(Arc::new(shared));
    let recovered = Recovered {
        active,
        at: tail.end,
        newest_image: tail.newest_image,
        marked: tail.synced,
        ended: tail.ended,
    };
    let writer =
        LogWriter::new(log.clone(), options.epoch, options.segment_bytes, options.room, recovered);
    Ok((writer, log, report))
}

fn at<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> OpenError + use<'a> {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io { path, source, .. } => Self::Io { action: "read", path, source },
            other => {
                let path = PathBuf::new();
                Self::Io { action: "read the log", path, source: io::Error::other(other) }
            }
        }
    }
}

pub(super) fn find_segments(
    options: &LogOptions,
    files: &dyn Files,
    names: &[String],
) -> Result<Vec<Found>, OpenError> {
    let mut bases: Vec<u64> = names.iter().filter_map(|name| base_of_name(name)).collect();
    bases.sort_unstable();
    let mut found: Vec<Found> = Vec::with_capacity(bases.len());
    for (index, base) in bases.iter().enumerate() {
        let path = segment_path(&options.dir, *base);
        if let Some(before) = found.last().filter(|before| before.segment.end() > *base) {
            return Err(OpenError::Overlap { path, base: *base, end: before.segment.end() });
        }
        found.push(open_segment(options, files, path, *base, bases.get(index + 1).copied())?);
    }
    Ok(found)
}

fn open_segment(
    options: &LogOptions,
    files: &dyn Files,
    path: PathBuf,
    base: u64,
    next_base: Option<u64>,
) -> Result<Found, OpenError> {
    let file = files.open(&path).map_err(at(&path, "open"))?;
    let file_bytes = file.len().map_err(at(&path, "measure"))?;
    let probe = Segment::new(base, file_bytes, path.clone(), file.clone());
    let header = read_header(probe)?;
    let capacity = match (&header, next_base) {
        (Ok((header, _)), _) => header.segment_bytes,
        // Without its header, the name of the next segment tells the length best.
        (Err(_), Some(next)) => next - base,
        (Err(_), None) => file_bytes.max(options.segment_bytes),
    };
    let segment = Arc::new(Segment::new(base, capacity, path, file));
    if let Ok((header, time_ms)) = &header {
        segment.note_header(header, *time_ms);
    }
    Ok(Found { segment, header })
}

fn read_header(probe: Segment) -> Result<Result<(SegmentHeader, u64), DamageReason>, OpenError> {
    let (base, path) = (probe.base, probe.path.clone());
    let mut walker = Walker::new(vec![Arc::new(probe)], u64::MAX, None);
    Ok(match walker.step(base)? {
        Step::Record(place) => match place.own {
            Some(Own::Header(header)) => Ok((header, place.store_time_ms)),
            Some(Own::Newer { format }) => {
                let (found, known) = (format, FORMAT_VERSION);
                return Err(OpenError::NewerFormat { path, found, known });
            }
            _ => Err(DamageReason::Header),
        },
        Step::Bad(reason) => Err(reason),
        Step::Filler { .. } => Err(DamageReason::Header),
        Step::End => Err(DamageReason::Truncated),
    })
}

/// The store of the segments: each good header must name the same one.
pub(super) fn store_id_of(found: &[Found], options: &LogOptions) -> Result<StoreId, OpenError> {
    let mut ids = found.iter().filter_map(|found| {
        found.header.as_ref().ok().map(|(header, _)| (header.store_id, &found.segment.path))
    });
    let Some((expected, _)) = ids.next() else {
        let segments = found.iter().map(|found| found.segment.clone()).collect();
        let known = Walker::new(segments, u64::MAX, None).find_store_id()?;
        return Ok(known.unwrap_or(options.new_store_id));
    };
    match ids.find(|(id, _)| *id != expected) {
        Some((found, path)) => Err(OpenError::MixedStores { path: path.clone(), found, expected }),
        None => Ok(expected),
    }
}

/// Where verification begins: everything before is known to be synced.
fn scan_start(options: &LogOptions, segments: &[Arc<Segment>], synced: u64) -> u64 {
    let base = segments.first().map_or(0, |segment| segment.base);
    options.scan_from.0.max(synced).max(base)
}

pub(super) fn find_tail(
    options: &LogOptions,
    found: &[Found],
    store_id: StoreId,
) -> Result<Tail, OpenError> {
    let segments: Vec<_> = found.iter().map(|found| found.segment.clone()).collect();
    let newest = found.iter().rev().find_map(|found| found.header.as_ref().ok());
    let synced_by_header = newest.map_or(0, |(header, _)| header.synced.0);
    let start = scan_start(options, &segments, synced_by_header);
    let mut walker = Walker::new(segments, u64::MAX, Some(store_id));
    let mut tail = Tail {
        end: start,
        reason: None,
        last_time_ms: None,
        synced: start,
        ended: 0,
        newest_image: newest.and_then(|(header, _)| header.newest_image),
        damage: damaged_headers(found, start, &mut walker)?,
    };
    walk_to_tail(&mut walker, &mut tail)?;
    if tail.last_time_ms.is_none() && !found.is_empty() {
        tail.last_time_ms = walker.last_time_before(tail.end)?;
        if tail.last_time_ms.is_none() {
            tail.last_time_ms = newest.map(|(_, time_ms)| *time_ms);
            find_lost(&mut walker, synced_by_header, &mut tail)?;
        }
    }
    Ok(tail)
}

/// Headers before the start of the walk, which will not come by them.
fn damaged_headers(
    found: &[Found],
    start: u64,
    walker: &mut Walker,
) -> Result<Vec<Damage>, OpenError> {
    let mut damage = Vec::new();
    for Found { segment, header } in found {
        if let Err(reason) = header
            && segment.base < start
        {
            let end = walker.resync(segment.base)?.unwrap_or_else(|| segment.end());
            damage.push(walker.damage(segment.base, end, reason.clone()));
        }
    }
    Ok(damage)
}

fn walk_to_tail(walker: &mut Walker, tail: &mut Tail) -> Result<(), OpenError> {
    loop {
        match walker.step(tail.end)? {
            Step::Record(place) => {
                if let Some((_, synced)) = place.own.and_then(|own| own.witness()) {
                    tail.synced = tail.synced.max(synced.0);
                    if synced.0 == tail.end {
                        tail.ended = place.next;
                    }
                }
                tail.last_time_ms = Some(place.store_time_ms);
                tail.end = place.next;
            }
            Step::Filler { end } => tail.end = end,
            Step::End => return Ok(()),
            Step::Bad(reason) => {
                if !walker.is_synced_by_later_word(tail.end)? {
                    tail.reason = Some(reason);
                    return Ok(());
                }
                let next = walker.resync(tail.end)?.expect("the later word was found behind it");
                tail.damage.push(walker.damage(tail.end, next, reason));
                tail.end = next;
            }
        }
    }
}

/// Synced bytes that are gone although the caller, or a header, knows that they were there: nothing leads to the end.
fn find_lost(walker: &mut Walker, from: u64, tail: &mut Tail) -> Result<(), OpenError> {
    let mut at = from;
    while at < tail.end {
        match walker.step(at)? {
            Step::Record(place) => {
                tail.last_time_ms = tail.last_time_ms.max(Some(place.store_time_ms));
                at = place.next;
            }
            Step::Filler { end } => at = end,
            Step::Bad(reason) => {
                tail.damage.push(walker.damage(at, tail.end, reason));
                return Ok(());
            }
            Step::End => {
                tail.damage.push(walker.damage(at, tail.end, DamageReason::MissingSegment));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Removes everything behind the end, so that no record from before the crash can come to life behind a new one.
/// Returns how many segments went.
fn cut(
    found: &mut Vec<Found>,
    tail: &Tail,
    files: &dyn Files,
    dir: &Path,
) -> Result<usize, OpenError> {
    let kept = found.partition_point(|found| found.segment.base < tail.end);
    // From the last one on, so that no crash leaves a gap.
    let mut removed = 0;
    while found.len() > kept {
        let Some(Found { segment, .. }) = found.pop() else { break };
        files.remove(&segment.path).map_err(at(&segment.path, "remove"))?;
        files.sync_dir(dir).map_err(at(dir, "sync folder"))?;
        removed += 1;
    }
    if let Some(Found { segment, .. }) = found.last()
        && tail.end < segment.end()
    {
        // Cut and extended again: what is not there cannot be read, also if the system dies in between.
        let path = &segment.path;
        segment.file.set_len(tail.end - segment.base).map_err(at(path, "cut"))?;
        extend(&*segment.file, segment.capacity).map_err(at(path, "extend"))?;
        segment.file.sync_data().map_err(at(path, "sync"))?;
    }
    Ok(removed)
}

/// Gives a file its length and its place on the disk; on a full disk the length alone, so that it can be read.
fn extend(file: &dyn LogFile, bytes: u64) -> io::Result<()> {
    match file.allocate(bytes) {
        Err(error) if is_out_of_space(&error) => file.set_len(bytes),
        outcome => outcome,
    }
}

/// Writes again and syncs what no mark covers: a sync that failed before the last stop may have dropped it, while it
/// still reads well.
fn make_durable(
    found: &[Found],
    tail: &Tail,
    files: &dyn Files,
    dir: &Path,
) -> Result<(), OpenError> {
    for Found { segment, .. } in found {
        let from = tail.synced.max(segment.base);
        let to = tail.end.min(segment.end());
        if from < to {
            rewrite(segment, from, to).map_err(at(&segment.path, "write again"))?;
            segment.file.sync_data().map_err(at(&segment.path, "sync"))?;
        }
    }
    files.sync_dir(dir).map_err(at(dir, "sync folder"))
}

fn rewrite(segment: &Segment, mut from: u64, to: u64) -> io::Result<()> {
    let mut buf = vec![0; REWRITE_BYTES.min((to - from) as usize)];
    if segment.file.len()? < segment.capacity {
        // Its filler reached the disk, and not its length.
        segment.file.set_len(segment.capacity)?;
    }
    while from < to {
        let wanted = buf.len().min((to - from) as usize);
        let read = segment.file.read_at(&mut buf[..wanted], from - segment.base)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        segment.file.write_at(&buf[..read], from - segment.base).map_err(|e| e.source)?;
        from += read as u64;
    }
    Ok(())
}

pub(super) fn note_times(found: &[Found], tail: &Tail) {
    for pair in found.windows(2) {
        if let Ok((header, _)) = &pair[1].header {
            pair[0].segment.note_last_time(header.last_time_ms);
        }
    }
    if let Some(Found { segment, .. }) = found.last() {
        segment.note_last_time(tail.last_time_ms.unwrap_or(0));
        segment.note_data_end(tail.end.min(segment.end()) - segment.base);
    }
}

/// Removes files that wait to be written again. One of them may have been taken for a new segment right before a power
/// cut that undid its name alone: it would hold records of positions that are yet to come.
fn remove_free(files: &dyn Files, dir: &Path, names: &[String]) -> Result<(), OpenError> {
    for name in names.iter().filter(|name| is_free_name(name)) {
        let path = dir.join(name);
        files.remove(&path).map_err(at(&path, "remove"))?;
    }
    Ok(())
}

fn cut_of(tail: &Tail, segments_removed: usize) -> Option<Cut> {
    let reason = tail.reason.clone()?;
    let is_clean = matches!(reason, DamageReason::Unwritten | DamageReason::Truncated);
    (segments_removed > 0 || !is_clean).then_some(Cut {
        position: PhysicalOffset(tail.end),
        reason,
        segments_removed,
    })
}
