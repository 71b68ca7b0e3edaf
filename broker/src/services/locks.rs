//! Queue locks of ordered consumers: which client of a group reads which queue alone.
//! Invariant: a queue has one holder in a group; a lock not renewed for `LOCK_MS` is free.
//! Leaves reading to nobody's check: clients honour the locks. Source: RocketMQ remoting, request codes 41, 42.

use gantry_model::{GroupName, QueueId, TopicName};
use hashbrown::HashMap;
use parking_lot::Mutex;

/// How long a lock lives after its last renewal.
pub const LOCK_MS: u64 = 60_000;

/// A queue as clients name it.
pub type NamedQueue = (TopicName, QueueId);

#[derive(Debug)]
struct Lock {
    client_id: String,
    renewed_ms: u64,
}

impl Lock {
    fn lives(&self, monotonic_ms: u64) -> bool {
        monotonic_ms.saturating_sub(self.renewed_ms) < LOCK_MS
    }
}

/// All queue locks.
#[derive(Debug, Default)]
pub struct QueueLocks {
    groups: Mutex<HashMap<GroupName, HashMap<NamedQueue, Lock>>>,
}

impl QueueLocks {
    /// Locks or renews what is free or the client's own; returns whether the client holds each queue.
    pub fn lock(
        &self,
        group: &GroupName,
        client_id: &str,
        queues: &[NamedQueue],
        monotonic_ms: u64,
    ) -> Vec<bool> {
        let mut groups = self.groups.lock();
        let locks = groups.entry(group.clone()).or_default();
        let mut take = |queue: &NamedQueue| {
            let held = locks.get(queue);
            let free =
                held.is_none_or(|lock| lock.client_id == client_id || !lock.lives(monotonic_ms));
            if free {
                let lock = Lock { client_id: client_id.into(), renewed_ms: monotonic_ms };
                locks.insert(queue.clone(), lock);
            }
            free
        };
        queues.iter().map(&mut take).collect()
    }

    /// Frees those of the queues that the client holds.
    pub fn unlock(&self, group: &str, client_id: &str, queues: &[NamedQueue]) {
        let mut groups = self.groups.lock();
        let Some(locks) = groups.get_mut(group) else { return };
        for queue in queues {
            if locks.get(queue).is_some_and(|lock| lock.client_id == client_id) {
                locks.remove(queue);
            }
        }
        if locks.is_empty() {
            groups.remove(group);
        }
    }

    /// Whether any client of the group holds a lock: the group consumes in order.
    pub fn any_held(&self, group: &str, monotonic_ms: u64) -> bool {
        let groups = self.groups.lock();
        groups.get(group).is_some_and(|locks| locks.values().any(|lock| lock.lives(monotonic_ms)))
    }

    /// Drops locks that nobody renewed.
    pub fn expire(&self, monotonic_ms: u64) {
        self.groups.lock().retain(|_, locks| {
            locks.retain(|_, lock| lock.lives(monotonic_ms));
            !locks.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: u32) -> NamedQueue {
        (TopicName::new("t").unwrap(), QueueId(id))
    }

    #[test]
    fn lock_is_held_by_one_client_until_it_lets_go_or_falls_silent() {
        let locks = QueueLocks::default();
        let group = GroupName::new("g").unwrap();
        let both = [queue(0), queue(1)];
        assert_eq!(locks.lock(&group, "a", &both[..1], 0), [true]);
        assert_eq!(locks.lock(&group, "b", &both, 0), [false, true]);
        assert_eq!(locks.lock(&group, "a", &both[..1], LOCK_MS - 1), [true]);
        assert_eq!(locks.lock(&group, "b", &both[..1], LOCK_MS), [false]);
        locks.unlock("g", "b", &both[..1]);
        assert_eq!(locks.lock(&group, "b", &both[..1], LOCK_MS), [false]);
        locks.unlock("g", "a", &both[..1]);
        assert_eq!(locks.lock(&group, "b", &both[..1], LOCK_MS), [true]);
        assert_eq!(locks.lock(&group, "c", &both[..1], 2 * LOCK_MS), [true]);
    }

    #[test]
    fn groups_do_not_share_locks_and_expired_ones_do_not_count() {
        let locks = QueueLocks::default();
        locks.lock(&GroupName::new("g").unwrap(), "a", &[queue(0)], 0);
        assert_eq!(locks.lock(&GroupName::new("h").unwrap(), "b", &[queue(0)], 0), [true]);
        assert!(locks.any_held("g", LOCK_MS - 1));
        assert!(!locks.any_held("g", LOCK_MS));
        locks.expire(LOCK_MS);
        assert!(locks.groups.lock().is_empty());
    }
}
