//! Promises about opening: nothing that was confirmed is lost, nothing that is damaged is delivered.

use std::{io::Write as _, os::unix::fs::FileExt as _};

use gantry_model::{GroupConfig, GroupName, QueueId};
use proptest::prelude::*;

use super::world::{KINDS, Kind, World, commit};
use crate::{AppendError, Now, OpenError, Store, StoreOptions};

#[test]
fn reopened_store_goes_on_where_it_was() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let topic = world.topic("orders", 2);
        for number in 0..300 {
            world.send(&topic, number % 2, &format!("m{number}"));
        }
        let report = world.reopen();
        assert_eq!((report.records_replayed, report.views_rebuilt), (0, false), "{kind:?}");
        let topic = world.store().topic("orders").unwrap();
        world.send(&topic, 0, "last");
        let all = world.read_all(&topic, 0);
        assert_eq!((all.len(), all.last().map(String::as_str)), (151, Some("last")));
    }
}

#[test]
fn killed_store_replays_what_the_views_lack_and_nothing_else() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let topic = world.topic("orders", 1);
        world.send(&topic, 0, "flushed");
        world.settle();
        world.store().views.flush().unwrap();
        world.send(&topic, 0, "applied");
        world.settle();
        world.send(&topic, 0, "written");
        let before = world.dump();
        let report = world.kill();
        assert_eq!(report.records_replayed, 2, "{kind:?}");
        let topic = world.store().topic("orders").unwrap();
        assert_eq!(world.read_all(&topic, 0), ["flushed", "applied", "written"]);
        assert_eq!(world.dump(), before, "{kind:?}");
    }
}

#[test]
fn views_carry_the_position_up_to_which_they_are_applied() {
    for kind in KINDS {
        let world = World::new(kind);
        let topic = world.topic("orders", 1);
        let ticket = world.send(&topic, 0, "a");
        world.settle();
        assert_eq!(world.store().views.applied().unwrap(), ticket.end, "{kind:?}");
        assert_eq!(world.store().status().applied, ticket.end);
    }
}

#[test]
fn state_survives_when_the_log_is_lost_and_no_position_or_offset_is_given_twice() {
    let mut world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    let ticket = world.send(&topic, 0, "lost");
    world.settle();
    world.store().views.flush().unwrap();
    std::fs::remove_dir_all(world.dir().join("log")).unwrap();
    world.kill();
    assert!(world.store().log_start() >= ticket.end);
    let topic = world.store().topic("orders").unwrap();
    assert_eq!(world.read(&topic, 0, 0).0.status, crate::ReadStatus::TooSmall);
    world.send(&topic, 0, "next");
    assert_eq!(world.read_all(&topic, 0), ["next"]);
    assert_eq!(world.store().queue_bounds(&topic, QueueId(0)).unwrap().min.0, 1);
}

#[test]
fn queue_whose_views_are_flushed_keeps_its_next_offset() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let topic = world.topic("orders", 1);
        for _ in 0..5 {
            world.send(&topic, 0, "m");
        }
        world.reopen();
        let topic = world.store().topic("orders").unwrap();
        let bounds = world.store().queue_bounds(&topic, QueueId(0)).unwrap();
        assert_eq!((bounds.min.0, bounds.max.0), (0, 5), "{kind:?}");
    }
}

