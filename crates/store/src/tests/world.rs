//! The world of a test: a folder, a clock that the test moves, and shorthand for what tests do again and again.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::BytesMut;
use gantry_model::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicConfig, TopicName};
use gantry_record::{Draft, RecordView, properties, records, tag_hash};
use tempfile::TempDir;

use crate::{
    AppendError, Batch, Ends, Far, Flush, Index, KeySource, Now, OffsetCommit, QueueRead,
    ReadLimits, Store, StoreOptions, Ticket, Topic,
    change::{PARK_TOPIC, TIMER_OUT_MS},
    log::files::StdFiles,
    views::{MemoryViews, RocksMemory, RocksViews, ViewStore, dump},
};

/// Which views a world has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Memory,
    Rocks,
}

pub(super) const KINDS: [Kind; 2] = [Kind::Memory, Kind::Rocks];

enum Views {
    Memory(Arc<MemoryViews>),
    Rocks,
}

/// A store and what it stands on.
pub(super) struct World {
    dir: TempDir,
    pub(super) options: StoreOptions,
    views: Views,
    store: Option<Arc<Store>>,
    pub(super) now_ms: u64,
}

impl World {
    pub(super) fn new(kind: Kind) -> Self {
        Self::with(kind, |_| {})
    }

    pub(super) fn with(kind: Kind, change: impl FnOnce(&mut StoreOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = StoreOptions::new(dir.path());
        options.segment_bytes = 64 * 1024;
        change(&mut options);
        let views = match kind {
            Kind::Memory => Views::Memory(Arc::default()),
            Kind::Rocks => Views::Rocks,
        };
        let mut world = Self { dir, options, views, store: None, now_ms: 1_700_000_000_000 };
        world.open();
        world
    }

    /// A world on a copy of those folders of another store that `is_wanted` names.
    pub(super) fn with_files(
        kind: Kind,
        from: &StoreOptions,
        now_ms: u64,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&from.dir).unwrap() {
            let entry = entry.unwrap();
            let is_dir = entry.file_type().unwrap().is_dir();
            if is_dir && is_wanted(&entry.file_name().to_string_lossy()) {
                let to = dir.path().join(entry.file_name());
                std::fs::create_dir(&to).unwrap();
                copy_tree(&entry.path(), &to);
            }
        }
        let options = StoreOptions { dir: dir.path().into(), ..from.clone() };
        let views = match kind {
            Kind::Memory => Views::Memory(Arc::default()),
            Kind::Rocks => Views::Rocks,
        };
        let mut world = Self { dir, options, views, store: None, now_ms };
        world.open();
        world
    }

    pub(super) fn store(&self) -> &Store {
        self.store.as_deref().unwrap()
    }

    pub(super) fn shared(&self) -> Arc<Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn now(&self) -> Now {
        Now { wall_ms: self.now_ms, monotonic_ms: self.now_ms }
    }

    fn open(&mut self) -> crate::OpenReport {
        let views: Arc<dyn ViewStore> = match &self.views {
            Views::Memory(views) => Arc::clone(views) as Arc<dyn ViewStore>,
            Views::Rocks => {
                let memory = RocksMemory { cache_bytes: 1 << 20, write_bytes: 4 << 20 };
                Arc::new(RocksViews::open(&self.options.dir.join("views"), memory).unwrap())
            }
        };
        let files = Arc::new(StdFiles);
        let (store, report) =
            Store::open_on(self.options.clone(), views, files, self.now()).unwrap();
        self.store = Some(store);
        report
    }

    /// Lets go of the store, which is closed or has no need to be.
    pub(super) fn stop(&mut self) {
        self.store = None;
    }

    /// Opens the store that was stopped.
    pub(super) fn start(&mut self) -> crate::OpenReport {
        self.open()
    }

    /// Closes the store and opens it again.
    pub(super) fn reopen(&mut self) -> crate::OpenReport {
        self.store().close(self.now()).unwrap();
        self.store = None;
        self.open()
    }

