//! Full disks, and a log at its limit: messages are refused, reads go on, and state goes on while the reserve lasts.
//! Each test has its own disk in memory, with a capacity that it changes.

use std::{path::PathBuf, sync::Arc};

use gantry_model::{QueueId, QueueOffset, TopicConfig, TopicName};

use super::world::{self, LIMITS, commit};
use crate::{
    AppendError, Batch, Now, OnFull, Shortage, Store, StoreOptions, Topic, change::PARK_TOPIC,
    log::memory_files::MemoryFiles, views::MemoryViews,
};

const SEGMENT_BYTES: u64 = 64 * 1024;
/// The key index and the like have no segments: they find room beside them.
const SLACK_BYTES: u64 = SEGMENT_BYTES / 2;

/// A store with two files in reserve on a disk of its own.
struct Small {
    disk: MemoryFiles,
    views: Arc<MemoryViews>,
    options: StoreOptions,
    store: Arc<Store>,
    topic: Arc<Topic>,
    now_ms: u64,
}

impl Small {
    /// A disk with room for `segments`, the reserve among them.
    fn new(segments: u64, change: impl FnOnce(&mut StoreOptions)) -> Self {
        let (disk, views) = (MemoryFiles::new(), Arc::new(MemoryViews::default()));
        disk.set_capacity(segments * SEGMENT_BYTES + SLACK_BYTES);
        let mut options = StoreOptions::new(PathBuf::from("/store"));
        options.segment_bytes = SEGMENT_BYTES;
        options.room.reserve_files = 2;
        change(&mut options);
        let now_ms = 1_700_000_000_000;
        let store = open(&disk, &views, &options, now_ms);
        let config = TopicConfig::new(TopicName::new("orders").unwrap(), 1);
        let topic = store.put_topic(config, now(now_ms)).unwrap().0;
        Self { disk, views, options, store, topic, now_ms }
    }

    fn now(&self) -> Now {
        now(self.now_ms)
    }

    fn send(&self) -> Result<(), AppendError> {
        let mut batch = Batch::new();
        world::push(&mut batch, &self.topic, 0, "", &"m".repeat(1000));
        self.store.append(&mut batch, self.now()).map(|_| ())
    }

    /// One look of upkeep.
    fn tend(&mut self) {
        self.now_ms += 1000;
        self.store.find_room().unwrap();
        self.store.sync().unwrap();
        while self.store.apply_views(1000).unwrap() > 0 {}
        self.store.maintain(self.now()).unwrap();
        self.store.find_room().unwrap();
    }

    /// Sends until the store refuses; upkeep looks after each `every` messages. Returns how many were taken.
    fn fill(&mut self, every: u64) -> (u64, AppendError) {
        for sent in 1..100_000 {
            if let Err(error) = self.send() {
                return (sent - 1, error);
            }
            if sent.is_multiple_of(every) {
                self.tend();
            }
        }
        panic!("the disk is never full")
    }

    fn commit(&self, offset: u64) -> Result<(), AppendError> {
        let commits: Vec<_> =
            (0..20).map(|n| commit(&format!("group-{n}"), &self.topic, 0, offset)).collect();
        self.store.commit_offsets(&commits, self.now()).map(|_| ())
    }

    /// Number of messages that a reader gets from the first one on.
    fn readable(&self) -> u64 {
        let mut from = self.store.queue_bounds(&self.topic, QueueId(0)).unwrap().min;
        let first = from.0;
        loop {
            let mut out = bytes::BytesMut::new();
            let read = self
                .store
                .read_queue(&self.topic, QueueId(0), from, LIMITS, &|_| true, &mut out)
                .unwrap();
            if read.next == from {
                return from.0 - first;
            }
            from = read.next;
        }
    }

    fn reopen(&mut self) {
        self.store = open(&self.disk, &self.views, &self.options, self.now_ms);
        self.topic = self.store.topic("orders").unwrap();
    }
}

fn now(ms: u64) -> Now {
    Now { wall_ms: ms, monotonic_ms: ms }
}

fn open(
    disk: &MemoryFiles,
    views: &Arc<MemoryViews>,
    options: &StoreOptions,
    now_ms: u64,
) -> Arc<Store> {
    let (views, files) = (Arc::clone(views), Arc::new(disk.clone()));
    Store::open_on(options.clone(), views, files, now(now_ms)).unwrap().0
}

fn is_full(error: &AppendError) -> bool {
    matches!(error, AppendError::Full(_))
}

