//! A store at rest ends its log with a mark, once.

use super::world::{KINDS, Kind, World, sync_mode};

/// Bytes of a mark, as the storage format gives them.
const MARK_BYTES: u64 = 154;

fn look(world: &World) -> bool {
    world.store().mark_if_idle().unwrap()
}

#[test]
fn store_at_rest_grows_by_one_mark_and_by_nothing_after_it() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let topic = world.topic("orders", 1);
        for round in 0..3 {
            world.send(&topic, 0, "a");
            world.settle();
            let end = world.store().written();
            assert!(!look(&world), "{kind:?}: it was just written to");
            assert!(look(&world), "{kind:?}");
            (0..5).for_each(|_| assert!(!look(&world), "{kind:?}"));
            let marked = end.plus(MARK_BYTES);
            assert_eq!(world.store().written(), marked, "{kind:?}");
            assert_eq!(world.store().synced(), marked, "{kind:?}");
            assert_eq!(world.store().confirmed(), marked, "{kind:?}");
            match round {
                0 => world.kill(),
                1 => world.lose_views(),
                _ => world.reopen(),
            };
            (0..5).for_each(|_| assert!(!look(&world), "{kind:?}: a start is no news"));
            assert_eq!(world.store().written(), marked, "{kind:?}, round {round}");
        }
    }
}

#[test]
fn store_that_never_held_anything_gets_no_mark() {
    let world = World::new(Kind::Memory);
    (0..3).for_each(|_| assert!(!look(&world)));
    assert_eq!(world.store().written().0, 0);
}

#[test]
fn mark_is_not_written_over_bytes_that_are_not_synced_nor_behind_a_closed_store() {
    let world = World::with(Kind::Memory, sync_mode);
    let topic = world.topic("orders", 1);
    world.send(&topic, 0, "a");
    (0..3).for_each(|_| assert!(!look(&world), "nobody may read it yet"));
    world.settle();
    world.store().close(world.now()).unwrap();
    let end = world.store().written();
    (0..3).for_each(|_| assert!(!look(&world)));
    assert_eq!(world.store().written(), end);
}

#[test]
fn kill_of_a_store_at_rest_leaves_the_next_start_what_a_clean_close_leaves() {
    let mut world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    world.send(&topic, 0, "a");
    world.settle();
    assert!(!look(&world) && look(&world));
    let report = world.kill();
    assert_eq!((report.cut_at, report.damage), (None, Vec::new()));
    assert_eq!(world.read_all(&topic, 0), ["a"]);
    world.send(&topic, 0, "b");
    assert_eq!(world.read_all(&topic, 0), ["a", "b"]);
}
