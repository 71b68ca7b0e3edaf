//! Blocks of the log that are kept in memory: those written last, or those read last.
//! Invariant: what a block gives out are the log's bytes at that position; no more blocks are kept than there are places, and
//! none is larger than [`BLOCK_BYTES`]. A position is never used for other bytes, so no block has to be taken back.
//! Leaves to its callers which bytes may be seen, and whether records verify. Reads no disk.

use bytes::BytesMut;
use parking_lot::RwLock;

/// Bytes of a block: what one read of the disk brings for several readers, and for several queues of one reader.
pub(super) const BLOCK_BYTES: usize = 128 * 1024;
/// The block that begins at `start`, or the part of it that is known.
#[derive(Debug, Default)]
struct Block {
    start: u64,
    bytes: Vec<u8>,
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// What is known from `at` on.
    fn from(&self, at: u64) -> &[u8] {
        let index = at.checked_sub(self.start).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.bytes.get(index..)).unwrap_or_default()
    }
}

/// Blocks of the log, each in the one place that its number gives it. 8 MiB of them are enough for whoever reads at
/// the end of the log: at 300 MB/s written that is 27 ms.
pub(super) struct Blocks {
    /// A power of two of them.
    places: Vec<RwLock<Block>>,
}

impl Blocks {
    /// Places for as many blocks as fit into `bytes`, rounded down to a power of two; at least one.
    pub(super) fn new(bytes: usize) -> Self {
        let count = 1 << (bytes / BLOCK_BYTES).max(1).ilog2();
        Self { places: (0..count).map(|_| RwLock::default()).collect() }
    }

    fn place(&self, at: u64) -> &RwLock<Block> {
        &self.places[block_number(at) as usize & (self.places.len() - 1)]
    }

    /// Appends `bytes` bytes from `at` on to `out`, if all of them are here; else `out` is as before.
    pub(super) fn copy(&self, at: u64, bytes: usize, out: &mut BytesMut) -> bool {
        let before = out.len();
        let end = before + bytes;
        while out.len() < end {
            let at = at + (out.len() - before) as u64;
            let block = self.place(at).read();
            let known = block.from(at);
            if known.is_empty() {
                out.truncate(before);
                return false;
            }
            out.extend_from_slice(&known[..known.len().min(end - out.len())]);
        }
        true
    }

    /// Whether the byte at `at` is here.
    pub(super) fn holds(&self, at: u64) -> bool {
        !self.place(at).read().from(at).is_empty()
    }

    /// Keeps what was written at `at`, and forgets what was written long before.
    pub(super) fn append(&self, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let left = (block_start(at) + BLOCK_BYTES as u64 - at) as usize;
            let (piece, rest) = bytes.split_at(left.min(bytes.len()));
            let mut block = self.place(at).write();
            // Behind its own bytes alone: a block of another lap never ends where this one begins.
            if block.end() != at {
                block.start = at;
                block.bytes.clear();
                block.bytes.reserve_exact(BLOCK_BYTES);
            }
            block.bytes.extend_from_slice(piece);
            at += piece.len() as u64;
            bytes = rest;
        }
    }

    /// Forgets everything, so that a test reads the disk.
    #[cfg(test)]
    pub(super) fn clear(&self) {
        for place in &self.places {
            *place.write() = Block::default();
        }
    }

    /// Takes the memory of the block in whose place the one at `start` will be, with whatever it holds: to ask for new
    /// memory and fill it with zeros would cost as much as copying a block into it.
    pub(super) fn take_memory(&self, start: u64) -> Vec<u8> {
        std::mem::take(&mut *self.place(start).write()).bytes
    }

    /// Keeps the bytes of a block, which begin at `start`.
    pub(super) fn put(&self, start: u64, bytes: Vec<u8>) {
        debug_assert!(bytes.len() <= BLOCK_BYTES, "a block is read for its place");
        *self.place(start).write() = Block { start, bytes };
    }
}

fn block_number(at: u64) -> u64 {
    at / BLOCK_BYTES as u64
}

