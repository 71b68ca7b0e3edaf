//! Keys of appended records on their way into the index, so that nobody reads the log again for them.
//! Invariant: holds the keys of every record from its begin to the end of the log, in the log's order. When that would
//! be too many they are forgotten, and it begins at the end of the log again.
//! Leaves to the upkeep what lies before its begin: that is read from the log.

use gantry_model::PhysicalOffset;
use parking_lot::Mutex;

use super::KeyEntry;

#[derive(Debug)]
struct State {
    from: PhysicalOffset,
    entries: Vec<KeyEntry>,
    /// Since opening.
    forgotten: u64,
}

/// Keys that are in the log and not in the index yet.
#[derive(Debug)]
pub(crate) struct KeysWaiting {
    entries_max: usize,
    state: Mutex<State>,
}

impl KeysWaiting {
    /// None yet, at the end of the log. Takes at most `bytes_max` bytes of memory.
    pub(crate) fn new(end: PhysicalOffset, bytes_max: usize) -> Self {
        let entries_max = (bytes_max / size_of::<KeyEntry>()).max(1);
        Self {
            entries_max,
            state: Mutex::new(State { from: end, entries: Vec::new(), forgotten: 0 }),
        }
    }

    /// Has the keys of what was just appended up to `end` put behind the others. Calls come in the order of the log.
    pub(crate) fn add(&self, end: PhysicalOffset, put: impl FnOnce(&mut Vec<KeyEntry>)) {
        let state = &mut *self.state.lock();
        put(&mut state.entries);
        if state.entries.len() > self.entries_max {
            let forgotten = state.forgotten + state.entries.len() as u64;
            *state = State { from: end, entries: Vec::new(), forgotten };
        }
    }

    /// Where it begins.
    pub(crate) fn from(&self) -> PhysicalOffset {
        self.state.lock().from
    }

    /// How many were too many since opening.
    pub(crate) fn forgotten(&self) -> u64 {
        self.state.lock().forgotten
    }

    /// Where it begins, if it is half full and holds keys of records before `end`.
    pub(crate) fn due_from(&self, end: PhysicalOffset) -> Option<PhysicalOffset> {
        let state = self.state.lock();
        let may_go = state.entries.first().is_some_and(|first| first.position < end);
        (may_go && state.entries.len() >= self.entries_max / 2).then_some(state.from)
    }

    /// Puts the keys of records before `end`, a record's end, into `out`, unless it begins after `covered`: then keys
    /// between would be missed. Returns whether it did.
    pub(crate) fn take(
        &self,
        covered: PhysicalOffset,
        end: PhysicalOffset,
        out: &mut Vec<KeyEntry>,
    ) -> bool {
        out.clear();
        let state = &mut *self.state.lock();
        if state.from > covered {
            return false;
        }
        let taken = state.entries.partition_point(|entry| entry.position < end);
        if taken == state.entries.len() {
            std::mem::swap(&mut state.entries, out);
        } else {
            out.extend(state.entries.drain(..taken));
        }
        state.from = state.from.max(end);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(position: u64) -> KeyEntry {
        KeyEntry { hash: position * 7, position: PhysicalOffset(position) }
    }

    fn add(waiting: &KeysWaiting, positions: &[u64], end: u64) {
        waiting.add(PhysicalOffset(end), |out| out.extend(positions.iter().map(|at| entry(*at))));
    }

    fn waiting(entries_max: usize) -> KeysWaiting {
        KeysWaiting::new(PhysicalOffset(100), entries_max * size_of::<KeyEntry>())
    }

    #[test]
    fn keys_before_the_end_are_taken_once_and_the_others_stay() {
        let waiting = waiting(8);
        add(&waiting, &[100, 100, 140], 180);
        let mut out = Vec::new();
        assert!(waiting.take(PhysicalOffset(100), PhysicalOffset(140), &mut out));
        assert_eq!(out, [entry(100), entry(100)]);
        assert_eq!(waiting.from(), PhysicalOffset(140));
        assert!(waiting.take(PhysicalOffset(140), PhysicalOffset(180), &mut out));
        assert_eq!(out, [entry(140)]);
        assert!(waiting.take(PhysicalOffset(180), PhysicalOffset(180), &mut out));
        assert_eq!(out, []);
    }

    #[test]
    fn half_full_is_due_once_there_is_a_key_that_may_go_and_empty_is_never() {
        for entries_max in [0, 1, 4] {
            let waiting = waiting(entries_max);
            assert_eq!(waiting.due_from(PhysicalOffset(u64::MAX)), None, "{entries_max}");
        }
        let waiting = waiting(4);
        add(&waiting, &[100], 110);
        assert_eq!(waiting.due_from(PhysicalOffset(110)), None);
        add(&waiting, &[110], 120);
        assert_eq!(waiting.due_from(PhysicalOffset(100)), None);
        assert_eq!(waiting.due_from(PhysicalOffset(110)), Some(PhysicalOffset(100)));
        let mut out = Vec::new();
        assert!(waiting.take(PhysicalOffset(100), PhysicalOffset(110), &mut out));
        assert_eq!(waiting.due_from(PhysicalOffset(110)), None);
    }

    #[test]
    fn what_is_too_much_is_forgotten_and_nothing_is_taken_across_the_hole() {
        let waiting = waiting(2);
        add(&waiting, &[100, 110], 120);
        assert_eq!(waiting.due_from(PhysicalOffset(120)), Some(PhysicalOffset(100)));
        add(&waiting, &[120], 130);
        assert_eq!((waiting.from(), waiting.forgotten()), (PhysicalOffset(130), 3));
        add(&waiting, &[130], 140);
        let mut out = vec![entry(1)];
        assert!(!waiting.take(PhysicalOffset(120), PhysicalOffset(140), &mut out));
        assert_eq!(out, []);
        assert!(waiting.take(PhysicalOffset(130), PhysicalOffset(140), &mut out));
        assert_eq!(out, [entry(130)]);
    }
}
