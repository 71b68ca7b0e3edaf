//! Sends: from a producer's request to messages in the log.
//! Invariant: a request is taken as a whole or refused as a whole; what is refused leaves nothing in the outbox.
//! Leaves waiting for the disk to `commit`, and codes and remarks to the front doors. Source: RocketMQ
//! remoting, request codes 10, 310, 320.

use std::{net::SocketAddr, ops::Range, sync::Arc, sync::atomic::Ordering};

use gantry_model::{
    FilterType, GroupConfig, GroupName, NameError, QueueId, RETRY_PREFIX, may_clients_send,
    properties::{DELAY, REAL_QUEUE_ID, REAL_TOPIC},
    settings::BrokerSettings,
};
use gantry_record::{
    BatchError, BatchItem, BatchItems, Draft, PROPERTIES_UNSEALED_BYTES_MAX, sys_flag,
};
use gantry_store::{
    AppendError, EncodeError, Index, Now, Store, Ticket, Topic, change::TIMER_OUT_MS,
};

use super::{
    backlog::{Backlog, Busy},
    clock::Clock,
    compose::{DELAY_KEYS, PARK_KEYS, Seen, Stamp, index, put, put_number},
    counters::{Counters, MessageKind},
    groups::{GroupError, Groups},
    hold::{Arrival, Holds},
    lifecycle::Lifecycle,
    locks::QueueLocks,
    outbox::{Outbox, StoreHost},
    signal::Signal,
    timers::{Due, DueError, TimerSignal, due_of},
    topics::{SCHEDULE_TOPIC, TIMER_TOPIC, TopicError, Topics},
};

/// Most messages in one batch: a body of 4 MiB in items of the smallest size holds 190,650.
const BATCH_ITEMS_MAX: usize = 200_000;

/// A send as a producer asks for it.
#[derive(Debug, Clone, Copy)]
pub struct SendRequest<'a> {
    /// Where to.
    pub topic: &'a str,
    /// Topic in whose image an unknown one is made.
    pub template: &'a str,
    /// Queues wanted for a topic that is made.
    pub template_queues: i32,
    /// Queue of the topic; negative: any.
    pub queue: i32,
    /// Bits of the record's sys flag.
    pub sys_flag: i32,
    /// When the producer made the message.
    pub born_time_ms: i64,
    /// Where the producer is.
    pub born_host: SocketAddr,
    /// The application's flag.
    pub flag: i32,
    /// Properties of the message; of a batch: of the batch as a whole.
    pub properties: &'a str,
    /// Failed attempts so far.
    pub reconsume_times: i32,
    /// Most attempts, if the client may and does say so.
    pub reconsume_times_max: Option<i32>,
    /// Body, or the items of a batch.
    pub body: &'a [u8],
    /// Whether the body is a batch.
    pub is_batch: bool,
}

