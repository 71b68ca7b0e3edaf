//! Offsets that damaged records may have had: a start that cannot read a record does not know whose it was, and leaves
//! a gap in every queue, so that no offset is given to a second message.
//! Invariant: behind a damaged place no queue goes on at an offset that a record there may have had, and the views that
//! are applied beyond the place say so.
//! Leaves to the next record of a queue, which knows its offset, to close the gap again.

use std::{collections::BTreeMap, ops::Range, sync::atomic::Ordering};

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicId};
use gantry_record::{CHECKSUM_BYTES, RECORD_BYTES_MIN};

use crate::{
    apply,
    store::Store,
    tables,
    views::{ViewBatch, ViewError},
};

/// Bytes of the smallest message: one byte of topic, nothing else.
const MESSAGE_BYTES_MIN: u64 = (RECORD_BYTES_MIN + 1 + CHECKSUM_BYTES) as u64;

impl Store {
    /// Moves every queue beyond what the records of a damaged place may have added to it. The fields of a record that
    /// does not verify are not believed: its bytes alone bound what was lost.
    ///
    /// Only for a replay, which has reached the place.
    pub(crate) fn skip_lost_offsets(&self, place: Range<PhysicalOffset>) -> Result<(), ViewError> {
        let lost = (place.end.0 - place.start.0) / MESSAGE_BYTES_MIN;
        if lost == 0 {
            return Ok(());
        }
        self.apply_all()?;
        let mut batch = ViewBatch::new();
        for ((topic, queue), next) in self.all_next_offsets()? {
            let next = next.saturating_add(lost);
            apply::put_next(&mut batch, topic, queue, QueueOffset(next));
        }
        batch.set_applied(place.end);
        self.views.apply(&batch)?;
        self.queues.skip(lost);
        self.applied.store(place.end.0, Ordering::Release);
        Ok(())
    }

    /// Next offsets of all queues, also of those that never had a message.
    fn all_next_offsets(&self) -> Result<BTreeMap<(TopicId, QueueId), u64>, ViewError> {
        let mut all = BTreeMap::new();
        for topic in self.topics() {
            let count = topic.config.queues();
            all.extend((0..count).map(|queue| ((topic.id, QueueId(queue)), 0)));
        }
        tables::next_offsets(&*self.views, &mut |topic, queue, next| {
            all.insert((topic, queue), next.0);
        })?;
        Ok(all)
    }
}
