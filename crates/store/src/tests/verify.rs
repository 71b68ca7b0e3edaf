//! Promises about checking a store from outside: what is whole is found whole, also in the middle of its life, and each
//! kind of wrong is found, once, at its place.

use std::{
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicConfig, TopicId, TopicName};
use gantry_record::{Draft, RecordView};

use super::{
    inspect::{closed_world, look, open_world},
    retention::{forget, forgetful},
    world::{Kind, World, push},
};
use crate::{
    inspect::{Part, StoreReader, Verdict},
    log::survey::Item,
    queues::scan_stored,
    views::{RocksMemory, RocksViews, Step, View, ViewBatch, ViewStore as _, layout},
};

fn verdict(world: &World) -> Verdict {
    look(world).verify(&mut |_, _| {}).unwrap()
}

fn check_clean(world: &World, what: &str) -> Verdict {
    let verdict = verdict(world);
    assert_eq!(verdict.findings, [], "{what}");
    verdict
}

#[test]
fn store_is_found_whole_at_every_moment_of_its_life() {
    let mut world = open_world();
    check_clean(&world, "written, nothing flushed");
    world.store().views.flush().unwrap();
    let flushed = check_clean(&world, "flushed");
    assert_eq!((flushed.messages, flushed.queue_entries), (62, 61), "one is of a deleted topic");
    let topic = world.store().topic("orders").unwrap();
    world.send(&topic, 0, "behind what was flushed");
    check_clean(&world, "flushed and gone on");
    world.kill();
    check_clean(&world, "after a crash");
    world.lose_views();
    world.reopen();
    let rebuilt = check_clean(&world, "with views made again");
    assert_eq!((rebuilt.queue_entries, rebuilt.keys), (62, 62 * 3));
    assert_eq!(rebuilt.notes, [""; 0]);
}

#[test]
fn store_that_has_forgotten_its_oldest_messages_is_found_whole() {
    let mut world = forgetful(Kind::Rocks);
    forget(&world);
    check_clean(&world, "while it is open");
    world.reopen();
    let reopened = check_clean(&world, "closed and opened");
    assert!(reopened.from.0 > 0 && reopened.queue_entries > 10 && reopened.keys > 10);
    world.lose_views();
    world.reopen();
    check_clean(&world, "made again from an image");
    world.store().close(world.now()).unwrap();
    world.stop();
    std::fs::remove_dir_all(world.dir().join("views")).unwrap();
    let without = check_clean(&world, "without views");
    assert_eq!(without.notes, ["views: none, a start makes them from the log"]);
}

