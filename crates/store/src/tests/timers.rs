//! Promises about parked messages.

use std::sync::atomic::{AtomicU32, Ordering};

use super::world::{KINDS, Kind, World, fire};
use crate::{AppendError, Timer};

fn due(world: &World, at: u64) -> Vec<u64> {
    let timers = world.store().due_timers(at, 100).unwrap();
    timers.iter().map(|timer| timer.due_ms).collect()
}

#[test]
fn timers_come_oldest_first_from_overlay_and_views() {
    for kind in KINDS {
        let world = World::new(kind);
        world.topic("orders", 1);
        world.park("orders", 50);
        world.park("orders", 30);
        world.settle();
        world.park("orders", 40);
        world.park("orders", 60);
        assert_eq!(world.store().next_due_ms(), Some(30), "{kind:?}");
        assert_eq!(due(&world, 29), [0_u64; 0]);
        assert_eq!(due(&world, 55), [30, 40, 50]);
        assert_eq!(world.store().due_timers(100, 2).unwrap().len(), 2);
        world.settle();
        assert_eq!(due(&world, 55), [30, 40, 50], "the floor went down again");
        world.park("orders", 10);
        world.settle();
        assert_eq!(due(&world, 55), [10, 30, 40, 50], "{kind:?}");
    }
}

#[test]
fn timer_ends_once_before_and_after_it_reached_the_views_and_after_a_kill() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let topic = world.topic("orders", 1);
        let positions = [world.park("orders", 1), world.park("orders", 2), world.park("orders", 3)];
        world.fire(&topic, 1, positions[0]).unwrap();
        world.settle();
        world.fire(&topic, 2, positions[1]).unwrap();
        let check = |world: &World| {
            assert_eq!(due(world, 10), [3], "{kind:?}");
            let topic = world.store().topic("orders").unwrap();
            for (due_ms, position) in [(1, positions[0]), (2, positions[1])] {
                let outcome = world.fire(&topic, due_ms, position);
                assert!(matches!(outcome, Err(AppendError::AlreadyEnded { .. })), "{kind:?}");
            }
            assert_eq!(world.read_all(&topic, 0).len(), 2);
        };
        check(&world);
        world.settle();
        check(&world);
        world.kill();
        check(&world);
        world.lose_views();
        check(&world);
    }
}

#[test]
fn of_many_threads_that_end_a_timer_one_succeeds() {
    for kind in KINDS {
        let world = World::new(kind);
        let topic = world.topic("orders", 1);
        for round in 0..20 {
            let position = world.park("orders", round);
            if round % 2 == 0 {
                world.settle();
            }
            let won = AtomicU32::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let outcome = fire(world.store(), &topic, round, position, world.now());
                        won.fetch_add(u32::from(outcome.is_ok()), Ordering::Relaxed);
                    });
                }
                scope.spawn(|| world.settle());
            });
            assert_eq!(won.load(Ordering::Relaxed), 1, "{kind:?} {round}");
        }
        assert_eq!(world.read_all(&topic, 0).len(), 20);
    }
}

#[test]
fn refused_append_leaves_the_timer_pending() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    let position = world.park("orders", 5);
    let gone = world.topic("gone", 1);
    world.store().delete_topic("gone", world.now()).unwrap();
    assert!(matches!(world.fire(&gone, 5, position), Err(AppendError::TopicGone { .. })));
    assert_eq!(world.store().due_timers(5, 9).unwrap(), [Timer { due_ms: 5, position }]);
    world.fire(&topic, 5, position).unwrap();
}

#[test]
fn timers_of_a_deleted_topic_end_with_it_and_never_reach_its_successor() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.topic("orders", 1);
        world.park("orders", 5);
        world.settle();
        world.park("orders", 6);
        world.topic("others", 1);
        world.park("others", 7);
        world.store().delete_topic("orders", world.now()).unwrap();
        assert_eq!(due(&world, 10), [7], "{kind:?}");
        world.topic("orders", 1);
        assert_eq!(due(&world, 10), [7], "{kind:?}");
        let before = world.dump();
        assert_eq!(before.iter().filter(|line| line.starts_with("timer")).count(), 1);
        world.kill();
        assert_eq!(due(&world, 10), [7], "{kind:?}");
        world.lose_views();
        assert_eq!(due(&world, 10), [7], "{kind:?}");
        assert_eq!(world.dump(), before, "{kind:?}");
    }
}

#[test]
fn property_that_a_client_copied_ends_nothing() {
    let mut world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    let position = world.park("orders", 5);
    let value = crate::Ends::Timer { due_ms: 5, position }.property_value();
    let mut raw = Vec::new();
    gantry_record::properties::put(&mut raw, gantry_model::properties::ENDS, &value).unwrap();
    let mut batch = crate::Batch::new();
    let draft = super::world::draft("orders", 0, "forged", &raw);
    batch.push(&topic, &draft, crate::Index::default()).unwrap();
    world.store().append(&mut batch, world.now()).unwrap();
    assert_eq!(due(&world, 5), [5]);
    world.lose_views();
    assert_eq!(due(&world, 5), [5]);
}
