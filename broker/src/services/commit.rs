//! Group commit: who waits for what to be confirmed, and the one thread that syncs for all of them.
//! Invariant: each waiter is called exactly once, `Ok` only when its records are confirmed; a waiter that comes
//! while a sync runs is served by the next one, and no timer delays either.
//! Leaves the sync itself to the store, and with asynchronous flush has nothing to do.

use std::sync::Arc;

use gantry_model::PhysicalOffset;
use gantry_store::{Store, SyncError, Ticket};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::signal::Signal;

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
}

/// Waiters for confirmation.
pub struct Commits {
    store: Arc<Store>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Raised after each sync: the views may follow.
    synced: Arc<Signal>,
}

impl Commits {
    /// A committer for `store`; `synced` is raised after each sync.
    pub fn new(store: Arc<Store>, synced: Arc<Signal>) -> Self {
        Self { store, queue: Mutex::default(), arrived: Condvar::new(), synced }
    }

    /// Whether everything up to the ticket is confirmed.
    pub fn is_confirmed(&self, ticket: Ticket) -> bool {
        self.store.confirmed() >= ticket.end
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
        drop(queue);
        self.arrived.notify_one();
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
        Some(std::mem::take(&mut queue.waiting))
    }

    /// What the waiters appended was written before they came, so one sync covers all of them.
    fn serve(&self, waiting: Vec<Waiter>) {
        let result = self.store.sync();
        self.synced.notify();
        if let Err(error) = &result {
            tracing::error!(%error, waiters = waiting.len(), "sync of the log failed");
        }
        for Waiter { end, done } in waiting {
            done(match &result {
                Ok(_) => Ok(()),
                Err(source) => Err(CommitError::Sync { end, source: source.clone() }),
            });
        }
    }
}
