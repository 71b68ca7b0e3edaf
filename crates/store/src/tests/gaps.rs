//! Promises about the gaps that damage leaves in queues: consumers pass them in one step, only queues that may have lost
//! something have one, and however many queues there are, a damaged place costs next to nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::BytesMut;
use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicConfig, TopicName};

use super::{
    faults_world::FaultWorld,
    world::{LIMITS, commit, push},
};
use crate::{
    Batch, Flush, OffsetCommit, QueueRead, ReadStatus, Store, Topic, ViewError,
    views::{
        Direction, MemoryViews, Op, Snapshot, View, ViewBatch, ViewRead, ViewStore, Visit, layout,
    },
};

const GROUP: &str = "g";

/// Bytes of the smallest message, as the storage format gives them.
const SMALLEST: u64 = 112;

fn topic_of(world: &FaultWorld, name: &str, queues: u32) -> Arc<Topic> {
    let config = TopicConfig::new(TopicName::new(name).unwrap(), queues);
    world.store.put_topic(config, world.now).unwrap().0
}

/// Sends a message and syncs it, so that a mark covers it once another follows.
fn send(world: &FaultWorld, topic: &Arc<Topic>, queue: u32, body: &str) -> PhysicalOffset {
    let mut batch = Batch::new();
    push(&mut batch, topic, queue, "", body);
    world.store.append(&mut batch, world.now).unwrap();
    world.settle();
    batch.placed(0).position
}

/// Flips a bit of the record at `position`.
fn flip(world: &FaultWorld, position: PhysicalOffset) {
    let (path, at) = world.store.log.locate(position);
    let at = at.unwrap() as usize + 100;
    world.disk.damage(&path, |bytes| bytes[at] ^= 4);
}

fn size_of(world: &FaultWorld, position: PhysicalOffset) -> u64 {
    world.store.read_record(position).unwrap().unwrap().len() as u64
}

/// The store as a start without views finds it.
fn without_views(world: &FaultWorld) -> FaultWorld {
    FaultWorld::on(world.disk.copy(), Arc::default(), world.options.clone(), world.now)
}

fn max(world: &FaultWorld, topic: &Topic, queue: u32) -> u64 {
    world.store.queue_bounds(topic, QueueId(queue)).unwrap().max.0
}

fn read(store: &Store, topic: &Topic, queue: u32, from: u64) -> QueueRead {
    let (queue, from) = (QueueId(queue), QueueOffset(from));
    store.read_queue(topic, queue, from, LIMITS, &|_| true, &mut BytesMut::new()).unwrap()
}

#[test]
fn consumer_of_an_idle_queue_passes_the_gap_in_one_step_from_anywhere_in_it_and_its_lag_is_zero() {
    let world = FaultWorld::new(Flush::Sync);
    let topic = topic_of(&world, "orders", 1);
    send(&world, &topic, 0, "a");
    let lost = send(&world, &topic, 0, &"lost".repeat(200));
    let offset = commit(GROUP, &topic, 0, 2);
    world.store.commit_offsets(&[offset], world.now).unwrap();
    world.settle();
    let skipped = size_of(&world, lost) / SMALLEST;
    assert!(skipped > 5);
    flip(&world, lost);

    let world = without_views(&world);
    let topic = world.store.topic("orders").unwrap();
    let end = max(&world, &topic, 0);
    // One message is known, and as many as the place could hold may be lost.
    assert_eq!(end, 1 + skipped);
    let lag = || {
        let consumed = world.store.offset(GROUP, &topic, QueueId(0)).unwrap().0;
        max(&world, &topic, 0) - consumed
    };
    assert_eq!(lag(), end - 2, "it looks like a backlog until the consumer asks");
    for from in 1..end {
        let answer = read(&world.store, &topic, 0, from);
        assert_eq!((answer.messages, answer.next.0, answer.max.0), (0, end, end), "{from}");
        assert_eq!(answer.status, ReadStatus::NoMatch, "{from}: asked again at once, not held");
    }
    assert_eq!(read(&world.store, &topic, 0, end).status, ReadStatus::AtEnd);
    let offset = OffsetCommit { offset: QueueOffset(end), ..commit(GROUP, &topic, 0, 0) };
    world.store.commit_offsets(&[offset], world.now).unwrap();
    assert_eq!(lag(), 0);
}

#[test]
fn only_queues_of_which_no_message_lies_behind_the_place_have_a_gap() {
    let world = FaultWorld::new(Flush::Sync);
    let topic = topic_of(&world, "orders", 4);
    send(&world, &topic, 0, "before");
    send(&world, &topic, 1, "before");
    let lost = [0, 1].map(|_| send(&world, &topic, 2, "lost"));
    send(&world, &topic, 1, "between");
    let later = send(&world, &topic, 2, "lost too");
    send(&world, &topic, 0, "behind");
    let young = topic_of(&world, "young", 1);
    send(&world, &topic, 3, "behind");
    assert_eq!(max(&world, &young, 0), 0);
    let (first, second) = (size_of(&world, lost[0]) / SMALLEST, size_of(&world, later) / SMALLEST);
    lost.into_iter().chain([later]).for_each(|position| flip(&world, position));

    let world = without_views(&world);
    let topic = world.store.topic("orders").unwrap();
    let ends = [0, 1, 2, 3].map(|queue| max(&world, &topic, queue));
    assert_eq!(ends[0], 2, "its last message lies behind every place");
    assert_eq!(ends[1], 2 + second, "its last message lies behind the first two");
    assert!(
        ends[2] >= 3 && ends[2] >= 2 * first + second,
        "all of its messages are lost: {ends:?}"
    );
    assert_eq!(ends[3], 1);
    assert_eq!(max(&world, &world.store.topic("young").unwrap(), 0), 0, "it is younger");
    assert!(noted(&*world.views).is_empty(), "nothing is left of the places");
    let again = world.after_restart();
    let topic = again.store.topic("orders").unwrap();
    assert_eq!([0, 1, 2, 3].map(|queue| max(&again, &topic, queue)), ends, "and once is enough");
}

