//! Opening: the views as they are, or made again from the newest state image, then the log from where they end.
//! Invariant: after it tables, queues, timers and ring are what they would be had the process never stopped.
//! Leaves finding the log's end to `log`.

use std::path::Path;

use gantry_model::{PhysicalOffset, QueueId, TopicId};
use hashbrown::HashMap;

use crate::{
    apply,
    change::{self, Change, Message},
    errors::{OpenError, ReplayError},
    image::{self, ImageAt, ImageError},
    log::{Log, Walked},
    log_start,
    orphans::Orphans,
    ring::Side,
    salvage::{Salvaged, salvage},
    state::{Counters, StateEntry},
    store::Store,
    tables::Tables,
    views::{
        ViewBatch, ViewError, ViewStore,
        layout::{self, Applied, RunOut},
    },
};

/// Records after which the ring is looked at during a replay.
const APPLY_EVERY: u64 = 4096;
/// Records that one batch of views holds during a replay.
const APPLY_RECORDS: usize = 8192;

/// Tables that are as the views are, and where to go on in the log.
pub(crate) struct Restored {
    pub(crate) tables: Tables,
    pub(crate) from: PhysicalOffset,
    pub(crate) rebuilt: bool,
    pub(crate) salvaged: Option<Salvaged>,
}

/// What a replay has found.
pub(crate) struct Replayed {
    /// Number of records.
    pub(crate) records: u64,
    /// The newest start of the log that a record says, in the views or behind them.
    pub(crate) log_start: PhysicalOffset,
}

/// Takes the views as they are if the log goes on where they end, and makes them again otherwise.
pub(crate) fn restore(
    views: &dyn ViewStore,
    log: &Log,
    Applied { position: applied, version }: Applied,
    named_image: Option<PhysicalOffset>,
    accepts_lost_state: bool,
) -> Result<Restored, OpenError> {
    let is_there = applied > PhysicalOffset(0) && (log.start()..=log.written()).contains(&applied);
    if is_there && version != layout::VERSION {
        tracing::info!(
            found = version,
            known = layout::VERSION,
            "views of another version are made again"
        );
    }
    if is_there && version == layout::VERSION {
        match Tables::load(views) {
            Ok(tables) => {
                return Ok(Restored { tables, from: applied, rebuilt: false, salvaged: None });
            }
            // They cannot be cleared either, but for their files.
            Err(error @ ViewError::Damaged { .. }) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "views that cannot be read are made again"),
        }
    }
    // Looked for first: views of another release's layout still hold what a lost image would take along.
    let image = match usable_image(log, named_image) {
        Err(error @ OpenError::StateLost { .. }) if accepts_lost_state => {
            tracing::warn!(%error, "goes on with what is left of the state");
            views.clear()?;
            let (salvaged, from) = (Some(salvage(views, log)?), log.start());
            return Ok(Restored { tables: Tables::load(views)?, from, rebuilt: true, salvaged });
        }
        image => image?,
    };
    views.clear()?;
    let from = match image {
        Some(image) => load_image(views, log, &image)?,
        None => log.start(),
    };
    Ok(Restored { tables: Tables::load(views)?, from, rebuilt: true, salvaged: None })
}

/// The newest state image from which the views can be made again; none if the log itself has everything.
///
/// An image whose records are damaged is passed over: an older one does as well if the log still holds all state behind
/// it.
fn usable_image(log: &Log, named: Option<PhysicalOffset>) -> Result<Option<ImageAt>, OpenError> {
    let start = log.start();
    // A segment's header names the image that was newest when the segment was begun; later ones are behind it.
    let named = named.unwrap_or(start).max(start);
    for from in [named, start] {
        let image = image::newest(log, from, log.written())?;
        if let Some(image) = image.filter(|image| image.position >= start) {
            return Ok(Some(image));
        }
        if from == start {
            break;
        }
    }
    if start > PhysicalOffset(0) { Err(state_lost(log)?) } else { Ok(None) }
}

