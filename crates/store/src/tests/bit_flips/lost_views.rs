//! Views lost and a bit flipped besides: an older state image does as well as the newest, a damaged one is written anew
//! while the views are there, a start without any says so, and no offset is given twice.

use std::sync::Arc;

use bytes::BytesMut;
use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicConfig, TopicName};

use super::{
    super::world::{LIMITS, body_of, commit, push},
    scene::{Flipped, SEGMENT_BYTES, Scene, Views},
};
use crate::{
    Batch, Now, OpenError, ReadStatus, Store, StoreOptions, Topic,
    image::IMAGE_TOPIC,
    log::{Walked, memory_files::MemoryFiles},
    views::MemoryViews,
};

const HOUR_MS: u64 = 3_600_000;
pub(super) const GROUP: &str = "g";

pub(super) fn options() -> StoreOptions {
    let mut options = StoreOptions::new("/store");
    options.segment_bytes = SEGMENT_BYTES;
    options.retention.age_ms = HOUR_MS;
    options
}

pub(super) fn now(hours: u64) -> Now {
    let now_ms = 1_700_000_000_000 + hours * HOUR_MS;
    Now { wall_ms: now_ms, monotonic_ms: now_ms }
}

fn settle(store: &Store) {
    store.sync().unwrap();
    while store.apply_views(100).unwrap() > 0 {}
}

pub(super) fn send(store: &Store, topic: &Arc<Topic>, body: &str, now: Now) -> QueueOffset {
    let mut batch = Batch::new();
    push(&mut batch, topic, 0, "", body);
    store.append(&mut batch, now).unwrap();
    settle(store);
    batch.placed(0).queue_offset
}

/// A log that has forgotten its begin, and holds three images from which views can be made.
pub(super) struct Aged {
    pub(super) disk: MemoryFiles,
    pub(super) views: MemoryViews,
    /// Where the images begin, the newest last.
    pub(super) images: Vec<u64>,
    pub(super) hours: u64,
}

impl Aged {
    pub(super) fn new() -> Self {
        let (disk, views) = (MemoryFiles::new(), Arc::new(MemoryViews::new()));
        let files = Arc::new(disk.clone());
        let (store, _) = Store::open_on(options(), views.clone(), files, now(0)).unwrap();
        let config = TopicConfig::new(TopicName::new("orders").unwrap(), 2);
        let topic = store.put_topic(config, now(0)).unwrap().0;
        store.commit_offsets(&[commit(GROUP, &topic, 1, 7)], now(0)).unwrap();
        let mut hours = 0;
        while store.log_start().0 == 0 {
            hours += 1;
            send(&store, &topic, &"m".repeat(900), now(hours));
            store.maintain(now(hours)).unwrap();
            assert!(hours < 1_000, "the log forgets");
        }
        for offset in [8, 9] {
            store.commit_offsets(&[commit(GROUP, &topic, 0, offset)], now(hours)).unwrap();
            send(&store, &topic, "m", now(hours));
            store.write_image(now(hours)).unwrap();
        }
        store.close(now(hours)).unwrap();
        let images = images_of(&store);
        assert_eq!(images.len(), 3);
        Self { disk, views: views.settled(), images, hours }
    }

    /// The disk with a flipped bit in each of these records.
    pub(super) fn flipped(&self, records: &[u64]) -> MemoryFiles {
        flip_on(self.disk.copy(), records)
    }

    pub(super) fn open(
        &self,
        disk: MemoryFiles,
        views: MemoryViews,
    ) -> Result<Arc<Store>, OpenError> {
        let opened = Store::open_on(options(), Arc::new(views), Arc::new(disk), now(self.hours));
        opened.map(|(store, _)| store)
    }
}

/// The disk with a flipped bit in each of these records.
pub(super) fn flip_on(disk: MemoryFiles, records: &[u64]) -> MemoryFiles {
    for begin in records {
        let base = begin / SEGMENT_BYTES * SEGMENT_BYTES;
        let path = format!("/store/log/{base:020}");
        disk.damage(path.as_ref(), |bytes| bytes[(begin - base) as usize + 95] ^= 4);
    }
    disk
}

