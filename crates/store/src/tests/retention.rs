//! Promises about forgetting: messages go, state stays.

use gantry_model::{QueueId, QueueOffset, RETENTION_ATTRIBUTE, TopicConfig, TopicName};

use super::world::{KINDS, World, commit, kept_entries};
use crate::ReadStatus;

const HOUR_MS: u64 = 3_600_000;

/// A world whose queue 0 has lost its first messages, with state that was made before the log's start.
pub(super) fn forgetful(kind: super::world::Kind) -> World {
    let mut world = World::with(kind, |options| options.retention.age_ms = HOUR_MS);
    let topic = world.topic("orders", 2);
    world.send(&topic, 1, "idle");
    world.park("orders", 5);
    world.store().commit_offsets(&[commit("g", &topic, 0, 7)], world.now()).unwrap();
    hide_message_of_short(&mut world);
    let body = "x".repeat(2000);
    for _ in 0..400 {
        world.send(&topic, 0, &body);
        world.now_ms += HOUR_MS / 100;
    }
    world.settle();
    world
}

/// Makes a topic of short retention and lets its only message expire.
fn hide_message_of_short(world: &mut World) {
    let mut config = TopicConfig::new(TopicName::new("short").unwrap(), 1);
    config.attributes.insert(RETENTION_ATTRIBUTE.into(), "1000".into());
    let short = world.store().put_topic(config, world.now()).unwrap().0;
    world.send(&short, 0, "expires");
    world.now_ms += 5000;
    assert_eq!(world.store().hide_expired(world.now()).unwrap(), 1);
}

pub(super) fn forget(world: &World) {
    for _ in 0..5 {
        world.store().maintain(world.now()).unwrap();
        world.settle();
    }
    assert!(world.store().log_start().0 > 0, "nothing was forgotten");
}

fn check(world: &World) {
    let store = world.store();
    let topic = store.topic("orders").unwrap();
    assert_eq!(store.offset("g", &topic, QueueId(0)), Some(QueueOffset(7)));
    let bounds = store.queue_bounds(&topic, QueueId(0)).unwrap();
    assert!(bounds.min.0 > 0 && bounds.min < bounds.max);
    let (read, _) = world.read(&topic, 0, 0);
    assert_eq!((read.status, read.next), (ReadStatus::TooSmall, bounds.min));
    assert_eq!(world.read_all(&topic, 0).len() as u64, bounds.max.0 - bounds.min.0);
    let idle = store.queue_bounds(&topic, QueueId(1)).unwrap();
    assert_eq!(
        (idle.min.0, idle.max.0),
        (1, 1),
        "its only message is gone, its next offset is not"
    );
    let hidden_before_ms = store.topic("short").unwrap().hidden_before_ms();
    assert!(hidden_before_ms > 0, "what has expired stays so");
    let timers = store.due_timers(10, 10).unwrap();
    assert_eq!(timers.len(), 1);
    assert!(store.read_record(timers[0].position).unwrap().is_some(), "it was carried");
}

#[test]
fn state_outlives_the_messages_among_which_it_was_made() {
    for kind in KINDS {
        let mut world = forgetful(kind);
        forget(&world);
        check(&world);
        let start = world.store().log_start();
        world.kill();
        assert_eq!(world.store().log_start(), start);
        check(&world);
        world.reopen();
        check(&world);
    }
}

#[test]
fn views_are_rebuilt_from_the_newest_image_and_the_log_that_is_there() {
    for kind in KINDS {
        let mut world = forgetful(kind);
        forget(&world);
        world.kill();
        let topic = world.store().topic("orders").unwrap();
        world.send(&topic, 0, "after the image");
        let kept = |world: &World| {
            world.settle();
            kept_entries(world.store())
        };
        let before = kept(&world);
        let report = world.lose_views();
        assert!(report.views_rebuilt);
        check(&world);
        assert_eq!(kept(&world), before, "{kind:?}");
    }
}

#[test]
fn carried_timer_fires_once_and_under_its_new_position_only() {
    for kind in KINDS {
        let world = forgetful(kind);
        let old = world.store().due_timers(10, 10).unwrap()[0];
        forget(&world);
        let topic = world.store().topic("orders").unwrap();
        assert!(world.fire(&topic, old.due_ms, old.position).is_err());
        let new = world.store().due_timers(10, 10).unwrap()[0];
        world.fire(&topic, new.due_ms, new.position).unwrap();
        assert!(world.store().due_timers(10, 10).unwrap().is_empty());
    }
}
