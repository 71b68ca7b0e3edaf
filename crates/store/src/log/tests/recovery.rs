//! Opening again: torn tails are cut, rot is reported and skipped, what cannot be understood is refused.

use std::path::Path;

use gantry_model::QueueOffset;
use gantry_record::RecordView;

use super::*;
use crate::log::{
    DamageReason, FORMAT_VERSION, SegmentHeader,
    memory_files::Operation,
    own,
    own::{SEGMENT_TOPIC, header_record_bytes},
};

/// Three records that are synced and marked, and one after.
fn marked() -> (World, Vec<PhysicalOffset>) {
    let mut world = World::new();
    let mut places = world.append_synced(&[b"one", b"two", b"three"]);
    places.extend(world.append(&[b"four"]));
    (world, places)
}

#[test]
fn torn_tail_is_cut_at_every_length_of_the_last_record() {
    let mut world = World::new();
    world.append_synced(&[b"first", b"second"]);
    let last = world.append(&[b"torn"])[0];
    let end = world.log.written();
    for kept in 0..end.0 - last.0 {
        for fill in [0x00, 0xFF] {
            let disk = world.disk.copy();
            disk.damage(Path::new("/log/00000000000000000000"), |bytes| {
                bytes[(last.0 + kept) as usize..].fill(fill);
            });
            let mut world = World::on(disk);
            assert_eq!(world.bodies(), [&b"first"[..], b"second"], "{kept}");
            assert_eq!((world.report.end, &world.report.damage), (last, &vec![]));
            // The size's first three bytes are zero anyway.
            let is_clean = kept <= 3 && fill == 0;
            assert_eq!(world.report.cut.is_none(), is_clean, "{kept}");
            world.append(&[b"third"]);
            let world = world.reopen();
            assert_eq!(world.bodies(), [&b"first"[..], b"second", b"third"], "{kept}");
        }
    }
}

#[test]
fn torn_tail_in_a_file_that_is_written_again_is_cut_wherever_its_old_bytes_show() {
    let mut world = World::new();
    for body in 0..3 {
        world.append_synced(&[&[body; 100], &[body; 3300]]);
    }
    let old = world.disk.bytes(Path::new("/log/00000000000000000000")).unwrap();
    world.writer.unlink_before(PhysicalOffset(SEGMENT_BYTES)).unwrap();
    world.append_synced(&[&[8; 100]]);
    world.append_synced(&[&[9; 600]]);
    let last = world.append(&[&[10; 100]])[0];
    let end = world.log.written().0;
    let (path, at) = world.place(last.0);
    assert_eq!(path, Path::new("/log/00000000000000012288"), "the segment that took the file");
    for kept in 0..(end - last.0) as usize {
        let disk = world.disk.copy();
        disk.damage(&path, |bytes| bytes[at + kept..].copy_from_slice(&old[at + kept..]));
        let mut world = World::on(disk);
        assert_eq!((world.report.end, &world.report.damage), (last, &vec![]), "{kept}");
        assert_eq!(world.bodies().last(), Some(&vec![9; 600]), "{kept}");
        world.append(&[b"next"]);
        let world = world.reopen();
        assert_eq!(world.bodies().last(), Some(&b"next".to_vec()), "{kept}");
        assert_eq!(world.report.damage, [], "{kept}");
    }
}

#[test]
fn file_that_ends_anywhere_in_its_unsynced_tail_opens_and_is_whole_again() {
    let mut world = World::new();
    world.append_synced(&[b"first"]);
    let last = world.append(&[b"torn"])[0];
    for kept in last.0..SEGMENT_BYTES {
        let disk = world.disk.copy();
        let path = Path::new("/log/00000000000000000000");
        disk.damage(path, |bytes| bytes.truncate(kept as usize));
        let world = World::on(disk);
        let count = if kept < world.log.written().0 { 1 } else { world.bodies().len() };
        assert_eq!(world.bodies().len(), count);
        assert_eq!(world.disk.bytes(path).unwrap().len() as u64, SEGMENT_BYTES);
        assert_eq!(world.report.damage, []);
    }
}

