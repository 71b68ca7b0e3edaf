//! Damage in the files of the views: what RocksDB's checksums find is remembered, and so that the next start knows it, a
//! marker is left in the folder.
//! Invariant: views that are marked are thrown away before they are opened, since the log holds all that they held.
//! Leaves reports to the store, and finding damage to RocksDB.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use parking_lot::Mutex;
use rocksdb::ErrorKind;

use super::ViewError;

/// Name of the marker.
const MARKER: &str = "DAMAGED";
/// Bytes of a marker that are read.
const MARKER_BYTES_MAX: u64 = 4096;
/// Damaged files remembered until somebody asks.
const REMEMBERED_MAX: usize = 64;

/// A damaged file of the views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewDamage {
    /// The file, or the folder where RocksDB does not name one.
    pub path: PathBuf,
    /// Byte in the file, if RocksDB names it.
    pub file_offset: Option<u64>,
    /// What is wrong.
    pub reason: String,
    /// Whether the views were made again already, empty.
    pub is_mended: bool,
}

/// Looks at the errors of RocksDB in one folder.
#[derive(Debug)]
pub(super) struct Watch {
    dir: PathBuf,
    /// Whether the folder may be written to.
    is_ours: bool,
    found: Mutex<Vec<ViewDamage>>,
    /// The damaged file that was met first, once the next start knows of it.
    marked: OnceLock<PathBuf>,
}

impl Watch {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            is_ours: true,
            found: Mutex::default(),
            marked: OnceLock::new(),
        }
    }

    /// For views that are only read, and may be another process's: nothing is marked.
    pub(super) fn for_reading(dir: &Path) -> Self {
        Self { is_ours: false, ..Self::new(dir) }
    }

    /// The error as the views tell it. Damage is remembered, and marked for the next start.
    pub(super) fn failed(&self, action: &'static str, source: rocksdb::Error) -> ViewError {
        if source.kind() != ErrorKind::Corruption {
            return ViewError::Store { action, source: Box::new(source) };
        }
        self.met(source.as_ref());
        ViewError::Damaged { action, source: Box::new(source) }
    }

    fn met(&self, said: &str) {
        let mut found = self.found.lock();
        let damage = damage_of(&self.dir, said, false);
        if found.len() >= REMEMBERED_MAX || found.contains(&damage) {
            return;
        }
        if self.is_ours {
            match mark(&self.dir, said) {
                // Fails when there is one already, and the first one stays.
                Ok(()) => drop(self.marked.set(damage.path.clone())),
                Err(error) => {
                    let dir = self.dir.display();
                    tracing::error!(%dir, %error, "the damaged views could not be marked");
                }
            }
        }
        found.push(damage);
    }

    /// The damaged file for which the next start makes the views again. Without a marker it would find them as they
    /// are.
    pub(super) fn marked(&self) -> Option<&Path> {
        self.marked.get().map(PathBuf::as_path)
    }

    /// Remembers why the views were thrown away and made again.
    pub(super) fn mended(&self, reason: &str) {
        self.found.lock().push(damage_of(&self.dir, reason, true));
    }

    /// What was found since the last call.
    pub(super) fn take(&self) -> Vec<ViewDamage> {
        std::mem::take(&mut self.found.lock())
    }
}

/// What was found wrong with the views in this folder while they were open.
pub(super) fn marked(dir: &Path) -> Option<String> {
    let file = File::open(dir.join(MARKER)).ok()?;
    let mut said = Vec::new();
    // The marker counts, also where it cannot be read.
    let _ = file.take(MARKER_BYTES_MAX).read_to_end(&mut said);
    Some(String::from_utf8_lossy(&said).into_owned())
}

fn mark(dir: &Path, said: &str) -> io::Result<()> {
    let path = dir.join(MARKER);
    fs::write(&path, said)?;
    File::open(&path)?.sync_all()?;
    File::open(dir)?.sync_all()
}

/// RocksDB names file and byte at the end of what it says: `… in PATH offset N size M`.
fn damage_of(dir: &Path, said: &str, is_mended: bool) -> ViewDamage {
    let named = said.rsplit_once(" in ").and_then(|(_, place)| {
        let (path, rest) = place.split_once(" offset ")?;
        Some((PathBuf::from(path), rest.split(' ').next()?.parse().ok()))
    });
    let (path, file_offset) = named.unwrap_or_else(|| (dir.to_owned(), None));
    let state = if is_mended { "made again" } else { "made again at the next start" };
    ViewDamage { path, file_offset, reason: format!("{said}; the views are {state}"), is_mended }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_byte_are_those_that_rocksdb_names() {
        let dir = Path::new("/store/views");
        let said = "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in \
                    /store/views/000012.sst offset 4711 size 88";
        let found = damage_of(dir, said, false);
        assert_eq!(found.path, Path::new("/store/views/000012.sst"));
        assert_eq!(found.file_offset, Some(4711));
        let found = damage_of(dir, "Corruption: bad table in a way of its own", true);
        assert_eq!((found.path.as_path(), found.file_offset), (dir, None));
    }

    #[test]
    fn next_start_is_asked_for_what_it_will_find_marked_and_for_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let said = |file: &str| format!("Corruption: bad in {file} offset 1 size 2");
        let watch = Watch::new(dir.path());
        watch.mended(&said("/views/000001.sst"));
        assert_eq!(watch.marked(), None, "they are whole again");
        watch.met(&said("/views/000002.sst"));
        watch.met(&said("/views/000003.sst"));
        assert_eq!(watch.marked(), Some(Path::new("/views/000002.sst")), "the one that was first");
        assert!(marked(dir.path()).is_some());

        let watch = Watch::new(&dir.path().join("gone"));
        watch.met(&said("/views/000002.sst"));
        assert_eq!(watch.marked(), None, "it could not be marked");
        assert_eq!(watch.take().len(), 1, "but is told of");
        let watch = Watch::for_reading(dir.path());
        watch.met(&said("/views/000002.sst"));
        assert_eq!(watch.marked(), None, "it is another process's");
    }
}
