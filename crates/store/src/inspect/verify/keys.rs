//! Checks of the key index against the log.
//! Invariant: memory holds the keys of one file's range at a time.
//! Leaves files that are superseded by longer ones to the next start, which removes them.

use std::path::{Path, PathBuf};

use gantry_model::PhysicalOffset;
use gantry_record::RecordView;

use super::report::{Finding, Part, Report};
use crate::{
    change::{self, key_hash},
    inspect::{FoundKeys, InspectError},
    keys::{BLOCK_BYTES, KeyEntry},
    log::survey::Survey,
};

/// Follows the log beside the files of the index.
pub(super) struct KeyCheck<'a> {
    dir: PathBuf,
    /// Those still to be checked, the next one last.
    files: Vec<&'a FoundKeys>,
    /// Keys of the records in the range of the next file.
    expected: Vec<KeyEntry>,
    /// Whether a place in that range cannot be read.
    has_gap: bool,
    matched: u64,
}

impl<'a> KeyCheck<'a> {
    pub(super) fn new(
        dir: PathBuf,
        found: &'a [FoundKeys],
        log: &Survey,
        report: &mut Report<'_>,
    ) -> Self {
        let mut kept: Vec<&FoundKeys> = Vec::new();
        // Of those that begin alike the longest comes first.
        let mut sorted: Vec<_> = found.iter().collect();
        sorted.sort_by_key(|file| (file.range.start, u64::MAX - file.range.end));
        for file in sorted {
            let path = dir.join(&file.name);
            if file.file.is_none() {
                report.derived(
                    Part::Keys,
                    &path,
                    None,
                    "the file has no valid header, or not its length",
                );
            } else if kept.last().is_some_and(|last| file.range.start < last.range.end) {
                report.note(format!(
                    "{}: superseded, it is removed at the next start",
                    path.display()
                ));
            } else if file.range.end > log.end().0 {
                let (end, log_end) = (file.range.end, log.end());
                let what = format!("the file covers the log up to {end}, which ends at {log_end}");
                report.derived(Part::Keys, &path, None, what);
            } else {
                kept.push(file);
            }
        }
        kept.reverse();
        Self { dir, files: kept, expected: Vec::new(), has_gap: false, matched: 0 }
    }

    /// A place cannot be read.
    pub(super) fn gap(
        &mut self,
        position: PhysicalOffset,
        end: PhysicalOffset,
        report: &mut Report<'_>,
    ) -> Result<(), InspectError> {
        self.pass(position, report)?;
        self.has_gap = true;
        // It may reach into the files behind.
        while let Some(file) = self.files.last().filter(|file| file.range.end <= end.0) {
            self.check(file, report)?;
            self.has_gap = true;
        }
        Ok(())
    }

    pub(super) fn record(
        &mut self,
        record: &RecordView<'_>,
        report: &mut Report<'_>,
    ) -> Result<(), InspectError> {
        let position = record.position();
        self.pass(position, report)?;
        if self.files.last().is_some_and(|file| file.range.contains(&position.0)) {
            let words = change::keys_of(record).words();
            let entry = |word| KeyEntry { hash: key_hash(record.topic(), word), position };
            self.expected.extend(words.map(entry));
        }
        Ok(())
    }

    /// Checks the files whose ranges end at or before `position`.
    fn pass(
        &mut self,
        position: PhysicalOffset,
        report: &mut Report<'_>,
    ) -> Result<(), InspectError> {
        while let Some(file) = self.files.last().filter(|file| file.range.end <= position.0) {
            self.check(file, report)?;
        }
        // A gap before the range of the next file is none in it.
        if self.files.last().is_some_and(|file| position.0 <= file.range.start) {
            self.has_gap = false;
        }
        Ok(())
    }

    /// Checks the rest; returns how many keys fit their records.
    pub(super) fn finish(
        mut self,
        log: &Survey,
        report: &mut Report<'_>,
    ) -> Result<u64, InspectError> {
        self.pass(log.end(), report)?;
        Ok(self.matched)
    }

    fn check(&mut self, found: &FoundKeys, report: &mut Report<'_>) -> Result<(), InspectError> {
        self.files.pop();
        let mut expected = std::mem::take(&mut self.expected);
        let has_gap = std::mem::take(&mut self.has_gap);
        let path = self.dir.join(&found.name);
        let Some(entries) = read_all(found, &path, report)? else { return Ok(()) };
        let log_start = report.log.start();
        expected.sort_unstable();
        if !entries.is_sorted() {
            report.derived(Part::Keys, &path, None, "the keys are not in order");
        }
        for entry in entries.iter().filter(|entry| !found.range.contains(&entry.position.0)) {
            let what = "the file has a key of a record that is not in its range";
            report.derived(Part::Keys, &path, Some(entry.position), what);
        }
        let kept: Vec<_> = entries.into_iter().filter(|e| e.position >= log_start).collect();
        self.matched +=
            kept.iter().filter(|entry| expected.binary_search(entry).is_ok()).count() as u64;
        if has_gap || kept == expected {
            return Ok(());
        }
        let missing = expected.iter().filter(|entry| kept.binary_search(entry).is_err());
        for entry in missing {
            let what = format!("the key with hash {:016x} of a record is missing", entry.hash);
            report.derived(Part::Keys, &path, Some(entry.position), what);
        }
        let strange = kept.iter().filter(|entry| expected.binary_search(entry).is_err());
        for entry in strange {
            let what = format!("no record there has a key with hash {:016x}", entry.hash);
            report.derived(Part::Keys, &path, Some(entry.position), what);
        }
        Ok(())
    }
}

/// All keys of a file; none if a block is broken.
fn read_all(
    found: &FoundKeys,
    path: &Path,
    report: &mut Report<'_>,
) -> Result<Option<Vec<KeyEntry>>, InspectError> {
    let Some(file) = &found.file else { return Ok(None) };
    let (mut entries, mut is_whole) = (Vec::new(), true);
    for index in 0..file.blocks() {
        if let Some(block) = file.block(index)? {
            entries.extend(block);
            continue;
        }
        is_whole = false;
        report.push(Finding {
            part: Part::Keys,
            file: path.display().to_string(),
            file_offset: Some((1 + index) * BLOCK_BYTES as u64),
            position: None,
            what: format!("block {index} does not fit its checksum"),
        });
    }
    Ok(is_whole.then_some(entries))
}
