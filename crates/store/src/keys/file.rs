//! One immutable file of the key index: the entries of one range of the log, sorted by hash and position.
//! Invariant: a file under its final name was written and synced whole; every block that is read is checked.
//! Leaves the choice of ranges to the index.
//!
//! ```text
//! header, 4096 bytes: | magic "GKEY" | version u32 | from u64 | to u64 | entries u64 | crc u32 of these | zeros |
//! block, 4096 bytes:  | 255 × (hash u64 | position u64) | entries in it u32 | crc u32 of these | zeros |
//! ```

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_model::PhysicalOffset;

use super::{KeyEntry, KeyError, at};
use crate::log::files::{Files, LogFile};

const MAGIC: [u8; 4] = *b"GKEY";
const VERSION: u32 = 1;
/// Bytes of the header, and of each block.
pub(crate) const BLOCK_BYTES: usize = 4096;
const BLOCK_ENTRIES: usize = 255;
const ENTRY_BYTES: usize = 16;
const HEADER_USED_BYTES: usize = 32;
/// Where a block's number of entries is.
const COUNT_AT: usize = BLOCK_ENTRIES * ENTRY_BYTES;
/// Blocks that are written with one call.
const WRITE_BLOCKS: usize = 256;

/// An open file.
pub(crate) struct KeyFile {
    path: PathBuf,
    file: Arc<dyn LogFile>,
    from: u64,
    to: u64,
    entries: u64,
}

/// Name of the file that covers `range`.
pub(super) fn file_name(range: &Range<u64>) -> String {
    format!("{:020}-{:020}.keys", range.start, range.end)
}

/// The range that a file of this name covers, if it is a key file.
pub(crate) fn range_of_name(name: &str) -> Option<Range<u64>> {
    let (from, to) = name.strip_suffix(".keys")?.split_once('-')?;
    let number = |text: &str| if text.len() == 20 { text.parse().ok() } else { None };
    Some(number(from)?..number(to)?).filter(|range| range.start < range.end)
}

/// Writes the sorted entries of `range` under a name of their own, whole or not at all.
pub(super) fn write_file(
    files: &dyn Files,
    dir: &Path,
    range: Range<u64>,
    entries: &[KeyEntry],
) -> Result<KeyFile, KeyError> {
    debug_assert!(entries.is_sorted(), "callers sort");
    let path = dir.join(file_name(&range));
    let draft = path.with_extension("tmp");
    // Left over from a write that failed; usually there is none.
    let _ = files.remove(&draft);
    let file = write_draft(files, &draft, &range, entries).inspect_err(|_| {
        let _ = files.remove(&draft);
    })?;
    files.rename(&draft, &path).map_err(at(&draft, "rename"))?;
    files.sync_dir(dir).map_err(at(dir, "sync folder"))?;
    let Range { start: from, end: to } = range;
    Ok(KeyFile { path, file, from, to, entries: entries.len() as u64 })
}

fn write_draft(
    files: &dyn Files,
    draft: &Path,
    range: &Range<u64>,
    entries: &[KeyEntry],
) -> Result<Arc<dyn LogFile>, KeyError> {
    let file = files.create(draft).map_err(at(draft, "make"))?;
    let write = |bytes: &[u8], to: u64| {
        file.write_at(bytes, to).map_err(|failure| at(draft, "write")(failure.source))
    };
    write(&header(range, entries.len() as u64), 0)?;
    let mut position = BLOCK_BYTES as u64;
    let mut buf = Vec::with_capacity(BLOCK_BYTES * WRITE_BLOCKS);
    for blocks in entries.chunks(BLOCK_ENTRIES * WRITE_BLOCKS) {
        buf.clear();
        blocks.chunks(BLOCK_ENTRIES).for_each(|block| put_block(block, &mut buf));
        write(&buf, position)?;
        position += buf.len() as u64;
    }
    file.sync_data().map_err(at(draft, "sync"))?;
    Ok(file)
}

fn header(range: &Range<u64>, entries: u64) -> [u8; BLOCK_BYTES] {
    let mut header = [0; BLOCK_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&VERSION.to_be_bytes());
    header[8..16].copy_from_slice(&range.start.to_be_bytes());
    header[16..24].copy_from_slice(&range.end.to_be_bytes());
    header[24..32].copy_from_slice(&entries.to_be_bytes());
    let crc = crc32fast::hash(&header[..HEADER_USED_BYTES]);
    header[32..36].copy_from_slice(&crc.to_be_bytes());
    header
}

