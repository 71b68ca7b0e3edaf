//! Consumer offsets and queue bounds: where a group goes on, and where queues begin and end.
//! Invariant: a commit that is answered is confirmed; a staged one promises nothing.
//! Leaves the table and its records to the store. Source: RocketMQ remoting, request codes 14, 15, 29 to 32.

use std::sync::Arc;

use gantry_model::{GroupName, NameError, QueueId, QueueOffset};
use gantry_store::{AppendError, Boundary, Now, OffsetCommit, ReadError, Store, Ticket, Topic};

use super::{
    groups::Groups,
    resets::Resets,
    topics::{TopicError, Topics},
};

/// Staged commits at which they are written at once.
const STAGED_MAX: usize = 1_000;

/// Why an offset was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitOffsetError {
    /// The group does not exist.
    #[error("subscription group [{group}] does not exist")]
    GroupUnknown {
        /// Its name.
        group: String,
    },
    /// The group's name cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The topic does not exist.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The topic has no such queue, or the offset is negative.
    #[error("queueId {queue} or offset {offset} of topic {topic} is out of range")]
    Range {
        /// The topic.
        topic: String,
        /// The queue asked for.
        queue: i32,
        /// The offset asked for.
        offset: i64,
    },
    /// The commit could not be stored.
    #[error("store the offset of group {group}")]
    Append {
        /// The group.
        group: String,
        /// The cause.
        source: AppendError,
    },
}

/// One commit, as a client asks for it.
#[derive(Debug, Clone, Copy)]
pub struct CommitRequest<'a> {
    /// The group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The queue.
    pub queue: i32,
    /// Next offset to consume.
    pub offset: i64,
}

/// Offsets of a broker.
pub struct Offsets {
    store: Arc<Store>,
    topics: Arc<Topics>,
    groups: Arc<Groups>,
    resets: Arc<Resets>,
}

impl Offsets {
    /// Offsets in `store`.
    pub fn new(
        store: Arc<Store>,
        topics: Arc<Topics>,
        groups: Arc<Groups>,
        resets: Arc<Resets>,
    ) -> Self {
        Self { store, topics, groups, resets }
    }

    /// Where the group goes on. Without an offset: 0 in a queue that is young, unless `zero_if_young` is
    /// switched off; else `None`, upon which clients apply their own start rule.
    pub fn position(
        &self,
        group: &str,
        topic: &str,
        queue: i32,
        zero_if_young: bool,
    ) -> Result<Option<QueueOffset>, ReadError> {
        let Some((topic, queue)) = self.queue(topic, queue) else { return Ok(None) };
        if let Some(offset) = self.store.offset(group, &topic, queue) {
            return Ok(Some(offset));
        }
        let young = zero_if_young && self.store.is_young(&topic, queue)?;
        Ok(young.then_some(QueueOffset(0)))
    }

    /// Commits; the offset is safe when the ticket is confirmed. `None`: a reset that the consumer has not seen
    /// stands against it, and nothing is changed.
    pub fn commit(
        &self,
        request: CommitRequest<'_>,
        now: Now,
    ) -> Result<Option<Ticket>, CommitOffsetError> {
        let commit = self.checked(request)?;
        let queue = (commit.topic, commit.queue);
        let write = || self.store.commit_offsets(&[commit], now);
        let written = self.resets.unless_pending(request.group, queue, write);
        written
            .transpose()
            .map_err(|source| CommitOffsetError::Append { group: request.group.into(), source })
    }

    /// Commits for a client that waits for nothing: visible at once, in the log within a second. A reset that
    /// the consumer has not seen stands against it.
    pub fn stage(&self, request: CommitRequest<'_>, now: Now) -> Result<(), CommitOffsetError> {
        let commit = self.checked(request)?;
        let queue = (commit.topic, commit.queue);
        self.resets.unless_pending(request.group, queue, || self.store.stage_offset(commit));
        if self.store.staged() >= STAGED_MAX {
            self.write_staged(now).map_err(|source| CommitOffsetError::Append {
                group: request.group.into(),
                source,
            })?;
        }
        Ok(())
    }

    /// Writes what was staged.
    pub fn write_staged(&self, now: Now) -> Result<(), AppendError> {
        if self.store.staged() == 0 {
            return Ok(());
        }
        self.store.write_staged_offsets(now)
    }

    /// Next offset to be written; 0 where there is no such queue.
    pub fn max(&self, topic: &str, queue: i32) -> Result<QueueOffset, ReadError> {
        let Some((topic, queue)) = self.queue(topic, queue) else { return Ok(QueueOffset(0)) };
        Ok(self.store.queue_bounds(&topic, queue)?.max)
    }

    /// First offset still there; 0 where there is no such queue.
    pub fn min(&self, topic: &str, queue: i32) -> Result<QueueOffset, ReadError> {
        let Some((topic, queue)) = self.queue(topic, queue) else { return Ok(QueueOffset(0)) };
        Ok(self.store.queue_bounds(&topic, queue)?.min)
    }

    /// When the first message still there was stored; `None`: there is none.
    pub fn earliest_time(&self, topic: &str, queue: i32) -> Result<Option<u64>, ReadError> {
        let Some((topic, queue)) = self.queue(topic, queue) else { return Ok(None) };
        let bounds = self.store.queue_bounds(&topic, queue)?;
        Ok(self.store.entry(&topic, queue, bounds.min)?.map(|entry| entry.store_time_ms))
    }

    /// The offset at a time; 0 where there is no such queue.
    pub fn at_time(
        &self,
        topic: &str,
        queue: i32,
        time_ms: i64,
        boundary: Boundary,
    ) -> Result<QueueOffset, ReadError> {
        let Some((topic, queue)) = self.queue(topic, queue) else { return Ok(QueueOffset(0)) };
        self.store.search_time(&topic, queue, time_ms.max(0) as u64, boundary)
    }

    fn queue(&self, topic: &str, queue: i32) -> Option<(Arc<Topic>, QueueId)> {
        let topic = self.topics.get(topic)?;
        let queue = u32::try_from(queue).ok().filter(|queue| *queue < topic.config.queues())?;
        Some((topic, QueueId(queue)))
    }

    fn checked(&self, request: CommitRequest<'_>) -> Result<OffsetCommit, CommitOffsetError> {
        let CommitRequest { group, topic, queue, offset } = request;
        let known = self.groups.get(group);
        let Some(known) = known else {
            GroupName::new(group)?;
            return Err(CommitOffsetError::GroupUnknown { group: group.into() });
        };
        let group = known.group_name.clone();
        let found = self.topics.find(topic)?;
        let range = || CommitOffsetError::Range { topic: topic.into(), queue, offset };
        let number = u32::try_from(queue).ok().filter(|queue| *queue < found.config.queues());
        let queue = QueueId(number.ok_or_else(range)?);
        let offset = QueueOffset(u64::try_from(offset).map_err(|_| range())?);
        Ok(OffsetCommit { group, topic: found.id, queue, offset })
    }
}
