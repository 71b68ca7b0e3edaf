//! `gantry message`.

use serde_json::{Value, json};

use super::world::*;

fn send(world: &World, more: &[&str]) -> Value {
    world.json(&[&["message", "send", "--topic", "orders"], more].concat())
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap()
}

#[test]
fn message_is_found_by_key_unique_id_and_place() {
    let world = World::start();
    let sent = send(&world, &["--key", "k1", "--key", "k2", "--tag", "red", "--body", "hello"]);
    send(&world, &["--key", "k3", "--body", "other"]);
    let queries: [&[&str]; 4] = [
        &["--topic", "orders", "--key", "k1"],
        &["--topic", "orders", "--key", "k2"],
        &["--topic", "orders", "--unique-key", text(&sent, "message_id")],
        &["--id", text(&sent, "offset_message_id")],
    ];
    for query in queries {
        let command = [&["message", "query"], query].concat();
        let found = world.json(&command);
        assert_eq!(found.as_array().unwrap().len(), 1, "{query:?}: {found}");
        let found = &found[0];
        for same in ["message_id", "offset_message_id", "broker", "queue", "queue_offset"] {
            assert_eq!(found[same], sent[same], "{query:?}: {same}");
        }
        assert_eq!((&found["keys"], &found["tag"]), (&json!(["k1", "k2"]), &json!("red")));
        assert_eq!(found["body"], "hello");
        let table = world.table(&command);
        assert!(table.contains("hello") && rows(&table)[0][0] == "MESSAGE", "{table}");
    }
}

#[test]
fn message_that_is_not_there_ends_with_3() {
    let world = World::start();
    let sent = send(&world, &["--key", "k", "--body", "hello"]);
    let sentence = world.fails(3, &["message", "query", "--topic", "orders", "--key", "no"]);
    assert!(sentence.contains("orders") && sentence.contains("no"), "{sentence}");
    let unique = "0".repeat(32);
    world.fails(3, &["message", "query", "--topic", "orders", "--unique-key", &unique]);
    let place = text(&sent, "offset_message_id");
    let beyond = format!("{}0000000000FFFFFF", &place[..place.len() - 16]);
    let sentence = world.fails(3, &["message", "query", "--id", &beyond]);
    assert!(sentence.contains(world.broker()), "{sentence}");
}

#[test]
fn limit_bounds_what_a_query_shows() {
    let world = World::start();
    world.table(&[
        "message", "send", "--topic", "orders", "--key", "k", "--body", "x", "--count", "5",
    ]);
    let query = ["message", "query", "--topic", "orders", "--key", "k"];
    assert_eq!(world.json(&query).as_array().unwrap().len(), 5);
    let limited = world.json(&[&query[..], &["--limit", "2"]].concat());
    assert_eq!(limited.as_array().unwrap().len(), 2);
}

#[test]
fn consumed_messages_are_committed_and_a_second_member_gets_none_of_them() {
    let world = World::start();
    world.table(&["topic", "create", "orders", "--queues", "1"]);
    for body in ["one", "two"] {
        send(&world, &["--body", body]);
    }
    let consume = ["message", "consume", "--topic", "orders", "--group", "readers", "--count", "1"];
    let first = world.table(&consume);
    assert!(first.contains("one") && first.lines().count() == 1, "{first}");
    let second = world.json(&consume);
    assert_eq!(second["body"], "two");
    let ended = world.run(&[&consume[..], &["--timeout", "100ms"]].concat());
    assert_eq!((ended.code, &*ended.out), (5, ""));
    assert!(ended.err.contains("0 of 1"), "{}", ended.err);
}
