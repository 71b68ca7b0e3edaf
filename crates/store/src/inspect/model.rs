//! The state that the log tells: topics, groups, offsets, timers and next offsets as of one position.
//! Invariant: made of the log, or of views up to their applied position, by the very functions that the store itself
//! uses; it holds no queue entries.
//! Leaves which records are applied to its owner.

use gantry_model::PhysicalOffset;
use gantry_record::RecordView;

use super::InspectError;
use crate::{
    apply,
    batch::Ends,
    change::{self, Change, Message},
    image::{self, Follower, ImageAt},
    log::survey::{Item, Survey},
    log_start,
    state::{self, Counters, StateEntry, StateError},
    tables::Tables,
    views::{
        Direction, MemoryViews, Step, View, ViewBatch, ViewError, ViewRead, ViewStore as _, layout,
    },
};

/// Entries that are copied with one batch.
const COPIED_AT_ONCE: usize = 4096;

/// State as of one position.
pub(super) struct Model {
    pub(super) tables: Tables,
    pub(super) views: MemoryViews,
    counters: Counters,
    batch: ViewBatch,
}

/// Why a record could not be applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Views(#[from] ViewError),
}

impl Model {
    /// No state at all: as of the begin of the log.
    pub(super) fn empty() -> Self {
        Self {
            tables: Tables::default(),
            views: MemoryViews::new(),
            counters: Counters::default(),
            batch: ViewBatch::new(),
        }
    }

    /// What views say, as of their applied position.
    pub(super) fn of_views(views: &dyn ViewRead) -> Result<Self, ViewError> {
        let mut model = Self::empty();
        for view in [View::Timer, View::Offset, View::Meta] {
            let mut outcome = Ok(());
            let (batch, copy) = (&mut model.batch, &model.views);
            views.scan(view, &[][..]..layout::END, Direction::Forward, &mut |key, value| {
                batch.put(view, key, value);
                if batch.len() >= COPIED_AT_ONCE {
                    outcome = copy.apply(batch);
                    batch.clear();
                }
                if outcome.is_ok() { Step::Next } else { Step::Stop }
            })?;
            outcome?;
            model.write()?;
        }
        model.settle()?;
        Ok(model)
    }

    /// What a complete image says, as of its position.
    pub(super) fn of_image(log: &Survey, image: &ImageAt) -> Result<Self, InspectError> {
        let mut model = Self::empty();
        let mut items = log.items(image.begin, image.end)?;
        while let Some(item) = items.next()? {
            let Item::Record(record) = item else { continue };
            if let Some((position, image::Piece::Part { state, .. })) = image::piece_of(&record)?
                && position == image.position
            {
                let state_at = record.position();
                let failed = |source| InspectError::State { position: state_at, source };
                for entry in state::decode(state).map_err(failed)? {
                    model.put(&entry)?;
                }
                model.write()?;
            }
        }
        model.settle()?;
        Ok(model)
    }

    fn settle(&mut self) -> Result<(), ViewError> {
        self.tables = Tables::load(&self.views)?;
        self.counters = self.tables.counters();
        Ok(())
    }

    /// Applies a record. On an error the model is as before.
    pub(super) fn apply(&mut self, record: &RecordView<'_>) -> Result<(), ApplyError> {
        let change = change::of_record(record, &self.tables.topics.read())?;
        match change {
            None => {}
            Some(Change::State(entries)) => {
                for entry in entries {
                    self.tables.apply(&entry, record.position());
                    self.put(&entry)?;
                    // A deletion looks for what it removes.
                    self.write()?;
                }
            }
            Some(Change::Message(message)) => self.put_message(&message),
            Some(Change::Dropped { ends }) => self.put_end(ends),
            Some(Change::LogStart(start)) => log_start::put(&mut self.batch, start),
        }
        Ok(self.write()?)
    }

    fn put(&mut self, entry: &StateEntry) -> Result<(), ViewError> {
        apply::put_state(&mut self.batch, &mut self.counters, entry, &self.views)
    }

    fn put_message(&mut self, message: &Message) {
        if let Some(offset) = message.offset {
            let next = gantry_model::QueueOffset(offset.0 + 1);
            apply::put_next(&mut self.batch, message.topic, message.queue, next);
        }
        if let Some(timer) = message.timer {
            apply::put_timer(&mut self.batch, timer);
        }
        self.put_end(message.ends);
    }

    fn put_end(&mut self, ends: Option<Ends>) {
        if let Some(Ends::Timer { due_ms, position }) = ends {
            self.batch.delete(View::Timer, &layout::timer_key(due_ms, position));
        }
    }

    fn write(&mut self) -> Result<(), ViewError> {
        self.views.apply(&self.batch)?;
        self.batch.clear();
        Ok(())
    }
}

/// The newest complete image of state before a position not behind `up_to`.
pub(super) fn newest_image(
    log: &Survey,
    up_to: PhysicalOffset,
) -> Result<Option<ImageAt>, InspectError> {
    let named = log.segments().iter().filter_map(|segment| segment.header?.newest_image);
    // Those that begin before the log does are gone; the newest may name one behind `up_to`.
    let mut from: Vec<_> = named.filter(|begin| *begin >= log.start()).collect();
    from.insert(0, log.start());
    from.dedup();
    while let Some(begin) = from.pop() {
        let newest = newest_image_from(log, begin, up_to)?;
        if newest.is_some() {
            return Ok(newest);
        }
    }
    Ok(None)
}

fn newest_image_from(
    log: &Survey,
    from: PhysicalOffset,
    up_to: PhysicalOffset,
) -> Result<Option<ImageAt>, InspectError> {
    let (mut follower, mut newest) = (Follower::default(), None);
    let mut items = log.items(from, log.end())?;
    while let Some(item) = items.next()? {
        if let Item::Record(record) = item {
            let complete = follower.follow(&record)?;
            newest = complete.filter(|image| image.position <= up_to).or(newest);
        }
    }
    Ok(newest)
}
