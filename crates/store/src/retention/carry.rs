//! Carries what waits for its time out of segments that go.
//! Invariant: each copy ends its original in the same write, so that a timer fires once.
//! Leaves which segments go to retention.

use gantry_model::PhysicalOffset;
use gantry_record::RecordView;

use super::RetentionError;
use crate::{
    batch::{Batch, Ends, Index},
    change,
    errors::AppendError,
    log::Purpose,
    options::Now,
    store::Store,
    timers,
    types::Timer,
    views::Step,
};

/// Timers that are looked for at once when they are carried.
const CARRIED_AT_ONCE: usize = 256;
impl Store {
    /// Appends the pending timers before `before` again; each copy ends its original in the same write.
    pub(super) fn carry(&self, before: PhysicalOffset, now: Now) -> Result<u64, RetentionError> {
        let mut carried = 0;
        let mut from = Timer::default();
        loop {
            let timers = self.timers_before(before, from)?;
            let Some(last) = timers.last() else { break };
            from = Timer { position: last.position.plus(1), ..*last };
            for timer in timers {
                carried += u64::from(self.carry_one(timer, now)?);
            }
        }
        self.sync()?;
        self.apply_all()?;
        Ok(carried)
    }

    fn timers_before(
        &self,
        before: PhysicalOffset,
        from: Timer,
    ) -> Result<Vec<Timer>, RetentionError> {
        let mut found = Vec::new();
        let end = Timer { due_ms: u64::MAX, position: PhysicalOffset(u64::MAX) };
        timers::scan(&*self.views, from..end, &mut |timer, _| {
            if timer.position < before {
                found.push(timer);
            }
            if found.len() < CARRIED_AT_ONCE { Step::Next } else { Step::Stop }
        })?;
        Ok(found)
    }

    /// Whether it was still pending.
    fn carry_one(&self, timer: Timer, now: Now) -> Result<bool, RetentionError> {
        let Some(bytes) = self.read_record(timer.position)? else {
            // Damaged: `read_record` has reported it, and nothing can fire it any more.
            return Ok(false);
        };
        let Ok(record) = RecordView::parse(&bytes) else { return Ok(false) };
        let Some(topic) = self.topic(record.topic()) else { return Ok(false) };
        let mut batch = Batch::new();
        let index = Index {
            tag_hash: record.tag_hash().into(),
            keys: change::keys_of(&record),
            timer_due_ms: Some(timer.due_ms),
            ends: Some(Ends::Timer { due_ms: timer.due_ms, position: timer.position }),
        };
        batch.push(&topic, &record.draft(), index).map_err(AppendError::from)?;
        let mut outcome = self.append_for(Purpose::State, &mut batch, now);
        if let Err(AppendError::Busy { .. }) = outcome {
            self.sync()?;
            self.apply_all()?;
            outcome = self.append_for(Purpose::State, &mut batch, now);
        }
        match outcome {
            Ok(_) => Ok(true),
            // It fired, was recalled, or went with its topic, a moment ago.
            Err(AppendError::AlreadyEnded { .. } | AppendError::TopicGone { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
