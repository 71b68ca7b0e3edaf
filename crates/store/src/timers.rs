//! Timers: those of the views, with what was appended and is not applied yet laid over them.
//! Invariant: a timer is pending while it is in the views or the overlay and nothing has ended it;
//! of two records that end it, one is refused.
//! Leaves what happens when a timer is due to the broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use gantry_model::{PhysicalOffset, TopicId};
use parking_lot::Mutex;

use crate::{
    batch::Ends,
    change::TimerSet,
    ring::Side,
    types::Timer,
    views::{
        Direction, Step, View, ViewError, ViewRead,
        layout::{decode_timer_key, decode_timer_target, timer_key},
    },
};

/// A pending timer and the topic that it waits for.
pub(crate) type Pending = (Timer, Option<TopicId>);

/// All timers.
#[derive(Debug, Default)]
pub(crate) struct Timers(Mutex<Overlay>);

/// Timers that were set or have ended and may not be so in the views.
pub(crate) struct Unapplied {
    pub(crate) set: BTreeMap<Timer, Option<TopicId>>,
    pub(crate) ended: BTreeSet<Timer>,
}

#[derive(Debug, Default)]
struct Overlay {
    /// Set, and perhaps not in the views.
    set: BTreeMap<Timer, Option<TopicId>>,
    /// Ended, and perhaps still in the views.
    ended: BTreeSet<Timer>,
    /// About to be ended by a record that is being appended.
    claimed: BTreeSet<Timer>,
    /// The views hold none before this. A store of sorted files is slow at skipping what was deleted at its front.
    floor: Floor,
}

#[derive(Debug, Default, Clone, Copy)]
struct Floor {
    timer: Timer,
    /// Counts the batches that have set timers: a floor found before one of them does not count.
    batches: u64,
}

impl Overlay {
    fn is_over(&self, timer: &Timer) -> bool {
        self.ended.contains(timer) || self.claimed.contains(timer)
    }
}

impl From<Ends> for Timer {
    fn from(Ends::Timer { due_ms, position }: Ends) -> Self {
        Self { due_ms, position }
    }
}

impl From<TimerSet> for Timer {
    fn from(TimerSet { due_ms, position, .. }: TimerSet) -> Self {
        Self { due_ms, position }
    }
}

impl Timers {
    /// Reserves the right to end a pending timer; `false` if it is not pending, or another has the right.
    /// The claim comes before the look into the views, so that the views cannot change their answer in between.
    pub(crate) fn claim(&self, timer: Timer, views: &dyn ViewRead) -> Result<bool, ViewError> {
        {
            let mut overlay = self.0.lock();
            if overlay.is_over(&timer) {
                return Ok(false);
            }
            overlay.claimed.insert(timer);
            if overlay.set.contains_key(&timer) {
                return Ok(true);
            }
        }
        let stored = views.get(View::Timer, &timer_key(timer.due_ms, timer.position));
        if !matches!(stored, Ok(Some(_))) {
            self.release(timer);
        }
        Ok(stored?.is_some())
    }

    /// Gives a claim back: the record was not appended.
    pub(crate) fn release(&self, timer: Timer) {
        self.0.lock().claimed.remove(&timer);
    }

    /// A record that sets or ends timers was appended.
    pub(crate) fn appended(&self, set: Option<TimerSet>, ends: Option<Ends>) {
        let mut overlay = self.0.lock();
        if let Some(set) = set {
            overlay.set.insert(set.into(), set.target);
        }
        if let Some(timer) = ends.map(Timer::from) {
            overlay.claimed.remove(&timer);
            overlay.ended.insert(timer);
        }
    }

