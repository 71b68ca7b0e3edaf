//! Brings the key index up to the log, and fills what damage has left open in it.
//! Invariant: only what is confirmed and synced is indexed.
//! Leaves the index's files to `keys`, and when to call to the upkeep.

use std::{ops::Range, sync::atomic::Ordering};

use gantry_model::PhysicalOffset;

use super::RetentionError;
use crate::{
    change::{self, key_hash},
    keys::{KeyEntry, KeyError},
    log::Walked,
    store::Store,
};

/// Bytes of log whose keys are added at a time: a file of the index is not much longer than it has to be.
const ADDED_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of log that one call reads for its keys: a moment's work, after which senders may want room.
const READ_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Receives the keys of a record and its end.
type VisitKeys<'a> = dyn FnMut(&[KeyEntry], PhysicalOffset) -> Result<(), KeyError> + 'a;

impl Store {
    /// Whether so many keys wait for the index that [`Store::index_keys`] should be called soon: when they are too many
    /// they are forgotten, and the log has to be read for them. While none of them may be indexed it is not.
    pub fn is_key_index_due(&self) -> bool {
        self.upkeep.keys_waiting.is_due(self.indexable())
    }

    /// Before which records may be in the index.
    fn indexable(&self) -> PhysicalOffset {
        self.confirmed().min(self.synced())
    }

    /// Brings the key index up to what is confirmed and synced, or closer to it, and fills one of its gaps. Returns
    /// whether there is more to do.
    pub fn index_keys(&self) -> Result<bool, RetentionError> {
        let keys = &self.upkeep.keys;
        let end = self.indexable();
        if !self.index_log(end.min(self.upkeep.keys_waiting.from()))? {
            return Ok(true);
        }
        self.index_waiting(end)?;
        if let Some(gap) = keys.gaps(self.log.start()).into_iter().find(|gap| gap.end <= end) {
            let mut entries = Vec::new();
            self.walk_keys(gap.start..end, gap.end, &mut |keys, _| {
                entries.extend_from_slice(keys);
                Ok(())
            })?;
            keys.fill_gap(gap, entries)?;
        }
        Ok(false)
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
