//! What upkeep does, each second and each ten: offsets, expiry, room, retention, and the key index when it is due.
//! Invariant: a wake-up for the key index does nothing else, however often it comes, and nothing at all while that has
//! failed; a log that has stopped is left as it is.
//! Leaves to `upkeep` the threads and what wakes this one.

use std::{error::Error, sync::atomic::Ordering, time::Duration};

use gantry_model::PhysicalOffset;
use gantry_store::Now;

use super::{Stop, TICK, be_nice, failed};
use crate::services::Services;

/// Time between two runs of the slow upkeep.
const SLOW_MS: u64 = 10_000;

/// The thread.
pub(super) fn tend(services: &Services, stop: &Stop) {
    be_nice();
    if let Err(error) = services.store.measure_pending() {
        failed(services, "measure of what waits", &error);
    }
    let mut tending = Tending::new(services);
    while !stop.is_set() {
        stop.upkeep.wait(tending.rest(services.clock.now()));
        let is_wanted = stop.is_round_wanted.swap(false, Ordering::AcqRel);
        tending.wake(services, services.clock.now(), is_wanted);
    }
}

/// What upkeep knows from one wake-up to the next.
struct Tending {
    /// When the last round was.
    round_ms: u64,
    slow_ms: u64,
    newest_segment: Option<PhysicalOffset>,
    room: Room,
    key_index: Attempts,
    /// Whether the log has to be read further for keys.
    is_index_behind: bool,
    maintenance: Attempts,
}

impl Tending {
    /// Has just done all.
    fn new(services: &Services) -> Self {
        let now_ms = services.clock.monotonic_ms();
        let newest_segment = services.store.newest_segment();
        Self {
            round_ms: now_ms,
            slow_ms: now_ms,
            newest_segment,
            room: Room::default(),
            key_index: Attempts::default(),
            is_index_behind: false,
            maintenance: Attempts::default(),
        }
    }

    /// Time in which there is nothing to do: none while the index is behind, which catches up in steps, so that rounds
    /// come at their time.
    fn rest(&self, now: Now) -> Duration {
        if self.is_index_behind { Duration::ZERO } else { self.until_round(now) }
    }

    fn until_round(&self, now: Now) -> Duration {
        TICK.saturating_sub(Duration::from_millis(now.monotonic_ms.saturating_sub(self.round_ms)))
    }

    /// Indexes keys, and before that does the whole round if it is time for it or it `is_wanted` before: senders may be
    /// about to need the room of what is to go, and the keys of that need no index.
    fn wake(&mut self, services: &Services, now: Now, is_wanted: bool) {
        let is_round = is_wanted || self.until_round(now).is_zero();
        if is_round {
            self.round_ms = now.monotonic_ms;
            self.round(services, now);
        }
        // A disk that refuses is tried again with the rest of the upkeep: until then the index stays due.
        if is_round || !self.key_index.have_failed() {
            self.index_keys(services);
        }
    }

    fn round(&mut self, services: &Services, now: Now) {
        // Whoever met the failure may have had nobody to tell.
        if let Some(cause) = services.store.stopped() {
            services.lifecycle.fail(&cause);
        }
        // A log that has stopped was reported once, and takes no offsets either.
        if !services.lifecycle.has_failed()
            && let Err(error) = services.offsets.write_staged(now)
        {
            services.lifecycle.note_append_error(&error);
            failed(services, "write of staged offsets", &error);
        }
        if !services.lifecycle.has_failed()
            && let Err(error) = services.store.hide_expired(now)
        {
            failed(services, "hiding of expired messages", &error);
        }
        mark_if_idle(services);
        let is_short = self.room.look(services);
        let is_slow = now.monotonic_ms - self.slow_ms >= SLOW_MS;
        if is_slow {
            self.slow_ms = now.monotonic_ms;
            services.members.expire(now.monotonic_ms);
            services.locks.expire(now.monotonic_ms);
            services.resets.forget_deleted();
            services.stats.sample(now);
            services.figures.sample(&services.store, now);
        }
        // A full segment asks at once: how far the log passes its size is otherwise a matter of its rate. So do messages
        // that are refused, unless the last try failed.
        let rolled = self.newest_segment != services.store.newest_segment();
        let is_wanted = rolled || (is_short && self.room.may_maintain);
        if is_wanted || is_slow {
            self.newest_segment = services.store.newest_segment();
            self.room.may_maintain = self.maintain(services, now);
        }
    }

    fn index_keys(&mut self, services: &Services) {
        let is_wanted = self.is_index_behind || services.store.is_key_index_due();
        self.is_index_behind = false;
        if is_wanted && !services.lifecycle.has_failed() {
            let outcome = services.store.index_keys();
            self.is_index_behind = matches!(outcome, Ok(true));
            self.key_index.tell(services, "index of keys", &outcome);
        }
    }

    /// Whether it succeeded.
    fn maintain(&mut self, services: &Services, now: Now) -> bool {
        // What a stopped log holds is for recovery to find out: nothing of it is given up.
        if services.lifecycle.has_failed() {
            return false;
        }
        let outcome = services.store.maintain(now);
        if let Ok(done) = &outcome {
            tracing::debug!(?done, "store maintained");
            self.is_index_behind |= done.is_index_behind;
        }
        self.maintenance.tell(services, "upkeep of the store", &outcome);
        outcome.is_ok()
    }
}

