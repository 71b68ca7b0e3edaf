//! Walks records: one after the other, each verified, and over damaged places to the next that can be trusted.
//! Invariant: what does not verify is never given out; a record is resumed at only when a chain of records leads from it
//! to something that clients cannot forge: a header or mark of this store, a filler, or the end.
//! Leaves to recovery what follows from damage.

use std::{collections::HashSet, ops::Range, sync::Arc};

use gantry_model::PhysicalOffset;
use gantry_record::{MAGIC_V1, MAGIC_V2, RECORD_BYTES_MIN, RecordView, peek_size};

use super::{
    Damage, DamageReason, RECORD_BYTES_LIMIT, ReadError,
    own::{self, Own, StoreId},
    segment::{Segment, segment_path},
};
use crate::planted::verify;

/// Bytes that one read of the disk asks for.
const READ_BYTES: usize = 1024 * 1024;
/// Bytes that a disk with a bad sector refuses together.
const PAGE_BYTES: u64 = 4096;
/// Pages that a disk may refuse one behind the other before the rest of the segment is given up: each of them may take
/// it seconds.
const UNREADABLE_PAGES_MAX: usize = 64;
/// How far a search for the next record goes through bytes that hold none: beyond the largest record, which may be
/// the damaged one.
const SEARCH_BYTES: u64 = RECORD_BYTES_LIMIT + 4 * 1024 * 1024;

/// What lies at a position.
pub(super) enum Step {
    Record(Place),
    /// The rest of the segment holds nothing.
    Filler {
        end: u64,
    },
    Bad(DamageReason),
    /// The limit of the walk, or the end of the last segment.
    End,
}

/// A verified record, as a walk needs it.
pub(super) struct Place {
    pub(super) next: u64,
    pub(super) store_time_ms: u64,
    /// Whether it lies on a topic of the log's own.
    is_own: bool,
    pub(super) own: Option<Own>,
}

/// Reads records from a fixed list of segments, up to a limit.
pub(super) struct Walker {
    segments: Vec<Arc<Segment>>,
    limit: u64,
    store_id: Option<StoreId>,
    buf: Vec<u8>,
    /// Position of the buffer's first byte.
    buf_at: u64,
    /// Where a large read has failed: there the disk is asked for one page after the other.
    careful: Range<u64>,
}

impl Walker {
    /// Nothing at or behind `limit` is looked at; the limit itself counts as the end of the log.
    pub(super) fn new(segments: Vec<Arc<Segment>>, limit: u64, store_id: Option<StoreId>) -> Self {
        Self { segments, limit, store_id, buf: Vec::new(), buf_at: 0, careful: 0..0 }
    }

    /// The segment that holds `at`.
    pub(super) fn segment_at(&self, at: u64) -> Option<&Arc<Segment>> {
        let after = self.segments.partition_point(|segment| segment.base <= at);
        self.segments[..after].last().filter(|segment| at < segment.end())
    }

    fn next_segment_after(&self, at: u64) -> Option<&Arc<Segment>> {
        self.segments.get(self.segments.partition_point(|segment| segment.base <= at))
    }

    /// Looks at the one record at `at`.
    pub(super) fn step(&mut self, at: u64) -> Result<Step, ReadError> {
        if at >= self.limit {
            return Ok(Step::End);
        }
        let Some(segment) = self.segment_at(at).cloned() else {
            let is_gap = self.next_segment_after(at).is_some();
            return Ok(if is_gap { Step::Bad(DamageReason::MissingSegment) } else { Step::End });
        };
        let left = (segment.end() - at).min(self.limit - at);
        let (size, magic) = match peek_size(self.fill(&segment, at, 8.min(left))?) {
            Some(head) => head,
            None if left < 8 => return Ok(Step::Bad(DamageReason::Unwritten)),
            None => return Ok(Step::Bad(DamageReason::Truncated)),
        };
        if own::is_blank_magic(magic) {
            return self.step_filler(&segment, at);
        }
        if (size, magic) == (0, 0) {
            return Ok(Step::Bad(DamageReason::Unwritten));
        }
        if !is_plausible(size, magic, left) {
            return Ok(Step::Bad(DamageReason::NotARecord { size, magic }));
        }
        let bytes = self.fill(&segment, at, u64::from(size))?;
        let Some(bytes) = bytes.get(..size as usize) else {
            return Ok(Step::Bad(DamageReason::Truncated));
        };
        Ok(match verify(bytes, PhysicalOffset(at)) {
            Ok(record) if at == segment.base && record.topic() != own::SEGMENT_TOPIC => {
                Step::Bad(DamageReason::Header)
            }
            Ok(record) => Step::Record(Place {
                next: at + u64::from(size),
                store_time_ms: record.store_time_ms(),
                is_own: own::is_own_topic(record.topic()),
                own: Own::of(&record),
            }),
            Err(error) => Step::Bad(error.into()),
        })
    }

