//! `gantry offset`.

use super::world::*;

#[test]
fn offset_that_was_set_is_shown_and_decides_where_the_group_goes_on() {
    let world = World::start();
    world.table(&["topic", "create", "orders", "--queues", "1"]);
    world.table(&["group", "create", "readers"]);
    for body in ["one", "two", "three"] {
        world.table(&["message", "send", "--topic", "orders", "--body", body]);
    }
    let set = ["offset", "set", "--group", "readers", "--topic", "orders", "--broker", "broker-a"];
    world.table(&[&set[..], &["--queue", "0", "--offset", "2"]].concat());
    let progress = world.table(&["offset", "get", "--group", "readers", "--topic", "orders"]);
    assert!(rows(&progress)[1].contains(&"2"), "{progress}");
    let consume = ["message", "consume", "--topic", "orders", "--group", "readers", "--count", "1"];
    assert!(world.table(&consume).contains("three"));
}

#[test]
fn offsets_of_a_group_that_is_not_there_end_with_3() {
    let world = World::start();
    assert!(world.fails(3, &["offset", "get", "--group", "nobody"]).contains("nobody"));
}
