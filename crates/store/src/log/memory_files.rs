//! A disk in memory that can fail and crash, for tests and for the simulator.
//! Invariant: after `crash` a file holds what was synced, and of the rest any subset of sectors, as the seed chooses;
//! a name that was not synced with its folder may be as before. A failed sync drops what it should have written.
//! Knows nothing of logs; leaves to `crash_states` which states a crash may leave.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    crash_states::{Dice, SECTOR_BYTES},
    files::{Files, LogFile, WriteFailure},
};

/// What a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading bytes of a file.
    Read,
    /// Writing bytes of a file.
    Write,
    /// Syncing a file.
    Sync,
    /// Making a file.
    Create,
    /// Reserving space or setting a length.
    Resize,
    /// Naming a file anew.
    Rename,
    /// Removing a file.
    Remove,
    /// Syncing a folder.
    SyncDir,
}

/// One operation that was asked for, whether it worked or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its kind.
    pub operation: Operation,
    /// File or folder.
    pub path: PathBuf,
    /// Bytes written or read, or the new length.
    pub bytes: u64,
}

struct Fault {
    operation: Operation,
    /// How many of these operations succeed before.
    spared: usize,
    kind: io::ErrorKind,
    /// Bytes that a struck write still puts into the file.
    written: usize,
}

/// A change of a file that is not synced.
pub(super) enum Pending {
    Write { at: u64, bytes: Vec<u8> },
    Length(u64),
}

/// A change of a folder that is not synced.
#[derive(Clone)]
pub(super) enum NameChange {
    Create { path: PathBuf, id: usize },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

/// What a file holds. Copies share what has not changed since.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) seen: Arc<Vec<u8>>,
    pub(super) durable: Arc<Vec<u8>>,
    pub(super) pending: Vec<Arc<Pending>>,
}

impl Content {
    /// A file of which all is on disk.
    pub(super) fn synced(bytes: Arc<Vec<u8>>) -> Self {
        Self { seen: bytes.clone(), durable: bytes, pending: Vec::new() }
    }

    fn change(&mut self, change: Pending) {
        change.apply(Arc::make_mut(&mut self.seen));
        self.pending.push(Arc::new(change));
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(Arc::make_mut(&mut self.durable));
        }
    }
}

impl Pending {
    pub(super) fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(bytes) => to.resize(*bytes as usize, 0),
            Self::Write { at, bytes } => put(to, *at as usize, bytes),
        }
    }
}

impl NameChange {
    /// Does nothing when the name that it changes is not there, because the change that made it is lost.
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::Create { path, id } => _ = names.insert(path.clone(), *id),
            Self::Remove { path } => _ = names.remove(path),
            Self::Rename { from, to } => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Create { path, .. } | Self::Rename { to: path, .. } | Self::Remove { path }) =
            self;
        path.parent() == Some(dir)
    }
}

