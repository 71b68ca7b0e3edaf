//! Promises about messages in queues.

use std::{os::unix::fs::FileExt as _, path::Path, sync::Arc};

use gantry_model::{PhysicalOffset, QueueId, QueueOffset};
use gantry_record::{RecordView, tag_hash};

use super::world::{KINDS, Kind, LIMITS, World, commit, draft, push, sync_mode};
use crate::{
    AppendError, Batch, Boundary, Bounds, Far, Index, QueueRead, ReadLimits, ReadStatus, Topic,
};

#[test]
fn messages_are_read_back_in_order_from_ring_and_views() {
    for kind in KINDS {
        let world = World::new(kind);
        let topic = world.topic("orders", 2);
        for number in 0..100 {
            world.send(&topic, number % 2, &format!("m{number}"));
            if number == 60 {
                world.settle();
            }
        }
        for queue in 0..2 {
            let expected: Vec<_> = (0..50).map(|i| format!("m{}", 2 * i + queue)).collect();
            assert_eq!(world.read_all(&topic, queue), expected, "{kind:?}");
        }
        world.settle();
        assert_eq!(world.read_all(&topic, 1).len(), 50, "{kind:?}");
    }
}

/// Files below `dir`, and those of them that this process has open.
fn files_of(dir: &Path) -> (usize, usize) {
    fn below(dir: &Path) -> usize {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { below(&path) } else { 1 }).sum()
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    (below(dir), targets.filter(|target| target.starts_with(dir)).count())
}

#[test]
fn used_queues_have_no_file_each_neither_on_disk_nor_open() {
    const FILES_MAX: usize = 64;
    let mut world = World::new(Kind::Rocks);
    let topics: Vec<_> = (0..4).map(|n| world.topic(&format!("wide-{n}"), 1_000)).collect();
    for topic in &topics {
        for queue in 0..1_000 {
            world.send(topic, queue, "m");
        }
    }
    world.settle();
    for reopened in [false, true] {
        if reopened {
            world.reopen();
        }
        let (files, open) = files_of(world.dir());
        assert!(files > 0 && open > 0, "they are counted: {files} files, {open} open");
        assert!(files <= FILES_MAX && open <= FILES_MAX, "{files} files, {open} open");
        let topic = world.store().topic("wide-3").unwrap();
        for queue in [0, 500, 999] {
            assert_eq!(world.read_all(&topic, queue), ["m"]);
        }
    }
}

#[test]
fn batch_gets_consecutive_offsets_and_says_where_each_message_is() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 2);
    let mut batch = Batch::new();
    for (queue, body) in [(0, "a"), (1, "b"), (0, "c")] {
        push(&mut batch, &topic, queue, "", body);
    }
    world.store().append(&mut batch, world.now()).unwrap();
    let offsets: Vec<_> = (0..3).map(|i| batch.placed(i).queue_offset.0).collect();
    assert_eq!(offsets, [0, 0, 1]);
    for (index, body) in ["a", "b", "c"].iter().enumerate() {
        let bytes = world.store().read_at(batch.placed(index).position).unwrap().unwrap();
        assert_eq!(RecordView::parse(&bytes).unwrap().body(), body.as_bytes());
    }
}

#[test]
fn every_read_status_says_where_to_go_on() {
    for kind in KINDS {
        let world = World::new(kind);
        let topic = world.topic("orders", 1);
        let status = |from| {
            let (read, _) = world.read(&topic, 0, from);
            (read.status, read.next.0)
        };
        assert_eq!(status(5), (ReadStatus::Empty, 0));
        for body in ["a", "b", "c"] {
            world.send_tagged(&topic, 0, "red", body);
        }
        assert_eq!(status(0), (ReadStatus::Found, 3));
        assert_eq!(status(3), (ReadStatus::AtEnd, 3));
        assert_eq!(status(4), (ReadStatus::BeyondEnd, 3));
        let (read, bodies) = world.read_where(&topic, 0, 1, &|_| false);
        assert_eq!((read.status, read.next.0, bodies.len()), (ReadStatus::NoMatch, 3, 0));
        assert_eq!(world.read(&topic, 7, 0).0.status, ReadStatus::Empty);
    }
}

