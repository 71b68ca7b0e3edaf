//! Appending, reading, syncing and giving up segments on a disk that works.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use bytes::BytesMut;
use gantry_model::{PhysicalOffset, QueueOffset};
use gantry_record::RecordView;

use super::*;
use crate::log::{
    AppendError, Patience, ReadError, Shortage, files::Files, memory_files::Operation,
};

/// What the disk in memory calls a block.
const BLOCK_BYTES: usize = 512;

fn writes(world: &World) -> usize {
    world.disk.asked().iter().filter(|asked| asked.operation == Operation::Write).count()
}

#[test]
fn appended_records_verify_at_their_positions_with_what_the_caller_and_the_log_decided() {
    let mut world = World::new();
    let mut batch = batch(&[b"one", b"two"]);
    batch.set_queue_offset(0, QueueOffset(7));
    batch.set_queue_offset(1, QueueOffset(8));
    let appended = world.writer.append(&mut batch, 1234).unwrap();
    for (index, body) in [b"one", b"two"].into_iter().enumerate() {
        let position = appended.start.plus(batch.offset_in_batch(index));
        let mut out = BytesMut::from(&b"before"[..]);
        world
            .log
            .read(position, batch.record_bytes(index) as usize, Patience::Wait, &mut out)
            .unwrap();
        assert_eq!(out[6..], *batch.record(index));
        let record = RecordView::verify(&out[6..], position).unwrap();
        assert_eq!((record.body(), record.store_time_ms()), (&body[..], 1234));
        assert_eq!(record.queue_offset(), QueueOffset(7 + index as u64));
    }
    assert_eq!(world.log.written(), appended.end);
    assert_eq!(world.log.synced(), PhysicalOffset(0));
}

#[test]
fn append_is_one_write_call_and_two_when_it_rolls() {
    let mut world = World::new();
    let mut rolls = 0;
    for _ in 0..100 {
        let (before, segments) = (writes(&world), world.log.segments().len());
        world.append(&[&[1; 100], &[2; 100]]);
        world.log.sync().unwrap();
        let rolled = segments > 0 && world.log.segments().len() > segments;
        rolls += usize::from(rolled);
        assert_eq!(writes(&world) - before, if rolled { 2 } else { 1 });
    }
    assert!(rolls > 5, "{rolls}");
}

#[test]
fn roll_leaves_every_record_whole_at_every_size_of_the_remainder() {
    for size in 0..400 {
        let mut world = World::new();
        let (filling, last) = (vec![1; 3200], vec![2; size]);
        world.append_synced(&[&filling]);
        world.append(&[&last]);
        world.append(&[b"after"]);
        let expected = vec![filling, last, b"after".to_vec()];
        assert_eq!(world.bodies(), expected, "{size}");
        let world = world.reopen();
        assert_eq!((world.bodies(), &world.report.cut), (expected, &None), "{size}");
        assert_eq!(world.report.damage, []);
    }
}

#[test]
fn store_time_never_goes_back_also_not_after_a_restart_with_nothing_to_scan() {
    let mut world = World::new();
    world.append_at(&[b"old"], 100);
    world.append_at(&[b"a"], 5000);
    world.append_at(&[b"b"], 3000);
    assert_eq!(world.writer.last_time_ms(), 5000);
    world.log.sync().unwrap();
    world.options.scan_from = world.log.written();
    let mut world = world.reopen();
    assert_eq!(world.report.scanned_from, world.report.end);
    assert_eq!(world.report.last_time_ms, 5000);
    let mut batch = batch(&[b"c"]);
    assert_eq!(world.writer.append(&mut batch, 1).unwrap().store_time_ms, 5000);
}

#[test]
fn mark_is_written_with_the_first_append_after_a_sync_and_not_again() {
    let mut world = World::new();
    world.append_synced(&[b"a"]);
    let before = world.writer.next_position();
    let marked = world.append(&[b"b"])[0];
    assert!(marked > before);
    let before = world.writer.next_position();
    assert_eq!(world.append(&[b"c"])[0], before);
    world.log.sync().unwrap();
    let mut empty = RecordBatch::new();
    assert!(world.writer.append(&mut empty, 0).unwrap().end > before);
    let end = world.writer.next_position();
    assert_eq!(world.writer.append(&mut empty, 0).unwrap().end, end);
}

#[test]
fn position_for_foretells_where_the_next_batch_lands_whatever_is_synced_meanwhile() {
    let mut world = World::new();
    for round in 0..200_usize {
        let body = vec![9; round * 37 % 900];
        let mut batch = batch(&[&body]);
        let foretold = world.writer.position_for(batch.bytes());
        if round % 3 == 0 {
            world.log.sync().unwrap();
        }
        assert_eq!(world.writer.append(&mut batch, 1).unwrap().start, foretold, "{round}");
    }
}

