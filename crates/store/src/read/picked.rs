//! Which entries of a queue one read gives.
//! Invariant: the first accepted entry always fits, and no limit is passed by another.
//! Leaves finding entries, and reading their records, to the read.

use gantry_model::{PhysicalOffset, QueueOffset};

use crate::{
    types::ReadLimits,
    views::{Step, layout::Entry},
};

/// Chooses entries within the limits.
pub(crate) struct Picked<'a> {
    pub(super) limits: ReadLimits,
    accept: &'a dyn Fn(i64) -> bool,
    pub(super) entries: Vec<Entry>,
    bytes: usize,
    /// Entries looked at, accepted or not.
    pub(super) scanned: u32,
    pub(super) is_full: bool,
    /// Offset behind the last of them.
    pub(super) next: QueueOffset,
    /// Where the last of them lies.
    pub(super) last: Option<PhysicalOffset>,
}

impl<'a> Picked<'a> {
    /// None yet, from `from` on.
    pub(crate) fn new(
        from: QueueOffset,
        limits: ReadLimits,
        accept: &'a dyn Fn(i64) -> bool,
    ) -> Self {
        let entries = Vec::with_capacity(limits.messages_max.min(64) as usize);
        Self {
            limits,
            accept,
            entries,
            bytes: 0,
            scanned: 0,
            is_full: false,
            next: from,
            last: None,
        }
    }

    /// Looks at the next entry.
    pub(super) fn look(&mut self, offset: QueueOffset, entry: Entry) -> Step {
        if self.scanned >= self.limits.scan_max
            || self.entries.len() >= self.limits.messages_max as usize
        {
            self.is_full = true;
            return Step::Stop;
        }
        if (self.accept)(entry.tag_hash) {
            let bytes = self.bytes + entry.size as usize;
            if !self.entries.is_empty() && bytes > self.limits.bytes_max {
                self.is_full = true;
                return Step::Stop;
            }
            self.bytes = bytes;
            self.entries.push(entry);
        }
        self.scanned += 1;
        self.next = offset.plus(1);
        self.last = Some(entry.position);
        Step::Next
    }
}
