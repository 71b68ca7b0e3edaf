//! Promises about looking at a store from outside: what is there is told, nothing is changed, and what a running broker
//! does meanwhile is no damage.

use std::{
    collections::BTreeMap,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use gantry_model::{GroupConfig, GroupName, PhysicalOffset};
use gantry_record::{Draft, RecordView};

use super::world::{Kind, World, commit};
use crate::{
    Store,
    inspect::{Holder, InspectError, Kind as RecordKind, StateFrom, StoreReader, Summary},
    log::{OpenError, survey::Item},
    state::StateEntry,
};

/// Several segments, every kind of state, and what was deleted; closed.
pub(super) fn closed_world() -> World {
    let mut world = open_world();
    world.store().close(world.now()).unwrap();
    world.stop();
    world
}

pub(super) fn open_world() -> World {
    let world = World::new(Kind::Rocks);
    let (topic, gone) = (world.topic("orders", 2), world.topic("gone", 1));
    let config = GroupConfig::new(GroupName::new("billing").unwrap());
    world.store().put_group(config, world.now()).unwrap();
    world.send(&gone, 0, "of a topic that goes");
    for number in 0..60 {
        world.send(&topic, number % 2, &format!("{number}{}", "x".repeat(2000)));
    }
    world.park("orders", 7);
    world.store().commit_offsets(&[commit("billing", &topic, 1, 9)], world.now()).unwrap();
    world.store().delete_topic("gone", world.now()).unwrap();
    world.settle();
    world
}

/// Every file and folder below `dir`, with its content.
pub(super) fn tree(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
            found.insert(path, None);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

pub(super) fn look(world: &World) -> StoreReader {
    StoreReader::open(world.dir()).unwrap()
}

/// Kinds and positions of all items, which follow each other without a gap.
fn kinds(store: &StoreReader) -> Vec<String> {
    let (mut kinds, mut at) = (Vec::new(), store.log().start());
    let mut items = store.items(PhysicalOffset(0), PhysicalOffset(u64::MAX)).unwrap();
    while let Some(item) = items.next().unwrap() {
        let (position, kind) = match item {
            Item::Record(record) => (record.position(), RecordKind::of(&record).name()),
            Item::Filler { position, .. } => (position, "filler"),
            Item::Damage(damage) => (damage.position, "damage"),
            Item::Gone { position, .. } => (position, "gone"),
        };
        assert_eq!(position, at, "{kind}");
        kinds.push(kind.to_owned());
        at = items.position();
    }
    assert_eq!(at, store.log().end());
    kinds
}

fn count(kinds: &[String], kind: &str) -> usize {
    kinds.iter().filter(|found| *found == kind).count()
}

#[test]
fn look_changes_no_byte_and_no_name() {
    let world = closed_world();
    let before = tree(world.dir());
    let store = look(&world);
    store.summary().unwrap();
    kinds(&store);
    store.verify(&mut |_, _| {}).unwrap();
    drop(store);
    let after = tree(world.dir());
    assert!(before == after, "{:?} became {:?}", before.keys(), after.keys());
}

#[test]
fn summary_tells_what_the_store_holds_whatever_it_is_made_of() {
    let mut world = closed_world();
    let summary = look(&world).summary().unwrap();
    assert_eq!((summary.format_version, summary.is_live, summary.log_start.0), (1, false, 0));
    assert_eq!((summary.segments.len(), summary.torn_tail.as_deref()), (4, None));
    assert!(summary.segments[0].is_sealed && summary.segments[0].bytes > 60_000);
    assert!(!summary.segments[3].is_sealed && summary.segments[3].epoch == Some(0));
    assert_eq!(summary.state.from, StateFrom::Views);
    let names: Vec<_> = summary.state.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["SCHEDULE_TOPIC_XXXX", "orders"], "the deleted one is gone");
    assert_eq!((summary.state.topics[1].queues, summary.state.topics[1].messages), (2, 60));
    assert_eq!(summary.state.groups, ["billing"]);
    assert_eq!((summary.state.offsets, summary.state.timers), (1, 1));
    assert!(summary.views.are_usable && summary.views.version == summary.views.version_known);
    assert_eq!((summary.key_files.len(), summary.key_files[0].entries), (1, 61 * 3));

    std::fs::remove_dir_all(world.dir().join("views")).unwrap();
    let of_log = look(&world).summary().unwrap();
    assert_eq!((of_log.state.from, of_log.views.exist), (StateFrom::Log, false));
    assert_eq!(without_source(of_log), without_source(summary));
    world.start();
}

/// The part of a summary that must be the same whatever the state was made of.
fn without_source(summary: Summary) -> Summary {
    let mut summary = summary;
    summary.state.from = StateFrom::Log;
    summary.views.exist = false;
    summary.views.error = None;
    summary.views.version = 0;
    summary.views.applied = PhysicalOffset(0);
    summary.views.are_usable = false;
    summary.views.file_bytes = 0;
    summary
}

#[test]
fn walk_gives_every_byte_of_the_log_as_what_it_is() {
    let kinds = kinds(&look(&closed_world()));
    let of = |kind| count(&kinds, kind);
    assert_eq!((of("header"), of("filler"), of("damage"), of("unknown")), (4, 3, 0, 0));
    // Three topics, one group, one offset, one deletion.
    assert_eq!((of("message"), of("state")), (62, 6), "{kinds:?}");
    assert!(of("mark") > 0, "{kinds:?}");
}

#[test]
fn walk_from_inside_of_a_record_begins_with_the_next_one() {
    let world = closed_world();
    let store = look(&world);
    let mut items = store.items(PhysicalOffset(0), store.log().end()).unwrap();
    items.next().unwrap();
    let second = items.position();
    for from in [1, second.0 - 1, second.0] {
        let mut items = store.items(PhysicalOffset(from), store.log().end()).unwrap();
        let Some(Item::Record(record)) = items.next().unwrap() else { panic!("no record") };
        assert_eq!(record.position(), second, "from {from}");
        assert!(matches!(RecordKind::of(&record), RecordKind::State(entries)
            if matches!(&*entries, [StateEntry::Topic { config, .. }] if &*config.topic_name == "orders")));
    }
}

#[test]
fn damaged_record_is_told_with_file_and_byte_and_the_others_follow() {
    let world = closed_world();
    let before = kinds(&look(&world));
    let path = world.dir().join("log").join(format!("{:020}", 65536));
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"#", 5000).unwrap();
    let store = look(&world);
    assert_eq!(count(&kinds(&store), "damage"), 1);
    assert_eq!(count(&kinds(&store), "message"), count(&before, "message") - 1);
    let mut items = store.items(PhysicalOffset(65536), store.log().end()).unwrap();
    let damage = loop {
        if let Item::Damage(damage) = items.next().unwrap().unwrap() {
            break damage;
        }
    };
    assert_eq!(damage.path, path);
    assert!((3000..=5000).contains(&damage.file_offset), "{damage}");
    assert_eq!(damage.position.0, 65536 + damage.file_offset);
}

