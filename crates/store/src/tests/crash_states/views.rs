//! Views in memory that remember what they held after each batch and each flush.
//! Invariant: a point says how many changes of the disk had been made when it was taken.
//! Leaves the views themselves to `MemoryViews`.

use std::{ops::Range, sync::Arc};

use gantry_model::PhysicalOffset;
use parking_lot::Mutex;

use crate::{
    ViewError,
    log::memory_files::MemoryFiles,
    views::{Direction, MemoryViews, Snapshot, View, ViewBatch, ViewRead, ViewStore, Visit},
};

/// What the views held at one moment.
pub(super) struct Point {
    changes: usize,
    is_flushed: bool,
    views: MemoryViews,
}

pub(super) struct RecordedViews {
    disk: MemoryFiles,
    views: MemoryViews,
    points: Mutex<Vec<Arc<Point>>>,
}

impl RecordedViews {
    pub(super) fn new(disk: MemoryFiles) -> Self {
        Self { disk, views: MemoryViews::new(), points: Mutex::default() }
    }

    fn note(&self, is_flushed: bool) {
        let point = Point { changes: self.disk.changes(), is_flushed, views: self.views.settled() };
        self.points.lock().push(Arc::new(point));
    }

    /// Views that a crash after `changes` changes may leave, with a name for each: none at all, the first and the last
    /// ones that were flushed, and, since a store on disk flushes also when it likes, what was applied since.
    pub(super) fn after(&self, changes: usize) -> Vec<(String, MemoryViews)> {
        let points = self.points.lock();
        let points = &points[..points.partition_point(|point| point.changes <= changes)];
        let flushed = |at: &usize| points[*at].is_flushed;
        let first = (0..points.len()).find(flushed);
        let last = (0..points.len()).rfind(flushed);
        let since = last.map_or(0, |last| last + 1)..points.len();
        let middle = (!since.is_empty()).then(|| since.start + since.len() / 2);
        let mut wanted: Vec<_> =
            [first, last, middle, since.last()].into_iter().flatten().collect();
        wanted.dedup();
        let named =
            wanted.into_iter().map(|at| (format!("views {at}"), points[at].views.settled()));
        std::iter::once(("no views".to_owned(), MemoryViews::new())).chain(named).collect()
    }
}

impl ViewRead for RecordedViews {
    fn get(&self, view: View, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        self.views.get(view, key)
    }

    fn scan(
        &self,
        view: View,
        keys: Range<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ViewError> {
        self.views.scan(view, keys, direction, visit)
    }
}

impl ViewStore for RecordedViews {
    fn apply(&self, batch: &ViewBatch) -> Result<(), ViewError> {
        self.views.apply(batch)?;
        self.note(false);
        Ok(())
    }

    fn flush(&self) -> Result<(), ViewError> {
        self.views.flush()?;
        self.note(true);
        Ok(())
    }

    fn snapshot(&self) -> Snapshot<'_> {
        self.views.snapshot()
    }

    fn clear(&self) -> Result<(), ViewError> {
        self.views.clear()
    }

    fn note_log_start(&self, position: PhysicalOffset) {
        self.views.note_log_start(position);
    }

    fn size_bytes(&self) -> u64 {
        self.views.size_bytes()
    }
}