#[test]
fn record_behind_a_cut_does_not_come_back_when_the_log_grows_up_to_it() {
    let mut world = World::new();
    world.append_synced(&[b"first"]);
    let places = world.append(&[b"aaaa", b"bbbb", b"cccc", b"dddd"]);
    world.flip(places[0].0 + 60);
    let mut world = world.reopen();
    assert_eq!(world.report.cut.as_ref().map(|cut| cut.position), Some(places[0]));
    // With the mark that is due, it ends where the last of the four began.
    world.append(&[&[5; 106]]);
    assert_eq!(world.log.written(), places[3]);
    let world = world.reopen();
    assert_eq!(world.bodies(), [b"first".to_vec(), vec![5; 106]]);
}

#[test]
fn flip_of_any_byte_of_a_synced_record_is_reported_and_skipped_and_the_rest_is_served() {
    let (world, places) = marked();
    for at in places[1].0..places[2].0 {
        let broken = World { disk: world.disk.copy(), ..marked().0 };
        broken.flip(at);
        let mut broken = broken.reopen();
        assert_eq!(broken.report.cut, None, "byte {at}");
        let (records, damage) = broken.walk();
        let bodies: Vec<_> = records.iter().map(|(_, body)| &body[..]).collect();
        assert_eq!(bodies, [&b"one"[..], b"three", b"four"], "byte {at}");
        assert_eq!(damage.len(), 1);
        assert_eq!((damage[0].position, damage[0].end), (places[1], places[2]), "byte {at}");
        assert_eq!(damage[0].file_offset, places[1].0);
        assert_eq!(damage[0].path, Path::new("/log/00000000000000000000"));
        broken.append(&[b"five"]);
        assert_eq!(broken.bodies().len(), 4);
    }
}

#[test]
fn rot_within_the_scan_is_in_the_report_and_is_not_overwritten() {
    let (world, places) = marked();
    world.flip(places[0].0 + 88);
    let bytes = world.disk.bytes(Path::new("/log/00000000000000000000")).unwrap();
    let world = world.reopen();
    assert_eq!(world.report.damage.len(), 1);
    assert_eq!(world.report.damage[0].position, places[0]);
    assert!(matches!(world.report.damage[0].reason, DamageReason::Record(_)));
    assert_eq!(world.disk.bytes(Path::new("/log/00000000000000000000")).unwrap(), bytes);
}

#[test]
fn synced_record_overwritten_with_zeros_is_rot_and_no_end() {
    let (world, places) = marked();
    world.disk.damage(Path::new("/log/00000000000000000000"), |bytes| {
        bytes[places[0].0 as usize..places[2].0 as usize].fill(0);
    });
    let world = world.reopen();
    assert_eq!(world.bodies(), [&b"three"[..], b"four"]);
    assert_eq!(world.report.damage[0].reason, DamageReason::Unwritten);
}

#[test]
fn flip_in_the_unsynced_tail_is_cut_with_all_that_follows() {
    let mut world = World::new();
    world.append_synced(&[b"first"]);
    let places = world.append(&[b"second", b"third"]);
    world.append(&[&[7; 3700]]);
    world.append(&[b"in the next segment"]);
    world.flip(places[0].0 + 30);
    let world = world.reopen();
    assert_eq!(world.bodies(), [b"first"]);
    let cut = world.report.cut.as_ref().unwrap();
    assert_eq!((cut.position, cut.segments_removed), (places[0], 2));
    assert_eq!(world.report.damage, []);
}

#[test]
fn every_flip_in_a_sealed_segments_header_is_reported_and_its_records_are_served() {
    let mut world = World::new();
    for body in 1..=3 {
        world.append_synced(&[&[body; 1500], &[body + 10; 1500]]);
    }
    world.append(&[b"marks"]);
    for segment in 0..3 {
        for at in 0..header_record_bytes() {
            let broken = World { disk: world.disk.copy(), ..World::new() };
            broken.flip(segment * SEGMENT_BYTES + at);
            let broken = broken.reopen();
            assert_eq!(broken.bodies().len(), 7, "segment {segment} byte {at}");
            assert_eq!(broken.report.damage.len(), 1, "segment {segment} byte {at}");
            let damage = &broken.report.damage[0];
            assert_eq!((damage.position.0, damage.file_offset), (segment * SEGMENT_BYTES, 0));
            assert_eq!(broken.report.store_id, StoreId([1; 16]));
            assert_eq!(broken.report.end, world.log.written());
        }
    }
}

