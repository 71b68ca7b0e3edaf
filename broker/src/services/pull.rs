//! Pulls: which queue a consumer may read, and what is there.
//! Invariant: nothing is read before every check has passed, in the protocol's order.
//! Leaves holding to `hold` and codes to the front doors. Source: RocketMQ remoting, request codes 11, 361.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::BytesMut;
use gantry_model::{
    GroupConfig, QueueId, QueueOffset,
    limits::{PULL_BYTES_MAX, PULL_MESSAGES_MAX},
    settings::BrokerSettings,
};
use gantry_store::{Far, Now, QueueRead, ReadError, ReadLimits, ReadStatus, Store, Topic};

use super::{
    behind::{Behind, Onset},
    clock::Clock,
    counters::Counters,
    filter::{FilterError, TagFilter},
    groups::{GroupError, Groups},
    hold::QueueKey,
    members::{ConsumerGroup, ExpressionKind, Members, MessageModel},
    resets::Resets,
    topics::{TopicError, Topics},
};

/// Entries looked at by one read without a match.
const SCAN_MAX: u32 = 800;

/// A pull as a consumer asks for it.
#[derive(Debug, Clone, Copy)]
pub struct PullRequest<'a> {
    /// The group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The queue.
    pub queue: i32,
    /// First offset wanted.
    pub offset: i64,
    /// Most messages wanted.
    pub messages_max: i32,
    /// Most bytes wanted.
    pub bytes_max: Option<i32>,
    /// The expression, if the request carries it, and its language.
    pub subscription: Option<(&'a str, Option<&'a str>)>,
    /// Version of the subscription that the consumer has.
    pub version: i64,
    /// Whether it is of the lite pull kind.
    pub lite: bool,
}

/// Why a pull was refused.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Lite pull is switched off.
    #[error("lite pull is disabled on this broker")]
    LitePullDisabled,
    /// The group is unknown or cannot be made.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The group may not consume.
    #[error("subscription group no permission, {group}")]
    GroupDisabled {
        /// The group.
        group: String,
    },
    /// The topic is unknown.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The topic may not be read.
    #[error("the topic[{topic}] pulling message is forbidden")]
    TopicUnreadable {
        /// The topic.
        topic: String,
    },
    /// The topic has no such queue to read.
    #[error("queueId[{queue}] is illegal, topic[{topic}] has {queues} queues to read")]
    Queue {
        /// The topic.
        topic: String,
        /// Queue asked for.
        queue: i32,
        /// Queues that may be read.
        queues: u32,
    },
    /// The expression cannot be read.
    #[error("parse the consumer's subscription failed")]
    Filter(#[from] FilterError),
    /// No member of the group was heard of.
    #[error("the consumer's group info not exist, {group}")]
    NotOnline {
        /// The group.
        group: String,
    },
    /// The group reads as broadcast, which is switched off for it.
    #[error("the consumer group[{group}] can not consume by broadcast way")]
    BroadcastDisabled {
        /// The group.
        group: String,
    },
    /// The group does not subscribe to the topic.
    #[error("the consumer's subscription not exist, group {group}, topic {topic}")]
    NotSubscribed {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },
    /// The broker knows an older subscription than the consumer has.
    #[error("the consumer's subscription not latest: known {known}, asked {asked}")]
    NotLatest {
        /// Version known.
        known: i64,
        /// Version asked for.
        asked: i64,
    },
    /// The expression is in a language that the broker does not read.
    #[error("The broker does not support consumer to filter message by {kind}")]
    Language {
        /// The language.
        kind: String,
    },
}

/// A pull that passed every check.
#[derive(Debug, Clone)]
pub struct Pull {
    /// The topic.
    pub topic: Arc<Topic>,
    /// The group.
    pub group: Arc<GroupConfig>,
    /// The queue.
    pub queue: QueueId,
    /// First offset wanted; may be negative.
    pub offset: i64,
    /// What it wants.
    pub filter: TagFilter,
    limits: ReadLimits,
}

impl Pull {
    /// Where it reads.
    pub fn queue_key(&self) -> QueueKey {
        (self.topic.id, self.queue)
    }

    /// First offset wanted, as an offset.
    pub fn from(&self) -> QueueOffset {
        QueueOffset(self.offset.max(0) as u64)
    }

    /// Whether an answer with this status would be "nothing new", so that the pull may be held.
    pub fn may_wait(&self, status: ReadStatus) -> bool {
        match status {
            ReadStatus::AtEnd => true,
            ReadStatus::Empty => self.offset == 0,
            _ => false,
        }
    }
}

