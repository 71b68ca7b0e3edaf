//! Promises about a topic whose definition is damaged while the views are lost: its messages are told of by name and
//! number, and all other topics are served.

use std::sync::Arc;

use super::faults_world::FaultWorld;
use crate::{Flush, log::Walked, state::STATE_TOPIC};

/// Where the first record of the state's topic lies.
fn first_definition(world: &FaultWorld) -> u64 {
    let store = &world.store;
    let mut cursor = store.log.records(store.log_start(), store.written());
    while let Some(walked) = cursor.next().unwrap() {
        if let Walked::Record { position, record } = walked
            && record.topic() == STATE_TOPIC
        {
            return position.0;
        }
    }
    panic!("no definition");
}

#[test]
fn messages_of_a_topic_whose_definition_is_lost_are_told_of_with_its_name_and_their_number() {
    let world = FaultWorld::new(Flush::Sync);
    let lost = world.topic("lost");
    world.settle();
    let kept = world.topic("kept");
    world.settle();
    let first = world.send(&lost, "first").unwrap();
    for body in ["a", "b"] {
        world.send(&kept, body).unwrap();
        world.send(&lost, body).unwrap();
        world.settle();
    }
    let (path, at) = world.store.log.locate(first_definition(&world).into());
    world.disk.damage(&path, |bytes| bytes[at.unwrap() as usize + 100] ^= 4);

    let next = FaultWorld::on(world.disk.copy(), Arc::default(), world.options.clone(), world.now);
    assert!(next.store.topic("lost").is_none());
    assert_eq!(next.bodies("kept"), ["a", "b"]);
    let told = next.store.status().damage;
    let of_topic: Vec<_> = told.iter().filter(|it| it.reason.contains("topic lost")).collect();
    let [one] = &of_topic[..] else { panic!("{told:?}") };
    assert_eq!(one.position, Some(first));
    assert_eq!(
        (&one.path, one.file_offset),
        (&path, Some(world.store.log.locate(first).1.unwrap()))
    );
    assert!(one.reason.contains("3 of its messages"), "{}", one.reason);
    assert!(next.report.damage.contains(one), "the start says so too");
    // A topic of that name that is made now is another one.
    let again = next.topic("lost");
    next.send(&again, "new").unwrap();
    next.settle();
    assert_eq!(next.bodies("lost"), ["new"]);
}

#[test]
fn messages_of_a_topic_that_was_deleted_are_nothing_to_tell_of() {
    let world = FaultWorld::new(Flush::Sync);
    let topic = world.topic("gone");
    world.send(&topic, "a").unwrap();
    world.store.delete_topic("gone", world.now).unwrap();
    let topic = world.topic("gone");
    world.send(&topic, "b").unwrap();
    world.settle();
    world.store.write_image(world.now).unwrap();
    world.settle();
    let next = FaultWorld::on(world.disk.copy(), Arc::default(), world.options.clone(), world.now);
    assert_eq!(next.bodies("gone"), ["b"]);
    assert_eq!(next.store.status().damage, []);
}