fn segment(world: &World, base: u64) -> PathBuf {
    world.dir().join("log").join(format!("{base:020}"))
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// The only finding.
#[track_caller]
fn only(world: &World) -> crate::inspect::Finding {
    let verdict = verdict(world);
    assert_eq!((verdict.findings_total, verdict.findings.len()), (1, 1), "{:?}", verdict.findings);
    verdict.findings[0].clone()
}

#[test]
fn flipped_bit_in_the_log_is_one_finding_with_file_and_byte() {
    let world = closed_world();
    overwrite(&segment(&world, 65536), 5000, b"#");
    let found = only(&world);
    assert_eq!((found.part, Path::new(&found.file)), (Part::Log, &*segment(&world, 65536)));
    let offset = found.file_offset.unwrap();
    assert!((2000..=5000).contains(&offset), "{found:?}");
    assert_eq!(found.position, Some(PhysicalOffset(65536 + offset)));
}

#[test]
fn segment_that_is_missing_is_found_wherever_it_was() {
    let world = closed_world();
    std::fs::remove_file(segment(&world, 65536)).unwrap();
    let found = only(&world);
    assert!(found.what.contains("the segment is missing"), "{found:?}");
    assert_eq!(found.position, Some(PhysicalOffset(65536)));

    let world = closed_world();
    std::fs::remove_file(segment(&world, 0)).unwrap();
    let verdict = verdict(&world);
    let first = &verdict.findings.iter().map(|finding| &*finding.what).collect::<Vec<_>>();
    assert!(first.iter().any(|what| what.contains("its first segment at 65536")), "{first:?}");

    let world = closed_world();
    std::fs::remove_file(segment(&world, 3 * 65536)).unwrap();
    let lost = super::verify::verdict(&world).findings;
    assert!(lost[0].what.contains("records are lost"), "{lost:?}");
}

/// Writes a record anew, whole, with another content.
fn rewrite(
    world: &World,
    wanted: impl Fn(&RecordView<'_>) -> bool,
    change: impl FnOnce(&mut Rewritten),
) -> PhysicalOffset {
    let store = look(world);
    let mut items = store.items(PhysicalOffset(0), store.log().end()).unwrap();
    loop {
        let Some(item) = items.next().unwrap() else { panic!("no record is wanted") };
        let Item::Record(record) = item else { continue };
        if !wanted(&record) {
            continue;
        }
        let mut new = Rewritten {
            body: record.body().to_vec(),
            offset: record.queue_offset(),
            time_ms: record.store_time_ms(),
        };
        change(&mut new);
        let mut bytes = Vec::new();
        let draft = Draft { body: &new.body, ..record.draft() };
        let slot = gantry_record::encode(&draft, &mut bytes).unwrap();
        slot.seal(&mut bytes, new.offset, record.position(), new.time_ms);
        assert_eq!(bytes.len(), record.size() as usize);
        let (path, at) = store.log().place(record.position()).unwrap();
        overwrite(path, at, &bytes);
        return record.position();
    }
}

struct Rewritten {
    body: Vec<u8>,
    offset: QueueOffset,
    time_ms: u64,
}

fn is_order(record: &RecordView<'_>, offset: u64) -> bool {
    record.topic() == "orders" && record.queue().0 == 0 && record.queue_offset().0 == offset
}

/// What is found behind `world` at a position, in the log.
fn found_at(world: &World, position: PhysicalOffset) -> Vec<String> {
    let verdict = verdict(world);
    let of_log = |finding: &&crate::inspect::Finding| {
        finding.part == Part::Log && finding.position == Some(position)
    };
    verdict.findings.iter().filter(of_log).map(|finding| finding.what.clone()).collect()
}

#[test]
fn whole_record_that_does_not_fit_those_before_it_is_found() {
    let world = closed_world();
    let at = rewrite(&world, |record| is_order(record, 7), |new| new.offset = QueueOffset(9));
    let found = found_at(&world, at);
    assert_eq!(found, ["queue orders/0 goes on at 9, not at 7"]);

    let world = closed_world();
    let at = rewrite(&world, |record| is_order(record, 7), |new| new.time_ms -= 1);
    assert!(found_at(&world, at)[0].contains("is before that of the last record"));
}

#[test]
fn header_and_mark_that_tell_what_is_not_so_are_found() {
    let is_header = |record: &RecordView<'_>| {
        record.position().0 == 65536 && record.topic() == crate::log::SEGMENT_TOPIC
    };
    // Newest image, synced position, last time.
    for (field, words) in [
        (28, "no complete state image begins at"),
        (44, "was synced"),
        (52, "the last record is of"),
    ] {
        let world = closed_world();
        let number = if field == 28 { 70_000_u64 } else { 1 << 40 };
        let at = rewrite(&world, is_header, |new| {
            new.body[field..field + 8].copy_from_slice(&number.to_be_bytes());
        });
        let found = found_at(&world, at);
        assert!(found.len() == 1 && found[0].contains(words), "{field}: {found:?}");
    }
    let world = closed_world();
    let is_mark = |record: &RecordView<'_>| record.topic() == crate::log::MARK_TOPIC;
    let at = rewrite(&world, is_mark, |new| new.body[..16].fill(9));
    assert!(found_at(&world, at)[0].contains("the mark is of store 0909"));
}

#[test]
fn state_record_that_cannot_be_understood_is_found() {
    let world = closed_world();
    let is_state = |record: &RecordView<'_>| record.topic() == crate::state::STATE_TOPIC;
    let at = rewrite(&world, is_state, |new| new.body[0] = 2);
    assert!(found_at(&world, at)[0].contains("layout version 2"));
}

/// Changes the views of a stopped world.
fn change_views(world: &World, change: impl FnOnce(&RocksViews, &mut ViewBatch)) {
    let memory = RocksMemory { cache_bytes: 1 << 20, write_bytes: 4 << 20 };
    let views = RocksViews::open(&world.dir().join("views"), memory).unwrap();
    let mut batch = ViewBatch::new();
    change(&views, &mut batch);
    views.apply(&batch).unwrap();
    views.flush().unwrap();
}

const ORDERS: TopicId = TopicId(0);

/// Makes another entry of the one at an offset of the queue 1 of `orders`, or none.
fn replace(views: &RocksViews, batch: &mut ViewBatch, offset: u64, by: Option<layout::Entry>) {
    let queue = (ORDERS, QueueId(1));
    let keys = layout::prefix_range(&layout::queue_prefix(queue.0, queue.1));
    batch.delete_range(View::Queue, &keys.start..&keys.end);
    let mut run = layout::RunOut::default();
    scan_stored(queue, 0, u64::MAX, views, &mut |at, entry| {
        let entry = if at.0 == offset { by } else { Some(entry) };
        if let Some(entry) = entry {
            run.push(batch, queue, at, &entry);
        }
        Step::Next
    })
    .unwrap();
    run.end(batch, queue);
}

type Change<'a> = &'a dyn Fn(&RocksViews, &mut ViewBatch);

#[test]
fn each_entry_of_the_views_that_the_log_does_not_tell_is_found() {
    let key = |offset| layout::queue_key(ORDERS, QueueId(1), QueueOffset(offset));
    let other =
        layout::Entry { position: PhysicalOffset(193), size: 300, tag_hash: 0, store_time_ms: 0 };
    let cases: [(&str, Change<'_>); 9] = [
        ("the log's start is 70000, and its records say 0", &|_, b| {
            b.put(View::Meta, layout::LOG_START, &70_000_u64.to_be_bytes());
        }),
        ("the entry of orders/1@5 is missing", &|views, b| replace(views, b, 5, None)),
        ("the entry of orders/1@5 is another", &|views, b| replace(views, b, 5, Some(other))),
        ("queue 1, offset 99 leads to", &|_, b| {
            b.put(View::Queue, &key(99), &layout::encode_entry(&other));
        }),
        ("topic 0, queue 1, next offset is not what", &|_, b| {
            b.put(View::Meta, &layout::next_key(ORDERS, QueueId(1)), &29_u64.to_be_bytes());
        }),
        ("group billing is missing", &|_, b| b.delete(View::Meta, &layout::group_key("billing"))),
        ("group strange, topic 0, queue 0 is not what", &|_, b| {
            b.put(View::Offset, &layout::offset_key(ORDERS, QueueId(0), "strange"), &[0; 8]);
        }),
        ("due at 7 is missing", &|_, b| b.delete_range(View::Timer, &[][..]..layout::END)),
        ("malformed entry", &|_, b| b.put(View::Queue, &key(99), b"?")),
    ];
    for (words, change) in cases {
        let world = closed_world();
        change_views(&world, change);
        let found = only(&world);
        assert!(found.part == Part::Views && found.what.contains(words), "{words}: {found:?}");
    }
}

#[test]
fn broken_files_of_the_views_are_a_finding_and_never_an_error() {
    for name in ["CURRENT", "MANIFEST", ".sst"] {
        let world = closed_world();
        let views = world.dir().join("views");
        let mut files: Vec<_> =
            std::fs::read_dir(&views).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|path| path.to_string_lossy().contains(name));
        assert!(!files.is_empty(), "{name}");
        for file in files {
            overwrite(&file, 20, &[0x55; 40]);
        }
        let verdict = verdict(&world);
        let is_views = verdict.findings.iter().all(|finding| finding.part == Part::Views);
        assert!(verdict.findings_total > 0 && is_views, "{name}: {:?}", verdict.findings);
    }
}

fn key_file(world: &World) -> PathBuf {
    let mut files = std::fs::read_dir(world.dir().join("keys")).unwrap();
    files.next().unwrap().unwrap().path()
}

#[test]
fn key_file_that_is_broken_or_tells_what_is_not_so_is_found() {
    let world = closed_world();
    overwrite(&key_file(&world), 4096 + 8, b"#");
    let found = only(&world);
    assert_eq!((found.part, found.file_offset), (Part::Keys, Some(4096)), "{found:?}");

    let world = closed_world();
    overwrite(&key_file(&world), 5, b"#");
    assert!(only(&world).what.contains("no valid header"));

    // A whole file, of a log in which one record had another key.
    let world = closed_world();
    let (path, mut block) = (key_file(&world), vec![0; 4096]);
    let file = std::fs::File::open(&path).unwrap();
    file.read_exact_at(&mut block, 4096).unwrap();
    block[7] ^= 1;
    let crc = crc32fast::hash(&block[..4084]);
    block[4084..4088].copy_from_slice(&crc.to_be_bytes());
    overwrite(&path, 4096, &block);
    let found = verdict(&world).findings;
    assert!(
        found.iter().any(|finding| finding.what.contains("of a record is missing")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|finding| finding.what.contains("no record there has a key")),
        "{found:?}"
    );
}

#[test]
fn torn_tail_is_a_note_and_no_damage() {
    let world = closed_world();
    let store = look(&world);
    let end = store.log().end();
    let (path, at) = store.log().place(end).unwrap();
    overwrite(path, at, &[0, 0, 1, 0, 0xDA, 0xA3, 0x20, 0xA7, 1, 2, 3]);
    drop(store);
    let verdict = check_clean(&world, "with a torn tail");
    assert!(verdict.notes[0].contains("or of a write that was cut short"), "{:?}", verdict.notes);
}

#[test]
fn progress_reaches_the_end_and_never_goes_beyond() {
    let world = closed_world();
    let store = StoreReader::open(world.dir()).unwrap();
    let mut told = Vec::new();
    store.verify(&mut |done, total| told.push((done, total))).unwrap();
    let total = store.log().end().0;
    assert!(told.iter().all(|(done, of)| *of == total && *done <= total), "{told:?}");
    assert_eq!(told.last(), Some(&(total, total)));
}

#[test]
fn store_whose_broker_writes_flushes_and_forgets_meanwhile_is_found_whole_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = crate::StoreOptions::new(dir.path());
    (options.segment_bytes, options.retention.age_ms) = (64 * 1024, 60_000);
    let start_ms = 1_700_000_000_000;
    let now = crate::Now { wall_ms: start_ms, monotonic_ms: start_ms };
    // With its lock, as a broker has it: that is how it is known to be in use.
    let (store, _) = crate::Store::open(options, now).unwrap();
    let config = TopicConfig::new(TopicName::new("orders").unwrap(), 2);
    let topic = store.put_topic(config, now).unwrap().0;
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let body = "x".repeat(1500);
            for number in 0_u64.. {
                if is_done.load(Ordering::Acquire) {
                    return;
                }
                let at_ms = start_ms + number * 500;
                let now = crate::Now { wall_ms: at_ms, monotonic_ms: at_ms };
                let mut batch = crate::Batch::new();
                push(&mut batch, &topic, (number % 2) as u32, "", &body);
                store.append(&mut batch, now).unwrap();
                if number % 10 == 0 {
                    store.sync().unwrap();
                    while store.apply_views(100).unwrap() > 0 {}
                    store.maintain(now).unwrap();
                }
                if number % 50 == 0 {
                    store.views.flush().unwrap();
                }
            }
        });
        let mut looks = Looks::default();
        while !looks.are_enough() && !writer.is_finished() {
            let verdict = StoreReader::open(dir.path()).unwrap().verify(&mut |_, _| {}).unwrap();
            if verdict.findings_total > 0 {
                is_done.store(true, Ordering::Release);
            }
            assert_eq!(verdict.findings, [], "{looks:?}");
            looks.add(&verdict);
        }
        is_done.store(true, Ordering::Release);
        writer.join().unwrap();
        assert!(looks.are_enough(), "{looks:?}");
    });
}

/// What looks at a store in use have come upon.
#[derive(Debug, Default)]
struct Looks {
    count: u32,
    with_views: u32,
    after_forgetting: u32,
}

impl Looks {
    fn add(&mut self, verdict: &Verdict) {
        self.count += 1;
        self.with_views += u32::from(verdict.queue_entries > 0);
        self.after_forgetting += u32::from(verdict.from.0 > 0);
    }

    fn are_enough(&self) -> bool {
        self.count >= 20 && self.with_views >= 5 && self.after_forgetting >= 10
    }
}