/// Everything that a pull touches.
pub struct Pulls {
    pub(super) store: Arc<Store>,
    pub(super) clock: Clock,
    pub(super) settings: Arc<BrokerSettings>,
    pub(super) topics: Arc<Topics>,
    pub(super) groups: Arc<Groups>,
    pub(super) members: Arc<Members>,
    pub(super) counters: Arc<Counters>,
    pub(super) resets: Arc<Resets>,
    pub(super) behind: Behind,
}

impl Pulls {
    /// Checks a request.
    pub fn admit(&self, request: &PullRequest<'_>, now: Now) -> Result<Pull, PullError> {
        if request.lite && !self.settings.lite_pull {
            return Err(PullError::LitePullDisabled);
        }
        let group = self.groups.for_use(request.group, now)?;
        if !group.consume_enable {
            return Err(PullError::GroupDisabled { group: request.group.into() });
        }
        let topic = self.topics.find(request.topic)?;
        let queue = check_queue(&topic, request.queue)?;
        let filter = match request.subscription {
            Some((expression, kind)) => parse_expression(expression, kind)?,
            None => self.known_filter(request, &group)?,
        };
        let limits = ReadLimits {
            messages_max: request.messages_max.clamp(1, PULL_MESSAGES_MAX as i32) as u32,
            bytes_max: bytes_max(request.bytes_max),
            scan_max: SCAN_MAX,
            waits_within: self.settings.cold_read_distance.get(),
            far: Far::AtHand,
        };
        Ok(Pull { topic, group, queue, offset: request.offset, filter, limits })
    }

    /// Reads what is there into `out`, and may wait for the disk; a pending reset wins over everything, once.
    pub fn read(&self, pull: &Pull, out: &mut BytesMut) -> Result<QueueRead, ReadError> {
        self.read_within(pull, ReadLimits { far: Far::Cold, ..pull.limits }, out)
    }