#[test]
fn full_disk_refuses_messages_and_takes_commits_from_the_reserve_until_it_is_used_up() {
    let mut small = Small::new(6, |_| {});
    let (sent, error) = small.fill(10);
    assert!(is_full(&error), "{error}");
    assert_eq!(small.store.status().spare_files, 2);
    assert_eq!(small.readable(), sent);
    let mut offset = 0;
    let error = loop {
        match small.commit(offset + 1) {
            Ok(()) => offset += 1,
            Err(error) => break error,
        }
        assert!(small.send().is_err(), "the reserve is not for messages");
    };
    assert!(is_full(&error), "{error}");
    // 20 groups with about 60 bytes each fill the two segments, and no others.
    let bytes_each = small.store.status().log_bytes - 4 * SEGMENT_BYTES;
    assert!(bytes_each > SEGMENT_BYTES && offset > 50, "{offset} commits, {bytes_each} bytes");
    assert_eq!(small.store.status().spare_files, 0);
    // What was refused is not there, also not after a restart.
    for _ in 0..2 {
        let held = small.store.offset("group-7", &small.topic, QueueId(0));
        assert_eq!(held, Some(QueueOffset(offset)));
        assert_eq!(small.readable(), sent);
        small.store.sync().unwrap();
        small.reopen();
    }
}

#[test]
fn sends_go_on_at_the_next_look_after_there_is_space_and_the_reserve_is_whole_first() {
    let mut small = Small::new(6, |_| {});
    small.fill(10);
    while small.store.status().spare_files > 0 {
        small.commit(1).unwrap();
    }
    small.tend();
    assert!(matches!(small.store.shortage(), Some(Shortage::Disk { .. })));
    small.disk.set_capacity(small.disk.used() + 2 * SEGMENT_BYTES + SLACK_BYTES);
    small.tend();
    assert_eq!(small.store.status().spare_files, 2, "the reserve first");
    assert!(small.send().is_err());
    small.disk.set_capacity(small.disk.used() + SEGMENT_BYTES + SLACK_BYTES);
    small.tend();
    assert_eq!(small.store.shortage(), None);
    small.send().unwrap();
    assert!(small.store.status().spare_files >= 2);
}

#[test]
fn retention_frees_a_full_disk_by_what_the_reserve_holds() {
    let mut small = Small::new(6, |options| options.retention.age_ms = 3_600_000);
    small.fill(10);
    let before = small.store.log_start();
    small.now_ms += 3_600_001;
    small.tend();
    assert!(small.store.log_start() > before, "the oldest segment went");
    assert_eq!(small.store.shortage(), None);
    let (sent, _) = small.fill(10);
    assert!(sent > 10, "{sent}");
}

#[test]
fn writer_that_fills_the_disk_before_upkeep_looks_leaves_the_reserve_whole_for_retention() {
    let mut small = Small::new(6, |options| options.retention.age_ms = 3_600_000);
    let (sent, error) = small.fill(u64::MAX);
    assert!(is_full(&error), "{error}");
    assert_eq!((small.store.status().spare_files, small.readable()), (2, sent));
    small.commit(7).unwrap();
    small.now_ms += 3_600_001;
    small.tend();
    assert_eq!(small.store.shortage(), None);
    small.send().unwrap();
}

#[test]
fn disk_that_stays_full_lets_segments_go_one_after_the_other_for_ever() {
    let mut small = Small::new(6, |options| options.retention.age_ms = 3_600_000);
    for round in 0..40 {
        let (sent, error) = small.fill(10);
        assert!(is_full(&error) && (round == 0 || sent > 0), "{round}: {error}");
        small.commit(round).unwrap();
        small.now_ms += 3_600_001;
        small.tend();
        assert_eq!(small.store.shortage(), None, "{round}");
    }
}

#[test]
fn less_than_a_segment_and_the_reserve_on_the_disk_stops_messages_before_the_segment_is_full() {
    let mut small = Small::new(6, |_| {});
    small.send().unwrap();
    small.tend();
    small.disk.set_capacity(small.disk.used() + SEGMENT_BYTES - 1);
    small.tend();
    let error = small.send().unwrap_err();
    assert!(is_full(&error), "{error}");
    assert!(small.commit(5).is_ok());
    small.disk.set_capacity(small.disk.used() + SEGMENT_BYTES);
    small.tend();
    small.send().unwrap();
}

#[test]
fn log_at_its_limit_refuses_messages_and_goes_on_when_retention_has_made_room() {
    let bytes_max = 8 * SEGMENT_BYTES;
    let mut small = Small::new(100, |options| {
        options.room.bytes_max = Some(bytes_max);
        options.retention.age_ms = 3_600_000;
    });
    let (sent, error) = small.fill(10);
    assert!(is_full(&error), "{error}");
    let at_limit = Shortage::Limit { log_bytes: bytes_max, bytes_max };
    assert_eq!(small.store.shortage(), Some(at_limit));
    assert_eq!(small.store.status().file_bytes, bytes_max);
    assert_eq!(small.readable(), sent);
    small.commit(3).unwrap();
    small.tend();
    assert!(small.send().is_err(), "nothing has gone");
    small.now_ms += 3_600_001;
    small.tend();
    small.send().unwrap();
    assert!(small.store.status().file_bytes <= bytes_max);
}

