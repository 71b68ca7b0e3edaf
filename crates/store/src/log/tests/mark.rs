//! The mark that ends a log at rest: at a segment's border, on a full disk, and in front of what comes after it.

use super::*;
use crate::log::own::{FILLER_BYTES_MIN, header_record_bytes, mark_record_bytes};

/// A synced log whose segment has `left` bytes left.
fn nearly_full(left: u64) -> World {
    let mut world = World::new();
    let size = batch(&[&[]]).bytes() as u64;
    let body = SEGMENT_BYTES - header_record_bytes() - size - left;
    world.append_synced(&[&vec![7; body as usize]]);
    assert_eq!(world.writer.next_position().0, SEGMENT_BYTES - left);
    world
}

#[test]
fn mark_without_room_in_its_segment_begins_another_one_whose_header_says_the_same() {
    for (left, end) in [
        (mark_record_bytes() + FILLER_BYTES_MIN, SEGMENT_BYTES - FILLER_BYTES_MIN),
        (mark_record_bytes() + FILLER_BYTES_MIN - 1, SEGMENT_BYTES + header_record_bytes()),
    ] {
        let mut world = nearly_full(left);
        assert!(world.writer.end_with_mark().unwrap(), "{left}");
        assert_eq!(world.writer.next_position().0, end, "{left}");
        world.log.sync().unwrap();
        assert!(!world.writer.end_with_mark().unwrap(), "{left}");
        world.flip(300);
        let world = world.reopen();
        assert_eq!((world.report.end.0, &world.report.cut), (end, &None), "{left}");
        assert_eq!(world.walk().1.len(), 1, "{left}");
    }
}

#[test]
fn mark_that_needs_a_segment_for_which_there_is_no_room_is_left_out() {
    let mut world = nearly_full(100);
    world.disk.set_capacity(world.disk.used());
    assert!(!world.writer.end_with_mark().unwrap());
    assert_eq!(world.writer.next_position().0, SEGMENT_BYTES - 100);
    world.disk.set_capacity(u64::MAX);
    world.log.0.shortage.set(None);
    assert!(world.writer.end_with_mark().unwrap());
}

#[test]
fn mark_has_the_time_of_the_record_before_it() {
    let mut world = World::new();
    world.append_at(&[b"a"], 5000);
    world.log.sync().unwrap();
    assert!(world.writer.end_with_mark().unwrap());
    assert_eq!(world.writer.last_time_ms(), 5000);
}

#[test]
fn flip_in_the_mark_is_rot_once_something_was_written_behind_it() {
    let mut world = World::new();
    world.append_synced(&[b"a"]);
    let at = world.writer.next_position().0;
    assert!(world.writer.end_with_mark().unwrap());
    world.log.sync().unwrap();
    world.append_synced(&[b"b"]);
    world.flip(at + 100);
    let world = world.reopen();
    assert_eq!((world.report.damage.len(), &world.report.cut), (1, &None));
    assert_eq!(world.bodies(), [b"a", b"b"]);
}