fn put_block(entries: &[KeyEntry], out: &mut Vec<u8>) {
    let start = out.len();
    for entry in entries {
        out.extend_from_slice(&entry.hash.to_be_bytes());
        out.extend_from_slice(&entry.position.0.to_be_bytes());
    }
    out.resize(start + COUNT_AT, 0);
    out.extend_from_slice(&(entries.len() as u32).to_be_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
    out.resize(start + BLOCK_BYTES, 0);
}

fn read_block(block: &[u8]) -> Option<Vec<KeyEntry>> {
    let used = block.get(..COUNT_AT + 4)?;
    let crc = u32_at(block, COUNT_AT + 4)?;
    let count = u32_at(block, COUNT_AT)? as usize;
    if crc32fast::hash(used) != crc || count == 0 || count > BLOCK_ENTRIES {
        return None;
    }
    let entries = used[..count * ENTRY_BYTES].chunks_exact(ENTRY_BYTES);
    Some(entries.filter_map(read_entry).collect())
}

fn read_entry(bytes: &[u8]) -> Option<KeyEntry> {
    Some(KeyEntry { hash: u64_at(bytes, 0)?, position: PhysicalOffset(u64_at(bytes, 8)?) })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl KeyFile {
    /// `None` if it is not whole: its range has to be read from the log again.
    pub(crate) fn open(
        files: &dyn Files,
        path: &Path,
        range: Range<u64>,
    ) -> Result<Option<Self>, KeyError> {
        let file = files.open(path).map_err(at(path, "open"))?;
        let mut found = [0; BLOCK_BYTES];
        let read = file.read_at(&mut found, 0).map_err(at(path, "read"))?;
        let bytes = file.len().map_err(at(path, "measure"))?;
        let entries = u64_at(&found, 24).unwrap_or(0);
        let blocks = entries.div_ceil(BLOCK_ENTRIES as u64);
        let is_whole = read == BLOCK_BYTES
            && found == header(&range, entries)
            && blocks.checked_add(1).and_then(|b| b.checked_mul(BLOCK_BYTES as u64)) == Some(bytes);
        let Range { start: from, end: to } = range;
        Ok(is_whole.then(|| Self { path: path.to_owned(), file, from, to, entries }))
    }

    /// Whether blocks can be read as they were written, and the header if the first of them is there.
    pub(super) fn holds(&self, blocks: Range<u64>) -> Result<bool, KeyError> {
        if blocks.start == 0 {
            let mut found = [0; BLOCK_BYTES];
            let read = self.file.read_at(&mut found, 0).map_err(at(&self.path, "read"))?;
            if read < BLOCK_BYTES || found != header(&self.range(), self.entries) {
                return Ok(false);
            }
        }
        for index in blocks.start..blocks.end.min(self.blocks()) {
            if self.block(index)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.from..self.to
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries as usize
    }

    /// Number of its blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.entries.div_ceil(BLOCK_ENTRIES as u64)
    }

    /// `None` if the block is broken.
    pub(crate) fn block(&self, index: u64) -> Result<Option<Vec<KeyEntry>>, KeyError> {
        let mut block = [0; BLOCK_BYTES];
        let position = (1 + index) * BLOCK_BYTES as u64;
        let read = self.file.read_at(&mut block, position).map_err(at(&self.path, "read"))?;
        Ok(read_block(&block[..read]))
    }

    /// All entries; `None` if the file is broken.
    pub(super) fn read_all(&self) -> Result<Option<Vec<KeyEntry>>, KeyError> {
        let mut entries = Vec::with_capacity(self.entries());
        for index in 0..self.blocks() {
            match self.block(index)? {
                Some(block) => entries.extend(block),
                None => return Ok(None),
            }
        }
        Ok(Some(entries))
    }

    /// Appends positions in `range` of entries with this hash to `found`, newest first, until it holds `limit`.
    /// False if a block is broken.
    pub(super) fn lookup(
        &self,
        hash: u64,
        range: &Range<PhysicalOffset>,
        limit: usize,
        found: &mut Vec<PhysicalOffset>,
    ) -> Result<bool, KeyError> {
        let Some(mut next) = self.blocks_up_to(hash)? else {
            return Ok(false);
        };
        while next > 0 && found.len() < limit {
            next -= 1;
            let Some(block) = self.block(next)? else {
                return Ok(false);
            };
            let alike = block.iter().rev().filter(|entry| entry.hash == hash);
            let inside = alike.map(|entry| entry.position).filter(|at| range.contains(at));
            found.extend(inside.take(limit - found.len()));
            if block.first().is_some_and(|first| first.hash < hash) {
                break;
            }
        }
        Ok(true)
    }

    /// Number of blocks whose first hash is at most `hash`; the last of them has the newest entry of that hash.
    /// `None` if a block is broken.
    fn blocks_up_to(&self, hash: u64) -> Result<Option<u64>, KeyError> {
        let (mut low, mut high) = (0, self.blocks());
        // Hashes are spread evenly: the first probes go where such a hash should be, and near it.
        let guess = ((u128::from(hash) * u128::from(high)) >> 64) as u64;
        let mut step = 2;
        let mut probe = guess;
        while low < high {
            let Some(block) = self.block(probe)? else {
                return Ok(None);
            };
            if block[0].hash <= hash {
                low = probe + 1;
                probe += step;
            } else {
                high = probe;
                probe = probe.saturating_sub(step);
            }
            step *= 4;
            if !(low..high).contains(&probe) {
                probe = low.midpoint(high);
            }
        }
        Ok(Some(low))
    }
}
