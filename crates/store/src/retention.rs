//! What the log may forget, and when: decisions as pure functions, and the upkeep that carries them out.
//! Invariant: a segment goes only when a complete image at or behind its end is synced, its pending timers are carried,
//! and the views hold durably everything in it; the segment being written never goes.
//! Leaves how often to look to the store's owner.

use std::{ops::Range, sync::Arc};

use gantry_model::PhysicalOffset;
use gantry_record::RecordView;
use parking_lot::Mutex;

use crate::{
    batch::{Batch, Ends, Index},
    change::{self, key_hash},
    errors::{AppendError, ReadError, SyncError},
    image::{self, IMAGE_TOPIC, ImageAt, ImageError, own_draft},
    keys::{KeyEntry, KeyError, KeyIndex},
    log::{self, Log, Purpose, RecordBatch, SegmentInfo, Unlink, Walked, files::Files},
    log_start::{self, START_TOPIC},
    options::{Flush, Now, OnFull, Retention, StoreOptions},
    store::Store,
    timers,
    types::Timer,
    views::{Step, ViewError},
};

/// Timers that are looked for at once when they are carried.
const CARRIED_AT_ONCE: usize = 256;
/// Bytes of log whose keys one call indexes, so that other upkeep gets its turn.
const INDEXED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A new image is begun only when the log has grown by so many times the last one: at most 6 % of it is images.
const GROWTH_PER_IMAGE: u64 = 16;

/// Time by which messages grow old: it follows the wall clock, but not faster than the monotonic one.
///
/// A wall clock that jumps forward makes nothing older before that time has passed. Starts at the last store time, so
/// that time in which the store was closed counts only as far as the log itself tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgeClock {
    trusted_ms: u64,
    monotonic_ms: u64,
}

impl AgeClock {
    /// A clock for a log whose last record was stored at `last_time_ms`; 0 if there is none.
    pub fn new(last_time_ms: u64, now: Now) -> Self {
        let known_ms = if last_time_ms == 0 { now.wall_ms } else { last_time_ms };
        Self { trusted_ms: known_ms.min(now.wall_ms), monotonic_ms: now.monotonic_ms }
    }

    /// The time in milliseconds since 1970 that may be trusted not to be too late.
    pub fn advance(&mut self, now: Now) -> u64 {
        let passed_ms = now.monotonic_ms.saturating_sub(self.monotonic_ms);
        self.monotonic_ms = self.monotonic_ms.max(now.monotonic_ms);
        self.trusted_ms = now.wall_ms.min(self.trusted_ms.saturating_add(passed_ms));
        self.trusted_ms
    }
}

/// The wall clock as long as it runs evenly, and since when it does. The start of the store counts as a jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SteadyClock {
    steady_since_ms: u64,
    last: Now,
}

impl SteadyClock {
    /// Difference between the clocks within one step that counts as a jump; less is the wall clock being steered.
    const JUMP_MS: u64 = 1_000;

    /// A clock that has just been looked at for the first time.
    pub fn new(now: Now) -> Self {
        Self { steady_since_ms: now.wall_ms, last: now }
    }

    /// The wall time before which everything was stored longer than `age_ms` ago; none before the clock has run
    /// evenly for that long. What was stored before it did is older than that by then.
    pub fn stored_before(&mut self, age_ms: u64, now: Now) -> Option<u64> {
        let passed_ms = now.monotonic_ms.saturating_sub(self.last.monotonic_ms);
        let expected_ms = self.last.wall_ms.saturating_add(passed_ms);
        if now.wall_ms.abs_diff(expected_ms) > Self::JUMP_MS {
            self.steady_since_ms = now.wall_ms;
        }
        self.last = now;
        now.wall_ms.checked_sub(age_ms).filter(|before_ms| *before_ms >= self.steady_since_ms)
    }
}

