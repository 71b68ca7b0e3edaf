//! Sends: from a producer's request to messages in the log.
//! Invariant: a request is taken as a whole or refused as a whole; what is refused leaves nothing in the outbox.
//! Leaves waiting for the disk to `commit`, and codes and remarks to the front doors. Source: RocketMQ
//! remoting, request codes 10, 310, 320.

mod error;
mod stage;
mod target;

use std::{net::SocketAddr, ops::Range, sync::Arc, sync::atomic::Ordering};

use gantry_model::{QueueId, settings::BrokerSettings};
use gantry_store::{AppendError, Now, Store, Ticket, Topic};

pub use self::error::SendError;
use super::{
    backlog::Backlog,
    clock::Clock,
    compose::Stamp,
    counters::{Counters, MessageKind},
    groups::Groups,
    hold::{Arrival, Holds},
    lifecycle::Lifecycle,
    locks::QueueLocks,
    outbox::{Outbox, StoreHost},
    signal::Signal,
    timers::TimerSignal,
    topics::Topics,
};

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
}
