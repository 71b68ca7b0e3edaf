//! Looking into the folder of a store, and checking it, while its server runs and when it has stopped.

use std::os::unix::fs::FileExt as _;

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
fn store_of_a_running_and_of_a_stopped_server_is_found_whole() {
    let mut world = world_with_messages();
    let live = world.json(&["store", "verify", world.dir()]);
    assert_eq!((&live["is_live"], &live["findings_total"]), (&true.into(), &0.into()), "{live}");
    assert_eq!(live["messages"], 2);
    world.stop();
    let stopped = world.json(&["store", "verify", world.dir()]);
    assert_eq!((&stopped["is_live"], &stopped["findings_total"]), (&false.into(), &0.into()));
    assert_eq!((&stopped["queue_entries"], &stopped["keys"]), (&2.into(), &4.into()), "{stopped}");
    let table = world.table(&["store", "verify", world.dir()]);
    assert!(table.ends_with("nothing is wrong\n"), "{table}");
}

#[test]
fn damaged_store_ends_with_6_and_names_file_and_byte() {
    let mut world = world_with_messages();
    world.stop();
    let dump = ["store", "dump", world.dir(), "--topic", "orders", "--limit", "1"];
    let at = lines(&world, &dump)[0]["position"].as_u64().unwrap();
    let segment = format!("{}/broker/log/00000000000000000000", world.dir());
    let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.write_all_at(b"#", at + 90).unwrap();
    let ended = world.run(&["store", "verify", world.dir(), "--output", "json"]);
    assert_eq!(ended.code, 6, "{ended:?}");
    assert!(ended.err.contains("is damaged, 1 finding"), "{}", ended.err);
    let verdict: Value = serde_json::from_str(&ended.out).unwrap();
    let finding = &verdict["findings"][0];
    assert_eq!((&finding["part"], &finding["file_offset"]), (&"log".into(), &at.into()));
    let table = world.run(&["store", "verify", world.dir()]).out;
    assert!(table.contains(&format!("log   {at}")) && table.contains("1 finding"), "{table}");
}

#[test]
fn folder_without_a_store_ends_with_7_and_says_what_it_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for command in ["inspect", "verify", "dump"] {
        let ended = run(&mut gantry(&["store", command, path]));
        assert_eq!((ended.code, &*ended.out), (7, ""), "{ended:?}");
        assert!(ended.err.contains("it has no folder `log`"), "{}", ended.err);
    }
    let world = world_with_messages();
    let beyond = world.fails(2, &["store", "dump", world.dir(), "--from", "99999999"]);
    assert!(beyond.contains("the log has positions 0 to"), "{beyond}");
}
