//! Disks that refuse: what is known to have failed leaves the log usable, what is not known stops it.

use std::io::ErrorKind;

use super::*;
use crate::log::{AppendError, memory_files::Operation};

fn try_append(world: &mut World, bodies: &[&[u8]]) -> Result<(), AppendError> {
    world.writer.append(&mut batch(bodies), 1000).map(|_| ())
}

#[test]
fn failed_sync_stops_writer_and_syncs_and_is_not_tried_again() {
    let mut world = World::new();
    world.append_synced(&[b"safe"]);
    world.append(&[b"lost"]);
    world.disk.fail(Operation::Sync, 0, ErrorKind::Other);
    world.log.sync().unwrap_err();
    let synced = world.log.synced();
    assert!(world.log.sync().is_err(), "the disk would say yes by now");
    assert_eq!(world.log.synced(), synced);
    assert!(matches!(try_append(&mut world, &[b"more"]), Err(AppendError::Stopped(_))));
    assert!(world.log.stopped().is_some());
    let syncs = world.disk.asked().iter().filter(|a| a.operation == Operation::Sync).count();
    assert_eq!(syncs, 2, "one that worked, one that failed");
}

#[test]
fn reopening_after_a_failed_sync_writes_the_dropped_bytes_again() {
    let mut world = World::new();
    world.append_synced(&[b"safe"]);
    world.append(&[b"dropped"]);
    world.disk.fail(Operation::Sync, 0, ErrorKind::Other);
    world.log.sync().unwrap_err();
    let world = world.reopen();
    assert_eq!(world.log.synced(), world.log.written());
    for seed in 0..20 {
        let world = World::on(world.disk.crash(seed));
        assert_eq!(world.bodies(), [b"safe".to_vec(), b"dropped".to_vec()]);
    }
}

#[test]
fn full_disk_refuses_the_batch_and_takes_the_next_at_the_same_place() {
    for written in 0..700 {
        let mut world = World::new();
        world.append_synced(&[b"first"]);
        let before = world.writer.next_position();
        world.disk.fail_write_after(Operation::Write, 0, ErrorKind::StorageFull, written);
        let error = try_append(&mut world, &[&[1; 20], &[2; 20], &[3; 20]]).unwrap_err();
        assert!(matches!(error, AppendError::Full { .. }), "{error}");
        assert_eq!((world.log.written(), world.writer.next_position()), (before, before));
        // As long as the refused batch's first record, so that its second one would follow.
        world.append(&[&[4; 20]]);
        let world = world.reopen();
        assert_eq!(world.bodies(), [b"first".to_vec(), vec![4; 20]], "{written}");
    }
}

#[test]
fn write_whose_effect_is_unknown_stops_the_writer() {
    let mut world = World::new();
    world.append_synced(&[b"first"]);
    world.disk.fail_write_after(Operation::Write, 0, ErrorKind::Other, 50);
    assert!(matches!(try_append(&mut world, &[b"x"]), Err(AppendError::Stopped(_))));
    assert!(matches!(try_append(&mut world, &[b"y"]), Err(AppendError::Stopped(_))));
    let mut world = world.reopen();
    world.append(&[b"z"]);
    assert_eq!(world.bodies(), [b"first".to_vec(), b"z".to_vec()]);
}

#[test]
fn wipe_that_fails_after_a_full_disk_stops_the_writer() {
    let mut world = World::new();
    world.append_synced(&[b"first"]);
    world.disk.fail_write_after(Operation::Write, 0, ErrorKind::StorageFull, 200);
    world.disk.fail(Operation::Write, 0, ErrorKind::StorageFull);
    assert!(matches!(try_append(&mut world, &[&[1; 200]]), Err(AppendError::Stopped(_))));
}

#[test]
fn roll_that_the_disk_refuses_leaves_the_log_as_it_was_and_works_later() {
    let faults = [
        (Operation::Create, 0),
        (Operation::Resize, 0),
        (Operation::Write, 0),
        (Operation::Write, 1),
    ];
    for (operation, spared) in faults {
        let mut world = World::new();
        world.append_synced(&[&[1; 3500]]);
        world.disk.fail(operation, spared, ErrorKind::StorageFull);
        let error = try_append(&mut world, &[&[2; 3500]]).unwrap_err();
        assert!(matches!(error, AppendError::Full { .. }), "{operation:?} {spared}: {error}");
        // Also a crash in this state must do no harm.
        for seed in 0..8 {
            let crashed = World::on(world.disk.crash(seed));
            assert_eq!((crashed.bodies().len(), &crashed.report.damage), (1, &vec![]));
        }
        if let Some(path) = world.writer.look_for_room(1 << 30) {
            world.log.make_spare(&path, SEGMENT_BYTES).unwrap();
            world.writer.add_spare(path);
            assert_eq!(world.writer.look_for_room(1 << 30), None);
        }
        world.append_synced(&[&[3; 3500]]);
        assert_eq!(world.bodies(), [vec![1; 3500], vec![3; 3500]]);
        let world = world.reopen();
        assert_eq!(world.bodies(), [vec![1; 3500], vec![3; 3500]], "{operation:?} {spared}");
        assert_eq!(world.report.damage, []);
    }
}

#[test]
fn segment_that_cannot_be_made_for_another_reason_is_an_error_and_works_later() {
    let mut world = World::new();
    world.append_synced(&[&[1; 3500]]);
    world.disk.fail(Operation::Create, 0, ErrorKind::PermissionDenied);
    let error = try_append(&mut world, &[&[2; 3500]]).unwrap_err();
    assert!(matches!(error, AppendError::NewSegment { .. }), "{error}");
    world.append(&[&[3; 3500]]);
    assert_eq!(world.bodies(), [vec![1; 3500], vec![3; 3500]]);
}

#[test]
fn folder_that_cannot_be_synced_stops_before_anything_in_a_new_segment_counts_as_synced() {
    let mut world = World::new();
    world.append_synced(&[&[1; 3500]]);
    let synced = world.log.synced();
    world.append(&[&[2; 3500]]);
    world.disk.fail(Operation::SyncDir, 0, ErrorKind::Other);
    world.log.sync().unwrap_err();
    assert_eq!(world.log.synced(), synced);
}

#[test]
fn segment_whose_file_cannot_go_is_forgotten_at_once_and_its_file_goes_with_the_next_try() {
    for operation in [Operation::Rename, Operation::SyncDir] {
        let mut world = World::new();
        for body in 0..5 {
            world.append_synced(&[&[body; 3500]]);
        }
        world.disk.fail(operation, 0, ErrorKind::Other);
        let start = PhysicalOffset(8192);
        world.writer.unlink_before(start).unwrap_err();
        assert_eq!((world.log.start(), world.bodies().len()), (start, 3));
        world.append(&[b"goes on"]);
        assert_eq!(world.writer.unlink_before(start).unwrap(), 2);
        let world = world.reopen();
        assert_eq!((world.report.start, &world.report.damage), (start, &vec![]));
    }
}
