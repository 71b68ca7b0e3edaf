//! The broker's background threads: sync, views, timers, upkeep.
//! Invariant: every failure is counted, and logged unless the last try failed alike; a sync that fails makes the broker
//! refuse messages.
//! Leaves the work itself to store and services, and what upkeep does each second to `tend`.

mod tend;

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use gantry_store::ViewError;

use self::tend::tend;
use crate::services::{Services, signal::Signal};

/// Entries that one view batch holds.
const APPLY_MAX: usize = 10_000;
/// The same while few wait: a fraction of a millisecond, after which those that answer have their turn.
const APPLY_STEP: usize = 256;
/// Entries up to which few wait. Views that fall behind would in the end stop all sends.
const FEW: usize = 2_048;
/// Time in which entries gather for the next view batch. With sync flush a batch for each sync would cost more than
/// the sync; nobody waits for the views, since readers have the ring.
const GATHER: Duration = Duration::from_millis(10);
/// Priority of what may take long and is in no hurry, below the threads that answer.
const UPKEEP_NICE: i32 = 10;
/// Time between two looks for what became due.
const TICK: Duration = Duration::from_secs(1);
/// Time in which views that cannot be written may work again. Whatever is no want of space does not pass in a database
/// that has met it, and another start opens it anew.
const VIEWS_PATIENCE: Duration = Duration::from_secs(5);

/// What a thread does until it is told to stop.
type Body = fn(&Services, &Stop);

/// The running threads.
pub(crate) struct Upkeep {
    services: Arc<Services>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    flag: AtomicBool,
    /// Wakes upkeep.
    upkeep: Signal,
    /// Whether upkeep is to do all that it does each second, and not only what it is woken for.
    is_round_wanted: AtomicBool,
    scrub: Signal,
}

impl Stop {
    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    fn want_round(&self) {
        self.is_round_wanted.store(true, Ordering::Release);
        self.upkeep.notify();
    }
}

impl Upkeep {
    /// Starts all threads.
    ///
    /// # Errors
    /// The system gives no thread; those that run are stopped.
    pub(crate) fn start(services: &Arc<Services>) -> io::Result<Self> {
        services.timers.resume_clock();
        let stop = Arc::new(Stop::default());
        let mut upkeep = Self { services: Arc::clone(services), stop, threads: Vec::new() };
        let bodies: [(&str, Body); 6] = [
            ("gantry-commit", |services, _| services.commits.run()),
            ("gantry-flush", flush),
            ("gantry-views", apply),
            ("gantry-timers", |services, _| services.timers.run()),
            ("gantry-upkeep", tend),
            ("gantry-scrub", scrub),
        ];
        for (name, body) in bodies {
            match upkeep.spawn(name, body) {
                Ok(thread) => upkeep.threads.push(thread),
                Err(error) => {
                    upkeep.stop();
                    return Err(error);
                }
            }
        }
        Ok(upkeep)
    }

    fn spawn(&self, name: &str, body: Body) -> io::Result<JoinHandle<()>> {
        let (services, stop) = (Arc::clone(&self.services), Arc::clone(&self.stop));
        thread::Builder::new().name(name.into()).spawn(move || body(&services, &stop))
    }

    /// Ends all threads: what waits for the disk is synced first, what is due is delivered at the next start.
    pub(crate) fn stop(self) {
        let Self { services, stop, threads } = self;
        stop.flag.store(true, Ordering::Release);
        services.timer_signal.stop();
        stop.upkeep.notify();
        stop.scrub.notify();
        services.flush_due.notify();
        services.synced.notify();
        services.commits.stop();
        for thread in threads {
            if thread.join().is_err() {
                services.counters.failed();
                tracing::error!("a background thread panicked");
            }
        }
    }
}

