//! A request's messages on their way into the outbox: checked, stamped, parked if they have to wait for a time.
//! Invariant: a batch is checked as a whole before its first message is taken.
//! Leaves topic and queue to `target`, and what is written into properties to `compose`.

use std::{ops::Range, sync::Arc};

use gantry_model::{FilterType, QueueId, properties::DELAY};
use gantry_record::{BatchItem, BatchItems, Draft, PROPERTIES_UNSEALED_BYTES_MAX, sys_flag};
use gantry_store::{Now, Topic};

use super::{Accepted, Outgoing, SendError, SendRequest, Sends, target::Target};
use crate::services::{
    compose::{DELAY_KEYS, PARK_KEYS, Seen, index, park},
    counters::MessageKind,
    timers::{Due, delay_level, due_of},
    topics::{SCHEDULE_TOPIC, TIMER_TOPIC},
};

/// Most messages in one batch: a body of 4 MiB in items of the smallest size holds 190,650.
const BATCH_ITEMS_MAX: usize = 200_000;

impl Sends {
    pub(super) fn check_size(&self, request: &SendRequest<'_>) -> Result<(), SendError> {
        let (bytes, bytes_max) = (request.body.len(), self.settings.body_size_max.get());
        if bytes as u64 > bytes_max {
            return Err(SendError::BodyTooLarge { bytes, bytes_max });
        }
        Ok(())
    }

    /// Properties that fit with all that the broker may add, the names of a parked message included.
    fn check_properties(&self, bytes: usize, topic: &Topic) -> Result<(), SendError> {
        // Keys, separators, a queue number and a time of 20 digits.
        const PARK_BYTES: usize = 10 + 8 + 12 + 6 + 30;
        let bytes = bytes + self.stamp.bytes_max() + PARK_BYTES + topic.name().len();
        let bytes_max = PROPERTIES_UNSEALED_BYTES_MAX;
        if bytes > bytes_max {
            return Err(SendError::PropertiesTooLarge { bytes, bytes_max });
        }
        Ok(())
    }

    pub(super) fn stage_one(
        &self,
        outgoing: &mut Outgoing,
        request: &SendRequest<'_>,
        target: &Target,
        now: Now,
    ) -> Result<(), SendError> {
        self.check_properties(request.properties.len(), &target.topic)?;
        let seen = Seen::of(request.properties);
        check_kind(request, &seen)?;
        let due = if target.gave_up { None } else { due_of(&seen, &self.settings, now)? };
        if due.is_some() {
            self.store.check_pending()?;
        }
        let drop = keys_to_drop(due, target.gave_up);
        let Outgoing { outbox, properties, .. } = outgoing;
        let unique = self.stamp.write(request.properties, &seen, drop, now, properties);
        let queue = target.queue;
        let (topic, parked_queue) = self.parked(target, due, properties)?;
        let sys_flag = sys_flag_of(request, &target.topic);
        let draft = self.draft(request, sys_flag, &topic, parked_queue, properties, request.body);
        let mut index = index(properties, unique.clone(), &seen);
        index.timer_due_ms = due.map(Due::due_ms);
        let first = outbox.push(&topic, &draft, index)?;
        let kind = kind_of(&seen, due);
        accept(
            outgoing,
            target,
            queue,
            first..first + 1,
            unique,
            !seen.no_wait,
            kind,
            request.body.len(),
        );
        Ok(())
    }

    /// Topic and queue in which the message is stored; writes where it goes later, if it has to wait.
    fn parked(
        &self,
        target: &Target,
        due: Option<Due>,
        properties: &mut Vec<u8>,
    ) -> Result<(Arc<Topic>, QueueId), SendError> {
        let (name, queue) = match due {
            None => return Ok((Arc::clone(&target.topic), target.queue)),
            Some(Due::Level { level, .. }) => (SCHEDULE_TOPIC, QueueId(level - 1)),
            Some(Due::Time { .. }) => (TIMER_TOPIC, QueueId(0)),
        };
        park(properties, &target.topic, target.queue, due.map_or(0, Due::due_ms));
        Ok((self.topics.find(name)?, queue))
    }

