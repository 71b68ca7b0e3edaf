//! Offsets that damaged records may have had: a start that cannot read a record does not know whose it was, and leaves
//! a gap in every queue that nothing behind the place tells of, so that no offset is given to a second message.
//! Invariant: behind a damaged place no queue goes on at an offset that a record there may have had, and the views that
//! are applied beyond the place say so, or say that the place is still to be reckoned with.
//! Leaves passing a gap to readers, whom each read tells where it ends.
//!
//! A place costs one entry of the views, which its replay removes again, and each queue is written once at most,
//! however many places there are.

use std::{collections::BTreeMap, ops::Range, sync::atomic::Ordering};

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicId};
use gantry_record::{CHECKSUM_BYTES, RECORD_BYTES_MIN};

use crate::{
    apply,
    store::Store,
    tables,
    views::{Direction, Step, View, ViewBatch, ViewError, ViewRead, layout},
};

/// Bytes of the smallest message: one byte of topic, nothing else.
const MESSAGE_BYTES_MIN: u64 = (RECORD_BYTES_MIN + 1 + CHECKSUM_BYTES) as u64;
/// Queues that one batch of views moves.
const BATCH_QUEUES: usize = 8192;

/// A damaged place that a replay has passed.
#[derive(Debug, Clone, Copy)]
struct Lost {
    end: PhysicalOffset,
    /// Most messages that the place could hold.
    messages: u64,
}

/// What is known of a queue before the gaps are made.
#[derive(Debug, Clone, Copy)]
struct Known {
    next: u64,
    /// Where its topic's epoch starts: no message of it lies before.
    since: PhysicalOffset,
}

impl Store {
    /// Notes a damaged place, beyond which the views are applied from here on. The fields of a record that does not
    /// verify are not believed: its bytes alone bound what was lost.
    ///
    /// Only for a replay, which has reached the place and ends with [`Store::skip_lost_offsets`].
    pub(crate) fn note_lost(&self, place: Range<PhysicalOffset>) -> Result<(), ViewError> {
        let messages = (place.end.0 - place.start.0) / MESSAGE_BYTES_MIN;
        if messages == 0 {
            return Ok(());
        }
        self.apply_all()?;
        let mut batch = ViewBatch::new();
        batch.put(View::Meta, &layout::lost_key(place.end), &messages.to_be_bytes());
        batch.set_applied(place.end);
        self.views.apply(&batch)?;
        self.applied.store(place.end.0, Ordering::Release);
        Ok(())
    }

    /// Moves each queue beyond what the places behind its last record may have added to it: the next record of a queue
    /// knows its offset, so the places before it leave no gap.
    ///
    /// Only for the end of a replay, also of one that goes on where another one ended halfway.
    pub(crate) fn skip_lost_offsets(&self) -> Result<(), ViewError> {
        let places = noted_places(&*self.views)?;
        if places.is_empty() {
            return Ok(());
        }
        self.apply_all()?;
        let mut batch = ViewBatch::new();
        for ((topic, queue), known) in self.known_queues()? {
            let behind = self.last_end(topic, queue)?.max(known.since);
            let behind = places.iter().filter(|place| place.end > behind);
            let skipped = behind.fold(0_u64, |sum, place| sum.saturating_add(place.messages));
            if skipped == 0 {
                continue;
            }
            let next = known.next.saturating_add(skipped);
            apply::put_next(&mut batch, topic, queue, QueueOffset(next));
            self.queues.skip_to((topic, queue), next);
            if batch.len() >= BATCH_QUEUES {
                self.views.apply(&batch)?;
                batch.clear();
            }
        }
        // Last: a start that ends before it makes the gaps wider, and does not forget one.
        let keys = layout::prefix_range(layout::LOST);
        batch.delete_range(View::Meta, &keys.start..&keys.end);
        self.views.apply(&batch)
    }

    /// All queues, also those that never had a message.
    fn known_queues(&self) -> Result<BTreeMap<(TopicId, QueueId), Known>, ViewError> {
        let mut all = BTreeMap::new();
        for topic in self.topics() {
            let known = Known { next: 0, since: topic.since };
            let queues = 0..topic.config.queues();
            all.extend(queues.map(|queue| ((topic.id, QueueId(queue)), known)));
        }
        tables::next_offsets(&*self.views, &mut |topic, queue, next| {
            let known = Known { next: 0, since: PhysicalOffset(0) };
            all.entry((topic, queue)).or_insert(known).next = next.0;
        })?;
        Ok(all)
    }

    /// Where the last message of a queue ends; 0 if the views know of none.
    fn last_end(&self, topic: TopicId, queue: QueueId) -> Result<PhysicalOffset, ViewError> {
        let keys = layout::prefix_range(&layout::queue_prefix(topic, queue));
        let mut end = Ok(PhysicalOffset(0));
        let keys = &keys.start[..]..&keys.end[..];
        self.views.scan(View::Queue, keys, Direction::Backward, &mut |key, value| {
            end = layout::Run::decode(key, value).map(|run| run.last().end());
            Step::Stop
        })?;
        end
    }
}

/// The places that replays have noted.
fn noted_places(views: &dyn ViewRead) -> Result<Vec<Lost>, ViewError> {
    let mut places = Vec::new();
    let mut outcome = Ok(());
    let keys = layout::prefix_range(layout::LOST);
    views.scan(View::Meta, &keys.start..&keys.end, Direction::Forward, &mut |key, value| {
        let decoded = layout::decode_lost_key(key).and_then(|end| {
            Ok(Lost { end, messages: layout::decode_u64(View::Meta, key, value)? })
        });
        match decoded {
            Ok(lost) => places.push(lost),
            Err(error) => outcome = Err(error),
        }
        if outcome.is_ok() { Step::Next } else { Step::Stop }
    })?;
    outcome.map(|()| places)
}
