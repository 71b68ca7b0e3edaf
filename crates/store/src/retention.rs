//! Lets go of what is too old or too much, by rules that are pure functions.
//! Invariant: a segment goes only when a complete image at or behind its end is synced, its pending timers are carried,
//! and the views hold durably everything in it; the segment being written never goes.
//! Leaves how often to look to the store's owner.

mod carry;
mod clocks;
mod index_keys;
mod rules;

use std::{
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gantry_model::PhysicalOffset;
use parking_lot::Mutex;

use self::index_keys::GapRead;
pub use self::{
    clocks::{AgeClock, SteadyClock},
    rules::{ImageStep, forget_before, image_step},
};
use crate::{
    errors::{AppendError, ReadError, SyncError},
    image::{self, IMAGE_TOPIC, ImageAt, ImageError, own_draft},
    keys::{KeyError, KeyIndex, KeysWaiting},
    log::{self, Log, Purpose, RecordBatch, Unlink, files::Files},
    log_start::{self, START_TOPIC},
    options::{Flush, Now, OnFull, Retention, StoreOptions},
    store::Store,
    views::ViewError,
};

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

/// Part of the memory for keys that those have which the index does not hold yet.
const KEYS_WAITING_SHARE: usize = 8;

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

impl AddAssign for Forgotten {
    fn add_assign(&mut self, more: Self) {
        self.segments += more.segments;
        self.carried += more.carried;
        self.image_written |= more.image_written;
    }
}

/// What upkeep remembers between calls.
pub(crate) struct Upkeep {
    pub(crate) keys: KeyIndex,
    pub(crate) keys_waiting: KeysWaiting,
    gap_read: Mutex<Option<GapRead>>,
    /// Of the log, for the key index.
    pub(crate) key_read_bytes: AtomicU64,
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
        let waiting_bytes = options.key_bytes / KEYS_WAITING_SHARE;
        let key_bytes = options.key_bytes - waiting_bytes;
        let keys = KeyIndex::open(&options.dir.join("keys"), files, applied, key_bytes)?;
        let keys_waiting = KeysWaiting::new(log.written(), waiting_bytes);
        let image = named_image.map_or(Ok(None), |begin| image::at(log, begin))?;
        let clock = AgeClock::new(log.last_time_ms(), now);
        let steady = SteadyClock::new(now);
        let is_image_lost = named_image.is_some() && image.is_none();
        let state = UpkeepState { clock, steady, image, is_image_lost };
        let key_read_bytes = AtomicU64::new(0);
        let gap_read = Mutex::new(None);
        Ok(Self { keys, keys_waiting, gap_read, key_read_bytes, state: Mutex::new(state) })
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
            self.confirmed.fetch_max(appended.end.0, Ordering::AcqRel);
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

    /// Marks everything as synced, so that the next start can tell rot from a torn tail, and writes the key index. For
    /// that the log is read in so many steps at most.
    pub(crate) fn close_log(&self, steps_max: usize) -> Result<(), RetentionError> {
        self.end_with_mark(&mut self.tail.lock())?;
        self.sync()?;
        for _ in 0..steps_max {
            if !self.index_keys()? {
                break;
            }
        }
        Ok(self.upkeep.keys.seal(self.synced())?)
    }
}
