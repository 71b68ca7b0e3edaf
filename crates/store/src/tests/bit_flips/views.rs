//! Every kind of file that RocksDB has: a flip is found, and the views are made again from the log, or it means nothing.

use std::{fs, path::Path, sync::Arc};

use bytes::BytesMut;
use gantry_model::{QueueId, QueueOffset, TopicConfig, TopicName};
use tempfile::TempDir;

use super::super::world::{LIMITS, commit, copy_tree, push};
use crate::{Batch, Now, OpenReport, ReadError, Store, StoreOptions, ViewError, views::dump};

/// So many that the entries of the two queues lie in several blocks.
const MESSAGES: u64 = 2_400;

fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(dir);
    options.segment_bytes = 256 * 1024;
    options.view_cache_bytes = 1 << 20;
    options.view_write_bytes = 4 << 20;
    options
}

fn now() -> Now {
    Now { wall_ms: 1_700_000_000_000, monotonic_ms: 0 }
}

/// A store that was closed, and what its views held.
pub(super) struct Closed {
    dir: TempDir,
    pub(super) dump: Vec<String>,
}

impl Closed {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(options(dir.path()), now()).unwrap();
        for name in ["orders", "other"] {
            let name = TopicName::new(name).unwrap();
            store.put_topic(TopicConfig::new(name, 2), now()).unwrap();
        }
        let topic = store.topic("orders").unwrap();
        for number in 0..MESSAGES {
            let mut batch = Batch::new();
            push(&mut batch, &topic, (number % 2) as u32, "red", &format!("m{number}"));
            store.append(&mut batch, now()).unwrap();
        }
        store.commit_offsets(&[commit("readers", &topic, 0, 7)], now()).unwrap();
        store.close(now()).unwrap();
        let dump = dump(&*store.views).unwrap();
        Self { dir, dump }
    }

    /// Names of the files of the views.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join("views")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn len(&self, file: &str) -> usize {
        fs::metadata(self.dir.path().join("views").join(file)).unwrap().len() as usize
    }

    /// Names of the tables.
    pub(super) fn tables(&self) -> Vec<String> {
        let tables: Vec<_> = self.files().into_iter().filter(|file| is_table(file)).collect();
        assert!(tables.len() > 1, "{tables:?}");
        tables
    }

    /// The one of the queues' entries, of which nothing is read at a start.
    pub(super) fn largest_table(&self) -> String {
        self.tables().into_iter().max_by_key(|file| self.len(file)).unwrap()
    }

    /// The file whose name begins so.
    fn of(&self, prefix: &str) -> String {
        let found = self.files().into_iter().find(|file| file.starts_with(prefix));
        found.unwrap_or_else(|| panic!("{prefix} is there"))
    }

    pub(super) fn copy(&self) -> Copied {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(self.dir.path(), dir.path());
        Copied { dir, store: None }
    }

    /// A copy in which one bit of one file of the views is another.
    fn flipped(&self, file: &str, at: usize) -> Copied {
        let copied = self.copy();
        copied.flip(file, at);
        copied
    }
}

fn is_table(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "sst")
}

pub(super) struct Copied {
    dir: TempDir,
    pub(super) store: Option<Arc<Store>>,
}

impl Copied {
    /// One bit of one file of the views becomes another.
    pub(super) fn flip(&self, file: &str, at: usize) {
        let path = self.dir.path().join("views").join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1 << (at % 8);
        fs::write(path, bytes).unwrap();
    }

    pub(super) fn open(&mut self) -> OpenReport {
        self.store = None;
        let (store, report) = Store::open(options(self.dir.path()), now()).unwrap();
        self.store = Some(store);
        report
    }

    pub(super) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn close(&mut self) {
        // What a damaged view refuses at the end, the log brings back.
        let _ = self.store().close(now());
        self.store = None;
    }

    pub(super) fn entries(&self) -> Result<Vec<String>, ViewError> {
        self.store().sync().unwrap();
        while self.store().apply_views(1_000)? > 0 {}
        dump(&*self.store().views)
    }
}