fn state_lost(log: &Log) -> Result<OpenError, OpenError> {
    let start = log.start();
    let segment = log.locate(start).0;
    let dir = segment.parent().and_then(Path::parent).unwrap_or(&segment).to_owned();
    let mut cursor = log.records(start, log.written());
    let cause = loop {
        match cursor.next().map_err(ImageError::from)? {
            None => break "no place in it is damaged".to_owned(),
            Some(Walked::Damage(damage)) => break damage.to_string(),
            Some(Walked::Record { .. }) => {}
        }
    };
    Ok(OpenError::StateLost { dir, start, cause })
}

/// Fills empty views from a state image, and gives the position up to which they are then applied.
fn load_image(
    views: &dyn ViewStore,
    log: &Log,
    image: &ImageAt,
) -> Result<PhysicalOffset, OpenError> {
    let mut loader = Loader {
        views,
        batch: ViewBatch::new(),
        counters: Counters::default(),
        runs: HashMap::new(),
    };
    let mut outcome = Ok(());
    image::load(log, image, &mut |entry| {
        if outcome.is_ok() {
            outcome = loader.state(&entry);
        }
    })?;
    outcome?;
    loader.write()?;
    loader.messages(log, image.position)?;
    loader.batch.set_applied(image.position);
    loader.write()?;
    Ok(image.position)
}

struct Loader<'a> {
    views: &'a dyn ViewStore,
    batch: ViewBatch,
    counters: Counters,
    /// Entries that wait for those behind them, by their queues.
    runs: HashMap<(TopicId, QueueId), RunOut>,
}

impl Loader<'_> {
    fn state(&mut self, entry: &StateEntry) -> Result<(), ViewError> {
        apply::put_state(&mut self.batch, &mut self.counters, entry, self.views)?;
        if self.batch.len() < APPLY_RECORDS { Ok(()) } else { self.write() }
    }

    /// Messages before the image fill their queues; all else that records before it did is in the image.
    fn messages(&mut self, log: &Log, to: PhysicalOffset) -> Result<(), OpenError> {
        let tables = Tables::load(self.views)?;
        let topics = tables.topics.read();
        let mut cursor = log.records(log.start(), to);
        let mut records = 0;
        loop {
            let position = cursor.position();
            let failed = |source| OpenError::Replay { position, source };
            match cursor.next().map_err(|error| failed(ReplayError::Read(error)))? {
                None => break,
                // The replay behind the image, and readers, report what is damaged.
                Some(Walked::Damage(_)) => {}
                Some(Walked::Record { record, .. }) => {
                    let change = change::of_record(&record, &topics);
                    if let Some(change) = change.map_err(|error| failed(error.into()))? {
                        self.before_image(&change);
                    }
                }
            }
            records += 1;
            if records % APPLY_RECORDS == 0 {
                self.write_runs()?;
            }
        }
        self.write_runs()?;
        Ok(())
    }

    fn write_runs(&mut self) -> Result<(), ViewError> {
        for (queue, mut run) in self.runs.drain() {
            run.end(&mut self.batch, queue);
        }
        self.write()
    }

    fn before_image(&mut self, change: &Change) {
        match *change {
            Change::Message(Message { topic, queue, offset: Some(offset), entry, .. }) => {
                let run = self.runs.entry((topic, queue)).or_default();
                run.push(&mut self.batch, (topic, queue), offset, &entry);
            }
            Change::LogStart(start) => log_start::put(&mut self.batch, start),
            Change::Message(_) | Change::State(_) | Change::Dropped { .. } => {}
        }
    }

    fn write(&mut self) -> Result<(), ViewError> {
        self.views.apply(&self.batch)?;
        self.batch.clear();
        Ok(())
    }
}