/// Up to where the log may be forgotten for its age or size: the end of a segment, `None` if nothing may go.
///
/// `applied` is the position up to which the views hold everything.
pub fn forget_before(
    segments: &[SegmentInfo],
    retention: Retention,
    trusted_ms: u64,
    applied: PhysicalOffset,
) -> Option<PhysicalOffset> {
    let mut bytes: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
    let mut before = None;
    for (index, segment) in segments.iter().enumerate() {
        let next = segments.get(index + 1);
        let is_old = last_time_ms(segment, next)
            .is_some_and(|last_ms| trusted_ms.saturating_sub(last_ms) > retention.age_ms);
        let is_beyond = retention.bytes.is_some_and(|bytes_max| bytes > bytes_max);
        if next.is_none() || !segment.is_sealed || segment.end > applied || !(is_old || is_beyond) {
            break;
        }
        bytes -= segment.file_bytes;
        before = Some(segment.end);
    }
    before
}

/// Store time of a segment's last record; where damage hides it, the next one's header is not earlier.
fn last_time_ms(segment: &SegmentInfo, next: Option<&SegmentInfo>) -> Option<u64> {
    let known = |time_ms: u64| (time_ms > 0).then_some(time_ms);
    known(segment.last_time_ms).or_else(|| next.and_then(|next| known(next.first_time_ms)))
}

/// Whether the newest image allows to forget, and if not, whether a new one may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageStep {
    /// The newest image is new enough.
    Enough,
    /// A new one has to be written first.
    Write,
    /// A new one is needed, and the log has not grown enough since the last.
    Wait,
}

/// What has to be done about the image before everything up to `before` may go.
pub fn image_step(
    newest: Option<&ImageAt>,
    before: PhysicalOffset,
    written: PhysicalOffset,
) -> ImageStep {
    match newest {
        Some(image) if image.position >= before => ImageStep::Enough,
        Some(image) if written.0 - image.end.0 < GROWTH_PER_IMAGE * image.bytes => ImageStep::Wait,
        _ => ImageStep::Write,
    }
}

