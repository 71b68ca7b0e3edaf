//! Queries: the messages that have a key, by the key index, and by the log where the index does not reach.
//! Invariant: what is found was read and verified; a part of the log that is neither indexed nor walked is an error and
//! never taken for one that holds nothing.
//! Leaves the index itself to `keys`.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use gantry_model::PhysicalOffset;
use gantry_record::RecordView;

use crate::{
    change::{self, key_hash},
    errors::ReadError,
    keys::KeyGap,
    log::{SegmentInfo, Walked},
    store::Store,
};

/// Hits that one look into the key index gives.
const HITS_AT_ONCE: usize = 256;
/// Bytes of the log that one query walks where files of the index are missing: about a second.
const WALKED_BYTES_MAX: u64 = 256 * 1024 * 1024;

type IsWanted<'a> = dyn Fn(&RecordView<'_>) -> bool + 'a;

impl Store {
    /// Messages of a topic with that key or unique id, stored in `begin_ms..=end_ms`, newest first.
    pub fn query_keys(
        &self,
        topic: &str,
        key: &str,
        begin_ms: u64,
        end_ms: u64,
        max: usize,
    ) -> Result<Vec<Bytes>, ReadError> {
        // What has expired is not found either.
        let begin_ms =
            self.topic(topic).map_or(begin_ms, |topic| begin_ms.max(topic.hidden_before_ms()));
        let is_wanted = |record: &RecordView<'_>| {
            record.topic() == topic
                && (begin_ms..=end_ms).contains(&record.store_time_ms())
                && change::keys_of(record).words().any(|word| word == key)
        };
        let range = self.positions_of(begin_ms, end_ms);
        let indexed = self.upkeep.keys.covered_to();
        // What is not indexed yet is newer than what is.
        let tail = indexed.max(range.start)..range.end;
        let mut found = self.query_log(tail, max, &is_wanted)?;
        if found.len() < max {
            let rest = range.start..range.end.min(indexed);
            self.query_index(key_hash(topic, key), &rest, max, &is_wanted, &mut found)?;
        }
        Ok(found)
    }

    fn query_index(
        &self,
        hash: u64,
        range: &Range<PhysicalOffset>,
        max: usize,
        is_wanted: &IsWanted<'_>,
        found: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        let keys = &self.upkeep.keys;
        let newer = found.len();
        let mut gaps = keys.gaps(self.log_start());
        let mut rest = range.clone();
        while found.len() < max {
            let hits = keys.lookup(hash, rest.clone(), HITS_AT_ONCE)?;
            let Some(oldest) = hits.last().copied() else { break };
            self.take_hits(&hits, max, is_wanted, found)?;
            rest.end = oldest;
        }
        if self.note_broken_keys() {
            gaps.extend(keys.gaps(self.log_start()));
        }
        gaps.retain(|gap| gap.range.start < range.end && range.start < gap.range.end);
        if gaps.is_empty() {
            return Ok(());
        }
        self.query_gaps(range, &gaps, max, is_wanted, found)?;
        // Each way has given its newest ones.
        found[newer..].sort_by_key(|bytes| std::cmp::Reverse(position_of(bytes)));
        found.dedup_by_key(|bytes| position_of(bytes));
        found.truncate(max);
        Ok(())
    }

    /// Walks the parts of the log whose files of the index are missing, until they are made again, and those that were
    /// left out of it. As the end of the log that it has not come to, these are walked however long they are.
    fn query_gaps(
        &self,
        range: &Range<PhysicalOffset>,
        gaps: &[KeyGap],
        max: usize,
        is_wanted: &IsWanted<'_>,
        found: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        let missing = missing_bytes(gaps);
        if missing > WALKED_BYTES_MAX {
            return Err(ReadError::Unindexed { missing });
        }
        for gap in merged(gaps.iter()) {
            let inside = gap.start.max(range.start)..gap.end.min(range.end);
            found.extend(self.query_log(inside, max, is_wanted)?);
        }
        Ok(())
    }

    /// Reads the records that the key index named and keeps those that are wanted: others may have the same hash.
    fn take_hits(
        &self,
        hits: &[PhysicalOffset],
        max: usize,
        is_wanted: &IsWanted<'_>,
        found: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        let mut last = None;
        for position in hits {
            // A word that is both unique id and key has hit twice.
            if found.len() == max || last.replace(position) == Some(position) {
                continue;
            }
            let Some(bytes) = self.read_record(*position)? else { continue };
            if RecordView::parse(&bytes).is_ok_and(|record| is_wanted(&record)) {
                found.push(bytes);
            }
        }
        Ok(())
    }

    /// Positions between which the records of a time are, as far as segments tell.
    fn positions_of(&self, begin_ms: u64, end_ms: u64) -> Range<PhysicalOffset> {
        let segments = self.log.segments();
        let is_in_time = |segment: &&SegmentInfo| {
            let is_before = segment.is_sealed && (1..begin_ms).contains(&segment.last_time_ms);
            !is_before && segment.first_time_ms <= end_ms
        };
        let mut in_time = segments.iter().filter(is_in_time);
        let Some(first) = in_time.next() else { return PhysicalOffset(0)..PhysicalOffset(0) };
        let last = in_time.next_back().unwrap_or(first);
        first.base.max(self.log_start())..last.end.min(self.confirmed())
    }

    /// The last `max` records of a range that are wanted, newest first.
    fn query_log(
        &self,
        range: Range<PhysicalOffset>,
        max: usize,
        is_wanted: &IsWanted<'_>,
    ) -> Result<Vec<Bytes>, ReadError> {
        let mut found = VecDeque::new();
        let mut cursor = self.log.records(range.start, range.end);
        let failed = |source| ReadError::Log { position: range.start, bytes: 0, source };
        while range.start < range.end
            && let Some(walked) = cursor.next().map_err(failed)?
        {
            if let Walked::Record { record, .. } = walked
                && is_wanted(&record)
            {
                found.push_back(Bytes::copy_from_slice(record.bytes()));
                if found.len() > max {
                    found.pop_front();
                }
            }
        }
        Ok(found.into_iter().rev().collect())
    }
}

/// Bytes of the parts whose files are missing.
fn missing_bytes(gaps: &[KeyGap]) -> u64 {
    let missing = merged(gaps.iter().filter(|gap| !gap.is_skipped));
    missing.iter().map(|gap| gap.end.0 - gap.start.0).sum()
}

/// The same positions in as few ranges as can be: each then begins and ends where a record does.
fn merged<'a>(gaps: impl Iterator<Item = &'a KeyGap>) -> Vec<Range<PhysicalOffset>> {
    let mut ranges: Vec<_> = gaps.map(|gap| gap.range.clone()).collect();
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<PhysicalOffset>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Where a record that was read and verified lies.
fn position_of(bytes: &Bytes) -> Option<PhysicalOffset> {
    RecordView::parse(bytes).ok().map(|record| record.position())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walk_is_bounded_by_the_files_that_are_missing_and_not_by_what_was_skipped() {
        let gap = |range: Range<u64>, is_skipped| KeyGap {
            range: PhysicalOffset(range.start)..PhysicalOffset(range.end),
            is_skipped,
        };
        let gaps = [gap(10..20, false), gap(20..90, true), gap(95..99, false), gap(10..20, false)];
        assert_eq!(missing_bytes(&gaps), 14);
        let walked = [10..90, 95..99].map(|r| PhysicalOffset(r.start)..PhysicalOffset(r.end));
        assert_eq!(merged(gaps.iter()), walked);
    }
}