#[test]
fn batch_that_no_segment_can_hold_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.append(&[b"a"]);
    let error = world.writer.append(&mut batch(&[&[0; 4000]]), 1).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { bytes_max: 3883, .. }), "{error}");
    world.append(&[b"b"]);
    assert_eq!(world.bodies(), [b"a", b"b"]);
}

#[test]
fn read_outside_of_what_is_written_is_an_error_and_takes_no_memory() {
    let mut world = World::new();
    world.append(&[b"a"]);
    let mut out = BytesMut::new();
    for (position, bytes) in [(0, 5000), (4096, 1), (u64::MAX, 10), (0, usize::MAX)] {
        let error =
            world.log.read(PhysicalOffset(position), bytes, Patience::Wait, &mut out).unwrap_err();
        assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}");
    }
    assert_eq!(out.capacity(), 0);
}

#[test]
fn unlink_gives_up_whole_synced_segments_and_uses_two_files_again() {
    let mut world = World::new();
    for _ in 0..30 {
        world.append(&[&[3; 1000]]);
    }
    let third = world.log.segments()[3].base;
    assert_eq!(world.writer.unlink_before(third).unwrap(), 0, "nothing is synced");
    world.log.sync().unwrap();
    assert_eq!(world.writer.unlink_before(third.plus(1)).unwrap(), 3);
    assert_eq!(world.log.start(), third);
    assert_eq!(world.writer.removed_bytes(), SEGMENT_BYTES, "two wait to be written again");
    let error =
        world.log.read(PhysicalOffset(0), 10, Patience::Wait, &mut BytesMut::new()).unwrap_err();
    assert!(matches!(error, ReadError::BelowStart { .. }), "{error}");

    let created = |world: &World| {
        world.disk.asked().iter().filter(|asked| asked.operation == Operation::Create).count()
    };
    let before = created(&world);
    let segments = world.log.segments().len();
    while world.log.segments().len() < segments + 3 {
        world.append(&[&[4; 1000]]);
    }
    assert_eq!(created(&world) - before, 1, "two of three were there");
    let (records, damage) = world.walk();
    assert_eq!((records[0].0 >= third, damage), (true, vec![]));
    let count = records.len();
    let world = world.reopen();
    assert_eq!((world.bodies().len(), &world.report.damage), (count, &vec![]));
    assert_eq!(world.report.start, third);
    // A file that waits may hold records of positions to come: it is not used after a restart.
    let names = Files::list(&world.disk, &world.options.dir).unwrap();
    assert!(names.iter().all(|name| !name.starts_with("free-")), "{names:?}");
}

/// Else the system would have to read the old block from the device, and whoever sends would wait for it.
#[test]
fn block_of_a_file_that_is_written_again_is_written_whole_with_its_first_record() {
    let mut world = World::new();
    for _ in 0..12 {
        world.append_synced(&[&[3; 1000]]);
    }
    let reused = world.log.segments()[2].base;
    assert_eq!(world.writer.unlink_before(reused).unwrap(), 2);
    let (first, mut old_blocks) = (world.log.segments().len(), 0);
    for size in (0..).step_by(37) {
        world.append(&[&vec![7; size % 900]]);
        if world.log.segments().len() > first + 2 {
            break;
        }
        let (path, at) = world.place(world.writer.next_position().0);
        if world.log.segments().len() > first {
            let bytes = world.disk.bytes(&path).unwrap();
            let (rest, old) = bytes[at..].split_at(at.next_multiple_of(BLOCK_BYTES) - at);
            assert_eq!(rest, vec![0; rest.len()], "behind {at}");
            old_blocks += usize::from(old.iter().any(|byte| *byte != 0));
        }
    }
    assert!(old_blocks > 5, "{old_blocks}: what a file held before is there up to the next block");
}

#[test]
fn file_that_is_about_to_go_counts_against_the_limit_until_it_is_gone() {
    let room = RoomOptions { bytes_max: Some(6 * SEGMENT_BYTES), ..RoomOptions::default() };
    let mut world = World::try_on(MemoryFiles::new(), LogOptions { room, ..options() }).unwrap();
    while world.writer.append(&mut batch(&[&[3; 1000]]), 1000).is_ok() {}
    assert!(matches!(world.log.shortage(), Some(Shortage::Limit { .. })));
    world.log.sync().unwrap();
    world.writer.give_up_before(world.log.segments()[3].base);
    assert_eq!(world.writer.leaving_bytes(), 3 * SEGMENT_BYTES);
    assert_eq!(world.writer.look_for_room(u64::MAX), None);
    world.writer.append(&mut batch(&[&[3; 1000]]), 1000).unwrap_err();

    while let Some(unlink) = world.writer.next_unlink() {
        let outcome = unlink.run(Duration::ZERO).unwrap();
        world.writer.unlinked(&unlink, outcome);
    }
    assert_eq!((world.writer.leaving_bytes(), world.writer.removed_bytes()), (0, SEGMENT_BYTES));
    assert_eq!(world.writer.look_for_room(u64::MAX), None, "two files wait to be written again");
    world.append(&[&[3; 1000]]);
}

