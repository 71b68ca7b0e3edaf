//! A store on a disk and on views in memory that fail where a test tells them to.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use bytes::BytesMut;
use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicConfig, TopicName};
use gantry_record::records;
use tempfile::TempDir;

use super::world::{LIMITS, body_of, push};
use crate::{
    AppendError, Batch, Flush, Now, OpenReport, Store, StoreOptions, Topic,
    log::memory_files::MemoryFiles, views::MemoryViews,
};

/// Where the store lies.
pub(super) const DIR: &str = "/store";

/// A store and what it stands on.
pub(super) struct FaultWorld {
    pub(super) disk: MemoryFiles,
    pub(super) views: Arc<MemoryViews>,
    pub(super) store: Arc<Store>,
    pub(super) report: OpenReport,
    pub(super) options: StoreOptions,
    pub(super) now: Now,
}

impl FaultWorld {
    pub(super) fn new(flush: Flush) -> Self {
        Self::with(flush, |_| {})
    }

    pub(super) fn with(flush: Flush, change: impl FnOnce(&mut StoreOptions)) -> Self {
        let mut options = StoreOptions::new(PathBuf::from(DIR));
        options.flush = flush;
        options.segment_bytes = 64 * 1024;
        change(&mut options);
        let now = Now { wall_ms: 1_700_000_000_000, monotonic_ms: 0 };
        Self::on(MemoryFiles::new(), Arc::default(), options, now)
    }

    pub(super) fn on(
        disk: MemoryFiles,
        views: Arc<MemoryViews>,
        options: StoreOptions,
        now: Now,
    ) -> Self {
        let files = Arc::new(disk.clone());
        let (store, report) = Store::open_on(options.clone(), views.clone(), files, now).unwrap();
        Self { disk, views, store, report, options, now }
    }

    /// The store as a start after a power cut finds it; `seed` chooses what is left of the unsynced.
    pub(super) fn after_power_cut(&self, seed: u64) -> Self {
        let views = Arc::new(self.views.after_crash());
        Self::on(self.disk.crash(seed), views, self.options.clone(), self.now)
    }

    /// The store as a start of another process finds it on the same disk.
    pub(super) fn after_restart(&self) -> Self {
        let views = Arc::new(self.views.after_crash());
        Self::on(self.disk.clone(), views, self.options.clone(), self.now)
    }

    pub(super) fn topic(&self, name: &str) -> Arc<Topic> {
        let config = TopicConfig::new(TopicName::new(name).unwrap(), 1);
        self.store.put_topic(config, self.now).unwrap().0
    }

    /// Appends a message and returns its position.
    pub(super) fn send(
        &self,
        topic: &Arc<Topic>,
        body: &str,
    ) -> Result<PhysicalOffset, AppendError> {
        let mut batch = Batch::new();
        push(&mut batch, topic, 0, "", body);
        self.store.append(&mut batch, self.now)?;
        Ok(batch.placed(0).position)
    }

    /// Syncs and moves everything to the views.
    pub(super) fn settle(&self) {
        self.store.sync().unwrap();
        while self.store.apply_views(100).unwrap() > 0 {}
    }

    /// Number of messages of a topic that have a key.
    pub(super) fn keys_found(&self, topic: &str, key: &str) -> usize {
        self.store.query_keys(topic, key, 0, u64::MAX, 100).unwrap().len()
    }

    /// Every message of a topic that readers see.
    pub(super) fn bodies(&self, name: &str) -> Vec<String> {
        let topic = self.store.topic(name).unwrap();
        let mut all = Vec::new();
        let mut from = self.store.queue_bounds(&topic, QueueId(0)).unwrap().min;
        loop {
            let mut out = BytesMut::new();
            let read = self.store.read_queue(&topic, QueueId(0), from, LIMITS, &|_| true, &mut out);
            let next: QueueOffset = read.unwrap().next;
            all.extend(records(&out).map(|record| body_of(&record.unwrap())));
            if next == from {
                return all;
            }
            from = next;
        }
    }
}

/// A file system of a few MiB, gone with the value.
pub(super) struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts it, or says why it cannot be.
    pub(super) fn mount(mib: u32) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
        let output = mount.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(Self(dir))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Lets nothing be written from here on.
    pub(super) fn make_read_only(&self) -> io::Result<()> {
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", "remount,ro"]).arg(self.path()).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("mount failed")) }
    }

    /// Takes all room that is left; removing the file gives it back.
    pub(super) fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        let block = vec![1; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that it goes even if a failed test has files open there.
        let status = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "{} stays", self.path().display());
    }
}
