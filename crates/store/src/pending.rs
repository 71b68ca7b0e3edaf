//! How much of the log pending timers hold: retention has to carry it, so it may be only a part of the log's size.
//! Invariant: once measured, the count is the size of the records whose timers are pending; what sets or ends one
//! meanwhile is counted with it, under the log's lock.
//! Without a limit of the log there is no rule, and nothing is counted. Leaves refusing to who takes new timers.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bytes::BytesMut;
use gantry_model::{PhysicalOffset, TopicId};

use crate::{
    batch::Item,
    errors::AppendError,
    log::Patience,
    options::StoreOptions,
    store::Store,
    timers,
    types::Timer,
    views::{Step, ViewError},
};

/// Part of the log's size that pending timers may hold, as a divisor.
const PENDING_SHARE: u64 = 4;
/// Positions that are looked up at once, in the log's order: 512 KiB.
const MEASURED_AT_ONCE: usize = 64 * 1024;

/// Bytes of the records that wait for their time.
#[derive(Debug)]
pub(crate) struct PendingBytes {
    bytes_max: Option<u64>,
    /// What was measured and what has changed since. Below 0 while timers end that are not measured yet.
    bytes: AtomicI64,
    is_measured: AtomicBool,
    /// Timers of a topic that was deleted are still counted.
    is_stale: AtomicBool,
}

impl PendingBytes {
    pub(crate) fn new(options: &StoreOptions) -> Self {
        let limits = options.room.bytes_max.into_iter().chain(options.retention.bytes);
        Self {
            bytes_max: limits.min().map(|bytes| bytes / PENDING_SHARE),
            bytes: AtomicI64::new(0),
            is_measured: AtomicBool::new(false),
            is_stale: AtomicBool::new(false),
        }
    }

    /// Whether anything is counted.
    fn is_counted(&self) -> bool {
        self.bytes_max.is_some()
    }

    /// A record that sets a timer was appended.
    fn set(&self, record_bytes: u32) {
        self.bytes.fetch_add(record_bytes.into(), Ordering::Relaxed);
    }

    /// Timers have ended whose records take so many bytes.
    fn ended(&self, records_bytes: u64) {
        self.bytes.fetch_sub(records_bytes as i64, Ordering::Relaxed);
    }

    /// A topic was deleted, and its timers with it.
    pub(crate) fn topic_gone(&self) {
        self.is_stale.store(true, Ordering::Release);
    }

    fn needs_measure(&self) -> bool {
        let is_good = self.is_measured.load(Ordering::Acquire);
        self.is_counted() && (self.is_stale.swap(false, Ordering::AcqRel) || !is_good)
    }

    fn restart(&self) {
        self.is_measured.store(false, Ordering::Release);
        self.bytes.store(0, Ordering::Relaxed);
    }

    fn measured(&self, bytes: u64) {
        self.bytes.fetch_add(bytes as i64, Ordering::Relaxed);
        self.is_measured.store(true, Ordering::Release);
    }
}

impl Store {
    /// Refuses new timers while the pending ones hold more than a quarter of the log's size, the smaller of its limit
    /// and of retention by size. Without either, and until what was there at the start is measured, none is refused.
    pub fn check_pending(&self) -> Result<(), AppendError> {
        let Some(bytes_max) = self.pending.bytes_max else { return Ok(()) };
        match self.pending_bytes() {
            Some(bytes) if bytes > bytes_max => Err(AppendError::PendingFull { bytes, bytes_max }),
            _ => Ok(()),
        }
    }

    /// Bytes of the records whose timers are pending; `None` if they are not counted, or not yet.
    pub fn pending_bytes(&self) -> Option<u64> {
        let is_measured = self.pending.is_measured.load(Ordering::Acquire);
        is_measured.then(|| self.pending.bytes.load(Ordering::Relaxed).max(0) as u64)
    }

    /// Bytes of the records of timers that are about to end. Each was read a moment ago to be delivered, and is still
    /// in memory.
    pub(crate) fn bytes_of(&self, claimed: &[Timer]) -> u64 {
        if !self.pending.is_counted() {
            return 0;
        }
        claimed.iter().map(|timer| u64::from(self.record_bytes(timer.position))).sum()
    }

    /// Counts what a batch sets and ends. Under the log's lock.
    pub(crate) fn note_pending(&self, items: &[Item], ended_bytes: u64) {
        if self.pending.is_counted() {
            items
                .iter()
                .filter(|item| item.park.is_some())
                .for_each(|it| self.pending.set(it.size));
            self.pending.ended(ended_bytes);
        }
    }

    /// Measures what pending timers hold, if that is not known: to be called at the start, and by upkeep.
    pub fn measure_pending(&self) -> Result<(), ViewError> {
        if !self.pending.needs_measure() {
            return Ok(());
        }
        // Under the log's lock nothing sets or ends a timer. What the views apply meanwhile is in both, and counted once.
        let (unapplied, snapshot) = {
            let _tail = self.tail.lock();
            let unapplied = self.timers.unapplied();
            self.pending.restart();
            (unapplied, self.views.snapshot())
        };
        let mut positions = Vec::new();
        let mut bytes = 0;
        let set = unapplied.set.iter().filter(|(timer, target)| {
            !unapplied.ended.contains(timer) && target.is_none_or(|id| self.is_topic(id))
        });
        positions.extend(set.map(|(timer, _)| timer.position));
        let all = Timer::default()..Timer { due_ms: u64::MAX, position: PhysicalOffset(u64::MAX) };
        timers::scan(&*snapshot, all, &mut |timer, target| {
            let is_known = unapplied.set.contains_key(&timer) || unapplied.ended.contains(&timer);
            if !is_known && target.is_none_or(|id| self.is_topic(id)) {
                positions.push(timer.position);
            }
            if positions.len() >= MEASURED_AT_ONCE {
                bytes += self.records_bytes(&mut positions);
            }
            Step::Next
        })?;
        bytes += self.records_bytes(&mut positions);
        self.pending.measured(bytes);
        Ok(())
    }

    fn is_topic(&self, id: TopicId) -> bool {
        self.tables.topics.read().by_id(id).is_some()
    }

    fn records_bytes(&self, positions: &mut Vec<PhysicalOffset>) -> u64 {
        positions.sort_unstable();
        positions.drain(..).map(|position| u64::from(self.record_bytes(position))).sum()
    }

    /// Size of the record at a position; 0 where it cannot be read: then it cannot be carried either.
    fn record_bytes(&self, position: PhysicalOffset) -> u32 {
        let mut size = BytesMut::with_capacity(4);
        let read = self.log.read(position, 4, Patience::Wait, &mut size);
        read.ok().and_then(|()| size.first_chunk().copied()).map_or(0, u32::from_be_bytes)
    }
}
