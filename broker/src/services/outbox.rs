//! Messages on their way into the log: what the store appends, and whom to tell afterwards.
//! Invariant: for each message of the batch there is one target, at the same index.
//! Leaves appending to the store and waking to `hold`.

use std::{net::SocketAddr, sync::Arc};

use gantry_model::{QueueId, TopicId};
use gantry_record::Draft;
use gantry_store::{AppendError, Batch, EncodeError, Index, Now, Placed, Store, Ticket, Topic};
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::hold::{Arrival, Holds};

/// Arrivals of one batch; most batches are no larger.
pub type ArrivalList = SmallVec<[Arrival; 4]>;

/// A batch and its targets; keeps its memory from one append to the next.
#[derive(Default)]
pub struct Outbox {
    batch: Batch,
    targets: Vec<(TopicId, QueueId, i64)>,
    first_due_ms: Option<u64>,
}

impl Outbox {
    /// Adds a message and returns its index.
    ///
    /// # Errors
    /// The message cannot be a record; the outbox is unchanged.
    pub fn push(
        &mut self,
        topic: &Arc<Topic>,
        draft: &Draft<'_>,
        index: Index<'_>,
    ) -> Result<usize, EncodeError> {
        let at = self.batch.push(topic, draft, index)?;
        self.targets.push((topic.id, draft.queue, index.tag_hash));
        let dues = self.first_due_ms.into_iter().chain(index.timer_due_ms);
        self.first_due_ms = dues.min();
        Ok(at)
    }

    /// Forgets every message.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.targets.clear();
        self.first_due_ms = None;
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Bytes of the encoded messages.
    pub fn bytes(&self) -> usize {
        self.batch.bytes()
    }

    /// Earliest due time of the messages that wait for one, in milliseconds since 1970.
    pub fn first_due_ms(&self) -> Option<u64> {
        self.first_due_ms
    }

    /// Appends all messages or none.
    pub fn append(&mut self, store: &Store, now: Now) -> Result<Ticket, AppendError> {
        store.append(&mut self.batch, now)
    }

    /// Where a message is, after the append.
    pub fn placed(&self, index: usize) -> Placed {
        self.batch.placed(index)
    }

    /// The appended messages, to be told of when they are confirmed.
    pub fn arrivals(&self) -> ArrivalList {
        let targets = self.targets.iter().enumerate();
        targets
            .map(|(index, &(topic, queue, tag_hash))| Arrival {
                queue: (topic, queue),
                offset: self.batch.placed(index).queue_offset,
                tag_hash,
            })
            .collect()
    }

    /// Wakes those who wait for one of the appended messages, which are confirmed.
    pub fn tell(&self, holds: &Holds) {
        if holds.is_watching() {
            holds.arrived(&self.arrivals());
        }
    }
}

/// The address that clients connect to, which may change while the broker runs.
#[derive(Debug)]
pub struct StoreHost(RwLock<SocketAddr>);

impl StoreHost {
    /// The address at start.
    pub fn new(address: SocketAddr) -> Self {
        Self(RwLock::new(address))
    }

    /// The address at present.
    pub fn get(&self) -> SocketAddr {
        *self.0.read()
    }

    /// Replaces the address; messages stored from now on carry it.
    pub fn set(&self, address: SocketAddr) {
        *self.0.write() = address;
    }
}
