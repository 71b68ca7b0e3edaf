//! Held reads: consumers that wait for a message of one queue.
//! Invariant: each held read is woken exactly once, or forgotten with its owner; never more than `max` are held.
//! Leaves the reading itself, and the answer, to whoever holds; reads no clock.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering, fence},
};

use gantry_model::{QueueId, QueueOffset, TopicId};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::filter::TagFilter;

/// One queue of one topic.
pub type QueueKey = (TopicId, QueueId);

/// Whoever waits: the number of a connection, or of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(pub u64);

/// Why a held read was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A message arrived that it may want.
    Arrived,
    /// What it reads has changed otherwise.
    Stirred,
    /// Its time is up.
    Deadline,
    /// The broker stops.
    Stopping,
}

/// A message that consumers may see from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Where it is.
    pub queue: QueueKey,
    /// Its place there.
    pub offset: QueueOffset,
    /// Hash of its tag.
    pub tag_hash: i64,
}

/// A read to be held.
pub struct Held {
    /// Who waits; forgotten as a whole when it goes away.
    pub owner: Owner,
    /// Where it waits.
    pub queue: QueueKey,
    /// First offset that it has not seen.
    pub from: QueueOffset,
    /// What it wants.
    pub filter: TagFilter,
    /// When it is woken at the latest, on the monotonic clock.
    pub deadline_ms: u64,
    /// Called once, outside every lock.
    pub wake: Box<dyn FnOnce(Wake) + Send>,
}

/// Number of a held read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(u64);

/// No further read can be held; the caller gets its read back.
pub struct TooMany(pub Held);

/// All held reads of a broker.
pub struct Holds {
    max: usize,
    /// Equal to the number of reads in the table; read without the lock on each append.
    count: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    stopped: bool,
    by_queue: HashMap<QueueKey, Vec<(HoldId, Held)>>,
    by_deadline: BTreeMap<(u64, HoldId), QueueKey>,
    by_owner: HashMap<Owner, Vec<(HoldId, QueueKey)>>,
}

impl Holds {
    /// An empty table for at most `max` reads.
    pub fn new(max: usize) -> Self {
        Self { max, count: AtomicUsize::new(0), table: Mutex::default() }
    }

    /// Number of reads held.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether no read is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether anybody waits; orders the caller's append before the look.
    pub fn is_watching(&self) -> bool {
        fence(Ordering::SeqCst);
        self.count.load(Ordering::SeqCst) != 0
    }

    /// Holds a read until it is woken. Afterwards the caller looks at the queue once more, since a
    /// message may have arrived before; if there is one, it [`Holds::take`]s the read back.
    ///
    /// # Errors
    /// The table is full or closed.
    pub fn park(&self, held: Held) -> Result<HoldId, TooMany> {
        let mut table = self.table.lock();
        if table.stopped || self.count.load(Ordering::Relaxed) >= self.max {
            return Err(TooMany(held));
        }
        let id = table.insert(held);
        self.count.fetch_add(1, Ordering::SeqCst);
        // Orders the count before the caller's second look at the queue: either it sees the message,
        // or the appender sees the count.
        fence(Ordering::SeqCst);
        Ok(id)
    }

    /// Takes a read back, if it was not woken meanwhile.
    pub fn take(&self, queue: QueueKey, id: HoldId) -> Option<Held> {
        let held = self.table.lock().remove(queue, id)?;
        self.count.fetch_sub(1, Ordering::SeqCst);
        Some(held)
    }

    /// Wakes the reads that want one of the arrived messages.
    pub fn arrived(&self, arrivals: &[Arrival]) {
        if arrivals.is_empty() || !self.is_watching() {
            return;
        }
        let woken = self.table.lock().take_wanting(arrivals);
        self.wake_all(woken, Wake::Arrived);
    }

    /// Wakes every read of a queue: it has to look again, whether a message came or not.
    pub fn stir(&self, queue: QueueKey) {
        if !self.is_watching() {
            return;
        }
        let woken = self.table.lock().take_queue(queue);
        self.wake_all(woken, Wake::Stirred);
    }

