//! Promises of the route table: the rules of registration, and what goes with a broker that goes.

use super::*;

const EXPIRY: Duration = Duration::from_mins(2);
const RW: Queues =
    Queues { perm: Permission::READ_WRITE, read_queues: 8, sys_flag: 0, write_queues: 8 };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn member(broker: &str, id: u64, addr: &str) -> Member {
    Member { cluster: "C".into(), broker: broker.into(), id, addr: addr.into() }
}

/// A registration through connection 1, with one table entry for each name.
fn registration(member: Member, counter: i64, topics: &[&str]) -> Registration {
    Registration {
        ha_addr: format!("{}-ha", member.addr),
        member,
        acting_master: Some(false),
        zone: None,
        expiry: EXPIRY,
        data_version: DataVersion { counter, state_version: 0, timestamp: 1 },
        topics: topics.iter().map(|name| (TopicName::new(name).unwrap(), RW)).collect(),
        connection: 1,
    }
}

fn accepted(table: &mut RouteTable, registration: Registration) -> Option<(String, String)> {
    match table.register(registration, false, at(0)) {
        Ok(Registered::Accepted { master }) => master,
        other => panic!("{other:?}"),
    }
}

fn with_master() -> RouteTable {
    let mut table = RouteTable::default();
    accepted(&mut table, registration(member("a", 0, "m:1"), 1, &["T1", "T2"]));
    table
}

fn perm(table: &RouteTable, topic: &str) -> u32 {
    table.route(topic).next().unwrap().2.perm.0
}

fn addrs(table: &RouteTable) -> Vec<(u64, &str)> {
    table.group("a").unwrap().addrs.iter().map(|(id, addr)| (*id, addr.as_str())).collect()
}

#[test]
fn registered_topics_have_a_route_and_others_none() {
    let table = with_master();
    let (name, group, queues) = table.route("T1").next().unwrap();
    assert_eq!((name, group.cluster.as_str(), *queues), ("a", "C", RW));
    assert_eq!(table.route("T3").count(), 0);
    assert_eq!((table.topic_count(), table.live_count()), (2, 1));
}

#[test]
fn address_that_changes_its_id_keeps_one_place() {
    let mut table = with_master();
    accepted(&mut table, registration(member("a", 1, "s:1"), 1, &[]));
    accepted(&mut table, registration(member("a", 0, "s:1"), 2, &["T1", "T2"]));
    assert_eq!(addrs(&table), [(0, "s:1")]);
}

#[test]
fn older_term_cannot_take_an_id_that_is_held() {
    let mut table = RouteTable::default();
    let mut newer = registration(member("a", 0, "new:1"), 1, &["T1", "T2"]);
    newer.data_version.state_version = 5;
    accepted(&mut table, newer);
    let older = registration(member("a", 0, "old:1"), 9, &["T1", "T2", "T3"]);
    assert_eq!(table.register(older, false, at(0)), Ok(Registered::Stale));
    assert_eq!(addrs(&table), [(0, "new:1")]);
    assert_eq!(table.topic_count(), 2);
    assert_eq!(table.live_count(), 1);
}

#[test]
fn later_or_equal_term_takes_the_id_and_the_old_address_is_forgotten() {
    let mut table = with_master();
    accepted(&mut table, registration(member("a", 0, "n:1"), 1, &["T1", "T2"]));
    assert_eq!(addrs(&table), [(0, "n:1")]);
    assert_eq!(table.live_count(), 1);
    assert_eq!(table.expire(at(119)).0, []);
    assert_eq!(table.route("T1").count(), 1);
}

#[test]
fn single_topic_before_the_whole_table_is_refused_without_a_trace() {
    let mut table = RouteTable::default();
    let single = registration(member("a", 0, "m:1"), 1, &["T1"]);
    let refused = table.register(single.clone(), false, at(0));
    assert!(matches!(refused, Err(RegisterError::NoTable { id: 0, .. })));
    assert!(table.group("a").is_none());
    let mut table = with_master();
    let mut single = single;
    single.topics[0].0 = TopicName::new("T9").unwrap();
    accepted(&mut table, single);
    assert_eq!(table.route("T9").count(), 1);
}

