//! What a check of a store has found.
//! Invariant: every finding is counted; the first of them are kept.
//! Leaves finding to the checks.

use std::path::Path;

use gantry_model::PhysicalOffset;
use serde::Serialize;

use crate::log::survey::Survey;

/// Findings that are kept.
const FINDINGS_KEPT: usize = 1_000;

/// What is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which part it concerns.
    pub part: Part,
    /// The file.
    pub file: String,
    /// Byte in the file; none if the file as a whole is meant.
    pub file_offset: Option<u64>,
    /// Position in the log; none if none is meant.
    pub position: Option<PhysicalOffset>,
    /// What is wrong.
    pub what: String,
}

/// A part of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The commit log: what is lost there is lost.
    Log,
    /// The views: made again from the log.
    Views,
    /// The key index: made again from the log.
    Keys,
}

/// Outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The store's folder.
    pub dir: String,
    /// Whether a broker had it open when the check began or when it ended.
    pub is_live: bool,
    /// Positions that were checked: from here
    pub from: PhysicalOffset,
    /// to here.
    pub to: PhysicalOffset,
    /// Records that are whole.
    pub records: u64,
    /// Those of them that are messages.
    pub messages: u64,
    /// Entries of queues in the views that fit their records.
    pub queue_entries: u64,
    /// Keys in the key index that fit their records.
    pub keys: u64,
    /// What is wrong, the first of it.
    pub findings: Vec<Finding>,
    /// How much is wrong.
    pub findings_total: u64,
    /// What is worth to know and not wrong.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }
}

/// Collects what is found.
pub(super) struct Report<'a> {
    pub(super) log: &'a Survey,
    pub(super) findings: Vec<Finding>,
    pub(super) total: u64,
    pub(super) notes: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(log: &'a Survey) -> Self {
        Self { log, findings: Vec::new(), total: 0, notes: Vec::new() }
    }

    /// Something is wrong at a position of the log.
    pub(super) fn at(&mut self, position: PhysicalOffset, what: impl Into<String>) {
        let (file, file_offset) = match self.log.place(position) {
            Some((path, at)) => (path.display().to_string(), Some(at)),
            None => (String::new(), None),
        };
        let (part, position) = (Part::Log, Some(position));
        self.push(Finding { part, file, file_offset, position, what: what.into() });
    }

    /// Something is wrong with a file that was made from the log, or with the entry in it of a position.
    pub(super) fn derived(
        &mut self,
        part: Part,
        file: &Path,
        position: Option<PhysicalOffset>,
        what: impl Into<String>,
    ) {
        let file = file.display().to_string();
        self.push(Finding { part, file, file_offset: None, position, what: what.into() });
    }

    pub(super) fn push(&mut self, finding: Finding) {
        self.total += 1;
        if self.findings.len() < FINDINGS_KEPT {
            self.findings.push(finding);
        }
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}
