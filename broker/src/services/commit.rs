//! Group commit: who waits for what to be confirmed, and who syncs for all of them.
//! Invariant: each waiter is called exactly once, `Ok` only when its records are confirmed; a waiter that comes
//! while a sync runs is served by the next one, and no timer delays either.
//! A thread of its own leads, so that all connections share its syncs. It begins one when half of what is on its way
//! waits, so that the processor takes in one half while the device writes the other, or when nobody is about to append.
//! A connection that is alone, on a disk that is quick, leads by itself: waking the thread and being woken by it would
//! cost as much as the sync.
//! Leaves the sync itself to the store, and with asynchronous flush has nothing to do.

use std::{sync::Arc, thread};

use gantry_model::PhysicalOffset;
use gantry_store::{Store, SyncError, Ticket};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::{clock::Clock, hold::Owner, lifecycle::Lifecycle, signal::Signal};

/// Waits of one owner in a row after which it counts as alone.
const ALONE_AFTER: u32 = 16;
/// Longest usual sync that a connection's own thread may do: others share that thread.
const OWN_SYNC_US_MAX: u64 = 500;

/// Why something appended was not confirmed. It may be on disk all the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// The sync failed: the log takes nothing more until the broker starts again.
    #[error("sync the log up to {end}")]
    Sync {
        /// End of what waited.
        end: PhysicalOffset,
        /// The cause.
        source: SyncError,
    },
    /// The broker stopped before the sync.
    #[error("the broker stopped before the log was synced up to {end}")]
    Stopped {
        /// End of what waited.
        end: PhysicalOffset,
    },
}

type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

struct Waiter {
    end: PhysicalOffset,
    done: Done,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiter>,
    stopped: bool,
    /// Who waited last, and how often in a row.
    last_owner: Option<Owner>,
    in_a_row: u32,
    /// Usual length of a sync, in microseconds: a mean in which the last one counts an eighth.
    sync_us: u64,
    is_syncing: bool,
    /// Bytes that the last sync covered, and those that came while it ran: what was on its way at once.
    on_its_way: u64,
}

impl Queue {
    /// Notes a wait of `owner` and returns whether it may sync by itself.
    fn may_lead(&mut self, owner: Owner) -> bool {
        if self.last_owner == Some(owner) {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            self.last_owner = Some(owner);
            self.in_a_row = 0;
        }
        self.in_a_row >= ALONE_AFTER
            && self.waiting.is_empty()
            && !self.stopped
            && self.sync_us <= OWN_SYNC_US_MAX
    }

    /// Whether a sync that begins now covers enough, of so many bytes that are not synced.
    fn is_worth_a_sync(&self, unsynced: u64) -> bool {
        unsynced >= self.on_its_way / 2
    }

    fn note_sync(&mut self, micros: u64, on_its_way: u64) {
        self.sync_us = (7 * self.sync_us + micros) / 8;
        self.on_its_way = on_its_way;
        self.is_syncing = false;
    }
}

/// Waiters for confirmation.
pub struct Commits {
    store: Arc<Store>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    clock: Clock,
    lifecycle: Arc<Lifecycle>,
    /// Raised after each sync: the views may follow.
    synced: Arc<Signal>,
}

impl Commits {
    /// A committer for `store`; `synced` is raised after each sync, and `lifecycle` learns of one that fails.
    pub fn new(
        store: Arc<Store>,
        synced: Arc<Signal>,
        clock: Clock,
        lifecycle: Arc<Lifecycle>,
    ) -> Self {
        Self { store, queue: Mutex::default(), arrived: Condvar::new(), clock, lifecycle, synced }
    }

    /// Whether everything up to the ticket is confirmed.
    pub fn is_confirmed(&self, ticket: Ticket) -> bool {
        self.store.confirmed() >= ticket.end
    }

    /// [`Commits::when_confirmed`] for one that comes often: if it is alone, the sync happens here and now.
    pub fn lead_or_wait(
        &self,
        owner: Owner,
        ticket: Ticket,
        done: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) {
        if self.is_confirmed(ticket) {
            return done(Ok(()));
        }
        if self.queue.lock().may_lead(owner) {
            self.serve(vec![Waiter { end: ticket.end, done: Box::new(done) }]);
        } else {
            self.when_confirmed(ticket, done);
        }
    }