#[test]
fn damaged_record_is_skipped_and_reported_and_never_delivered() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let topic = world.topic("orders", 1);
        let mut batch = crate::Batch::new();
        for body in ["a", "bad", "c"] {
            super::world::push(&mut batch, &topic, 0, "", body);
        }
        world.store().append(&mut batch, world.now()).unwrap();
        world.settle();
        // Marks what was synced, so that the damage is told from a torn tail.
        world.send(&topic, 0, "d");
        world.settle();
        let at = batch.placed(1).position.0 + 90;
        let segment = world.dir().join("log").join(format!("{:020}", 0));
        let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
        file.write_all_at(b"#", at).unwrap();
        world.store().log.forget_blocks();
        let (read, bodies) = world.read(&topic, 0, 0);
        assert_eq!((read.next.0, read.messages, bodies.len()), (4, 3, 3), "{kind:?}");
        assert_eq!(bodies, ["a", "c", "d"]);
        assert!(world.store().read_at(batch.placed(1).position).unwrap().is_none());
        assert!(world.store().status().damaged_records > 0);

        let report = world.lose_views();
        assert!(!report.damage.is_empty(), "{kind:?}");
        let topic = world.store().topic("orders").unwrap();
        assert_eq!(world.read_all(&topic, 0), ["a", "c", "d"], "offsets 0, 2 and 3 as before");
        assert_eq!(world.store().queue_bounds(&topic, QueueId(0)).unwrap().max.0, 4);
        world.send(&topic, 0, "e");
        world.settle();
        assert_eq!(world.read_all(&topic, 0), ["a", "c", "d", "e"]);
    }
}

#[test]
fn damaged_views_are_made_again_from_the_log() {
    let mut world = World::new(Kind::Rocks);
    let topic = world.topic("orders", 1);
    for number in 0..50 {
        world.send(&topic, 0, &format!("m{number}"));
    }
    let before = world.dump();
    world.store().close(world.now()).unwrap();
    let current = world.dir().join("views").join("CURRENT");
    std::fs::File::create(current).unwrap().write_all(b"no manifest\n").unwrap();
    let report = world.kill();
    assert!(report.views_rebuilt);
    assert_eq!(world.dump(), before);
}

#[test]
fn closed_store_refuses_appends() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    world.store().close(world.now()).unwrap();
    let mut batch = crate::Batch::new();
    super::world::push(&mut batch, &topic, 0, "", "late");
    let outcome = world.store().append(&mut batch, world.now());
    assert!(matches!(outcome, Err(AppendError::Stopped(None))));
}

