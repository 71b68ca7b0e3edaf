//! Promises about what is derived from the log: each of it can be deleted, and comes back as it was.

use super::world::{KINDS, Kind, World, commit};
use crate::views::{
    View,
    layout::{self, Applied},
};

/// Entries in every view and in the key index, all of it flushed and closed.
fn closed_world() -> (World, Vec<String>, Vec<bytes::Bytes>) {
    let world = World::new(Kind::Rocks);
    let topic = world.topic("orders", 2);
    for number in 0..60 {
        world.send(&topic, number % 2, &format!("m{number}"));
    }
    world.park("orders", 7);
    world.store().commit_offsets(&[commit("g", &topic, 1, 9)], world.now()).unwrap();
    let (entries, hits) = (world.dump(), hits(&world));
    for view in View::ALL {
        assert!(entries.iter().any(|line| line.starts_with(view.name())), "{view:?} is empty");
    }
    assert_eq!(hits.len(), 60);
    world.store().close(world.now()).unwrap();
    (world, entries, hits)
}

fn hits(world: &World) -> Vec<bytes::Bytes> {
    world.store().query_keys("orders", "order-1", 0, u64::MAX, 100).unwrap()
}

#[test]
fn each_view_that_is_deleted_alone_comes_back_with_all_its_entries() {
    for view in View::ALL {
        let (mut world, entries, hits_before) = closed_world();
        world.stop();
        let dir = world.dir().join("views");
        let names = View::ALL.map(View::name);
        let mut db = rocksdb::DB::open_cf(&rocksdb::Options::default(), &dir, names).unwrap();
        db.drop_cf(view.name()).unwrap();
        drop(db);
        assert!(world.start().views_rebuilt, "{view:?}");
        assert_eq!(world.dump(), entries, "{view:?}");
        assert_eq!(hits(&world), hits_before, "{view:?}");
    }
}

#[test]
fn key_index_and_all_views_that_are_deleted_come_back() {
    for folders in [&["keys"][..], &["views"], &["keys", "views"]] {
        let (mut world, entries, hits_before) = closed_world();
        world.stop();
        for folder in folders {
            std::fs::remove_dir_all(world.dir().join(folder)).unwrap();
        }
        let report = world.start();
        assert_eq!(report.views_rebuilt, folders.contains(&"views"), "{folders:?}");
        assert_eq!(world.dump(), entries, "{folders:?}");
        assert_eq!(hits(&world), hits_before, "{folders:?}");
        world.store().maintain(world.now()).unwrap();
        assert_eq!(hits(&world), hits_before, "{folders:?}, indexed again");
    }
}

#[test]
fn views_of_another_version_come_back_with_all_their_entries_whatever_they_held() {
    for version in [0, layout::VERSION + 1] {
        for kind in KINDS {
            let mut world = World::new(kind);
            let topic = world.topic("orders", 1);
            let (ticket, _) = (world.send(&topic, 0, "a"), world.park("orders", 7));
            let before = world.dump();
            let views = &world.store().views;
            let mut batch = crate::views::ViewBatch::new();
            let applied = Applied { position: ticket.end, version };
            batch.put(View::Meta, layout::APPLIED, &layout::encode_applied(applied));
            // What another version may add.
            batch.put(View::Timer, b"unknown", b"");
            views.apply(&batch).unwrap();
            views.flush().unwrap();
            let report = world.kill();
            assert!(report.views_rebuilt, "{version} {kind:?}");
            assert_eq!(world.dump(), before, "{version} {kind:?}");
            assert_eq!(world.store().views.applied_as().unwrap().version, layout::VERSION);
            assert!(!world.reopen().views_rebuilt, "{version} {kind:?}");
        }
    }
}

#[test]
fn log_that_is_applied_twice_leaves_the_views_as_they_were() {
    let (mut world, entries, _) = closed_world();
    world.stop();
    world.start();
    // Views that hold everything, and say that they hold nothing.
    let mut batch = crate::views::ViewBatch::new();
    let first = world.store().topic("orders").unwrap().since;
    batch.set_applied(first);
    world.store().views.apply(&batch).unwrap();
    world.store().views.flush().unwrap();
    let report = world.kill();
    assert!(report.records_replayed > 60 && !report.views_rebuilt, "{report:?}");
    assert_eq!(world.dump(), entries);
}

#[test]
fn folder_that_is_copied_after_any_flush_of_the_views_opens_to_what_a_replay_gives() {
    let world = World::new(Kind::Rocks);
    let topic = world.topic("orders", 2);
    for flush in 0..6 {
        for number in 0..20 {
            world.send(&topic, number % 2, &format!("{flush}-{number}"));
        }
        world.park("orders", flush);
        world.settle();
        world.store().views.flush().unwrap();
        // Written to the log, and not to the views.
        world.send(&topic, 0, "behind the flush");
        let all = |_: &str| true;
        let copy = World::with_files(Kind::Rocks, &world.options, world.now_ms, all);
        let replayed = World::with_files(Kind::Rocks, &world.options, world.now_ms, |f| f == "log");
        assert_eq!(copy.dump(), replayed.dump(), "flush {flush}");
        assert_eq!(copy.dump(), world.dump(), "flush {flush}");
        let topic = copy.store().topic("orders").unwrap();
        assert_eq!(copy.read_all(&topic, 0).len(), (flush as usize + 1) * 11);
    }
}
