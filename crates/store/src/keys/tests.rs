//! Promises of the key index, on a disk in memory.

use std::io::ErrorKind;

use proptest::prelude::*;

use super::*;
use crate::log::memory_files::{MemoryFiles, Operation};

const DIR: &str = "/keys";
/// For 64 Ki entries in a file.
const FILE_ENTRIES: usize = 64 << 10;
const MEMORY_BYTES: usize = 3 * FILE_ENTRIES * size_of::<KeyEntry>();
const EVERYTHING: PhysicalOffset = PhysicalOffset(u64::MAX);

fn open(disk: &MemoryFiles, applied: u64) -> KeyIndex {
    let files = Arc::new(disk.clone());
    KeyIndex::open(Path::new(DIR), files, PhysicalOffset(applied), MEMORY_BYTES).unwrap()
}

/// Hash of the n-th record of a test, spread as real hashes are.
fn hash_of(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Adds a record of that range under each of its hashes.
fn add_one(index: &KeyIndex, range: Range<u64>, hashes: &[u64]) {
    let position = PhysicalOffset(range.start);
    let entries: Vec<_> = hashes.iter().map(|hash| KeyEntry { hash: *hash, position }).collect();
    index.add(&entries, PhysicalOffset(range.end));
}

/// Adds records of 100 bytes from `from` on, each with its own hash and the shared hash 7.
fn add(index: &KeyIndex, records: Range<u64>) {
    for n in records {
        add_one(index, n * 100..n * 100 + 100, &[hash_of(n), 7]);
    }
}

fn all() -> Range<PhysicalOffset> {
    PhysicalOffset(0)..PhysicalOffset(u64::MAX)
}

/// The parts before the log's end that no file covers.
fn gaps(index: &KeyIndex, log_start: u64) -> Vec<Range<PhysicalOffset>> {
    index.gaps(PhysicalOffset(log_start)).into_iter().map(|gap| gap.range).collect()
}

fn find(index: &KeyIndex, n: u64) -> Vec<u64> {
    index.lookup(hash_of(n), all(), 10).unwrap().iter().map(|at| at.0).collect()
}

#[test]
fn every_key_is_found_in_memory_and_in_files_and_after_a_restart() {
    let disk = MemoryFiles::new();
    let index = open(&disk, 0);
    add(&index, 0..3000);
    index.seal(EVERYTHING).unwrap();
    add(&index, 3000..3100);
    let check = |index: &KeyIndex, records: Range<u64>| {
        for n in records.step_by(3) {
            assert_eq!(find(index, n), [n * 100], "{n}");
        }
    };
    check(&index, 0..3100);
    assert_eq!(find(&index, 9999), [0; 0]);
    drop(index);
    let index = open(&disk, 310_000);
    assert_eq!(index.covered_to(), PhysicalOffset(300_000), "what was in memory is replayed");
    add(&index, 2900..3100);
    check(&index, 0..3100);
    index.seal(EVERYTHING).unwrap();
    check(&index, 0..3100);
    assert_eq!(index.size(), (1, 0), "the small file was joined with what came after");
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), [file_name(&(0..310_000))]);
}

#[test]
fn lookup_of_a_common_key_gives_the_newest_across_files_and_blocks_and_keeps_to_the_range() {
    let disk = MemoryFiles::new();
    let index = open(&disk, 0);
    for file in 0..3 {
        add(&index, file * 1000..file * 1000 + 1000);
        index.seal(EVERYTHING).unwrap();
    }
    add(&index, 3000..3010);
    let found = index.lookup(7, all(), 1500).unwrap();
    let expected: Vec<_> = (0..3010).rev().take(1500).map(|n| PhysicalOffset(n * 100)).collect();
    assert_eq!(found, expected);
    let range = PhysicalOffset(50_000)..PhysicalOffset(150_000);
    let found = index.lookup(7, range, 10_000).unwrap();
    assert_eq!((found.len(), found[0].0, found[999].0), (1000, 149_900, 50_000));
}

#[test]
fn adding_again_what_is_covered_changes_nothing() {
    let disk = MemoryFiles::new();
    let index = open(&disk, 0);
    add(&index, 0..10);
    add(&index, 5..12);
    assert_eq!(index.lookup(7, all(), 100).unwrap().len(), 12);
}

#[test]
fn file_is_due_after_64_mib_of_log_or_a_million_entries() {
    let disk = MemoryFiles::new();
    let index = open(&disk, 0);
    add_one(&index, 0..FILE_LOG_BYTES - 1, &[1]);
    assert!(!index.seal_if_due(EVERYTHING).unwrap());
    add_one(&index, FILE_LOG_BYTES - 1..FILE_LOG_BYTES, &[]);
    assert!(index.seal_if_due(EVERYTHING).unwrap());
    assert_eq!((index.size(), index.durable_to().0), ((1, 0), FILE_LOG_BYTES));
    let many = vec![5; FILE_ENTRIES];
    add_one(&index, FILE_LOG_BYTES..FILE_LOG_BYTES + 100, &many);
    assert!(index.seal_if_due(EVERYTHING).unwrap());
}

