//! What all connections of a server hold together: buffers that they keep for their next turn, and bytes that wait
//! for a peer, which are frames that are not complete and answers that were not taken.
//! Invariant: kept buffers never exceed their half. Beyond the half of what waits, connections that have held
//! something for the longest are closed until an eighth is free; one whose peer reads holds nothing between turns.
//! Leaves what one connection may hold to its driver. Bytes are counted in steps, so that a usual turn counts nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{CloseReason, Connection};

/// What is counted: whole steps of that many bytes.
const STEP_BYTES: usize = 4 * 1024;
/// Time between two lines of the log about closed connections.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// Answers of one hand-over while much is held, besides one: a reader that is slow holds little then.
const TIGHT_ANSWER_BYTES: usize = 16 * 1024;

/// The bound and its use.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    kept: AtomicUsize,
    waiting: AtomicUsize,
    began: Instant,
    relief: Mutex<Relief>,
}

/// What was done against too much, and told.
#[derive(Debug, Default)]
struct Relief {
    /// Connections that were closed since it was last told.
    closed: u64,
    told: Option<Instant>,
}

impl Relief {
    /// Adds to the closed ones; says how many to tell of if it is time to tell again.
    fn tell(&mut self, closed: u64, now: Instant) -> Option<u64> {
        self.closed += closed;
        let is_time = self.told.is_none_or(|told| now - told >= TELL_INTERVAL);
        if self.closed == 0 || !is_time {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.closed))
    }
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (kept, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { bytes_max, kept, waiting, began: Instant::now(), relief: Mutex::default() }
    }

    /// Bytes held at present, kept buffers included.
    pub(super) fn bytes(&self) -> usize {
        self.kept.load(Relaxed) + self.waiting.load(Relaxed)
    }

    /// How many bytes of answers one hand-over may bring, at most `most`.
    pub(super) fn answer_bytes(&self, most: usize) -> usize {
        if self.is_tight() { most.min(TIGHT_ANSWER_BYTES) } else { most }
    }

    /// Whether so much waits for peers that each is to hold little.
    pub(super) fn is_tight(&self) -> bool {
        self.waiting.load(Relaxed) > self.bytes_max / 4
    }

    fn is_exceeded(&self) -> bool {
        self.waiting.load(Relaxed) > self.bytes_max / 2
    }

    /// Closes connections, those first that have held something for the longest, if too much waits for peers.
    /// Returns how many were closed since it said so last, at most once a second.
    pub(super) fn relieve(
        &self,
        connections: &Mutex<HashMap<u64, Arc<Connection>>>,
    ) -> Option<u64> {
        if !self.is_exceeded() {
            return None;
        }
        // Whoever has it already frees enough for all.
        let mut relief = self.relief.try_lock()?;
        let closed = self.close_longest(connections);
        relief.tell(closed, Instant::now())
    }

    fn close_longest(&self, connections: &Mutex<HashMap<u64, Arc<Connection>>>) -> u64 {
        let mut holders: Vec<(u64, usize, Arc<Connection>)> = connections
            .lock()
            .values()
            .map(|connection| (connection.held.bytes.load(Relaxed), connection))
            .filter(|(bytes, _)| *bytes > 0)
            .map(|(bytes, connection)| {
                (connection.held.since_us.load(Relaxed), bytes, Arc::clone(connection))
            })
            .collect();
        // One alone is within its own bounds.
        if holders.len() == 1 {
            return 0;
        }
        holders.sort_unstable_by_key(|(since_us, ..)| *since_us);
        let most = self.bytes_max / 2 - self.bytes_max / 16;
        let mut left = self.waiting.load(Relaxed);
        let mut closed = 0;
        for (_, bytes, connection) in holders {
            if left <= most {
                break;
            }
            left = left.saturating_sub(bytes);
            // One that is closed already gives its bytes back soon.
            if !connection.is_closed() {
                connection.close(CloseReason::HeldTooMuch { bytes });
                closed += 1;
            }
        }
        closed
    }
}

