//! Promises about retention per topic: what has expired is not seen, and does not come back.

use std::sync::Arc;

use gantry_model::{QueueId, QueueOffset, RETENTION_ATTRIBUTE, TopicConfig, TopicName};

use super::world::{KINDS, Kind, World};
use crate::{
    Boundary, Now, ReadStatus, Topic,
    views::{View, layout},
};

const MINUTE_MS: u64 = 60_000;

fn declare(world: &World, retention_ms: Option<u64>) -> Arc<Topic> {
    let mut config = TopicConfig::new(TopicName::new("orders").unwrap(), 2);
    if let Some(retention_ms) = retention_ms {
        config.attributes.insert(RETENTION_ATTRIBUTE.into(), retention_ms.to_string());
    }
    world.store().put_topic(config, world.now()).unwrap().0
}

/// Ten messages, one a minute, the last of them just now; half of them in the views.
fn ten_minutes(kind: Kind, retention_ms: Option<u64>) -> (World, Arc<Topic>) {
    let mut world = World::new(kind);
    let topic = declare(&world, retention_ms);
    for minute in 0..10 {
        world.now_ms += MINUTE_MS;
        world.send(&topic, 0, &format!("m{minute}"));
        if minute == 4 {
            world.settle();
        }
    }
    (world, topic)
}

fn hide(world: &World) -> usize {
    world.store().hide_expired(world.now()).unwrap()
}

fn min(world: &World, topic: &Topic) -> u64 {
    world.store().queue_bounds(topic, QueueId(0)).unwrap().min.0
}

#[test]
fn reader_of_expired_messages_is_told_the_new_minimum() {
    for kind in KINDS {
        let (world, topic) = ten_minutes(kind, Some(3 * MINUTE_MS));
        assert_eq!(min(&world, &topic), 0);
        assert_eq!(hide(&world), 1);
        // Ages are 9, 8 … 0 minutes; what is exactly 3 minutes old is kept.
        let (read, _) = world.read(&topic, 0, 0);
        assert_eq!(
            (read.status, read.next.0, read.min.0),
            (ReadStatus::TooSmall, 6, 6),
            "{kind:?}"
        );
        assert_eq!(world.read_all(&topic, 0), ["m6", "m7", "m8", "m9"]);
        assert_eq!(hide(&world), 0, "nothing new, so no record");
    }
}

#[test]
fn topic_without_retention_and_idle_queue_hide_nothing() {
    let (world, topic) = ten_minutes(Kind::Memory, None);
    let written = world.store().written();
    assert_eq!((hide(&world), min(&world, &topic)), (0, 0));
    assert_eq!(world.store().written(), written);
}

#[test]
fn queue_all_of_whose_messages_expired_keeps_its_next_offset() {
    for kind in KINDS {
        let (mut world, topic) = ten_minutes(kind, Some(MINUTE_MS));
        world.now_ms += 5 * MINUTE_MS;
        hide(&world);
        let bounds = world.store().queue_bounds(&topic, QueueId(0)).unwrap();
        assert_eq!((bounds.min.0, bounds.max.0), (10, 10));
        assert_eq!(world.read(&topic, 0, 10).0.status, ReadStatus::AtEnd);
        world.send(&topic, 0, "new");
        assert_eq!(world.read_all(&topic, 0), ["new"], "{kind:?}");
    }
}

#[test]
fn expired_messages_are_found_by_no_key_time_or_position() {
    for kind in KINDS {
        let (world, topic) = ten_minutes(kind, Some(3 * MINUTE_MS));
        let store = world.store();
        let first = store.entry(&topic, QueueId(0), QueueOffset(0)).unwrap().unwrap().position;
        let found = |key| store.query_keys("orders", key, 0, u64::MAX, 100).unwrap().len();
        assert_eq!((found("m0"), found("m6"), found("order-1")), (1, 1, 10));
        assert!(store.read_at(first).unwrap().is_some());
        hide(&world);
        assert_eq!((found("m0"), found("m6"), found("order-1")), (0, 1, 4), "{kind:?}");
        assert!(store.read_at(first).unwrap().is_none());
        assert!(store.entry(&topic, QueueId(0), QueueOffset(5)).unwrap().is_none());
        let at = store.search_time(&topic, QueueId(0), 0, Boundary::Lower).unwrap();
        assert_eq!(at, QueueOffset(6));
    }
}