#[test]
fn broken_and_missing_files_become_gaps_and_can_be_filled() {
    for damage in 0..5 {
        let disk = MemoryFiles::new();
        let index = open(&disk, 0);
        let mut paths = Vec::new();
        for file in 0..3 {
            add(&index, file * 600..file * 600 + 600);
            index.seal(EVERYTHING).unwrap();
            paths.push(Path::new(DIR).join(file_name(&(file * 60_000..file * 60_000 + 60_000))));
        }
        match damage {
            0 => disk.remove(&paths[1]).unwrap(),
            1 => disk.damage(&paths[1], |bytes| bytes[9] ^= 1),
            2 => disk.damage(&paths[1], |bytes| bytes.truncate(5000)),
            3 => disk.damage(&paths[1], Vec::clear),
            _ => disk.damage(&paths[1], |bytes| bytes[5000] ^= 1),
        }
        drop(index);
        let index = open(&disk, 180_000);
        // A broken block is noticed when it is read.
        (600..1200).for_each(|n| _ = find(&index, n));
        let gap = PhysicalOffset(60_000)..PhysicalOffset(120_000);
        assert_eq!(gaps(&index, 0), std::slice::from_ref(&gap), "{damage}");
        assert_eq!(find(&index, 100), [10_000]);
        let entries = (600..1200)
            .map(|n| KeyEntry { hash: hash_of(n), position: PhysicalOffset(n * 100) })
            .collect();
        index.fill_gap(gap, entries).unwrap();
        assert_eq!(gaps(&index, 0), []);
        assert_eq!(find(&index, 700), [70_000]);
    }
}

#[test]
fn index_far_behind_the_views_has_a_gap_instead_of_a_long_replay() {
    let disk = MemoryFiles::new();
    let index = open(&disk, 0);
    add(&index, 0..10);
    index.seal(EVERYTHING).unwrap();
    drop(index);
    let applied = 1000 + REPLAY_BYTES_MAX + 1;
    let index = open(&disk, applied);
    assert_eq!(index.covered_to().0, applied);
    let gaps = gaps(&index, 500);
    assert_eq!((gaps[0].start.0, gaps.last().unwrap().end.0), (1000, applied));
    assert!(gaps.iter().all(|gap| gap.end.0 - gap.start.0 <= FILE_LOG_BYTES));
}

#[test]
fn skipped_records_are_a_gap_that_is_filled_before_others_and_part_by_part() {
    let disk = MemoryFiles::new();
    let index = open(&disk, 0);
    for file in 0..2 {
        add(&index, file * 10..file * 10 + 10);
        index.seal(EVERYTHING).unwrap();
    }
    drop(index);
    disk.remove(&Path::new(DIR).join(file_name(&(0..1000)))).unwrap();
    // The second file is read back.
    let index = open(&disk, 2000);
    index.skip_to(PhysicalOffset(5000)).unwrap();
    assert_eq!((index.covered_to().0, index.size()), (5000, (1, 0)));
    add(&index, 50..60);
    let gap = |range: Range<u64>, is_skipped| KeyGap {
        range: PhysicalOffset(range.start)..PhysicalOffset(range.end),
        is_skipped,
    };
    assert_eq!(index.gaps(PhysicalOffset(0)), [gap(0..1000, false), gap(2000..5000, true)]);
    let next = |end| index.next_gap(PhysicalOffset(0), PhysicalOffset(end));
    assert_eq!(next(5000), Some(gap(2000..5000, true)));
    assert_eq!(next(4999), Some(gap(0..1000, false)), "nothing behind the end");

    let entry = |n: u64| KeyEntry { hash: hash_of(n), position: PhysicalOffset(n * 100) };
    for (part, then) in [(20..30, gap(3000..5000, true)), (30..50, gap(0..1000, false))] {
        let range = PhysicalOffset(part.start * 100)..PhysicalOffset(part.end * 100);
        index.fill_gap(range, part.map(entry).collect()).unwrap();
        assert_eq!(next(5000), Some(then));
    }
    let check = |index: &KeyIndex, records: Range<u64>| {
        records.for_each(|n| assert_eq!(find(index, n), [n * 100]));
    };
    check(&index, 10..60);
    index.skip_to(PhysicalOffset(7000)).unwrap();
    check(&index, 10..60);
    assert_eq!(index.size(), (4, 0), "what memory held is in a file");
    let filled = Path::new(DIR).join(file_name(&(2000..3000)));
    disk.damage(&filled, |bytes| bytes[5000] ^= 1);
    assert_eq!(find(&index, 25), [0; 0]);
    assert_eq!(next(5000), Some(gap(0..1000, false)), "a file that breaks was skipped no more");
    index
        .fill_gap(PhysicalOffset(2000)..PhysicalOffset(3000), (20..30).map(entry).collect())
        .unwrap();
    drop(index);
    let index = open(&disk, 7000);
    check(&index, 10..60);
    assert_eq!(index.gaps(PhysicalOffset(0)), [gap(0..1000, false)]);
    assert_eq!(index.covered_to().0, 6000, "what was skipped behind the last file is replayed");
}