#[test]
fn record_whose_segment_is_given_up_while_it_is_read_is_before_the_start_and_not_damage() {
    let mut world = World::new();
    world.append_synced(&[&[3; 3_000]]);
    let log = world.log.clone();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                match log.read(log.start(), 100, Patience::Wait, &mut BytesMut::new()) {
                    Ok(()) | Err(ReadError::BelowStart { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        for _ in 0..3_000 {
            world.append_synced(&[&[3; 3_000]]);
            world.writer.unlink_before(world.log.synced()).unwrap();
        }
        is_over.store(true, Ordering::Release);
        reader.join().unwrap().unwrap();
    });
}

#[test]
fn unlink_never_takes_the_segment_that_is_written() {
    let mut world = World::new();
    world.append_synced(&[b"a"]);
    assert_eq!(world.writer.unlink_before(PhysicalOffset(u64::MAX)).unwrap(), 0);
    assert_eq!(world.bodies(), [b"a"]);
}

#[test]
fn segments_tell_their_times_sizes_and_newest_image() {
    let mut world = World::new();
    world.append_at(&[&[0; 3500]], 100);
    world.append_at(&[&[0; 3500]], 200);
    world.writer.note_image(PhysicalOffset(77));
    world.append_at(&[&[0; 3500]], 300);
    let check = |world: &World| {
        let segments = world.log.segments();
        let times: Vec<_> = segments.iter().map(|s| (s.first_time_ms, s.last_time_ms)).collect();
        assert_eq!(times, [(100, 100), (200, 200), (300, 300)]);
        assert_eq!(segments[2].newest_image, Some(PhysicalOffset(77)));
        assert_eq!(segments[1].newest_image, None);
        assert_eq!(segments.iter().map(|s| s.is_sealed).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(segments[2].end, world.log.written());
    };
    check(&world);
    let world = world.reopen();
    assert_eq!(world.report.newest_image, Some(PhysicalOffset(77)));
    check(&world);
}

#[test]
fn concurrent_syncs_each_return_only_when_their_bytes_are_covered() {
    let world = World::new();
    let (log, writer) = (world.log.clone(), parking_lot::Mutex::new(world.writer));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let end = writer.lock().append(&mut batch(&[b"x"]), 1).unwrap().end;
                    assert!(log.sync().unwrap() >= end);
                }
            });
        }
    });
    assert_eq!(walk(&log).0.len(), 200);
}

#[test]
fn read_that_may_not_wait_gives_what_is_in_memory_and_never_half_of_it() {
    let mut world = World::new();
    let places = world.append(&[b"one", b"two"]);
    let size = (places[1].0 - places[0].0) as usize;
    let read = |world: &World, patience| {
        let mut out = BytesMut::from("before");
        let outcome = world.log.read(places[0], size, patience, &mut out);
        outcome.map(|()| out.split_off(6)).map_err(|error| (error, out))
    };
    world.disk.set_cold(true);
    let at_hand = read(&world, Patience::AtHand).expect("the tail is in memory");
    world.log.forget_blocks();
    let (error, out) = read(&world, Patience::AtHand).unwrap_err();
    assert!(matches!(error, ReadError::NotAtHand { position } if position == places[0]));
    assert_eq!(&out[..], b"before");
    assert_eq!(read(&world, Patience::Wait).unwrap(), at_hand);
    world.disk.set_cold(false);
    assert_eq!(read(&world, Patience::AtHand).unwrap(), at_hand);
}

#[test]
fn cold_read_tells_whether_the_cache_had_what_it_brought_and_reads_the_disk_if_not() {
    let mut world = World::new();
    let places = world.append(&[b"one", b"two"]);
    let size = (places[1].0 - places[0].0) as usize;
    for is_cold in [true, false] {
        world.disk.set_cold(is_cold);
        for (patience, was_there) in
            [(Patience::Cold, None), (Patience::ColdFromCache, Some(!is_cold))]
        {
            let ahead = || world.log.read_ahead(patience, std::iter::once(places[0]..places[1]));
            assert_eq!(ahead(), None, "the tail is in memory");
            world.log.forget_blocks();
            assert_eq!(ahead(), was_there);
            assert_eq!(ahead(), None, "it has been brought");
            let mut out = BytesMut::new();
            world.log.read(places[0], size, Patience::AtHand, &mut out).unwrap();
            RecordView::verify(&out, places[0]).unwrap();
        }
    }
}