    /// Wakes the reads whose time is up.
    pub fn expire(&self, monotonic_ms: u64) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let woken = self.table.lock().take_expired(monotonic_ms);
        self.wake_all(woken, Wake::Deadline);
    }

    /// Drops all reads of an owner that is gone.
    pub fn forget(&self, owner: Owner) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let dropped = self.table.lock().take_owned(owner);
        self.count.fetch_sub(dropped.len(), Ordering::SeqCst);
    }

    /// Wakes every read and accepts none from now on.
    pub fn stop(&self) {
        let woken = {
            let mut table = self.table.lock();
            table.stopped = true;
            table.take_expired(u64::MAX)
        };
        self.wake_all(woken, Wake::Stopping);
    }

    fn wake_all(&self, woken: Vec<Held>, why: Wake) {
        self.count.fetch_sub(woken.len(), Ordering::SeqCst);
        for held in woken {
            (held.wake)(why);
        }
    }
}

impl Table {
    fn insert(&mut self, held: Held) -> HoldId {
        let id = HoldId(self.next_id);
        self.next_id += 1;
        self.by_deadline.insert((held.deadline_ms, id), held.queue);
        self.by_owner.entry(held.owner).or_default().push((id, held.queue));
        self.by_queue.entry(held.queue).or_default().push((id, held));
        id
    }

    fn remove(&mut self, queue: QueueKey, id: HoldId) -> Option<Held> {
        let reads = self.by_queue.get_mut(&queue)?;
        let at = reads.iter().position(|(found, _)| *found == id)?;
        let (_, held) = reads.swap_remove(at);
        if reads.is_empty() {
            self.by_queue.remove(&queue);
        }
        self.unlink(id, &held);
        Some(held)
    }

    /// Removes a read from the two other tables.
    fn unlink(&mut self, id: HoldId, held: &Held) {
        self.by_deadline.remove(&(held.deadline_ms, id));
        if let Some(owned) = self.by_owner.get_mut(&held.owner) {
            owned.retain(|(found, _)| *found != id);
            if owned.is_empty() {
                self.by_owner.remove(&held.owner);
            }
        }
    }

    fn take_wanting(&mut self, arrivals: &[Arrival]) -> Vec<Held> {
        let mut woken = Vec::new();
        for arrival in arrivals {
            let Some(reads) = self.by_queue.get(&arrival.queue) else { continue };
            let wanting: Vec<HoldId> = reads
                .iter()
                .filter(|(_, held)| {
                    arrival.offset >= held.from && held.filter.accepts(arrival.tag_hash)
                })
                .map(|(id, _)| *id)
                .collect();
            woken.extend(wanting.into_iter().filter_map(|id| self.remove(arrival.queue, id)));
        }
        woken
    }

    fn take_queue(&mut self, queue: QueueKey) -> Vec<Held> {
        let reads = self.by_queue.remove(&queue).unwrap_or_default();
        let unlinked = reads.into_iter().map(|(id, held)| {
            self.unlink(id, &held);
            held
        });
        unlinked.collect()
    }

    fn take_expired(&mut self, monotonic_ms: u64) -> Vec<Held> {
        let mut expired = Vec::new();
        while let Some((&(deadline_ms, id), &queue)) = self.by_deadline.first_key_value() {
            if deadline_ms > monotonic_ms {
                break;
            }
            self.by_deadline.pop_first();
            expired.extend(self.remove(queue, id));
        }
        expired
    }

