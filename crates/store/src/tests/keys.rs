//! The key index as a store fills it: from what the appends gathered, and from the log where that was too much.

use std::{fs::OpenOptions, os::unix::fs::FileExt as _, sync::Arc};

use gantry_model::PhysicalOffset;

use super::world::{Kind, World, push};
use crate::{Batch, Topic, change::key_hash};

/// Sends a message and says where it is.
fn send(world: &World, topic: &Arc<Topic>, body: &str) -> PhysicalOffset {
    let mut batch = Batch::new();
    push(&mut batch, topic, 0, "", body);
    world.store().append(&mut batch, world.now()).unwrap();
    batch.placed(0).position
}

fn positions_of(world: &World, key: &str) -> Vec<PhysicalOffset> {
    let range = PhysicalOffset(0)..PhysicalOffset(u64::MAX);
    world.store().upkeep.keys.lookup(key_hash("orders", key), range, 100).unwrap()
}

/// Sends forty messages with upkeep now and then, and says where they are.
fn filled(key_bytes: usize) -> (World, Vec<PhysicalOffset>) {
    let world = World::with(Kind::Memory, |options| options.key_bytes = key_bytes);
    let topic = world.topic("orders", 1);
    let mut sent = Vec::new();
    for number in 0..40 {
        sent.push(send(&world, &topic, &format!("m{number}")));
        if number % 7 == 0 {
            world.settle();
            world.store().maintain(world.now()).unwrap();
        }
    }
    world.settle();
    world.store().maintain(world.now()).unwrap();
    (world, sent)
}

#[test]
fn each_key_is_found_where_it_is_whether_it_was_gathered_or_read_from_the_log() {
    // Room for all, and for four keys on their way.
    for key_bytes in [1 << 20, 512] {
        let (world, sent) = filled(key_bytes);
        assert!(world.store().upkeep.keys.covered_to() >= world.store().synced());
        for (number, position) in sent.iter().enumerate() {
            assert_eq!(positions_of(&world, &format!("m{number}")), [*position], "{key_bytes}");
        }
        assert_eq!(positions_of(&world, "order-1").len(), 40, "{key_bytes}");
    }
}

#[test]
fn bytes_read_from_the_log_are_counted_and_so_are_the_keys_that_were_too_many_to_wait() {
    let (world, _) = filled(1 << 20);
    let status = world.store().status();
    assert_eq!((status.key_read_bytes, status.keys_forgotten), (0, 0));

    let world = World::with(Kind::Memory, |options| options.key_bytes = 512);
    let topic = world.topic("orders", 1);
    // Room for four keys on their way; each message has two.
    let sent: Vec<_> = (0..3).map(|n| send(&world, &topic, &format!("m{n}"))).collect();
    assert!(world.store().status().keys_forgotten > 0);
    assert_eq!(world.store().status().key_read_bytes, 0);
    world.settle();
    world.store().maintain(world.now()).unwrap();
    let read = world.store().status().key_read_bytes;
    assert!(read >= world.store().written().0 - sent[2].0, "{read}");
    assert!(read <= world.store().written().0, "{read}");
    world.store().maintain(world.now()).unwrap();
    assert_eq!(world.store().status().key_read_bytes, read, "once");
}

#[test]
fn index_is_due_while_half_of_the_memory_waits_and_something_of_it_is_synced() {
    // Room for four keys on their way; each message has two.
    let world = World::with(Kind::Memory, |options| options.key_bytes = 512);
    let topic = world.topic("orders", 1);
    world.settle();
    for number in 0..3 {
        assert!(!world.store().is_key_index_due(), "{number}: nothing waits");
        let position = send(&world, &topic, &format!("m{number}"));
        assert!(!world.store().is_key_index_due(), "{number}: nothing may be indexed yet");
        world.store().sync().unwrap();
        assert!(world.store().is_key_index_due(), "{number}");
        world.store().index_keys().unwrap();
        assert_eq!(positions_of(&world, &format!("m{number}")), [position]);
    }
}

#[test]
fn keys_that_were_gathered_are_indexed_without_a_look_at_the_log() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    let position = send(&world, &topic, "m0");
    world.settle();
    let (path, at) = world.store().log.locate(position);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xFF; 32], at.unwrap() + 40).unwrap();
    world.store().log.forget_blocks();
    world.store().maintain(world.now()).unwrap();
    assert_eq!(positions_of(&world, "m0"), [position]);
}