/// Why nothing, or not all that could, was forgotten. The next call tries again.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// A pending timer could not be carried, or a record of upkeep not be appended.
    #[error("append a record")]
    Append(#[from] AppendError),
    /// The log refused a record of upkeep.
    #[error("append a record of upkeep")]
    Log(#[from] log::AppendError),
    /// A segment could not be given up.
    #[error("give up a segment")]
    Unlink(#[from] log::UnlinkError),
    /// What was appended could not be synced.
    #[error("sync the log")]
    Sync(#[from] SyncError),
    /// The views could not be read, applied or flushed.
    #[error("use the views")]
    Views(#[from] ViewError),
    /// A parked message could not be read.
    #[error("read a parked message")]
    Read(#[from] ReadError),
    /// The log could not be walked.
    #[error("walk the log")]
    Walk(#[from] log::ReadError),
    /// The newest image could not be read.
    #[error("find the newest state image")]
    Image(#[from] ImageError),
    /// The key index could not be changed.
    #[error("change the key index")]
    Keys(#[from] KeyError),
}

impl From<image::WriteError<RetentionError>> for RetentionError {
    fn from(error: image::WriteError<RetentionError>) -> Self {
        match error {
            image::WriteError::Views(error) => error.into(),
            image::WriteError::Append(error) => error,
        }
    }
}

/// Receives a record's position, its end and the hashes of its keys.
type VisitKeys<'a> = dyn FnMut(PhysicalOffset, PhysicalOffset, &[u64]) -> Result<(), KeyError> + 'a;

/// What one round of retention did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Segments that went.
    pub segments: u64,
    /// Timers that were appended again.
    pub carried: u64,
    /// Whether a state image was written.
    pub image_written: bool,
}

/// What upkeep remembers between calls.
pub(crate) struct Upkeep {
    pub(crate) keys: KeyIndex,
    state: Mutex<UpkeepState>,
}

struct UpkeepState {
    clock: AgeClock,
    steady: SteadyClock,
    image: Option<ImageAt>,
    /// Whether a segment's header names an image that is not whole.
    is_image_lost: bool,
}

impl std::fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Upkeep {
    /// Opens what upkeep needs beside the log and the views, which are applied up to `applied`.
    /// `named_image` is where the newest image begins that a segment's header names.
    pub(crate) fn open(
        options: &StoreOptions,
        files: Arc<dyn Files>,
        log: &Log,
        applied: PhysicalOffset,
        named_image: Option<PhysicalOffset>,
        now: Now,
    ) -> Result<Self, RetentionError> {
        let applied = applied.max(log.start());
        let keys = KeyIndex::open(&options.dir.join("keys"), files, applied, options.key_bytes)?;
        let image = named_image.map_or(Ok(None), |begin| image::at(log, begin))?;
        let clock = AgeClock::new(log.last_time_ms(), now);
        let steady = SteadyClock::new(now);
        let is_image_lost = named_image.is_some() && image.is_none();
        let state = UpkeepState { clock, steady, image, is_image_lost };
        Ok(Self { keys, state: Mutex::new(state) })
    }

    /// Time before which everything was stored longer than `age_ms` ago, for sure.
    pub(crate) fn stored_before(&self, age_ms: u64, now: Now) -> u64 {
        let mut state = self.state.lock();
        let before_ms = state.clock.advance(now).saturating_sub(age_ms);
        // The first stays behind by as long as the store was idle and closed: it does not know of that time.
        state.steady.stored_before(age_ms, now).map_or(before_ms, |steady| steady.max(before_ms))
    }
}

impl Store {
    /// Lets go of what is too old or too much: carries timers, writes an image if one is needed, moves the log's start.
    pub(crate) fn forget_old(&self, now: Now) -> Result<Forgotten, RetentionError> {
        let mut state = self.upkeep.state.lock();
        let trusted_ms = state.clock.advance(now);
        let mut forgotten = Forgotten {
            image_written: self.replace_image(&mut state, now)?,
            ..Forgotten::default()
        };
        let applied = self.views.applied()?;
        let segments = self.log.segments();
        let retention = self.retention();
        let Some(before) = forget_before(&segments, retention, trusted_ms, applied) else {
            return Ok(forgotten);
        };
        let is_short = self.shortage().is_some();
        // The reserve holds what is carried out of one segment, and an image.
        let before = if is_short { segments[0].end } else { before };
        let step = match image_step(state.image.as_ref(), before, self.log.written()) {
            // A log that takes no messages does not grow until something goes.
            ImageStep::Wait if is_short => ImageStep::Write,
            ImageStep::Wait => return Ok(forgotten),
            step => step,
        };
        forgotten.carried = self.carry(before, now)?;
        if step == ImageStep::Write {
            state.image = Some(self.write_image(now)?);
            forgotten.image_written = true;
        }
        // With `before` not behind what was applied, the image's position is not before it.
        if state.image.is_some_and(|image| image.position >= before) {
            forgotten.segments = self.unlink(before, now)?;
        }
        Ok(forgotten)
    }

    /// What is in force: with `DeleteOldest`, also that there is room for messages.
    fn retention(&self) -> Retention {
        let mut retention = self.options.retention;
        if self.options.on_full == OnFull::DeleteOldest {
            let bytes_max = match self.shortage() {
                Some(_) => Some(0),
                None => self.options.room.segments_bytes_max(self.options.segment_bytes),
            };
            retention.bytes = retention.bytes.into_iter().chain(bytes_max).min();
        }
        retention
    }

    /// Writes an image if the newest one, or state behind it, may be damaged: the views still hold what it said, and
    /// could not be made again without it. Says whether it did.
    fn replace_image(&self, state: &mut UpkeepState, now: Now) -> Result<bool, RetentionError> {
        let newest = state.image.map_or(PhysicalOffset(0), |image| image.begin);
        let is_behind = self.damage.lock().last_start().is_some_and(|start| start >= newest);
        if !(is_behind || state.is_image_lost) || self.shortage().is_some() {
            return Ok(false);
        }
        // The image has to be behind the damage, and to hold what was there.
        self.sync()?;
        self.apply_all()?;
        state.image = Some(self.write_image(now)?);
        state.is_image_lost = false;
        Ok(true)
    }

    /// Appends the pending timers before `before` again; each copy ends its original in the same write.
    fn carry(&self, before: PhysicalOffset, now: Now) -> Result<u64, RetentionError> {
        let mut carried = 0;
        let mut from = Timer::default();
        loop {
            let timers = self.timers_before(before, from)?;
            let Some(last) = timers.last() else { break };
            from = Timer { position: last.position.plus(1), ..*last };
            for timer in timers {
                carried += u64::from(self.carry_one(timer, now)?);
            }
        }
        self.sync()?;
        self.apply_all()?;
        Ok(carried)
    }

    fn timers_before(
        &self,
        before: PhysicalOffset,
        from: Timer,
    ) -> Result<Vec<Timer>, RetentionError> {
        let mut found = Vec::new();
        let end = Timer { due_ms: u64::MAX, position: PhysicalOffset(u64::MAX) };
        timers::scan(&*self.views, from..end, &mut |timer, _| {
            if timer.position < before {
                found.push(timer);
            }
            if found.len() < CARRIED_AT_ONCE { Step::Next } else { Step::Stop }
        })?;
        Ok(found)
    }

    /// Whether it was still pending.
    fn carry_one(&self, timer: Timer, now: Now) -> Result<bool, RetentionError> {
        let Some(bytes) = self.read_record(timer.position)? else {
            // Damaged: `read_record` has reported it, and nothing can fire it any more.
            return Ok(false);
        };
        let Ok(record) = RecordView::parse(&bytes) else { return Ok(false) };
        let Some(topic) = self.topic(record.topic()) else { return Ok(false) };
        let mut batch = Batch::new();
        let index = Index {
            tag_hash: record.tag_hash().into(),
            keys: change::keys_of(&record),
            timer_due_ms: Some(timer.due_ms),
            ends: Some(Ends::Timer { due_ms: timer.due_ms, position: timer.position }),
        };
        batch.push(&topic, &record.draft(), index).map_err(AppendError::from)?;
        let mut outcome = self.append_for(Purpose::State, &mut batch, now);
        if let Err(AppendError::Busy { .. }) = outcome {
            self.sync()?;
            self.apply_all()?;
            outcome = self.append_for(Purpose::State, &mut batch, now);
        }
        match outcome {
            Ok(_) => Ok(true),
            // It fired, was recalled, or went with its topic, a moment ago.
            Err(AppendError::AlreadyEnded { .. } | AppendError::TopicGone { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn write_image(&self, now: Now) -> Result<ImageAt, RetentionError> {
        let snapshot = self.views.snapshot();
        let position = snapshot.applied()?;
        let image = image::write(&*snapshot, position, &mut |body| {
            self.append_own(IMAGE_TOPIC, body, None, now)
        })?;
        self.sync()?;
        self.tail.lock().writer.note_image(image.begin);
        Ok(image)
    }

    fn append_own(
        &self,
        topic: &str,
        body: &[u8],
        log_start: Option<PhysicalOffset>,
        now: Now,
    ) -> Result<image::Span, RetentionError> {
        let mut records = RecordBatch::new();
        records
            .push(&own_draft(topic, body))
            .map_err(|error| AppendError::from(crate::EncodeError::from(error)))?;
        let mut tail = self.tail.lock();
        if tail.closed {
            return Err(AppendError::Stopped(None).into());
        }
        let appended = tail.writer.append_for(Purpose::State, &mut records, now.wall_ms)?;
        if let Some(start) = log_start {
            self.note_start(start, appended.end);
        }
        if self.options.flush == Flush::Async {
            self.confirmed.fetch_max(appended.end.0, std::sync::atomic::Ordering::AcqRel);
        }
        Ok((appended.start, appended.end))
    }

    fn next_unlink(&self) -> Option<Unlink> {
        self.tail.lock().writer.next_unlink()
    }

    /// The views first: after a crash they must not begin before the log does.
    fn unlink(&self, before: PhysicalOffset, now: Now) -> Result<u64, RetentionError> {
        self.flush_views(self.views.applied()?)?;
        self.append_own(START_TOPIC, &log_start::encode(before), Some(before), now)?;
        // Synced before readers are told, and before a file goes: no crash moves the start back.
        self.sync()?;
        self.tail.lock().writer.give_up_before(before);
        let mut segments = 0;
        // Nobody who appends waits for the disk to free the files.
        while let Some(unlink) = self.next_unlink() {
            let outcome = unlink.run(self.options.unlink_pause)?;
            self.tail.lock().writer.unlinked(&unlink, outcome);
            segments += 1;
        }
        self.upkeep.keys.drop_before(self.log.start())?;
        Ok(segments)
    }

    /// Marks everything as synced, so that the next start can tell rot from a torn tail, and writes the key index.
    pub(crate) fn close_log(&self) -> Result<(), RetentionError> {
        self.end_with_mark(&mut self.tail.lock())?;
        self.sync()?;
        self.index_keys()?;
        Ok(self.upkeep.keys.seal(self.synced())?)
    }

    /// Brings the key index up to what is confirmed and synced, and fills one of its gaps.
    pub(crate) fn index_keys(&self) -> Result<(), RetentionError> {
        let keys = &self.upkeep.keys;
        let end = self.confirmed().min(self.synced());
        let from = keys.covered_to().max(self.log.start());
        self.walk_keys(from..end, from.plus(INDEXED_BYTES_MAX), &mut |position, end, hashes| {
            keys.add(position, end, hashes);
            keys.seal_if_due(end).map(|_| ())
        })?;
        if let Some(gap) = keys.gaps(self.log.start()).into_iter().find(|gap| gap.end <= end) {
            let mut entries = Vec::new();
            self.walk_keys(gap.start..end, gap.end, &mut |position, _, hashes| {
                entries.extend(hashes.iter().map(|hash| KeyEntry { hash: *hash, position }));
                Ok(())
            })?;
            keys.fill_gap(gap, entries)?;
        }
        Ok(())
    }

    /// Gives the hashes of each record of `range` that begins before `before`. The range may begin inside a record,
    /// which then is left out; it ends with one.
    fn walk_keys(
        &self,
        range: Range<PhysicalOffset>,
        before: PhysicalOffset,
        visit: &mut VisitKeys<'_>,
    ) -> Result<(), RetentionError> {
        let mut hashes = Vec::new();
        let mut cursor = self.log.records(range.start, range.end);
        while let Some(walked) = cursor.next()? {
            // Damage holds no keys; readers report it.
            let Walked::Record { position, record } = walked else { continue };
            if position >= before {
                break;
            }
            hashes.clear();
            let words = change::keys_of(&record).words();
            hashes.extend(words.map(|word| key_hash(record.topic(), word)));
            visit(position, position.plus(record.size().into()), &hashes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn now(wall_ms: u64, monotonic_ms: u64) -> Now {
        Now { wall_ms, monotonic_ms }
    }

    #[test]
    fn forward_jump_of_the_wall_clock_makes_nothing_older_before_that_time_has_passed() {
        let mut clock = AgeClock::new(1_000, now(1_000, 50));
        assert_eq!(clock.advance(now(1_100, 150)), 1_100);
        assert_eq!(clock.advance(now(1_100 + 100 * HOUR_MS, 160)), 1_110);
        assert_eq!(clock.advance(now(1_100 + 100 * HOUR_MS, 160 + HOUR_MS)), 1_110 + HOUR_MS);
    }

    #[test]
    fn wall_clock_that_is_set_back_makes_messages_younger_and_counts_on_from_there() {
        let mut clock = AgeClock::new(5_000, now(5_000, 0));
        assert_eq!(clock.advance(now(2_000, 10)), 2_000);
        assert_eq!(clock.advance(now(5_020, 20)), 2_010);
    }

    #[test]
    fn wall_clock_that_is_wrong_at_the_start_is_held_by_the_log() {
        let mut clock = AgeClock::new(1_000, now(1_000 + 500 * HOUR_MS, 0));
        assert_eq!(clock.advance(now(1_000 + 500 * HOUR_MS, 10)), 1_010);
        let mut empty = AgeClock::new(0, now(7_000, 0));
        assert_eq!(empty.advance(now(7_001, 1)), 7_001);
    }

    #[test]
    fn wall_clock_counts_once_it_has_run_evenly_for_as_long_as_is_asked_for() {
        let mut clock = SteadyClock::new(now(10 * HOUR_MS, 0));
        assert_eq!(clock.stored_before(60_000, now(10 * HOUR_MS + 59_999, 59_999)), None);
        let at_ms = 10 * HOUR_MS + 60_000;
        assert_eq!(clock.stored_before(60_000, now(at_ms, 60_000)), Some(10 * HOUR_MS));
        for jumped_ms in [at_ms + HOUR_MS, at_ms - HOUR_MS] {
            let mut clock = clock;
            assert_eq!(clock.stored_before(60_000, now(jumped_ms, 60_001)), None);
            let later = now(jumped_ms + 60_000, 120_001);
            assert_eq!(clock.stored_before(60_000, later), Some(jumped_ms));
        }
    }

    #[test]
    fn wall_clock_that_is_steered_has_not_jumped() {
        let mut clock = SteadyClock::new(now(HOUR_MS, 0));
        for minute in 1..100 {
            let at = now(HOUR_MS + minute * 60_030, minute * 60_000);
            assert!(clock.stored_before(60_000, at).is_some(), "{minute}");
        }
    }

    fn segments(last_times_ms: &[u64]) -> Vec<SegmentInfo> {
        let count = last_times_ms.len() as u64;
        let infos = last_times_ms.iter().zip(0..).map(|(last_time_ms, n)| SegmentInfo {
            base: PhysicalOffset(n * 100),
            end: PhysicalOffset(n * 100 + 100),
            is_sealed: n + 1 < count,
            bytes: 90,
            file_bytes: 100,
            first_time_ms: last_time_ms.saturating_sub(5),
            last_time_ms: *last_time_ms,
            newest_image: None,
        });
        infos.collect()
    }

    const ALL_APPLIED: PhysicalOffset = PhysicalOffset(u64::MAX);

    #[test]
    fn segments_go_by_age_from_the_oldest_on_and_never_the_one_being_written() {
        let retention = Retention { age_ms: 100, bytes: None };
        let forget =
            |at_ms| forget_before(&segments(&[10, 20, 30, 40]), retention, at_ms, ALL_APPLIED);
        assert_eq!(forget(110), None);
        assert_eq!(forget(111), Some(PhysicalOffset(100)));
        assert_eq!(forget(125), Some(PhysicalOffset(200)));
        assert_eq!(forget(9_999), Some(PhysicalOffset(300)));
    }

    #[test]
    fn segments_go_by_size_until_the_rest_fits() {
        let forget = |bytes| {
            let retention = Retention { age_ms: u64::MAX, bytes: Some(bytes) };
            forget_before(&segments(&[10, 20, 30, 40]), retention, 50, ALL_APPLIED)
        };
        assert_eq!(forget(400), None);
        assert_eq!(forget(399), Some(PhysicalOffset(100)));
        assert_eq!(forget(200), Some(PhysicalOffset(200)));
        assert_eq!(forget(0), Some(PhysicalOffset(300)));
    }

    #[test]
    fn segment_that_the_views_do_not_hold_stays_with_all_behind_it() {
        let retention = Retention { age_ms: 0, bytes: Some(0) };
        let forget = |applied| {
            forget_before(&segments(&[10, 20, 30, 40]), retention, 999, PhysicalOffset(applied))
        };
        assert_eq!(forget(199), Some(PhysicalOffset(100)));
        assert_eq!(forget(99), None);
    }

    #[test]
    fn segment_whose_time_damage_hides_is_as_old_as_the_next_ones_header() {
        let retention = Retention { age_ms: 100, bytes: None };
        let forget =
            |at_ms| forget_before(&segments(&[0, 200, 300]), retention, at_ms, ALL_APPLIED);
        assert_eq!(forget(295), None);
        assert_eq!(forget(296), Some(PhysicalOffset(100)));
        assert_eq!(forget_before(&[], retention, 999, ALL_APPLIED), None);
    }

    #[test]
    fn image_is_written_when_needed_but_not_before_the_log_has_grown_by_16_times_the_last() {
        let at = PhysicalOffset;
        let image = ImageAt { begin: at(1000), end: at(1200), position: at(900), bytes: 100 };
        assert_eq!(image_step(None, at(1), at(2)), ImageStep::Write);
        assert_eq!(image_step(Some(&image), at(900), at(1200)), ImageStep::Enough);
        assert_eq!(image_step(Some(&image), at(901), at(2799)), ImageStep::Wait);
        assert_eq!(image_step(Some(&image), at(901), at(2800)), ImageStep::Write);
    }
}
