//! Delays: when a message is due, where it waits, and how it comes back.
//! Invariant: a message is delivered never before its due time and exactly once; the delivered record itself
//! says what it ends.
//! Leaves the order of due times to the store. Source: RocketMQ's delay levels and timer messages.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry_model::{
    PhysicalOffset, QueueId,
    properties::{KEYS, REAL_QUEUE_ID, REAL_TOPIC, UNIQ_KEY},
    settings::BrokerSettings,
};
use gantry_record::{Draft, RecordView, properties};
use gantry_store::{
    AppendError, EncodeError, Ends, Index, KeySource, Now, ReadError, Store, Timer, Topic,
};

use super::{
    clock::Clock,
    commit::{CommitError, Commits},
    compose::{DELAY_KEYS, PARK_KEYS, Seen, TimerWish},
    counters::Counters,
    hold::Holds,
    jumps::Jumps,
    outbox::Outbox,
    signal::Signal,
    topics::{TopicError, Topics, dropped_topic},
};

/// The 18 delay levels: `1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h`.
pub const DELAY_LEVELS_MS: [u64; 18] = [
    1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 180_000, 240_000, 300_000, 360_000, 420_000,
    480_000, 540_000, 600_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000,
];
/// Timers that one batch delivers: at 1 KiB each about a megabyte.
const FIRED_MAX: usize = 1_000;
/// Bytes of due messages that one batch delivers, if its first is not larger.
const FIRED_BYTES_MAX: usize = 4 << 20;
/// Longest sleep, so that a clock that was set forward is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Time between two looks for due messages while some may be held back by a jump of the clock.
const LOOK_AFTER_JUMP_MS: u64 = 200;
/// Wait after a failure.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Where a message waits and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// For a delay level, counted from 1.
    Level {
        /// The level.
        level: u32,
        /// Due time, in milliseconds since 1970.
        due_ms: u64,
    },
    /// For a time of its own.
    Time {
        /// Due time, in milliseconds since 1970.
        due_ms: u64,
    },
}

impl Due {
    /// A delay level counted from now; levels beyond the last are the last.
    pub fn level(level: u32, now: Now) -> Self {
        let level = level.clamp(1, DELAY_LEVELS_MS.len() as u32);
        Self::Level { level, due_ms: now.wall_ms + DELAY_LEVELS_MS[level as usize - 1] }
    }

    /// Due time, in milliseconds since 1970.
    pub fn due_ms(self) -> u64 {
        match self {
            Self::Level { due_ms, .. } | Self::Time { due_ms } => due_ms,
        }
    }
}

/// Why a message cannot wait as it asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DueError {
    /// The time is no number, or none that can be added to now.
    #[error("timer property has the value {value:?}, expected a time in range")]
    Number {
        /// What was found.
        value: String,
    },
    /// The time is too far ahead.
    #[error("timer message is due in {ahead_ms} ms, the limit is {ahead_ms_max} ms")]
    TooFar {
        /// Distance from now.
        ahead_ms: u64,
        /// Largest distance.
        ahead_ms_max: u64,
    },
    /// The message wants to cancel another.
    #[error("cancelling a timer message is not available")]
    Cancel,
}

/// When a message with these properties is due; `None`: at once.
pub fn due_of(
    seen: &Seen<'_>,
    settings: &BrokerSettings,
    now: Now,
) -> Result<Option<Due>, DueError> {
    if seen.cancels {
        return Err(DueError::Cancel);
    }
    if let Some(level) = delay_level(seen).filter(|level| *level > 0) {
        return Ok(Some(Due::level(level as u32, now)));
    }
    let Some(wish) = seen.timer else { return Ok(None) };
    let due_ms = wished_time(wish, now)?;
    if due_ms <= now.wall_ms {
        return Ok(None);
    }
    let (ahead_ms, ahead_ms_max) = (due_ms - now.wall_ms, settings.timer_delay_max.as_millis());
    if ahead_ms > ahead_ms_max {
        return Err(DueError::TooFar { ahead_ms, ahead_ms_max });
    }
    Ok(Some(Due::Time { due_ms }))
}

