//! A scrub finds what nobody has asked for, in the log, the key index and the views.

use super::{
    scene::{Flipped, SEGMENT_BYTES, Scene, Views},
    views::Closed,
};
use crate::{Now, log::MARK_TOPIC};

const DAY_MS: u64 = 24 * 3_600_000;

fn now(wall_ms: u64) -> Now {
    Now { wall_ms, monotonic_ms: 0 }
}

fn batches() -> Vec<String> {
    (0..10).map(|number| format!("{number:0700}")).collect()
}

fn scene() -> Scene {
    let bodies = batches();
    let batches: Vec<_> = bodies.iter().map(|body| [body.as_str()]).collect();
    Scene::with(&batches.iter().map(|batch| &batch[..]).collect::<Vec<_>>())
}

/// Steps until the pass ends; returns how many steps it took.
fn pass(store: &crate::Store, bytes_max: u64, wall_ms: u64) -> u32 {
    let mut steps = 1;
    while store.scrub_step(bytes_max, DAY_MS, now(wall_ms)).unwrap() {
        steps += 1;
        assert!(steps < 10_000, "a pass ends");
    }
    steps
}

fn scrubbed(scene: &Scene, at: u64, bit: u32) -> Flipped {
    let flipped = scene.flipped(at, bit, Views::Kept);
    pass(&flipped.store, 1 << 20, 1);
    flipped
}

#[test]
fn scrub_finds_a_flip_in_any_byte_of_a_record_that_nobody_has_read() {
    let scene = Scene::with(&[&["a", "bad", "c"], &["d"]]);
    let place = scene.messages[1].1.clone();
    for at in place.clone() {
        let flipped = scene.flipped(at, (at % 8) as u32, Views::Kept);
        assert_eq!(flipped.store.status().damaged_records, 0, "nobody has read it");
        pass(&flipped.store, 1 << 20, 1);
        assert!(flipped.reports_only(place.start), "byte {}", at - place.start);
        assert_eq!(flipped.read_all(), ["a", "c", "d"]);
        assert!(flipped.reports_only(place.start), "the reader met it again");
    }
}

#[test]
fn scrub_finds_a_flip_in_any_mark_header_or_filler() {
    let scene = scene();
    let mut own = scene.places();
    own.retain(|(topic, _)| topic != "orders");
    // Nothing says that the last mark was synced: a start takes it for a torn tail.
    assert_eq!(own.pop().unwrap().0, MARK_TOPIC);
    assert!(own.iter().any(|(topic, _)| topic == MARK_TOPIC));
    for (topic, place) in own {
        // Of a filler, the first 20 bytes mean something.
        let flipped = scrubbed(&scene, place.start + 13, 5);
        assert!(flipped.reports_only(place.start), "{topic:?} {place:?}: {:?}", flipped.report);
    }
}

#[test]
fn scrub_reports_a_place_once_however_often_it_goes_by() {
    let scene = scene();
    let place = scene.messages[2].1.clone();
    let flipped = scrubbed(&scene, place.start + 100, 1);
    assert!(flipped.reports_only(place.start));
    pass(&flipped.store, 1 << 20, 1 + DAY_MS);
    assert!(flipped.reports_only(place.start));
    assert_eq!(flipped.store.status().scrub.passes, 2);
}

#[test]
fn pass_begins_when_the_interval_has_gone_by_and_not_before() {
    let store = scene().open(Views::Kept).store;
    assert!(pass(&store, 1 << 20, 1_000) > 1);
    let status = store.status().scrub;
    assert_eq!((status.passes, status.last_pass_ms, status.is_running), (1, 1_000, false));
    assert!(!store.scrub_step(1 << 20, DAY_MS, now(1_000 + DAY_MS - 1)).unwrap());
    assert_eq!(store.status().scrub, status, "nothing was read");
    assert!(store.scrub_step(1 << 20, DAY_MS, now(1_000 + DAY_MS)).unwrap());
    assert!(store.status().scrub.is_running);
}

