//! The key index as a store fills it: from what the appends gathered, and from the log where that was too much.

use std::{fs::OpenOptions, ops::Range, os::unix::fs::FileExt as _, sync::Arc};

use gantry_model::PhysicalOffset;
use gantry_record::{RecordView, properties};

use super::world::{Kind, World, draft, push};
use crate::{Batch, Index, KeySource, StoreOptions, Topic, change::key_hash, keys::BLOCK_BYTES};

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
    while world.store().maintain(world.now()).unwrap().is_index_behind {}
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
    while world.store().maintain(world.now()).unwrap().is_index_behind {}
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
        let files = world.store().upkeep.keys.size().0;
        assert_eq!(files, usize::from(number == 2), "{number}: nine keys are worth one");
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

/// Bytes of a large body: the log is read in steps of 1 MiB.
const LARGE: usize = 384 << 10;

/// Age at which messages go.
const RETENTION_MS: u64 = 3_600_000;

/// A store with room for eight keys on their way and eighteen in a file, and for large messages.
fn pressed() -> (World, Arc<Topic>) {
    let change = |options: &mut StoreOptions| {
        options.key_bytes = 1024;
        options.segment_bytes = 2 << 20;
        options.retention.age_ms = RETENTION_MS;
    };
    let world = World::with(Kind::Memory, change);
    let topic = world.topic("orders", 1);
    (world, topic)
}

/// Sends messages of three keys, the first of each from its number, with a body of so many bytes, and syncs them. Three
/// of them have too many keys to wait.
fn send_of(world: &World, topic: &Arc<Topic>, numbers: Range<usize>, body_bytes: usize) {
    let body = "x".repeat(body_bytes);
    for number in numbers {
        let unique = format!("m{number}");
        let mut raw = Vec::new();
        properties::put(&mut raw, "UNIQ_KEY", &unique).unwrap();
        properties::put(&mut raw, "KEYS", "order-1 order-2").unwrap();
        let keys = KeySource { unique: Some(&unique), keys: Some("order-1 order-2") };
        let mut batch = Batch::new();
        let index = Index { keys, ..Index::default() };
        batch.push(topic, &draft(topic.name(), 0, &body, &raw), index).unwrap();
        world.store().append(&mut batch, world.now()).unwrap();
    }
    world.settle();
}

/// Asserts that queries give each of so many messages once, newest first: all by a key that they share, and one by its
/// own.
fn check_found(world: &World, messages: usize, stage: &str) {
    let query = |key: &str| {
        let found = world.store().query_keys("orders", key, 0, u64::MAX, 100).unwrap();
        let position = |bytes| RecordView::parse(bytes).unwrap().position();
        found.iter().map(|bytes| position(bytes)).collect::<Vec<_>>()
    };
    let all = query("order-1");
    assert_eq!(all.len(), messages, "{stage}");
    assert!(all.is_sorted_by(|newer, older| newer > older), "{stage}: {all:?}");
    let one = messages / 2;
    assert_eq!(query(&format!("m{one}")), [all[messages - 1 - one]], "{stage}");
}

/// How many gaps the index has, and how many of them it has skipped.
fn gaps(world: &World) -> (usize, usize) {
    let gaps = world.store().upkeep.keys.gaps(world.store().log_start());
    (gaps.len(), gaps.iter().filter(|gap| gap.is_skipped).count())
}

/// Messages of [`with_holes`].
const MESSAGES: usize = 17;

/// Leaves two holes behind, of three steps and of one, and calls for the index so often. Says what the last call said.
/// The first two calls skip the holes, and the others read them.
fn with_holes(calls: usize) -> (World, bool) {
    let (world, topic) = pressed();
    let index = || world.store().index_keys().unwrap();
    send_of(&world, &topic, 0..1, 10);
    assert!(!index());
    send_of(&world, &topic, 1..10, LARGE);
    send_of(&world, &topic, 10..12, 10);
    let mut has_more = index();
    send_of(&world, &topic, 12..15, 10);
    send_of(&world, &topic, 15..17, 10);
    (1..calls).for_each(|_| has_more = index());
    (world, has_more)
}

#[test]
fn keys_behind_those_that_were_too_many_are_indexed_at_once_and_all_are_found_at_each_stage() {
    // After each call the gaps, and how many files a kill leaves missing: what no file is behind is read as it follows.
    let stages = [
        (1, (1, 1), true, 0),
        (2, (2, 2), true, 1),
        (4, (2, 2), true, 1),
        (5, (1, 1), true, 0),
        (6, (0, 0), false, 0),
    ];
    for (calls, expected, more, missing) in stages {
        let stage = format!("after call {calls}");
        let (mut world, has_more) = with_holes(calls);
        assert_eq!((gaps(&world), has_more), (expected, more), "{stage}");
        let covers_all = world.store().upkeep.keys.covered_to() == world.store().written();
        assert_eq!(covers_all, calls > 1, "{stage}");
        assert_eq!(world.store().status().key_read_bytes > 0, calls > 2, "{stage}");
        check_found(&world, MESSAGES, &stage);
        world.kill();
        check_found(&world, MESSAGES, &format!("{stage} and a kill"));
        assert_eq!(gaps(&world), (missing, 0), "{stage} and a kill");
        while world.store().maintain(world.now()).unwrap().is_index_behind {
            check_found(&world, MESSAGES, &format!("{stage}, a kill and a step"));
        }
        check_found(&world, MESSAGES, &format!("{stage}, a kill and upkeep"));
        assert_eq!(gaps(&world), (0, 0), "{stage}, a kill and upkeep");

        let (mut world, _) = with_holes(calls);
        world.reopen();
        assert_eq!(gaps(&world), (0, 0), "{stage}: closing fills what was skipped");
        check_found(&world, MESSAGES, &format!("{stage} and a restart"));
    }
}

