//! A store that was closed in order or died at rest, on a disk and with views in memory, of which each flip gets a copy.
//! Invariant: what is not flipped is synced, and some mark says so.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::BytesMut;
use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicConfig, TopicName};
use gantry_record::{RecordView, peek_size, records};

use super::super::world::{LIMITS, body_of, push};
use crate::{
    Batch, Now, OpenReport, Store, StoreOptions, log::memory_files::MemoryFiles, views::MemoryViews,
};

pub(super) const SEGMENT_BYTES: u64 = 8 * 1024;

/// Where views are at an open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Views {
    /// They hold everything: the log is read when a reader wants it.
    Kept,
    /// They are lost: the whole log is read at the start.
    Lost,
}

pub(super) struct Scene {
    pub(super) disk: MemoryFiles,
    views: MemoryViews,
    /// Bodies of all messages, which are on queue 0 of `orders`, and where they lie.
    pub(super) messages: Vec<(String, Range<u64>)>,
}

fn options() -> StoreOptions {
    let mut options = StoreOptions::new("/store");
    options.segment_bytes = SEGMENT_BYTES;
    options
}

fn now() -> Now {
    Now { wall_ms: 1_700_000_000_000, monotonic_ms: 0 }
}

impl Scene {
    /// Batches of messages, each synced before the next one.
    pub(super) fn with(batches: &[&[&str]]) -> Self {
        Self::ended(batches, |store| store.close(now()).unwrap())
    }

    /// The same in a store that died at rest.
    pub(super) fn killed(batches: &[&[&str]]) -> Self {
        Self::ended(batches, |store| {
            assert!(!store.mark_if_idle().unwrap(), "it may be on its way to rest");
            assert!(store.mark_if_idle().unwrap());
            while store.apply_views(7).unwrap() > 0 {}
        })
    }

    fn ended(batches: &[&[&str]], end: impl FnOnce(&Store)) -> Self {
        let (disk, views) = (MemoryFiles::new(), Arc::new(MemoryViews::new()));
        let files = Arc::new(disk.clone());
        let (store, _) = Store::open_on(options(), views.clone(), files, now()).unwrap();
        let config = TopicConfig::new(TopicName::new("orders").unwrap(), 1);
        let topic = store.put_topic(config, now()).unwrap().0;
        let mut messages = Vec::new();
        for bodies in batches {
            let mut batch = Batch::new();
            bodies.iter().for_each(|body| push(&mut batch, &topic, 0, "red", body));
            store.append(&mut batch, now()).unwrap();
            for (index, body) in bodies.iter().enumerate() {
                let start = batch.placed(index).position.0;
                let size = store.read_record(PhysicalOffset(start)).unwrap().unwrap().len() as u64;
                messages.push(((*body).to_owned(), start..start + size));
            }
            store.sync().unwrap();
        }
        end(&store);
        Self { disk, views: views.settled(), messages }
    }

    /// Bodies of all messages but those that have a byte in `range`.
    pub(super) fn bodies_beside(&self, range: &Range<u64>) -> Vec<&str> {
        let is_beside = |place: &Range<u64>| place.end <= range.start || range.end <= place.start;
        let beside = self.messages.iter().filter(|(_, place)| is_beside(place));
        beside.map(|(body, _)| body.as_str()).collect()
    }

    /// Opens a copy in which one bit of the log is another.
    pub(super) fn flipped(&self, at: u64, bit: u32, views: Views) -> Flipped {
        let (path, offset) = place(at);
        self.flipped_file(&path, offset, bit, views)
    }

    /// Opens a copy in which one bit of a file is another.
    pub(super) fn flipped_file(&self, path: &Path, at: usize, bit: u32, views: Views) -> Flipped {
        let disk = self.disk.copy();
        disk.damage(path, |bytes| bytes[at] ^= 1 << bit);
        self.open_on(disk, views)
    }

    /// Opens a copy as it is.
    pub(super) fn open(&self, views: Views) -> Flipped {
        self.open_on(self.disk.copy(), views)
    }