    /// The views hold what records have set, and no longer what they have ended.
    pub(crate) fn applied(&self, sides: &[Arc<Side>]) {
        if sides.iter().all(|side| side.timer.is_none() && side.ends.is_none()) {
            return;
        }
        let mut overlay = self.0.lock();
        // The floor goes down before the overlay forgets a timer, so that one of the two always shows it.
        overlay.floor.batches += 1;
        for timer in sides.iter().filter_map(|side| side.timer).map(Timer::from) {
            overlay.floor.timer = overlay.floor.timer.min(timer);
            overlay.set.remove(&timer);
        }
        for timer in sides.iter().filter_map(|side| side.ends).map(Timer::from) {
            overlay.ended.remove(&timer);
        }
    }

    /// What the views may not show as it is.
    pub(crate) fn unapplied(&self) -> Unapplied {
        let overlay = self.0.lock();
        Unapplied { set: overlay.set.clone(), ended: overlay.ended.clone() }
    }

    /// A topic was deleted and the views no longer hold its timers.
    pub(crate) fn remove_topic(&self, topic: TopicId) {
        self.0.lock().set.retain(|_, target| *target != Some(topic));
    }

    /// Pending timers due up to `due_ms` that `wanted` accepts, oldest first.
    pub(crate) fn due(
        &self,
        due_ms: u64,
        limit: usize,
        views: &dyn ViewRead,
        wanted: &dyn Fn(&Pending) -> bool,
    ) -> Result<Vec<Timer>, ViewError> {
        let end = Timer { due_ms: due_ms.saturating_add(1), position: PhysicalOffset(0) };
        // The overlay first: what moves to the views meanwhile is then seen twice and not missed.
        let (floor, mut due, over) = {
            let overlay = self.0.lock();
            let set = overlay.set.range(..end).filter(|(timer, _)| !overlay.is_over(timer));
            let set = set.map(|(timer, target)| (*timer, *target)).filter(wanted);
            let set: BTreeSet<_> = set.take(limit).map(|(timer, _)| timer).collect();
            let over: BTreeSet<_> = overlay.ended.union(&overlay.claimed).copied().collect();
            (overlay.floor, set, over)
        };
        let mut first = None;
        let mut found = 0;
        scan(views, floor.timer..end, &mut |timer, target| {
            first.get_or_insert(timer);
            if !over.contains(&timer) && wanted(&(timer, target)) {
                found += 1;
                due.insert(timer);
            }
            if found < limit { Step::Next } else { Step::Stop }
        })?;
        self.raise_floor(floor, first.unwrap_or(end));
        Ok(due.into_iter().take(limit).collect())
    }

    fn raise_floor(&self, seen: Floor, timer: Timer) {
        let mut overlay = self.0.lock();
        if overlay.floor.batches == seen.batches {
            overlay.floor.timer = overlay.floor.timer.max(timer);
        }
    }

    /// Due time of the next pending timer.
    pub(crate) fn next_due_ms(
        &self,
        views: &dyn ViewRead,
        wanted: &dyn Fn(&Pending) -> bool,
    ) -> Result<Option<u64>, ViewError> {
        Ok(self.due(u64::MAX - 1, 1, views, wanted)?.first().map(|timer| timer.due_ms))
    }
}

/// Visits the timers of the views.
pub(crate) fn scan(
    views: &dyn ViewRead,
    timers: Range<Timer>,
    visit: &mut dyn FnMut(Timer, Option<TopicId>) -> Step,
) -> Result<(), ViewError> {
    let key = |timer: Timer| timer_key(timer.due_ms, timer.position);
    let (start, end) = (key(timers.start), key(timers.end));
    let mut outcome = Ok(());
    views.scan(View::Timer, &start[..]..&end[..], Direction::Forward, &mut |key, value| {
        let decoded =
            decode_timer_key(key).and_then(|timer| Ok((timer, decode_timer_target(key, value)?)));
        match decoded {
            Ok(((due_ms, position), target)) => visit(Timer { due_ms, position }, target),
            Err(error) => {
                outcome = Err(error);
                Step::Stop
            }
        }
    })?;
    outcome
}