/// Opens with the flip, reads everything, and opens once more if the reads found damage. Says whether anything was
/// found.
fn heals(closed: &Closed, file: &str, at: usize) -> bool {
    let mut copied = closed.flipped(file, at);
    let report = copied.open();
    let name = format!("{file}, byte {at}: {report:?}");
    let found_at_start = report.views_rebuilt;
    assert_eq!(found_at_start, !report.damage.is_empty(), "{name}");
    let found_later = match copied.entries() {
        Ok(entries) => {
            assert_eq!(entries, closed.dump, "{name}");
            false
        }
        Err(ViewError::Damaged { .. }) => true,
        Err(error) => panic!("{name}: {error:?}"),
    };
    let status = copied.store().status();
    assert_eq!(status.damaged_files > 0, found_at_start || found_later, "{name}: {status:?}");
    assert!(
        status.damage.iter().all(|damage| damage.path.starts_with(copied.dir.path())),
        "{name}"
    );
    if found_later {
        copied.close();
        let report = copied.open();
        assert!(report.views_rebuilt && !report.damage.is_empty(), "{name}: {report:?}");
        assert_eq!(copied.entries().unwrap(), closed.dump, "{name}");
    }
    // The views that were made again are views like any others.
    copied.close();
    let report = copied.open();
    assert!(!report.views_rebuilt && report.damage.is_empty(), "{name}: {report:?}");
    assert_eq!(copied.entries().unwrap(), closed.dump, "{name}");
    found_at_start || found_later
}

/// Places spread evenly over a file.
fn spread(bytes: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| index * (bytes - 1) / (count - 1))
}

#[test]
fn flip_in_a_table_of_the_views_is_found_or_means_nothing_and_the_views_are_made_again() {
    let closed = Closed::new();
    let tables = closed.tables();
    for file in &tables {
        assert!(heals(&closed, file, 8), "{file}: the first block holds entries");
        assert!(heals(&closed, file, closed.len(file) - 1), "{file}: the footer ends it");
        for at in spread(closed.len(file), 4) {
            // What is between may be a part that is never asked for, as a filter.
            heals(&closed, file, at);
        }
    }
}

#[test]
fn flip_in_any_other_file_of_the_views_is_found_or_means_nothing() {
    let closed = Closed::new();
    let manifest = closed.of("MANIFEST-");
    for at in spread(closed.len(&manifest), 6) {
        assert!(heals(&closed, &manifest, at), "{manifest}, byte {at}");
    }
    for at in (0..closed.len("CURRENT")).step_by(3) {
        assert!(heals(&closed, "CURRENT", at), "CURRENT, byte {at}");
    }
    // RocksDB writes these for people: it asks for none of them.
    for prefix in ["OPTIONS-", "IDENTITY", "LOG"] {
        let file = closed.of(prefix);
        assert!(!heals(&closed, &file, closed.len(&file) / 2), "{file}");
    }
}

#[test]
fn flip_under_an_open_store_fails_what_reads_it_and_nothing_else_until_the_next_start() {
    let closed = Closed::new();
    let mut copied = closed.copy();
    copied.open();
    let largest = closed.largest_table();
    let path = copied.dir.path().join("views").join(&largest);
    copied.flip(&largest, 8);
    let topic = copied.store().topic("orders").unwrap();
    let read = |queue, from| {
        let (from, mut out) = (QueueOffset(from), BytesMut::new());
        copied.store().read_queue(&topic, QueueId(queue), from, LIMITS, &|_| true, &mut out)
    };
    assert_eq!(copied.store().damaged_views(), None, "nobody has read it");
    let failed = read(0, 0).unwrap_err();
    assert!(matches!(failed, ReadError::Views(ViewError::Damaged { .. })), "{failed:?}");
    assert_eq!(copied.store().damaged_views(), Some(&*path));
    let status = copied.store().status();
    assert_eq!((status.damaged_files, status.damaged_records), (1, 0), "{status:?}");
    assert_eq!(status.damage[0].path, path);
    assert_eq!(status.damage[0].file_offset, Some(0), "RocksDB names the block");

    let mut batch = Batch::new();
    push(&mut batch, &topic, 1, "red", "sent under damage");
    copied.store().append(&mut batch, now()).unwrap();
    assert_eq!(read(1, 0).unwrap().messages, LIMITS.messages_max, "its block is whole");
    assert_eq!(read(1, MESSAGES / 2).unwrap().messages, 1, "the ring has it");

    copied.store = None;
    let report = copied.open();
    assert!(report.views_rebuilt);
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].path, path, "the marker has kept what was found");
    assert_eq!(copied.store().damaged_views(), None, "they were made again");
    let topic = copied.store().topic("orders").unwrap();
    let bounds = |queue| copied.store().queue_bounds(&topic, QueueId(queue)).unwrap();
    assert_eq!((bounds(0).min.0, bounds(0).max.0), (0, MESSAGES / 2));
    assert_eq!((bounds(1).min.0, bounds(1).max.0), (0, MESSAGES / 2 + 1));
}