pub(super) fn put(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if to.len() < at + bytes.len() {
        to.resize(at + bytes.len(), 0);
    }
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(super) type Names = BTreeMap<PathBuf, usize>;

/// The disk at one moment: what is seen, what is durable, and what lies between the two.
#[derive(Clone, Default)]
pub(super) struct Image {
    names: Names,
    pub(super) durable_names: Names,
    pub(super) name_changes: Vec<NameChange>,
    pub(super) contents: Vec<Content>,
}

impl Image {
    /// A disk on which all is synced.
    pub(super) fn synced(names: Names, contents: Vec<Content>) -> Self {
        Self { durable_names: names.clone(), names, name_changes: Vec::new(), contents }
    }

    fn rename_with(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn sync_dir(&mut self, dir: &Path) {
        let durable_names = &mut self.durable_names;
        self.name_changes.retain(|change| {
            let is_synced = change.is_in(dir);
            if is_synced {
                change.apply(durable_names);
            }
            !is_synced
        });
    }
}

#[derive(Default)]
struct State {
    image: Image,
    faults: Vec<Fault>,
    /// Bytes that cannot be read.
    spoiled: Option<(PathBuf, Range<u64>)>,
    asked: Vec<Asked>,
    capacity: Option<u64>,
    cache: Cache,
    /// The disk after each change since recording began.
    stops: Option<Vec<Image>>,
    watcher: Option<Watcher>,
}

/// What of the disk the system has in memory, as far as readers see.
#[derive(Default)]
enum Cache {
    #[default]
    Everything,
    Nothing,
    /// What was asked for before: file and begin.
    Asked(HashSet<(PathBuf, u64)>),
}

/// Is told of each change to come how many were made before it.
type Watcher = Box<dyn FnMut(usize) + Send>;

/// The disk. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryFiles(Arc<Mutex<State>>);

impl MemoryFiles {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the operation that comes after `spared` others of its kind fail, once.
    pub fn fail(&self, operation: Operation, spared: usize, kind: io::ErrorKind) {
        self.fail_write_after(operation, spared, kind, 0);
    }

    /// As `fail`; a struck write puts `written` bytes into the file before.
    pub fn fail_write_after(
        &self,
        operation: Operation,
        spared: usize,
        kind: io::ErrorKind,
        written: usize,
    ) {
        self.0.lock().faults.push(Fault { operation, spared, kind, written });
    }

    /// Lets every read fail that touches those bytes of a file, as a bad sector does, until there is another range.
    pub fn spoil(&self, path: &Path, bytes: Range<u64>) {
        self.0.lock().spoiled = Some((path.to_owned(), bytes));
    }

    /// Bytes that all files may take from here on. Those that are there stay, and so does a length without a place.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity = Some(bytes);
    }

    /// Bytes that all files take.
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// All operations so far, oldest first.
    pub fn asked(&self) -> Vec<Asked> {
        self.0.lock().asked.clone()
    }

    /// Keeps the disk as it is from here on after each change, for `stop`.
    pub fn record(&self) {
        let state = &mut *self.0.lock();
        state.stops = Some(vec![state.image.clone()]);
    }

    /// Number of changes since recording began: the last one that `stop` knows.
    pub fn changes(&self) -> usize {
        self.0.lock().stops.as_ref().map_or(0, |stops| stops.len() - 1)
    }

    /// Calls `watcher` right before each change, with the number of changes since recording began. It must not use
    /// the disk.
    #[cfg(test)]
    pub(crate) fn watch(&self, watcher: impl FnMut(usize) + Send + 'static) {
        self.0.lock().watcher = Some(Box::new(watcher));
    }

    /// The disk as it was after the first `changes` changes.
    pub(super) fn image_after(&self, changes: usize) -> Option<Image> {
        self.0.lock().stops.as_ref()?.get(changes).cloned()
    }

    /// What `look` finds in the disk as it is.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        look(&self.0.lock().image)
    }

    /// A disk that is as `image` says.
    pub(super) fn of(image: Image) -> Self {
        Self(Arc::new(Mutex::new(State { image, ..State::default() })))
    }

    /// A file's bytes as a reader sees them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let id = state.image.names.get(path)?;
        Some(state.image.contents[*id].seen.to_vec())
    }

    /// Every file that a reader sees.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().image.names.keys().cloned().collect()
    }

    /// Whether reads have to wait, as when the system has nothing in memory.
    pub fn set_cold(&self, is_cold: bool) {
        self.0.lock().cache = if is_cold { Cache::Nothing } else { Cache::Everything };
    }

    /// From now on a read has to wait the first time, and finds it in memory the next: the system reads ahead what it
    /// was asked for.
    pub fn set_reading_ahead(&self) {
        self.0.lock().cache = Cache::Asked(HashSet::new());
    }

    /// Changes a file behind the store's back, as rot does: also in what was synced.
    pub fn damage(&self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let state = &mut *self.0.lock();
        if let Some(id) = state.image.names.get(path) {
            let mut bytes = state.image.contents[*id].seen.to_vec();
            change(&mut bytes);
            state.image.contents[*id] = Content::synced(Arc::new(bytes));
        }
    }

    /// An independent copy, with everything synced.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.0.lock();
        let contents = state.image.contents.iter().map(|c| Content::synced(c.seen.clone()));
        let image = Image::synced(state.image.names.clone(), contents.collect());
        let copy = State { image, capacity: state.capacity, ..State::default() };
        Self(Arc::new(Mutex::new(copy)))
    }

    /// The disk as it may be found after the power failed now. `seed` chooses what is kept of the unsynced.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let state = self.0.lock();
        let image = state.image.crash(&mut Dice::new(seed));
        let crashed = State { image, capacity: state.capacity, ..State::default() };
        Self(Arc::new(Mutex::new(crashed)))
    }
}

impl State {
    /// Notes the operation and gives the fault that strikes it, if one does.
    fn ask(&mut self, operation: Operation, path: &Path, bytes: u64) -> Result<(), Fault> {
        self.asked.push(Asked { operation, path: path.to_owned(), bytes });
        let Some(at) = self.faults.iter().position(|f| f.operation == operation) else {
            return Ok(());
        };
        if self.faults[at].spared > 0 {
            self.faults[at].spared -= 1;
            return Ok(());
        }
        Err(self.faults.remove(at))
    }