/// Sends so many large messages without a key, and syncs them.
fn send_without_keys(world: &World, topic: &Arc<Topic>, messages: usize) {
    let body = "x".repeat(LARGE);
    for _ in 0..messages {
        let mut batch = Batch::new();
        batch.push(topic, &draft(topic.name(), 0, &body, &[]), Index::default()).unwrap();
        world.store().append(&mut batch, world.now()).unwrap();
    }
    world.settle();
}

#[test]
fn hole_that_goes_with_the_begin_of_the_log_while_it_is_read_is_not_waited_for() {
    let (mut world, topic) = pressed();
    send_of(&world, &topic, 0..9, LARGE);
    send_of(&world, &topic, 9..11, 10);
    let index = || world.store().index_keys().unwrap();
    assert!(index() && index(), "skipped, and its first step read");
    assert_eq!(gaps(&world), (1, 1));
    send_without_keys(&world, &topic, 12);
    world.now_ms += 2 * RETENTION_MS;
    send_without_keys(&world, &topic, 1);
    let is_behind = || world.store().maintain(world.now()).unwrap().is_index_behind;
    (0..2).for_each(|_| _ = is_behind());
    assert_eq!((gaps(&world), is_behind()), ((0, 0), false));
}

#[test]
fn closing_reads_so_many_steps_of_the_log_and_leaves_the_others_to_the_next_start() {
    for (steps_max, left) in [(1, 1), (2, 1), (3, 0)] {
        let (mut world, topic) = pressed();
        send_of(&world, &topic, 0..9, LARGE);
        send_of(&world, &topic, 9..11, 10);
        assert!(world.store().index_keys().unwrap(), "skipped");
        world.store().close_log(steps_max).unwrap();
        world.stop();
        world.start();
        assert_eq!(gaps(&world), (left, 0), "{steps_max}");
        check_found(&world, 11, &format!("{steps_max} steps"));
        while world.store().maintain(world.now()).unwrap().is_index_behind {}
        assert_eq!(gaps(&world), (0, 0), "{steps_max}");
        check_found(&world, 11, &format!("{steps_max} steps and upkeep"));
    }
}

#[test]
fn file_that_fills_a_hole_holds_no_more_keys_than_any_other() {
    let (world, _) = with_holes(6);
    let keys = &world.store().upkeep.keys;
    // Before, in, between and behind the holes.
    assert_eq!(keys.size().0, 1 + 2 + 1 + 1);
    world.store().close(world.now()).unwrap();
    for entry in std::fs::read_dir(world.dir().join("keys")).unwrap() {
        let blocks = entry.unwrap().metadata().unwrap().len() / BLOCK_BYTES as u64;
        assert!(blocks <= 2, "header and one block");
    }
}

/// A store of 18 messages whose index lacks two files, of two steps each, between which there is one.
fn without_files() -> World {
    let (mut world, topic) = pressed();
    for first in [0, 6, 12] {
        send_of(&world, &topic, first..first + 4, LARGE);
        send_of(&world, &topic, first + 4..first + 6, 10);
        while world.store().index_keys().unwrap() {}
    }
    world.store().close(world.now()).unwrap();
    world.stop();
    let files = std::fs::read_dir(world.dir().join("keys")).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    std::fs::remove_file(&files[0]).unwrap();
    std::fs::remove_file(&files[2]).unwrap();
    world.start();
    assert_eq!(gaps(&world), (2, 0));
    world
}

#[test]
fn files_that_are_missing_are_made_again_one_at_each_round() {
    let world = without_files();
    for (has_more, left) in [(true, 2), (false, 1), (true, 1), (false, 0), (false, 0)] {
        assert_eq!(world.store().index_keys().unwrap(), has_more, "{left}");
        assert_eq!(gaps(&world), (left, 0));
        check_found(&world, 18, &format!("{left} left"));
    }
}

#[test]
fn what_was_read_of_a_gap_is_not_taken_for_another() {
    let world = without_files();
    let index = || world.store().index_keys().unwrap();
    assert!(index(), "the first step of the oldest");
    let topic = world.store().topic("orders").unwrap();
    send_of(&world, &topic, 18..24, LARGE);
    send_of(&world, &topic, 24..26, 10);
    assert!(index(), "skipped");
    assert_eq!(gaps(&world), (3, 1));
    (0..3).for_each(|_| _ = index());
    assert_eq!(gaps(&world), (2, 0), "filled by its own three steps");
    while index() || gaps(&world).0 > 0 {}
    check_found(&world, 26, "filled");
}