#[test]
fn only_accepted_tags_are_read_and_the_others_are_passed() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    for (tag, body) in [("red", "a"), ("blue", "b"), ("red", "c"), ("", "d")] {
        world.send_tagged(&topic, 0, tag, body);
    }
    let wanted = i64::from(tag_hash("red"));
    let (read, bodies) = world.read_where(&topic, 0, 0, &|hash| hash == wanted);
    assert_eq!((read.next.0, bodies), (4, vec!["a".to_owned(), "c".to_owned()]));
}

#[test]
fn limits_bound_a_read_but_the_first_message_always_fits() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    for number in 0..10 {
        world.send(&topic, 0, &format!("m{number}"));
    }
    let read = |limits| {
        let mut out = bytes::BytesMut::new();
        let from = QueueOffset(0);
        let store = world.store();
        let read = store.read_queue(&topic, QueueId(0), from, limits, &|_| true, &mut out).unwrap();
        (read.messages, read.next.0)
    };
    assert_eq!(read(ReadLimits { messages_max: 4, ..LIMITS }), (4, 4));
    assert_eq!(read(ReadLimits { bytes_max: 1, ..LIMITS }), (1, 1));
    assert_eq!(read(ReadLimits { scan_max: 3, ..LIMITS }), (3, 3));
}

#[test]
fn nothing_is_read_before_it_is_confirmed() {
    let world = World::with(Kind::Memory, sync_mode);
    let topic = world.topic("orders", 1);
    world.store().sync().unwrap();
    let ticket = world.send(&topic, 0, "a");
    assert!(world.store().confirmed() < ticket.end);
    assert_eq!(world.read(&topic, 0, 0).0.status, ReadStatus::Empty);
    assert_eq!(world.store().apply_views(100).unwrap(), 1, "the topic alone");
    world.store().sync().unwrap();
    assert!(world.store().confirmed() >= ticket.end);
    assert_eq!(world.read_all(&topic, 0), ["a"]);
}

#[test]
fn what_is_not_synced_does_not_reach_the_views() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    world.send(&topic, 0, "a");
    assert_eq!(world.store().apply_views(100).unwrap(), 0);
    assert_eq!(world.read_all(&topic, 0), ["a"]);
    world.store().sync().unwrap();
    assert_eq!(world.store().apply_views(100).unwrap(), 2);
}

#[test]
fn full_ring_refuses_sends_until_the_views_catch_up() {
    for kind in KINDS {
        let world = World::with(kind, |options| options.ring_bytes_max = 8 * 1024);
        let topic = world.topic("orders", 1);
        let mut batch = Batch::new();
        push(&mut batch, &topic, 0, "", "m");
        let mut sent = 0;
        let error = loop {
            match world.store().append(&mut batch, world.now()) {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AppendError::Busy { ring_bytes_max: 8192, .. }), "{error}");
        let commit = commit("g", &topic, 0, 1);
        world.store().commit_offsets(&[commit], world.now()).unwrap();
        assert!(world.store().flush_due());
        world.settle();
        assert_eq!(world.store().status().ring_bytes, 0);
        world.store().append(&mut batch, world.now()).unwrap();
        assert_eq!(world.read_all(&topic, 0).len(), sent + 1);
    }
}