    /// Calls `done` when the ticket is confirmed, at once if it is; else on the thread that syncs.
    pub fn when_confirmed(
        &self,
        ticket: Ticket,
        done: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) {
        if self.is_confirmed(ticket) {
            return done(Ok(()));
        }
        let mut queue = self.queue.lock();
        if queue.stopped {
            drop(queue);
            return done(Err(CommitError::Stopped { end: ticket.end }));
        }
        queue.waiting.push(Waiter { end: ticket.end, done: Box::new(done) });
        let is_due = !queue.is_syncing && queue.is_worth_a_sync(self.unsynced());
        drop(queue);
        self.arrived.notify_one();
        if is_due {
            // The leader may have to share a processor with this thread.
            thread::yield_now();
        }
    }

    /// Waits until the ticket is confirmed.
    pub async fn confirmed(&self, ticket: Ticket) -> Result<(), CommitError> {
        if self.is_confirmed(ticket) {
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        self.when_confirmed(ticket, move |result| {
            // The waiting task may be gone; then nobody wants to know.
            let _ = sender.send(result);
        });
        receiver.await.unwrap_or(Err(CommitError::Stopped { end: ticket.end }))
    }

    /// [`Commits::confirmed`] for threads.
    pub fn confirmed_blocking(&self, ticket: Ticket) -> Result<(), CommitError> {
        if self.is_confirmed(ticket) {
            return Ok(());
        }
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.when_confirmed(ticket, move |result| {
            let _ = sender.send(result);
        });
        receiver.recv().unwrap_or(Err(CommitError::Stopped { end: ticket.end }))
    }

    /// Syncs for all waiters until [`Commits::stop`]; the body of the thread that leads.
    pub fn run(&self) {
        while let Some(waiting) = self.next_round() {
            self.serve(waiting);
        }
    }

    /// Ends [`Commits::run`] after those who wait now were served; later waiters are refused.
    pub fn stop(&self) {
        self.queue.lock().stopped = true;
        self.arrived.notify_all();
    }

    fn next_round(&self) -> Option<Vec<Waiter>> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if queue.stopped {
                return None;
            }
            self.arrived.wait(&mut queue);
        }
        if !queue.is_worth_a_sync(self.unsynced()) {
            // Those who are about to append go first: one sync then serves them too.
            MutexGuard::unlocked(&mut queue, thread::yield_now);
        }
        queue.is_syncing = true;
        Some(std::mem::take(&mut queue.waiting))
    }

    fn unsynced(&self) -> u64 {
        self.store.written().0.saturating_sub(self.store.synced().0)
    }

    /// What the waiters appended was written before they came, so one sync covers all of them.
    fn serve(&self, waiting: Vec<Waiter>) {
        let (began_us, synced) = (self.clock.monotonic_us(), self.store.synced());
        let result = self.store.sync();
        let took_us = self.clock.monotonic_us() - began_us;
        let on_its_way = self.store.written().0.saturating_sub(synced.0);
        self.queue.lock().note_sync(took_us, on_its_way);
        self.synced.notify();
        if let Err(error) = &result {
            // Before anybody is answered: who asks for the broker's health then is told the same.
            self.lifecycle.note_sync_error(error);
            tracing::error!(waiters = waiting.len(), "messages were not confirmed");
        }
        for Waiter { end, done } in waiting {
            done(match &result {
                Ok(_) => Ok(()),
                Err(source) => Err(CommitError::Sync { end, source: source.clone() }),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_leads_only_while_it_is_alone_and_the_disk_is_quick() {
        let mut queue = Queue::default();
        let at_first = (0..ALONE_AFTER).any(|_| queue.may_lead(Owner(1)));
        assert!(!at_first, "not before it has been alone for long");
        assert!(queue.may_lead(Owner(1)));
        assert!(!queue.may_lead(Owner(2)));
        assert!(!queue.may_lead(Owner(1)), "another one came between");
        (0..ALONE_AFTER).for_each(|_| _ = queue.may_lead(Owner(1)));
        assert!(queue.may_lead(Owner(1)));
        (0..64).for_each(|_| queue.note_sync(5_000, 0));
        assert!(!queue.may_lead(Owner(1)), "the disk is slow");
        (0..64).for_each(|_| queue.note_sync(100, 0));
        assert!(queue.may_lead(Owner(1)));
        let done = Box::new(|_| ());
        queue.waiting.push(Waiter { end: PhysicalOffset(1), done });
        assert!(!queue.may_lead(Owner(1)), "somebody waits for the thread");
    }

    #[test]
    fn half_of_what_was_on_its_way_is_worth_a_sync() {
        let mut queue = Queue::default();
        assert!(queue.is_worth_a_sync(1), "nothing is known yet");
        queue.note_sync(100, 1_000);
        assert!(!queue.is_worth_a_sync(499));
        assert!(queue.is_worth_a_sync(500));
        queue.note_sync(100, 10);
        assert!(queue.is_worth_a_sync(5), "there is less now");
    }
}