    fn take_owned(&mut self, owner: Owner) -> Vec<Held> {
        let reads = self.by_owner.remove(&owner).unwrap_or_default();
        reads.into_iter().filter_map(|(id, queue)| self.remove(queue, id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex as StdMutex};

    use super::*;

    const QUEUE: QueueKey = (TopicId(1), QueueId(0));
    type Log = Arc<StdMutex<Vec<(&'static str, Wake)>>>;

    fn held(log: &Log, name: &'static str, filter: &str, deadline_ms: u64) -> Held {
        let log = Arc::clone(log);
        Held {
            owner: Owner(name.len() as u64),
            queue: QUEUE,
            from: QueueOffset(5),
            filter: TagFilter::parse(filter).unwrap(),
            deadline_ms,
            wake: Box::new(move |why| log.lock().unwrap().push((name, why))),
        }
    }

    fn arrival(offset: u64, tag: &str) -> Arrival {
        let tag_hash = i64::from(gantry_record::tag_hash(tag));
        Arrival { queue: QUEUE, offset: QueueOffset(offset), tag_hash }
    }

    fn park(holds: &Holds, held: Held) -> HoldId {
        holds.park(held).unwrap_or_else(|_| unreachable!("the table has room"))
    }

    #[test]
    fn only_a_wanted_message_at_or_beyond_the_offset_wakes() {
        let (holds, log) = (Holds::new(10), Log::default());
        park(&holds, held(&log, "a", "TagA", 100));
        holds.arrived(&[arrival(5, "TagB"), arrival(4, "TagA")]);
        assert_eq!((holds.len(), log.lock().unwrap().len()), (1, 0));
        holds.arrived(&[arrival(6, "TagA"), arrival(7, "TagA")]);
        assert_eq!(*log.lock().unwrap(), [("a", Wake::Arrived)]);
        assert!(holds.is_empty());
    }

    #[test]
    fn stirred_queue_wakes_all_its_reads_and_no_other() {
        let (holds, log) = (Holds::new(10), Log::default());
        park(&holds, held(&log, "a", "TagA", 100));
        park(&holds, held(&log, "b", "*", 100));
        holds.stir((QUEUE.0, QueueId(1)));
        assert!(log.lock().unwrap().is_empty());
        holds.stir(QUEUE);
        assert_eq!(*log.lock().unwrap(), [("a", Wake::Stirred), ("b", Wake::Stirred)]);
        holds.expire(100);
        assert!(holds.is_empty() && log.lock().unwrap().len() == 2, "woken once");
    }

    #[test]
    fn deadline_wakes_those_whose_time_is_up_and_no_other() {
        let (holds, log) = (Holds::new(10), Log::default());
        park(&holds, held(&log, "late", "*", 200));
        park(&holds, held(&log, "soon", "*", 100));
        holds.expire(99);
        assert!(log.lock().unwrap().is_empty());
        holds.expire(100);
        assert_eq!(*log.lock().unwrap(), [("soon", Wake::Deadline)]);
        assert_eq!(holds.len(), 1);
    }

    #[test]
    fn read_taken_back_is_not_woken() {
        let (holds, log) = (Holds::new(10), Log::default());
        let id = park(&holds, held(&log, "a", "*", 100));
        assert!(holds.take(QUEUE, id).is_some());
        assert!(holds.take(QUEUE, id).is_none());
        holds.arrived(&[arrival(9, "x")]);
        holds.stop();
        assert!(log.lock().unwrap().is_empty());
    }

    #[test]
    fn owner_that_leaves_takes_all_its_reads_along() {
        let (holds, log) = (Holds::new(10), Log::default());
        park(&holds, held(&log, "one", "*", 100));
        park(&holds, held(&log, "two", "*", 100));
        park(&holds, held(&log, "four", "*", 100));
        holds.forget(Owner(3));
        holds.arrived(&[arrival(9, "x")]);
        assert_eq!(*log.lock().unwrap(), [("four", Wake::Arrived)]);
    }

    #[test]
    fn full_table_and_stopped_table_give_the_read_back() {
        let (holds, log) = (Holds::new(1), Log::default());
        park(&holds, held(&log, "a", "*", 100));
        assert!(holds.park(held(&log, "b", "*", 100)).is_err());
        holds.stop();
        assert_eq!(*log.lock().unwrap(), [("a", Wake::Stopping)]);
        assert!(holds.park(held(&log, "c", "*", 100)).is_err());
    }
}
