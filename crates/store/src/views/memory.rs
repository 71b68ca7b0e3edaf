//! Views in memory: ordered maps with explicit flush points, for simulation and crash-state tests.
//! Invariant: a crash leaves exactly what the last flush saw, as with the store on disk.
//! Leaves speed to the other implementation.

use std::{
    collections::BTreeMap,
    io,
    ops::{Bound, Range},
};

use gantry_model::PhysicalOffset;
use parking_lot::{Mutex, RwLock};

use super::{
    Direction, Op, Snapshot, Step, View, ViewBatch, ViewError, ViewRead, ViewStore, Visit,
};

type Table = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone, Default)]
struct Tables {
    tables: [Table; View::ALL.len()],
}

impl Tables {
    fn of(&self, view: View) -> &Table {
        &self.tables[view as usize]
    }

    fn apply(&mut self, op: Op<'_>) {
        match op {
            Op::Put(view, key, value) => {
                self.tables[view as usize].insert(key.to_vec(), value.to_vec());
            }
            Op::Delete(view, key) => {
                self.tables[view as usize].remove(key);
            }
            Op::DeleteRange(view, from, to) => {
                self.tables[view as usize].retain(|key, _| !(from..to).contains(&key.as_slice()));
            }
        }
    }
}

/// Views that live in memory.
#[derive(Debug, Default)]
pub struct MemoryViews {
    live: RwLock<Tables>,
    flushed: RwLock<Tables>,
    /// What the next so many writes and flushes fail of.
    fault: Mutex<Option<(usize, io::ErrorKind)>>,
    #[cfg(test)]
    watcher: watch::Watcher,
}

impl MemoryViews {
    /// Empty views.
    pub fn new() -> Self {
        Self::default()
    }

    /// The views as they are, as if they were flushed.
    #[must_use]
    pub fn settled(&self) -> Self {
        let live = self.live.read().clone();
        Self { live: RwLock::new(live.clone()), flushed: RwLock::new(live), ..Self::default() }
    }

    /// The views that a crash at this moment would leave.
    #[must_use]
    pub fn after_crash(&self) -> Self {
        let flushed = self.flushed.read().clone();
        Self {
            live: RwLock::new(flushed.clone()),
            flushed: RwLock::new(flushed),
            ..Self::default()
        }
    }

    /// Lets the next `times` writes and flushes fail; 0 ends it.
    pub fn fail(&self, times: usize, kind: io::ErrorKind) {
        *self.fault.lock() = (times > 0).then_some((times, kind));
    }

    fn ask(&self, action: &'static str) -> Result<(), ViewError> {
        let mut fault = self.fault.lock();
        let Some((times, kind)) = *fault else { return Ok(()) };
        *fault = (times > 1).then(|| (times - 1, kind));
        let source = Box::new(io::Error::from(kind));
        if kind == io::ErrorKind::StorageFull {
            return Err(ViewError::Full { action, source });
        }
        Err(ViewError::Store { action, source })
    }
}

impl ViewRead for Tables {
    fn get(&self, view: View, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        Ok(self.of(view).get(key).cloned())
    }

    fn scan(
        &self,
        view: View,
        keys: Range<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ViewError> {
        if keys.start >= keys.end {
            return Ok(());
        }
        let bounds = (Bound::Included(keys.start), Bound::Excluded(keys.end));
        let mut entries = self.of(view).range::<[u8], _>(bounds);
        loop {
            let entry = match direction {
                Direction::Forward => entries.next(),
                Direction::Backward => entries.next_back(),
            };
            match entry {
                Some((key, value)) if visit(key, value) == Step::Next => {}
                _ => return Ok(()),
            }
        }
    }
}

impl ViewRead for MemoryViews {
    fn get(&self, view: View, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        self.live.read().get(view, key)
    }

    fn scan(
        &self,
        view: View,
        keys: Range<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ViewError> {
        self.live.read().scan(view, keys, direction, visit)
    }
}

impl ViewStore for MemoryViews {
    fn apply(&self, batch: &ViewBatch) -> Result<(), ViewError> {
        self.ask("write")?;
        let mut live = self.live.write();
        batch.ops().for_each(|op| live.apply(op));
        drop(live);
        #[cfg(test)]
        self.watcher.tell(self, false);
        Ok(())
    }

    fn flush(&self) -> Result<(), ViewError> {
        self.ask("flush")?;
        *self.flushed.write() = self.live.read().clone();
        #[cfg(test)]
        self.watcher.tell(self, true);
        Ok(())
    }

    fn snapshot(&self) -> Snapshot<'_> {
        Box::new(self.live.read().clone())
    }

    fn clear(&self) -> Result<(), ViewError> {
        *self.live.write() = Tables::default();
        *self.flushed.write() = Tables::default();
        Ok(())
    }

    fn note_log_start(&self, _position: PhysicalOffset) {
        // Readers ignore such entries, and a simulation is over before they matter.
    }

    fn size_bytes(&self) -> u64 {
        let live = self.live.read();
        let entries = live.tables.iter().flatten();
        entries.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

#[cfg(test)]
mod watch {
    use std::{fmt, sync::OnceLock};

    use super::MemoryViews;

    type Watch = Box<dyn Fn(&MemoryViews, bool) + Send + Sync>;

    /// Who looks on, if anybody does.
    #[derive(Default)]
    pub(super) struct Watcher(OnceLock<Watch>);

    impl fmt::Debug for Watcher {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_tuple("Watcher").field(&self.0.get().is_some()).finish()
        }
    }

    impl Watcher {
        pub(super) fn tell(&self, views: &MemoryViews, is_flushed: bool) {
            if let Some(watch) = self.0.get() {
                watch(views, is_flushed);
            }
        }
    }

    impl MemoryViews {
        /// Calls `watch` after each batch with false and after each flush with true; the first one given does it.
        pub(crate) fn watch(&self, watch: impl Fn(&Self, bool) + Send + Sync + 'static) {
            let _ = self.watcher.0.set(Box::new(watch));
        }
    }
}