/// Keys of the places that are still to be reckoned with.
fn noted(views: &dyn ViewRead) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let keys = layout::prefix_range(layout::LOST);
    let keys = &keys.start[..]..&keys.end[..];
    views
        .scan(View::Meta, keys, Direction::Forward, &mut |key, _| {
            found.push(key.to_vec());
            crate::views::Step::Next
        })
        .unwrap();
    found
}

/// Views in memory that count what is written, and fail from a number of batches on.
struct Counted {
    views: MemoryViews,
    bytes: AtomicU64,
    left: AtomicU64,
}

impl Counted {
    fn new(batches: u64) -> Self {
        let (bytes, left) = (AtomicU64::new(0), AtomicU64::new(batches));
        Self { views: MemoryViews::new(), bytes, left }
    }
}

impl ViewRead for Counted {
    fn get(&self, view: View, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        self.views.get(view, key)
    }

    fn scan(
        &self,
        view: View,
        keys: std::ops::Range<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ViewError> {
        self.views.scan(view, keys, direction, visit)
    }
}

impl ViewStore for Counted {
    fn apply(&self, batch: &ViewBatch) -> Result<(), ViewError> {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_err() {
            let source = Box::new(std::io::Error::other("no more batches"));
            return Err(ViewError::Store { action: "write", source });
        }
        let of = |op| match op {
            Op::Put(_, key, value) => key.len() + value.len(),
            Op::Delete(_, key) => key.len(),
            Op::DeleteRange(_, from, to) => from.len() + to.len(),
        };
        let bytes: usize = batch.ops().map(of).sum();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.views.apply(batch)
    }

    fn flush(&self) -> Result<(), ViewError> {
        self.views.flush()
    }

    fn snapshot(&self) -> Snapshot<'_> {
        self.views.snapshot()
    }

    fn clear(&self) -> Result<(), ViewError> {
        self.views.clear()
    }

    fn note_log_start(&self, position: PhysicalOffset) {
        self.views.note_log_start(position);
    }

    fn size_bytes(&self) -> u64 {
        self.views.size_bytes()
    }
}

/// A log of a topic with so many queues, of which `places` messages on the first are damaged, each behind a good one.
fn damaged_log(queues: u32, places: usize) -> FaultWorld {
    let world = FaultWorld::new(Flush::Sync);
    let topic = topic_of(&world, "orders", queues);
    send(&world, &topic, 0, "a");
    let lost: Vec<_> = (0..places)
        .map(|_| {
            let lost = send(&world, &topic, 0, "lost");
            send(&world, &topic, 1, "good");
            lost
        })
        .collect();
    for position in lost {
        flip(&world, position);
    }
    world
}

fn open_counted(world: &FaultWorld, views: &Arc<Counted>) -> Result<Arc<Store>, crate::OpenError> {
    let files = Arc::new(world.disk.clone());
    let views = Arc::clone(views) as Arc<dyn ViewStore>;
    Store::open_on(world.options.clone(), views, files, world.now).map(|(store, _)| store)
}

#[test]
fn each_of_ten_thousand_queues_is_written_once_however_many_places_are_damaged() {
    const QUEUES: u32 = 10_000;
    let written = |places: usize| {
        let world = damaged_log(QUEUES, places);
        let views = Arc::new(Counted::new(u64::MAX));
        let store = open_counted(&world, &views).unwrap();
        assert_eq!(store.status().damaged_records, places as u64);
        let topic = store.topic("orders").unwrap();
        let idle = store.queue_bounds(&topic, QueueId(QUEUES - 1)).unwrap().max.0;
        assert!(idle >= places as u64, "{idle}");
        views.bytes.load(Ordering::Relaxed)
    };
    let (one, forty) = (written(1), written(40));
    // Its key and its value.
    let of_queues = u64::from(QUEUES) * (9 + 8);
    assert!(one < of_queues + 10_000, "{one}");
    assert!(forty - one < 40 * 500, "{forty} - {one}");
}

#[test]
fn replay_that_ends_halfway_forgets_no_gap_whichever_batch_was_its_last() {
    let world = damaged_log(3, 3);
    let whole = Arc::new(Counted::new(u64::MAX));
    let ends = |store: &Store| {
        let topic = store.topic("orders").unwrap();
        [0, 1, 2].map(|queue| store.queue_bounds(&topic, QueueId(queue)).unwrap().max.0)
    };
    let expected = ends(&open_counted(&world, &whole).unwrap());
    let mut stopped = 0;
    for batches in 1.. {
        // Each start finds the log as the first one did.
        let cut = FaultWorld { disk: world.disk.copy(), ..without_views(&world) };
        let views = Arc::new(Counted::new(batches));
        match open_counted(&cut, &views) {
            Ok(_) => break,
            Err(_) => stopped += 1,
        }
        views.left.store(u64::MAX, Ordering::Relaxed);
        let store = open_counted(&cut, &views).unwrap();
        assert_eq!(ends(&store), expected, "after {batches} batches");
    }
    assert!(stopped > 4, "{stopped}");
}
