//! Views: ordered tables derived from the commit log, behind one small trait.
//! Invariant: a batch and the log position up to which it is applied become visible, and survive, together;
//! applying a record twice changes nothing.
//! Leaves the layout of keys and values to `layout` and the question what a record changes to `change`.

mod damage;
pub mod layout;
mod memory;
mod rocks;

use std::{ops::Range, path::Path, sync::Arc};

use gantry_model::PhysicalOffset;

pub use damage::ViewDamage;
pub use memory::MemoryViews;
pub use rocks::{RocksMemory, RocksViews};

use crate::options::StoreOptions;

/// The ordered tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Topic id, queue, queue offset → where the record is.
    Queue,
    /// Due time, log position → topic that a parked message waits for.
    Timer,
    /// Topic id, queue, group → next offset to consume.
    Offset,
    /// Topics, groups, counters, next offsets of queues, applied position.
    Meta,
}

impl View {
    /// Every view.
    pub const ALL: [Self; 4] = [Self::Queue, Self::Timer, Self::Offset, Self::Meta];

    /// Name of its column family.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Timer => "timer",
            Self::Offset => "offset",
            Self::Meta => "meta",
        }
    }
}

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Backward,
}

/// Whether a scan goes on after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// To the next entry.
    Next,
    /// No further.
    Stop,
}

