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

/// Bytes of log whose keys one call indexes, so that other upkeep gets its turn.
const INDEXED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Receives a record's position, its end and the hashes of its keys.
type VisitKeys<'a> = dyn FnMut(PhysicalOffset, PhysicalOffset, &[u64]) -> Result<(), KeyError> + 'a;

impl Store {
    /// Brings the key index up to what is confirmed and synced, and fills one of its gaps.
    pub(crate) fn index_keys(&self) -> Result<(), RetentionError> {
        let keys = &self.upkeep.keys;
        let end = self.confirmed().min(self.synced());
        let from = keys.covered_to().max(self.log.start());
        self.walk_keys(from..end, from.plus(INDEXED_BYTES_MAX), &mut |position, end, hashes| {
            keys.add(position, end, hashes);
            keys.seal_if_due(end).map(|_| ())
        })?;
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