    fn draft<'d>(
        &self,
        request: &SendRequest<'d>,
        sys_flag: i32,
        topic: &'d Topic,
        queue: QueueId,
        properties: &'d [u8],
        body: &'d [u8],
    ) -> Draft<'d> {
        Draft {
            topic: topic.name(),
            queue,
            flag: request.flag,
            sys_flag,
            born_time_ms: request.born_time_ms,
            born_host: request.born_host,
            store_host: self.store_host.get(),
            reconsume_times: request.reconsume_times,
            prepared_offset: 0,
            body,
            properties,
        }
    }

    pub(super) fn stage_batch(
        &self,
        outgoing: &mut Outgoing,
        request: &SendRequest<'_>,
        target: &Target,
        now: Now,
    ) -> Result<(), SendError> {
        // All items are checked before the first is taken: nothing can be taken back.
        let items = self.checked_items(request, &target.topic)?;
        let sys_flag = sys_flag_of(request, &target.topic);
        let first = outgoing.outbox.len();
        let mut unique = Vec::new();
        let mut waits = true;
        for (item, text) in &items {
            let seen = Seen::of(text);
            let Outgoing { outbox, properties, .. } = outgoing;
            let id = self.stamp.write(text, &seen, &[], now, properties);
            if unique.is_empty() {
                unique.extend_from_slice(&properties[id.clone()]);
            }
            waits &= !seen.no_wait;
            let (topic, queue) = (&target.topic, target.queue);
            let draft = self.draft(request, sys_flag, topic, queue, properties, item.body);
            let draft = Draft { flag: item.flag, ..draft };
            outbox.push(&target.topic, &draft, index(properties, id, &seen))?;
        }
        outgoing.properties.clear();
        outgoing.properties.extend_from_slice(&unique);
        let messages = first..outgoing.outbox.len();
        let body_bytes = items.iter().map(|(item, _)| item.body.len()).sum();
        let unique = 0..unique.len();
        let kind = MessageKind::Normal;
        accept(outgoing, target, target.queue, messages, unique, waits, kind, body_bytes);
        Ok(())
    }

    fn checked_items<'a>(
        &self,
        request: &SendRequest<'a>,
        topic: &Topic,
    ) -> Result<Vec<(BatchItem<'a>, &'a str)>, SendError> {
        let mut items = Vec::new();
        for (index, item) in BatchItems::new(request.body, BATCH_ITEMS_MAX).enumerate() {
            let item = item?;
            self.check_properties(item.properties.len(), topic)?;
            let text =
                std::str::from_utf8(item.properties).map_err(|_| SendError::BatchText { index })?;
            let seen = Seen::of(text);
            check_kind(request, &seen)?;
            if delay_level(&seen).is_some_and(|level| level > 0) || seen.timer.is_some() {
                return Err(SendError::BatchKind { reason: "a message has a delay" });
            }
            items.push((item, text));
        }
        if items.is_empty() {
            return Err(SendError::BatchKind { reason: "it holds no message" });
        }
        Ok(items)
    }
}

fn check_kind(request: &SendRequest<'_>, seen: &Seen<'_>) -> Result<(), SendError> {
    let inner = sys_flag::INNER_BATCH | sys_flag::NEEDS_UNWRAP;
    if seen.inner_batch || request.sys_flag & inner != 0 {
        return Err(SendError::InnerBatch);
    }
    let prepared = request.sys_flag & sys_flag::TRANSACTION == sys_flag::TRANSACTION_PREPARED;
    // A retried message may still carry the mark, for clients before 4.6.1.
    let retried = request.reconsume_times > 0 && delay_level(seen).is_some_and(|l| l > 0);
    if (seen.half || prepared) && !retried {
        return Err(SendError::Transaction);
    }
    Ok(())
}

fn sys_flag_of(request: &SendRequest<'_>, topic: &Topic) -> i32 {
    let tags = match topic.config.topic_filter_type {
        FilterType::SingleTag => 0,
        FilterType::MultiTag => sys_flag::MULTI_TAGS,
    };
    request.sys_flag & !sys_flag::TRANSACTION | tags
}

fn keys_to_drop(due: Option<Due>, gave_up: bool) -> &'static [&'static str] {
    // A level takes the place of a time, as in the reference.
    const LEVEL: &[&str] =
        &[DELAY_KEYS[1], DELAY_KEYS[2], DELAY_KEYS[3], PARK_KEYS[0], PARK_KEYS[1], PARK_KEYS[2]];
    match due {
        _ if gave_up => &[DELAY],
        Some(Due::Level { .. }) => LEVEL,
        Some(Due::Time { .. }) => &PARK_KEYS,
        None => &[],
    }
}

fn kind_of(seen: &Seen<'_>, due: Option<Due>) -> MessageKind {
    match due {
        Some(_) => MessageKind::Delay,
        None if seen.ordered => MessageKind::Fifo,
        None => MessageKind::Normal,
    }
}

#[allow(clippy::too_many_arguments, reason = "the fields of one value, in one place")]
fn accept(
    outgoing: &mut Outgoing,
    target: &Target,
    queue: QueueId,
    messages: Range<usize>,
    unique: Range<usize>,
    waits: bool,
    kind: MessageKind,
    body_bytes: usize,
) {
    let start = outgoing.texts.len();
    outgoing.texts.extend_from_slice(&outgoing.properties[unique]);
    let unique = start..outgoing.texts.len();
    let topic = Arc::clone(&target.topic);
    outgoing.accepted.push(Accepted { topic, queue, messages, waits, unique, kind, body_bytes });
}
