//! What a user, and the views, show of a store that was opened after a crash.
//! Invariant: two stores with the same log show the same, whatever views they began with.

use std::{collections::BTreeMap, sync::Arc};

use bytes::BytesMut;
use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicId};
use gantry_record::records;

use super::super::world::{LIMITS, body_of, kept_entries};
use crate::{Store, Topic};

/// The messages of a queue that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenQueue {
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) bodies: Vec<String>,
}

/// Everything that can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) start: PhysicalOffset,
    end: PhysicalOffset,
    pub(super) queues: BTreeMap<(TopicId, u32), SeenQueue>,
    /// Topics, groups, offsets and timers by name.
    pub(super) values: BTreeMap<String, String>,
    versions: String,
    entries: Vec<String>,
}

impl Seen {
    pub(super) fn of(store: &Store) -> Self {
        while store.apply_views(5).unwrap() > 0 {}
        let mut seen = Self {
            start: store.log_start(),
            end: store.written(),
            queues: BTreeMap::new(),
            values: BTreeMap::new(),
            versions: format!("{:?} {:?}", store.topics_version(), store.groups_version()),
            entries: kept_entries(store),
        };
        for topic in store.topics() {
            seen.topic(store, &topic);
        }
        for group in store.groups() {
            let name = format!("group {}", group.group_name);
            seen.values.insert(name, group.retry_max_times.to_string());
        }
        for timer in store.due_timers(u64::MAX - 1, 1000).unwrap() {
            assert!(store.read_record(timer.position).unwrap().is_some(), "{timer:?}");
            let count = seen.values.entry(format!("timer {}", timer.due_ms)).or_default();
            count.push_str("pending");
        }
        seen
    }

    fn topic(&mut self, store: &Store, topic: &Arc<Topic>) {
        let name = format!("topic {}", topic.name());
        self.values.insert(name, topic.id.0.to_string());
        for queue in 0..topic.config.write_queues {
            self.queues.insert((topic.id, queue), read_all(store, topic, queue));
            if let Some(offset) = store.offset("g", topic, QueueId(queue)) {
                let name = format!("offset {} {queue}", topic.name());
                self.values.insert(name, offset.0.to_string());
            }
        }
    }
}

fn read_all(store: &Store, topic: &Topic, queue: u32) -> SeenQueue {
    let bounds = store.queue_bounds(topic, QueueId(queue)).unwrap();
    let (mut from, mut bodies) = (bounds.min, Vec::new());
    while from < bounds.max {
        let mut out = BytesMut::new();
        let read =
            store.read_queue(topic, QueueId(queue), from, LIMITS, &|_| true, &mut out).unwrap();
        for record in records(&out) {
            let record = record.unwrap();
            let offset = QueueOffset(bounds.min.0 + bodies.len() as u64);
            assert_eq!(record.queue_offset(), offset, "one record an offset, in order");
            bodies.push(body_of(&record));
        }
        assert!(read.next > from, "{read:?}");
        from = read.next;
    }
    SeenQueue { min: bounds.min.0, max: bounds.max.0, bodies }
}