#[test]
fn only_header_of_a_log_may_break_and_the_marks_still_tell_the_store() {
    let (world, _) = marked();
    world.flip(60);
    let other = LogOptions { new_store_id: StoreId([9; 16]), ..options() };
    let world = World::try_on(world.disk, other).unwrap();
    assert_eq!(world.report.store_id, StoreId([1; 16]));
    assert_eq!(world.bodies().len(), 4);
    assert_eq!(world.report.damage.len(), 1);
}

#[test]
fn new_segment_whose_header_never_reached_the_disk_is_removed() {
    let mut world = World::new();
    world.append_synced(&[&[1; 3500]]);
    world.append(&[&[2; 3500]]);
    for bytes in [0, 10, 100, 4096] {
        let disk = world.disk.copy();
        disk.damage(Path::new("/log/00000000000000004096"), |content| {
            content.clear();
            content.resize(bytes, 0);
        });
        let mut world = World::on(disk);
        assert_eq!((world.bodies(), &world.report.damage), (vec![vec![1; 3500]], &vec![]));
        world.append(&[&[3; 3500]]);
        assert_eq!(world.reopen().bodies(), [vec![1; 3500], vec![3; 3500]]);
    }
}

fn five_segments() -> World {
    let mut world = World::new();
    for body in 0..5 {
        world.append_synced(&[&[body; 3500]]);
    }
    world
}

#[test]
fn missing_segment_is_reported_by_name_and_both_sides_are_served() {
    let world = five_segments();
    super::super::files::Files::remove(&world.disk, Path::new("/log/00000000000000008192"))
        .unwrap();
    let world = world.reopen();
    let (records, damage) = world.walk();
    assert_eq!(records.iter().map(|(_, body)| body[0]).collect::<Vec<_>>(), [0, 1, 3, 4]);
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].path, Path::new("/log/00000000000000008192"));
    assert_eq!((damage[0].position.0, damage[0].end.0), (8192, 12288));
    assert_eq!(damage[0].reason, DamageReason::MissingSegment);
}

#[test]
fn truncated_and_zeroed_segments_are_reported_with_file_and_offset() {
    for kept in [0, 100, 193, 1000] {
        for zeroed in [false, true] {
            let world = five_segments();
            let path = Path::new("/log/00000000000000004096");
            world.disk.damage(path, |bytes| {
                bytes.truncate(kept);
                bytes.resize(if zeroed { 4096 } else { kept }, 0);
            });
            let world = world.reopen();
            let (records, damage) = world.walk();
            let bodies: Vec<_> = records.iter().map(|(_, body)| body[0]).collect();
            assert_eq!(bodies, [0, 2, 3, 4], "{kept} {zeroed}");
            assert_eq!((damage.len(), damage[0].path.as_path()), (1, path));
            let offset = if kept < 193 { 0 } else { 193 };
            assert_eq!((damage[0].file_offset, damage[0].end.0), (offset, 8192));
        }
    }
}

#[test]
fn synced_end_that_is_gone_is_reported_and_its_positions_are_never_used_again() {
    let mut world = five_segments();
    let end = world.log.written();
    world.options.scan_from = end;
    super::super::files::Files::remove(&world.disk, Path::new("/log/00000000000000016384"))
        .unwrap();
    let mut world = world.reopen();
    assert_eq!(world.report.end, end);
    assert_eq!(world.report.damage.len(), 1);
    assert_eq!(world.report.damage[0].position.0, 16384);
    assert_eq!(world.report.last_time_ms, 1000);
    assert!(world.append(&[b"new"])[0] >= end);
    let world = world.reopen();
    assert_eq!(world.bodies().len(), 5);
}

