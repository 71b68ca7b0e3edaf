//! Records that are appended together: encoded outside every lock, sealed under the log's.
//! Invariant: `buf` begins with room for one record of the log's own, so that a batch is written in one call.
//! Leaves queue offsets to the caller, positions and store time to the writer.

use gantry_model::{PhysicalOffset, QueueOffset};
use gantry_record::{Draft, EncodeError, Slot, encode};

use super::own::HEADROOM_BYTES;

/// Memory that an emptied batch keeps in any case: each connection has one.
const KEPT_BYTES: usize = 256 * 1024;

/// A buffer that is used again for batch after batch.
#[derive(Debug)]
pub struct RecordBatch {
    pub(super) buf: Vec<u8>,
    pub(super) slots: Vec<(Slot, QueueOffset)>,
}

impl Default for RecordBatch {
    fn default() -> Self {
        Self { buf: vec![0; HEADROOM_BYTES], slots: Vec::new() }
    }
}

impl RecordBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the records and keeps the memory, but not that of a burst.
    pub fn clear(&mut self) {
        let used = self.buf.len();
        self.buf.truncate(HEADROOM_BYTES);
        if self.buf.capacity() > KEPT_BYTES && used < self.buf.capacity() / 4 {
            self.buf.shrink_to(KEPT_BYTES);
        }
        self.slots.clear();
    }

    /// Adds a record; returns its index. On error the batch is as before.
    pub fn push(&mut self, draft: &Draft<'_>) -> Result<usize, EncodeError> {
        let slot = encode(draft, &mut self.buf)?;
        self.slots.push((slot, QueueOffset(0)));
        Ok(self.slots.len() - 1)
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> usize {
        self.buf.len() - HEADROOM_BYTES
    }

    /// Gives a record its place in its queue.
    pub fn set_queue_offset(&mut self, index: usize, offset: QueueOffset) {
        self.slots[index].1 = offset;
    }

    /// A record's place in its queue.
    pub fn queue_offset(&self, index: usize) -> QueueOffset {
        self.slots[index].1
    }

    /// Where a record starts, counted from the first record's start.
    pub fn offset_in_batch(&self, index: usize) -> u64 {
        (self.slots[index].0.start - HEADROOM_BYTES) as u64
    }

    /// Size of a record, in bytes.
    pub fn record_bytes(&self, index: usize) -> u32 {
        self.slots[index].0.size
    }

    /// A record's bytes; complete once the batch was appended.
    pub fn record(&self, index: usize) -> &[u8] {
        let slot = self.slots[index].0;
        &self.buf[slot.start..slot.start + slot.size as usize]
    }

    /// Fills in what the log decides, the first record lying at `position`.
    pub(super) fn seal(&mut self, position: PhysicalOffset, store_time_ms: u64) {
        for (slot, queue_offset) in &self.slots {
            let at = position.plus((slot.start - HEADROOM_BYTES) as u64);
            slot.seal(&mut self.buf, *queue_offset, at, store_time_ms);
        }
    }
}