fn images_of(store: &Store) -> Vec<u64> {
    let mut begins = Vec::new();
    let mut cursor = store.log.records(store.log_start(), store.written());
    while let Some(walked) = cursor.next().unwrap() {
        let Walked::Record { position, record } = walked else { panic!("{walked:?}") };
        // The second byte tells that an image begins.
        if record.topic() == IMAGE_TOPIC && record.body()[1] == 1 {
            begins.push(position.0);
        }
    }
    begins
}

/// Offsets of the group, next offsets and bodies: what a client may ask for.
pub(super) type Seen = (Vec<Option<QueueOffset>>, Vec<u64>, Vec<String>);

pub(super) fn seen(store: &Store) -> Seen {
    let topic = store.topic("orders").unwrap();
    let queues = [QueueId(0), QueueId(1)];
    let offsets = queues.iter().map(|queue| store.offset(GROUP, &topic, *queue)).collect();
    let bounds = |queue| store.queue_bounds(&topic, queue).unwrap();
    let nexts = queues.iter().map(|queue| bounds(*queue).max.0).collect();
    let (mut bodies, mut from) = (Vec::new(), bounds(QueueId(0)).min);
    loop {
        let mut out = BytesMut::new();
        let read = store.read_queue(&topic, QueueId(0), from, LIMITS, &|_| true, &mut out).unwrap();
        bodies.extend(gantry_record::records(&out).map(|record| body_of(&record.unwrap())));
        if read.next == from {
            return (offsets, nexts, bodies);
        }
        from = read.next;
    }
}

/// What `store` says is what it said before; next offsets may be behind a gap.
pub(super) fn check_same(store: &Store, before: &Seen, name: &str) {
    let after = seen(store);
    assert_eq!(after.0, before.0, "{name}");
    assert!(after.1.iter().zip(&before.1).all(|(after, before)| after >= before), "{name}");
    assert!(after.2 == before.2, "{name}: {} messages of {}", after.2.len(), before.2.len());
}

#[test]
fn rebuild_takes_an_older_image_where_newer_ones_are_damaged() {
    let aged = Aged::new();
    let before = seen(&aged.open(aged.disk.copy(), aged.views.settled()).unwrap());
    assert_eq!(before.0, [Some(QueueOffset(9)), Some(QueueOffset(7))]);
    for damaged in [0..0, 0..1, 2..3, 1..3] {
        let disk = aged.flipped(&aged.images[damaged.clone()]);
        let store = aged.open(disk, MemoryViews::new()).unwrap();
        check_same(&store, &before, &format!("{damaged:?}"));
    }
}

#[test]
fn start_without_views_and_without_a_whole_image_says_what_is_lost() {
    let aged = Aged::new();
    let disk = aged.flipped(&aged.images);
    let error = aged.open(disk.clone(), MemoryViews::new()).unwrap_err();
    assert!(matches!(error, OpenError::StateLost { .. }), "{error}");
    assert!(error.to_string().starts_with("topics, groups and offsets are lost"), "{error}");
    let store = aged.open(disk, aged.views.settled()).unwrap();
    assert_eq!(store.offset(GROUP, &store.topic("orders").unwrap(), QueueId(1)).unwrap().0, 7);
}