#[test]
fn minimum_survives_every_restart_and_a_rebuild() {
    for kind in KINDS {
        let (mut world, topic) = ten_minutes(kind, Some(3 * MINUTE_MS));
        // Idle time, of which the last message's store time tells nothing.
        world.now_ms += 2 * MINUTE_MS;
        hide(&world);
        assert_eq!(min(&world, &topic), 8);
        for step in [World::kill, World::reopen, World::lose_views] {
            step(&mut world);
            let topic = world.store().topic("orders").unwrap();
            assert_eq!(min(&world, &topic), 8, "{kind:?}");
        }
    }
}

#[test]
fn longer_or_removed_retention_brings_nothing_back() {
    for kind in KINDS {
        for longer in [Some(60 * MINUTE_MS), None] {
            let (mut world, old) = ten_minutes(kind, Some(3 * MINUTE_MS));
            hide(&world);
            let topic = declare(&world, longer);
            world.now_ms += MINUTE_MS;
            assert_eq!(hide(&world), 0);
            assert_eq!((min(&world, &topic), min(&world, &old)), (6, 6));
            world.reopen();
            assert_eq!(min(&world, &topic), 6, "{kind:?}");
        }
    }
}

#[test]
fn shorter_retention_hides_at_the_next_look() {
    let (world, _) = ten_minutes(Kind::Memory, Some(60 * MINUTE_MS));
    assert_eq!(hide(&world), 0);
    let topic = declare(&world, Some(2 * MINUTE_MS));
    assert_eq!((hide(&world), min(&world, &topic)), (1, 7));
}

#[test]
fn clock_that_jumps_forward_hides_nothing_early() {
    let (world, topic) = ten_minutes(Kind::Memory, Some(30 * MINUTE_MS));
    hide(&world);
    let real = world.now();
    let jumped = Now { wall_ms: real.wall_ms + 600 * MINUTE_MS, ..real };
    assert_eq!(world.store().hide_expired(jumped).unwrap(), 0);
    assert_eq!(min(&world, &topic), 0);
    let later = Now { monotonic_ms: real.monotonic_ms + 25 * MINUTE_MS, ..jumped };
    assert_eq!(world.store().hide_expired(later).unwrap(), 1, "that time has passed indeed");
    assert_eq!(min(&world, &topic), 4);
}

#[test]
fn topic_made_again_hides_nothing_of_its_own() {
    for kind in KINDS {
        let (mut world, old) = ten_minutes(kind, Some(3 * MINUTE_MS));
        hide(&world);
        world.settle();
        world.store().delete_topic("orders", world.now()).unwrap().unwrap();
        let topic = declare(&world, None);
        world.send(&topic, 0, "new");
        assert_eq!(topic.hidden_before_ms(), 0);
        world.reopen();
        assert_eq!(world.read_all(&topic, 0), ["new"], "{kind:?}");
        let key = layout::hidden_key(old.id);
        assert!(world.store().views.get(View::Meta, &key).unwrap().is_none(), "{kind:?}");
    }
}

#[test]
fn waiting_message_does_not_expire_and_its_age_counts_from_delivery() {
    for kind in KINDS {
        let (mut world, topic) = ten_minutes(kind, Some(3 * MINUTE_MS));
        let due_ms = world.now_ms + 10 * MINUTE_MS;
        let position = world.park("orders", due_ms);
        world.now_ms = due_ms;
        hide(&world);
        assert_eq!(world.store().due_timers(due_ms, 10).unwrap().len(), 1);
        world.fire(&topic, due_ms, position).unwrap();
        world.now_ms += 2 * MINUTE_MS;
        hide(&world);
        assert_eq!(world.read_all(&topic, 0), ["fired"], "{kind:?}");
    }
}

#[test]
fn time_in_which_the_store_was_closed_makes_no_later_message_live_longer() {
    for kind in KINDS {
        let (mut world, _) = ten_minutes(kind, Some(3 * MINUTE_MS));
        world.store().close(world.now()).unwrap();
        world.now_ms += 600 * MINUTE_MS;
        world.kill();
        let topic = world.store().topic("orders").unwrap();
        world.send(&topic, 0, "new");
        world.now_ms += 2 * MINUTE_MS;
        hide(&world);
        assert!(world.read_all(&topic, 0).contains(&"new".to_owned()));
        world.now_ms += MINUTE_MS + 1;
        hide(&world);
        assert_eq!(min(&world, &topic), 11, "{kind:?}: the old ones are older than the new one");
    }
}