#[test]
fn store_opens_on_a_full_disk_and_serves_what_it_holds() {
    let mut small = Small::new(6, |_| {});
    let (sent, _) = small.fill(10);
    small.store.sync().unwrap();
    small.disk.set_capacity(0);
    small.reopen();
    assert_eq!(small.readable(), sent);
    assert!(small.send().is_err());
    small.disk.set_capacity(small.disk.used() + 4 * SEGMENT_BYTES);
    small.tend();
    small.send().unwrap();
}

#[test]
fn log_that_may_delete_the_oldest_stays_within_its_limit_and_takes_every_message() {
    let bytes_max = 16 * SEGMENT_BYTES;
    let mut small = Small::new(100, |options| {
        options.room.bytes_max = Some(bytes_max);
        options.on_full = OnFull::DeleteOldest;
    });
    for sent in 1..3000 {
        small.send().unwrap();
        if sent % 10 == 0 {
            small.commit(sent).unwrap();
            small.tend();
        }
    }
    let status = small.store.status();
    assert!(
        status.log_start.0 > 20 * SEGMENT_BYTES && status.file_bytes <= bytes_max,
        "{status:?}"
    );
    assert!(status.file_bytes >= bytes_max / 2, "no more goes than has to: {status:?}");
    assert_eq!(small.store.offset("group-7", &small.topic, QueueId(0)), Some(QueueOffset(2990)));
}

#[test]
fn sender_that_outruns_the_deletion_of_the_oldest_passes_the_limit_by_what_is_said_and_meets_no_refusal()
 {
    let bytes_max = 16 * SEGMENT_BYTES;
    let mut small = Small::new(100, |options| {
        options.room.bytes_max = Some(bytes_max);
        options.on_full = OnFull::DeleteOldest;
    });
    // A segment, and the two in reserve.
    let most = bytes_max + 3 * SEGMENT_BYTES;
    let mut highest = 0;
    for sent in 1..3000 {
        small.send().unwrap_or_else(|error| panic!("message {sent}: {error}"));
        highest = highest.max(small.store.status().file_bytes);
        // Five segments, of which three find room below the limit.
        if sent % 150 == 0 {
            small.tend();
        }
    }
    assert!(small.store.log_start().0 > 4 * bytes_max, "through the limit several times");
    assert!(highest > bytes_max && highest <= most, "{highest}, the limit is {bytes_max}");
    small.tend();
    assert!(small.store.status().file_bytes <= bytes_max, "within the limit again");
}

#[test]
fn sender_that_outruns_it_further_is_refused_and_the_files_stay_below_the_limit_and_what_it_may_pass()
 {
    let bytes_max = 16 * SEGMENT_BYTES;
    let mut small = Small::new(100, |options| {
        options.room.bytes_max = Some(bytes_max);
        options.on_full = OnFull::DeleteOldest;
    });
    let (_, error) = small.fill(u64::MAX);
    assert!(is_full(&error), "{error}");
    assert_eq!(small.store.status().file_bytes, bytes_max + 3 * SEGMENT_BYTES);
    small.tend();
    small.send().unwrap();
    assert!(small.store.status().file_bytes <= bytes_max);
}

#[test]
fn full_disk_lets_the_oldest_go_when_the_log_may_delete_them() {
    let mut small = Small::new(6, |options| options.on_full = OnFull::DeleteOldest);
    for _ in 0..10 {
        let (sent, error) = small.fill(1000);
        assert!(is_full(&error) && sent > 0, "{error}");
        small.tend();
        assert_eq!(small.store.shortage(), None);
    }
    assert!(small.store.log_start().0 > 0);
}

#[test]
fn oldest_that_go_for_the_sake_of_room_leave_what_waits_for_its_time() {
    let bytes_max = 10 * SEGMENT_BYTES;
    let mut small = Small::new(100, |options| {
        options.room.bytes_max = Some(bytes_max);
        options.on_full = OnFull::DeleteOldest;
    });
    let config = TopicConfig::new(TopicName::new(PARK_TOPIC).unwrap(), 18);
    let parking = small.store.put_topic(config, small.now()).unwrap().0;
    let due: Vec<u64> = (1..=5).map(|n| 1_800_000_000_000 + n).collect();
    for due_ms in &due {
        world::park(&small.store, &parking, "orders", *due_ms, small.now());
    }
    for sent in 1..2000 {
        small.send().unwrap();
        if sent % 10 == 0 {
            small.tend();
        }
    }
    assert!(small.store.log_start().0 > 10 * SEGMENT_BYTES);
    small.reopen();
    let pending = small.store.due_timers(u64::MAX - 1, 100).unwrap();
    assert_eq!(pending.iter().map(|timer| timer.due_ms).collect::<Vec<_>>(), due);
    for timer in pending {
        let record = small.store.read_record(timer.position).unwrap();
        assert!(record.is_some(), "what waits is in the log: {timer:?}");
        let topic = Arc::clone(&small.topic);
        world::fire(&small.store, &topic, timer.due_ms, timer.position, small.now()).unwrap();
    }
}