#[test]
fn newest_image_that_is_damaged_is_written_anew_while_the_views_are_there() {
    let aged = Aged::new();
    // Found at the start, and by a scrub while the store is open.
    for is_open in [false, true] {
        let disk = if is_open { aged.disk.copy() } else { aged.flipped(&aged.images) };
        let store = aged.open(disk.clone(), aged.views.settled()).unwrap();
        if is_open {
            for path in disk.paths() {
                let bytes = aged.flipped(&aged.images).bytes(&path).unwrap();
                disk.damage(&path, |changed| changed.clone_from(&bytes));
            }
            assert!(!store.maintain(now(aged.hours)).unwrap().image_written);
            while store.scrub_step(1 << 20, HOUR_MS, now(aged.hours)).unwrap() {}
        }
        let before = seen(&store);
        assert!(store.maintain(now(aged.hours)).unwrap().image_written, "open: {is_open}");
        assert!(!store.maintain(now(aged.hours)).unwrap().image_written, "once, open: {is_open}");
        store.close(now(aged.hours)).unwrap();
        let store = aged.open(disk, MemoryViews::new()).unwrap();
        check_same(&store, &before, &format!("open: {is_open}"));
    }
}

/// What a consumer gets that has read the flipped message before.
fn next_is_behind(flipped: &Flipped, used: u64, name: &str) {
    let topic = flipped.store.topic("orders").unwrap();
    let queue = QueueId(0);
    let read = |from: u64| {
        let (from, mut out) = (QueueOffset(from), BytesMut::new());
        let read = flipped.store.read_queue(&topic, queue, from, LIMITS, &|_| true, &mut out);
        (read.unwrap(), gantry_record::records(&out).count())
    };
    let max = flipped.store.queue_bounds(&topic, queue).unwrap().max;
    assert!(max.0 >= used, "{name}: {max}");
    let waits = read(used).0;
    assert_eq!(waits.next, max, "{name}: nobody asks for the gap again");
    assert_eq!(waits.status == ReadStatus::AtEnd, max.0 == used, "{name}");
    let offset = send(&flipped.store, &topic, "new", now(0));
    assert_eq!(offset, max, "{name}");
    assert_eq!(read(used).1, 1, "{name}: the new message is given out");
}

#[test]
fn offset_of_a_queues_last_message_is_not_given_again_whatever_bit_of_it_flips() {
    let scene = Scene::with(&[&["a", "b", "last"]]);
    let place = scene.messages[2].1.clone();
    for at in place.clone() {
        let bit = (at % 8) as u32;
        let name = format!("byte {}, bit {bit}", at - place.start);
        let flipped = scene.flipped(at, bit, Views::Lost);
        assert_eq!(flipped.read_all(), ["a", "b"], "{name}");
        let flipped = flipped.reopened();
        next_is_behind(&flipped, 3, &name);
        assert_eq!(flipped.reopened().read_all(), ["a", "b", "new"], "{name}");
    }
}

#[test]
fn offset_of_a_queues_only_message_is_not_given_again() {
    let scene = Scene::with(&[&["only"]]);
    let flipped = scene.flipped(scene.messages[0].1.end - 50, 3, Views::Lost);
    next_is_behind(&flipped, 1, "only");
    assert_eq!(flipped.read_all(), ["new"]);
}

#[test]
fn queue_that_goes_on_behind_the_damage_has_no_gap() {
    let scene = Scene::with(&[&["a", "bad"], &["c"]]);
    let flipped = scene.flipped(scene.messages[1].1.start + 100, 3, Views::Lost);
    let topic = flipped.store.topic("orders").unwrap();
    assert_eq!(flipped.store.queue_bounds(&topic, QueueId(0)).unwrap().max.0, 3);
    assert_eq!(send(&flipped.store, &topic, "d", now(0)).0, 3);
}

#[test]
fn damaged_header_leaves_no_gap_since_it_hides_no_message() {
    let scene = Scene::with(&[&["a"]]);
    let header = scene.own(crate::log::SEGMENT_TOPIC).remove(0);
    let flipped = scene.flipped(header.start + 100, 3, Views::Lost);
    assert!(flipped.reports_only(header.start));
    let topic = flipped.store.topic("orders").unwrap();
    assert_eq!(send(&flipped.store, &topic, "b", now(0)).0, 1);
    assert_eq!(flipped.store.log.locate(PhysicalOffset(0)).1, Some(0));
}
