//! The store: one commit log, its views and its tables behind one type.
//! Invariant: readers see what is confirmed and nothing else; what a call that succeeded promised survives.
//! Leaves threads and time to its owner. Locks are taken in the order tail, tables, ring, queue.

use std::{
    fs::File,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use gantry_model::{GroupConfig, GroupName, PhysicalOffset, QueueId, QueueOffset};
use parking_lot::Mutex;

use crate::{
    append::Tail,
    apply::Applier,
    damage::DamageList,
    errors::{CloseError, MaintainError, OpenError, ReadError, SyncError},
    idle::Rest,
    lock,
    log::{
        self, Log, LogOptions, RoomOptions, StoreId,
        files::{Files, StdFiles},
    },
    options::{Flush, Now, OnFull, StoreOptions},
    pending::PendingBytes,
    planted::VIEW_APPLIED_TWICE,
    queues::Queues,
    read::EntriesAhead,
    recover::{Restored, restore},
    retention::Upkeep,
    ring::Ring,
    scrub::Scrub,
    tables::Tables,
    timers::{Pending, Timers},
    topics::{DataVersion, Topic},
    types::{Maintenance, OpenReport, StoreStatus, Timer},
    views::{ViewBatch, ViewError, ViewStore},
};

/// Records after which the views are flushed: a replay of them takes about a second.
const FLUSH_RECORDS: u64 = 1_000_000;
/// Bytes of log after which the views are flushed.
const FLUSH_BYTES: u64 = 1 << 30;
/// Records in one batch of views when the store closes.
const CLOSE_RECORDS: usize = 8192;
/// Steps of 1 MiB in which closing reads the log for the key index: a few seconds. What is left then is a missing file of
/// the index for the next start, or read as it follows.
const CLOSE_STEPS_MAX: usize = 256;

/// A store that is open.
pub struct Store {
    pub(crate) options: StoreOptions,
    pub(crate) log: Log,
    pub(crate) views: Arc<dyn ViewStore>,
    pub(crate) tail: Mutex<Tail>,
    pub(crate) tables: Tables,
    pub(crate) queues: Queues,
    pub(crate) entries_ahead: EntriesAhead,
    pub(crate) timers: Timers,
    pub(crate) pending: PendingBytes,
    pub(crate) ring: Mutex<Ring>,
    /// Bytes of the ring, readable without its lock.
    pub(crate) ring_bytes: AtomicUsize,
    pub(crate) confirmed: AtomicU64,
    pub(crate) applied: AtomicU64,
    pub(crate) damage: Mutex<DamageList>,
    pub(crate) upkeep: Upkeep,
    pub(crate) scrub: Scrub,
    pub(crate) rest: Rest,
    applying: Mutex<Applying>,
    lock: Mutex<Option<File>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The applying side, and what it has done since the views were flushed.
#[derive(Debug)]
struct Applying {
    applier: Applier,
    records: u64,
    flushed: PhysicalOffset,
}

impl Store {
    /// Opens the store in `options.dir`, or makes one, and recovers it.
    pub fn open(options: StoreOptions, now: Now) -> Result<(Arc<Self>, OpenReport), OpenError> {
        match Self::open_once(options.clone(), now) {
            // What was found was marked, and now the views begin empty.
            Err(error) if error.is_view_damage() => {
                tracing::warn!(%error, "the views are damaged and made again");
                Self::open_once(options, now)
            }
            outcome => outcome,
        }
    }

    fn open_once(options: StoreOptions, now: Now) -> Result<(Arc<Self>, OpenReport), OpenError> {
        let lock = lock::take(&options.dir)?;
        let views = crate::views::open(&options)?;
        Self::open_locked(options, views, Arc::new(StdFiles), Some(lock), now)
    }

    /// Opens a store on other views and another disk, for simulation and tests. The caller sees to it that no other
    /// store uses them.
    pub fn open_on(
        options: StoreOptions,
        views: Arc<dyn ViewStore>,
        files: Arc<dyn Files>,
        now: Now,
    ) -> Result<(Arc<Self>, OpenReport), OpenError> {
        Self::open_locked(options, views, files, None, now)
    }

    fn open_locked(
        options: StoreOptions,
        views: Arc<dyn ViewStore>,
        files: Arc<dyn Files>,
        lock: Option<File>,
        now: Now,
    ) -> Result<(Arc<Self>, OpenReport), OpenError> {
        // Views that cannot be read are made again like those that are not there.
        let applied = match views.applied_as() {
            Err(error @ ViewError::Damaged { .. }) => return Err(error.into()),
            outcome => outcome.unwrap_or_default(),
        };
        let log_options = LogOptions {
            dir: options.dir.join("log"),
            segment_bytes: options.segment_bytes,
            new_store_id: random_store_id(),
            epoch: 0,
            scan_from: applied.position,
            room: RoomOptions { may_pass: options.on_full == OnFull::DeleteOldest, ..options.room },
            block_bytes: options.log_block_bytes,
        };
        let (writer, log, found) =
            log::open(&log_options, Arc::clone(&files)).map_err(open_error)?;
        let end = log.sync().map_err(SyncError::from)?;
        let Restored { tables, from, rebuilt, salvaged } =
            restore(&*views, &log, applied, found.newest_image, options.accepts_lost_state)?;
        let scrub = Scrub::open(&options.dir, Arc::clone(&files), log.clone());
        let upkeep = Upkeep::open(&options, files, &log, from, found.newest_image, now)
            .map_err(OpenError::Upkeep)?;
        let counters = tables.counters();
        let store = Self {
            tail: Mutex::new(Tail::new(writer)),
            tables,
            queues: Queues::default(),
            entries_ahead: EntriesAhead::new(),
            timers: Timers::default(),
            pending: PendingBytes::new(&options),
            ring: Mutex::default(),
            ring_bytes: AtomicUsize::new(0),
            confirmed: AtomicU64::new(end.0),
            applied: AtomicU64::new(from.0),
            damage: Mutex::default(),
            upkeep,
            scrub,
            rest: Rest::default(),
            applying: Mutex::new(Applying {
                applier: Applier::new(counters),
                records: 0,
                flushed: from,
            }),
            lock: Mutex::new(lock),
            options,
            log,
            views,
        };
        for damage in &found.damage {
            store.note_damage(damage.position..damage.end, damage.reason.to_string());
        }
        let replayed = store.replay(from)?;
        store.finish_forgetting(replayed.log_start)?;
        if salvaged.is_some() {
            store.finish_salvage(now)?;
        }
        store.find_room()?;
        store.note_broken_keys();
        store.note_view_damage();
        let report = OpenReport {
            records_replayed: replayed.records,
            views_rebuilt: rebuilt,
            cut_at: found.cut.map(|cut| cut.position),
            damage: store.damage.lock().newest().to_vec(),
            salvaged,
        };
        Ok((Arc::new(store), report))
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.tables.topics.read().get(name).cloned()
    }

    /// Every topic, sorted by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.tables.topics.read().all()
    }

    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<Arc<GroupConfig>> {
        self.tables.groups.read().get(name).cloned()
    }

    /// Every group, sorted by name.
    pub fn groups(&self) -> Vec<Arc<GroupConfig>> {
        self.tables.groups.read().all()
    }

    /// Version of the topics.
    pub fn topics_version(&self) -> DataVersion {
        self.tables.topics.read().version()
    }

    /// Version of the groups.
    pub fn groups_version(&self) -> DataVersion {
        self.tables.groups.read().version()
    }

    /// End of the log.
    pub fn written(&self) -> PhysicalOffset {
        self.log.written()
    }

    /// End of what is on disk.
    pub fn synced(&self) -> PhysicalOffset {
        self.log.synced()
    }

    /// End of what readers see.
    pub fn confirmed(&self) -> PhysicalOffset {
        PhysicalOffset(self.confirmed.load(Ordering::Acquire))
    }

    /// First byte of the log that is kept.
    pub fn log_start(&self) -> PhysicalOffset {
        self.log.start()
    }

    /// Puts on disk what was written before the call, and says up to where. Blocks; concurrent calls share one sync.
    pub fn sync(&self) -> Result<PhysicalOffset, SyncError> {
        let synced = self.log.sync()?;
        if self.options.flush == Flush::Sync {
            self.confirmed.fetch_max(synced.0, Ordering::AcqRel);
        }
        Ok(synced)
    }

    /// The failure of the disk after which nothing is appended or synced any more, if there was one. Only opening the
    /// store again finds out what the disk holds.
    pub fn stopped(&self) -> Option<log::Stopped> {
        self.log.stopped()
    }

    /// Whether a sync is due before the next tick: many bytes are not synced, or the ring waits for one.
    pub fn flush_due(&self) -> bool {
        let dirty = self.written().0.saturating_sub(self.synced().0);
        let ring = self.ring_bytes.load(Ordering::Acquire);
        dirty >= self.options.dirty_bytes_max
            || (dirty > 0 && ring > self.options.ring_bytes_max / 2)
    }

    /// Next offset that a group consumes.
    pub fn offset(&self, group: &str, topic: &Topic, queue: QueueId) -> Option<QueueOffset> {
        self.tables.offsets.read().get(group, topic.id, queue)
    }

    /// Every offset of a group, sorted by topic id and queue.
    pub fn offsets_of_group(&self, group: &str) -> Vec<(Arc<Topic>, QueueId, QueueOffset)> {
        let topics = self.tables.topics.read();
        let offsets = self.tables.offsets.read().of_group(group);
        let known = |(topic, queue, offset)| Some((topics.by_id(topic)?.clone(), queue, offset));
        offsets.into_iter().filter_map(known).collect()
    }

    /// Groups that have an offset on a topic, sorted.
    pub fn groups_with_offsets_on(&self, topic: &Topic) -> Vec<GroupName> {
        self.tables.offsets.read().groups_on(topic.id)
    }

    /// Number of staged offsets.
    pub fn staged(&self) -> usize {
        self.tables.offsets.read().staged()
    }

    /// Timers due at `now_ms` or before that have not ended, oldest first. Those of deleted topics never come.
    pub fn due_timers(&self, now_ms: u64, limit: usize) -> Result<Vec<Timer>, ReadError> {
        Ok(self.timers.due(now_ms, limit, &*self.views, &self.wanted_timer())?)
    }

    /// Those of [`Store::due_timers`] that `is_due` accepts.
    pub fn due_timers_where(
        &self,
        now_ms: u64,
        limit: usize,
        is_due: &dyn Fn(&Timer) -> bool,
    ) -> Result<Vec<Timer>, ReadError> {
        let exists = self.wanted_timer();
        let wanted = |pending: &Pending| is_due(&pending.0) && exists(pending);
        Ok(self.timers.due(now_ms, limit, &*self.views, &wanted)?)
    }

    /// Pending timers whose messages go to a topic. Looks through all pending timers, about a microsecond each.
    pub fn pending_timers_of(&self, topic: &Topic) -> Result<usize, ReadError> {
        let wanted = |(_, target): &Pending| *target == Some(topic.id);
        let found = self.timers.due(u64::MAX - 1, usize::MAX, self.views.as_ref(), &wanted);
        Ok(found.map_err(ReadError::from)?.len())
    }

    /// Due time of the next timer, in milliseconds since 1970.
    pub fn next_due_ms(&self) -> Option<u64> {
        match self.timers.next_due_ms(&*self.views, &self.wanted_timer()) {
            Ok(due) => due,
            // Due at once: the look at the timers then reports what is wrong.
            Err(_) => Some(0),
        }
    }

    fn wanted_timer(&self) -> impl Fn(&Pending) -> bool {
        let confirmed = self.confirmed();
        move |(timer, target)| {
            let exists = |id| self.tables.topics.read().by_id(id).is_some();
            timer.position < confirmed && target.is_none_or(exists)
        }
    }

    /// Moves up to `records_max` confirmed and synced records from the ring to the views; returns how many.
    pub fn apply_views(&self, records_max: usize) -> Result<usize, ViewError> {
        let mut applying = self.applying.lock();
        let applier = &mut applying.applier;
        let limit = self.confirmed().min(self.synced());
        let (places, sides) = applier.oldest();
        self.ring.lock().oldest(records_max, places, sides);
        let filled = applier.fill(limit, &self.queues, &*self.views)?;
        if filled.records == 0 {
            return Ok(0);
        }
        applier.sides.truncate(filled.sides);
        self.views.apply(applier.batch())?;
        if VIEW_APPLIED_TWICE {
            let mut position = ViewBatch::new();
            position.set_applied(filled.applied);
            self.views.apply(&position)?;
        }
        self.settle_applied(&mut applying.applier, filled.records);
        applying.records += filled.records as u64;
        self.applied.store(filled.applied.0, Ordering::Release);
        Ok(filled.records)
    }

    fn settle_applied(&self, applier: &mut Applier, records: usize) {
        self.timers.applied(&applier.sides);
        for side in &applier.sides {
            for entry in &side.state {
                if let crate::state::StateEntry::TopicGone { id, .. } = entry {
                    self.timers.remove_topic(*id);
                }
            }
        }
        applier.settle_queues(&self.queues);
        let mut ring = self.ring.lock();
        ring.applied(records);
        self.ring_bytes.store(ring.bytes(), Ordering::Release);
    }

    /// Upkeep, to be called every few seconds: lets go of what is too old or too much, indexes keys once as
    /// [`Store::index_keys`] does, and flushes the views when a replay would take long.
    pub fn maintain(&self, now: Now) -> Result<Maintenance, MaintainError> {
        self.note_broken_keys();
        self.measure_pending()?;
        // First, since senders may be waiting for room: keys of what is gone need no index.
        let forgotten = self.forget_and_find_room(now)?;
        let is_index_behind = self.index_keys()?;
        self.views.note_log_start(self.log_start());
        Ok(Maintenance {
            segments_removed: forgotten.segments,
            timers_carried: forgotten.carried,
            image_written: forgotten.image_written,
            views_flushed: self.flush_views_if_due()?,
            is_index_behind,
        })
    }

    /// Where the newest segment of the log begins; `None` while there is none.
    pub fn newest_segment(&self) -> Option<PhysicalOffset> {
        self.log.newest_segment()
    }

    fn flush_views_if_due(&self) -> Result<bool, ViewError> {
        let applied = PhysicalOffset(self.applied.load(Ordering::Acquire));
        let due = {
            let applying = self.applying.lock();
            applying.records >= FLUSH_RECORDS
                || applied.0.saturating_sub(applying.flushed.0) >= FLUSH_BYTES
        };
        if due {
            self.flush_views(applied)?;
        }
        Ok(due)
    }

    pub(crate) fn flush_views(&self, applied: PhysicalOffset) -> Result<(), ViewError> {
        // Not under the applier's lock: the views go on while they are flushed.
        self.views.flush()?;
        let mut applying = self.applying.lock();
        applying.records = 0;
        applying.flushed = applied;
        Ok(())
    }

    /// Writes what waits and lets go of the folder. Nothing can be appended afterwards.
    pub fn close(&self, now: Now) -> Result<(), CloseError> {
        self.write_staged_offsets(now)?;
        self.tail.lock().closed = true;
        self.sync()?;
        while self.apply_views(CLOSE_RECORDS)? > 0 {}
        self.flush_views(PhysicalOffset(self.applied.load(Ordering::Acquire)))?;
        self.close_log(CLOSE_STEPS_MAX)?;
        self.lock.lock().take();
        Ok(())
    }

    /// The store at this moment.
    pub fn status(&self) -> StoreStatus {
        let (written, synced) = (self.written(), self.synced());
        let (spare_files, leaving_bytes, removed_bytes) = {
            let tail = self.tail.lock();
            let writer = &tail.writer;
            (writer.spare_files(), writer.leaving_bytes(), writer.removed_bytes())
        };
        self.note_view_damage();
        let damage = self.damage.lock();
        StoreStatus {
            log_start: self.log_start(),
            confirmed: self.confirmed(),
            synced,
            written,
            applied: PhysicalOffset(self.applied.load(Ordering::Acquire)),
            log_bytes: written.0.saturating_sub(self.log_start().0),
            file_bytes: self.log.file_bytes()
                + leaving_bytes
                + spare_files as u64 * self.options.segment_bytes,
            leaving_bytes,
            removed_bytes,
            segments: self.log.segments().len(),
            spare_files,
            shortage: self.shortage(),
            dirty_bytes: written.0.saturating_sub(synced.0),
            ring_bytes: self.ring_bytes.load(Ordering::Acquire),
            view_bytes: self.views.size_bytes(),
            topics: self.tables.topics.read().len(),
            groups: self.tables.groups.read().len(),
            key_read_bytes: self.upkeep.key_read_bytes.load(Ordering::Relaxed),
            keys_forgotten: self.upkeep.keys_waiting.forgotten(),
            damage: damage.newest().to_vec(),
            damaged_records: damage.records(),
            damaged_files: damage.files(),
            scrub: self.scrub.status(),
        }
    }
}

impl From<log::SyncError> for SyncError {
    fn from(error: log::SyncError) -> Self {
        Self::Log(Arc::new(error))
    }
}

fn open_error(error: log::OpenError) -> OpenError {
    match error {
        log::OpenError::NewerFormat { found, known, .. } => OpenError::NewerFormat { found, known },
        error => OpenError::Log(error),
    }
}

/// Tells stores apart; it guards against mixed folders and need not be secret.
fn random_store_id() -> StoreId {
    // Each `RandomState` is seeded by the system.
    let half = || std::hash::RandomState::new().hash_one(0_u8).to_be_bytes();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half());
    id[8..].copy_from_slice(&half());
    StoreId(id)
}
