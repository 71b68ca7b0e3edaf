//! Brings the key index up to the log, and fills what damage has left open in it.
//! Invariant: only what is confirmed and synced is indexed.
//! Leaves the index's files to `keys`, and when to call to the upkeep.

use std::ops::Range;

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
/// Bytes of log whose keys one call indexes, so that other upkeep gets its turn.
const INDEXED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Receives a record's position, its end and the hashes of its keys.
type VisitKeys<'a> = dyn FnMut(PhysicalOffset, PhysicalOffset, &[u64]) -> Result<(), KeyError> + 'a;

impl Store {
    /// Whether so many keys wait for the index that [`Store::index_keys`] should be called soon: when they are too many
    /// they are forgotten, and the log has to be read for them.
    pub fn is_key_index_due(&self) -> bool {
        self.upkeep.keys_waiting.is_due()
    }

    /// Brings the key index up to what is confirmed and synced, and fills one of its gaps.
    pub fn index_keys(&self) -> Result<(), RetentionError> {
        let keys = &self.upkeep.keys;
        let end = self.confirmed().min(self.synced());
        self.index_log(end.min(self.upkeep.keys_waiting.from()))?;
        self.index_waiting(end)?;
        if let Some(gap) = keys.gaps(self.log.start()).into_iter().find(|gap| gap.end <= end) {
            let mut entries = Vec::new();
            self.walk_keys(gap.start..end, gap.end, &mut |position, _, hashes| {
                entries.extend(hashes.iter().map(|hash| KeyEntry { hash: *hash, position }));
                Ok(())
            })?;
            keys.fill_gap(gap, entries)?;
        }
        Ok(())
    }

    /// Indexes the keys of records before `end` that nobody has gathered: reads the log.
    fn index_log(&self, end: PhysicalOffset) -> Result<(), RetentionError> {
        let keys = &self.upkeep.keys;
        let from = keys.covered_to().max(self.log.start());
        let before = from.plus(INDEXED_BYTES_MAX);
        self.walk_keys(from..end, before, &mut |position, end, hashes| {
            keys.add(position, end, hashes);
            keys.seal_if_due(end).map(|_| ())
        })?;
        if from < end && end <= before {
            // Also past damage at the end.
            keys.add_all(&[], end);
        }
        Ok(())
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
            keys.add_all(next, to);
            keys.seal_if_due(to)?;
            rest = after;
        }
        keys.add_all(&[], end);
        Ok(())
    }

    /// Gives the hashes of each record of `range` that begins before `before`. The range may begin inside a record,
    /// which then is left out; it ends with one.
    fn walk_keys(
        &self,
        range: Range<PhysicalOffset>,
        before: PhysicalOffset,
        visit: &mut VisitKeys<'_>,
    ) -> Result<(), RetentionError> {
        let mut hashes = Vec::new();
        let mut cursor = self.log.records(range.start, range.end);
        while let Some(walked) = cursor.next()? {
            // Damage holds no keys; readers report it.
            let Walked::Record { position, record } = walked else { continue };
            if position >= before {
                break;
            }
            hashes.clear();
            let words = change::keys_of(&record).words();
            hashes.extend(words.map(|word| key_hash(record.topic(), word)));
            visit(position, position.plus(record.size().into()), &hashes)?;
        }
        Ok(())
    }
}
