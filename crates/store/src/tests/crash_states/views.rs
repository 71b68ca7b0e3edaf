//! The moments of views in memory: what they held after each batch and each flush.
//! Invariant: a moment says how many changes of the disk had been made when it came.
//! Leaves the views themselves to `MemoryViews`.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{log::memory_files::MemoryFiles, views::MemoryViews};

/// What the views held at one moment.
struct Moment {
    changes: usize,
    is_flushed: bool,
    views: MemoryViews,
}

/// Every moment so far.
#[derive(Default)]
pub(super) struct Moments(Arc<Mutex<Vec<Moment>>>);

impl Moments {
    /// Notes the moments of `views` from here on, counted in changes of `disk`.
    pub(super) fn watch(views: &MemoryViews, disk: &MemoryFiles) -> Self {
        let moments = Self::default();
        let (noted, disk) = (Arc::clone(&moments.0), disk.clone());
        views.watch(move |views, is_flushed| {
            let (changes, views) = (disk.changes(), views.settled());
            noted.lock().push(Moment { changes, is_flushed, views });
        });
        moments
    }

    /// Moments at which views may have been left by a crash after `changes` changes; `None`: there are no views.
    ///
    /// Views are left as the last flush saw them, or, since a store on disk flushes also when it likes, with some of
    /// what was applied since. Any earlier flush stands for a folder that was copied then; `choice` says which.
    pub(super) fn after(&self, changes: usize, choice: u64) -> Vec<Option<usize>> {
        let moments = self.0.lock();
        let count = moments.partition_point(|moment| moment.changes <= changes);
        let flushed: Vec<_> = (0..count).filter(|at| moments[*at].is_flushed).collect();
        let since = flushed.last().map_or(0, |last| last + 1)..count;
        let middle = (!since.is_empty()).then(|| since.start + since.len() / 2);
        let earlier = flushed.get(choice as usize % flushed.len().max(1));
        let wanted = [earlier.copied(), flushed.last().copied(), middle, since.last()];
        let mut wanted: Vec<_> =
            std::iter::once(None).chain(wanted.into_iter().flatten().map(Some)).collect();
        wanted.dedup();
        wanted
    }

    /// The views as they were at a moment.
    pub(super) fn views_at(&self, moment: Option<usize>) -> MemoryViews {
        moment.map_or_else(MemoryViews::new, |at| self.0.lock()[at].views.settled())
    }

    /// Every flush that came within the first `changes` changes.
    pub(super) fn flushes(&self, changes: usize) -> Vec<usize> {
        let moments = self.0.lock();
        let flushes = moments.iter().enumerate();
        flushes.filter(|(_, m)| m.is_flushed && m.changes <= changes).map(|(at, _)| at).collect()
    }
}