    fn step_filler(&mut self, segment: &Segment, at: u64) -> Result<Step, ReadError> {
        let left = segment.end() - at;
        let store_id = self.store_id;
        let bytes = self.fill(segment, at, own::FILLER_BYTES_MIN.min(left))?;
        let is_ours =
            store_id.is_some_and(|id| own::is_filler(bytes, id, PhysicalOffset(at), left));
        Ok(if is_ours {
            Step::Filler { end: segment.end() }
        } else {
            Step::Bad(DamageReason::Filler)
        })
    }

    /// Bytes from `at` on: `bytes` of them, or more, or less where the file ends.
    fn fill(&mut self, segment: &Segment, at: u64, bytes: u64) -> Result<&[u8], ReadError> {
        let held = self.buf_at..self.buf_at + self.buf.len() as u64;
        if at < held.start || at + bytes > held.end {
            self.read(segment, at, bytes)?;
        }
        let from = (at - self.buf_at) as usize;
        // A buffer that still holds bytes of the segment before must not show them as this one's.
        let to = self.buf.len().min((segment.end() - self.buf_at) as usize);
        Ok(&self.buf[from..to])
    }

    fn read(&mut self, segment: &Segment, at: u64, bytes: u64) -> Result<(), ReadError> {
        let left = (segment.end() - at).min(self.limit - at);
        let ahead = (READ_BYTES as u64).max(bytes).min(left);
        let page = (page_end(at) - at).max(bytes).min(left);
        if self.careful.contains(&at) {
            return self.read_exactly(segment, at, page);
        }
        match self.read_exactly(segment, at, ahead) {
            // A bad sector far ahead is no reason not to give out what lies before it.
            Err(ReadError::Io { .. }) if page < ahead => {
                self.careful = at..at + ahead;
                self.read_exactly(segment, at, page)
            }
            outcome => outcome,
        }
    }

    fn read_exactly(&mut self, segment: &Segment, at: u64, wanted: u64) -> Result<(), ReadError> {
        // Nothing of a failed read may be taken for bytes of the log.
        self.buf_at = at;
        self.buf.clear();
        self.buf.resize(wanted as usize, 0);
        let outcome = segment.file.read_at(&mut self.buf, at - segment.base);
        self.buf.truncate(*outcome.as_ref().unwrap_or(&0));
        outcome.map(|_| ()).map_err(|source| ReadError::Io {
            path: segment.path.clone(),
            position: PhysicalOffset(at),
            source,
        })
    }

    /// Forgets what was read, so that the next step reads the disk.
    pub(super) fn forget(&mut self) {
        self.buf.clear();
    }

