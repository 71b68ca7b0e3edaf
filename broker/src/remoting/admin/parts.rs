//! Parts of a long table, for the requests that ask for topics or groups one part after another.
//! Invariant: parts asked with the version of the current table follow one another without a gap; with another version
//! a part begins at the front, so that nobody joins parts of two tables.
//! Leaves the tables to their request codes. Source: RocketMQ remoting, request codes 21 and 201 since 5.3.

use std::ops::Range;

use gantry_remoting::{command::data_version::DataVersion, json::JsonBody as _};

/// Entries of one part at most, whatever is asked: 2,000 of the longest names and a kilobyte of attributes are 3 MiB.
const PART_MAX: usize = 2_000;

/// What a request says of the part that it wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Number of its first entry.
    pub(super) first: Option<i32>,
    /// Version of the table in the parts before, as JSON.
    pub(super) version: Option<&'a str>,
    /// Most entries.
    pub(super) entries_max: Option<i32>,
}

impl Wanted<'_> {
    /// Which of `total` entries of a table of version `current` are answered: all of them when no part is asked for.
    pub(super) fn of(self, total: usize, current: DataVersion) -> Range<usize> {
        if self.first.is_none() && self.version.is_none() && self.entries_max.is_none() {
            return 0..total;
        }
        let number = |value: i32| usize::try_from(value).unwrap_or(0);
        let is_current =
            |text: &str| DataVersion::from_json(text.as_bytes()).is_ok_and(|of| of == current);
        let goes_on = self.version.is_some_and(is_current);
        let first = if goes_on { self.first.map_or(0, number).min(total) } else { 0 };
        let entries_max = self.entries_max.map_or(PART_MAX, number).min(PART_MAX);
        first..(first + entries_max).min(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: DataVersion = DataVersion { counter: 7, state_version: 0, timestamp: 9 };
    const TEXT: &str = r#"{"counter":7,"stateVersion":0,"timestamp":9}"#;

    fn of(first: i32, version: &str, entries_max: i32, total: usize) -> Range<usize> {
        let (first, entries_max) = (Some(first), Some(entries_max));
        Wanted { first, version: Some(version), entries_max }.of(total, CURRENT)
    }

    #[test]
    fn request_without_any_of_the_fields_gets_everything() {
        let wanted = Wanted { first: None, version: None, entries_max: None };
        assert_eq!(wanted.of(300_000, CURRENT), 0..300_000);
    }

    #[test]
    fn parts_of_the_same_version_follow_one_another_to_the_end() {
        let mut next = 0;
        while next < 300_001 {
            let part = of(next as i32, TEXT, 2_000, 300_001);
            assert_eq!(part.start, next);
            assert!(part.end > next && part.len() <= PART_MAX);
            next = part.end;
        }
        assert_eq!(next, 300_001);
        assert_eq!(of(300_001, TEXT, 2_000, 300_001), 300_001..300_001);
    }

    #[test]
    fn part_of_another_or_no_version_begins_at_the_front() {
        let other = r#"{"counter":8,"stateVersion":0,"timestamp":9}"#;
        for version in [other, "", "{", "null"] {
            assert_eq!(of(4_000, version, 100, 9_000), 0..100, "{version}");
        }
        let first = Wanted { first: Some(0), version: None, entries_max: None };
        assert_eq!(first.of(9_000, CURRENT), 0..PART_MAX);
    }

    #[test]
    fn numbers_out_of_range_are_no_harm() {
        assert_eq!(of(-5, TEXT, i32::MAX, 9_000), 0..PART_MAX);
        assert_eq!(of(i32::MAX, TEXT, 10, 9_000), 9_000..9_000);
        assert_eq!(of(10, TEXT, -1, 9_000), 10..10);
    }
}
