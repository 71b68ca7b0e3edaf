//! Retention per topic: hides messages that are older than their topic says.
//! Invariant: the time before which a topic's messages are hidden is a record of the log and never goes back, whatever
//! happens to the topic's retention, to the clock or to the process.
//! Leaves the space to the log's own retention, and how often to look to the store's owner.

use std::sync::Arc;

use gantry_model::{QueueId, TopicId};

use crate::{
    errors::ReadError, options::Now, queues::Queue, retention::RetentionError, state::StateEntry,
    store::Store, tables::Tables, topics::Topic, types::Bounds,
};

impl Store {
    /// Hides what has grown older than its topic's retention, to be called about once a second; returns how many topics
    /// had such messages. Messages that wait for a time are not hidden: their age counts from their delivery.
    ///
    /// # Errors
    /// Nothing is hidden; the next call tries again.
    pub fn hide_expired(&self, now: Now) -> Result<usize, RetentionError> {
        // Not under the lock of the topics: upkeep asks for it under its own.
        let mut due = self.tables.topics.read().with_retention();
        for (_, time_ms) in &mut due {
            *time_ms = self.upkeep.stored_before(*time_ms, now);
        }
        let mut expired = Vec::new();
        for (topic, before_ms) in due {
            if self.has_message_before(&topic, before_ms)? {
                expired.push((topic.id, before_ms));
            }
        }
        if !expired.is_empty() {
            self.append_state(now, |tables| hidden_entries(tables, &expired))?;
        }
        Ok(expired.len())
    }

    /// Whether a reader sees a message of the topic that was stored before a time.
    fn has_message_before(&self, topic: &Topic, before_ms: u64) -> Result<bool, ReadError> {
        if before_ms <= topic.hidden_before_ms() {
            return Ok(false);
        }
        for queue in 0..topic.config.queues() {
            if let Some(queue) = self.find_queue(topic, QueueId(queue))?
                && self.first_time_ms(topic, &queue)?.is_some_and(|first_ms| first_ms < before_ms)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Store time of a queue's first message.
    fn first_time_ms(&self, topic: &Topic, queue: &Arc<Queue>) -> Result<Option<u64>, ReadError> {
        let Bounds { min, max } = self.bounds_of(topic, queue)?;
        if min == max {
            return Ok(None);
        }
        let known = {
            let state = queue.state.lock();
            state.min_time_ms.filter(|_| state.min == min.0)
        };
        if known.is_some() {
            return Ok(known);
        }
        let first = self.first_entry(queue, min, max)?.map(|(_, entry)| entry.store_time_ms);
        let mut state = queue.state.lock();
        if state.min == min.0 {
            state.min_time_ms = first;
        }
        Ok(first)
    }
}

/// Entries for those topics that still are there.
fn hidden_entries(tables: &Tables, expired: &[(TopicId, u64)]) -> Vec<StateEntry> {
    let topics = tables.topics.read();
    let known = expired.iter().filter(|(id, _)| topics.by_id(*id).is_some());
    known.map(|&(topic, before_ms)| StateEntry::Hidden { topic, before_ms }).collect()
}
