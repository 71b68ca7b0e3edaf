//! Promises about topics and groups.

use gantry_model::{GroupConfig, GroupName, QueueId};

use super::world::{KINDS, Kind, World, commit};
use crate::AppendError;

#[test]
fn equal_definition_makes_no_record_and_no_version() {
    let world = World::new(Kind::Memory);
    let first = world.topic("orders", 4);
    let (version, written) = (world.store().topics_version(), world.store().written());
    let again = world.topic("orders", 4);
    assert_eq!(
        (first.id, version, written),
        (again.id, world.store().topics_version(), world.store().written())
    );
    let changed = world.topic("orders", 8);
    assert_eq!((changed.id, changed.since), (first.id, first.since));
    assert_eq!(world.store().topics_version().counter, version.counter + 1);
}

#[test]
fn definitions_and_versions_survive_reopening_and_rebuilding() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.topic("b", 4);
        world.topic("a", 2);
        world.store().delete_topic("b", world.now()).unwrap().unwrap();
        let group = GroupConfig::new(GroupName::new("g").unwrap());
        world.store().put_group(group.clone(), world.now()).unwrap();
        let before = (world.store().topics_version(), world.store().groups_version());
        for step in [World::reopen, World::kill, World::lose_views] {
            step(&mut world);
            let names: Vec<_> =
                world.store().topics().iter().map(|topic| topic.name().to_string()).collect();
            assert_eq!(names, ["a"], "{kind:?}");
            assert_eq!(*world.store().group("g").unwrap(), group);
            let after = (world.store().topics_version(), world.store().groups_version());
            assert_eq!(before, after, "{kind:?}");
        }
    }
}

#[test]
fn topic_made_again_shows_nothing_of_the_old_one() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let old = world.topic("orders", 1);
        world.send(&old, 0, "old");
        world.settle();
        world.send(&old, 0, "old too");
        let commit = commit("g", &old, 0, 2);
        world.store().commit_offsets(&[commit], world.now()).unwrap();
        world.store().delete_topic("orders", world.now()).unwrap().unwrap();
        let new = world.topic("orders", 1);
        assert_ne!(old.id, new.id);
        let check = |world: &World| {
            let new = world.store().topic("orders").unwrap();
            assert_eq!(world.read_all(&new, 0), ["new"], "{kind:?}");
            assert_eq!(world.store().offset("g", &new, QueueId(0)), None);
            assert!(world.store().offsets_of_group("g").is_empty());
        };
        world.send(&new, 0, "new");
        check(&world);
        world.settle();
        check(&world);
        let before = world.dump();
        world.kill();
        check(&world);
        world.lose_views();
        check(&world);
        assert_eq!(world.dump(), before, "{kind:?}");
    }
}

#[test]
fn append_to_a_deleted_topic_is_refused_and_leaves_no_trace() {
    let world = World::new(Kind::Memory);
    let old = world.topic("orders", 1);
    world.store().delete_topic("orders", world.now()).unwrap().unwrap();
    let written = world.store().written();
    let mut batch = crate::Batch::new();
    super::world::push(&mut batch, &old, 0, "", "late");
    let outcome = world.store().append(&mut batch, world.now());
    assert!(matches!(outcome, Err(AppendError::TopicGone { .. })));
    assert_eq!(world.store().written(), written);
    assert!(world.store().delete_topic("orders", world.now()).unwrap().is_none());
}

#[test]
fn ids_are_never_given_twice_even_after_the_last_topic_went_and_the_store_was_reopened() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let old = world.topic("orders", 1);
        world.store().delete_topic("orders", world.now()).unwrap();
        world.reopen();
        assert!(world.topic("other", 1).id > old.id, "{kind:?}");
    }
}

#[test]
fn deleted_group_keeps_its_offsets_unless_told_to_clean_them() {
    for kind in KINDS {
        for clean in [false, true] {
            let mut world = World::new(kind);
            let topic = world.topic("orders", 1);
            let config = GroupConfig::new(GroupName::new("g").unwrap());
            world.store().put_group(config, world.now()).unwrap();
            let commits = [commit("g", &topic, 0, 7), commit("h", &topic, 0, 8)];
            world.store().commit_offsets(&commits, world.now()).unwrap();
            world.store().delete_group("g", clean, world.now()).unwrap().unwrap();
            let check = |world: &World| {
                let offset = |group| world.store().offset(group, &topic, QueueId(0));
                assert!(world.store().group("g").is_none());
                assert_eq!(offset("g").is_none(), clean, "{kind:?}");
                assert!(offset("h").is_some());
            };
            check(&world);
            world.reopen();
            check(&world);
            world.lose_views();
            check(&world);
        }
    }
}
