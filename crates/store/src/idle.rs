//! A store at rest: once nothing more comes, the log is ended with a mark.
//! Invariant: a store at rest writes one mark, and then nothing.
//! Leaves to `log` what a mark is.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{append::Tail, errors::MarkError, log, store::Store};

/// Up to where the log was written when it was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Rest(AtomicU64);

impl Store {
    /// Ends the log with a mark and syncs it, if nothing was written since the last call: from then on rot in any
    /// record costs that record alone. To be called every second or so; says whether a mark was written.
    pub fn mark_if_idle(&self) -> Result<bool, MarkError> {
        let written = self.written();
        let is_idle = self.rest.0.swap(written.0, Ordering::Relaxed) == written.0;
        if !is_idle || self.synced() != written {
            return Ok(false);
        }
        let is_marked = {
            let mut tail = self.tail.lock();
            !tail.closed && self.end_with_mark(&mut tail)?
        };
        if is_marked {
            self.sync()?;
        }
        Ok(is_marked)
    }

    /// Ends the log with a mark if everything is synced and none ends it yet.
    pub(crate) fn end_with_mark(&self, tail: &mut Tail) -> Result<bool, log::AppendError> {
        let is_marked = tail.writer.end_with_mark()?;
        if is_marked {
            self.confirm_written(tail.writer.next_position());
        }
        Ok(is_marked)
    }
}