#[test]
fn search_by_time_finds_both_boundaries() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let topic = world.topic("orders", 1);
        let start = world.now_ms;
        for (number, at) in [0, 10, 10, 20].into_iter().enumerate() {
            world.now_ms = start + at;
            world.send(&topic, 0, &format!("m{number}"));
            if number == 1 {
                world.settle();
            }
        }
        let search = |at: u64, boundary| {
            world.store().search_time(&topic, QueueId(0), start + at - 5, boundary).unwrap().0
        };
        let lower: Vec<_> = [0, 5, 15, 16, 25, 26].map(|at| search(at, Boundary::Lower)).into();
        assert_eq!(lower, [0, 0, 1, 3, 3, 4], "{kind:?}");
        let upper: Vec<_> = [0, 5, 15, 16, 25, 26].map(|at| search(at, Boundary::Upper)).into();
        assert_eq!(upper, [0, 0, 2, 2, 3, 3], "{kind:?}");
    }
}

#[test]
fn position_inside_a_body_is_not_a_message() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    let mut batch = Batch::new();
    push(&mut batch, &topic, 0, "", "first");
    world.store().append(&mut batch, world.now()).unwrap();
    // A whole record of that queue as a body, sealed for the very place where it will lie.
    let place = batch.placed(0).position;
    let forged_at = PhysicalOffset(world.store().written().0 + 88);
    let mut forged = Vec::new();
    let slot = gantry_record::encode(&draft("orders", 0, "forged", &[]), &mut forged).unwrap();
    slot.seal(&mut forged, QueueOffset(0), forged_at, world.now_ms);
    batch.clear();
    let draft = gantry_record::Draft { body: &forged, ..draft("orders", 0, "", &[]) };
    batch.push(&topic, &draft, Index::default()).unwrap();
    world.store().append(&mut batch, world.now()).unwrap();
    assert_eq!(batch.placed(0).position.0 + 88, forged_at.0, "the forged record verifies there");
    assert!(world.store().read_record(forged_at).unwrap().is_some());
    assert!(world.store().read_at(forged_at).unwrap().is_none());
    assert!(world.store().read_at(place).unwrap().is_some());
}

#[test]
fn key_and_unique_id_find_their_messages_newest_first() {
    let mut world = World::new(Kind::Memory);
    let (topic, other) = (world.topic("orders", 1), world.topic("others", 1));
    for number in 0..5 {
        world.now_ms += 10;
        world.send(&topic, 0, &format!("m{number}"));
        world.send(&other, 0, "m9");
    }
    let find = |key, begin, end, max| {
        let found = world.store().query_keys("orders", key, begin, end, max).unwrap();
        let body = |bytes: &bytes::Bytes| super::world::body_of(&RecordView::parse(bytes).unwrap());
        found.iter().map(body).collect::<Vec<_>>()
    };
    assert_eq!(find("m3", 0, u64::MAX, 10), ["m3"]);
    assert_eq!(find("order-2", 0, u64::MAX, 2), ["m4", "m3"]);
    world.settle();
    world.store().maintain(world.now()).unwrap();
    assert!(world.store().upkeep.keys.covered_to() >= world.store().synced());
    assert_eq!(find("m3", 0, u64::MAX, 10), ["m3"]);
    world.send(&topic, 0, "m5");
    assert_eq!(find("order-2", 0, u64::MAX, 3), ["m5", "m4", "m3"], "indexed or not");
    assert_eq!(find("order-2", 0, world.now_ms - 30, 9), ["m1", "m0"]);
    assert!(find("m9", 0, u64::MAX, 10).is_empty());
}

#[test]
fn queue_is_young_while_its_first_message_is_near_the_end_of_the_log() {
    let world = World::with(Kind::Memory, |options| options.young_bytes = 2000);
    let topic = world.topic("orders", 2);
    assert!(world.store().is_young(&topic, QueueId(0)).unwrap());
    world.send(&topic, 0, "a");
    assert!(world.store().is_young(&topic, QueueId(0)).unwrap());
    for _ in 0..20 {
        world.send(&topic, 1, "filler");
    }
    assert!(!world.store().is_young(&topic, QueueId(0)).unwrap());
}

