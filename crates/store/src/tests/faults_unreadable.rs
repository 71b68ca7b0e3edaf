//! A scrub that meets bytes which the disk refuses to read: it says where, goes on behind them, and ends.

use gantry_model::PhysicalOffset;

use super::faults_world::FaultWorld;
use crate::{Flush, Now};

const DAY_MS: u64 = 24 * 3_600_000;
const PAGE_BYTES: u64 = 4096;
const MESSAGES: usize = 200;

fn body(number: usize) -> String {
    format!("{number:04} {}", "x".repeat(900))
}

/// Runs one pass; it takes few steps.
fn pass(world: &FaultWorld, days: u64) {
    let now = Now { wall_ms: world.now.wall_ms + days * DAY_MS, ..world.now };
    let mut steps = 0;
    while world.store.scrub_step(64 * 1024, DAY_MS, now).unwrap() {
        steps += 1;
        assert!(steps < 1_000, "a pass ends");
    }
    assert_eq!(world.store.status().scrub.passes, days, "it is a whole one");
}

fn file_of(world: &FaultWorld, position: PhysicalOffset) -> (std::path::PathBuf, u64) {
    let (path, at) = world.store.log.locate(position);
    (path, at.unwrap())
}

#[test]
fn scrub_reports_what_the_disk_does_not_give_once_and_finds_the_flip_behind_it() {
    let world = FaultWorld::new(Flush::Sync);
    let topic = world.topic("orders");
    // Each is synced, so that marks lie between them: what is found behind a bad place is trusted up to the next mark.
    let sent = |number| {
        let position = world.send(&topic, &body(number)).unwrap();
        world.store.sync().unwrap();
        position
    };
    let places: Vec<_> = (0..MESSAGES).map(sent).collect();
    world.settle();
    // Of one segment: the record with the bad sector, and a flipped one behind it.
    let (path, bad) = file_of(&world, places[10].plus(500));
    let page = bad / PAGE_BYTES * PAGE_BYTES;
    world.disk.spoil(&path, page..page + PAGE_BYTES);
    let (flipped_path, flipped) = file_of(&world, places[20]);
    assert_eq!(path, flipped_path);
    world.disk.damage(&path, |bytes| bytes[flipped as usize + 100] ^= 1);
    for day in 1..=2 {
        pass(&world, day);
        let status = world.store.status();
        assert_eq!(status.damaged_records, 2, "day {day}: {:?}", status.damage);
        let [unread, rotten] = &status.damage[..] else { panic!("{:?}", status.damage) };
        assert_eq!(unread.path, path);
        assert_eq!(unread.reason, "it cannot be read: bad sector");
        // It begins with the first record that has a byte in the bad page.
        let first = places.iter().position(|place| place.0 + 1800 > page).unwrap();
        let at = unread.position.unwrap();
        assert!((places[first - 1]..=places[first]).contains(&at), "{at}");
        assert_eq!(unread.file_offset, Some(file_of(&world, at).1));
        assert_eq!(rotten.position, Some(places[20]), "what lies behind was read");
    }
}

#[test]
fn scrub_ends_and_reads_the_others_when_the_disk_gives_nothing_of_a_segment() {
    let world = FaultWorld::new(Flush::Sync);
    let topic = world.topic("orders");
    for number in 0..MESSAGES {
        world.send(&topic, &body(number)).unwrap();
    }
    world.settle();
    let segments = world.store.log.segments();
    assert!(segments.len() > 2);
    let (path, _) = file_of(&world, segments[1].base);
    world.disk.spoil(&path, 0..u64::MAX);
    pass(&world, 1);
    let status = world.store.status();
    let [dead] = &status.damage[..] else { panic!("{:?}", status.damage) };
    assert_eq!((&dead.path, dead.file_offset), (&path, Some(0)));
    assert!(status.scrub.bytes > world.store.written().0 / 2, "the others were read");
}