#[test]
fn store_that_is_written_and_cut_meanwhile_shows_no_damage() {
    let world = open_world();
    let topic = world.store().topic("orders").unwrap();
    let store = look(&world);
    let end = store.log().end();
    for number in 0..200 {
        world.send(&topic, 0, &format!("{number}{}", "y".repeat(2000)));
    }
    world.settle();
    assert_eq!(count(&kinds(&store), "damage"), 0);
    assert_eq!(store.log().end(), end, "what came later is left to the next look");
    assert!(look(&world).log().end() > end);

    // Removed by retention, and its file written again as another segment.
    let path = world.dir().join("log").join(format!("{:020}", 0));
    std::fs::write(&path, vec![7; 65536]).unwrap();
    std::fs::rename(&path, world.dir().join("log/free-00000000000000000000")).unwrap();
    let kinds = kinds(&store);
    assert_eq!((count(&kinds, "damage"), count(&kinds, "gone")), (0, 1));
}

#[test]
fn holder_of_a_store_is_told_and_not_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = crate::StoreOptions::new(dir.path());
    let now = crate::Now::default();
    let (store, _) = Store::open(options.clone(), now).unwrap();
    let live = StoreReader::open(dir.path()).unwrap();
    assert_eq!(live.summary().unwrap().segments, [], "nothing was written yet");
    assert_eq!(live.holder(), Holder::Process { pid: Some(std::process::id()) });
    store.close(now).unwrap();
    drop(store);
    let stopped = StoreReader::open(dir.path()).unwrap();
    assert_eq!(stopped.holder(), Holder::Nobody);
    Store::open(options, now).unwrap();
}

#[test]
fn store_is_found_one_folder_up_or_down_and_else_a_hint_is_given() {
    let world = closed_world();
    let data = tempfile::tempdir().unwrap();
    let store = data.path().join("broker");
    std::fs::create_dir(&store).unwrap();
    std::fs::create_dir(store.join("log")).unwrap();
    let segment = format!("log/{:020}", 0);
    std::fs::copy(world.dir().join(&segment), store.join(&segment)).unwrap();
    assert_eq!(StoreReader::open(data.path()).unwrap().dir(), store);

    let hint = |dir: &Path| StoreReader::open(dir).unwrap_err().to_string();
    let inside = hint(&store.join("log"));
    assert!(inside.contains(&format!("try {}", store.display())), "{inside}");
    let empty = tempfile::tempdir().unwrap();
    assert!(hint(empty.path()).contains("no folder in it is one"));
}

/// Gives the first segment's header another format.
fn rewrite_format(path: &Path, format: u32) {
    let mut bytes = std::fs::read(path).unwrap();
    let size = gantry_record::peek_size(&bytes).unwrap().0 as usize;
    let header = RecordView::parse(&bytes[..size]).unwrap();
    let mut body = header.body().to_vec();
    body[..4].copy_from_slice(&format.to_be_bytes());
    let mut newer = Vec::new();
    let slot = gantry_record::encode(&Draft { body: &body, ..header.draft() }, &mut newer).unwrap();
    slot.seal(&mut newer, header.queue_offset(), header.position(), header.store_time_ms());
    bytes[..size].copy_from_slice(&newer);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn newer_format_is_refused_with_both_versions_named() {
    let world = closed_world();
    let path = world.dir().join("log").join(format!("{:020}", 0));
    rewrite_format(&path, 2);
    let error = StoreReader::open(world.dir()).unwrap_err();
    assert!(error.is_newer_format(), "{error}");
    let Err(opened) = Store::open(world.options.clone(), world.now()) else { panic!("it opened") };
    assert!(matches!(opened, crate::OpenError::NewerFormat { found: 2, known: 1 }), "{opened}");
    let InspectError::Log(OpenError::NewerFormat { found, known, .. }) = error else { panic!() };
    assert_eq!((found, known), (2, 1));
}
