//! `gantry cluster`.

use serde_json::json;

use super::world::*;

#[test]
fn cluster_list_shows_the_broker_its_address_and_its_release() {
    let world = World::start();
    let shown = world.json(&["cluster", "list"]);
    assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
    let expected = [
        ("cluster", json!("DefaultCluster")),
        ("broker", json!("broker-a")),
        ("id", json!(0)),
        ("address", json!(world.broker())),
        ("online", json!(true)),
        ("version", json!("V5_3_3")),
        ("put_tps", json!(0.0)),
    ];
    for (key, value) in expected {
        assert_eq!(shown[0][key], value, "{key}");
    }
    let table = world.table(&["cluster", "list"]);
    assert_eq!(rows(&table)[1][..2], ["DefaultCluster", "broker-a"]);
}

#[test]
fn broker_status_shows_the_figures_of_one_broker_or_of_all() {
    let world = World::start();
    world.table(&["message", "send", "--topic", "orders", "--body", "x", "--count", "3"]);
    for command in [&["cluster", "broker-status"][..], &["cluster", "broker-status", "broker-a"]] {
        let shown = world.json(command);
        assert_eq!(shown["broker-a"]["msgPutTotalTodayNow"], "3", "{shown}");
        assert_eq!(shown["broker-a"]["brokerActive"], "true");
    }
    let table = world.table(&["cluster", "broker-status"]);
    assert!(rows(&table).contains(&vec!["broker-a", "putMessageTimesTotal", "3"]), "{table}");
}

#[test]
fn broker_that_is_not_registered_ends_with_3_and_is_named() {
    let world = World::start();
    assert!(world.fails(3, &["cluster", "broker-status", "nobody"]).contains("nobody"));
}