#[test]
fn half_messages_and_rollbacks_are_in_no_queue() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 1);
    let mut batch = Batch::new();
    for sys_flag in [4, 12, 8, 0] {
        let draft = gantry_record::Draft { sys_flag, ..draft("orders", 0, "m", &[]) };
        batch.push(&topic, &draft, Index::default()).unwrap();
    }
    world.store().append(&mut batch, world.now()).unwrap();
    let bounds = world.store().queue_bounds(&topic, QueueId(0)).unwrap();
    assert_eq!(bounds, Bounds { min: QueueOffset(0), max: QueueOffset(2) });
}

#[test]
fn concurrent_appends_leave_no_gap_and_no_double() {
    let world = World::new(Kind::Memory);
    let topic = world.topic("orders", 2);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (world, topic) = (&world, &topic);
            scope.spawn(move || {
                for number in 0..200 {
                    world.send(topic, number % 2, &format!("{thread}-{number}"));
                }
            });
        }
        let store = world.shared();
        scope.spawn(move || {
            while store.status().applied < store.written() || store.topics().is_empty() {
                store.sync().unwrap();
                store.apply_views(50).unwrap();
            }
        });
    });
    for queue in 0..2 {
        let all = world.read_all(&topic, queue);
        assert_eq!(all.len(), 400);
        for thread in 0..4 {
            let mine: Vec<_> =
                all.iter().filter(|m| m.starts_with(&format!("{thread}-"))).collect();
            let expected: Vec<_> =
                (0..100).map(|i| format!("{thread}-{}", 2 * i + queue)).collect();
            assert!(mine.into_iter().eq(&expected));
        }
    }
}

/// Four queues whose messages lie between each other, in segments whose border lies within a block.
fn interleaved(kind: Kind) -> (World, Arc<Topic>, Vec<PhysicalOffset>) {
    let world = World::with(kind, |options| options.segment_bytes = 192 * 1024);
    let topic = world.topic("orders", 4);
    let mut places = Vec::new();
    for number in 0..400 {
        let mut batch = Batch::new();
        push(&mut batch, &topic, number % 4, "", &format!("{number}:{}", "x".repeat(1024)));
        world.store().append(&mut batch, world.now()).unwrap();
        places.push(batch.placed(0).position);
    }
    world.settle();
    (world, topic, places)
}

fn numbers(world: &World, topic: &Topic, queue: u32) -> Vec<u32> {
    let bodies = world.read_all(topic, queue);
    bodies.iter().map(|body| body.split_once(':').unwrap().0.parse().unwrap()).collect()
}

#[test]
fn queues_between_each_other_are_read_alike_from_memory_and_from_disk() {
    for kind in KINDS {
        let (world, topic, places) = interleaved(kind);
        assert!(places[399].0 > 2 * 192 * 1024, "the messages fill more than two segments");
        let expected = |queue| (0..400).filter(|number| number % 4 == queue).collect::<Vec<_>>();
        for queue in 0..4 {
            assert_eq!(numbers(&world, &topic, queue), expected(queue), "{kind:?}, from memory");
        }
        assert!(!world.store().log.has_read_ahead(places[5]), "the tail is in memory already");
        for queue in 0..4 {
            world.store().log.forget_blocks();
            assert_eq!(numbers(&world, &topic, queue), expected(queue), "{kind:?}, from disk");
            assert!(world.store().log.has_read_ahead(places[5]), "one read for all queues");
        }
    }
}