    /// The process dies: what was written to the log is there, of the views what was flushed.
    pub(super) fn kill(&mut self) -> crate::OpenReport {
        match &self.views {
            Views::Memory(views) => {
                self.views = Views::Memory(Arc::new(views.after_crash()));
                self.store = None;
            }
            Views::Rocks => {
                // A copy of the files as they are, taken while the store still has them open.
                let copy = tempfile::tempdir().unwrap();
                copy_tree(self.dir.path(), copy.path());
                self.store = None;
                self.dir = copy;
                self.options.dir = self.dir.path().into();
            }
        }
        self.open()
    }

    /// The views are lost.
    pub(super) fn lose_views(&mut self) -> crate::OpenReport {
        self.store = None;
        match &mut self.views {
            Views::Memory(views) => *views = Arc::default(),
            Views::Rocks => std::fs::remove_dir_all(self.options.dir.join("views")).unwrap(),
        }
        self.open()
    }

    pub(super) fn topic(&self, name: &str, queues: u32) -> Arc<Topic> {
        let config = TopicConfig::new(TopicName::new(name).unwrap(), queues);
        self.store().put_topic(config, self.now()).unwrap().0
    }

    pub(super) fn send(&self, topic: &Arc<Topic>, queue: u32, body: &str) -> Ticket {
        self.send_tagged(topic, queue, "", body)
    }

    pub(super) fn send_tagged(
        &self,
        topic: &Arc<Topic>,
        queue: u32,
        tag: &str,
        body: &str,
    ) -> Ticket {
        let mut batch = Batch::new();
        push(&mut batch, topic, queue, tag, body);
        self.store().append(&mut batch, self.now()).unwrap()
    }

    /// Parks a message and returns its position.
    pub(super) fn park(&self, target: &str, due_ms: u64) -> PhysicalOffset {
        let topic = self.store().topic(PARK_TOPIC).unwrap_or_else(|| self.topic(PARK_TOPIC, 18));
        park(self.store(), &topic, target, due_ms, self.now())
    }

    /// Appends the message that ends a timer.
    pub(super) fn fire(
        &self,
        topic: &Arc<Topic>,
        due_ms: u64,
        position: PhysicalOffset,
    ) -> Result<Ticket, AppendError> {
        fire(self.store(), topic, due_ms, position, self.now())
    }

    /// Syncs and moves everything to the views.
    pub(super) fn settle(&self) {
        self.store().sync().unwrap();
        while self.store().apply_views(7).unwrap() > 0 {}
    }

    pub(super) fn read(&self, topic: &Topic, queue: u32, from: u64) -> (QueueRead, Vec<String>) {
        self.read_where(topic, queue, from, &|_| true)
    }

    pub(super) fn read_where(
        &self,
        topic: &Topic,
        queue: u32,
        from: u64,
        accept: &dyn Fn(i64) -> bool,
    ) -> (QueueRead, Vec<String>) {
        let mut out = BytesMut::new();
        let (queue, from) = (QueueId(queue), QueueOffset(from));
        let read = self.store().read_queue(topic, queue, from, LIMITS, accept, &mut out).unwrap();
        let bodies = records(&out).map(|record| body_of(&record.unwrap())).collect();
        (read, bodies)
    }

    /// Every message of a queue from its first one on.
    pub(super) fn read_all(&self, topic: &Topic, queue: u32) -> Vec<String> {
        let mut all = Vec::new();
        let mut from = self.store().queue_bounds(topic, QueueId(queue)).unwrap().min.0;
        loop {
            let (read, bodies) = self.read(topic, queue, from);
            if read.next.0 == from {
                return all;
            }
            all.extend(bodies);
            from = read.next.0;
        }
    }

    /// Every entry of the views, after everything has moved there.
    pub(super) fn dump(&self) -> Vec<String> {
        self.settle();
        dump(&*self.store().views).unwrap()
    }
}

pub(super) const LIMITS: ReadLimits = ReadLimits {
    messages_max: 32,
    bytes_max: 256 * 1024,
    scan_max: 800,
    waits_within: u64::MAX,
    far: Far::AtHand,
};

pub(super) fn draft<'a>(
    topic: &'a str,
    queue: u32,
    body: &'a str,
    properties: &'a [u8],
) -> Draft<'a> {
    let host = SocketAddr::from(([127, 0, 0, 1], 10911));
    Draft {
        topic,
        queue: QueueId(queue),
        flag: 0,
        sys_flag: 0,
        born_time_ms: 0,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_offset: 0,
        body: body.as_bytes(),
        properties,
    }
}