    /// The same without waiting for the messages; `None` if they lie far behind the end of the log and are not in
    /// memory.
    pub fn read_at_hand(
        &self,
        pull: &Pull,
        out: &mut BytesMut,
    ) -> Result<Option<QueueRead>, ReadError> {
        match self.read_within(pull, pull.limits, out) {
            Err(ReadError::NotAtHand { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(read) => {
                // Among messages that it does not want a reader waits for the entries of its queue alone.
                if read.status == ReadStatus::NoMatch && self.is_far_behind(pull, &read) {
                    self.behind.begin(&pull.group.group_name, pull.queue_key(), read.next);
                }
                Ok(Some(read))
            }
        }
    }

    /// How a pull is to be read far behind the end of the log that missed something when it was read at hand.
    pub(crate) fn missed(&self, pull: &Pull) -> Onset {
        self.behind.missed(&pull.group.group_name, pull.queue_key(), pull.from())
    }

    /// How the pull goes on, if it does so where one ended that was read far behind the end of the log.
    pub(crate) fn goes_on_far_behind(&self, pull: &Pull) -> Option<Onset> {
        self.behind.goes_on(&pull.group.group_name, pull.queue_key(), pull.from())
    }

    /// [`Pulls::read`] for a pull that is far behind; the next one of the group in the queue is known by it.
    pub(crate) fn read_far_behind(
        &self,
        pull: &Pull,
        onset: Onset,
        out: &mut BytesMut,
    ) -> Result<QueueRead, ReadError> {
        self.counters.cold_pulls.fetch_add(1, Relaxed);
        let far = match onset {
            Onset::Looks => Far::ColdFromCache,
            Onset::MissedOnce | Onset::Missed | Onset::GoesOn => Far::Cold,
        };
        let read = self.read_within(pull, ReadLimits { far, ..pull.limits }, out)?;
        if !self.is_far_behind(pull, &read) {
            return Ok(read);
        }
        let (group, queue) = (&pull.group.group_name, pull.queue_key());
        match onset {
            Onset::MissedOnce | Onset::Missed => self.behind.begin(group, queue, read.next),
            // Where no message is wanted there is nothing to look for.
            Onset::Looks if read.status == ReadStatus::NoMatch => {
                self.behind.go_on(group, queue, read.next, Some(false));
            }
            Onset::Looks | Onset::GoesOn => {
                self.behind.go_on(group, queue, read.next, read.in_cache);
            }
        }
        Ok(read)
    }

    /// Whether a reader goes on far behind. One that has come to the end of its queue does not, wherever
    /// the queue's last message lies: its next pull may have to be held, which the threads for the disk do not do.
    fn is_far_behind(&self, pull: &Pull, read: &QueueRead) -> bool {
        let Some(last) = read.last_position else { return false };
        let behind = self.store.written().0.saturating_sub(last.0);
        read.next < read.max && behind > pull.limits.waits_within
    }

    fn read_within(
        &self,
        pull: &Pull,
        limits: ReadLimits,
        out: &mut BytesMut,
    ) -> Result<QueueRead, ReadError> {
        let reset = self.resets.take(&pull.group.group_name, pull.queue_key());
        // A consumer that asks for where it was moved to has seen the reset.
        if let Some(offset) = reset
            && u64::try_from(pull.offset) != Ok(offset.0)
        {
            return self.moved(pull, offset);
        }
        if pull.offset < 0 {
            return self.below_zero(pull);
        }
        let accept = |tag_hash: i64| pull.filter.accepts(tag_hash);
        let start = out.len();
        let Pull { topic, queue, .. } = pull;
        let began_us = self.clock.monotonic_us();
        let read = self.store.read_queue(topic, *queue, pull.from(), limits, &accept, out)?;
        let us = self.clock.monotonic_us().saturating_sub(began_us);
        self.counters.read(read.status == ReadStatus::Found, us);
        if read.status == ReadStatus::Found {
            let flow = self.counters.messages_out(topic.name(), &pull.group.group_name);
            flow.add(read.messages.into(), (out.len() - start) as u64);
        }
        Ok(read)
    }

    /// Whether a message arrived, or the group was moved, since the pull was read.
    pub fn has_news(&self, pull: &Pull) -> Result<bool, ReadError> {
        if self.resets.is_pending(&pull.group.group_name, pull.queue_key()) {
            return Ok(true);
        }
        Ok(self.store.queue_bounds(&pull.topic, pull.queue)?.max > pull.from())
    }

    /// Sends the consumer to where its group was moved.
    fn moved(&self, pull: &Pull, to: QueueOffset) -> Result<QueueRead, ReadError> {
        let bounds = self.store.queue_bounds(&pull.topic, pull.queue)?;
        Ok(QueueRead {
            status: ReadStatus::TooSmall,
            next: to,
            min: bounds.min,
            max: bounds.max,
            messages: 0,
            last_position: None,
            in_cache: None,
        })
    }

    fn below_zero(&self, pull: &Pull) -> Result<QueueRead, ReadError> {
        let bounds = self.store.queue_bounds(&pull.topic, pull.queue)?;
        let never = bounds.max == QueueOffset(0);
        Ok(QueueRead {
            status: if never { ReadStatus::Empty } else { ReadStatus::TooSmall },
            next: bounds.min,
            min: bounds.min,
            max: bounds.max,
            messages: 0,
            last_position: None,
            in_cache: None,
        })
    }

    fn known_filter(
        &self,
        request: &PullRequest<'_>,
        group: &GroupConfig,
    ) -> Result<TagFilter, PullError> {
        self.members.with_consumer_group(request.group, |online| {
            let online =
                online.ok_or_else(|| PullError::NotOnline { group: request.group.into() })?;
            filter_of(online, request, group)
        })
    }
}

fn filter_of(
    online: &ConsumerGroup,
    request: &PullRequest<'_>,
    group: &GroupConfig,
) -> Result<TagFilter, PullError> {
    if online.model == MessageModel::Broadcasting && !group.consume_broadcast_enable {
        return Err(PullError::BroadcastDisabled { group: request.group.into() });
    }
    let (group, topic) = (request.group, request.topic);
    let subscription = online
        .subscriptions
        .get(topic)
        .ok_or_else(|| PullError::NotSubscribed { group: group.into(), topic: topic.into() })?;
    if subscription.version < request.version {
        return Err(PullError::NotLatest { known: subscription.version, asked: request.version });
    }
    match &subscription.kind {
        ExpressionKind::Tag => Ok(subscription.filter.clone()),
        ExpressionKind::Other(kind) => Err(PullError::Language { kind: kind.clone() }),
    }
}

fn parse_expression(expression: &str, kind: Option<&str>) -> Result<TagFilter, PullError> {
    match ExpressionKind::named(kind) {
        ExpressionKind::Tag => Ok(TagFilter::parse(expression)?),
        ExpressionKind::Other(kind) => Err(PullError::Language { kind }),
    }
}

fn check_queue(topic: &Topic, queue: i32) -> Result<QueueId, PullError> {
    if !topic.config.perm.readable() {
        return Err(PullError::TopicUnreadable { topic: topic.name().to_string() });
    }
    let queues = topic.config.read_queues;
    match u32::try_from(queue) {
        Ok(queue) if queue < queues => Ok(QueueId(queue)),
        _ => Err(PullError::Queue { topic: topic.name().to_string(), queue, queues }),
    }
}

fn bytes_max(wish: Option<i32>) -> usize {
    let wish = wish.and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    wish.unwrap_or(PULL_BYTES_MAX).min(PULL_BYTES_MAX)
}

#[cfg(test)]
mod tests;