/// Why a view could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The store below failed.
    #[error("{action} the views")]
    Store {
        /// What was tried: `read`, `write`, `flush`, `open`, `clear`.
        action: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no room on their disk: it works again, by itself, when there is.
    #[error("{action} the views: no room")]
    Full {
        /// What was tried: `write`, `flush`.
        action: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was read is not what was written. The views are made again at the next start.
    #[error("{action} the views: they are damaged")]
    Damaged {
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stored value cannot be one that was written.
    #[error("the {view} view holds a malformed entry at key {key:02x?}")]
    Malformed {
        /// Name of the view.
        view: &'static str,
        /// Key of the entry.
        key: Vec<u8>,
    },
    /// Log could not be synced, so nothing may be applied.
    #[error("sync the log before its records are applied")]
    Sync(#[source] crate::SyncError),
}

/// Receives the entries of a scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Step + 'a;

/// What can be read: the views as they are, or as they were when a snapshot was taken.
pub trait ViewRead {
    /// Value of `key`, if there is one.
    fn get(&self, view: View, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError>;

    /// Visits the entries whose keys are in `keys` (end excluded), in the direction's order.
    fn scan(
        &self,
        view: View,
        keys: Range<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ViewError>;

    /// Log position up to which records are applied; 0 in empty views.
    fn applied(&self) -> Result<PhysicalOffset, ViewError> {
        Ok(self.applied_as()?.position)
    }

    /// Log position up to which records are applied, and version of the layout.
    fn applied_as(&self) -> Result<layout::Applied, ViewError> {
        let value = self.get(View::Meta, layout::APPLIED)?;
        value.map_or(Ok(layout::Applied::default()), |value| layout::decode_applied(&value))
    }
}

/// Views at one moment: what a state image is written from.
pub type Snapshot<'a> = Box<dyn ViewRead + Send + 'a>;

/// One store of views. One thread writes; any number reads.
pub trait ViewStore: ViewRead + Send + Sync {
    /// Writes all of `batch`, or none of it. The batch carries the applied position.
    fn apply(&self, batch: &ViewBatch) -> Result<(), ViewError>;

    /// Makes all that is applied survive a crash.
    fn flush(&self) -> Result<(), ViewError>;

    /// Views as they are at this moment.
    fn snapshot(&self) -> Snapshot<'_>;

    /// Empties every view, for a rebuild from the log.
    fn clear(&self) -> Result<(), ViewError>;

    /// Scans as [`ViewRead::scan`] does, and keeps nothing of it in memory: for reading everything once.
    fn scan_once(
        &self,
        view: View,
        keys: Range<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), ViewError> {
        self.scan(view, keys, Direction::Forward, visit)
    }

    /// Damage that was found since the last call.
    fn take_damage(&self) -> Vec<ViewDamage> {
        Vec::new()
    }

    /// The damaged file, or the folder where it is not known, for which the next start makes the views again.
    fn damaged_file(&self) -> Option<&Path> {
        None
    }

    /// Records before `position` are gone: their entries may be dropped whenever it is convenient.
    fn note_log_start(&self, position: PhysicalOffset);

    /// Rough number of bytes in memory and on disk.
    fn size_bytes(&self) -> u64;
}

/// Opens the views of a store.
pub(crate) fn open(options: &StoreOptions) -> Result<Arc<dyn ViewStore>, ViewError> {
    let memory = RocksMemory {
        cache_bytes: options.view_cache_bytes,
        write_bytes: options.view_write_bytes,
    };
    Ok(Arc::new(RocksViews::open(&options.dir.join("views"), memory)?))
}

/// Opens the views in `dir` as they were flushed last, for reading alone: nothing in the folder changes.
pub(crate) fn open_for_reading(dir: &Path) -> Result<Box<dyn ViewRead + Send + Sync>, ViewError> {
    Ok(Box::new(RocksViews::open_for_reading(dir)?))
}

/// One step of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Sets a key.
    Put(View, &'a [u8], &'a [u8]),
    /// Removes a key.
    Delete(View, &'a [u8]),
    /// Removes all keys from the first up to, but without, the second.
    DeleteRange(View, &'a [u8], &'a [u8]),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Put,
    Delete,
    DeleteRange,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    kind: Kind,
    view: View,
    first: u32,
    second: u32,
}

/// Changes that become visible together. Keeps its memory when cleared.
#[derive(Debug, Default)]
pub struct ViewBatch {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

impl ViewBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets every step and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.slots.clear();
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Sets a key.
    pub fn put(&mut self, view: View, key: &[u8], value: &[u8]) {
        self.push(Kind::Put, view, key, value);
    }

    /// Removes a key.
    pub fn delete(&mut self, view: View, key: &[u8]) {
        self.push(Kind::Delete, view, key, &[]);
    }

    /// Removes the keys in `keys`, end excluded.
    pub fn delete_range(&mut self, view: View, keys: Range<&[u8]>) {
        self.push(Kind::DeleteRange, view, keys.start, keys.end);
    }

    /// Says up to which log position the batch applies.
    pub fn set_applied(&mut self, position: PhysicalOffset) {
        let applied = layout::Applied { position, version: layout::VERSION };
        self.put(View::Meta, layout::APPLIED, &layout::encode_applied(applied));
    }

    /// The steps in order.
    pub fn ops(&self) -> impl Iterator<Item = Op<'_>> {
        let mut start = 0;
        self.slots.iter().map(move |slot| {
            let (first, rest) = self.bytes[start..].split_at(slot.first as usize);
            let second = &rest[..slot.second as usize];
            start += first.len() + second.len();
            match slot.kind {
                Kind::Put => Op::Put(slot.view, first, second),
                Kind::Delete => Op::Delete(slot.view, first),
                Kind::DeleteRange => Op::DeleteRange(slot.view, first, second),
            }
        })
    }

    fn push(&mut self, kind: Kind, view: View, first: &[u8], second: &[u8]) {
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
        let (first, second) = (first.len() as u32, second.len() as u32);
        self.slots.push(Slot { kind, view, first, second });
    }
}

/// Every entry of every view as text, one a line, for comparing views in tests and tools.
/// The applied position is left out: it may differ between views that are otherwise equal, and so may which entries are
/// in one run. A queue's entry is its topic, queue, offset, position, size, hash of the tag and time.
pub fn dump(views: &dyn ViewRead) -> Result<Vec<String>, ViewError> {
    let mut lines = Vec::new();
    for view in View::ALL {
        views.scan(view, &[][..]..layout::END, Direction::Forward, &mut |key, value| {
            match view {
                // However they were put together, and only once.
                View::Queue => lines.extend(dump_run(key, value)),
                View::Meta if key == layout::APPLIED => {}
                _ => lines.push(format!("{} {key:02x?} {value:02x?}", view.name())),
            }
            Step::Next
        })?;
    }
    lines.sort();
    lines.dedup();
    Ok(lines)
}

fn dump_run(key: &[u8], value: &[u8]) -> Vec<String> {
    match layout::Run::decode(key, value) {
        Ok(run) => run
            .from(0)
            .map(|(offset, entry)| {
                let layout::Entry { position, size, tag_hash, store_time_ms } = entry;
                let place = format!("{} {} {offset} {position}", run.topic, run.queue);
                format!("queue {place} {size} {tag_hash} {store_time_ms}")
            })
            .collect(),
        Err(error) => vec![error.to_string()],
    }
}
