//! Promises about a wall clock that jumps by an hour, while the monotonic one goes on evenly.

use std::sync::Arc;

use gantry_model::QueueId;
use gantry_record::RecordView;

use super::{faults_world::FaultWorld, world::park};
use crate::{Boundary, Flush, Now, Timer, change::PARK_TOPIC};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// The same moment after the wall clock was set.
fn jumped(now: Now, by_ms: i64) -> Now {
    Now { wall_ms: now.wall_ms.saturating_add_signed(by_ms), ..now }
}

fn later(now: Now, ms: u64) -> Now {
    Now { wall_ms: now.wall_ms + ms, monotonic_ms: now.monotonic_ms + ms }
}

#[test]
fn store_time_never_goes_back_whichever_way_the_clock_jumps_and_also_across_a_restart() {
    let mut world = FaultWorld::new(Flush::Sync);
    let topic = world.topic("orders");
    let mut positions = Vec::new();
    let by = HOUR_MS as i64;
    for jump in [0, -by, 2 * by, -2 * by, by] {
        world.now = jumped(later(world.now, MINUTE_MS), jump);
        positions.push(world.send(&topic, &format!("{jump}")).unwrap());
        world.settle();
    }
    let mut world = world.after_restart();
    world.now = jumped(world.now, -by);
    let topic = world.store.topic("orders").unwrap();
    positions.push(world.send(&topic, "after a restart, an hour back").unwrap());
    world.settle();
    let times = positions.iter().map(|position| {
        let record = world.store.read_record(*position).unwrap().unwrap();
        RecordView::parse(&record).unwrap().store_time_ms()
    });
    let times: Vec<u64> = times.collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(world.bodies("orders").len(), 6);
    let last = world.store.search_time(&topic, QueueId(0), times[5], Boundary::Upper).unwrap();
    assert_eq!(last.0, 5, "what was stored after the clock went back is found by time");
}

const MESSAGES: usize = 60;

/// A store that keeps messages for half an hour, and holds some.
fn filled() -> FaultWorld {
    let world = FaultWorld::with(Flush::Sync, |options| options.retention.age_ms = 30 * MINUTE_MS);
    send_large(&world, MESSAGES);
    world
}

fn send_large(world: &FaultWorld, count: usize) {
    let topic = world.topic("orders");
    for number in 0..count {
        world.send(&topic, &format!("{number} {}", "x".repeat(2000))).unwrap();
    }
    world.settle();
}

/// All messages, just stored, are kept for nearly half an hour, and not for two hours more.
fn assert_lets_go_in_time(mut world: FaultWorld, by_ms: i64) {
    for _ in 0..2 {
        // 28 minutes have passed by the second look.
        world.store.maintain(world.now).unwrap();
        assert_eq!(world.bodies("orders").len(), MESSAGES, "{by_ms}");
        world.now = later(world.now, 27 * MINUTE_MS);
    }
    // Behind the messages is what the segment that is written next begins with.
    send_large(&world, MESSAGES / 2);
    // A clock that was set back needs as long to come back to where it was.
    world.now = later(world.now, 2 * HOUR_MS);
    for _ in 0..3 {
        world.store.maintain(world.now).unwrap();
        world.settle();
    }
    let kept = world.bodies("orders").len();
    assert!(kept < MESSAGES, "{by_ms}: {kept}");
}

#[test]
fn clock_that_jumps_either_way_lets_go_of_nothing_early_and_of_everything_in_time() {
    for by_ms in [HOUR_MS as i64, -(HOUR_MS as i64)] {
        let mut world = filled();
        world.now = jumped(later(world.now, MINUTE_MS), by_ms);
        assert_lets_go_in_time(world, by_ms);
    }
}

#[test]
fn restart_over_a_clock_that_was_set_either_way_lets_go_of_nothing_early_and_of_everything_in_time()
{
    for by_ms in [HOUR_MS as i64, -(HOUR_MS as i64)] {
        let world = filled();
        // The monotonic clock begins anew with the process.
        let now = Now { monotonic_ms: 0, ..jumped(later(world.now, MINUTE_MS), by_ms) };
        let views = Arc::new(world.views.after_crash());
        let world = FaultWorld::on(world.disk.clone(), views, world.options.clone(), now);
        assert_lets_go_in_time(world, by_ms);
    }
}

#[test]
fn waiting_message_is_told_from_those_that_were_stored_before_a_time_by_its_record() {
    let mut world = FaultWorld::new(Flush::Sync);
    let parked = world.topic(PARK_TOPIC);
    let began_ms = world.now.wall_ms;
    let mut positions = Vec::new();
    for number in 0..9 {
        // Due in the opposite order.
        let due_ms = began_ms + HOUR_MS - number;
        positions.push(park(&world.store, &parked, "orders", due_ms, world.now));
        world.now = later(world.now, MINUTE_MS);
        world.settle();
    }
    for (number, position) in positions.iter().enumerate() {
        let stored_ms = began_ms + number as u64 * MINUTE_MS;
        assert_eq!(world.store.first_parked_since(stored_ms).unwrap(), *position);
        let next = positions.get(number + 1).copied().unwrap_or(world.store.written());
        assert_eq!(world.store.first_parked_since(stored_ms + 1).unwrap(), next);
    }
}

#[test]
fn timers_that_a_jump_holds_back_do_not_hide_those_that_are_due() {
    let world = FaultWorld::new(Flush::Sync);
    let parked = world.topic(PARK_TOPIC);
    let now_ms = world.now.wall_ms;
    for held in 0..20 {
        park(&world.store, &parked, "orders", now_ms + held, world.now);
    }
    world.settle();
    let boundary = world.store.written();
    for due in 0..3 {
        park(&world.store, &parked, "orders", now_ms + 100 + due, world.now);
    }
    world.store.sync().unwrap();
    for _ in 0..2 {
        let is_due = |timer: &Timer| timer.position >= boundary;
        let due = world.store.due_timers_where(now_ms + 200, 2, &is_due).unwrap();
        let due: Vec<u64> = due.iter().map(|timer| timer.due_ms - now_ms).collect();
        assert_eq!(due, [100, 101]);
        assert_eq!(world.store.due_timers(now_ms + 200, 100).unwrap().len(), 23);
        world.settle();
    }
}
