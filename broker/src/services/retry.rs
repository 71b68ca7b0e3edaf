//! Send-back: a consumer could not handle a message and gets it again later, or never.
//! Invariant: the message is stored again, for its retry or dead-letter topic, before the consumer hears of success.
//! Leaves the wait to the timers. Source: RocketMQ remoting, request code 36.

use std::sync::Arc;

use gantry_model::{
    GroupConfig, GroupName, PhysicalOffset, QueueId, TopicName,
    properties::{DELAY, ORIGIN_MESSAGE_ID, RETRY_TOPIC, WAIT},
};
use gantry_record::{Draft, RecordError, RecordView, properties};
use gantry_store::{AppendError, EncodeError, Now, ReadError, Ticket, Topic};

use super::{
    compose::{DELAY_KEYS, PARK_KEYS, index_of_record, park, put, put_number},
    groups::GroupError,
    outbox::Outbox,
    send::Sends,
    timers::Due,
    topics::{SCHEDULE_TOPIC, TopicError},
};

/// A message that a consumer could not handle.
#[derive(Debug, Clone, Copy)]
pub struct SendBackRequest<'a> {
    /// The group that failed.
    pub group: &'a str,
    /// Position of the message in this broker's log, as the consumer has it.
    pub position: i64,
    /// Delay level; 0: by the number of attempts; negative: give up.
    pub delay_level: i32,
    /// Most attempts, if the client may and does say so.
    pub reconsume_times_max: Option<i32>,
}

/// Why a message was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum SendBackError {
    /// The group is unknown.
    #[error("subscription group not exist, {group}")]
    GroupUnknown {
        /// The group.
        group: String,
    },
    /// Its topics cannot be made.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Its topics cannot be made.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The retry topic may not be written.
    #[error("the topic[{topic}] sending message is forbidden")]
    Forbidden {
        /// The topic.
        topic: String,
    },
    /// There is no message at that position.
    #[error("look message by offset failed, {position}")]
    NotFound {
        /// The position.
        position: i64,
    },
    /// The message cannot be read.
    #[error("read the message at {position}")]
    Read {
        /// The position.
        position: i64,
        /// The cause.
        source: ReadError,
    },
    /// What was read is no message.
    #[error("parse the message at {position}")]
    Parse {
        /// The position.
        position: i64,
        /// The cause.
        source: RecordError,
    },
    /// The new message cannot be a record.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Sends {
    /// Stores the message again. `None`: the group wants no retries, the message is forgotten.
    pub fn send_back(
        &self,
        request: SendBackRequest<'_>,
        outbox: &mut Outbox,
        now: Now,
    ) -> Result<Option<Ticket>, SendBackError> {
        let unknown = || SendBackError::GroupUnknown { group: request.group.into() };
        let group = self.groups.get(request.group).ok_or_else(unknown)?;
        if group.retry_queue_nums <= 0 {
            return Ok(None);
        }
        let retry_topic = self.topics.retry_topic(&group, now)?;
        if !retry_topic.config.perm.writable() {
            return Err(SendBackError::Forbidden { topic: retry_topic.name().to_string() });
        }
        let bytes = self.message_at(request.position)?;
        let record = RecordView::parse(&bytes)
            .map_err(|source| SendBackError::Parse { position: request.position, source })?;
        outbox.clear();
        self.stage_again(request, &group, &retry_topic, &record, outbox, now)?;
        self.note_parking(outbox, now);
        let ticket = outbox.append(&self.store, now)?;
        self.note_sent_back(&record, &group.group_name);
        Ok(Some(ticket))
    }

    /// Counted for the topic that the message was sent to at first; text that names none counts nowhere.
    fn note_sent_back(&self, record: &RecordView<'_>, group: &GroupName) {
        let topic = record.property(RETRY_TOPIC).unwrap_or_else(|| record.topic());
        if let Ok(topic) = TopicName::new(topic) {
            self.counters.sent_back(&topic, group).add(1, 0);
        }
    }

    fn message_at(&self, position: i64) -> Result<bytes::Bytes, SendBackError> {
        let not_found = || SendBackError::NotFound { position };
        let at = u64::try_from(position).map_err(|_| not_found())?;
        let read = self.store.read_at(PhysicalOffset(at));
        read.map_err(|source| SendBackError::Read { position, source })?.ok_or_else(not_found)
    }

    fn stage_again(
        &self,
        request: SendBackRequest<'_>,
        group: &GroupConfig,
        retry_topic: &Arc<Topic>,
        record: &RecordView<'_>,
        outbox: &mut Outbox,
        now: Now,
    ) -> Result<(), SendBackError> {
        let attempts = record.reconsume_times();
        let limit = request.reconsume_times_max.unwrap_or(group.retry_max_times);
        let mut properties = retry_properties(record);
        let (topic, queue, due) = if attempts >= limit || request.delay_level < 0 {
            let topic = self.topics.dead_letter_topic(&group.group_name, now)?;
            self.note_dead_letter(&topic, &group.group_name);
            (topic, QueueId(0), None)
        } else {
            let level = if request.delay_level == 0 { 3 + attempts } else { request.delay_level };
            let due = Due::level(level.max(1) as u32, now);
            put_number(&mut properties, DELAY, level.max(1) as u64);
            let queue = rand::random_range(0..retry_topic.config.write_queues.max(1));
            park(&mut properties, retry_topic, QueueId(queue), due.due_ms());
            let Due::Level { level, .. } = due else { unreachable!("made from a level above") };
            (self.topics.find(SCHEDULE_TOPIC)?, QueueId(level - 1), Some(due))
        };
        let draft = Draft {
            topic: topic.name(),
            queue,
            store_host: self.store_host.get(),
            reconsume_times: attempts.saturating_add(1),
            prepared_offset: 0,
            properties: &properties,
            ..record.draft()
        };
        let mut index = index_of_record(record);
        index.timer_due_ms = due.map(Due::due_ms);
        outbox.push(&topic, &draft, index)?;
        Ok(())
    }
}

/// The message's properties, with what says where it came from.
fn retry_properties(record: &RecordView<'_>) -> Vec<u8> {
    let mut drop = vec![WAIT];
    drop.extend(DELAY_KEYS);
    drop.extend(PARK_KEYS);
    let mut out = Vec::new();
    properties::edit(record.properties_unsealed().as_bytes(), &drop, &mut out);
    if record.property(RETRY_TOPIC).is_none() {
        put(&mut out, RETRY_TOPIC, record.topic());
    }
    if record.property(ORIGIN_MESSAGE_ID).is_none() {
        put(&mut out, ORIGIN_MESSAGE_ID, &record.offset_message_id().to_string());
    }
    put(&mut out, WAIT, "false");
    out
}
