//! Promises about messages that are let go in the moment in which they are read: who misses some is told so.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::BytesMut;
use gantry_model::{QueueId, QueueOffset, TopicConfig, TopicName};
use gantry_record::records;

use super::world::{LIMITS, body_of, push};
use crate::{
    Batch, Now, QueueRead, ReadStatus, Store, StoreOptions, Topic,
    log::{
        files::{Files, LogFile, WriteFailure},
        memory_files::MemoryFiles,
    },
    read::Picked,
    views::{MemoryViews, View, ViewBatch, layout},
};

const DAY_MS: u64 = 86_400_000;
/// Nothing is let go by reads.
const NEVER: usize = usize::MAX;

fn now(days: u64) -> Now {
    let ms = 1 + days * DAY_MS;
    Now { wall_ms: 1_700_000_000_000 + ms, monotonic_ms: ms }
}

/// Lets the old go when so many reads of files are left; 0 is the next one.
#[derive(Default)]
struct Trap {
    reads_left: AtomicUsize,
    store: OnceLock<Weak<Store>>,
}

impl Trap {
    fn pass(&self) {
        let count = |left: usize| (left != NEVER).then(|| left.checked_sub(1).unwrap_or(NEVER));
        let outcome = self.reads_left.fetch_update(Ordering::AcqRel, Ordering::Acquire, count);
        if outcome == Ok(0) {
            let store = self.store.get().unwrap().upgrade().unwrap();
            assert!(store.maintain(now(3)).unwrap().segments_removed > 0);
        }
    }
}

/// A disk with such a trap.
#[derive(Clone, Default)]
struct Disk {
    disk: MemoryFiles,
    trap: Arc<Trap>,
}

struct DiskFile {
    file: Arc<dyn LogFile>,
    trap: Arc<Trap>,
}

impl Disk {
    fn trapped(&self, file: Arc<dyn LogFile>) -> Arc<dyn LogFile> {
        Arc::new(DiskFile { file, trap: Arc::clone(&self.trap) })
    }
}

impl Files for Disk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        self.disk.open(path).map(|file| self.trapped(file))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        self.disk.create(path).map(|file| self.trapped(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
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

impl LogFile for DiskFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        self.trap.pass();
        self.file.read_at(out, at)
    }
    fn read_at_hand(&self, out: &mut [u8], at: u64) -> io::Result<bool> {
        self.file.read_at_hand(out, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), WriteFailure> {
        self.file.write_at(bytes, at)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }
}

/// A store of which retention may let the first segments go, and nothing of it is in memory. Each tenth message is of
/// queue 0, so that each of its reads reads one message.
struct Old {
    store: Arc<Store>,
    trap: Arc<Trap>,
    topic: Arc<Topic>,
}

impl Old {
    fn new() -> Self {
        let mut options = StoreOptions::new(PathBuf::from("/store"));
        options.segment_bytes = 256 * 1024;
        options.retention.age_ms = DAY_MS;
        let disk = Disk::default();
        disk.trap.reads_left.store(NEVER, Ordering::Release);
        let files = Arc::new(disk.clone());
        let (store, _) =
            Store::open_on(options, Arc::new(MemoryViews::new()), files, now(0)).unwrap();
        disk.trap.store.set(Arc::downgrade(&store)).unwrap();
        let config = TopicConfig::new(TopicName::new("orders").unwrap(), 2);
        let topic = store.put_topic(config, now(0)).unwrap().0;
        for (number, at) in
            (0..1_000).map(|n| (n, now(0))).chain((1_000..1_500).map(|n| (n, now(3))))
        {
            let mut batch = Batch::new();
            let body = format!("{number}:{}", "x".repeat(1_000));
            push(&mut batch, &topic, u32::from(number % 10 != 0), "", &body);
            store.append(&mut batch, at).unwrap();
        }
        store.sync().unwrap();
        while store.apply_views(1_000).unwrap() > 0 {}
        store.log.forget_blocks();
        Self { store, trap: disk.trap, topic }
    }

    /// Reads queue 0, and lets the old go at the read of a file that comes after so many others.
    fn read(&self, from: u64, reads_before: usize) -> (QueueRead, Vec<String>) {
        self.trap.reads_left.store(reads_before, Ordering::Release);
        let (mut out, from) = (BytesMut::new(), QueueOffset(from));
        let read =
            self.store.read_queue(&self.topic, QueueId(0), from, LIMITS, &|_| true, &mut out);
        self.trap.reads_left.store(NEVER, Ordering::Release);
        let number = |body: String| body.split_once(':').unwrap().0.to_owned();
        (read.unwrap(), records(&out).map(|record| number(body_of(&record.unwrap()))).collect())
    }

    fn min(&self) -> QueueOffset {
        let min = self.store.queue_bounds(&self.topic, QueueId(0)).unwrap().min;
        assert!(min.0 > 32, "more is gone than one read gives: {min:?}");
        min
    }

    /// What a reader is told that comes when the messages from `from` on are gone.
    fn assert_too_small(&self, (read, bodies): &(QueueRead, Vec<String>)) {
        let (min, messages) = (self.min(), 0);
        let told = (read.status, read.next, read.min, read.messages);
        assert_eq!(told, (ReadStatus::TooSmall, min, min, messages));
        assert_eq!(bodies, &[] as &[String]);
    }
}

#[test]
fn reader_whose_first_messages_go_while_they_are_read_is_told_the_new_minimum() {
    let old = Old::new();
    old.assert_too_small(&old.read(3, 0));
    let min = old.min().0;
    let (read, bodies) = old.read(min, NEVER);
    assert_eq!((read.status, &bodies[0]), (ReadStatus::Found, &format!("{}", min * 10)));
    assert_eq!(old.store.status().damaged_records, 0);
}

#[test]
fn reader_whose_next_messages_go_is_given_those_before_and_told_the_new_minimum_then() {
    let old = Old::new();
    let (read, bodies) = old.read(3, 2);
    assert_eq!((read.status, read.next.0, read.messages), (ReadStatus::Found, 5, 2));
    assert_eq!(bodies, ["30", "40"]);
    old.assert_too_small(&old.read(read.next.0, NEVER));
}

#[test]
fn reader_whose_entries_the_views_drop_before_it_looks_is_told_the_new_minimum() {
    let old = Old::new();
    let queue = old.store.find_queue(&old.topic, QueueId(0)).unwrap().unwrap();
    let max = old.store.queue_bounds(&old.topic, QueueId(0)).unwrap().max;
    // As a read begins: nothing is gone yet.
    let (status, next, min) = (ReadStatus::NoMatch, QueueOffset(3), QueueOffset(0));
    let mut read =
        QueueRead { status, next, min, max, messages: 0, last_position: None, in_cache: None };
    assert!(old.store.maintain(now(3)).unwrap().segments_removed > 0);
    let mut batch = ViewBatch::new();
    let key = |offset| layout::queue_key(old.topic.id, QueueId(0), offset);
    batch.delete_range(View::Queue, &key(QueueOffset(0))[..]..&key(old.min())[..]);
    old.store.views.apply(&batch).unwrap();
    let mut out = BytesMut::new();
    let mut picked = Picked::new(next, LIMITS, &|_| true);
    let is_there =
        old.store.read_within(&old.topic, &queue, &mut picked, &mut read, &mut out).unwrap();
    assert!(!is_there, "{read:?}");
    assert_eq!(out.len(), 0);
}