    /// Opens the store on another disk.
    pub(super) fn open_on(&self, disk: MemoryFiles, views: Views) -> Flipped {
        let views = match views {
            Views::Kept => self.views.settled(),
            Views::Lost => MemoryViews::new(),
        };
        Flipped::on(disk, Arc::new(views))
    }

    /// The one file of the key index.
    pub(super) fn key_file(&self) -> PathBuf {
        let mut paths = self.disk.paths().into_iter();
        paths.find(|path| path.extension().is_some_and(|extension| extension == "keys")).unwrap()
    }

    /// Places of all records of the log's own on a topic.
    pub(super) fn own(&self, topic: &str) -> Vec<Range<u64>> {
        let places = self.places();
        places.into_iter().filter(|(found, _)| found == topic).map(|(_, place)| place).collect()
    }

    /// Topics and places of all records, read without the log's help; a filler has no topic.
    pub(super) fn places(&self) -> Vec<(String, Range<u64>)> {
        let mut places = Vec::new();
        let mut paths = self.disk.paths();
        paths.retain(|path| path.parent().is_some_and(|dir| dir.ends_with("log")));
        paths.sort();
        for path in paths {
            let base: u64 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            let bytes = self.disk.bytes(&path).unwrap();
            let mut at = 0;
            while let Some((size @ 1.., _)) = peek_size(&bytes[at..]) {
                let end = at + size as usize;
                let topic = RecordView::parse(&bytes[at..end]).map_or("", |record| record.topic());
                places.push((topic.to_owned(), base + at as u64..base + end as u64));
                at = end;
            }
        }
        places
    }
}

/// File of a position, and the byte there.
fn place(at: u64) -> (PathBuf, usize) {
    let base = at / SEGMENT_BYTES * SEGMENT_BYTES;
    (format!("/store/log/{base:020}").into(), (at - base) as usize)
}

/// A store that is open over a flipped bit.
pub(super) struct Flipped {
    pub(super) disk: MemoryFiles,
    views: Arc<MemoryViews>,
    pub(super) store: Arc<Store>,
    pub(super) report: OpenReport,
}

impl Flipped {
    fn on(disk: MemoryFiles, views: Arc<MemoryViews>) -> Self {
        let files = Arc::new(disk.clone());
        let (store, report) = Store::open_on(options(), views.clone(), files, now()).unwrap();
        Self { disk, views, store, report }
    }

    /// The process stops, and another one opens the store.
    pub(super) fn reopened(self) -> Self {
        let Self { disk, views, store, .. } = self;
        drop(store);
        Self::on(disk, views)
    }

    /// Bodies of every message that a consumer gets who asks again and again where the answer says.
    pub(super) fn read_all(&self) -> Vec<String> {
        let topic =
            self.store.topic("orders").expect("the topic's own record is not the flipped one");
        let (mut bodies, mut from) = (Vec::new(), QueueOffset(0));
        loop {
            let mut out = BytesMut::new();
            let read = self
                .store
                .read_queue(&topic, QueueId(0), from, LIMITS, &|_| true, &mut out)
                .unwrap();
            bodies.extend(records(&out).map(|record| body_of(&record.unwrap())));
            if read.next == from {
                return bodies;
            }
            from = read.next;
        }
    }

    /// Bodies of every message that the key index leads to.
    pub(super) fn find(&self, key: &str) -> Vec<String> {
        let found = self.store.query_keys("orders", key, 0, u64::MAX, 64).unwrap();
        found.iter().map(|bytes| body_of(&RecordView::parse(bytes).unwrap())).collect()
    }

    /// Whether exactly one place is reported, the one that begins at `position`.
    pub(super) fn reports_only(&self, position: u64) -> bool {
        let status = self.store.status();
        let (path, offset) = place(position);
        let is_there = |damage: &crate::Damage| {
            damage.position == Some(PhysicalOffset(position))
                && damage.path == path
                && damage.file_offset == Some(offset as u64)
        };
        status.damaged_records == 1 && matches!(&status.damage[..], [one] if is_there(one))
    }
}
