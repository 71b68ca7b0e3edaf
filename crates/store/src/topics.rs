//! Topics: the table in memory, changed as soon as a definition is appended.
//! Invariant: an id is never given twice; a deleted topic's `Arc` says so wherever it is held.
//! Leaves the record to `state` and who may create what to the broker.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use gantry_model::{PhysicalOffset, TopicConfig, TopicId, TopicName};
use hashbrown::HashMap;

use crate::change;

/// Version of a table of definitions, as RocketMQ's tools see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DataVersion {
    /// Number of changes so far.
    pub counter: u64,
    /// Always 0: the state machine's version of the reference's controller.
    pub state_version: u64,
    /// Time of the last change, in milliseconds since 1970.
    pub timestamp_ms: u64,
}

impl DataVersion {
    /// The version after one more change.
    #[must_use]
    pub fn next(self, now_ms: u64) -> Self {
        let timestamp_ms = self.timestamp_ms.max(now_ms);
        Self { counter: self.counter + 1, timestamp_ms, ..self }
    }

    /// The later of two versions.
    #[must_use]
    pub fn newer(self, other: Self) -> Self {
        if other.counter > self.counter { other } else { self }
    }
}

/// One topic as it is defined.
#[derive(Debug)]
pub struct Topic {
    /// Its number, never given to another topic, even of the same name.
    pub id: TopicId,
    /// Its definition.
    pub config: TopicConfig,
    /// Where its epoch starts: messages of an earlier topic of that name are before it.
    pub since: PhysicalOffset,
    /// What the hashes of its keys have in common.
    key_seed: u64,
    shared: Arc<Shared>,
}

/// What all definitions of one id share, so that whoever holds an old one learns of it.
#[derive(Debug, Default)]
struct Shared {
    gone: AtomicBool,
    hidden_before_ms: AtomicU64,
}

impl Topic {
    /// Whether the topic was deleted.
    pub fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    /// Hash under which the key index holds a key of this topic.
    pub(crate) fn key_hash(&self, key: &str) -> u64 {
        change::key_hash_from(self.key_seed, key)
    }

    /// Messages stored before this time, in milliseconds since 1970, are hidden from readers. Never goes back.
    pub fn hidden_before_ms(&self) -> u64 {
        self.shared.hidden_before_ms.load(Ordering::Acquire)
    }

    /// Its name.
    pub fn name(&self) -> &TopicName {
        &self.config.topic_name
    }
}

/// All topics.
#[derive(Debug, Default)]
pub(crate) struct TopicTable {
    by_name: HashMap<TopicName, Arc<Topic>>,
    names: BTreeMap<TopicId, TopicName>,
    /// Those that say themselves how long their messages are kept: few of many, and looked at every second.
    retained: BTreeMap<TopicId, u64>,
    next_id: TopicId,
    version: DataVersion,
}