    fn used(&self) -> u64 {
        self.image.names.values().map(|id| self.image.contents[*id].seen.len() as u64).sum()
    }

    fn free_space(&self) -> u64 {
        self.capacity.map_or(1 << 50, |capacity| capacity.saturating_sub(self.used()))
    }

    fn id(&self, path: &Path) -> io::Result<usize> {
        self.image.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename_with(&mut self, change: NameChange) {
        self.image.rename_with(change);
        self.note_change();
    }

    /// Changes a file.
    fn change(&mut self, id: usize, change: impl FnOnce(&mut Content)) {
        change(&mut self.image.contents[id]);
        self.note_change();
    }

    fn note_change(&mut self) {
        if let Some(stops) = &mut self.stops {
            if let Some(watcher) = &mut self.watcher {
                watcher(stops.len() - 1);
            }
            stops.push(self.image.clone());
        }
    }
}

impl Fault {
    fn error(&self) -> io::Error {
        io::Error::from(self.kind)
    }
}

impl Files for MemoryFiles {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let id = self.0.lock().id(path)?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), path: path.to_owned(), id }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let state = &mut *self.0.lock();
        state.ask(Operation::Create, path, 0).map_err(|f| f.error())?;
        if state.image.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.image.contents.len();
        state.image.contents.push(Content::default());
        state.rename_with(NameChange::Create { path: path.to_owned(), id });
        Ok(Arc::new(MemoryFile { disk: self.clone(), path: path.to_owned(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.ask(Operation::Rename, from, 0).map_err(|f| f.error())?;
        state.id(from)?;
        state.rename_with(NameChange::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.ask(Operation::Remove, path, 0).map_err(|f| f.error())?;
        state.id(path)?;
        state.rename_with(NameChange::Remove { path: path.to_owned() });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.image.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.ask(Operation::SyncDir, dir, 0).map_err(|f| f.error())?;
        state.image.sync_dir(dir);
        state.note_change();
        Ok(())
    }

    fn free_space(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.lock().free_space())
    }
}

struct MemoryFile {
    disk: MemoryFiles,
    path: PathBuf,
    id: usize,
}

impl LogFile for MemoryFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        let state = &mut *self.disk.0.lock();
        state.ask(Operation::Read, &self.path, out.len() as u64).map_err(|f| f.error())?;
        if let Some((path, bytes)) = &state.spoiled
            && *path == self.path
            && at < bytes.end
            && at + out.len() as u64 > bytes.start
        {
            return Err(io::Error::other("bad sector"));
        }
        let seen = &state.image.contents[self.id].seen;
        let from = seen.len().min(at as usize);
        let count = out.len().min(seen.len() - from);
        out[..count].copy_from_slice(&seen[from..from + count]);
        Ok(count)
    }

    fn read_at_hand(&self, out: &mut [u8], at: u64) -> io::Result<bool> {
        let is_there = match &mut self.disk.0.lock().cache {
            Cache::Everything => true,
            Cache::Nothing => false,
            Cache::Asked(asked) => !asked.insert((self.path.clone(), at)),
        };
        Ok(is_there && self.read_at(out, at)? == out.len())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), WriteFailure> {
        let state = &mut *self.disk.0.lock();
        let fault = state.ask(Operation::Write, &self.path, bytes.len() as u64).err();
        let written = fault.as_ref().map_or(bytes.len(), |f| f.written.min(bytes.len()));
        let change = Pending::Write { at, bytes: bytes[..written].to_vec() };
        state.change(self.id, |content| content.change(change));
        match fault {
            None => Ok(()),
            Some(fault) => Err(WriteFailure { written, source: fault.error() }),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.disk.0.lock();
        let outcome = state.ask(Operation::Sync, &self.path, 0).map_err(|f| f.error());
        state.change(self.id, |content| match &outcome {
            Ok(()) => content.sync(),
            // As Linux does it: the pages count as clean from here on, and no later sync writes them.
            Err(_) => content.pending.clear(),
        });
        outcome
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().image.contents[self.id].seen.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let state = &mut *self.disk.0.lock();
        state.ask(Operation::Resize, &self.path, bytes).map_err(|f| f.error())?;
        state.change(self.id, |content| content.change(Pending::Length(bytes)));
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.max(self.len()?);
        if bytes - self.len()? > self.disk.0.lock().free_space() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.set_len(bytes)
    }

    fn block_bytes(&self) -> u64 {
        SECTOR_BYTES
    }
}
