//! A disk in memory that can fail and crash, for tests and for the simulator.
//! Invariant: after `crash` a file holds what was synced, and of the rest any subset of sectors, as the seed chooses;
//! a name that was not synced with its folder may be as before. A failed sync drops what it should have written.
//! Knows nothing of logs.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::files::{Files, LogFile, WriteFailure};

/// Smallest piece of a write that a crash keeps or loses as a whole, in bytes.
const SECTOR_BYTES: u64 = 512;

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

#[derive(Clone)]
enum Pending {
    Write { at: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

impl Content {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }
}

impl Pending {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(bytes) => to.resize(*bytes as usize, 0),
            Self::Write { at, bytes } => put(to, *at as usize, bytes),
        }
    }
}

fn put(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if to.len() < at + bytes.len() {
        to.resize(at + bytes.len(), 0);
    }
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

type Names = BTreeMap<PathBuf, usize>;

#[derive(Default)]
struct State {
    names: Names,
    /// Every state of the names since the folders were last synced, the synced one first.
    names_before: Vec<Names>,
    contents: Vec<Content>,
    faults: Vec<Fault>,
    asked: Vec<Asked>,
    free_space: Option<u64>,
    is_cold: bool,
}

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

    /// What `free_space` answers from here on.
    pub fn set_free_space(&self, bytes: u64) {
        self.0.lock().free_space = Some(bytes);
    }

    /// All operations so far, oldest first.
    pub fn asked(&self) -> Vec<Asked> {
        self.0.lock().asked.clone()
    }

    /// A file's bytes as a reader sees them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        state.names.get(path).map(|id| state.contents[*id].seen.clone())
    }

    /// Whether reads have to wait, as when the system has nothing in memory.
    pub fn set_cold(&self, is_cold: bool) {
        self.0.lock().is_cold = is_cold;
    }

    /// Changes a file behind the store's back, as rot does: also in what was synced.
    pub fn damage(&self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let state = &mut *self.0.lock();
        if let Some(id) = state.names.get(path) {
            let content = &mut state.contents[*id];
            content.sync();
            change(&mut content.seen);
            content.durable = content.seen.clone();
        }
    }

    /// An independent copy, with everything synced.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.0.lock();
        let contents = state
            .contents
            .iter()
            .map(|c| Content { seen: c.seen.clone(), durable: c.seen.clone(), pending: Vec::new() })
            .collect();
        Self(Arc::new(Mutex::new(State {
            names: state.names.clone(),
            names_before: vec![state.names.clone()],
            contents,
            free_space: state.free_space,
            ..State::default()
        })))
    }

    /// The disk as it may be found after the power failed now. `seed` chooses what is kept of the unsynced.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let state = self.0.lock();
        let mut dice = Dice::new(seed);
        let mut names = state.names_before.clone();
        names.push(state.names.clone());
        let names = names.swap_remove(dice.below(names.len() as u64) as usize);
        let contents = state
            .contents
            .iter()
            .map(|content| {
                let mut durable = content.durable.clone();
                for change in &content.pending {
                    crash_change(change, &mut durable, &mut dice);
                }
                Content { seen: durable.clone(), durable, pending: Vec::new() }
            })
            .collect();
        Self(Arc::new(Mutex::new(State {
            names_before: vec![names.clone()],
            names,
            contents,
            free_space: state.free_space,
            ..State::default()
        })))
    }
}

/// Keeps any of the sectors that the change touched; most crashes keep all or none.
fn crash_change(change: &Pending, durable: &mut Vec<u8>, dice: &mut Dice) {
    let mood = dice.below(4);
    match change {
        Pending::Length(_) if mood == 0 => {}
        Pending::Length(_) => change.apply(durable),
        Pending::Write { at, bytes } => {
            let mut from = 0;
            while from < bytes.len() {
                let sector_end = (*at + from as u64) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
                let to = bytes.len().min((sector_end - *at) as usize);
                let is_kept = match mood {
                    0 => false,
                    1 => true,
                    _ => dice.below(2) == 0,
                };
                if is_kept {
                    put(durable, *at as usize + from, &bytes[from..to]);
                }
                from = to;
            }
        }
    }
}

/// A small generator of repeatable choices (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
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

    fn id(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename_with(&mut self, change: impl FnOnce(&mut Names)) {
        self.names_before.push(self.names.clone());
        change(&mut self.names);
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
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.contents.len();
        state.contents.push(Content::default());
        state.rename_with(|names| _ = names.insert(path.to_owned(), id));
        Ok(Arc::new(MemoryFile { disk: self.clone(), path: path.to_owned(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.ask(Operation::Rename, from, 0).map_err(|f| f.error())?;
        let id = state.id(from)?;
        state.rename_with(|names| {
            names.remove(from);
            names.insert(to.to_owned(), id);
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.ask(Operation::Remove, path, 0).map_err(|f| f.error())?;
        state.id(path)?;
        state.rename_with(|names| _ = names.remove(path));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.ask(Operation::SyncDir, dir, 0).map_err(|f| f.error())?;
        state.names_before.clear();
        Ok(())
    }

    fn free_space(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.lock().free_space.unwrap_or(1 << 50))
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
        let seen = &state.contents[self.id].seen;
        let from = seen.len().min(at as usize);
        let count = out.len().min(seen.len() - from);
        out[..count].copy_from_slice(&seen[from..from + count]);
        Ok(count)
    }

    fn read_at_hand(&self, out: &mut [u8], at: u64) -> io::Result<bool> {
        let is_cold = self.disk.0.lock().is_cold;
        Ok(!is_cold && self.read_at(out, at)? == out.len())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), WriteFailure> {
        let state = &mut *self.disk.0.lock();
        let fault = state.ask(Operation::Write, &self.path, bytes.len() as u64).err();
        let written = fault.as_ref().map_or(bytes.len(), |f| f.written.min(bytes.len()));
        let content = &mut state.contents[self.id];
        let change = Pending::Write { at, bytes: bytes[..written].to_vec() };
        change.apply(&mut content.seen);
        content.pending.push(change);
        match fault {
            None => Ok(()),
            Some(fault) => Err(WriteFailure { written, source: fault.error() }),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.disk.0.lock();
        let outcome = state.ask(Operation::Sync, &self.path, 0).map_err(|f| f.error());
        let content = &mut state.contents[self.id];
        match &outcome {
            Ok(()) => content.sync(),
            // As Linux does it: the pages count as clean from here on, and no later sync writes them.
            Err(_) => content.pending.clear(),
        }
        outcome
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().contents[self.id].seen.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let state = &mut *self.disk.0.lock();
        state.ask(Operation::Resize, &self.path, bytes).map_err(|f| f.error())?;
        let content = &mut state.contents[self.id];
        Pending::Length(bytes).apply(&mut content.seen);
        content.pending.push(Pending::Length(bytes));
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.max(self.len()?);
        self.set_len(bytes)
    }
}
