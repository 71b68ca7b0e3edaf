//! Looking into the folder of a store that runs.

use serde_json::Value;

use super::world::*;

fn world_with_messages() -> World {
    let world = World::start();
    world.table(&["topic", "create", "orders", "--queues", "1"]);
    for (body, tag) in [("first", "A"), ("second", "B")] {
        let send = ["message", "send", "--topic", "orders", "--body", body, "--tag", tag];
        world.table(&[&send[..], &["--key", "k1"]].concat());
    }
    world
}

/// The lines of a command's output, each a JSON document.
fn lines(world: &World, arguments: &[&str]) -> Vec<Value> {
    let out = world.table(&[arguments, &["--output", "json"]].concat());
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn folder_of_a_running_server_is_inspected() {
    let world = world_with_messages();
    let summary = world.json(&["store", "inspect", world.dir()]);
    assert_eq!((&summary["is_live"], &summary["format_version"]), (&true.into(), &1.into()));
    let topics = summary["state"]["topics"].as_array().unwrap();
    let orders = topics.iter().find(|topic| topic["name"] == "orders").unwrap();
    assert_eq!((&orders["queues"], &orders["messages"]), (&1.into(), &2.into()));
    let table = world.table(&["store", "inspect", world.dir()]);
    for words in ["SEGMENT", "00000000000000000000", "live, in use by process", "topic     orders"]
    {
        assert!(table.contains(words), "{words:?} in {table}");
    }
}

#[test]
fn records_of_a_running_server_are_dumped_one_a_line() {
    let world = world_with_messages();
    let dump = ["store", "dump", world.dir()];
    let messages = lines(&world, &[&dump[..], &["--topic", "orders"]].concat());
    let field =
        |name: &str| messages.iter().map(|message| message[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("body"), ["first", "second"]);
    assert_eq!(field("queue_offset"), [0, 1]);
    assert_eq!(field("tag"), ["A", "B"]);
    assert_eq!(field("keys"), ["k1", "k1"]);

    let all = lines(&world, &dump);
    assert_eq!(all[0]["kind"], "header");
    let is_orders = |line: &&Value| line["entries"][0]["name"] == "orders";
    assert_eq!(all.iter().find(is_orders).unwrap()["entries"][0]["entry"], "topic");

    let second = messages[1]["position"].to_string();
    let rest = lines(&world, &[&dump[..], &["--from", &second, "--body", "hex"]].concat());
    assert_eq!(rest[0]["body_hex"], "7365636f6e64");
    let before = lines(&world, &[&dump[..], &["--to", &second, "--limit", "3"]].concat());
    assert_eq!(before.len(), 3);
    let other_queue = world.table(&[&dump[..], &["--topic", "orders", "--queue", "1"]].concat());
    assert_eq!(other_queue, "");
    let table = world.table(&[&dump[..], &["--topic", "orders", "--limit", "1"]].concat());
    assert!(table.contains(" topic=orders queue=0 queue_offset=0 tag=A"), "{table}");
}

#[test]
fn folder_without_a_store_ends_with_7_and_says_what_it_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for command in ["inspect", "dump"] {
        let ended = run(&mut gantry(&["store", command, path]));
        assert_eq!((ended.code, &*ended.out), (7, ""), "{ended:?}");
        assert!(ended.err.contains("it has no folder `log`"), "{}", ended.err);
    }
    let world = world_with_messages();
    let beyond = world.fails(2, &["store", "dump", world.dir(), "--from", "99999999"]);
    assert!(beyond.contains("the log has positions 0 to"), "{beyond}");
}