#[test]
fn topic_without_a_queue_is_withdrawn_from_its_broker_group_and_from_no_other() {
    let mut table = with_master();
    accepted(&mut table, registration(member("b", 0, "n:1"), 1, &["T1", "T3"]));
    let mut withdrawal = registration(member("a", 0, "m:1"), 2, &["T1"]);
    withdrawal.topics[0].1 = Queues { perm: Permission(0), read_queues: 0, write_queues: 0, ..RW };
    accepted(&mut table, withdrawal.clone());
    let brokers = |table: &RouteTable, topic: &str| {
        table.route(topic).map(|(name, ..)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(brokers(&table, "T1"), ["b"]);
    assert_eq!(brokers(&table, "T2"), ["a"]);
    withdrawal.member = member("b", 0, "n:1");
    accepted(&mut table, withdrawal);
    assert_eq!(table.route("T1").count(), 0);
    assert_eq!(table.topic_count(), 2, "a topic that nobody serves is not listed");
}

#[test]
fn replica_writes_no_topics_while_there_is_a_master_and_learns_where_it_is() {
    let mut table = with_master();
    let master = accepted(&mut table, registration(member("a", 1, "s:1"), 1, &["T8", "T9"]));
    assert_eq!(master, Some(("m:1".into(), "m:1-ha".into())));
    assert_eq!(table.route("T8").count(), 0);
}

#[test]
fn lowest_replica_without_master_registers_topics_for_reading() {
    let mut table = RouteTable::default();
    let mut replica = registration(member("a", 1, "s:1"), 1, &["T1", "T2"]);
    replica.acting_master = Some(true);
    assert_eq!(accepted(&mut table, replica), None);
    assert_eq!(perm(&table, "T1"), Permission::READ);
    let mut old = registration(member("b", 1, "o:1"), 1, &["T5", "T6"]);
    old.acting_master = None;
    accepted(&mut table, old);
    assert_eq!(table.route("T5").count(), 0);
}

#[test]
fn topics_follow_the_data_version_and_missing_ones_stay() {
    let mut table = with_master();
    table.wipe_write_permission("a");
    let mut same = registration(member("a", 0, "m:1"), 1, &["T1", "T3"]);
    accepted(&mut table, same.clone());
    assert_eq!(perm(&table, "T1"), 4, "same version, same words: unchanged");
    assert_eq!(perm(&table, "T3"), 6, "same version, missing pair: added");
    same.data_version.counter = 2;
    accepted(&mut table, same.clone());
    assert_eq!(perm(&table, "T1"), 6, "another version");
    assert_eq!(table.route("T2").count(), 1);
    table.register(same, true, at(0)).unwrap();
    assert_eq!(table.route("T2").count(), 0, "unless asked to forget them");
    let single = registration(member("a", 0, "m:1"), 3, &["T1"]);
    table.register(single, true, at(0)).unwrap();
    assert_eq!(table.route("T3").count(), 1, "a single topic is a change, no table");
}

#[test]
fn second_part_of_a_table_with_the_same_version_changes_its_topics_too() {
    let mut table = with_master();
    accepted(&mut table, registration(member("a", 0, "m:1"), 2, &["T1", "T3"]));
    let mut second = registration(member("a", 0, "m:1"), 2, &["T2", "T4"]);
    second.topics[0].1.write_queues = 16;
    accepted(&mut table, second);
    assert_eq!(table.route("T2").next().unwrap().2.write_queues, 16);
}

#[test]
fn silent_broker_is_forgotten_after_its_own_time_with_its_topics() {
    let mut table = with_master();
    let mut short = registration(member("b", 0, "b:1"), 1, &["T2", "T3"]);
    (short.expiry, short.connection) = (at(10), 7);
    accepted(&mut table, short);
    assert_eq!(table.expire(at(10)).0, []);
    assert_eq!(table.expire(at(11)), (vec![member("b", 0, "b:1")], vec![7]));
    assert_eq!((table.route("T2").count(), table.route("T3").count()), (1, 0));
    assert!(table.heartbeat("C", "m:1", at(100)));
    assert!(!table.heartbeat("C", "b:1", at(100)));
    assert_eq!(table.expire(at(220)).0, []);
    assert_eq!(table.expire(at(221)).0.len(), 1);
    assert_eq!((table.topic_count(), table.live_count()), (0, 0));
    assert!(table.clusters().is_empty());
}

#[test]
fn ended_connection_forgets_what_it_registered_last() {
    let mut table = with_master();
    let mut again = registration(member("a", 0, "m:1"), 1, &["T1", "T2"]);
    again.connection = 2;
    accepted(&mut table, again);
    assert_eq!(table.connection_closed(1), []);
    assert_eq!(table.connection_closed(3), []);
    assert_eq!(table.route("T1").count(), 1);
    assert_eq!(table.connection_closed(2), [member("a", 0, "m:1")]);
    assert_eq!(table.topic_count(), 0);
}

#[test]
fn group_with_acting_master_becomes_read_only_without_its_master() {
    let mut table = RouteTable::default();
    for (id, addr) in [(0, "m:1"), (1, "s:1")] {
        let mut one = registration(member("a", id, addr), 1, &["T1", "T2"]);
        one.acting_master = Some(true);
        accepted(&mut table, one);
    }
    table.unregister(&member("a", 0, "m:1"));
    assert_eq!(perm(&table, "T1"), Permission::READ);
    assert_eq!(addrs(&table), [(1, "s:1")]);
}

#[test]
fn write_permission_is_taken_and_given_for_every_topic_of_a_group() {
    let mut table = with_master();
    accepted(&mut table, registration(member("b", 0, "b:1"), 1, &["T1", "T5"]));
    assert_eq!(table.wipe_write_permission("a"), 2);
    let perms: Vec<_> = table.route("T1").map(|(_, _, queues)| queues.perm.0).collect();
    assert_eq!(perms, [4, 6]);
    assert_eq!(table.add_write_permission("a"), 2);
    assert_eq!(perm(&table, "T1"), 6);
    assert_eq!(table.wipe_write_permission("none"), 0);
}

#[test]
fn topic_is_deleted_everywhere_or_in_one_cluster() {
    let mut table = with_master();
    let mut other = registration(member("b", 0, "b:1"), 1, &["T1", "T2"]);
    other.member.cluster = "D".into();
    accepted(&mut table, other);
    table.delete_topic("T1", Some("D"));
    assert_eq!(table.route("T1").count(), 1);
    table.delete_topic("T2", None);
    assert_eq!(table.route("T2").count(), 0);
    assert_eq!(table.topics_of_cluster("D").count(), 0);
    assert_eq!(table.topics_of_cluster("C").collect::<Vec<_>>(), ["T1"]);
}

#[test]
fn name_of_a_group_in_another_cluster_is_refused() {
    let mut table = with_master();
    let mut other = registration(member("a", 0, "x:1"), 1, &["T1", "T2"]);
    other.member.cluster = "D".into();
    let refused = table.register(other, false, at(0)).unwrap_err();
    assert!(refused.to_string().contains("belongs to cluster C"), "{refused}");
}

#[test]
fn broker_that_changes_its_name_leaves_nothing_behind() {
    let mut table = with_master();
    accepted(&mut table, registration(member("b", 0, "m:1"), 1, &["T1", "T5"]));
    assert!(table.group("a").is_none());
    assert_eq!(table.route("T2").count(), 0);
    assert_eq!(table.route("T1").map(|(name, ..)| name).collect::<Vec<_>>(), ["b"]);
    assert_eq!(table.live_count(), 1);
}

#[test]
fn unregistering_under_another_name_or_address_changes_nothing() {
    let mut table = with_master();
    assert!(!table.unregister(&member("b", 0, "m:1")));
    assert!(!table.unregister(&member("a", 0, "x:1")));
    assert_eq!((table.live_count(), table.route("T1").count()), (1, 1));
    assert!(table.unregister(&member("a", 5, "m:1")), "the address counts, not the id");
    assert_eq!((table.live_count(), table.topic_count()), (0, 0));
}

#[test]
fn added_topic_reaches_registered_groups_alone() {
    let mut table = with_master();
    let topic = TopicName::new("N").unwrap();
    table.add_topic(&topic, vec![("a".into(), RW), ("ghost".into(), RW)]);
    assert_eq!(table.route("N").map(|(name, ..)| name).collect::<Vec<_>>(), ["a"]);
}
