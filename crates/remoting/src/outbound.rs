//! What both ends of a connection share: the bytes that wait to be written, and the calls that
//! wait for an answer.
//!
//! Any thread appends; the connection's own task takes everything at once and writes it with one
//! system call. Waiting bytes never exceed their bound, and a closed end accepts nothing. A server's end has
//! them counted among those of all connections.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::envelope::Command;
use crate::server::Held;

/// Capacity above which an emptied buffer is given back instead of kept.
pub(crate) const KEPT_BYTES_MAX: usize = 512 * 1024;

/// Bytes that wait to be written. `R` says why the connection was closed.
#[derive(Debug)]
pub(crate) struct Outbound<R> {
    state: Mutex<State<R>>,
    wake: Notify,
    /// Wakes those that wait for [`Outbound::drained_to`].
    drained: Notify,
    bytes_max: usize,
    /// Where waiting bytes are counted, if anywhere.
    held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct State<R> {
    waiting: BytesMut,
    closed: Option<R>,
}

/// Why bytes were not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    /// The bound is reached; what was written has been taken back.
    Full,
}

impl<R: Clone> Outbound<R> {
    pub(crate) fn new(bytes_max: usize, held: Option<Arc<Held>>) -> Self {
        let state = Mutex::new(State { waiting: BytesMut::new(), closed: None });
        Self { state, wake: Notify::new(), drained: Notify::new(), bytes_max, held }
    }

    fn count(&self, before: usize, after: usize) {
        if let Some(held) = &self.held {
            held.change(before, after);
        }
    }

    /// Lets `write` append to the waiting bytes and wakes the task that writes them.
    pub(crate) fn append<T>(&self, write: impl FnOnce(&mut BytesMut) -> T) -> Result<T, Refused> {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return Err(Refused::Closed);
        }
        let before = state.waiting.len();
        let written = write(&mut state.waiting);
        if state.waiting.len() > self.bytes_max {
            state.waiting.truncate(before);
            return Err(Refused::Full);
        }
        let after = state.waiting.len();
        self.count(before, after);
        let wake = before == 0 && after > 0;
        drop(state);
        // Bytes that already waited have woken the task, and it takes all there are.
        if wake {
            self.wake.notify_one();
        }
        Ok(written)
    }

    /// Moves every waiting byte to the end of `out`. Returns how many bytes of memory it keeps for the next ones.
    pub(crate) fn take(&self, out: &mut BytesMut) -> usize {
        let mut state = self.state.lock();
        self.count(state.waiting.len(), 0);
        if out.is_empty() {
            std::mem::swap(out, &mut state.waiting);
        } else {
            out.extend_from_slice(&state.waiting);
            state.waiting.clear();
        }
        let kept = state.waiting.capacity();
        drop(state);
        self.drained.notify_waiters();
        kept
    }

    /// Returns when at most `bytes` wait, `true`, or when it is closed.
    pub(crate) async fn drained_to(&self, bytes: usize) -> bool {
        loop {
            let mut drained = pin!(self.drained.notified());
            // What drains from here on wakes, also before it is waited for.
            drained.as_mut().enable();
            {
                let state = self.state.lock();
                if state.closed.is_some() || state.waiting.len() <= bytes {
                    return state.closed.is_none();
                }
            }
            drained.await;
        }
    }

    /// Forgets what waits: nobody takes it any more.
    pub(crate) fn clear(&self) {
        let mut state = self.state.lock();
        self.count(state.waiting.len(), 0);
        state.waiting = BytesMut::new();
    }

    /// Closes with `reason`, unless there is one already; the waiting bytes may still be taken.
    pub(crate) fn close(&self, reason: R) {
        self.state.lock().closed.get_or_insert(reason);
        self.wake.notify_one();
        self.drained.notify_waiters();
    }

    pub(crate) fn closed(&self) -> Option<R> {
        self.state.lock().closed.clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed.is_some()
    }

    /// Gives memory back while nothing waits.
    pub(crate) fn release_memory(&self) {
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            state.waiting = BytesMut::new();
        }
    }

    /// Returns when bytes wait or the connection was closed; may also return for no reason.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// Empties a buffer; a large one gives its memory back.
pub(crate) fn reset(buffer: &mut BytesMut) {
    if buffer.capacity() > KEPT_BYTES_MAX {
        *buffer = BytesMut::new();
    } else {
        buffer.clear();
    }
}

/// Requests of one side that wait for the other side's answer.
#[derive(Debug)]
pub(crate) struct Calls {
    next_opaque: AtomicI32,
    /// `None` once the connection is closed.
    waiting: Mutex<Option<HashMap<i32, oneshot::Sender<Command>>>>,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self { next_opaque: AtomicI32::new(0), waiting: Mutex::new(Some(HashMap::new())) }
    }

    pub(crate) fn next_opaque(&self) -> i32 {
        self.next_opaque.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a call under a fresh correlation id; `None` when the connection is closed.
    pub(crate) fn register(self: &Arc<Self>) -> Option<Waiting> {
        let opaque = self.next_opaque();
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().as_mut()?.insert(opaque, sender);
        Some(Waiting { calls: Arc::clone(self), opaque, answer })
    }

    /// Hands an answer to its call; `false` when none waits for it.
    pub(crate) fn complete(&self, answer: Command) -> bool {
        let sender = self.waiting.lock().as_mut().and_then(|calls| calls.remove(&answer.opaque));
        sender.is_some_and(|sender| sender.send(answer).is_ok())
    }

    pub(crate) fn any_waiting(&self) -> bool {
        self.waiting.lock().as_ref().is_some_and(|calls| !calls.is_empty())
    }

    /// Ends every call without an answer, and refuses later ones.
    pub(crate) fn close(&self) {
        *self.waiting.lock() = None;
    }
}

/// A registered call; dropping it forgets the call.
#[derive(Debug)]
pub(crate) struct Waiting {
    calls: Arc<Calls>,
    pub(crate) opaque: i32,
    pub(crate) answer: oneshot::Receiver<Command>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(calls) = self.calls.waiting.lock().as_mut() {
            calls.remove(&self.opaque);
        }
    }
}
