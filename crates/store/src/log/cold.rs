//! Reads far behind the end of the log, by those who may wait for the disk.
//! Invariant: one piece of the log is read by one reader at a time, and those who waited for it find its blocks in
//! memory; whoever reads on gets a piece of [`PIECE_BYTES`], whoever begins gets one block. However many read, the
//! buffers that they read into are a fixed number.
//! Leaves what the bytes mean, and reads that are not far behind, to the rest of the log.

use std::{io, ops::Range};

use gantry_model::PhysicalOffset;
use parking_lot::{Condvar, Mutex};

use super::{
    Log, Patience, ReadError,
    blocks::{BLOCK_BYTES, block_start},
    segment::Segment,
};

/// Bytes that one read of the disk brings to a reader that reads on.
const PIECE_BYTES: u64 = 4 * BLOCK_BYTES as u64;
/// Readers that may be at different places of the log at a time.
const PLACES: usize = 16;

/// A buffer's size at most: a piece, and what alignment takes before and after it.
const BUFFER_BYTES: u64 = PIECE_BYTES + 16 * 1024;

/// Who reads which piece, and into what.
#[derive(Debug)]
pub(super) struct ColdReads {
    places: [Mutex<()>; PLACES],
    buffers: Buffers,
}

impl ColdReads {
    /// Room for so many reads at a time as fit into `bytes`; at least one.
    pub(super) fn new(bytes: usize) -> Self {
        let count = (bytes as u64 / BUFFER_BYTES).max(1) as usize;
        Self { places: Default::default(), buffers: Buffers::new(count) }
    }
}

/// Buffers lent to one reader each; who finds none waits for one.
#[derive(Debug)]
struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
    returned: Condvar,
}

/// A buffer, until it is dropped.
struct Lent<'a> {
    buffer: Vec<u8>,
    to: &'a Buffers,
}

impl Buffers {
    fn new(count: usize) -> Self {
        Self { free: Mutex::new(vec![Vec::new(); count]), returned: Condvar::new() }
    }

    fn lend(&self) -> Lent<'_> {
        let mut free = self.free.lock();
        loop {
            if let Some(mut buffer) = free.pop() {
                // Once, and no more than that: growing by and by would take up to twice as much.
                buffer.reserve_exact((BUFFER_BYTES as usize).saturating_sub(buffer.len()));
                return Lent { buffer, to: self };
            }
            self.returned.wait(&mut free);
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.to.free.lock().push(std::mem::take(&mut self.buffer));
        self.to.returned.notify_one();
    }
}

impl Log {
    /// Brings the blocks into memory that hold the first bytes of `ranges`, which go on in the log's order.
    ///
    /// What cannot be read is left to [`Log::read`], which says why. Returns what [`Log::read_ahead`] does.
    pub(super) fn read_ahead_cold(
        &self,
        patience: Patience,
        ranges: impl Iterator<Item = Range<PhysicalOffset>>,
    ) -> Option<bool> {
        let (mut last, mut in_cache) = (None, None);
        for range in ranges {
            for at in [range.start.0, range.end.0.saturating_sub(1)] {
                let block = block_start(at);
                // What cannot be read at one place of a block cannot be at the next.
                if last.replace(block) == Some(block) || self.holds(at) {
                    continue;
                }
                if let Ok(Some(was_there)) = self.load_piece(block, at, patience) {
                    in_cache = Some(in_cache.unwrap_or(true) && was_there);
                }
            }
        }
        in_cache
    }

    fn holds(&self, at: u64) -> bool {
        self.0.tail.holds(at) || self.0.read_last.holds(at)
    }

    /// Returns whether the system's cache had it; `None` if nobody looked.
    fn load_piece(
        &self,
        block: u64,
        at: u64,
        patience: Patience,
    ) -> Result<Option<bool>, ReadError> {
        let piece = block - block % PIECE_BYTES;
        let _place = self.0.cold.places[(piece / PIECE_BYTES) as usize % PLACES].lock();
        if self.holds(at) {
            return Ok(None);
        }
        let reads_on = block > 0 && self.0.read_last.holds(block - 1);
        let end = if reads_on { piece + PIECE_BYTES } else { block + BLOCK_BYTES as u64 };
        let start = PhysicalOffset(block.max(self.start().0));
        let Some(segment) = self.segment_of(start) else { return Ok(None) };
        // A block across a segment's border is not kept whole: there is one a segment.
        let end = end.min(segment.end()).min(self.written().0);
        let bytes = end.saturating_sub(start.0) as usize;
        let mut lent = self.0.cold.buffers.lend();
        let buffer = &mut lent.buffer;
        let (read, in_cache) =
            self.read_piece(&segment, start, bytes, patience, buffer).map_err(|source| {
                ReadError::Io { path: segment.path.clone(), position: start, source }
            })?;
        // A segment that was given up meanwhile may hold other bytes by now.
        self.check_start(start)?;
        self.keep(start.0, &buffer[read]);
        Ok(in_cache)
    }

    /// Reads `bytes` bytes into `buffer`, and returns where they are there and whether the system's cache had them.
    fn read_piece(
        &self,
        segment: &Segment,
        start: PhysicalOffset,
        bytes: usize,
        patience: Patience,
        buffer: &mut Vec<u8>,
    ) -> io::Result<(Range<usize>, Option<bool>)> {
        let from = start.0 - segment.base;
        let looks = patience == Patience::ColdFromCache;
        if looks {
            buffer.resize(bytes, 0);
            if segment.file.read_at_hand(buffer, from)? {
                return Ok((0..bytes, Some(true)));
            }
        }
        let in_cache = looks.then_some(false);
        // A read past the cache makes writers of the same file wait: the newest segment is read as ever.
        if self.newest_segment() == Some(PhysicalOffset(segment.base)) {
            buffer.resize(bytes, 0);
            return Ok((0..segment.file.read_at(buffer, from)?, in_cache));
        }
        Ok((segment.file.read_past_cache(buffer, from, bytes)?, in_cache))
    }

    /// Keeps what was read at `start`, in blocks.
    fn keep(&self, mut start: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let left = (block_start(start) + BLOCK_BYTES as u64 - start) as usize;
            let (block, rest) = bytes.split_at(left.min(bytes.len()));
            self.0.read_last.put(start, block.to_vec());
            start += block.len() as u64;
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
    };

    use super::*;

    #[test]
    fn as_many_read_at_a_time_as_buffers_fit_into_the_memory_given() {
        for (bytes, count) in [(0, 1), (512 << 10, 1), (4 << 20, 7)] {
            let cold = ColdReads::new(bytes);
            assert_eq!(cold.buffers.free.lock().len(), count, "{bytes}");
            assert!(count == 1 || count as u64 * BUFFER_BYTES <= bytes as u64);
        }
    }

    #[test]
    fn reader_without_a_buffer_waits_for_one_and_a_panic_gives_it_back() {
        const READERS: usize = 8;
        let buffers = Buffers::new(2);
        let (reading, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _lent = buffers.lend();
                panic!("one of the readers");
            });
            assert!(panics.join().is_err());
            for _ in 0..READERS {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mut lent = buffers.lend();
                        most.fetch_max(reading.fetch_add(1, SeqCst) + 1, SeqCst);
                        lent.buffer.resize(1, 0);
                        thread::yield_now();
                        reading.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(buffers.free.lock().len(), 2, "all are back");
        assert!(most.load(SeqCst) <= 2, "{most:?} read at a time");
    }
}