/// Work that is tried again and again, and why it failed the last time.
#[derive(Default)]
struct Attempts {
    failure: Option<String>,
}

/// What is worth a line.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Fails,
    Works,
}

impl Attempts {
    fn have_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Counts a failure, and says in the log when the work fails in a new way and when it works again.
    fn tell<T, E: Error + 'static>(
        &mut self,
        services: &Services,
        what: &str,
        outcome: &Result<T, E>,
    ) {
        let error = outcome.as_ref().err().map(|error| error as &(dyn Error + 'static));
        match (self.note(error), error) {
            (Some(News::Fails), Some(error)) => failed(services, what, error),
            (Some(News::Works), _) => tracing::info!("{what} works again"),
            (_, Some(_)) => services.counters.failed(),
            _ => {}
        }
    }

    fn note(&mut self, error: Option<&(dyn Error + 'static)>) -> Option<News> {
        // The first cause alone: what it stopped may be another file each time.
        let cause = std::iter::successors(error, |&error| error.source()).last();
        let failure = cause.map(ToString::to_string);
        if failure == self.failure {
            return None;
        }
        self.failure = failure;
        Some(if self.have_failed() { News::Fails } else { News::Works })
    }
}

fn mark_if_idle(services: &Services) {
    if services.lifecycle.has_failed() {
        return;
    }
    if let Err(error) = services.store.mark_if_idle() {
        failed(services, "mark at the end of the log", &error);
    }
}

/// What upkeep knows of the log's room.
#[derive(Default)]
struct Room {
    was_short: bool,
    may_maintain: bool,
}

impl Room {
    /// Looks for room, says in the log what has changed, and returns whether messages are refused for want of it.
    fn look(&mut self, services: &Services) -> bool {
        if services.lifecycle.has_failed() {
            return false;
        }
        if let Err(error) = services.store.find_room() {
            failed(services, "look for room", &error);
        }
        let shortage = services.store.shortage();
        match (self.was_short, shortage) {
            (false, Some(shortage)) => {
                tracing::error!(%shortage, "messages are refused until there is room");
            }
            (true, None) => tracing::info!("there is room: messages are taken again"),
            _ => {}
        }
        self.was_short = shortage.is_some();
        self.was_short
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_model::{GroupName, QueueId, QueueOffset, TopicConfig, TopicName};
    use gantry_store::{OffsetCommit, Topic};

    use super::*;
    use crate::services::fixture::{services_with, store_message};

    /// Services on a store with room for four keys on their way to the index.
    fn services(dir: &std::path::Path) -> (Services, Arc<Topic>) {
        let services = services_with(dir, |options| options.key_bytes = 512);
        let config = TopicConfig::new(TopicName::new("orders").unwrap(), 1);
        let topic = services.store.put_topic(config, services.clock.now()).unwrap().0;
        (services, topic)
    }

    /// Stores a message with three keys, so that the index is due, and stages an offset.
    fn make_busy(services: &Services, topic: &Arc<Topic>) {
        store_message(services, topic, &[("KEYS", "a b c")], None);
        let group = GroupName::new("readers").unwrap();
        let (queue, offset) = (QueueId(0), QueueOffset(1));
        services.store.stage_offset(OffsetCommit { group, topic: topic.id, queue, offset });
    }

    /// Stores messages until the index is due.
    fn make_due(services: &Services, topic: &Arc<Topic>) {
        while !services.store.is_key_index_due() {
            make_busy(services, topic);
        }
    }

    fn failures(services: &Services) -> u64 {
        services.counters.failures.load(Ordering::Relaxed)
    }

    fn later(from_ms: u64, ms: u64) -> Now {
        Now { wall_ms: 1_700_000_000_000 + ms, monotonic_ms: from_ms + ms }
    }

    #[test]
    fn wake_up_for_the_key_index_does_nothing_else_until_the_second_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let (services, topic) = services(dir.path());
        let mut tending = Tending::new(&services);
        let begun_ms = tending.round_ms;
        for ms in [0, 10, 500, 999] {
            make_busy(&services, &topic);
            assert!(services.store.is_key_index_due());
            tending.wake(&services, later(begun_ms, ms), false);
            assert!(!services.store.is_key_index_due(), "{ms}");
            assert_eq!(services.store.staged(), 1, "{ms}: the rest was not looked at");
            assert_eq!(tending.rest(later(begun_ms, ms)), Duration::from_millis(1000 - ms));
        }
        tending.wake(&services, later(begun_ms, 1_000), false);
        assert_eq!(services.store.staged(), 0);
        assert_eq!(tending.rest(later(begun_ms, 1_000)), TICK);
    }

    #[test]
    fn round_that_is_wanted_before_its_time_is_done_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (services, topic) = services(dir.path());
        let mut tending = Tending::new(&services);
        make_busy(&services, &topic);
        tending.wake(&services, later(tending.round_ms, 1), true);
        assert_eq!(services.store.staged(), 0);
        assert!(!services.store.is_key_index_due());
    }

    #[test]
    fn key_index_that_fails_is_tried_again_with_the_next_round_and_not_at_each_wake_up() {
        let dir = tempfile::tempdir().unwrap();
        let services = services_with(dir.path(), |options| options.key_bytes = 4096);
        let config = TopicConfig::new(TopicName::new("orders").unwrap(), 1);
        let topic = services.store.put_topic(config, services.clock.now()).unwrap().0;
        let mut tending = Tending::new(&services);
        let begun_ms = tending.round_ms;
        let folder = dir.path().join("keys");
        std::fs::remove_dir_all(&folder).unwrap();
        // Until there are enough for a file.
        for _ in 0..100 {
            if !tending.key_index.have_failed() {
                make_due(&services, &topic);
                tending.wake(&services, later(begun_ms, 0), false);
            }
        }
        assert_eq!(failures(&services), 1);
        make_due(&services, &topic);
        for ms in [10, 500, 999] {
            tending.wake(&services, later(begun_ms, ms), false);
            assert_eq!(failures(&services), 1, "{ms}");
        }
        tending.wake(&services, later(begun_ms, 1_000), false);
        assert_eq!(failures(&services), 2);
        std::fs::create_dir(&folder).unwrap();
        make_due(&services, &topic);
        tending.wake(&services, later(begun_ms, 2_000), false);
        assert!(!tending.key_index.have_failed());
        make_due(&services, &topic);
        tending.wake(&services, later(begun_ms, 2_001), false);
        assert!(!services.store.is_key_index_due(), "at each wake-up again");
    }

    #[test]
    fn index_that_is_far_behind_catches_up_in_steps_between_which_rounds_come_at_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let (services, topic) = services(dir.path());
        let note = "x".repeat(4_000);
        // The log is read in steps of 1 MiB.
        for _ in 0..1_000 {
            store_message(&services, &topic, &[("KEYS", "a b c"), ("note", &note)], None);
        }
        let mut tending = Tending::new(&services);
        let begun_ms = tending.round_ms;
        tending.wake(&services, later(begun_ms, SLOW_MS), false);
        assert_eq!(tending.rest(later(begun_ms, SLOW_MS)), Duration::ZERO);
        make_busy(&services, &topic);
        tending.wake(&services, later(begun_ms, SLOW_MS + 999), false);
        assert_eq!(services.store.staged(), 1, "the rest was not looked at");
        assert_eq!(tending.rest(later(begun_ms, SLOW_MS + 999)), Duration::ZERO);
        tending.wake(&services, later(begun_ms, SLOW_MS + 1_000), false);
        assert_eq!(services.store.staged(), 0);
        for _ in 0..10 {
            tending.wake(&services, later(begun_ms, SLOW_MS + 1_000), false);
        }
        assert_eq!(tending.rest(later(begun_ms, SLOW_MS + 1_000)), TICK);
        assert!(!services.store.is_key_index_due());
        assert!(services.store.status().key_read_bytes > 1_000 * 4_000);
    }

    #[test]
    fn oldest_go_before_keys_are_indexed_so_that_those_of_what_is_gone_need_no_index() {
        let dir = tempfile::tempdir().unwrap();
        let services = services_with(dir.path(), |options| {
            options.key_bytes = 512;
            options.segment_bytes = 64 << 10;
            options.retention.bytes = Some(128 << 10);
        });
        let config = TopicConfig::new(TopicName::new("orders").unwrap(), 1);
        let topic = services.store.put_topic(config, services.clock.now()).unwrap().0;
        let mut tending = Tending::new(&services);
        let store = |entries: &[(&str, &str)]| {
            store_message(&services, &topic, entries, None);
        };
        (0..20).for_each(|_| store(&[("KEYS", "a b c")]));
        let note = "x".repeat(10_000);
        (0..40).for_each(|_| store(&[("note", &note)]));
        make_due(&services, &topic);
        while services.store.apply_views(1_000).unwrap() > 0 {}
        // The first twenty have more keys than the index holds without a file.
        std::fs::remove_dir_all(dir.path().join("keys")).unwrap();
        tending.wake(&services, later(tending.round_ms, 1), true);
        assert!(services.store.log_start().0 > 0);
        assert!(!services.store.is_key_index_due());
        assert_eq!(failures(&services), 0);
    }

    #[test]
    fn each_new_failure_is_told_once_and_its_end_too() {
        let mut attempts = Attempts::default();
        let failed = |what: &str| std::io::Error::other(what.to_owned());
        let mut note = |error: Option<&str>| {
            let error = error.map(failed);
            attempts.note(error.as_ref().map(|error| error as &(dyn Error + 'static)))
        };
        assert_eq!(note(None), None);
        assert_eq!(note(Some("no such folder")), Some(News::Fails));
        assert_eq!(note(Some("no such folder")), None);
        assert_eq!(note(Some("no space")), Some(News::Fails));
        assert_eq!(note(Some("no space")), None);
        assert_eq!(note(None), Some(News::Works));
        assert_eq!(note(None), None);
    }
}
