//! Parts of the log that the index has left out for a while, so that newer keys need not wait for them.
//! Invariant: they are ordered and do not overlap; each goes as its files are made, from its begin on.
//! Lives in memory alone: after a restart such a part is a gap like any other, since no file covers it.

use std::ops::Range;

use gantry_model::PhysicalOffset;

/// A part of the log that no file of the index covers, nor its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGap {
    /// At most as long as one file's.
    pub range: Range<PhysicalOffset>,
    /// Whether it was left out since opening; else its file is missing.
    pub is_skipped: bool,
}

/// There are fewer than files: one lies between any two.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    ranges: Vec<Range<u64>>,
}

impl Skipped {
    /// Takes in a part behind all others.
    pub(super) fn push(&mut self, range: Range<u64>) {
        debug_assert!(self.ranges.last().is_none_or(|last| last.end <= range.start), "in order");
        self.ranges.push(range);
    }

    /// A file covers `range`, which begins where a gap does.
    pub(super) fn filled(&mut self, range: &Range<u64>) {
        for skipped in &mut self.ranges {
            if skipped.start < range.end && range.start < skipped.end {
                skipped.start = range.end;
            }
        }
        self.ranges.retain(|skipped| !skipped.is_empty());
    }

    /// Forgets what lies wholly before the log's start.
    pub(super) fn drop_before(&mut self, position: u64) {
        self.ranges.retain(|skipped| skipped.end > position);
    }

    /// Whether the part from `at` on is one of these, and where that changes.
    pub(super) fn part_at(&self, at: u64) -> (bool, u64) {
        let next = self.ranges.partition_point(|skipped| skipped.end <= at);
        match self.ranges.get(next) {
            Some(skipped) if skipped.start <= at => (true, skipped.end),
            Some(skipped) => (false, skipped.start),
            None => (false, u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_goes_from_its_begin_on_and_what_lies_before_the_log_goes_whole() {
        let mut skipped = Skipped::default();
        skipped.push(100..200);
        skipped.push(300..400);
        assert_eq!(skipped.part_at(50), (false, 100));
        assert_eq!(skipped.part_at(100), (true, 200));
        assert_eq!(skipped.part_at(200), (false, 300));
        assert_eq!(skipped.part_at(400), (false, u64::MAX));
        skipped.filled(&(100..150));
        skipped.filled(&(200..300));
        assert_eq!((skipped.part_at(149), skipped.part_at(150)), ((false, 150), (true, 200)));
        skipped.filled(&(150..200));
        assert_eq!(skipped.part_at(150), (false, 300));
        skipped.drop_before(399);
        assert_eq!(skipped.part_at(300), (true, 400));
        skipped.drop_before(400);
        assert_eq!(skipped.part_at(300), (false, u64::MAX));
    }
}
