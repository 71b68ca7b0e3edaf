//! Key index: where the messages with a key or unique id are, by hash.
//! Invariant: every record that was added, and lies in no gap, is found; a hit may be a stranger with the same hash.
//! Memory is bounded: entries gather for 64 MiB of log, then become one immutable sorted file, of synced records alone.
//! Leaves hashing, and the check of hits against records, to its callers.

mod file;
mod skipped;
mod waiting;

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_model::PhysicalOffset;
use parking_lot::{Mutex, RwLock};

use crate::log::files::Files;

pub(crate) use file::{BLOCK_BYTES, KeyFile, range_of_name};
use file::{file_name, write_file};
pub use skipped::KeyGap;
use skipped::Skipped;
pub(crate) use waiting::KeysWaiting;

/// Bytes of log whose entries one file holds.
const FILE_LOG_BYTES: u64 = 64 * 1024 * 1024;
/// Longest part of the log that is read again at a start for the sake of this index, in bytes.
const REPLAY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One key of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyEntry {
    /// Hash of topic and key.
    pub hash: u64,
    /// Where the record is.
    pub position: PhysicalOffset,
}

/// A place in the files of the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyPlace {
    /// In the file that covers it; where a file begins, in that file from its begin on.
    pub position: PhysicalOffset,
    /// Block of that file.
    pub block: u64,
}

/// Why the key index could not do something. It stays usable.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct KeyError {
    /// What was attempted.
    pub action: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

fn at<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> KeyError + use<'a> {
    move |source| KeyError { action, path: path.to_owned(), source }
}

/// Entries that are in no file yet, of one range of the log, ordered by position.
#[derive(Debug, Default)]
struct Memory {
    from: u64,
    to: u64,
    entries: Vec<KeyEntry>,
}

impl Memory {
    /// Number of entries of records before `end`.
    fn before(&self, end: PhysicalOffset) -> usize {
        self.entries.partition_point(|entry| entry.position < end)
    }

    fn give_up_if_full(&mut self, entries_max: usize) {
        if self.entries.len() >= entries_max {
            // The disk refuses files: better a gap that is filled later than memory without bound.
            *self = Self { from: self.to, to: self.to, entries: Vec::new() };
        }
    }
}

struct State {
    /// Ordered by position, without overlap.
    files: Vec<Arc<KeyFile>>,
    memory: Memory,
    /// The file whose entries were read back into memory, to be removed when a longer one takes its place.
    read_back: Option<Arc<KeyFile>>,
    skipped: Skipped,
}

/// The index. One thread adds, any number looks up.
pub struct KeyIndex {
    dir: PathBuf,
    files: Arc<dyn Files>,
    /// Entries at which a file is due earlier than by the log's bytes: a third of the memory, since they are copied to
    /// be sorted, and whoever fills a gap may hold as many. At twice as many, when files cannot be written, they are
    /// given up; what they covered becomes a gap.
    file_entries: usize,
    state: RwLock<State>,
    /// Held while files are made or removed.
    change: Mutex<()>,
    /// Files that turned out to be broken and were given up, until somebody asks.
    broken: Mutex<Vec<PathBuf>>,
}

