//! Brings the key index up to the log, and fills what damage and haste have left open in it.
//! Invariant: only what is confirmed and synced is indexed; reading the log never holds up the keys that wait, whose
//! number is bounded.
//! Leaves the index's files to `keys`, and when to call to the upkeep.

use std::{ops::Range, sync::atomic::Ordering};

use gantry_model::PhysicalOffset;

use super::{RetentionError, Upkeep};
use crate::{
    change::{self, key_hash},
    keys::{KeyEntry, KeyError, KeyGap},
    log::Walked,
    store::Store,
};

/// Bytes of log whose keys are added at a time: a file of the index is not much longer than it has to be.
const ADDED_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of log that one call reads for its keys: a moment's work, after which senders may want room, and keys that were
/// appended meanwhile their place in the index. On a busy processor that takes 50 ms, in which 40,000 keys come.
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// Receives the keys of a record and its end.
type VisitKeys<'a> = dyn FnMut(&[KeyEntry], PhysicalOffset) -> Result<(), KeyError> + 'a;

/// A gap of the index of which a part was read.
#[derive(Debug)]
pub(crate) struct GapRead {
    range: Range<PhysicalOffset>,
    /// Keys of the records in that range.
    entries: Vec<KeyEntry>,
}

impl Store {
    /// Whether so many keys wait for the index that [`Store::index_keys`] should be called soon: when they are too many
    /// they are forgotten, and the log has to be read for them. While none of them may be indexed it is not.
    pub fn is_key_index_due(&self) -> bool {
        self.upkeep.keys_waiting.due_from(self.indexable()).is_some()
    }

    /// Before which records may be in the index.
    fn indexable(&self) -> PhysicalOffset {
        self.confirmed().min(self.synced())
    }

    /// Brings the key index up to what is confirmed and synced, or closer to it, and reads a step of one of its gaps
    /// unless it was due. Returns whether there is more to do.
    pub fn index_keys(&self) -> Result<bool, RetentionError> {
        let Upkeep { keys, keys_waiting, .. } = &self.upkeep;
        let end = self.indexable();
        let due = keys_waiting.due_from(end);
        if let Some(from) = due
            && keys.covered_to().max(self.log.start()) < from
        {
            // They would be too many before the log was read up to them.
            keys.skip_to(from)?;
        }
        if !self.index_log(end.min(keys_waiting.from()))? {
            return Ok(true);
        }
        self.index_waiting(end)?;
        // While many come that is all: to read what they left behind takes several times as long.
        if due.is_none() {
            self.read_gap(end)?;
        }
        // A file that is missing can wait for the next round, unless it was begun.
        let is_begun = self.upkeep.gap_read.lock().is_some();
        Ok(is_begun || keys.next_gap(self.log.start(), end).is_some_and(|gap| gap.is_skipped))
    }

    /// Reads a step of the gap before `end` that is to be filled next, and fills it with the last one.
    fn read_gap(&self, end: PhysicalOffset) -> Result<(), RetentionError> {
        let Upkeep { keys, gap_read, .. } = &self.upkeep;
        let mut held = gap_read.lock();
        // After a failure it is read from its begin; and it may be gone with the begin of the log.
        let begun = held.take();
        let Some(KeyGap { range: gap, .. }) = keys.next_gap(self.log.start(), end) else {
            return Ok(());
        };
        let GapRead { mut range, mut entries } = begun
            .filter(|read| read.range.start == gap.start)
            .unwrap_or_else(|| GapRead { range: gap.start..gap.start, entries: Vec::new() });
        let before = range.end.plus(READ_BYTES_MAX).min(gap.end);
        let reached = self.walk_keys(range.end..end, before, &mut |found, record_end| {
            entries.extend_from_slice(found);
            range.end = record_end.min(gap.end);
            if entries.len() >= keys.file_entries() {
                keys.fill_gap(range.clone(), std::mem::take(&mut entries))?;
                range.start = range.end;
            }
            Ok(())
        })?;
        range.end = reached.min(gap.end);
        if range.end < gap.end {
            *held = Some(GapRead { range, entries });
        } else if !range.is_empty() {
            keys.fill_gap(range, entries)?;
        }
        Ok(())
    }

    /// Indexes the keys of records before `end` that nobody has gathered: reads the log. Returns whether it came there.
    fn index_log(&self, end: PhysicalOffset) -> Result<bool, RetentionError> {
        let keys = &self.upkeep.keys;
        let from = keys.covered_to().max(self.log.start());
        let before = from.plus(READ_BYTES_MAX);
        let reached = self.walk_keys(from..end, before, &mut |entries, end| {
            keys.add(entries, end);
            keys.seal_if_due(end).map(|_| ())
        })?;
        if from < end {
            // Also past damage.
            keys.add(&[], reached);
        }
        Ok(reached >= end)
    }

    /// Indexes the keys that were gathered when their records were appended, if they are the next.
    fn index_waiting(&self, end: PhysicalOffset) -> Result<(), RetentionError> {
        let keys = &self.upkeep.keys;
        let mut taken = Vec::new();
        let covered = keys.covered_to().max(self.log.start());
        if !self.upkeep.keys_waiting.take(covered, end, &mut taken) {
            return Ok(());
        }
        let mut rest = taken.as_slice();
        while let Some(first) = rest.first() {
            let limit = first.position.plus(ADDED_BYTES);
            let (next, after) = rest.split_at(rest.partition_point(|e| e.position < limit));
            let to = after.first().map_or(end, |entry| entry.position);
            keys.add(next, to);
            keys.seal_if_due(to)?;
            rest = after;
        }
        keys.add(&[], end);
        Ok(())
    }

    /// Gives the keys of each record of `range` that begins before `before`, and returns where the next one begins. The
    /// range may begin inside a record, which then is left out; it ends with one.
    fn walk_keys(
        &self,
        range: Range<PhysicalOffset>,
        before: PhysicalOffset,
        visit: &mut VisitKeys<'_>,
    ) -> Result<PhysicalOffset, RetentionError> {
        let mut entries = Vec::new();
        let mut cursor = self.log.records(range.start, range.end);
        while let Some(walked) = cursor.next()? {
            // Damage holds no keys; readers report it.
            let Walked::Record { position, record } = walked else { continue };
            if position >= before {
                self.count_read(range.start..position);
                return Ok(position);
            }
            entries.clear();
            let words = change::keys_of(&record).words();
            let entry = |word| KeyEntry { hash: key_hash(record.topic(), word), position };
            entries.extend(words.map(entry));
            visit(&entries, position.plus(record.size().into()))?;
        }
        self.count_read(range.clone());
        Ok(range.end)
    }

    fn count_read(&self, range: Range<PhysicalOffset>) {
        let bytes = range.end.0.saturating_sub(range.start.0);
        self.upkeep.key_read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