/// Where the block begins that holds `at`.
pub(super) fn block_start(at: u64) -> u64 {
    at - at % BLOCK_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = BLOCK_BYTES as u64;
    const BLOCKS: u64 = 64;

    fn blocks() -> Blocks {
        Blocks::new(64 * BLOCK_BYTES)
    }

    /// What the log holds at `at`.
    fn byte(at: u64) -> u8 {
        (at / 7 % 251) as u8
    }

    fn bytes(at: u64, count: usize) -> Vec<u8> {
        (at..).take(count).map(byte).collect()
    }

    fn copied(blocks: &Blocks, at: u64, count: usize) -> Option<Vec<u8>> {
        let mut out = BytesMut::from("before");
        let is_there = blocks.copy(at, count, &mut out);
        assert_eq!((&out[..6], out.len()), (&b"before"[..], if is_there { 6 + count } else { 6 }));
        is_there.then(|| out[6..].to_vec())
    }

    #[test]
    fn bytes_across_blocks_come_back_as_they_were_written() {
        let blocks = blocks();
        let mut at = BLOCK - 1000;
        for count in [600, 400, 5, 2 * BLOCK_BYTES, 77] {
            blocks.append(at, &bytes(at, count));
            at += count as u64;
        }
        for (from, count) in [(BLOCK - 1000, 1000), (BLOCK - 10, 20), (BLOCK + 1, 2 * BLOCK_BYTES)]
        {
            assert_eq!(copied(&blocks, from, count), Some(bytes(from, count)), "{from} {count}");
        }
        assert_eq!(copied(&blocks, BLOCK - 1001, 5), None);
        assert_eq!(copied(&blocks, at - 5, 6), None);
    }

    #[test]
    fn what_is_overwritten_is_forgotten_and_never_given_out_for_other_positions() {
        let (blocks, lap) = (blocks(), BLOCK * BLOCKS);
        blocks.append(0, &bytes(0, BLOCK_BYTES));
        // The same place one lap later, and not from its begin on: a segment may start anywhere.
        blocks.append(lap + 50, &bytes(lap + 50, 100));
        assert_eq!(copied(&blocks, 0, 10), None);
        assert_eq!(copied(&blocks, 60, 10), None);
        assert_eq!(copied(&blocks, lap + 49, 10), None);
        assert_eq!(copied(&blocks, lap + 60, 90), Some(bytes(lap + 60, 90)));
    }

    #[test]
    fn no_more_blocks_are_kept_than_fit_into_the_memory_given() {
        for (bytes, kept) in [(0, 1), (3 * BLOCK_BYTES, 2), (64 * BLOCK_BYTES - 1, 32)] {
            let blocks = Blocks::new(bytes);
            (0..100).for_each(|n| blocks.put(n * BLOCK, vec![1; 10]));
            assert_eq!((0..100).filter(|n| blocks.holds(n * BLOCK)).count(), kept, "{bytes}");
        }
    }

    #[test]
    fn gap_between_two_writes_is_never_bridged() {
        let blocks = blocks();
        blocks.append(0, &bytes(0, 100));
        blocks.append(200, &bytes(200, 100));
        assert_eq!(copied(&blocks, 90, 20), None);
        assert_eq!(copied(&blocks, 190, 20), None);
        assert_eq!(copied(&blocks, 200, 100), Some(bytes(200, 100)));
    }

    #[test]
    fn block_gets_the_memory_of_the_one_it_replaces_and_nothing_is_given_out_meanwhile() {
        let (blocks, lap) = (blocks(), BLOCK * BLOCKS);
        let old = bytes(BLOCK, BLOCK_BYTES);
        let memory = old.as_ptr();
        blocks.put(BLOCK, old);
        let mut taken = blocks.take_memory(lap + BLOCK);
        assert_eq!((taken.as_ptr(), taken.len()), (memory, BLOCK_BYTES));
        assert!(!blocks.holds(BLOCK) && !blocks.holds(lap + BLOCK));
        taken.copy_from_slice(&bytes(lap + BLOCK, BLOCK_BYTES));
        blocks.put(lap + BLOCK, taken);
        assert_eq!(copied(&blocks, lap + BLOCK, 9), Some(bytes(lap + BLOCK, 9)));
    }

    #[test]
    fn block_that_is_put_replaces_the_one_in_its_place() {
        let (blocks, lap) = (blocks(), BLOCK * BLOCKS);
        blocks.put(BLOCK, bytes(BLOCK, BLOCK_BYTES));
        assert!(blocks.holds(BLOCK) && blocks.holds(2 * BLOCK - 1) && !blocks.holds(2 * BLOCK));
        blocks.put(lap + BLOCK, bytes(lap + BLOCK, 10));
        assert!(!blocks.holds(BLOCK) && blocks.holds(lap + BLOCK + 9));
    }
}