#[test]
fn log_of_a_newer_format_is_refused_with_both_versions() {
    let world = five_segments();
    let (position, mut record) = (PhysicalOffset(4096), Vec::new());
    let header = SegmentHeader {
        store_id: StoreId([1; 16]),
        epoch: 0,
        newest_image: None,
        segment_bytes: SEGMENT_BYTES,
        synced: position,
        last_time_ms: 0,
    };
    own::put_header(&header, &mut record);
    let view = RecordView::parse(&record).unwrap();
    let mut body = view.body().to_vec();
    body[..4].copy_from_slice(&(FORMAT_VERSION + 1).to_be_bytes());
    body.extend_from_slice(b"what a newer release adds");
    let mut newer = Vec::new();
    let slot = gantry_record::encode(
        &Draft { body: &body, topic: SEGMENT_TOPIC, ..draft(b"") },
        &mut newer,
    );
    slot.unwrap().seal(&mut newer, QueueOffset(0), position, 0);
    world.disk.damage(Path::new("/log/00000000000000004096"), |bytes| {
        bytes[..newer.len()].copy_from_slice(&newer);
    });
    let before = world.disk.asked().len();
    let error = World::try_on(world.disk.clone(), options()).err().unwrap();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }), "{error}");
    let changes = [Operation::Write, Operation::Resize, Operation::Remove, Operation::Rename];
    assert!(world.disk.asked()[before..].iter().all(|a| !changes.contains(&a.operation)));
}

#[test]
fn segments_of_two_stores_in_one_folder_are_refused() {
    let world = five_segments();
    let other = LogOptions { new_store_id: StoreId([2; 16]), ..options() };
    let mut stranger = World::try_on(MemoryFiles::new(), other).unwrap();
    for body in 0..5 {
        stranger.append_synced(&[&[body; 3500]]);
    }
    let path = Path::new("/log/00000000000000008192");
    let bytes = stranger.disk.bytes(path).unwrap();
    world.disk.damage(path, |content| content.clone_from(&bytes));
    let error = World::try_on(world.disk, options()).err().unwrap();
    assert!(matches!(&error, OpenError::MixedStores { path: p, .. } if p == path), "{error}");
}

#[test]
fn overlapping_segments_are_refused() {
    let world = five_segments();
    let bytes = world.disk.bytes(Path::new("/log/00000000000000004096")).unwrap();
    let path = Path::new("/log/00000000000000005000");
    super::super::files::Files::create(&world.disk, path).unwrap();
    world.disk.damage(path, |content| content.clone_from(&bytes));
    let error = World::try_on(world.disk, options()).err().unwrap();
    assert!(matches!(error, OpenError::Overlap { base: 5000, end: 8192, .. }), "{error}");
}

/// A record as it would lie at `position`, for a body that claims to be the log.
fn forged(topic: &str, body: &[u8], position: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let slot = gantry_record::encode(&Draft { topic, ..draft(body) }, &mut out).unwrap();
    slot.seal(&mut out, QueueOffset(0), PhysicalOffset(position), 1);
    out
}

#[test]
fn forged_mark_in_a_torn_body_does_not_turn_the_torn_tail_into_rot() {
    let mut world = World::new();
    world.append_synced(&[b"first"]);
    world.append(&[b"second"]);
    // The body begins 88 bytes into its record.
    let at = world.writer.next_position().0 + 88;
    let mut body = [0; 24];
    body[16..].copy_from_slice(&u64::MAX.to_be_bytes());
    let forged = forged(own::MARK_TOPIC, &body, at);
    let torn = world.append(&[&forged])[0];
    world.flip(torn.0 + 20);
    let world = world.reopen();
    assert_eq!(world.report.cut.as_ref().map(|cut| cut.position), Some(torn));
    assert_eq!(world.report.damage, []);
}

