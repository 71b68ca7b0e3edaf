//! Promises about files that are gone, cut short or empty, and about a disk that refuses one read: it is told with file
//! and offset, and all else is served.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use gantry_model::{QueueId, QueueOffset};

use super::{
    faults_world::{DIR, FaultWorld, SmallDisk},
    world::{Kind, LIMITS, World},
};
use crate::{
    Flush, Now, OpenError, ReadError, ReadStatus, Store, StoreOptions,
    log::{self, files::Files, memory_files::Operation},
};

/// Messages of about 4 KiB, so that nine segments of 64 KiB are full, and most of a tenth.
const MESSAGES: usize = 155;
/// Most messages that one segment holds.
const IN_SEGMENT: usize = 16;

fn body(number: usize) -> String {
    format!("{number:04} {}", "x".repeat(1900))
}

fn number_of(body: &str) -> usize {
    body[..4].parse().unwrap()
}

/// A store with several full segments, all of them synced, applied and flushed, and then closed.
fn filled() -> FaultWorld {
    let world = FaultWorld::new(Flush::Sync);
    let topic = world.topic("orders");
    for number in 0..MESSAGES {
        world.send(&topic, &body(number)).unwrap();
    }
    world.settle();
    world.store.flush_views(world.store.confirmed()).unwrap();
    world.store.close(world.now).unwrap();
    world
}

/// Segments, oldest first.
fn segments(world: &FaultWorld) -> Vec<PathBuf> {
    let log = PathBuf::from(DIR).join("log");
    let paths = world.disk.paths().into_iter();
    paths.filter(|path| path.starts_with(&log) && path.extension().is_none()).collect()
}

/// What can become of a file.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Gone,
    CutShort,
    Empty,
    Zeroed,
}

const HARMS: [Harm; 4] = [Harm::Gone, Harm::CutShort, Harm::Empty, Harm::Zeroed];

fn harm(world: &FaultWorld, path: &Path, harm: Harm) {
    match harm {
        Harm::Gone => world.disk.remove(path).unwrap(),
        Harm::CutShort => world.disk.damage(path, |bytes| bytes.truncate(bytes.len() / 2)),
        Harm::Empty => world.disk.damage(path, Vec::clear),
        Harm::Zeroed => world.disk.damage(path, |bytes| bytes.fill(0)),
    }
}

