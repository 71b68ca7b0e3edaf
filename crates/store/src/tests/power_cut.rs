//! Promises of the whole store across power cuts: any unsynced sector, name and view batch may be gone.

use std::{io::ErrorKind, path::PathBuf, sync::Arc};

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicConfig, TopicName};

use parking_lot::Mutex;

use super::world::{commit, park, push};
use crate::{
    Batch, Flush, Now, Store, StoreOptions,
    change::PARK_TOPIC,
    log::memory_files::{MemoryFiles, Operation},
    views::{MemoryViews, ViewRead as _},
};

const HOUR_MS: u64 = 3_600_000;

struct World {
    disk: MemoryFiles,
    views: Arc<MemoryViews>,
    store: Arc<Store>,
    now_ms: u64,
    is_rebuilt: bool,
}

impl World {
    fn on(disk: MemoryFiles, views: Arc<MemoryViews>, now_ms: u64) -> Self {
        let mut options = StoreOptions::new(PathBuf::from("/store"));
        options.flush = Flush::Sync;
        options.segment_bytes = 64 * 1024;
        options.retention.age_ms = HOUR_MS;
        let files = Arc::new(disk.clone());
        let now = Now { wall_ms: now_ms, monotonic_ms: now_ms };
        let (store, report) = Store::open_on(options, views.clone(), files, now).unwrap();
        assert_eq!(report.damage, []);
        Self { disk, views, store, now_ms, is_rebuilt: report.views_rebuilt }
    }

    fn now(&self) -> Now {
        Now { wall_ms: self.now_ms, monotonic_ms: self.now_ms }
    }

    fn topic(&self, name: &str) -> Arc<crate::Topic> {
        let config = TopicConfig::new(TopicName::new(name).unwrap(), 1);
        self.store.put_topic(config, self.now()).unwrap().0
    }

    fn send(&self, topic: &Arc<crate::Topic>, body: &str) {
        let mut batch = Batch::new();
        push(&mut batch, topic, 0, "", body);
        self.store.append(&mut batch, self.now()).unwrap();
    }

    fn park(&self, due_ms: u64) {
        park(&self.store, &self.topic(PARK_TOPIC), "idle", due_ms, self.now());
    }

    fn settle(&self) {
        self.store.sync().unwrap();
        while self.store.apply_views(100).unwrap() > 0 {}
    }

    /// State, and traffic behind it, all of it synced and old enough to go.
    fn aged() -> Self {
        let mut world = Self::on(MemoryFiles::new(), Arc::default(), 1_700_000_000_000);
        let idle = world.topic("idle");
        (0..20).for_each(|n| world.send(&idle, &format!("{n}")));
        (0..5).for_each(|n| world.park(n));
        world.store.commit_offsets(&[commit("g", &idle, 0, 7)], world.now()).unwrap();
        world.traffic();
        world
    }

    fn traffic(&mut self) {
        let busy = self.topic("busy");
        for _ in 0..150 {
            self.send(&busy, &"x".repeat(2000));
            self.now_ms += HOUR_MS / 50;
        }
        self.settle();
    }

    /// The log's start after a power cut now, with the views that were flushed and with none.
    fn starts_after_cut(&self, seed: u64) -> [PhysicalOffset; 2] {
        [self.views.after_crash(), MemoryViews::new()].map(|views| {
            let world = Self::on(self.disk.crash(seed), Arc::new(views), self.now_ms);
            world.check("cut");
            world.store.log_start()
        })
    }

    fn cut(self, seed: u64) -> Self {
        let views = Arc::new(self.views.after_crash());
        Self::on(self.disk.crash(seed), views, self.now_ms)
    }

