//! A file system that is really full: a small one in memory, which goes with the test.

use std::{fs, sync::Arc};

use gantry_model::{QueueId, QueueOffset, TopicConfig, TopicName};

use super::{
    faults_world::SmallDisk,
    world::{self, commit},
};
use crate::{AppendError, Batch, Now, Store, StoreOptions, Topic};

const MIB: u64 = 1 << 20;

struct Full {
    store: Arc<Store>,
    topic: Arc<Topic>,
    now_ms: u64,
}

impl Full {
    fn now(&self) -> Now {
        Now { wall_ms: self.now_ms, monotonic_ms: self.now_ms }
    }

    fn send(&self) -> Result<(), AppendError> {
        let mut batch = Batch::new();
        world::push(&mut batch, &self.topic, 0, "", &"m".repeat(8_000));
        self.store.append(&mut batch, self.now()).map(|_| ())
    }

    fn settle(&self) {
        self.store.sync().unwrap();
        while self.store.apply_views(1_000).unwrap() > 0 {}
    }

    fn read(&self) -> u64 {
        let bounds = self.store.queue_bounds(&self.topic, QueueId(0)).unwrap();
        let mut out = bytes::BytesMut::new();
        let limits = world::LIMITS;
        let last = QueueOffset(bounds.max.0 - 1);
        let read = self
            .store
            .read_queue(&self.topic, QueueId(0), last, limits, &|_| true, &mut out)
            .unwrap();
        assert!(!out.is_empty());
        read.next.0
    }

    fn commit(&self, offset: u64) -> Result<(), AppendError> {
        let commits = [commit("readers", &self.topic, 0, offset)];
        self.store.commit_offsets(&commits, self.now()).map(|_| ())
    }
}

#[test]
fn full_file_system_refuses_messages_keeps_commits_and_serves_again_when_there_is_space() {
    let disk = match SmallDisk::mount(64) {
        Ok(disk) => disk,
        Err(reason) => return eprintln!("not checked, no file system can be mounted: {reason}"),
    };
    let mut options = StoreOptions::new(disk.path().join("store"));
    options.segment_bytes = 4 * MIB;
    options.room.reserve_files = 2;
    options.view_write_bytes = 4 << 20;
    let now_ms = 1_700_000_000_000;
    let now = Now { wall_ms: now_ms, monotonic_ms: now_ms };
    let (store, _) = Store::open(options, now).unwrap();
    let config = TopicConfig::new(TopicName::new("orders").unwrap(), 1);
    let topic = store.put_topic(config, now).unwrap().0;
    let full = Full { store, topic, now_ms };

    // Another's file takes all space but for the files of the log that are there.
    full.send().unwrap();
    full.store.find_room().unwrap();
    let ballast = disk.fill();
    let mut sent = 1;
    let error = loop {
        match full.send() {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full(_)), "{error}");
    assert!(sent > 100, "{sent}: the segment that was there is used");
    full.settle();
    assert_eq!(full.read(), sent);
    for offset in 1..=sent {
        full.commit(offset).unwrap();
    }
    full.settle();
    full.store.find_room().unwrap();
    assert!(full.send().is_err() && full.store.shortage().is_some());

    fs::remove_file(ballast).unwrap();
    full.store.find_room().unwrap();
    assert_eq!(full.store.shortage(), None);
    full.send().unwrap();
    full.commit(sent + 1).unwrap();
    full.settle();
    assert_eq!(full.read(), sent + 1);
    full.store.close(full.now()).unwrap();
}
