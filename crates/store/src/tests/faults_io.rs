//! Promises about a disk that answers with an error once: what was answered is kept, what failed is told.

use std::io::ErrorKind;

use super::faults_world::FaultWorld;
use crate::{
    AppendError, Flush,
    log::memory_files::Operation::{Sync, SyncDir, Write},
};

#[test]
fn after_a_failed_sync_nothing_is_confirmed_or_taken_and_what_was_confirmed_is_there_at_the_next_start()
 {
    let world = FaultWorld::new(Flush::Sync);
    let topic = world.topic("orders");
    world.send(&topic, "safe").unwrap();
    world.store.sync().unwrap();
    world.send(&topic, "doubtful").unwrap();
    world.disk.fail(Sync, 0, ErrorKind::Other);
    world.store.sync().unwrap_err();
    let confirmed = world.store.confirmed();
    world.store.sync().expect_err("the disk would say yes by now, and has lost what it was given");
    assert!(matches!(world.send(&topic, "refused"), Err(AppendError::Stopped(Some(_)))));
    assert_eq!((world.store.confirmed(), world.bodies("orders")), (confirmed, vec!["safe".into()]));
    let cause = world.store.stopped().unwrap().to_string();
    assert!(cause.contains("since sync /store/log/0"), "{cause}");
    while world.store.apply_views(100).unwrap() > 0 {}
    assert!(world.store.status().applied <= confirmed, "the views hold nothing that may be undone");
    for seed in 0..20 {
        let mut found = world.after_power_cut(seed).bodies("orders");
        assert_eq!(found.remove(0), "safe", "{seed}");
        assert!(found.is_empty() || found == ["doubtful"], "{seed}: {found:?}");
    }
}

#[test]
fn restart_after_a_failed_sync_confirms_only_what_it_has_put_on_disk_again() {
    let world = FaultWorld::new(Flush::Async);
    let topic = world.topic("orders");
    world.send(&topic, "dropped by the failed sync").unwrap();
    world.disk.fail(Sync, 0, ErrorKind::Other);
    world.store.sync().unwrap_err();
    let next = world.after_restart();
    assert_eq!(next.bodies("orders"), ["dropped by the failed sync"]);
    for seed in 0..20 {
        assert_eq!(next.after_power_cut(seed).bodies("orders"), next.bodies("orders"), "{seed}");
    }
}

#[test]
fn each_step_that_leaves_the_log_in_doubt_is_told_with_its_file_and_a_restart_goes_on() {
    for operation in [Write, Sync, SyncDir] {
        let world = FaultWorld::new(Flush::Sync);
        let topic = world.topic("orders");
        world.send(&topic, "safe").unwrap();
        world.store.sync().unwrap();
        world.disk.fail(operation, 0, ErrorKind::Other);
        // Enough for another segment, whose folder is synced.
        let sent = (0..40).try_for_each(|_| world.send(&topic, &"x".repeat(2000)).map(|_| ()));
        assert!(sent.is_err() || world.store.sync().is_err(), "{operation:?}");
        let cause = world.store.stopped().unwrap().to_string();
        assert!(cause.contains("/store/log"), "{operation:?}: {cause}");
        let next = world.after_restart();
        assert!(next.store.stopped().is_none() && next.report.damage.is_empty());
        let topic = next.store.topic("orders").unwrap();
        next.send(&topic, "goes on").unwrap();
        next.settle();
        let bodies = next.bodies("orders");
        assert_eq!((bodies[0].as_str(), bodies[bodies.len() - 1].as_str()), ("safe", "goes on"));
    }
}
