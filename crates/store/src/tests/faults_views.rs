//! Promises about views that cannot be written for a while: the log goes on, and they catch up by themselves.

use std::{
    fs, io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use gantry_model::{TopicConfig, TopicName};

use super::{
    faults_world::{FaultWorld, SmallDisk},
    world::push,
};
use crate::{
    AppendError, Batch, Flush, Now, Store, StoreOptions, Topic, ViewError,
    log::files::StdFiles,
    ring::MESSAGE_BYTES,
    views::{RocksMemory, RocksViews, dump},
};

#[test]
fn while_views_fail_sends_are_taken_until_the_ring_is_full_and_read_from_it_and_then_told_to_wait()
{
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        let world = FaultWorld::with(Flush::Sync, |options| {
            options.ring_bytes_max = 20 * MESSAGE_BYTES;
        });
        let topic = world.topic("orders");
        world.settle();
        world.views.fail(usize::MAX, kind);
        let mut taken = Vec::new();
        let refusal = loop {
            match world.send(&topic, &format!("{}", taken.len())) {
                Ok(_) => taken.push(taken.len().to_string()),
                Err(error) => break error,
            }
        };
        assert!(matches!(refusal, AppendError::Busy { .. }), "{refusal}");
        assert_eq!(taken.len(), 20);
        world.store.sync().unwrap();
        assert_eq!(world.bodies("orders"), taken, "what was taken is delivered meanwhile");
        let applied = world.store.status().applied;
        for _ in 0..3 {
            let error = world.store.apply_views(100).unwrap_err();
            assert_eq!(matches!(error, ViewError::Full { .. }), kind == io::ErrorKind::StorageFull);
            world.store.flush_views(applied).unwrap_err();
        }
        assert_eq!((world.store.status().applied, world.bodies("orders").len()), (applied, 20));

        world.views.fail(0, kind);
        world.settle();
        world.send(&topic, "20").unwrap();
        world.settle();
        taken.push("20".into());
        assert_eq!(world.bodies("orders"), taken);
        assert_eq!(world.store.status().ring_bytes, 0);
        // Tried three times, applied once: the views are as a replay makes them.
        let again =
            FaultWorld::on(world.disk.copy(), Arc::default(), world.options.clone(), world.now);
        again.settle();
        assert_eq!(dump(&*world.views).unwrap(), dump(&*again.views).unwrap());
    }
}

fn send(store: &Store, topic: &Arc<Topic>, now: Now) -> Result<(), AppendError> {
    let mut batch = Batch::new();
    (0..50).for_each(|n| push(&mut batch, topic, n % 4, "", "m"));
    store.append(&mut batch, now).map(|_| ())
}

#[test]
fn views_on_a_full_disk_go_on_by_themselves_when_there_is_room_again() {
    let disk = match SmallDisk::mount(24) {
        Ok(disk) => disk,
        Err(reason) => return eprintln!("not checked, no file system can be mounted: {reason}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let memory = RocksMemory { cache_bytes: 1 << 20, write_bytes: 1 << 20 };
    let views = Arc::new(RocksViews::open(&disk.path().join("views"), memory).unwrap());
    let options =
        StoreOptions { ring_bytes_max: 4000 * MESSAGE_BYTES, ..StoreOptions::new(dir.path()) };
    let now = Now { wall_ms: 1_700_000_000_000, monotonic_ms: 0 };
    let (store, _) = Store::open_on(options, views, Arc::new(StdFiles), now).unwrap();
    let config = TopicConfig::new(TopicName::new("orders").unwrap(), 4);
    let (topic, _) = store.put_topic(config, now).unwrap();
    store.sync().unwrap();

    let filler = disk.fill();
    let mut refused = None;
    let mut sent = 0;
    while refused.is_none() && sent < 200_000 {
        match send(&store, &topic, now) {
            Ok(()) => sent += 50,
            Err(AppendError::Busy { .. }) => {
                store.sync().unwrap();
                while refused.is_none() {
                    match store.apply_views(10_000) {
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(error) => refused = Some(error),
                    }
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    let refused = refused.expect("the views need more than the disk has left");
    eprintln!("after {sent} messages: {refused:?}");
    assert!(matches!(refused, ViewError::Full { .. }), "{refused:?}");
    assert!(store.apply_views(10_000).is_err(), "nothing has changed yet");
    fs::remove_file(filler).unwrap();
    let began = Instant::now();
    while let Err(error) = store.apply_views(10_000) {
        assert!(began.elapsed() < Duration::from_mins(1), "{error:?}");
        thread::sleep(Duration::from_millis(20));
    }
    eprintln!("views go on {} ms after there was room", began.elapsed().as_millis());
    store.sync().unwrap();
    while store.apply_views(10_000).unwrap() > 0 {}
    assert_eq!(store.status().applied, store.status().written);
    send(&store, &topic, now).unwrap();
    store.close(now).unwrap();
}