impl TopicTable {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub(crate) fn by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.names.get(&id).and_then(|name| self.by_name.get(name))
    }

    /// The topic whose epoch covers `position`: a message there belongs to it.
    pub(crate) fn covering(&self, name: &str, position: PhysicalOffset) -> Option<&Arc<Topic>> {
        self.get(name).filter(|topic| topic.since <= position)
    }

    /// Sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.by_name.values().cloned().collect();
        topics.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        topics
    }

    /// Topics that say themselves how long their messages are kept, in milliseconds.
    pub(crate) fn with_retention(&self) -> Vec<(Arc<Topic>, u64)> {
        let topic = |(id, retention_ms): (&TopicId, &u64)| {
            Some((Arc::clone(self.by_id(*id)?), *retention_ms))
        };
        self.retained.iter().filter_map(topic).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn next_id(&self) -> TopicId {
        self.next_id
    }

    pub(crate) fn version(&self) -> DataVersion {
        self.version
    }

    /// Sets a definition. One with a new id replaces, and ends, a topic of the same name.
    pub(crate) fn put(
        &mut self,
        id: TopicId,
        config: TopicConfig,
        since: PhysicalOffset,
        version: DataVersion,
    ) -> Arc<Topic> {
        let name = config.topic_name.clone();
        let old = self.by_name.get(&name);
        let shared = match old {
            Some(old) if old.id == id => Arc::clone(&old.shared),
            _ => Arc::default(),
        };
        if let Some(old) = old.filter(|old| old.id != id) {
            old.shared.gone.store(true, Ordering::Release);
            self.names.remove(&old.id);
            self.retained.remove(&old.id);
        }
        match config.retention_ms() {
            Some(retention_ms) => self.retained.insert(id, retention_ms),
            None => self.retained.remove(&id),
        };
        let topic =
            Arc::new(Topic { id, key_seed: change::key_seed(&name), config, since, shared });
        self.by_name.insert(name.clone(), Arc::clone(&topic));
        self.names.insert(id, name);
        self.next_id = self.next_id.max(TopicId(id.0 + 1));
        self.note_version(version);
        topic
    }

    pub(crate) fn remove(&mut self, id: TopicId, version: DataVersion) {
        self.note_version(version);
        self.retained.remove(&id);
        let Some(name) = self.names.remove(&id) else { return };
        if let Some(topic) = self.by_name.remove(&name) {
            topic.shared.gone.store(true, Ordering::Release);
        }
    }

    /// Hides a topic's messages stored before a time.
    pub(crate) fn hide(&self, id: TopicId, before_ms: u64) {
        if let Some(topic) = self.by_id(id) {
            topic.shared.hidden_before_ms.fetch_max(before_ms, Ordering::AcqRel);
        }
    }

    pub(crate) fn set_counters(&mut self, next_id: TopicId, version: DataVersion) {
        self.next_id = self.next_id.max(next_id);
        self.note_version(version);
    }

    fn note_version(&mut self, version: DataVersion) {
        self.version = self.version.newer(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, queues: u32) -> TopicConfig {
        TopicConfig::new(TopicName::new(name).unwrap(), queues)
    }

    #[test]
    fn topics_are_found_by_name_and_listed_by_it() {
        let mut table = TopicTable::default();
        let names = ["orders", "a", "orders-2", "Z", "b"];
        for (id, name) in names.into_iter().enumerate() {
            let since = PhysicalOffset(id as u64);
            table.put(TopicId(id as u32), config(name, 1), since, DataVersion::default());
        }
        let listed: Vec<_> = table.all().iter().map(|topic| topic.name().to_string()).collect();
        assert_eq!(listed, ["Z", "a", "b", "orders", "orders-2"]);
        for (id, name) in names.into_iter().enumerate() {
            assert_eq!(table.get(name).map(|topic| topic.id), Some(TopicId(id as u32)));
        }
        assert!(table.get("order").is_none());
    }

    #[test]
    fn topic_made_again_has_another_id_and_the_old_one_is_gone() {
        let mut table = TopicTable::default();
        let version = DataVersion::default();
        let old = table.put(table.next_id(), config("a", 1), PhysicalOffset(0), version);
        table.remove(old.id, version);
        let new = table.put(table.next_id(), config("a", 1), PhysicalOffset(50), version);
        assert_ne!(old.id, new.id);
        assert!(old.is_gone() && !new.is_gone());
        assert!(table.by_id(old.id).is_none());
        assert!(table.covering("a", PhysicalOffset(49)).is_none());
        assert_eq!(table.covering("a", PhysicalOffset(50)).unwrap().id, new.id);
    }

    #[test]
    fn changed_definition_keeps_id_and_every_holder_learns_of_the_deletion() {
        let mut table = TopicTable::default();
        let version = DataVersion::default();
        let first = table.put(TopicId(3), config("a", 1), PhysicalOffset(0), version);
        let second = table.put(TopicId(3), config("a", 8), PhysicalOffset(0), version.next(5));
        table.remove(TopicId(3), version.next(6));
        assert!(first.is_gone() && second.is_gone());
        assert_eq!(table.next_id(), TopicId(4));
    }
}
