//! Where a message goes: topic and queue, or the dead letters of a group that gave it up.
//! Invariant: nobody sends to a topic that is not for clients; a group that may not be made leaves no retry topic.
//! Leaves making topics and groups to them, and messages that wait for a time to `stage`.

use std::sync::Arc;

use gantry_model::{GroupConfig, GroupName, QueueId, RETRY_PREFIX, may_clients_send};
use gantry_store::{Now, Topic};

use super::{SendError, SendRequest, Sends};
use crate::services::topics::{TIMER_TOPIC, TopicError};

/// Where a message goes after the special rules of retry topics.
pub(super) struct Target {
    pub(super) topic: Arc<Topic>,
    pub(super) queue: QueueId,
    /// The group gave the message up: it goes to its dead-letter topic, without delay.
    pub(super) gave_up: bool,
}

impl Sends {
    pub(super) fn target(&self, request: &SendRequest<'_>, now: Now) -> Result<Target, SendError> {
        let name = request.topic;
        if !may_send(name) {
            // An illegal name is the cause to tell of, if it is one as well.
            gantry_model::TopicName::new(name).map_err(TopicError::Name)?;
            return Err(SendError::Reserved { topic: name.into() });
        }
        // Before the topic, so that a group that may not be made leaves no retry topic behind.
        let retrying = name.strip_prefix(RETRY_PREFIX);
        let group = retrying.map(|group| self.groups.for_use(group, now)).transpose()?;
        let wanted = u32::try_from(request.template_queues).unwrap_or(1);
        let topic = self.topics.for_send(name, request.template, wanted, now)?;
        let queue = pick_queue(&topic, request.queue)?;
        let target = Target { topic, queue, gave_up: false };
        match group {
            None => Ok(target),
            Some(group) => self.retry_target(request, &group, target, now),
        }
    }

    fn retry_target(
        &self,
        request: &SendRequest<'_>,
        group: &GroupConfig,
        target: Target,
        now: Now,
    ) -> Result<Target, SendError> {
        if request.is_batch {
            return Err(SendError::BatchKind { reason: "the topic is a retry topic" });
        }
        let limit = request.reconsume_times_max.unwrap_or(group.retry_max_times);
        let ordered = self.locks.any_held(&group.group_name, now.monotonic_ms);
        if request.reconsume_times <= limit && !ordered {
            return Ok(target);
        }
        let topic = self.topics.dead_letter_topic(&group.group_name, now)?;
        self.note_dead_letter(&topic, &group.group_name);
        Ok(Target { topic, queue: QueueId(0), gave_up: true })
    }

    /// Counts a message that a group gave up.
    pub(in crate::services) fn note_dead_letter(&self, topic: &Topic, group: &GroupName) {
        self.counters.dead_letters(topic.name(), group).add(1, 0);
    }
}

/// Clients may not forge what waits for a time.
fn may_send(topic: &str) -> bool {
    may_clients_send(topic) && topic != TIMER_TOPIC && !topic.starts_with("rmq_sys_REVIVE_LOG_")
}

fn pick_queue(topic: &Topic, queue: i32) -> Result<QueueId, SendError> {
    let Ok(asked) = u32::try_from(queue) else {
        return Ok(QueueId(rand::random_range(0..topic.config.write_queues.max(1))));
    };
    let queues = topic.config.queues();
    if asked >= queues {
        return Err(SendError::Queue { topic: topic.name().to_string(), queue, queues });
    }
    Ok(QueueId(asked))
}