pub(super) fn commit(group: &str, topic: &Topic, queue: u32, offset: u64) -> OffsetCommit {
    OffsetCommit {
        group: GroupName::new(group).unwrap(),
        topic: topic.id,
        queue: QueueId(queue),
        offset: QueueOffset(offset),
    }
}

pub(super) fn push(batch: &mut Batch, topic: &Arc<Topic>, queue: u32, tag: &str, body: &str) {
    let mut raw = Vec::new();
    properties::put(&mut raw, "TAGS", tag).unwrap();
    properties::put(&mut raw, "UNIQ_KEY", body).unwrap();
    properties::put(&mut raw, "KEYS", "order-1 order-2").unwrap();
    let keys = KeySource { unique: Some(body), keys: Some("order-1 order-2") };
    let index = Index { tag_hash: tag_hash(tag).into(), keys, ..Index::default() };
    batch.push(topic, &draft(topic.name(), queue, body, &raw), index).unwrap();
}

/// Parks a message on the topic of parked messages, and returns its position.
pub(super) fn park(
    store: &Store,
    topic: &Arc<Topic>,
    target: &str,
    due_ms: u64,
    now: Now,
) -> PhysicalOffset {
    let mut raw = Vec::new();
    properties::put(&mut raw, "REAL_TOPIC", target).unwrap();
    properties::put(&mut raw, TIMER_OUT_MS, &due_ms.to_string()).unwrap();
    let mut batch = Batch::new();
    let index = Index { timer_due_ms: Some(due_ms), ..Index::default() };
    batch.push(topic, &draft(PARK_TOPIC, 0, "parked", &raw), index).unwrap();
    store.append(&mut batch, now).unwrap();
    batch.placed(0).position
}

pub(super) fn fire(
    store: &Store,
    topic: &Arc<Topic>,
    due_ms: u64,
    position: PhysicalOffset,
    now: Now,
) -> Result<Ticket, AppendError> {
    let mut batch = Batch::new();
    let index = Index { ends: Some(Ends::Timer { due_ms, position }), ..Index::default() };
    batch.push(topic, &draft(topic.name(), 0, "fired", &[]), index).unwrap();
    store.append(&mut batch, now)
}

/// Every entry of the views, without those of messages that the log has forgotten.
pub(super) fn kept_entries(store: &Store) -> Vec<String> {
    let start = store.log_start().0;
    let is_kept = |line: &String| match line.split(' ').collect::<Vec<_>>()[..] {
        ["queue", _, _, _, position, ..] => position.parse::<u64>().unwrap() >= start,
        _ => true,
    };
    dump(&*store.views).unwrap().into_iter().filter(is_kept).collect()
}

pub(super) fn body_of(record: &RecordView<'_>) -> String {
    String::from_utf8(record.body().to_vec()).unwrap()
}

pub(super) fn sync_mode(options: &mut StoreOptions) {
    options.flush = Flush::Sync;
}

/// Copies the files of a folder as they are, while a store has them open.
///
/// The views delete files of theirs in the background. Only a copy during which no name came or went shows the
/// folder as it was at some moment; any other is made again.
pub(super) fn copy_tree(from: &Path, to: &Path) {
    for _ in 0..1_000 {
        let before = names_below(from);
        if before.iter().all(|name| copy_one(&from.join(name), &to.join(name)))
            && names_below(from) == before
        {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
        std::fs::create_dir(to).unwrap();
    }
    panic!("{} is never at rest", from.display());
}

/// Whether the file or folder was still there to be copied.
fn copy_one(from: &Path, to: &Path) -> bool {
    let copied =
        if from.is_dir() { std::fs::create_dir(to) } else { std::fs::copy(from, to).map(drop) };
    match copied {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => panic!("{}: {error}", from.display()),
    }
}

/// Every name below a folder, a folder before what is in it.
fn names_below(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| PathBuf::from(entry.unwrap().file_name()))
        .collect();
    names.sort();
    let below = |name: PathBuf| {
        let path = dir.join(&name);
        let inner = if path.is_dir() { names_below(&path) } else { Vec::new() };
        let inner: Vec<_> = inner.into_iter().map(|it| name.join(it)).collect();
        std::iter::once(name).chain(inner)
    };
    names.into_iter().flat_map(below).collect()
}