    /// The record that the last step verified: its bytes are still in the buffer.
    pub(super) fn held(&self, at: u64, next: u64) -> Walked<'_> {
        let range = (at - self.buf_at) as usize..(next - self.buf_at) as usize;
        let record = RecordView::parse(&self.buf[range]).expect("the last step verified it");
        Walked::Record { position: PhysicalOffset(at), record }
    }

    /// The first position behind the bad one where records can be trusted again.
    pub(super) fn resync(&mut self, bad: u64) -> Result<Option<u64>, ReadError> {
        let Some(segment) = self.segment_at(bad).cloned() else {
            return self.resync_at_next_segment(bad);
        };
        if let Some(next) = self.hop_by_size(&segment, bad)? {
            return Ok(Some(next));
        }
        if let Some(next) = self.search(&segment, bad + 1, bad)? {
            return Ok(Some(next));
        }
        self.resync_at_next_segment(bad)
    }

    /// The first trusted record or filler of a segment from `from` on, not too far behind the bad place.
    fn search(
        &mut self,
        segment: &Arc<Segment>,
        mut from: u64,
        bad: u64,
    ) -> Result<Option<u64>, ReadError> {
        let search_end = segment.end().min(self.limit).min(bad + SEARCH_BYTES);
        // A body may hold thousands of forged records, one behind the other: each is walked over once.
        let mut dead_ends = HashSet::new();
        while let Some(candidate) = self.candidate(segment, from, search_end)? {
            if self.is_anchored(candidate, &mut dead_ends)? {
                return Ok(Some(candidate));
            }
            from = candidate + 1;
        }
        Ok(None)
    }

    /// Trusts the damaged record's own size when it leads to a record, so that nothing in its body is looked at.
    fn hop_by_size(&mut self, segment: &Segment, bad: u64) -> Result<Option<u64>, ReadError> {
        let left = (segment.end() - bad).min(self.limit - bad);
        let head = peek_size(self.fill(segment, bad, 8.min(left))?);
        let Some((size, magic)) = head.filter(|(s, m)| is_plausible(*s, *m, left)) else {
            return Ok(None);
        };
        debug_assert!(magic == MAGIC_V1 || magic == MAGIC_V2, "is_plausible checks it");
        let next = bad + u64::from(size);
        Ok(match self.step(next)? {
            Step::Record(_) | Step::Filler { .. } => Some(next),
            Step::End if next == self.limit => Some(next),
            Step::End | Step::Bad(_) => None,
        })
    }

    fn resync_at_next_segment(&mut self, bad: u64) -> Result<Option<u64>, ReadError> {
        let mut at = bad;
        while let Some(base) = self.next_segment_after(at).map(|segment| segment.base) {
            if matches!(self.step(base)?, Step::Record(_)) {
                return Ok(Some(base));
            }
            // Its header is bad as well: look into it.
            let segment = self.segments.iter().find(|s| s.base == base).cloned();
            if let Some(segment) = segment
                && let Some(next) = self.search(&segment, base, base)?
            {
                return Ok(Some(next));
            }
            at = base;
        }
        Ok((self.limit != u64::MAX).then_some(self.limit))
    }

    /// The next position in `from..end` whose bytes are a verified record or filler.
    fn candidate(
        &mut self,
        segment: &Arc<Segment>,
        mut from: u64,
        end: u64,
    ) -> Result<Option<u64>, ReadError> {
        while from < end {
            let window = self.fill(segment, from, 8.min(end - from))?;
            let window = &window[..window.len().min((end - from) as usize)];
            if window.len() < 8 {
                return Ok(None);
            }
            let Some(found) = find_head(window) else {
                from += window.len() as u64 - 7;
                continue;
            };
            let at = from + found as u64;
            if matches!(self.step(at)?, Step::Record(_) | Step::Filler { .. }) {
                return Ok(Some(at));
            }
            from = at + 1;
        }
        Ok(None)
    }

    /// Whether records lead from `at` to something that no client can have put there.
    /// Positions from which they do not are remembered in `dead_ends`.
    fn is_anchored(
        &mut self,
        mut at: u64,
        dead_ends: &mut HashSet<u64>,
    ) -> Result<bool, ReadError> {
        loop {
            // What was walked over before and is looked at again had led to nothing.
            if !dead_ends.insert(at) {
                return Ok(false);
            }
            match self.step(at)? {
                Step::Record(place) if self.is_ours(place.own) => return Ok(true),
                Step::Record(place) => at = place.next,
                Step::Filler { .. } | Step::End => return Ok(true),
                Step::Bad(_) => return Ok(false),
            }
        }
    }

    fn is_ours(&self, own: Option<Own>) -> bool {
        let found = own.and_then(|own| own.witness());
        found.is_some_and(|(id, _)| self.store_id.is_none_or(|store_id| store_id == id))
    }

    /// The first position behind a record that the disk does not give where records can be read and trusted again.
    pub(super) fn resync_unreadable(&mut self, bad: u64) -> u64 {
        let Some(segment) = self.segment_at(bad).cloned() else { return self.limit };
        let end = segment.end().min(self.limit);
        if let Ok(Some(next)) = self.hop_by_size(&segment, bad) {
            return next;
        }
        let mut from = page_end(bad);
        for _ in 0..UNREADABLE_PAGES_MAX {
            if from >= end {
                break;
            }
            match self.search(&segment, from, bad) {
                Ok(Some(next)) => return next,
                Err(ReadError::Io { position, .. }) => from = page_end(position.0.max(from)),
                Ok(None) | Err(_) => break,
            }
        }
        self.next_segment_after(bad).map_or(self.limit, |next| next.base.min(self.limit))
    }

    /// Whether anything behind the bad position says that it had been synced.
    pub(super) fn is_synced_by_later_word(&mut self, bad: u64) -> Result<bool, ReadError> {
        let mut at = bad;
        while let Some(mut good) = self.resync(at)? {
            loop {
                match self.step(good)? {
                    Step::Record(place) if self.says_synced(place.own, bad) => return Ok(true),
                    Step::Record(place) => good = place.next,
                    Step::Filler { end } => good = end,
                    Step::End => return Ok(false),
                    Step::Bad(_) => break,
                }
            }
            at = good;
        }
        Ok(false)
    }

    fn says_synced(&self, own: Option<Own>, position: u64) -> bool {
        let synced = own.and_then(|own| own.witness()).map(|(_, synced)| synced.0);
        self.is_ours(own) && synced.is_some_and(|synced| synced > position)
    }

    /// The first word of a header or mark, for a log whose headers are all broken.
    pub(super) fn find_store_id(&mut self) -> Result<Option<StoreId>, ReadError> {
        let Some(mut at) = self.segments.first().map(|segment| segment.base) else {
            return Ok(None);
        };
        loop {
            match self.step(at)? {
                Step::Record(place) => match place.own.and_then(|own| own.witness()) {
                    Some((id, _)) => return Ok(Some(id)),
                    None => at = place.next,
                },
                Step::Filler { end } => at = end,
                Step::End => return Ok(None),
                Step::Bad(_) => match self.resync(at)? {
                    Some(next) => at = next,
                    None => return Ok(None),
                },
            }
        }
    }

    /// Store time of the record that ends at `end`, looked for backwards.
    pub(super) fn last_time_before(&mut self, end: u64) -> Result<Option<u64>, ReadError> {
        let Some(segment) = end.checked_sub(1).and_then(|at| self.segment_at(at)).cloned() else {
            return Ok(None);
        };
        for window in [64 * 1024, 1024 * 1024, SEARCH_BYTES, u64::MAX] {
            let start = end.saturating_sub(window).max(segment.base);
            let mut from = start;
            // Where nothing leads to the end, each record is walked over once and not from every record before it.
            let mut dead_ends = HashSet::new();
            while let Some(candidate) = self.candidate(&segment, from, end)? {
                if let Some(time) = self.time_of_chain(candidate, end, &mut dead_ends)? {
                    return Ok(Some(time));
                }
                from = candidate + 1;
            }
            if start == segment.base {
                break;
            }
        }
        Ok(None)
    }

    fn time_of_chain(
        &mut self,
        mut at: u64,
        end: u64,
        dead_ends: &mut HashSet<u64>,
    ) -> Result<Option<u64>, ReadError> {
        let mut time = None;
        while at < end {
            if !dead_ends.insert(at) {
                return Ok(None);
            }
            match self.step(at)? {
                Step::Record(place) => {
                    time = Some(place.store_time_ms);
                    at = place.next;
                }
                Step::Filler { end } => at = end,
                Step::Bad(_) | Step::End => return Ok(None),
            }
        }
        Ok(time.filter(|_| at == end))
    }

    /// Describes the bad place at `position`, after which `end` is the next good one.
    pub(super) fn damage(&self, position: u64, end: u64, reason: DamageReason) -> Damage {
        let (path, base) = match self.segment_at(position) {
            Some(segment) => (segment.path.clone(), segment.base),
            None => self.missing_path(position),
        };
        Damage {
            path,
            file_offset: position - base,
            position: PhysicalOffset(position),
            end: PhysicalOffset(end),
            reason,
        }
    }

    fn missing_path(&self, position: u64) -> (std::path::PathBuf, u64) {
        let neighbour = self.segments.first().and_then(|s| s.path.parent());
        (segment_path(neighbour.unwrap_or("".as_ref()), position), position)
    }
}