impl std::fmt::Debug for KeyIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyIndex").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl KeyIndex {
    /// Opens the index in `dir`. Files that are broken are removed: their range is a gap then.
    ///
    /// `applied` is the position from which the log will be replayed anyway; if the newest file ends much earlier, what
    /// is between becomes a gap instead of a longer replay. `memory_bytes` is for entries that are in no file yet.
    pub fn open(
        dir: &Path,
        files: Arc<dyn Files>,
        applied: PhysicalOffset,
        memory_bytes: usize,
    ) -> Result<Self, KeyError> {
        let file_entries = (memory_bytes / 3 / size_of::<KeyEntry>()).max(1);
        files.create_dir(dir).map_err(at(dir, "make folder"))?;
        let mut broken = Vec::new();
        let mut found = open_files(dir, files.as_ref(), &mut broken)?;
        let (memory, read_back) = first_memory(&mut found, applied.0, file_entries)?;
        let state =
            RwLock::new(State { files: found, memory, read_back, skipped: Skipped::default() });
        let broken = Mutex::new(broken);
        let change = Mutex::new(());
        Ok(Self { dir: dir.to_owned(), files, file_entries, state, change, broken })
    }

    /// Files that turned out to be broken since the last call. Their ranges are gaps, which are filled from the log.
    pub fn take_broken(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.broken.lock())
    }

    /// Position from which on every record must be added, also those without a key.
    pub fn covered_to(&self) -> PhysicalOffset {
        PhysicalOffset(self.state.read().memory.to)
    }

    /// Position up to which a crash loses nothing: a replay from here on makes the index whole.
    pub fn durable_to(&self) -> PhysicalOffset {
        PhysicalOffset(self.state.read().memory.from)
    }

    /// Adds `entries`, the keys of all records up to `to`, a record's end, in the order of the log.
    ///
    /// Those of records that are covered are ignored.
    pub fn add(&self, entries: &[KeyEntry], to: PhysicalOffset) {
        let memory = &mut self.state.write().memory;
        let known = entries.partition_point(|entry| entry.position.0 < memory.to);
        memory.entries.extend_from_slice(&entries[known..]);
        memory.to = memory.to.max(to.0);
        memory.give_up_if_full(2 * self.file_entries);
    }

    /// Leaves out the records up to `to`, a record's end, so that those behind may be added: they are a gap, which is
    /// to be filled soon.
    pub fn skip_to(&self, to: PhysicalOffset) -> Result<(), KeyError> {
        self.seal(self.covered_to())?;
        let _change = self.change.lock();
        let state = &mut *self.state.write();
        let gap = state.memory.to..to.0;
        if !gap.is_empty() {
            // Not sealed if nothing was added to what was read back: its file has stayed.
            state.files.extend(state.read_back.take());
            state.memory = Memory { from: gap.end, to: gap.end, entries: Vec::new() };
            state.skipped.push(gap);
        }
        Ok(())
    }

    /// Writes the gathered entries of records before `synced` to a file if there are enough; says whether it did.
    pub fn seal_if_due(&self, synced: PhysicalOffset) -> Result<bool, KeyError> {
        let is_due = {
            let memory = &self.state.read().memory;
            synced.0.min(memory.to).saturating_sub(memory.from) >= FILE_LOG_BYTES
                || memory.entries.len() >= self.file_entries
        };
        if is_due { self.seal(synced).map(|()| true) } else { Ok(false) }
    }

    /// Writes the gathered entries of records before `synced`, a record's end, to a file. No file may know of records
    /// that a crash can undo: others would take their positions.
    pub fn seal(&self, synced: PhysicalOffset) -> Result<(), KeyError> {
        let _change = self.change.lock();
        let (range, mut entries) = {
            let state = self.state.read();
            let memory = &state.memory;
            let range = memory.from..synced.0.min(memory.to);
            if range.is_empty() || state.read_back.as_ref().is_some_and(|f| f.range() == range) {
                return Ok(());
            }
            (range, memory.entries[..memory.before(synced)].to_vec())
        };
        // Records are added and found in memory while the file is written.
        entries.sort_unstable();
        let file = write_file(self.files.as_ref(), &self.dir, range.clone(), &entries)?;
        let mut state = self.state.write();
        if state.memory.from == range.start {
            let sealed = state.memory.before(synced);
            state.memory.entries.drain(..sealed);
            state.memory.from = range.end;
        }
        self.put(&mut state, file)?;
        match state.read_back.take() {
            Some(old) => self.remove(&old),
            None => Ok(()),
        }
    }

    /// Takes in a new file, and removes those whose range it covers.
    fn put(&self, state: &mut State, file: KeyFile) -> Result<(), KeyError> {
        let range = file.range();
        let is_covered = |f: &KeyFile| range.start <= f.range().start && f.range().end <= range.end;
        let covered: Vec<_> = state.files.iter().filter(|f| is_covered(f)).cloned().collect();
        state.files.retain(|f| !is_covered(f));
        let place = state.files.partition_point(|f| f.range().start < range.start);
        state.files.insert(place, Arc::new(file));
        state.skipped.filled(&range);
        covered.iter().filter(|f| f.range() != range).try_for_each(|f| self.remove(f))
    }

    fn remove(&self, file: &KeyFile) -> Result<(), KeyError> {
        let path = self.dir.join(file_name(&file.range()));
        self.files.remove(&path).map_err(at(&path, "remove"))
    }

    /// Positions in `range` of records with this hash, newest first, at most `limit`.
    ///
    /// A file that turns out to be broken is given up; its range is a gap then.
    pub fn lookup(
        &self,
        hash: u64,
        range: Range<PhysicalOffset>,
        limit: usize,
    ) -> Result<Vec<PhysicalOffset>, KeyError> {
        let mut found = Vec::new();
        let files = {
            let state = self.state.read();
            let in_memory = state.memory.entries.iter().filter(|entry| entry.hash == hash);
            found.extend(in_memory.map(|entry| entry.position).filter(|at| range.contains(at)));
            state.files.clone()
        };
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(limit);
        for file in files.iter().rev() {
            let overlaps = file.range().start < range.end.0 && range.start.0 < file.range().end;
            if found.len() >= limit {
                break;
            }
            if overlaps && !file.lookup(hash, &range, limit, &mut found)? {
                self.give_up(file)?;
            }
        }
        Ok(found)
    }

    fn give_up(&self, file: &Arc<KeyFile>) -> Result<(), KeyError> {
        let _change = self.change.lock();
        let mut state = self.state.write();
        let before = state.files.len();
        state.files.retain(|f| !Arc::ptr_eq(f, file));
        // Another lookup may have been faster.
        if state.files.len() == before {
            return Ok(());
        }
        self.broken.lock().push(self.dir.join(file_name(&file.range())));
        self.remove(file)
    }

    /// Checks about `bytes_max` bytes of files from `place` on, and says where to go on; `None`: nowhere. A file that is
    /// broken is given up.
    pub fn check(&self, place: KeyPlace, bytes_max: u64) -> Result<Option<KeyPlace>, KeyError> {
        let files = self.state.read().files.clone();
        let at = files.partition_point(|file| file.range().end <= place.position.0);
        let Some(file) = files.get(at) else { return Ok(None) };
        let from = if file.range().start < place.position.0 { place.block } else { 0 };
        let to = from + (bytes_max / BLOCK_BYTES as u64).max(1);
        if !file.holds(from..to)? {
            self.give_up(file)?;
        } else if to < file.blocks() {
            return Ok(Some(KeyPlace {
                position: PhysicalOffset(file.range().start + 1),
                block: to,
            }));
        }
        Ok(Some(KeyPlace { position: PhysicalOffset(file.range().end), block: 0 }))
    }

    /// Forgets what lies wholly before the log's start.
    pub fn drop_before(&self, position: PhysicalOffset) -> Result<(), KeyError> {
        let _change = self.change.lock();
        let mut state = self.state.write();
        state.skipped.drop_before(position.0);
        let gone = state.files.partition_point(|file| file.range().end <= position.0);
        state.files.drain(..gone).try_for_each(|file| self.remove(&file))
    }

    /// What lies between the log's start and the gathered entries and no file covers, oldest first.
    pub fn gaps(&self, log_start: PhysicalOffset) -> Vec<KeyGap> {
        let state = self.state.read();
        let covered = state.files.iter().map(|file| file.range());
        let memory = state.memory.from..u64::MAX;
        let mut at = log_start.0;
        let mut gaps = Vec::new();
        for range in covered.chain([memory]) {
            while at < range.start {
                let (is_skipped, part_end) = state.skipped.part_at(at);
                let end = range.start.min(part_end).min(at + FILE_LOG_BYTES);
                gaps.push(KeyGap { range: PhysicalOffset(at)..PhysicalOffset(end), is_skipped });
                at = end;
            }
            at = at.max(range.end);
        }
        gaps
    }

    /// The gap before `end` that is to be filled next: what was skipped comes first.
    pub fn next_gap(&self, log_start: PhysicalOffset, end: PhysicalOffset) -> Option<KeyGap> {
        let gaps = self.gaps(log_start).into_iter().filter(|gap| gap.range.end <= end);
        gaps.min_by_key(|gap| !gap.is_skipped)
    }

    /// Entries that one file is to hold at most, and so whoever fills a gap.
    pub fn file_entries(&self) -> usize {
        self.file_entries
    }

    /// Fills one of the `gaps`, or its begin, with the entries of its records, in any order.
    pub fn fill_gap(
        &self,
        gap: Range<PhysicalOffset>,
        mut entries: Vec<KeyEntry>,
    ) -> Result<(), KeyError> {
        let _change = self.change.lock();
        entries.sort_unstable();
        let range = gap.start.0..gap.end.0;
        let file = write_file(self.files.as_ref(), &self.dir, range, &entries)?;
        self.put(&mut self.state.write(), file)
    }

    /// Number of files, and of entries in memory.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.files.len(), state.memory.entries.len())
    }
}

