//! Store times at both ends of the log.
//! Invariant: 0 stands for a log without a record.
//! Leaves clocks to its callers.

use gantry_model::PhysicalOffset;
use gantry_record::RecordView;

use crate::{errors::ReadError, store::Store};

impl Store {
    /// Store time of the newest record, in milliseconds since 1970.
    pub fn newest_time_ms(&self) -> u64 {
        self.log.last_time_ms()
    }

    /// Store time with which the oldest kept segment begins, in milliseconds since 1970.
    pub fn oldest_time_ms(&self) -> u64 {
        self.log.segments().first().map_or(0, |segment| segment.first_time_ms)
    }
    /// The position of the first message that waits for a time and was stored at `time_ms` or later; the log's end if
    /// there is none. Looks through all that wait, about a microsecond each.
    pub fn first_parked_since(&self, time_ms: u64) -> Result<PhysicalOffset, ReadError> {
        let end = self.written();
        let waiting = self.due_timers(u64::MAX - 1, usize::MAX)?;
        let mut positions: Vec<_> = waiting.into_iter().map(|timer| timer.position).collect();
        positions.sort_unstable();
        let (mut low, mut high) = (0, positions.len());
        // Store times never go back along the log. A record that cannot be read counts as a later one.
        while low < high {
            let middle = low + (high - low) / 2;
            let record = self.read_record(positions[middle])?;
            let record = record.as_deref().and_then(|bytes| RecordView::parse(bytes).ok());
            if record.is_some_and(|record| record.store_time_ms() < time_ms) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(positions.get(low).copied().unwrap_or(end))
    }
}