/// Why a send was refused.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The broker is stopping, or its store has failed.
    #[error("service not available now: {reason}")]
    Unavailable {
        /// Which of them.
        reason: &'static str,
    },
    /// Too many sends wait for the disk.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// Clients may not send to this topic.
    #[error("Sending message to topic[{topic}] is forbidden.")]
    Reserved {
        /// The topic.
        topic: String,
    },
    /// The topic is unknown or cannot be made.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The topic has no such queue.
    #[error("request queueId[{queue}] is illegal, topic[{topic}] has {queues} queues")]
    Queue {
        /// The topic.
        topic: String,
        /// Queue asked for.
        queue: i32,
        /// Queues it has.
        queues: u32,
    },
    /// The group of a retry topic is unknown or cannot be made.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The group of a retry topic cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The body is too large.
    #[error("message body is {bytes} bytes, the limit is {bytes_max}")]
    BodyTooLarge {
        /// Its size.
        bytes: usize,
        /// Largest size.
        bytes_max: u64,
    },
    /// The properties are too large.
    #[error("message properties are {bytes} bytes, the limit is {bytes_max}")]
    PropertiesTooLarge {
        /// Their size, with what the broker adds.
        bytes: usize,
        /// Largest size.
        bytes_max: usize,
    },
    /// The batch cannot be read.
    #[error("batch message is illegal")]
    Batch(#[from] BatchError),
    /// Properties of a batch's message are no text.
    #[error("properties of message {index} of the batch are not UTF-8")]
    BatchText {
        /// Which message, from 0.
        index: usize,
    },
    /// The batch is of a kind that may not be one.
    #[error("batch message is illegal: {reason}")]
    BatchKind {
        /// Why.
        reason: &'static str,
    },
    /// The message says that it holds several others.
    #[error("message with INNER_NUM or an inner batch flag is not available")]
    InnerBatch,
    /// The due time cannot be met.
    #[error(transparent)]
    Due(#[from] DueError),
    /// The message is half of a transaction.
    #[error("the broker sending transaction message is forbidden: transactions are not available")]
    Transaction,
    /// The message cannot be a record.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The log did not take the message.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// A request whose messages are in the outbox.
#[derive(Debug)]
pub struct Accepted {
    /// The topic that it was stored to.
    pub topic: Arc<Topic>,
    /// The queue that its producer meant.
    pub queue: QueueId,
    /// Indexes of its messages in the outbox.
    pub messages: Range<usize>,
    /// Whether the producer wants to wait for the disk.
    pub waits: bool,
    /// The unique id of its first message, in the outgoing texts.
    unique: Range<usize>,
    kind: MessageKind,
    body_bytes: usize,
}

/// Requests on their way into the log; one for each thread at work, it keeps its memory.
#[derive(Default)]
pub struct Outgoing {
    outbox: Outbox,
    accepted: Vec<Accepted>,
    texts: Vec<u8>,
    properties: Vec<u8>,
}

impl Outgoing {
    /// The requests taken so far, in order.
    pub fn accepted(&self) -> &[Accepted] {
        &self.accepted
    }

    /// The messages.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Unique id of an accepted request's first message.
    pub fn unique_id(&self, accepted: &Accepted) -> &str {
        std::str::from_utf8(&self.texts[accepted.unique.clone()]).unwrap_or_default()
    }

    /// Forgets every request.
    pub fn clear(&mut self) {
        self.outbox.clear();
        self.accepted.clear();
        self.texts.clear();
    }
}

/// Everything that a send touches.
pub struct Sends {
    pub(super) store: Arc<Store>,
    pub(super) clock: Clock,
    pub(super) settings: Arc<BrokerSettings>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) topics: Arc<Topics>,
    pub(super) groups: Arc<Groups>,
    pub(super) locks: Arc<QueueLocks>,
    pub(super) holds: Arc<Holds>,
    pub(super) timers: Arc<TimerSignal>,
    pub(super) flush_due: Arc<Signal>,
    pub(super) counters: Arc<Counters>,
    pub(super) stamp: Stamp,
    pub(super) store_host: Arc<StoreHost>,
}

/// Where a message goes after the special rules of retry topics.
struct Target {
    topic: Arc<Topic>,
    queue: QueueId,
    /// The group gave the message up: it goes to its dead-letter topic, without delay.
    gave_up: bool,
}

impl Sends {
    /// Checks a request and puts its messages into the outbox.
    ///
    /// # Errors
    /// The request is refused; `outgoing` is as it was.
    pub fn stage(
        &self,
        outgoing: &mut Outgoing,
        request: &SendRequest<'_>,
        now: Now,
    ) -> Result<(), SendError> {
        let staged = self.try_stage(outgoing, request, now);
        if staged.is_err() {
            self.counters.refused_sends.fetch_add(1, Ordering::Relaxed);
        }
        staged
    }

    /// Appends everything in the outbox, all or nothing. The messages are confirmed when the ticket is.
    pub fn append(&self, outgoing: &mut Outgoing, now: Now) -> Result<Ticket, AppendError> {
        let requests = outgoing.accepted.len() as u64;
        self.note_parking(&outgoing.outbox, now);
        let now_us = || self.clock.monotonic_us();
        let append = || outgoing.outbox.append(&self.store, now);
        let appended = self.counters.puts.timed(requests, now_us, append);
        match &appended {
            Ok(_) => {
                self.count(outgoing);
                if self.store.flush_due() {
                    self.flush_due.notify();
                }
            }
            Err(error) => {
                self.counters.refused_sends.fetch_add(requests, Ordering::Relaxed);
                self.lifecycle.note_append_error(error);
            }
        }
        appended
    }

    /// Before messages that wait for a time are appended: what they wait for was told by the clock as it is now.
    pub(super) fn note_parking(&self, outbox: &Outbox, now: Now) {
        if outbox.first_due_ms().is_some() {
            self.timers.parks(now, self.store.written());
        }
    }

    /// Tells those who wait that the appended messages are confirmed.
    pub fn tell(&self, outgoing: &Outgoing) {
        self.tell_of(&outgoing.outbox);
    }

    /// Tells those who wait that the messages of an outbox are confirmed.
    pub fn tell_of(&self, outbox: &Outbox) {
        outbox.tell(&self.holds);
        if let Some(due_ms) = outbox.first_due_ms() {
            self.timers.parked(due_ms);
        }
    }

    /// [`Sends::tell_of`] for an outbox that is gone.
    pub fn tell_later(&self, arrivals: &[Arrival], first_due_ms: Option<u64>) {
        self.holds.arrived(arrivals);
        if let Some(due_ms) = first_due_ms {
            self.timers.parked(due_ms);
        }
    }

    fn count(&self, outgoing: &Outgoing) {
        let mut accepted = outgoing.accepted.iter().peekable();
        while let Some(first) = accepted.next() {
            let (mut messages, mut bytes) = (first.messages.len(), first.body_bytes);
            let same = |next: &&Accepted| {
                Arc::ptr_eq(&next.topic, &first.topic) && next.kind == first.kind
            };
            while let Some(next) = accepted.next_if(same) {
                messages += next.messages.len();
                bytes += next.body_bytes;
            }
            let flow = self.counters.messages_in(first.topic.name(), first.kind);
            flow.add(messages as u64, bytes as u64);
        }
    }

    fn try_stage(
        &self,
        outgoing: &mut Outgoing,
        request: &SendRequest<'_>,
        now: Now,
    ) -> Result<(), SendError> {
        self.lifecycle.check_accepting()?;
        // Before the topic, so that none is made for a message that is refused.
        self.store.check_shortage()?;
        self.backlog.check()?;
        let target = self.target(request, now)?;
        self.check_size(request)?;
        if request.is_batch {
            self.stage_batch(outgoing, request, &target, now)
        } else {
            self.stage_one(outgoing, request, &target, now)
        }
    }

    fn target(&self, request: &SendRequest<'_>, now: Now) -> Result<Target, SendError> {
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
    pub(super) fn note_dead_letter(&self, topic: &Topic, group: &GroupName) {
        self.counters.dead_letters(topic.name(), group).add(1, 0);
    }

    fn check_size(&self, request: &SendRequest<'_>) -> Result<(), SendError> {
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

    fn stage_one(
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

    fn stage_batch(
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
            if super::timers::delay_level(&seen).is_some_and(|level| level > 0)
                || seen.timer.is_some()
            {
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

fn check_kind(request: &SendRequest<'_>, seen: &Seen<'_>) -> Result<(), SendError> {
    let inner = sys_flag::INNER_BATCH | sys_flag::NEEDS_UNWRAP;
    if seen.inner_batch || request.sys_flag & inner != 0 {
        return Err(SendError::InnerBatch);
    }
    let prepared = request.sys_flag & sys_flag::TRANSACTION == sys_flag::TRANSACTION_PREPARED;
    // A retried message may still carry the mark, for clients before 4.6.1.
    let retried =
        request.reconsume_times > 0 && super::timers::delay_level(seen).is_some_and(|l| l > 0);
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

/// Appends what a parked message must know: where it goes, and when.
pub(super) fn park(properties: &mut Vec<u8>, topic: &Topic, queue: QueueId, due_ms: u64) {
    put(properties, REAL_TOPIC, topic.name());
    put_number(properties, REAL_QUEUE_ID, queue.0.into());
    put_number(properties, TIMER_OUT_MS, due_ms);
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

/// What the views learn of a message that is stored again with the properties of an earlier record.
pub(super) fn index_of_record<'a>(record: &gantry_record::RecordView<'a>) -> Index<'a> {
    let keys = gantry_store::KeySource {
        unique: record.property(gantry_model::properties::UNIQ_KEY),
        keys: record.property(gantry_model::properties::KEYS),
    };
    Index { tag_hash: record.tag_hash().into(), keys, ..Index::default() }
}