#[test]
fn forged_record_in_a_damaged_body_is_never_delivered() {
    // Flips that hide the damaged record's size, and one that does not.
    for flipped in [0, 3, 5, 40] {
        let mut world = World::new();
        world.append_synced(&[b"first"]);
        world.append(&[b"second"]);
        let at = world.writer.next_position().0 + 88;
        let mut body = forged("orders", b"forged", at);
        body.extend_from_slice(&[0; 64]);
        let damaged = world.append_synced(&[&body])[0];
        world.append_synced(&[b"third"]);
        world.append(&[b"fourth"]);
        world.flip(damaged.0 + flipped);
        let world = world.reopen();
        assert_eq!(world.bodies(), [&b"first"[..], b"second", b"third", b"fourth"], "{flipped}");
        assert_eq!(world.walk().1.len(), 1);
    }
}

#[test]
fn torn_body_full_of_forged_records_is_searched_in_one_pass() {
    let disk = MemoryFiles::new();
    let large = LogOptions { segment_bytes: 4 << 20, ..options() };
    let mut world = World::try_on(disk, large).unwrap();
    world.append_synced(&[b"first"]);
    world.append(&[b"second"]);
    let start = world.writer.next_position().0 + 88;
    let mut body = Vec::new();
    while body.len() < 2 << 20 {
        let at = start + body.len() as u64;
        body.extend_from_slice(&forged("orders", b"", at));
    }
    let torn = world.append(&[&body])[0];
    let (path, _) = world.place(0);
    // Hides the size, so that every forged record is a candidate.
    world.disk.damage(&path, |bytes| bytes[torn.0 as usize] ^= 0x41);
    let before = world.disk.asked().len();
    let world = world.reopen();
    assert_eq!(world.report.cut.as_ref().map(|cut| cut.position), Some(torn));
    // Each look at a chain from another place would read the 2 MiB again.
    let reads = world.disk.asked().len() - before;
    assert!(reads < 200, "{reads} operations");
}

#[test]
fn two_damaged_places_are_both_reported() {
    let mut world = World::new();
    let first = world.append_synced(&[b"one", b"two"]);
    let second = world.append_synced(&[b"three", b"four"]);
    world.append(&[b"five"]);
    world.flip(first[0].0 + 1);
    world.flip(second[0].0 + 1);
    let world = world.reopen();
    assert_eq!(world.bodies(), [&b"two"[..], b"four", b"five"]);
    let places: Vec<_> = world.report.damage.iter().map(|damage| damage.position).collect();
    assert_eq!(places, [first[0], second[0]]);
}

#[test]
fn scan_begins_where_the_caller_knows_everything_to_be_synced() {
    let mut world = World::new();
    world.append(&[b"one"]);
    let from = world.log.written();
    world.append(&[b"two"]);
    world.options.scan_from = from;
    let world = world.reopen();
    assert_eq!(world.report.scanned_from, from);
    assert_eq!(world.bodies().len(), 2);
}

#[test]
fn what_is_read_back_is_opened_again_with_another_segment_length() {
    let mut world = five_segments();
    world.options.segment_bytes = 8192;
    let mut world = world.reopen();
    for body in 5..9 {
        world.append(&[&[body; 3500]]);
    }
    let world = world.reopen();
    let bodies: Vec<_> = world.bodies().iter().map(|body| body[0]).collect();
    assert_eq!(bodies, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(world.report.damage, []);
}

#[test]
fn log_whose_records_do_not_lead_to_its_end_is_read_a_few_times_and_not_once_for_each_record() {
    let options = LogOptions { segment_bytes: 8 << 20, ..options() };
    let mut world = World::try_on(MemoryFiles::new(), options.clone()).unwrap();
    let body = [7; 2048];
    let places = world.append_synced(&vec![&body[..]; 2000]);
    let (last, end) = (places[places.len() - 1], world.log.written());
    let disk = world.disk.copy();
    // As when retention takes back the end of a file while it is looked at.
    disk.damage(Path::new("/log/00000000000000000000"), |bytes| bytes[last.0 as usize..].fill(0));
    let world = World::try_on(disk, LogOptions { scan_from: end, ..options }).unwrap();
    assert_eq!(world.report.damage.len(), 1, "the last record is lost");
    let asked = world.disk.asked();
    let reads = asked.iter().filter(|asked| asked.operation == Operation::Read);
    let read: u64 = reads.map(|asked| asked.bytes).sum();
    assert!(read <= 16 * end.0, "{read} bytes read of {end}");
}
