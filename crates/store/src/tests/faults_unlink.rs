//! Promises about a disk that takes long to let go of a file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use gantry_model::{TopicConfig, TopicName};
use parking_lot::{Condvar, Mutex};

use super::world::push;
use crate::{
    Batch, Flush, Now, Store, StoreOptions,
    log::{
        files::{Files, LogFile},
        memory_files::MemoryFiles,
    },
    views::MemoryViews,
};

/// Longest time that anything may take: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const DAY_MS: u64 = 86_400_000;

/// A disk that removes no file before it is told to.
#[derive(Clone, Default)]
struct SlowDisk {
    disk: MemoryFiles,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_open: bool,
    waits: bool,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.waits = true;
        self.changed.notify_all();
        while !state.is_open {
            self.changed.wait(&mut state);
        }
    }

    /// Waits until somebody wants to pass.
    fn wait_for_one(&self) {
        let mut state = self.state.lock();
        while !state.waits {
            assert!(!self.changed.wait_for(&mut state, PATIENCE).timed_out(), "nothing is removed");
        }
    }

    fn open(&self) {
        self.state.lock().is_open = true;
        self.changed.notify_all();
    }
}

impl SlowDisk {
    /// Bytes of the log's files.
    fn log_bytes(&self) -> u64 {
        let paths = self.disk.paths();
        let of_log = paths.iter().filter(|path| path.starts_with("/store/log"));
        of_log.map(|path| self.disk.open(path).unwrap().len().unwrap()).sum()
    }
}

impl Files for SlowDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        self.disk.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        self.disk.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.gate.pass();
        self.disk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_space(dir)
    }
}

#[test]
fn messages_are_appended_and_synced_while_the_disk_removes_a_segment() {
    let disk = SlowDisk::default();
    let mut options = StoreOptions::new(PathBuf::from("/store"));
    options.flush = Flush::Sync;
    options.segment_bytes = 64 * 1024;
    options.retention.age_ms = DAY_MS;
    let now = |days: u64| {
        let ms = 1 + days * DAY_MS;
        Now { wall_ms: 1_700_000_000_000 + ms, monotonic_ms: ms }
    };
    let views = Arc::new(MemoryViews::new());
    let files = Arc::new(disk.clone());
    let (store, _) = Store::open_on(options, views, files, now(0)).unwrap();
    let topic = store.put_topic(TopicConfig::new(TopicName::new("orders").unwrap(), 1), now(0));
    let (topic, _) = topic.unwrap();
    let send = |store: &Store, at: Now| {
        let mut batch = Batch::new();
        push(&mut batch, &topic, 0, "", &"x".repeat(2_000));
        store.append(&mut batch, at).unwrap();
        store.sync().unwrap();
    };
    (0..160).for_each(|_| send(&store, now(0)));
    while store.apply_views(1_000).unwrap() > 0 {}
    (0..40).for_each(|_| send(&store, now(3)));
    while store.apply_views(1_000).unwrap() > 0 {}
    let segments = store.status().segments;

    let upkeep = thread::spawn({
        let store = Arc::clone(&store);
        move || store.maintain(now(3)).unwrap()
    });
    disk.gate.wait_for_one();
    let leaving = store.status();
    assert!(leaving.leaving_bytes > 0, "{leaving:?}");
    assert_eq!(leaving.file_bytes, disk.log_bytes(), "what is about to go takes its place");
    let (sent, has_sent) = mpsc::channel();
    thread::scope(|scope| {
        let store = &store;
        let send = &send;
        scope.spawn(move || {
            // Through a border of segments, too.
            (0..40).for_each(|_| send(store, now(3)));
            sent.send(()).unwrap();
        });
        let outcome = has_sent.recv_timeout(PATIENCE);
        disk.gate.open();
        outcome.expect("a send waits for the disk to remove a file");
    });
    let done = upkeep.join().unwrap();
    assert!(done.segments_removed >= 5, "{done:?}");
    let gone = store.status();
    assert!(gone.segments < segments);
    assert_eq!((gone.leaving_bytes, leaving.removed_bytes), (0, 0));
    assert!(gone.removed_bytes > 0, "{gone:?}");
    assert!(disk.disk.paths().len() < segments + 10, "{:?}", disk.disk.paths());
}
