//! Resets of offsets: groups moved by an administrator, whether their consumers are online or not.
//! Invariant: from a reset until a pull has shown it, commits for that queue change nothing.
//! Leaves the stored offset, which a reset replaces at once, to the store. Source: RocketMQ remoting, request code 222.

use std::sync::Arc;

use gantry_model::{GroupConfig, GroupName, QueueId, QueueOffset};
use gantry_store::{AppendError, Boundary, Now, OffsetCommit, ReadError, Store, Ticket, Topic};
use hashbrown::HashMap;
use parking_lot::RwLock;

use super::hold::{Holds, QueueKey};

/// Where a group is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTarget {
    /// This offset, one of those that the queue has.
    Offset(i64),
    /// The first message stored at that time or later, in milliseconds since 1970.
    Time(u64),
    /// The end of the queue.
    End,
}

/// Why offsets were not reset; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
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
    /// The queue has no such offset.
    #[error("Target offset {offset} not in consume queue range [{min}-{max}]")]
    Offset {
        /// Offset asked for.
        offset: i64,
        /// First offset still there.
        min: u64,
        /// Next offset to be written.
        max: u64,
    },
    /// The queue could not be looked at.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The new offsets could not be stored.
    #[error("store the reset offsets")]
    Append(#[from] AppendError),
}

/// Offsets by queue, and when they are safe.
#[derive(Debug)]
pub struct Reset {
    /// The queues that were reset.
    pub offsets: Vec<(QueueId, QueueOffset)>,
    /// Confirmed when they are on disk.
    pub ticket: Ticket,
}

type Queues = HashMap<QueueKey, QueueOffset>;

/// Resets that no pull has shown to its consumer.
pub struct Resets {
    store: Arc<Store>,
    holds: Arc<Holds>,
    pending: RwLock<HashMap<GroupName, Queues>>,
}

impl Resets {
    /// No resets; pulls in `holds` are woken by one.
    pub fn new(store: Arc<Store>, holds: Arc<Holds>) -> Self {
        Self { store, holds, pending: RwLock::default() }
    }

    /// Moves a group in one queue, or in all that may be read when `queue` is negative.
    pub fn reset(
        &self,
        group: &GroupConfig,
        topic: &Topic,
        queue: i32,
        target: ResetTarget,
        now: Now,
    ) -> Result<Reset, ResetError> {
        let moves = self.moves(topic, queue, target)?;
        let commits: Vec<_> = moves
            .iter()
            .map(|(queue, offset)| OffsetCommit {
                group: group.group_name.clone(),
                topic: topic.id,
                queue: *queue,
                offset: *offset,
            })
            .collect();
        let ticket = self.store_pending(&commits, now)?;
        for (queue, _) in &moves {
            self.holds.stir((topic.id, *queue));
        }
        Ok(Reset { offsets: moves, ticket })
    }

    fn moves(
        &self,
        topic: &Topic,
        queue: i32,
        target: ResetTarget,
    ) -> Result<Vec<(QueueId, QueueOffset)>, ResetError> {
        let queues = topic.config.read_queues;
        let wanted = match u32::try_from(queue) {
            Err(_) => 0..queues,
            Ok(queue) if queue < queues => queue..queue + 1,
            Ok(_) => {
                let topic = topic.name().to_string();
                return Err(ResetError::Queue { topic, queue, queues });
            }
        };
        wanted.map(QueueId).map(|queue| Ok((queue, self.find(topic, queue, target)?))).collect()
    }

    fn find(
        &self,
        topic: &Topic,
        queue: QueueId,
        target: ResetTarget,
    ) -> Result<QueueOffset, ResetError> {
        let bounds = self.store.queue_bounds(topic, queue)?;
        match target {
            ResetTarget::End => Ok(bounds.max),
            ResetTarget::Time(time_ms) => {
                Ok(self.store.search_time(topic, queue, time_ms, Boundary::Lower)?)
            }
            ResetTarget::Offset(offset) => {
                let (min, max) = (bounds.min.0, bounds.max.0);
                // One behind the end is taken for the end, as tools count it.
                let known = u64::try_from(offset).ok().filter(|at| (min..=max + 1).contains(at));
                let at = known.ok_or(ResetError::Offset { offset, min, max })?;
                Ok(QueueOffset(at.min(max)))
            }
        }
    }

    /// Stores the offsets and makes them pending in one step, as commits see it.
    fn store_pending(&self, commits: &[OffsetCommit], now: Now) -> Result<Ticket, AppendError> {
        let mut pending = self.pending.write();
        let ticket = self.store.commit_offsets(commits, now)?;
        for OffsetCommit { group, topic, queue, offset } in commits {
            pending.entry(group.clone()).or_default().insert((*topic, *queue), *offset);
        }
        Ok(ticket)
    }

    /// Runs `commit`, unless a reset is pending for the queue: `None`.
    pub(super) fn unless_pending<R>(
        &self,
        group: &str,
        queue: QueueKey,
        commit: impl FnOnce() -> R,
    ) -> Option<R> {
        // Held meanwhile, so that a commit comes before a reset or after it.
        let pending = self.pending.read();
        let reset = pending.get(group).is_some_and(|queues| queues.contains_key(&queue));
        (!reset).then(commit)
    }

    /// Whether a reset is pending for the queue.
    pub fn is_pending(&self, group: &str, queue: QueueKey) -> bool {
        self.pending.read().get(group).is_some_and(|queues| queues.contains_key(&queue))
    }

    /// Takes the reset that is pending for the queue: whoever takes it shows it to the consumer.
    pub fn take(&self, group: &str, queue: QueueKey) -> Option<QueueOffset> {
        if !self.is_pending(group, queue) {
            return None;
        }
        let mut pending = self.pending.write();
        let queues = pending.get_mut(group)?;
        let offset = queues.remove(&queue);
        if queues.is_empty() {
            pending.remove(group);
        }
        offset
    }

    /// Forgets resets of topics and groups that were deleted.
    pub fn forget_deleted(&self) {
        if self.pending.read().is_empty() {
            return;
        }
        let topics: hashbrown::HashSet<_> =
            self.store.topics().iter().map(|topic| topic.id).collect();
        let mut pending = self.pending.write();
        pending.retain(|group, queues| {
            queues.retain(|(topic, _), _| topics.contains(topic));
            !queues.is_empty() && self.store.group(group).is_some()
        });
    }
}