/// Where the page of a position ends: a disk gives a page or refuses it.
fn page_end(at: u64) -> u64 {
    (at / PAGE_BYTES + 1) * PAGE_BYTES
}

fn is_plausible(size: u32, magic: u32, left: u64) -> bool {
    let size_max = left.min(RECORD_BYTES_LIMIT);
    matches!(magic, MAGIC_V1 | MAGIC_V2)
        && (RECORD_BYTES_MIN as u64..=size_max).contains(&u64::from(size))
}

/// Where the first head of a record or filler begins, looking at its magic alone.
fn find_head(window: &[u8]) -> Option<usize> {
    // First bytes of the magics of records and of fillers.
    memchr::memchr2_iter(0xDA, 0xCB, window.get(4..)?).find(|at| {
        peek_size(&window[*at..]).is_some_and(|(_, magic)| {
            matches!(magic, MAGIC_V1 | MAGIC_V2) || own::is_blank_magic(magic)
        })
    })
}

/// What a cursor came upon.
#[derive(Debug)]
pub enum Walked<'a> {
    /// A verified record.
    Record {
        /// Where it lies.
        position: PhysicalOffset,
        /// The record.
        record: RecordView<'a>,
    },
    /// A place that is skipped.
    Damage(Damage),
}

/// Walks the verified records of a range of the log, in large sequential reads.
pub struct RecordCursor {
    walker: Walker,
    at: u64,
}

