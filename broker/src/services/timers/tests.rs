//! Promises of due times, and about a clock that was set back while the broker was stopped.

use std::sync::{Arc, atomic::AtomicI64};

use gantry_model::{TopicConfig, TopicName};
use gantry_store::change::{PARK_TOPIC, TIMER_OUT_MS};

use super::*;
use crate::services::{
    Services,
    clock::Clock,
    fixture::{services_on, services_with, store_message},
};

const HOUR_MS: i64 = 3_600_000;

#[test]
fn only_what_was_parked_before_the_clock_was_set_back_goes_by_the_time_of_the_log() {
    static SKEW_MS: AtomicI64 = AtomicI64::new(-HOUR_MS);
    let dir = tempfile::tempdir().unwrap();
    let services = services_with(dir.path(), |_| {});
    let store = Arc::clone(&services.store);
    let config = TopicConfig::new(TopicName::new(PARK_TOPIC).unwrap(), 1);
    let topic = store.put_topic(config, services.clock.now()).unwrap().0;
    let park = |services: &Services| {
        let due_ms = services.clock.now().wall_ms + 1;
        let due = [(TIMER_OUT_MS, &*due_ms.to_string())];
        store_message(services, &topic, &due, Some(due_ms))
    };
    let before = park(&services);
    let parked_ms = store.newest_time_ms();
    // The newest record is a later one, as it is wherever anything goes on.
    while store.newest_time_ms() == parked_ms {
        store_message(&services, &topic, &[], None);
    }
    let newest_ms = store.newest_time_ms();

    let services = services_on(Arc::clone(&store), Clock::skewed(&SKEW_MS));
    services.timers.resume_clock();
    let behind = park(&services);
    assert_eq!(store.newest_time_ms(), newest_ms, "it bears the time of the log");
    // And once more, with both in the log.
    let again = services_on(store, Clock::skewed(&SKEW_MS));
    again.timers.resume_clock();
    for services in [services, again] {
        let now = services.clock.now();
        let walls = services.timers.signal.jumps.walls(now);
        assert!(walls.at_ms(before) >= newest_ms, "it waits for no hour");
        assert_eq!(walls.at_ms(behind), now.wall_ms, "it does not go early");
    }
}

const NOW: Now = Now { wall_ms: 1_700_000_000_000, monotonic_ms: 0 };

fn due(text: &str) -> Result<Option<Due>, DueError> {
    due_of(&Seen::of(text), &BrokerSettings::default(), NOW)
}

#[test]
fn level_goes_before_timer_and_is_capped_at_the_last() {
    let both = due("TIMER_DELAY_SEC\u{1}7\u{2}DELAY\u{1}3\u{2}").unwrap().unwrap();
    assert_eq!(both, Due::Level { level: 3, due_ms: NOW.wall_ms + 10_000 });
    let capped = due("DELAY\u{1}99\u{2}").unwrap().unwrap();
    assert_eq!(capped, Due::Level { level: 18, due_ms: NOW.wall_ms + 7_200_000 });
    for none in ["DELAY\u{1}0\u{2}", "DELAY\u{1}-1\u{2}", "DELAY\u{1}x\u{2}"] {
        assert_eq!(due(none), Ok(None));
    }
}

#[test]
fn timer_is_due_to_the_millisecond_and_a_past_one_at_once() {
    let at = |wall_ms| Ok(Some(Due::Time { due_ms: wall_ms }));
    assert_eq!(due("TIMER_DELAY_MS\u{1}1\u{2}"), at(NOW.wall_ms + 1));
    assert_eq!(due("TIMER_DELAY_SEC\u{1}2\u{2}"), at(NOW.wall_ms + 2_000));
    assert_eq!(due("TIMER_DELIVER_MS\u{1}1700000000005\u{2}"), at(NOW.wall_ms + 5));
    assert_eq!(due("TIMER_DELIVER_MS\u{1}5\u{2}"), Ok(None));
    assert_eq!(due("TIMER_DELAY_MS\u{1}-5\u{2}"), Ok(None));
}

#[test]
fn timer_too_far_or_not_a_number_is_refused() {
    let three_days = "TIMER_DELAY_SEC\u{1}259200\u{2}";
    assert!(due(three_days).is_ok());
    let beyond = "TIMER_DELAY_SEC\u{1}259201\u{2}";
    assert!(matches!(due(beyond), Err(DueError::TooFar { .. })));
    for bad in ["x", "", "9223372036854775807", "1e3"] {
        let text = format!("TIMER_DELAY_SEC\u{1}{bad}\u{2}");
        let expected = if bad.is_empty() { Ok(None) } else { due(&text) };
        assert_eq!(due(&text), expected);
        assert!(bad.is_empty() || matches!(due(&text), Err(DueError::Number { .. })));
    }
}