#[test]
fn folder_in_use_names_the_process_and_is_free_after_closing() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions { segment_bytes: 1 << 20, ..StoreOptions::new(dir.path()) };
    let (store, _) = Store::open(options(), Now::default()).unwrap();
    match Store::open(options(), Now::default()) {
        Err(OpenError::InUse { pid, .. }) => assert_eq!(pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    store.close(Now::default()).unwrap();
    drop(store);
    Store::open(options(), Now::default()).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    PutTopic(u8, u32),
    DeleteTopic(u8),
    Send(u8, u32),
    Park(u8, u64),
    Fire,
    Commit(u8, u32, u64),
    Stage(u8, u64),
    WriteStaged,
    PutGroup(u8, i32),
    DeleteGroup(u8, bool),
    Sync,
    Apply(usize),
    Flush,
}

fn any_step() -> impl Strategy<Value = Step> {
    let topic = 0..3_u8;
    prop_oneof![
        2 => (topic.clone(), 1..4_u32).prop_map(|(t, q)| Step::PutTopic(t, q)),
        1 => topic.clone().prop_map(Step::DeleteTopic),
        6 => (topic.clone(), 0..3_u32).prop_map(|(t, q)| Step::Send(t, q)),
        3 => (topic.clone(), 0..100_u64).prop_map(|(t, due)| Step::Park(t, due)),
        3 => Just(Step::Fire),
        2 => (topic.clone(), 0..3_u32, 0..9_u64).prop_map(|(t, q, o)| Step::Commit(t, q, o)),
        1 => (topic, 0..9_u64).prop_map(|(t, o)| Step::Stage(t, o)),
        1 => Just(Step::WriteStaged),
        1 => (0..2_u8, 0..20_i32).prop_map(|(g, n)| Step::PutGroup(g, n)),
        1 => (0..2_u8, any::<bool>()).prop_map(|(g, clean)| Step::DeleteGroup(g, clean)),
        2 => Just(Step::Sync),
        2 => (1..10_usize).prop_map(Step::Apply),
        1 => Just(Step::Flush),
    ]
}

fn run(world: &mut World, step: &Step) {
    let name = |topic: &u8| format!("topic-{topic}");
    let now = world.now();
    match step {
        Step::PutTopic(topic, queues) => drop(world.topic(&name(topic), *queues)),
        Step::DeleteTopic(topic) => drop(world.store().delete_topic(&name(topic), now).unwrap()),
        Step::Send(topic, queue) => {
            if let Some(topic) = world.store().topic(&name(topic)) {
                world.send_tagged(&topic, *queue, "red", "body");
            }
        }
        Step::Park(topic, due) => drop(world.park(&name(topic), *due)),
        Step::Fire => {
            let topic = world.topic("fired", 1);
            if let Some(timer) = world.store().due_timers(50, 1).unwrap().first() {
                world.fire(&topic, timer.due_ms, timer.position).unwrap();
            }
        }
        Step::Commit(topic, queue, offset) => {
            if let Some(topic) = world.store().topic(&name(topic)) {
                let commit = commit("g", &topic, *queue, *offset);
                world.store().commit_offsets(&[commit], now).unwrap();
            }
        }
        Step::Stage(topic, offset) => {
            if let Some(topic) = world.store().topic(&name(topic)) {
                world.store().stage_offset(commit("g", &topic, 0, *offset));
            }
        }
        Step::WriteStaged => world.store().write_staged_offsets(now).unwrap(),
        Step::PutGroup(group, retries) => {
            let mut config = GroupConfig::new(GroupName::new(["g", "h"][*group as usize]).unwrap());
            config.retry_max_times = *retries;
            world.store().put_group(config, now).unwrap();
        }
        Step::DeleteGroup(group, clean) => {
            let name = ["g", "h"][*group as usize];
            world.store().delete_group(name, *clean, now).unwrap();
        }
        Step::Sync => drop(world.store().sync().unwrap()),
        Step::Apply(records) => drop(world.store().apply_views(*records).unwrap()),
        Step::Flush => world.store().views.flush().unwrap(),
    }
    world.now_ms += 1;
}

/// What a user sees, apart from the views.
fn seen(world: &World) -> Vec<String> {
    let store = world.store();
    let mut lines = vec![format!("{:?} {:?}", store.topics_version(), store.groups_version())];
    for topic in store.topics() {
        lines.push(format!("{:?} {:?} {:?}", topic.id, topic.since, topic.config));
        for queue in 0..3 {
            let bounds = store.queue_bounds(&topic, QueueId(queue)).unwrap();
            lines.push(format!("{bounds:?} {:?}", world.read_all(&topic, queue)));
            for group in ["g", "h"] {
                lines.push(format!("{:?}", store.offset(group, &topic, QueueId(queue))));
            }
        }
    }
    lines.extend(store.groups().iter().map(|group| format!("{group:?}")));
    lines.push(format!("{:?}", store.due_timers(1000, 1000).unwrap()));
    lines
}

fn replay_equals_append(kind: Kind, steps: &[Step]) {
    let mut world = World::new(kind);
    for step in steps {
        run(&mut world, step);
    }
    // Staged offsets promise nothing: what is compared is what the log holds.
    world.store().write_staged_offsets(world.now()).unwrap();
    let before = seen(&world);
    world.kill();
    assert_eq!(seen(&world), before, "after a kill");
    let views = world.dump();
    assert_eq!(seen(&world), before, "from the views alone");
    world.lose_views();
    assert_eq!(seen(&world), before, "after a replay of the whole log");
    assert_eq!(world.dump(), views, "rebuilt views");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replay_finds_what_the_appends_did(steps in prop::collection::vec(any_step(), 1..60)) {
        replay_equals_append(Kind::Memory, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replay_finds_what_the_appends_did_on_disk(steps in prop::collection::vec(any_step(), 1..60)) {
        replay_equals_append(Kind::Rocks, &steps);
    }
}
