//! `gantry topic` and `gantry group`.

use serde_json::json;

use super::world::*;

#[test]
fn topic_is_created_shown_listed_and_deleted() {
    let world = World::start();
    let created = world.table(&["topic", "create", "orders", "--queues", "3", "--type", "fifo"]);
    assert!(created.contains("orders") && created.contains('3'), "{created}");
    let shown = world.json(&["topic", "get", "orders"]);
    let text = shown.to_string();
    assert!(text.contains("\"FIFO\"") || text.contains("\"fifo\""), "{text}");
    assert_eq!(world.json(&["topic", "list"]), json!(["orders"]));
    assert_eq!(rows(&world.table(&["topic", "list"]))[1][0], "orders");
    let bounds = world.table(&["topic", "stats", "orders"]);
    assert!(bounds.ends_with("0 messages in 3 queues\n"), "{bounds}");
    world.table(&["topic", "delete", "orders"]);
    assert_eq!(world.json(&["topic", "list"]), json!([]));
}

#[test]
fn missing_topic_ends_with_3_and_is_named() {
    let world = World::start();
    let commands: [&[&str]; 5] = [
        &["topic", "get", "missing"],
        &["topic", "stats", "missing"],
        &["topic", "delete", "missing"],
        &["message", "query", "--topic", "missing", "--key", "k"],
        &["message", "consume", "--topic", "missing", "--group", "g", "--count", "1"],
    ];
    for command in commands {
        let sentence = world.fails(3, command);
        assert!(sentence.contains("missing"), "{command:?}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{command:?}: {sentence}");
    }
}

#[test]
fn group_is_created_shown_listed_and_deleted() {
    let world = World::start();
    world.table(&["group", "create", "readers", "--max-attempts", "5"]);
    let shown = world.json(&["group", "list"]);
    assert_eq!(
        (&shown[0]["groupName"], &shown[0]["retryMaxTimes"]),
        (&json!("readers"), &json!(5))
    );
    let row = world.table(&["group", "list"]);
    assert_eq!(rows(&row)[1][0], "readers");
    assert!(world.table(&["group", "get", "readers"]).contains("readers"));
    world.table(&["group", "delete", "readers"]);
    assert_eq!(world.json(&["group", "list"]), json!([]));
    assert!(world.fails(3, &["group", "get", "readers"]).contains("readers"));
}
