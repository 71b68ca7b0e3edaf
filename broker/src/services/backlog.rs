//! Backlog: sends that are written and whose answers wait until they are confirmed.
//! Invariant: no send is taken while their bytes are at the bound, so they exceed it by what is being taken at most;
//! what is refused was not written. Each gives its bytes back when it is answered.
//! Leaves the waiting itself to `commit`. With asynchronous flush nothing waits and nothing is counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use gantry_model::settings::Bytes;

/// Bytes counted for a send besides those of its messages: its answer, and what is told of it when it is confirmed.
const SEND_BYTES: usize = 512;

/// The broker has enough to wait for: the producer should pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "sends of {bytes} bytes wait for the disk, the limit is {}", Bytes::new(*bytes_max as u64)
)]
pub struct Busy {
    /// Bytes that wait.
    pub bytes: usize,
    /// Most bytes that may.
    pub bytes_max: usize,
}

/// Sends that wait.
#[derive(Debug)]
pub struct Backlog {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// A place in the backlog, given up when it is dropped.
#[derive(Debug)]
pub struct Waiting {
    backlog: Arc<Backlog>,
    bytes: usize,
}

impl Backlog {
    /// An empty one for `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), bytes_max }
    }

    /// Bytes that wait at present.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether another send may be taken.
    #[inline]
    pub fn check(&self) -> Result<(), Busy> {
        let bytes = self.bytes();
        if bytes < self.bytes_max {
            return Ok(());
        }
        Err(Busy { bytes, bytes_max: self.bytes_max })
    }

    /// Counts so many sends, whose messages are `message_bytes` bytes together.
    pub fn enter(self: &Arc<Self>, sends: usize, message_bytes: usize) -> Waiting {
        let bytes = message_bytes + sends * SEND_BYTES;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Waiting { backlog: Arc::clone(self), bytes }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backlog.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_at_the_bound_and_something_again_when_one_has_left() {
        let backlog = Arc::new(Backlog::new(2000));
        let one = backlog.enter(1, 700);
        assert_eq!(backlog.check(), Ok(()));
        let two = backlog.enter(1, 700);
        let busy = Busy { bytes: 2 * (700 + SEND_BYTES), bytes_max: 2000 };
        assert_eq!(backlog.check(), Err(busy));
        assert_eq!(busy.to_string(), "sends of 2424 bytes wait for the disk, the limit is 2000");
        drop(one);
        assert_eq!(backlog.check(), Ok(()));
        drop(two);
        assert_eq!(backlog.bytes(), 0);
    }
}
