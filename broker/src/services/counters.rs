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

/// All counts of a broker.
#[derive(Debug, Default)]
pub struct Counters {
    messages_in: Table<(TopicName, MessageKind)>,
    messages_out: Table<(TopicName, GroupName)>,
    dead_letters: Table<(TopicName, GroupName)>,
    sent_back: Table<(TopicName, GroupName)>,
    /// Sends refused, whatever the reason.
    pub refused_sends: AtomicU64,
    /// Timers that fired.
    pub timers_fired: AtomicU64,
    /// Parked messages whose topic was gone when they were due.
    pub timers_dropped: AtomicU64,
    /// Pulls that were held.
    pub held_pulls: AtomicU64,
    /// Background work that failed; each failure is logged.
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
