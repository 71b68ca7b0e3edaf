//! The store that is kept in the tree, and copies of it.
//! Invariant: a test works on a copy. Segments are kept without the zeros behind their records; a copy has them again.
//! Leaves what is in it to `content`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Once,
};

use tempfile::TempDir;

use crate::{content, make};

/// Folders of a store that are kept; its lock is not.
const FOLDERS: [&str; 3] = ["log", "views", "keys"];
/// Files of RocksDB that say nothing of the data: its own log, its lock, the options of its last start, and its
/// write-ahead log, which is always empty.
const LEFT_OUT: [&str; 4] = ["LOG", "LOCK", "OPTIONS", ".log"];

static MADE: Once = Once::new();

/// A copy of the kept store.
pub(crate) struct Fixture(TempDir);

impl Fixture {
    pub(crate) fn copy() -> Self {
        make_if_asked();
        let copy = tempfile::tempdir().unwrap();
        for folder in FOLDERS {
            fs::create_dir(copy.path().join(folder)).unwrap();
            for path in files_of(folder) {
                let to = copy.path().join(folder).join(path.file_name().unwrap());
                fs::copy(&path, &to).unwrap();
                if folder == "log" {
                    let file = fs::OpenOptions::new().write(true).open(&to).unwrap();
                    file.set_len(content::SEGMENT_BYTES).unwrap();
                }
            }
        }
        Self(copy)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Every kept file.
    pub(crate) fn files() -> Vec<PathBuf> {
        make_if_asked();
        FOLDERS.iter().flat_map(|folder| files_of(folder)).collect()
    }
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

fn files_of(folder: &str) -> Vec<PathBuf> {
    let dir = kept().join(folder);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn make_if_asked() {
    MADE.call_once(|| {
        if std::env::var_os("GANTRY_UPDATE").is_some() {
            make::make(&mut keep);
        }
    });
}

/// Keeps the store in `dir`, which is open and at rest.
fn keep(dir: &Path) {
    for folder in FOLDERS {
        let to = kept().join(folder);
        if to.exists() {
            fs::remove_dir_all(&to).unwrap();
        }
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(dir.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if LEFT_OUT.iter().any(|part| name.starts_with(part) || name.ends_with(part)) {
                continue;
            }
            let mut bytes = fs::read(&path).unwrap();
            if folder == "log" {
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                bytes.truncate(used);
            }
            fs::write(to.join(name), bytes).unwrap();
        }
    }
}
