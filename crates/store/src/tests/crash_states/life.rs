//! The life of a store whose every step is crashed: a script that appends, rolls, syncs, carries, writes images,
//! unlinks and writes files again.
//! Invariant: one thread and no dice, so that each run makes the same changes.

use std::{collections::BTreeSet, sync::Arc};

use gantry_model::{GroupConfig, GroupName, PhysicalOffset, TopicConfig, TopicName};

use super::{
    super::world::{commit, fire, park, push},
    history::History,
    steps::{self, Sort},
    views::Moments,
};
use crate::{
    Batch, Flush, Now, Store, StoreOptions, Topic, change::PARK_TOPIC,
    log::memory_files::MemoryFiles, views::MemoryViews,
};

pub(super) const START_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const ROUNDS: u64 = 3;
const SENDS_A_ROUND: u64 = 16;

pub(super) fn options(flush: Flush) -> StoreOptions {
    let mut options = StoreOptions::new("/store");
    options.flush = flush;
    options.segment_bytes = 8 * 1024;
    options.retention.age_ms = HOUR_MS;
    options
}

/// A store that is being lived in.
pub(super) struct Life {
    pub(super) flush: Flush,
    pub(super) disk: MemoryFiles,
    pub(super) moments: Moments,
    pub(super) history: History,
    pub(super) steps: BTreeSet<Sort>,
    pub(super) now_ms: u64,
    store: Arc<Store>,
}

impl Life {
    /// Lived to the end, from the making of the store to its closing.
    pub(super) fn lived(flush: Flush) -> Self {
        let mut life = Self::begun(flush);
        let idle = life.idle();
        for round in 0..ROUNDS {
            life.traffic(round);
            life.short_lived(round);
            life.fire(&idle, 10 + round);
            life.stage(&idle, 100 + round);
            life.forget();
        }
        life.store.close(life.now()).unwrap();
        life.history.promise(life.disk.changes());
        assert!(life.history.starts_told() as u64 >= ROUNDS, "readers look on");
        steps::note_records(&life.disk, &mut life.steps);
        steps::note_operations(&life.disk, &mut life.steps);
        life
    }

    fn begun(flush: Flush) -> Self {
        let disk = MemoryFiles::new();
        disk.record();
        let views = Arc::new(MemoryViews::new());
        let moments = Moments::watch(&views, &disk);
        let now = Now { wall_ms: START_MS, monotonic_ms: START_MS };
        let files = Arc::new(disk.clone());
        let (store, _) = Store::open_on(options(flush), views, files, now).unwrap();
        let history = History::default();
        history.watch_start(&disk, &store);
        let (steps, now_ms) = (BTreeSet::new(), START_MS);
        Self { flush, disk, moments, history, steps, now_ms, store }
    }

    fn now(&self) -> Now {
        Now { wall_ms: self.now_ms, monotonic_ms: self.now_ms }
    }

    /// State of every sort, and a queue that gets no messages after these.
    fn idle(&mut self) -> Arc<Topic> {
        let idle = self.topic("idle", 1);
        (0..3).for_each(|n| self.send(&idle, 0, &[&format!("idle-{n}")]));
        self.topic(PARK_TOPIC, 1);
        (10..15).for_each(|due_ms| self.park(due_ms));
        let begun = self.disk.changes();
        let mut group = GroupConfig::new(GroupName::new("g").unwrap());
        group.retry_max_times = 3;
        self.store.put_group(group, self.now()).unwrap();
        self.history.set(begun, "group g", "3");
        self.commit(&idle, 7);
        self.sync();
        self.apply();
        self.store.views.flush().unwrap();
        idle
    }

    /// Enough messages to roll, with syncs, batches of views and flushes of them in between.
    fn traffic(&mut self, round: u64) {
        let busy = self.topic("busy", 2);
        for n in 0..SENDS_A_ROUND {
            let body = |part: u64| {
                let size = 40 + (n * 7 + part * 5) % 4 * 300;
                format!("{round}-{n}-{part}-{}", "x".repeat(size as usize))
            };
            let bodies: Vec<_> = (0..=n % 3).map(body).collect();
            let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
            self.send(&busy, (n % 2) as u32, &bodies);
            if n % 4 == 2 {
                self.sync();
            }
            if n % 5 == 4 {
                self.store.apply_views(3).unwrap();
            }
            if n == 8 {
                self.store.views.flush().unwrap();
                self.commit(&busy, n + round);
            }
            self.now_ms += HOUR_MS / 10;
        }
    }

