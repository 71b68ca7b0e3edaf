//! The ring: what was appended and the views do not hold yet, in the log's order.
//! Invariant: its bytes stay within the bound that `reserve` checks; entries leave only when the views hold them.
//! Leaves the messages' entries to their queues, which the ring names by number.

use std::{collections::VecDeque, sync::Arc};

use gantry_model::PhysicalOffset;

use crate::{batch::Ends, change::TimerSet, state::StateEntry};

/// Bytes counted for a message: its entry (32) and its place in the order (4), twice over,
/// since both buffers may be half empty after they have grown.
pub(crate) const MESSAGE_BYTES: usize = 2 * (32 + 4);
/// Bytes counted for what a record changes besides.
const SIDE_BYTES: usize = 160;

/// What a record changes besides its queue.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// First byte behind the record.
    pub(crate) end: PhysicalOffset,
    pub(crate) timer: Option<TimerSet>,
    pub(crate) ends: Option<Ends>,
    pub(crate) state: Vec<StateEntry>,
    pub(crate) log_start: Option<PhysicalOffset>,
}

impl Side {
    fn bytes(&self) -> usize {
        // A definition is a few hundred bytes of maps and names.
        let state = self.state.iter().map(|entry| match entry {
            StateEntry::Topic { .. } | StateEntry::Group { .. } => 1024,
            _ => 160,
        });
        SIDE_BYTES + state.sum::<usize>()
    }
}

/// One record in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u32);

impl Place {
    const SIDE: u32 = 1 << 31;
    const NO_QUEUE: u32 = 1 << 30;

    fn new(queue_slot: Option<u32>, has_side: bool) -> Self {
        // A slot is a queue in memory; there is no room for 2^30 of them.
        let queue = queue_slot.unwrap_or(Self::NO_QUEUE);
        Self(queue | if has_side { Self::SIDE } else { 0 })
    }

    /// Number of the queue whose next entry this is.
    pub(crate) fn queue_slot(self) -> Option<u32> {
        (self.0 & Self::NO_QUEUE == 0).then_some(self.0 & !Self::SIDE)
    }

    /// Whether the next side is this record's.
    pub(crate) fn has_side(self) -> bool {
        self.0 & Self::SIDE != 0
    }
}

/// The order of records, and their sides.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    places: VecDeque<Place>,
    sides: VecDeque<Arc<Side>>,
    bytes: usize,
}

impl Ring {
    /// Bytes of all entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a record: a message of the queue with that number, or a side, or both.
    pub(crate) fn push(&mut self, queue_slot: Option<u32>, side: Option<Side>) {
        self.bytes +=
            queue_slot.map_or(0, |_| MESSAGE_BYTES) + side.as_ref().map_or(0, Side::bytes);
        self.places.push_back(Place::new(queue_slot, side.is_some()));
        self.sides.extend(side.map(Arc::new));
    }

    /// Copies the oldest records, up to `records_max`, with their sides.
    pub(crate) fn oldest(
        &self,
        records_max: usize,
        places: &mut Vec<Place>,
        sides: &mut Vec<Arc<Side>>,
    ) {
        places.clear();
        sides.clear();
        places.extend(self.places.iter().take(records_max));
        let side_count = places.iter().filter(|place| place.has_side()).count();
        sides.extend(self.sides.iter().take(side_count).cloned());
    }

    /// Forgets the oldest `records`: the views hold them.
    pub(crate) fn applied(&mut self, records: usize) {
        for place in self.places.drain(..records) {
            if place.queue_slot().is_some() {
                self.bytes -= MESSAGE_BYTES;
            }
            if place.has_side() {
                // Each place with a side was pushed together with one.
                let side = self.sides.pop_front().expect("a side for each place that has one");
                self.bytes -= side.bytes();
            }
        }
        if self.places.is_empty() && self.places.capacity() > 1 << 16 {
            self.places.shrink_to(1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_return_to_zero_when_all_is_applied() {
        let mut ring = Ring::default();
        ring.push(Some(3), None);
        ring.push(None, Some(Side::default()));
        ring.push(Some((1 << 30) - 1), Some(Side::default()));
        let (mut places, mut sides) = (Vec::new(), Vec::new());
        ring.oldest(10, &mut places, &mut sides);
        let slots: Vec<_> = places.iter().map(|place| place.queue_slot()).collect();
        assert_eq!(slots, [Some(3), None, Some((1 << 30) - 1)]);
        assert_eq!(sides.len(), 2);
        ring.applied(3);
        assert_eq!((ring.bytes(), ring.places.len(), ring.sides.len()), (0, 0, 0));
    }
}