#[test]
fn step_reads_no_more_than_it_may_and_a_record_on_top() {
    let store = scene().open(Views::Kept).store;
    let (mut read, mut steps) = (0, 0);
    while store.scrub_step(2_000, DAY_MS, now(1)).unwrap() {
        let bytes = store.status().scrub.bytes;
        // Records take 1,600 bytes, and behind the last one that fits the filler takes what is left of its segment.
        assert!(bytes - read <= 2_000 + 1_800 + 2_000, "{} in one step", bytes - read);
        (read, steps) = (bytes, steps + 1);
    }
    assert!(read >= 2 * SEGMENT_BYTES && steps > 8, "{read} bytes in {steps} steps");
}

#[test]
fn scrub_goes_on_after_a_restart_where_it_was() {
    let scene = scene();
    let opened = scene.open(Views::Kept);
    while opened.store.status().scrub.position.0 < SEGMENT_BYTES + 1_000 {
        assert!(opened.store.scrub_step(500, DAY_MS, now(1_000)).unwrap());
    }
    let opened = opened.reopened();
    let status = opened.store.status().scrub;
    assert!(status.is_running);
    assert_eq!(status.position.0, SEGMENT_BYTES, "from the segment's begin on");
    pass(&opened.store, 1 << 20, 1_001);
    let opened = opened.reopened();
    let status = opened.store.status().scrub;
    assert_eq!((status.is_running, status.last_pass_ms), (false, 1_001));
    assert!(!opened.store.scrub_step(1 << 20, DAY_MS, now(1_002)).unwrap(), "the day is not over");
}

#[test]
fn flip_in_what_a_scrub_remembers_is_no_damage() {
    let scene = scene();
    let opened = scene.open(Views::Kept);
    while opened.store.status().scrub.position.0 < SEGMENT_BYTES {
        assert!(opened.store.scrub_step(500, DAY_MS, now(1_000)).unwrap());
    }
    let path = std::path::Path::new("/store/scrub");
    for at in 0..opened.disk.bytes(path).unwrap().len() {
        let disk = opened.disk.copy();
        disk.damage(path, |bytes| bytes[at] ^= 1 << (at % 8));
        let store = scene.open_on(disk, Views::Kept).store;
        pass(&store, 1 << 20, 5 * DAY_MS);
        let status = store.status();
        assert_eq!((status.damaged_records, status.damaged_files), (0, 0), "byte {at}: {status:?}");
    }
}

#[test]
fn scrub_finds_a_flip_in_a_key_file_and_it_is_made_again() {
    let scene = Scene::with(&[&["a", "b", "c"], &["d"]]);
    let path = scene.key_file();
    for at in [3, 20, 4096 + 5, 4096 + 4081] {
        // The newest file is read at a start if it is small: the flip comes behind it.
        let opened = scene.open(Views::Kept);
        opened.store.close(now(2)).unwrap();
        opened.disk.damage(&path, |bytes| bytes[at] ^= 4);
        let opened = opened.reopened();
        pass(&opened.store, 1 << 20, 3);
        let status = opened.store.status();
        assert_eq!((status.damaged_files, status.damaged_records), (1, 0), "byte {at}");
        assert_eq!(status.damage[0].path, path);
    }
}

#[test]
fn scrub_finds_a_flip_in_a_table_of_the_views() {
    let closed = Closed::new();
    // What a start reads is in memory, and is found by the next start.
    let file = closed.largest_table();
    let mut copied = closed.copy();
    copied.open();
    copied.flip(&file, 8);
    pass(copied.store(), 4_096, 1);
    let status = copied.store().status();
    assert_eq!((status.damaged_files, status.scrub.passes), (1, 1), "{status:?}");
    assert!(status.damage[0].path.ends_with(&file), "{:?}", status.damage);
    copied.store = None;
    assert!(copied.open().views_rebuilt);
    pass(copied.store(), 4_096, 1 + DAY_MS);
    let status = copied.store().status();
    assert_eq!(status.damaged_files, 1, "the one that the start has told");
    assert_eq!(copied.entries().unwrap(), closed.dump);
}