#[test]
fn segment_that_is_gone_cut_short_or_empty_costs_its_own_messages_alone_and_is_told_with_its_file()
{
    for which in ["first", "middle", "newest"] {
        for kind in HARMS {
            let world = filled();
            let paths = segments(&world);
            assert!(paths.len() >= 10);
            let struck = match which {
                "first" => 0,
                "middle" => paths.len() / 2,
                _ => paths.len() - 1,
            };
            harm(&world, &paths[struck], kind);
            let next = world.after_restart();
            let context = format!("{which} {kind:?}: {:?}", next.report.damage);
            let found: Vec<usize> =
                next.bodies("orders").iter().map(|body| number_of(body)).collect();
            let lost: Vec<usize> = (0..MESSAGES).filter(|number| !found.contains(number)).collect();
            assert!(!lost.is_empty() && lost.len() <= IN_SEGMENT, "{context}: {lost:?}");
            assert!(lost.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{context}: {lost:?}");
            assert!(found.is_sorted(), "{context}");
            let told = next.store.status().damage;
            // A log without its first segment begins later, as after its messages were let go of; and what is before a
            // gap is not to blame for it, but the place behind it.
            if !matches!(kind, Harm::Gone) {
                assert!(
                    told.iter().any(|damage| damage.path == paths[struck]),
                    "{context}: {told:?}"
                );
            } else if which != "first" {
                assert!(!told.is_empty(), "{context}");
            }
            let topic = next.store.topic("orders").unwrap();
            next.send(&topic, &body(MESSAGES)).unwrap();
            next.settle();
            assert_eq!(next.bodies("orders").last(), Some(&body(MESSAGES)), "{context}");
            let max = next.store.queue_bounds(&topic, QueueId(0)).unwrap().max;
            assert_eq!(
                max,
                QueueOffset(MESSAGES as u64 + 1),
                "no offset is given twice: {context}"
            );
        }
    }
}

#[test]
fn segment_that_is_cut_short_under_a_running_store_is_told_once_and_costs_its_own_messages_alone() {
    let world = FaultWorld::new(Flush::Sync);
    let topic = world.topic("orders");
    (0..MESSAGES).for_each(|number| _ = world.send(&topic, &body(number)).unwrap());
    world.settle();
    let struck = &segments(&world)[1];
    harm(&world, struck, Harm::Empty);
    for _ in 0..2 {
        world.store.log.forget_blocks();
        let found = world.bodies("orders").len();
        assert!((MESSAGES - IN_SEGMENT..MESSAGES).contains(&found), "{found}");
        let status = world.store.status();
        assert_eq!(status.damaged_records, (MESSAGES - found) as u64);
        assert!(status.damage.iter().all(|damage| damage.path == *struck), "{:?}", status.damage);
    }
}

#[test]
fn read_that_the_disk_refuses_once_says_file_and_position_and_the_next_one_has_everything() {
    let world = FaultWorld::new(Flush::Sync);
    let topic = world.topic("orders");
    let first = world.send(&topic, &body(0)).unwrap();
    (1..MESSAGES).for_each(|number| _ = world.send(&topic, &body(number)).unwrap());
    world.settle();
    world.store.log.forget_blocks();
    world.disk.fail(Operation::Read, 0, ErrorKind::Other);
    let error = world.store.read_record(first).unwrap_err();
    let ReadError::Log { position, source, .. } = error else { panic!("{error}") };
    assert_eq!(position, first);
    let log::ReadError::Io { path, .. } = source else { panic!("{source}") };
    assert_eq!(path, segments(&world)[0]);
    world.send(&topic, &body(MESSAGES)).unwrap();
    world.settle();
    assert!(world.store.read_record(first).unwrap().is_some());
    assert_eq!(world.bodies("orders").len(), MESSAGES + 1);
    assert_eq!(world.store.status().damaged_records, 0, "an error of the disk is no damage");
}

#[test]
fn queue_with_a_place_that_cannot_be_read_gives_what_lies_before_it_and_then_the_error() {
    let world = FaultWorld::new(Flush::Sync);
    let topic = world.topic("orders");
    let positions: Vec<_> =
        (0..20).map(|number| world.send(&topic, &body(number)).unwrap()).collect();
    world.settle();
    world.store.log.forget_blocks();
    let bad = positions[7].0 + 500;
    world.disk.spoil(&segments(&world)[0], bad..bad + 1);
    let read = |from: u64| {
        let mut out = bytes::BytesMut::new();
        let from = QueueOffset(from);
        let read = world.store.read_queue(&topic, QueueId(0), from, LIMITS, &|_| true, &mut out);
        read.map(|read| (read, gantry_record::records(&out).count()))
    };
    let (before, records) = read(0).unwrap();
    assert_eq!((before.messages, records, before.next.0), (7, 7, 7));
    assert_eq!((before.status, before.last_position), (ReadStatus::Found, Some(positions[6])));
    for _ in 0..2 {
        assert!(matches!(read(7), Err(ReadError::Log { .. })), "nothing is skipped unseen");
    }
    let (behind, _) = read(8).unwrap();
    assert_eq!((behind.messages, behind.next.0), (12, 20));
    world.disk.spoil(&segments(&world)[0], 0..0);
    assert_eq!(world.bodies("orders").len(), 20);
}

#[test]
fn file_of_the_key_index_that_is_gone_cut_short_or_empty_is_made_again_from_the_log() {
    for kind in HARMS {
        let world = filled();
        let keys = PathBuf::from(DIR).join("keys");
        let paths: Vec<_> =
            world.disk.paths().into_iter().filter(|path| path.starts_with(&keys)).collect();
        assert!(!paths.is_empty(), "{:?}", world.disk.paths());
        for path in &paths {
            harm(&world, path, kind);
        }
        let next = world.after_restart();
        next.store.maintain(next.now).unwrap();
        let found = next.keys_found("orders", &body(7));
        assert_eq!(found, 1, "{kind:?}");
    }
}

#[test]
fn file_of_the_views_that_is_gone_makes_them_again_and_all_is_served() {
    let mut world = World::new(Kind::Rocks);
    let topic = world.topic("orders", 1);
    (0..300).for_each(|number| _ = world.send(&topic, 0, &format!("{number}")));
    world.settle();
    let before = world.dump();
    world.store().close(world.now()).unwrap();
    let names = || fs::read_dir(world.dir().join("views")).unwrap();
    let paths: Vec<PathBuf> = names().map(|entry| entry.unwrap().path()).collect();
    let lasting = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        path.extension().is_some_and(|e| e == "sst")
            || name.starts_with("MANIFEST")
            || name == "CURRENT"
    };
    let lasting: Vec<PathBuf> = paths.iter().filter(lasting).cloned().collect();
    assert!(lasting.len() >= 3, "{paths:?}");
    world.stop();
    for path in lasting {
        if !path.exists() {
            // The views that were made again have other names.
            continue;
        }
        fs::remove_file(&path).unwrap();
        let report = world.start();
        assert!(report.views_rebuilt, "{}", path.display());
        let topic = world.store().topic("orders").unwrap();
        assert_eq!(world.read_all(&topic, 0).len(), 300);
        assert_eq!(world.dump(), before);
        world.store().close(world.now()).unwrap();
        world.stop();
    }
}

#[test]
fn folder_that_cannot_be_written_is_refused_at_the_start_with_the_file_and_what_the_system_says() {
    let disk = match SmallDisk::mount(24) {
        Ok(disk) => disk,
        Err(reason) => return eprintln!("not checked, no file system can be mounted: {reason}"),
    };
    let now = Now { wall_ms: 1_700_000_000_000, monotonic_ms: 0 };
    let options = StoreOptions {
        segment_bytes: 1 << 20,
        view_write_bytes: 1 << 20,
        ..StoreOptions::new(disk.path().join("data"))
    };
    let (store, _) = Store::open(options.clone(), now).unwrap();
    store.close(now).unwrap();
    drop(store);
    disk.make_read_only().unwrap();
    let error = Store::open(options, now).unwrap_err();
    let OpenError::Io { path, source, .. } = error else { panic!("{error}") };
    assert!(path.starts_with(disk.path()), "{}", path.display());
    assert_eq!(source.kind(), io::ErrorKind::ReadOnlyFilesystem);
}
