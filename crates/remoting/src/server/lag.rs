//! How long the bytes that a connection reads have waited in the system: what a server that does not keep up lets
//! pile up where it cannot see it.
//! Invariant: never says more than the truth: a position of the stream has waited since the system was seen to hold it.
//! Leaves the clock and the socket to its caller, who asks the system only when a read filled its buffer.

use std::time::Duration;

use tokio::time::Instant;

/// One connection's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lag {
    /// Bytes read so far.
    position: u64,
    /// Position up to which bytes were there at `seen`.
    known: u64,
    seen: Instant,
}

impl Lag {
    pub(super) fn new(now: Instant) -> Self {
        Self { position: 0, known: 0, seen: now }
    }

    /// Notes a read of `bytes` bytes, and returns how long the first of them had waited, at least.
    #[inline]
    pub(super) fn read(&mut self, bytes: usize, now: Instant) -> Duration {
        let begin = self.position;
        self.position += bytes as u64;
        if begin < self.known { now - self.seen } else { Duration::ZERO }
    }

    /// Whether it is worth asking the system how much it holds: nothing is known of what comes next.
    pub(super) fn is_passed(&self) -> bool {
        self.position >= self.known
    }

    /// Notes that the system holds `bytes` bytes behind those that were read.
    pub(super) fn note_left(&mut self, bytes: u64, now: Instant) {
        self.known = self.position + bytes;
        self.seen = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_waited_since_they_were_seen_and_later_ones_not_at_all() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut lag = Lag::new(began);
        assert_eq!(lag.read(100, at(0)), Duration::ZERO);
        assert!(lag.is_passed());
        lag.note_left(250, at(0));
        assert_eq!(lag.read(100, at(300)), Duration::from_millis(300));
        assert!(!lag.is_passed(), "the mark stays until it is read");
        assert_eq!(lag.read(100, at(500)), Duration::from_millis(500));
        // It begins with bytes that were there.
        assert_eq!(lag.read(100, at(600)), Duration::from_millis(600));
        assert!(lag.is_passed());
        assert_eq!(lag.read(100, at(900)), Duration::ZERO, "it may have come just now");
    }

    #[test]
    fn read_that_left_nothing_behind_says_nothing_of_what_comes_later() {
        let began = Instant::now();
        let mut lag = Lag::new(began);
        lag.read(100, began);
        lag.note_left(0, began);
        assert_eq!(lag.read(100, began + Duration::from_secs(10)), Duration::ZERO);
    }
}