    fn short_lived(&mut self, round: u64) {
        if round.is_multiple_of(2) {
            let short = self.topic("short", 1);
            self.send(&short, 0, &[&format!("short-{round}")]);
            self.commit(&short, round + 1);
            return;
        }
        let begun = self.disk.changes();
        self.store.delete_topic("short", self.now()).unwrap();
        self.history.set(begun, "topic short", "none");
        self.history.set(begun, "offset short 0", "none");
    }

    fn topic(&mut self, name: &str, queues: u32) -> Arc<Topic> {
        let begun = self.disk.changes();
        let config = TopicConfig::new(TopicName::new(name).unwrap(), queues);
        let topic = self.store.put_topic(config, self.now()).unwrap().0;
        self.history.set(begun, &format!("topic {name}"), topic.id.0.to_string());
        topic
    }

    fn send(&mut self, topic: &Arc<Topic>, queue: u32, bodies: &[&str]) {
        let mut batch = Batch::new();
        for body in bodies {
            push(&mut batch, topic, queue, "", body);
        }
        let begun = self.disk.changes();
        self.store.append(&mut batch, self.now()).unwrap();
        for (index, body) in bodies.iter().enumerate() {
            self.history.sent(begun, (topic.id, queue), body, batch.placed(index).position);
        }
    }

    fn park(&mut self, due_ms: u64) {
        let topic = self.store.topic(PARK_TOPIC).unwrap();
        let begun = self.disk.changes();
        let position = park(&self.store, &topic, "idle", due_ms, self.now());
        self.history.sent(begun, (topic.id, 0), "parked", position);
        self.history.set(begun, &format!("timer {due_ms}"), "pending");
    }

    fn fire(&mut self, target: &Arc<Topic>, due_ms: u64) {
        let begun = self.disk.changes();
        let timers = self.store.due_timers(due_ms, 1).unwrap();
        let ticket = fire(&self.store, target, due_ms, timers[0].position, self.now()).unwrap();
        self.history.sent(begun, (target.id, 0), "fired", PhysicalOffset(ticket.end.0 - 1));
        self.history.set(begun, &format!("timer {due_ms}"), "none");
    }

    fn commit(&mut self, topic: &Topic, offset: u64) {
        let begun = self.disk.changes();
        self.store.commit_offsets(&[commit("g", topic, 0, offset)], self.now()).unwrap();
        self.history.set(begun, &format!("offset {} 0", topic.name()), offset.to_string());
    }

    fn stage(&mut self, topic: &Topic, offset: u64) {
        self.store.stage_offset(commit("g", topic, 0, offset));
        let begun = self.disk.changes();
        self.store.write_staged_offsets(self.now()).unwrap();
        self.history.set(begun, &format!("offset {} 0", topic.name()), offset.to_string());
    }

    fn sync(&mut self) {
        self.store.sync().unwrap();
        self.history.promise(self.disk.changes());
    }

    fn apply(&self) {
        while self.store.apply_views(3).unwrap() > 0 {}
    }

    /// Lets segments go, which carries timers and writes an image.
    fn forget(&mut self) {
        self.sync();
        self.apply();
        // Before segments go, and what they were written for with them.
        steps::note_records(&self.disk, &mut self.steps);
        let begun = self.disk.changes();
        let before = self.store.log_start();
        let carried = self.store.maintain(self.now()).unwrap().timers_carried;
        assert!(self.store.log_start() > before, "nothing was forgotten");
        self.history.forgot(begun, self.store.log_start());
        // Copies of parked messages lie on the topic of parked messages as well.
        let park = self.store.topic(PARK_TOPIC).unwrap();
        for _ in 0..carried {
            self.history.sent(begun, (park.id, 0), "parked", self.store.log_start());
        }
        self.sync();
        self.apply();
    }
}