#[test]
fn cold_reads_give_what_other_reads_give_and_bring_the_blocks_of_those_who_follow() {
    let hows = [Far::Cold, Far::ColdFromCache];
    for (kind, far) in KINDS.into_iter().flat_map(|kind| hows.map(|far| (kind, far))) {
        let (world, topic, places) = interleaved(kind);
        let cold = |queue, from| {
            let mut out = bytes::BytesMut::new();
            let limits = ReadLimits { waits_within: 0, far, ..LIMITS };
            let from = QueueOffset(from);
            let read =
                world.store().read_queue(&topic, QueueId(queue), from, limits, &|_| true, &mut out);
            (read.unwrap(), out)
        };
        for queue in 0..4 {
            let mut from = 0;
            world.store().log.forget_blocks();
            while from < 100 {
                let mut out = bytes::BytesMut::new();
                let (found, messages) = cold(queue, from);
                let start = QueueOffset(from);
                let expected = world
                    .store()
                    .read_queue(&topic, QueueId(queue), start, LIMITS, &|_| true, &mut out)
                    .unwrap();
                let found = QueueRead { in_cache: None, ..found };
                assert_eq!((found, messages), (expected, out), "{kind:?}, queue {queue}, {from}");
                assert!(found.next.0 > from);
                from = found.next.0;
            }
        }
        world.store().log.forget_blocks();
        let looked = cold(0, 0).0.in_cache;
        assert_eq!(looked.is_some(), far == Far::ColdFromCache, "{kind:?}");
        assert!(world.store().log.has_read_ahead(places[5]), "of every queue");
        assert_eq!(cold(0, 0).0.in_cache, None, "{kind:?}: all is here already");
    }
}

#[test]
fn damaged_record_read_ahead_with_its_neighbours_is_never_delivered() {
    let (world, topic, places) = interleaved(Kind::Memory);
    let segment = world.dir().join("log").join(format!("{:020}", 0));
    let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.write_all_at(b"#", places[21].0 + 500).unwrap();
    world.store().log.forget_blocks();
    let expected: Vec<_> = (0..400).filter(|number| number % 4 == 1 && *number != 21).collect();
    assert_eq!(numbers(&world, &topic, 1), expected);
    assert!(world.store().log.has_read_ahead(places[21]));
    assert_eq!(world.store().status().damaged_records, 1);
    assert_eq!(numbers(&world, &topic, 2).len(), 100);
}

#[test]
fn readers_beside_a_writer_see_each_message_once_and_in_order() {
    const MESSAGES: u32 = 3_000;
    let world = World::with(Kind::Memory, |options| options.segment_bytes = 4 * 1024 * 1024);
    let topic = world.topic("orders", 4);
    std::thread::scope(|scope| {
        for queue in 0..4 {
            let (world, topic) = (&world, &topic);
            scope.spawn(move || {
                let (mut from, mut seen) = (0, Vec::new());
                while seen.len() < MESSAGES as usize / 4 {
                    let (read, bodies) = world.read(topic, queue, from);
                    assert_eq!(read.next.0, from + bodies.len() as u64, "nothing is skipped");
                    let numbers = bodies.iter().map(|b| b.split_once(':').unwrap().0.to_owned());
                    seen.extend(numbers.map(|number| number.parse::<u32>().unwrap()));
                    from = read.next.0;
                }
                assert!(seen.into_iter().eq((0..MESSAGES).filter(|n| n % 4 == queue)));
            });
        }
        for number in 0..MESSAGES {
            world.send(&topic, number % 4, &format!("{number}:{}", "x".repeat(1024)));
        }
    });
}

#[test]
fn read_far_behind_the_end_that_may_not_wait_gives_everything_or_says_so() {
    let (world, topic, _) = interleaved(Kind::Memory);
    let read = |limits| {
        let mut out = bytes::BytesMut::new();
        let (queue, from) = (QueueId(2), QueueOffset(0));
        let read = world.store().read_queue(&topic, queue, from, limits, &|_| true, &mut out);
        read.map(|read| (read, out))
    };
    let expected = read(LIMITS).unwrap();
    world.store().log.forget_blocks();
    // Whether the system has the file in memory is its own affair: both outcomes are right, half an answer is not.
    match read(ReadLimits { waits_within: 0, ..LIMITS }) {
        Ok(found) => assert_eq!(found, expected),
        Err(error) => assert!(matches!(error, crate::ReadError::NotAtHand { .. }), "{error}"),
    }
    assert_eq!(read(LIMITS).unwrap(), expected);
}