impl RecordCursor {
    pub(super) fn new(walker: Walker, from: u64) -> Self {
        Self { walker, at: from }
    }

    /// Position behind the last record given out, or of the next one to look at.
    pub fn position(&self) -> PhysicalOffset {
        PhysicalOffset(self.at)
    }

    /// The next record, or the next damaged place; `None` at the end of the range. The log's own records are left out.
    #[allow(clippy::should_implement_trait)] // what it gives borrows from the cursor
    pub fn next(&mut self) -> Result<Option<Walked<'_>>, ReadError> {
        loop {
            let at = self.at;
            match self.walker.step(at)? {
                Step::End => return Ok(None),
                Step::Filler { end } => self.at = end,
                Step::Record(place) => {
                    self.at = place.next;
                    if !place.is_own {
                        return Ok(Some(self.walker.held(at, place.next)));
                    }
                }
                Step::Bad(reason) => return Ok(self.skip(at, reason)?.map(Walked::Damage)),
            }
        }
    }

    /// Goes on behind the record at `position`, which the disk does not give for the reason that `source` tells.
    pub(crate) fn skip_unreadable(&mut self, source: &std::io::Error) -> Damage {
        let at = self.at;
        self.at = self.walker.resync_unreadable(at);
        self.walker.damage(at, self.at, DamageReason::Unreadable(source.to_string()))
    }

    fn skip(&mut self, at: u64, reason: DamageReason) -> Result<Option<Damage>, ReadError> {
        let Some(next) = self.walker.resync(at)? else {
            return Ok(None);
        };
        self.at = next;
        Ok(Some(self.walker.damage(at, next, reason)))
    }
}
