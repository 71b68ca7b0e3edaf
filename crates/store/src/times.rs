//! Store times at both ends of the log.
//! Invariant: 0 stands for a log without a record.
//! Reads only what is in memory.

use crate::store::Store;

impl Store {
    /// Store time of the newest record, in milliseconds since 1970.
    pub fn newest_time_ms(&self) -> u64 {
        self.log.last_time_ms()
    }

    /// Store time with which the oldest kept segment begins, in milliseconds since 1970.
    pub fn oldest_time_ms(&self) -> u64 {
        self.log.segments().first().map_or(0, |segment| segment.first_time_ms)
    }
}