/// The delay level, if the property is a number; the reference ignores anything else.
pub fn delay_level(seen: &Seen<'_>) -> Option<i32> {
    seen.delay.and_then(|level| level.parse().ok())
}

fn wished_time(wish: TimerWish<'_>, now: Now) -> Result<u64, DueError> {
    let (TimerWish::DelaySeconds(value) | TimerWish::DelayMillis(value) | TimerWish::At(value)) =
        wish;
    let number = value.parse::<i64>().ok();
    let due = number.and_then(|number| match wish {
        TimerWish::At(_) => Some(number),
        TimerWish::DelayMillis(_) => number.checked_add_unsigned(now.wall_ms),
        TimerWish::DelaySeconds(_) => number.checked_mul(1_000)?.checked_add_unsigned(now.wall_ms),
    });
    due.map(|due| due.max(0) as u64).ok_or_else(|| DueError::Number { value: value.into() })
}

/// Why due messages were not delivered.
#[derive(Debug, thiserror::Error)]
pub enum FireError {
    /// The due ones cannot be read.
    #[error("read due timers")]
    Read(#[from] ReadError),
    /// They cannot be appended.
    #[error("append due messages")]
    Append(#[from] AppendError),
    /// What says that one is lost cannot be encoded.
    #[error("encode what ends a timer")]
    Encode(#[from] EncodeError),
    /// They were not confirmed.
    #[error("confirm due messages")]
    Commit(#[from] CommitError),
    /// A topic that one needs could not be made.
    #[error("make the topic of a due message")]
    Topic(#[from] TopicError),
}

/// Wakes the deliverer when a message was parked that is due before it would wake by itself.
#[derive(Debug)]
pub struct TimerSignal {
    signal: Signal,
    /// When the deliverer wakes by itself; the largest number while it is awake.
    planned_ms: AtomicU64,
    stopped: AtomicBool,
    jumps: Jumps,
}

impl Default for TimerSignal {
    fn default() -> Self {
        let (signal, stopped) = (Signal::default(), AtomicBool::new(false));
        Self { signal, planned_ms: AtomicU64::new(u64::MAX), stopped, jumps: Jumps::default() }
    }
}

impl TimerSignal {
    /// A message is about to be parked at `written` or behind, with a due time that `now` led to.
    pub fn parks(&self, now: Now, written: PhysicalOffset) {
        self.jumps.note(now, written);
    }

    /// A message was parked until `due_ms`.
    pub fn parked(&self, due_ms: u64) {
        if due_ms < self.planned_ms.load(Ordering::SeqCst) {
            self.signal.notify();
        }
    }

    /// Ends the deliverer after the batch at hand.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.signal.notify();
    }
}

/// Delivers parked messages when they are due; lives on a thread of its own.
pub struct Timers {
    store: Arc<Store>,
    topics: Arc<Topics>,
    commits: Arc<Commits>,
    holds: Arc<Holds>,
    counters: Arc<Counters>,
    clock: Clock,
    signal: Arc<TimerSignal>,
}

impl Timers {
    /// A deliverer for the timers of `store`.
    pub fn new(
        store: Arc<Store>,
        topics: Arc<Topics>,
        commits: Arc<Commits>,
        holds: Arc<Holds>,
        counters: Arc<Counters>,
        clock: Clock,
        signal: Arc<TimerSignal>,
    ) -> Self {
        Self { store, topics, commits, holds, counters, clock, signal }
    }

    /// Delivers until [`TimerSignal::stop`]; the body of the thread.
    pub fn run(&self) {
        let mut batch = Outbox::default();
        while !self.signal.stopped.load(Ordering::Acquire) {
            match self.fire_due(&mut batch) {
                Ok(0) => self.sleep(),
                Ok(_) => {}
                Err(error) => {
                    self.counters.failed();
                    let error = &error as &dyn std::error::Error;
                    if self.store.stopped().is_some() {
                        tracing::error!(error, "due messages are delivered after the next start");
                        return;
                    }
                    tracing::error!(error, "due messages were not delivered; trying again");
                    self.signal.signal.wait(FAILURE_PAUSE);
                }
            }
        }
    }

    /// A clock that was set back while the broker was stopped holds up none of those that were parked before. What was
    /// parked behind an earlier jump of that kind bears the log's newest time, and goes by the clock as it is. To be called
    /// before anything is parked.
    pub fn resume_clock(&self) {
        let (now, newest_ms) = (self.clock.now(), self.store.newest_time_ms());
        if newest_ms <= now.wall_ms {
            return;
        }
        match self.store.first_parked_since(newest_ms) {
            Ok(behind) => self.signal.jumps.resume(now, newest_ms, behind),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "the clock is behind the log, and so may be messages that wait"
                );
            }
        }
    }

    fn sleep(&self) {
        let next_ms = self.store.next_due_ms().unwrap_or(u64::MAX);
        // A message parked before this store is seen below or raises the signal.
        self.signal.planned_ms.store(next_ms, Ordering::SeqCst);
        let walls = self.signal.jumps.walls(self.clock.now());
        let ahead_ms = next_ms.saturating_sub(walls.latest_ms());
        // At least a millisecond: a timer may be known before it can be read. After a jump, which of them is the next
        // depends on when each was parked.
        let least_ms = if walls.have_jumped() { LOOK_AFTER_JUMP_MS } else { 1 };
        let sleep = Duration::from_millis(ahead_ms.max(least_ms)).min(SLEEP_MAX);
        self.signal.signal.wait(sleep);
        self.signal.planned_ms.store(u64::MAX, Ordering::SeqCst);
    }

    /// Delivers the oldest due messages and returns how many.
    fn fire_due(&self, batch: &mut Outbox) -> Result<usize, FireError> {
        let now = self.clock.now();
        self.signal.jumps.note(now, self.store.written());
        let walls = self.signal.jumps.walls(now);
        let is_due = |timer: &Timer| timer.due_ms <= walls.at_ms(timer.position);
        let due = self.store.due_timers_where(walls.latest_ms(), FIRED_MAX, &is_due)?;
        let mut fired = 0;
        let mut rest = due.as_slice();
        while !rest.is_empty() {
            let staged = self.stage(rest, batch, now)?;
            fired += match self.append_pending(batch, now)? {
                0 if staged > 1 => self.fire_each(&rest[..staged], batch, now)?,
                appended => appended,
            };
            rest = &rest[staged..];
        }
        Ok(fired)
    }

    /// One by one: somebody ended one of them meanwhile, and the others are due all the same.
    fn fire_each(&self, due: &[Timer], batch: &mut Outbox, now: Now) -> Result<usize, FireError> {
        let mut fired = 0;
        for timer in due {
            self.stage(std::slice::from_ref(timer), batch, now)?;
            fired += self.append_pending(batch, now)?;
        }
        Ok(fired)
    }

    /// Appends the batch and returns how many messages it had; 0 if one of them is not pending any more.
    fn append_pending(&self, batch: &mut Outbox, now: Now) -> Result<usize, FireError> {
        match self.append(batch, now) {
            Ok(()) => Ok(batch.len()),
            Err(FireError::Append(AppendError::AlreadyEnded { .. })) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Encodes as many of `due` as one batch takes, at least one, and returns how many.
    fn stage(&self, due: &[Timer], batch: &mut Outbox, now: Now) -> Result<usize, FireError> {
        batch.clear();
        let mut properties = Vec::new();
        for (count, timer) in due.iter().enumerate() {
            if count > 0 && batch.bytes() >= FIRED_BYTES_MAX {
                return Ok(count);
            }
            let Some(bytes) = self.store.read_record(timer.position)? else {
                self.stage_lost(*timer, "it is gone from the log", batch, now)?;
                continue;
            };
            match RecordView::parse(&bytes) {
                Ok(record) => self.stage_one(*timer, &record, batch, &mut properties, now)?,
                Err(error) => self.stage_lost(*timer, &error.to_string(), batch, now)?,
            }
        }
        Ok(due.len())
    }

    fn stage_one(
        &self,
        timer: Timer,
        record: &RecordView<'_>,
        batch: &mut Outbox,
        properties: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), FireError> {
        let (topic, queue) = self.target(timer, record, now)?;
        properties.clear();
        let mut drop = [""; DELAY_KEYS.len() + PARK_KEYS.len()];
        drop[..DELAY_KEYS.len()].copy_from_slice(&DELAY_KEYS);
        drop[DELAY_KEYS.len()..].copy_from_slice(&PARK_KEYS);
        properties::edit(record.properties_unsealed().as_bytes(), &drop, properties);
        let draft = Draft { topic: topic.name(), queue, properties, ..record.draft() };
        let ends = Ends::Timer { due_ms: timer.due_ms, position: timer.position };
        let keys = KeySource { unique: record.property(UNIQ_KEY), keys: record.property(KEYS) };
        let tag_hash = record.tag_hash().into();
        let index = Index { tag_hash, keys, ends: Some(ends), ..Index::default() };
        match batch.push(&topic, &draft, index) {
            Ok(_) => Ok(()),
            Err(error) => self.stage_lost(timer, &error.to_string(), batch, now),
        }
    }

    /// Ends the timer of a message that cannot be delivered: else it would be due for ever.
    fn stage_lost(
        &self,
        timer: Timer,
        reason: &str,
        batch: &mut Outbox,
        now: Now,
    ) -> Result<(), FireError> {
        self.counters.failed();
        self.counters.timers_dropped.fetch_add(1, Ordering::Relaxed);
        tracing::error!(?timer, reason, "due message cannot be delivered");
        let topic = self.topics.ensure(dropped_topic(), now)?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let draft = Draft {
            topic: topic.name(),
            queue: QueueId(0),
            flag: 0,
            sys_flag: 0,
            born_time_ms: now.wall_ms as i64,
            born_host: nowhere,
            store_host: nowhere,
            reconsume_times: 0,
            prepared_offset: 0,
            body: reason.as_bytes(),
            properties: &[],
        };
        let ends = Some(Ends::Timer { due_ms: timer.due_ms, position: timer.position });
        batch.push(&topic, &draft, Index { ends, ..Index::default() })?;
        Ok(())
    }

    /// Where a due message goes: a message of a topic that was deleted goes where nobody sees it, so that its
    /// timer ends.
    fn target(
        &self,
        timer: Timer,
        record: &RecordView<'_>,
        now: Now,
    ) -> Result<(Arc<Topic>, QueueId), FireError> {
        let name = record.property(REAL_TOPIC).unwrap_or_default();
        let queue = record.property(REAL_QUEUE_ID).and_then(|queue| queue.parse().ok());
        if let Some(topic) = self.topics.get(name).filter(|topic| topic.since <= timer.position) {
            let queue = queue.filter(|queue| *queue < topic.config.queues()).unwrap_or(0);
            return Ok((topic, QueueId(queue)));
        }
        self.counters.timers_dropped.fetch_add(1, Ordering::Relaxed);
        tracing::info!(topic = name, ?timer, "due message dropped: its topic is gone");
        Ok((self.topics.ensure(dropped_topic(), now)?, QueueId(0)))
    }

    fn append(&self, batch: &mut Outbox, now: Now) -> Result<(), FireError> {
        if batch.is_empty() {
            return Ok(());
        }
        let ticket = batch.append(&self.store, now)?;
        self.commits.confirmed_blocking(ticket)?;
        self.counters.timers_fired.fetch_add(batch.len() as u64, Ordering::Relaxed);
        batch.tell(&self.holds);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