    fn check(&self, context: &str) {
        let idle = self.store.topic("idle").expect(context);
        let offset = self.store.offset("g", &idle, QueueId(0));
        assert_eq!(offset, Some(QueueOffset(7)), "{context}");
        let bounds = self.store.queue_bounds(&idle, QueueId(0)).unwrap();
        assert_eq!(bounds.max, QueueOffset(20), "{context}");
        let timers = self.store.due_timers(u64::MAX - 1, 100).unwrap();
        let due: Vec<_> = timers.iter().map(|timer| timer.due_ms).collect();
        assert_eq!(due, [0, 1, 2, 3, 4], "{context}");
        for timer in timers {
            assert!(self.store.read_record(timer.position).unwrap().is_some(), "{context}");
        }
    }
}

#[test]
fn state_survives_a_power_cut_after_any_failed_step_of_forgetting() {
    use Operation::{Create, Remove, Rename, Resize, Sync, SyncDir, Write};
    let mut went = 0;
    for operation in [Write, Sync, SyncDir, Rename, Remove, Create, Resize] {
        for spared in 0..12 {
            for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
                let world = World::aged();
                let start = world.store.log_start();
                world.disk.fail(operation, spared, kind);
                // It fails, or the fault strikes later and it does not.
                let _ = world.store.maintain(world.now());
                went += u32::from(world.store.log_start() > start);
                let context = format!("{operation:?} {spared} {kind:?}");
                // The log alone is enough.
                for seed in 0..2 {
                    let disk = world.disk.crash(seed);
                    World::on(disk, Arc::default(), world.now_ms).check(&context);
                }
                let world = world.cut(spared as u64);
                world.check(&context);
                // And what was left undone is done now, once the views are there.
                world.settle();
                world.store.maintain(world.now()).unwrap();
                world.settle();
                assert!(world.store.log_start() > start, "{context}");
                world.check(&context);
                world.cut(spared as u64 + 100).check(&context);
            }
        }
    }
    assert!(went > 20, "faults struck before anything went: {went}");
}

#[test]
fn start_of_the_log_that_readers_were_told_never_goes_back_while_its_files_are_still_there() {
    for spared in 0..12 {
        let mut world = World::aged();
        let files = world.disk.paths().len();
        world.disk.fail(Operation::Rename, 0, ErrorKind::Other);
        world.store.maintain(world.now()).unwrap_err();
        let told = world.store.log_start();
        assert!(told > PhysicalOffset(0) && world.disk.paths().len() >= files);
        assert_eq!(world.starts_after_cut(spared), [told; 2]);
        // The views hold the record that says so: a replay does not come by it.
        world.settle();
        world.store.flush_views(world.store.confirmed()).unwrap();
        assert_eq!(world.starts_after_cut(spared), [told; 2]);
        // Neither does a rebuild, once a newer image is behind it.
        world.traffic();
        world.disk.fail(Operation::Write, spared as usize, ErrorKind::StorageFull);
        world.disk.fail(Operation::Rename, 0, ErrorKind::Other);
        world.store.maintain(world.now()).unwrap_err();
        let told = world.store.log_start();
        for start in world.starts_after_cut(spared) {
            assert!(start >= told, "{spared}: {start:?}, readers were told {told:?}");
        }
    }
}

#[test]
fn views_are_flushed_before_readers_are_told_of_a_new_start_and_before_a_segment_goes() {
    let world = World::aged();
    let moments = Arc::new(Mutex::new(Vec::new()));
    let (store, views, noted) =
        (Arc::downgrade(&world.store), Arc::clone(&world.views), Arc::clone(&moments));
    world.disk.record();
    world.disk.watch(move |_| {
        let start = store.upgrade().map(|store| store.log_start());
        noted.lock().push((start.unwrap_or_default(), views.after_crash().applied().unwrap()));
    });
    let gone = world.store.maintain(world.now()).unwrap().segments_removed;
    let moments = moments.lock();
    let told: Vec<_> = moments.iter().filter(|(start, _)| start.0 > 0).collect();
    // Each segment takes a change of its name and a sync of its folder.
    assert!(gone > 1 && told.len() as u64 >= 2 * gone, "{moments:?}");
    assert!(told.iter().all(|(start, flushed)| flushed >= start), "{moments:?}");
    drop(moments);
    assert!(!world.cut(1).is_rebuilt);
}
