//! Counts of what went in and out, kept as plain numbers and read when somebody asks.
//! Invariant: counting takes no lock and one read of a table per batch.
//! Leaves names and labels of metrics to `metrics.rs`. Source: RocketMQ 5's metric names.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gantry_model::{GroupName, TopicName};
use hashbrown::HashMap;
use parking_lot::RwLock;

use super::{
    durations::{Durations, Ranges},
    waiting::Waiting,
};

/// Messages and their bytes.
#[derive(Debug, Default)]
pub struct Flow {
    calls: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    /// Counts one call with `messages` of `bytes` altogether.
    pub fn add(&self, messages: u64, bytes: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Messages and bytes so far.
    pub fn get(&self) -> (u64, u64) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

/// Kind of message that came in, a label of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageKind {
    /// None of the others.
    Normal,
    /// With an ordering key.
    Fifo,
    /// With a delay or a due time.
    Delay,
}

impl MessageKind {
    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Fifo => "fifo",
            Self::Delay => "delay",
        }
    }
}

/// What a flow counts. A topic may have several flows in, one for each kind of message.
#[derive(Debug, Clone, Copy)]
pub enum Counted<'a> {
    /// Messages that came in.
    In {
        /// The topic.
        topic: &'a TopicName,
    },
    /// Messages that went out.
    Out {
        /// The topic.
        topic: &'a TopicName,
        /// The group.
        group: &'a GroupName,
    },
    /// Messages sent back for another attempt.
    SentBack {
        /// The topic that they were sent to at first.
        topic: &'a TopicName,
        /// The group.
        group: &'a GroupName,
    },
}

type Table<K> = RwLock<HashMap<K, Arc<Flow>>>;

/// Times that requests took to be appended to the log, without the wait for the disk.
#[derive(Debug, Default)]
pub struct Puts {
    /// The times.
    pub times: Durations,
    /// The same by range.
    pub ranges: Ranges,
    /// When the append began that is under way, by the monotonic clock; 0: there is none.
    began_us: AtomicU64,
}

impl Puts {
    /// Carries out one append of several requests and counts how long it took.
    pub fn timed<R>(
        &self,
        requests: u64,
        now_us: impl Fn() -> u64,
        append: impl FnOnce() -> R,
    ) -> R {
        let began_us = now_us().max(1);
        // Of several at a time, the first is watched.
        let is_watched = self
            .began_us
            .compare_exchange(0, began_us, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        let result = append();
        if is_watched {
            self.began_us.store(0, Ordering::Relaxed);
        }
        let us = now_us().saturating_sub(began_us);
        self.times.add(us, requests);
        self.ranges.add(us, requests);
        result
    }

    /// How long the append has lasted that is under way, in microseconds; 0: there is none.
    pub fn under_way_us(&self, now_us: u64) -> u64 {
        match self.began_us.load(Ordering::Relaxed) {
            0 => 0,
            began_us => now_us.saturating_sub(began_us),
        }
    }
}

/// All counts of a broker.
#[derive(Debug, Default)]
pub struct Counters {
    messages_in: Table<(TopicName, MessageKind)>,
    messages_out: Table<(TopicName, GroupName)>,
    dead_letters: Table<(TopicName, GroupName)>,
    sent_back: Table<(TopicName, GroupName)>,
    /// Times that requests took to be appended.
    pub puts: Puts,
    /// Reads of queues that found a message.
    pub found_reads: AtomicU64,
    /// Reads of queues that found none.
    pub missed_reads: AtomicU64,
    /// Longest read of a queue, in microseconds.
    pub read_us_max: AtomicU64,
    /// Pulls that were read by those who may wait for the disk.
    pub cold_pulls: AtomicU64,
    /// Cold pulls that wait for their turn.
    pub waiting_pulls: Waiting,
    /// Look-ups that wait for their turn.
    pub waiting_look_ups: Waiting,
    /// Sends refused, whatever the reason.
    pub refused_sends: AtomicU64,
    /// Sends refused because they had waited for too long before they were read.
    pub late_sends: AtomicU64,
    /// Timers that fired.
    pub timers_fired: AtomicU64,
    /// Parked messages whose topic was gone when they were due.
    pub timers_dropped: AtomicU64,
    /// Pulls that were held.
    pub held_pulls: AtomicU64,
    /// Background work that failed; each new failure is logged.
    pub failures: AtomicU64,
}

impl Counters {
    /// Count of messages of this kind that came in for a topic.
    pub fn messages_in(&self, topic: &TopicName, kind: MessageKind) -> Arc<Flow> {
        flow(&self.messages_in, (topic.clone(), kind))
    }

    /// Count of messages of a topic that went out to a group.
    pub fn messages_out(&self, topic: &TopicName, group: &GroupName) -> Arc<Flow> {
        flow(&self.messages_out, (topic.clone(), group.clone()))
    }

    /// Count of messages of a topic that a group gave up.
    pub fn dead_letters(&self, topic: &TopicName, group: &GroupName) -> Arc<Flow> {
        flow(&self.dead_letters, (topic.clone(), group.clone()))
    }

    /// Count of messages of a topic that a group sent back.
    pub fn sent_back(&self, topic: &TopicName, group: &GroupName) -> Arc<Flow> {
        flow(&self.sent_back, (topic.clone(), group.clone()))
    }

    /// Calls `each` with every flow of messages that were not given up, and what it counts.
    pub fn each_flow(&self, mut each: impl FnMut(Counted<'_>, &Flow)) {
        for ((topic, _), flow) in self.messages_in.read().iter() {
            each(Counted::In { topic }, flow);
        }
        for ((topic, group), flow) in self.messages_out.read().iter() {
            each(Counted::Out { topic, group }, flow);
        }
        for ((topic, group), flow) in self.sent_back.read().iter() {
            each(Counted::SentBack { topic, group }, flow);
        }
    }

    /// Calls `each` with topic, kind, messages and bytes.
    pub fn each_in(&self, mut each: impl FnMut(&TopicName, MessageKind, u64, u64)) {
        for ((topic, kind), flow) in self.messages_in.read().iter() {
            let (messages, bytes) = flow.get();
            each(topic, *kind, messages, bytes);
        }
    }

    /// Calls `each` with topic, group, messages and bytes.
    pub fn each_out(&self, mut each: impl FnMut(&TopicName, &GroupName, u64, u64)) {
        for ((topic, group), flow) in self.messages_out.read().iter() {
            let (messages, bytes) = flow.get();
            each(topic, group, messages, bytes);
        }
    }

    /// Calls `each` with topic, group and messages.
    pub fn each_dead_letter(&self, mut each: impl FnMut(&TopicName, &GroupName, u64)) {
        for ((topic, group), flow) in self.dead_letters.read().iter() {
            each(topic, group, flow.get().0);
        }
    }

    /// Counts one read of a queue that took `us` microseconds.
    pub fn read(&self, has_found: bool, us: u64) {
        let reads = if has_found { &self.found_reads } else { &self.missed_reads };
        reads.fetch_add(1, Ordering::Relaxed);
        self.read_us_max.fetch_max(us, Ordering::Relaxed);
    }

    /// Counts one failure of background work.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// Keys are names, whose text is shared: making one copies no text.
fn flow<K: Hash + Eq>(table: &Table<K>, key: K) -> Arc<Flow> {
    if let Some(flow) = table.read().get(&key) {
        return Arc::clone(flow);
    }
    Arc::clone(table.write().entry(key).or_default())
}