#[test]
fn file_holds_synced_records_alone_and_the_others_follow_in_the_next() {
    let disk = MemoryFiles::new();
    let index = open(&disk, 0);
    add(&index, 0..100);
    index.seal(PhysicalOffset(6000)).unwrap();
    assert_eq!((index.size(), index.durable_to().0), ((1, 80), 6000));
    assert_eq!(open(&disk, 6000).lookup(7, all(), 1000).unwrap().len(), 60);
    add(&index, 100..120);
    index.seal(EVERYTHING).unwrap();
    assert_eq!(
        (find(&index, 59), find(&index, 60), find(&index, 119)),
        (vec![5900], vec![6000], vec![11_900])
    );
    assert_eq!(index.lookup(7, all(), 1000).unwrap().len(), 120);
}

#[test]
fn files_below_the_start_of_the_log_are_dropped() {
    let disk = MemoryFiles::new();
    let index = open(&disk, 0);
    for file in 0..3 {
        add(&index, file * 100..file * 100 + 100);
        index.seal(EVERYTHING).unwrap();
    }
    index.drop_before(PhysicalOffset(20_000)).unwrap();
    assert_eq!(disk.list(Path::new(DIR)).unwrap().len(), 1);
    assert_eq!((find(&index, 50), find(&index, 250)), (vec![], vec![25_000]));
    assert_eq!(gaps(&index, 20_000), []);
}

#[test]
fn full_disk_leaves_entries_in_memory_and_a_later_seal_writes_them() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename] {
        let disk = MemoryFiles::new();
        let index = open(&disk, 0);
        add(&index, 0..100);
        disk.fail(operation, 0, ErrorKind::StorageFull);
        index.seal(EVERYTHING).unwrap_err();
        assert_eq!(find(&index, 50), [5000]);
        index.seal(EVERYTHING).unwrap();
        assert_eq!((find(&index, 50), index.size()), (vec![5000], (1, 0)));
    }
}

#[test]
fn memory_is_given_up_when_files_can_never_be_written() {
    let disk = MemoryFiles::new();
    let index = open(&disk, 0);
    let many = vec![5; FILE_ENTRIES];
    add_one(&index, 0..100, &many);
    add_one(&index, 100..200, &many);
    assert_eq!(index.size(), (0, 0));
    assert_eq!(gaps(&index, 0), [PhysicalOffset(0)..PhysicalOffset(200)]);
}

#[test]
fn power_cut_at_any_time_leaves_whole_files_or_none() {
    for seed in 0..40 {
        let disk = MemoryFiles::new();
        let index = open(&disk, 0);
        for file in 0..4 {
            add(&index, file * 300..file * 300 + 300);
            if seed % 5 == file {
                disk.fail(Operation::SyncDir, 0, ErrorKind::Other);
            }
            let _ = index.seal(EVERYTHING);
        }
        drop(index);
        let index = open(&disk.crash(seed), 120_000);
        let covered = index.covered_to().0 / 100;
        add(&index, covered..1200);
        let gaps = gaps(&index, 0);
        for n in (0..1200).step_by(7) {
            let is_gap = gaps.iter().any(|gap| gap.contains(&PhysicalOffset(n * 100)));
            assert_eq!(find(&index, n).is_empty(), is_gap, "seed {seed}, {n}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn lookup_agrees_with_a_plain_search(
        hashes in prop::collection::vec(0..40_u64, 0..2000),
        spread: bool,
        seals in prop::collection::vec(any::<bool>(), 8),
    ) {
        let disk = MemoryFiles::new();
        let index = open(&disk, 0);
        let hash = |h: u64| if spread { hash_of(h) } else { h };
        for (n, h) in hashes.iter().enumerate() {
            let position = n as u64 * 10;
            add_one(&index, position..position + 10, &[hash(*h)]);
            if n % 250 == 0 && seals[n / 250] {
                index.seal(EVERYTHING).unwrap();
            }
        }
        for h in 0..41 {
            let expected: Vec<_> = (0..hashes.len())
                .rev()
                .filter(|n| hashes[*n] == h)
                .take(30)
                .map(|n| PhysicalOffset(n as u64 * 10))
                .collect();
            prop_assert_eq!(index.lookup(hash(h), all(), 30).unwrap(), expected);
        }
    }
}
