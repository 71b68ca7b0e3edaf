//! Promises about consumer offsets.

use gantry_model::{QueueId, QueueOffset};

use super::world::{KINDS, Kind, World, commit};

#[test]
fn committed_offsets_are_visible_at_once_and_survive_a_kill() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let topic = world.topic("orders", 2);
        let commits = [commit("g", &topic, 0, 7), commit("g", &topic, 1, 9)];
        world.store().commit_offsets(&commits, world.now()).unwrap();
        let check = |world: &World| {
            let topic = world.store().topic("orders").unwrap();
            assert_eq!(world.store().offset("g", &topic, QueueId(1)), Some(QueueOffset(9)));
            let all = world.store().offsets_of_group("g");
            let all: Vec<_> = all.iter().map(|(_, queue, offset)| (queue.0, offset.0)).collect();
            assert_eq!(all, [(0, 7), (1, 9)], "{kind:?}");
            assert_eq!(world.store().groups_with_offsets_on(&topic).len(), 1);
        };
        check(&world);
        world.kill();
        check(&world);
        world.reopen();
        check(&world);
    }
}

#[test]
fn staged_offsets_are_visible_at_once_and_survive_when_written() {
    let mut world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    world.store().stage_offset(commit("g", &topic, 0, 5));
    world.store().stage_offset(commit("lost", &topic, 0, 1));
    assert_eq!(world.store().staged(), 2);
    assert_eq!(world.store().offset("g", &topic, QueueId(0)), Some(QueueOffset(5)));
    world.kill();
    let topic = world.topic("orders", 1);
    assert_eq!(world.store().offset("lost", &topic, QueueId(0)), None, "it promised nothing");
    for number in 0..2500 {
        world.store().stage_offset(commit(&format!("g{number}"), &topic, 0, number));
    }
    world.store().write_staged_offsets(world.now()).unwrap();
    assert_eq!(world.store().staged(), 0);
    world.kill();
    assert_eq!(world.store().groups_with_offsets_on(&topic).len(), 2500);
}

#[test]
fn close_writes_the_staged_offsets() {
    let mut world = World::new(Kind::Rocks);
    let topic = world.topic("orders", 1);
    world.store().stage_offset(commit("g", &topic, 0, 5));
    world.reopen();
    assert_eq!(world.store().offset("g", &topic, QueueId(0)), Some(QueueOffset(5)));
}

#[test]
fn commit_on_a_deleted_topic_is_forgotten() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    world.store().delete_topic("orders", world.now()).unwrap();
    let written = world.store().written();
    world.store().commit_offsets(&[commit("g", &topic, 0, 5)], world.now()).unwrap();
    world.store().stage_offset(commit("g", &topic, 0, 5));
    assert_eq!(world.store().offset("g", &topic, QueueId(0)), None);
    assert_eq!((world.store().written(), world.store().staged()), (written, 0));
}
