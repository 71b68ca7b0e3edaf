//! Who waits for a turn, and since when.
//! Invariant: a place is given up when it is dropped.
//! Leaves whose turn it is to whatever they wait for.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

#[derive(Debug, Default)]
struct Line {
    next: u64,
    /// When each came, by the order of coming.
    since_ms: BTreeMap<u64, u64>,
}

/// A line of those who wait.
#[derive(Debug, Default, Clone)]
pub struct Waiting(Arc<Mutex<Line>>);

/// A place in the line.
#[derive(Debug)]
pub struct Place {
    number: u64,
    line: Waiting,
}

impl Waiting {
    /// Joins the line.
    pub fn enter(&self, monotonic_ms: u64) -> Place {
        let line = &mut *self.0.lock();
        let number = line.next;
        line.next += 1;
        line.since_ms.insert(number, monotonic_ms);
        Place { number, line: self.clone() }
    }

    /// How many wait, and how long the first has waited, in milliseconds.
    pub fn state(&self, monotonic_ms: u64) -> (usize, u64) {
        let line = self.0.lock();
        let first = line.since_ms.first_key_value();
        let waited_ms = first.map_or(0, |(_, since_ms)| monotonic_ms.saturating_sub(*since_ms));
        (line.since_ms.len(), waited_ms)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.0.lock().since_ms.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_tells_its_length_and_how_long_its_first_has_waited() {
        let waiting = Waiting::default();
        assert_eq!(waiting.state(100), (0, 0));
        let first = waiting.enter(100);
        let second = waiting.enter(130);
        assert_eq!(waiting.state(150), (2, 50));
        drop(first);
        assert_eq!(waiting.state(150), (1, 20));
        drop(second);
        assert_eq!(waiting.state(150), (0, 0));
    }
}