/// Files that are whole and do not overlap, ordered by position. Others are removed.
fn open_files(
    dir: &Path,
    files: &dyn Files,
    broken: &mut Vec<PathBuf>,
) -> Result<Vec<Arc<KeyFile>>, KeyError> {
    let names = files.list(dir).map_err(at(dir, "list folder"))?;
    let mut found: Vec<KeyFile> = Vec::new();
    let mut removed = Vec::new();
    for name in names {
        let Some(range) = range_of_name(&name) else {
            removed.push(name);
            continue;
        };
        let path = dir.join(&name);
        if let Some(file) = KeyFile::open(files, &path, range)? {
            found.push(file);
        } else {
            broken.push(path);
            removed.push(name);
        }
    }
    // The longest of those that begin alike first: it replaces the others.
    found.sort_by_key(|file| (file.range().start, u64::MAX - file.range().end));
    let mut kept: Vec<Arc<KeyFile>> = Vec::new();
    for file in found {
        match kept.last() {
            Some(last) if file.range().start < last.range().end => {
                removed.push(file_name(&file.range()));
            }
            _ => kept.push(Arc::new(file)),
        }
    }
    for name in removed {
        let path = dir.join(name);
        files.remove(&path).map_err(at(&path, "remove"))?;
    }
    Ok(kept)
}

/// Where adding goes on. A newest file that is small is read back, so that frequent restarts do not leave many files.
fn first_memory(
    files: &mut Vec<Arc<KeyFile>>,
    applied: u64,
    file_entries: usize,
) -> Result<(Memory, Option<Arc<KeyFile>>), KeyError> {
    let end = files.last().map_or(0, |file| file.range().end);
    if applied.saturating_sub(end) > REPLAY_BYTES_MAX {
        return Ok((Memory { from: applied, to: applied, entries: Vec::new() }, None));
    }
    let is_small = |file: &KeyFile| {
        let range = file.range();
        range.end - range.start < FILE_LOG_BYTES / 2 && file.entries() < file_entries / 2
    };
    if let Some(last) = files.last().filter(|last| is_small(last))
        && let Some(mut entries) = last.read_all()?
    {
        entries.sort_unstable_by_key(|entry| entry.position);
        let range = last.range();
        // It stays on disk until a longer one takes its place.
        let memory = Memory { from: range.start, to: range.end, entries };
        return Ok((memory, files.pop()));
    }
    Ok((Memory { from: end, to: end, entries: Vec::new() }, None))
}

#[cfg(test)]
mod tests;