fn failed(services: &Services, what: &str, error: &(dyn Error + 'static)) {
    services.counters.failed();
    tracing::error!(error, "{what} failed");
}

/// Syncs what nobody waits for, by time and by bytes.
fn flush(services: &Services, stop: &Stop) {
    let interval = services.settings.flush_interval.as_std();
    while !stop.is_set() {
        services.flush_due.wait(interval);
        let store = &services.store;
        if store.synced() == store.written() {
            continue;
        }
        if let Err(error) = store.sync() {
            services.lifecycle.note_sync_error(&error);
            failed(services, "sync of the log", &error);
            return;
        }
        services.synced.notify();
    }
}

/// Moves what is synced into the views.
fn apply(services: &Services, stop: &Stop) {
    let mut failure = ViewFailure::default();
    let mut pace = Pace::default();
    let room = || (services.store.newest_segment(), services.store.shortage().is_some());
    let mut known = room();
    // Also between batches: with busy senders and few processors there may always be another one.
    let mut wake_upkeep = || {
        let found = room();
        if found != known {
            known = found;
            stop.want_round();
        }
        if services.store.is_key_index_due() {
            stop.upkeep.notify();
        }
    };
    while !stop.is_set() {
        services.synced.wait(TICK);
        let has_applied = apply_all(services, &mut pace, &mut failure, &mut wake_upkeep);
        if let Some(due_ms) = services.store.next_due_ms() {
            services.timer_signal.parked(due_ms);
        }
        if has_applied {
            thread::sleep(GATHER);
        }
    }
}

/// How much is moved at a time.
#[derive(Default)]
struct Pace {
    /// Whether many entries wait, or waited the last time.
    is_pressed: bool,
    moved: usize,
}

impl Pace {
    fn entries(&self) -> usize {
        if self.is_pressed { APPLY_MAX } else { APPLY_STEP }
    }

    /// After a batch: lets others have their turn, unless many wait.
    fn moved(&mut self, entries: usize) {
        self.moved += entries;
        self.is_pressed |= self.moved >= FEW;
        if !self.is_pressed {
            thread::yield_now();
        }
    }

    /// After the last batch of a round.
    fn ended(&mut self) {
        *self = Self { is_pressed: self.moved >= FEW, moved: 0 };
    }
}

/// Whether there was anything to move. Calls `after_each` batch, the last of which is empty or fails.
fn apply_all(
    services: &Services,
    pace: &mut Pace,
    failure: &mut ViewFailure,
    after_each: &mut dyn FnMut(),
) -> bool {
    let mut has_applied = false;
    loop {
        let outcome = services.store.apply_views(pace.entries());
        after_each();
        match outcome {
            Ok(applied) => {
                failure.passed(services);
                if applied == 0 {
                    pace.ended();
                    return has_applied;
                }
                has_applied = true;
                pace.moved(applied);
            }
            Err(error) => {
                failure.met(services, &error);
                return has_applied;
            }
        }
    }
}

/// Views that cannot be written, and since when.
#[derive(Default)]
struct ViewFailure {
    since_ms: Option<u64>,
}

impl ViewFailure {
    /// Tells of the first failure in a row, and gives up on one that does not pass.
    fn met(&mut self, services: &Services, error: &ViewError) {
        services.counters.failed();
        let now_ms = services.clock.monotonic_ms();
        let since_ms = *self.since_ms.get_or_insert_with(|| {
            services.lifecycle.note_views(false);
            let error = error as &(dyn Error + 'static);
            tracing::error!(
                error,
                "the views cannot be written: sends are told to wait once memory is used up"
            );
            now_ms
        });
        // Room may come back, and another start would find no more of it.
        let may_pass = matches!(error, ViewError::Full { .. });
        if !may_pass && now_ms - since_ms >= VIEWS_PATIENCE.as_millis() as u64 {
            let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
            services.lifecycle.fail(&format_args!("{error} failed{cause}"));
        }
    }

    fn passed(&mut self, services: &Services) {
        if let Some(since_ms) = self.since_ms.take() {
            services.lifecycle.note_views(true);
            let failed_ms = services.clock.monotonic_ms() - since_ms;
            tracing::info!(failed_ms, "the views are written again");
        }
    }
}

/// Lowers the priority of the thread that calls it: on Linux a priority is a thread's own.
fn be_nice() {
    if let Err(error) = rustix::process::nice(UPKEEP_NICE) {
        tracing::debug!(%error, "upkeep runs at full priority");
    }
}

fn scrub(services: &Services, stop: &Stop) {
    be_nice();
    crate::scrub::run(services, &|| stop.is_set(), &stop.scrub);
}

#[cfg(test)]
mod tests {
    use gantry_model::{TopicConfig, TopicName};

    use super::*;
    use crate::services::fixture::{services_with, store_message};

    #[test]
    fn upkeep_hears_of_a_full_segment_while_there_is_more_for_the_views() {
        let dir = tempfile::tempdir().unwrap();
        let services = services_with(dir.path(), |options| options.segment_bytes = 64 << 10);
        let config = TopicConfig::new(TopicName::new("orders").unwrap(), 1);
        let topic = services.store.put_topic(config, services.clock.now()).unwrap().0;
        let store = &services.store;
        let first = store.newest_segment();
        let body = "x".repeat(1_000);
        for _ in 0..2 * APPLY_STEP {
            store_message(&services, &topic, &[("note", &body)], None);
        }
        let mut seen = Vec::new();
        let has_applied =
            apply_all(&services, &mut Pace::default(), &mut ViewFailure::default(), &mut || {
                seen.push((store.newest_segment() != first, store.status().applied));
            });
        assert!(has_applied);
        assert!(seen.len() >= 3, "{seen:?}");
        assert!(seen[0].0 && seen[0].1 < store.written(), "{seen:?}");
        assert_eq!(seen.last().unwrap().1, store.written());
    }
}