impl Store {
    /// Replays the log from `from` to its end.
    pub(crate) fn replay(&self, from: PhysicalOffset) -> Result<Replayed, OpenError> {
        let (mut records, mut log_start) = (0, log_start::of_views(&*self.views)?);
        let mut orphans = Orphans::default();
        let mut cursor = self.log.records(from, self.log.written());
        loop {
            let position = cursor.position();
            let failed = |source| OpenError::Replay { position, source };
            match cursor.next().map_err(|error| failed(ReplayError::Read(error)))? {
                None => {
                    self.skip_lost_offsets().map_err(|error| failed(error.into()))?;
                    self.note_orphans(orphans);
                    return Ok(Replayed { records, log_start });
                }
                Some(Walked::Damage(damage)) => {
                    let place = damage.position..damage.end;
                    self.note_damage(place.clone(), damage.reason.to_string());
                    if damage.may_hide_records() {
                        self.note_lost(place).map_err(|error| failed(error.into()))?;
                    }
                }
                Some(Walked::Record { record, .. }) => {
                    let change = change::of_record(&record, &self.tables.topics.read());
                    let end = record.position().plus(record.size().into());
                    if let Some(change) = change.map_err(|error| failed(error.into()))? {
                        match change {
                            Change::LogStart(start) => log_start = log_start.max(start),
                            Change::Dropped { .. } => orphans.note(&record),
                            Change::Message(_) | Change::State(_) => {}
                        }
                        self.note_change(change, record.position(), end).map_err(failed)?;
                    }
                    records += 1;
                }
            }
            if records % APPLY_EVERY == 0 {
                self.make_room().map_err(failed)?;
            }
        }
    }

    /// Tells tables, queues, timers and ring what a record of the log changed.
    fn note_change(
        &self,
        change: Change,
        position: PhysicalOffset,
        end: PhysicalOffset,
    ) -> Result<(), ReplayError> {
        match change {
            Change::State(entries) => self.note_state(entries, position, end),
            Change::Message(message) => self.note_message(&message, end)?,
            Change::LogStart(start) => self.note_start(start, end),
            Change::Dropped { ends } => {
                if ends.is_some() {
                    self.timers.appended(None, ends);
                    self.ring.lock().push(None, Some(Side { end, ends, ..Side::default() }));
                }
            }
        }
        Ok(())
    }

    fn note_message(&self, message: &Message, end: PhysicalOffset) -> Result<(), ReplayError> {
        let Message { topic, queue, offset, entry, timer, ends } = *message;
        let side = (timer.is_some() || ends.is_some()).then(|| Side {
            end,
            timer,
            ends,
            ..Side::default()
        });
        if side.is_some() {
            self.timers.appended(timer, ends);
        }
        let slot = match offset {
            None => None,
            Some(offset) => {
                let queue = self.queues.obtain((topic, queue), &*self.views)?;
                if queue.state.lock().next != offset.0 {
                    // Damage took messages of the queue. With the ring empty, it may go on at any offset.
                    self.apply_all()?;
                    let mut state = queue.state.lock();
                    state.base = offset.0;
                    state.next = offset.0;
                }
                let mut state = queue.state.lock();
                state.next += 1;
                state.entries.push_back(entry);
                Some(queue.slot)
            }
        };
        if slot.is_some() || side.is_some() {
            let mut ring = self.ring.lock();
            ring.push(slot, side);
            self.ring_bytes.store(ring.bytes(), std::sync::atomic::Ordering::Release);
        }
        Ok(())
    }

    /// Half of the ring stays free for the traffic that begins when the store is open.
    fn make_room(&self) -> Result<(), ReplayError> {
        while self.ring.lock().bytes() > self.options.ring_bytes_max / 2 {
            self.apply_views(APPLY_RECORDS)?;
        }
        Ok(())
    }

    /// Empties the ring into the views.
    pub(crate) fn apply_all(&self) -> Result<(), ViewError> {
        while self.apply_views(APPLY_RECORDS)? > 0 {}
        Ok(())
    }
}