/// What of a connection waits for its peer.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
    /// Since when without a break, on the budget's clock.
    since_us: AtomicU64,
}

impl Held {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: AtomicUsize::new(0), since_us: AtomicU64::new(0) }
    }

    /// Notes that a part of it is `after` bytes now instead of `before`.
    #[inline]
    pub(crate) fn change(&self, before: usize, after: usize) {
        let (before, after) = (before / STEP_BYTES, after / STEP_BYTES);
        if before != after {
            self.change_steps(before * STEP_BYTES, after * STEP_BYTES);
        }
    }

    fn change_steps(&self, before: usize, after: usize) {
        if before > after {
            self.bytes.fetch_sub(before - after, Relaxed);
            self.budget.waiting.fetch_sub(before - after, Relaxed);
            return;
        }
        if self.bytes.fetch_add(after - before, Relaxed) == 0 {
            self.since_us.store(self.budget.began.elapsed().as_micros() as u64, Relaxed);
        }
        self.budget.waiting.fetch_add(after - before, Relaxed);
    }
}

/// Buffers that a connection keeps for its next turn; they are given back when this is dropped.
#[derive(Debug)]
pub(super) struct Kept {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Kept {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Whether buffers of so many bytes may be kept; if not, none may.
    #[inline]
    pub(super) fn keeps(&mut self, bytes: usize) -> bool {
        bytes <= self.bytes || self.grow(bytes)
    }

    fn grow(&mut self, bytes: usize) -> bool {
        // Rounded up, so that a buffer that grows asks seldom.
        let bytes = bytes.next_power_of_two();
        let most = self.budget.bytes_max / 2;
        let more = bytes - self.bytes;
        let granted = self
            .budget
            .kept
            .fetch_update(Relaxed, Relaxed, |kept| Some(kept + more).filter(|kept| *kept <= most));
        if granted.is_ok() {
            self.bytes = bytes;
        } else {
            self.give_back();
        }
        granted.is_ok()
    }

    pub(super) fn give_back(&mut self) {
        self.budget.kept.fetch_sub(self.bytes, Relaxed);
        self.bytes = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_up_to_half_of_the_budget_and_given_back() {
        let budget = Arc::new(Budget::new(64 * 1024));
        let (mut one, mut other) = (Kept::new(budget.clone()), Kept::new(budget.clone()));
        assert!(one.keeps(10_000) && one.keeps(16_384));
        assert_eq!(budget.bytes(), 16_384);
        assert!(other.keeps(16_384));
        assert!(!other.keeps(16_385), "there is no more, and what it had is gone too");
        assert!(other.is_empty());
        assert_eq!(budget.bytes(), 16_384);
        assert!(one.keeps(32_768));
        drop((one, other));
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn closed_connections_are_told_once_a_second_and_none_is_left_out() {
        let (mut relief, now) = (Relief::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(relief.tell(0, at(0)), None);
        assert_eq!(relief.tell(1, at(0)), Some(1));
        assert_eq!(relief.tell(2, at(10)), None);
        assert_eq!(relief.tell(3, at(999)), None);
        assert_eq!(relief.tell(0, at(1000)), Some(5));
        assert_eq!(relief.tell(0, at(3000)), None);
    }

    #[test]
    fn steps_add_up_to_what_is_held_and_back_to_nothing() {
        let budget = Arc::new(Budget::new(1 << 20));
        let held = Held::new(budget.clone());
        held.change(0, STEP_BYTES - 1);
        assert_eq!(budget.bytes(), 0, "less than a step is not counted");
        held.change(STEP_BYTES - 1, 300_000);
        assert_eq!(budget.bytes(), 300_000 / STEP_BYTES * STEP_BYTES);
        assert_eq!(budget.answer_bytes(256 * 1024), TIGHT_ANSWER_BYTES);
        held.change(300_000, 1);
        assert_eq!((budget.bytes(), budget.answer_bytes(256 * 1024)), (0, 256 * 1024));
    }
}
