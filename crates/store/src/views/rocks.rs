//! Views in RocksDB: one column family for each.
//! Invariant: the write-ahead log is off and column families flush together, so that what a crash leaves is some
//! applied batch's end; the commit log brings the rest back.
//! RocksDB's thread that merges tables leaves most of a processor to those that answer.
//! Leaves other threads to its owner: one of them writes.

use std::{
    ops::Range,
    panic::resume_unwind,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use gantry_model::PhysicalOffset;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor,
    CompactionDecision, DB, DBCompressionType, DBRawIterator, DEFAULT_COLUMN_FAMILY_NAME, Env,
    ErrorKind, FlushOptions, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{
    Direction, Op, Snapshot, Step, View, ViewBatch, ViewDamage, ViewError, ViewRead, ViewStore,
    Visit,
    damage::{Watch, marked},
    layout,
};

/// Memory that the views may take, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct RocksMemory {
    /// Block cache, shared by all views; holds indexes and filters too.
    pub cache_bytes: usize,
    /// Write buffers of all views together.
    pub write_bytes: usize,
}

/// Finds the place of an entry from its queue's last one: it halves the cost of an entry. The crate has no setter.
/// It works while one thread writes. 8 bytes of key are topic id and queue.
const INSERT_HINT: &str = "memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.8";
/// Files that RocksDB holds open.
const OPEN_FILES_MAX: i32 = 256;
/// Times that opening for reading is tried.
const READ_TRIES: u32 = 5;
/// Bytes of a block of queue entries: some hundreds of them, which readers go through in turn.
const QUEUE_BLOCK_BYTES: usize = 16 * 1024;
/// Bits of filter for each key: one look in a hundred is in vain.
const FILTER_BITS: f64 = 10.0;
/// Bytes of the first level below the tables that are written. All of it is written again with each four of them, since
/// each has entries of every queue.
const LEVEL_BYTES: u64 = 32 << 20;
/// Bytes of a table from that level on: one has entries of few queues, and what is further down is left as it is where the
/// tables that are moved there have none of its queues.
const TABLE_BYTES: u64 = 4 << 20;
/// How nice the threads are that write and merge tables: one that answers gets nine tenths of a processor that one of
/// them wants too. At everybody's priority a table that is written holds up sends by tens of milliseconds; both need a
/// fifteenth of a processor that does nothing but take small messages in batches.
const NICE: i32 = 10;

/// Whether a write has to wait until a table is written or some are merged.
const WRITES_STOPPED: &str = "rocksdb.is-write-stopped";
/// How often a table could not be written, or several not merged.
const FAILURES: &str = "rocksdb.background-errors";
/// Time between two looks whether tables were written.
const STOPPED_WAIT: Duration = Duration::from_millis(1);
/// Looks after which the write fails, whatever is the reason: some seconds.
const STOPPED_LOOKS_MAX: u32 = 5_000;

/// Views on disk.
pub struct RocksViews {
    db: DB,
    write: WriteOptions,
    /// The same, refused where it would have to wait for tables to be written.
    at_once: WriteOptions,
    /// Tables that could not be written, as known when the newest batch was.
    failures: AtomicU64,
    /// Records before it are gone: compaction drops their entries.
    log_start: Arc<AtomicU64>,
    watch: Watch,
}

impl std::fmt::Debug for RocksViews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksViews").field("dir", &self.db.path()).finish_non_exhaustive()
    }
}

impl RocksViews {
    /// Opens the views in `dir`, or makes them. Damaged ones are thrown away: the log holds all that they held.
    pub fn open(dir: &Path, memory: RocksMemory) -> Result<Self, ViewError> {
        if let Some(reason) = marked(dir) {
            return Self::open_again(dir, memory, &reason);
        }
        if lacks_a_view(dir) {
            // It would come back empty among views that say how far all of them are applied.
            return Self::open_again(dir, memory, "a view is missing");
        }
        match Self::try_open(dir, memory) {
            Err(error) if is_damage(&error) => Self::open_again(dir, memory, error.as_ref()),
            outcome => outcome.map_err(|source| failed("open", source)),
        }
    }

    /// Opens the views in `dir` as they were flushed last, for reading alone: nothing in the folder changes, also when
    /// another process has them open.
    pub(super) fn open_for_reading(dir: &Path) -> Result<Self, ViewError> {
        let mut tries = 1;
        loop {
            match Self::try_open_for_reading(dir) {
                // Files may have been merged into others between the look at their list and their opening.
                Err(_) if tries < READ_TRIES => tries += 1,
                outcome => return outcome.map_err(|source| failed("open", source)),
            }
        }
    }

    fn try_open_for_reading(dir: &Path) -> Result<Self, rocksdb::Error> {
        let mut options = Options::default();
        // All files are opened at once, so that those that are removed later can be read on.
        options.set_max_open_files(-1);
        let names = View::ALL.map(View::name);
        let db = DB::open_cf_for_read_only(&options, dir, names, false)?;
        let (write, at_once) = (WriteOptions::default(), WriteOptions::default());
        let (failures, log_start) = (AtomicU64::new(0), Arc::default());
        Ok(Self { db, write, at_once, failures, log_start, watch: Watch::for_reading(dir) })
    }

    fn open_again(dir: &Path, memory: RocksMemory, reason: &str) -> Result<Self, ViewError> {
        std::fs::remove_dir_all(dir).map_err(|source| failed("clear", source))?;
        let views = Self::try_open(dir, memory).map_err(|source| failed("open", source))?;
        views.watch.mended(reason);
        Ok(views)
    }

    fn try_open(dir: &Path, memory: RocksMemory) -> Result<Self, rocksdb::Error> {
        let log_start = Arc::new(AtomicU64::new(0));
        let cache = Cache::new_lru_cache(memory.cache_bytes);
        let families = View::ALL.map(|view| {
            let options = family_options(view, &cache, memory, &log_start)?;
            Ok::<_, rocksdb::Error>(ColumnFamilyDescriptor::new(view.name(), options))
        });
        let mut families = families.into_iter().collect::<Result<Vec<_>, _>>()?;
        families.push(unused_family(memory));
        start_threads()?;
        let db = DB::open_cf_descriptors(&database_options(memory), dir, families)?;
        let [mut write, mut at_once] = [WriteOptions::default(), WriteOptions::default()];
        write.disable_wal(true);
        at_once.disable_wal(true);
        at_once.set_no_slowdown(true);
        let failures = AtomicU64::new(0);
        Ok(Self { db, write, at_once, failures, log_start, watch: Watch::new(dir) })
    }

    fn family(&self, view: View) -> &ColumnFamily {
        // `try_open` has opened every view.
        self.db.cf_handle(view.name()).expect("each view has a column family")
    }

    fn flush_all(&self) -> Result<(), rocksdb::Error> {
        let families: Vec<_> = View::ALL.iter().map(|view| self.family(*view)).collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families, &options)
    }

    /// What a write or flush that failed means. RocksDB looks every few seconds whether there is room again, and then goes
    /// on; after any other error it takes nothing more until it is opened again.
    fn not_written(&self, action: &'static str, source: rocksdb::Error) -> ViewError {
        // The kind does not tell it from other errors of the disk; these words are RocksDB's own.
        if source.as_ref().contains("No space left on device") {
            return ViewError::Full { action, source: Box::new(source) };
        }
        self.watch.failed(action, source)
    }

    fn writes(&self, batch: &ViewBatch) -> WriteBatch {
        let families = View::ALL.map(|view| self.family(view));
        let family = |view: View| families[view as usize];
        let mut writes = WriteBatch::default();
        for op in batch.ops() {
            match op {
                Op::Put(view, key, value) => writes.put_cf(family(view), key, value),
                Op::Delete(view, key) => writes.delete_cf(family(view), key),
                Op::DeleteRange(view, from, to) => writes.delete_range_cf(family(view), from, to),
            }
        }
        writes
    }

    /// Waits until tables are written, for which the newest batch has to wait. On a disk without room that would last until
    /// there is some, and RocksDB would not say so.
    fn wait_for_tables(&self) -> Result<(), ViewError> {
        let mut looks = 0;
        while self.property(WRITES_STOPPED)? > 0 {
            let has_failed = self.property(FAILURES)? > self.failures.load(Ordering::Relaxed);
            if has_failed || looks == STOPPED_LOOKS_MAX {
                let source = "tables of the views are not written".into();
                return Err(ViewError::Full { action: "write", source });
            }
            looks += 1;
            thread::sleep(STOPPED_WAIT);
        }
        Ok(())
    }

    fn property(&self, name: &str) -> Result<u64, ViewError> {
        let value = self.db.property_int_value(name);
        Ok(value.map_err(|source| failed("read", source))?.unwrap_or(0))
    }

    fn is_empty(&self) -> bool {
        View::ALL.iter().all(|view| {
            let mut entries = self.db.raw_iterator_cf(self.family(*view));
            entries.seek_to_first();
            // An error is not an empty view.
            !entries.valid() && entries.status().is_ok()
        })
    }

    fn clear_all(&self) -> Result<(), rocksdb::Error> {
        if self.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for view in View::ALL {
            batch.delete_range_cf(self.family(view), &[][..], layout::END);
        }
        self.db.write_opt(batch, &self.write)?;
        self.flush_all()?;
        for view in View::ALL {
            self.db.compact_range_cf(self.family(view), None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }
}

/// Starts RocksDB's threads, one that writes tables and one that merges them, for the whole process: they have the priority
/// of whoever starts them.
fn start_threads() -> Result<(), rocksdb::Error> {
    let mut env = Env::new()?;
    let start = || {
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::debug!(%error, "RocksDB writes and merges tables at full priority");
        }
        env.set_high_priority_background_threads(1);
        env.set_low_priority_background_threads(1);
    };
    match thread::scope(|scope| scope.spawn(start).join()) {
        Ok(()) => Ok(()),
        Err(panic) => resume_unwind(panic),
    }
}

fn database_options(memory: RocksMemory) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_allow_concurrent_memtable_write(false);
    options.set_db_write_buffer_size(memory.write_bytes);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options
}

fn family_options(
    view: View,
    cache: &Cache,
    memory: RocksMemory,
    log_start: &Arc<AtomicU64>,
) -> Result<Options, rocksdb::Error> {
    // First of all: what is read from text replaces what was set before.
    let mut options = Options::default();
    if view == View::Queue {
        options = options.get_options_from_string(INSERT_HINT)?;
        let log_start = Arc::clone(log_start);
        options.set_compaction_filter("entries before the log", move |_, key, value| {
            let kept = layout::Run::decode(key, value)
                .map_or(true, |run| run.last().position.0 >= log_start.load(Ordering::Acquire));
            if kept { CompactionDecision::Keep } else { CompactionDecision::Remove }
        });
    }
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In parts, of which the cache holds those that are used: a whole index of a file is larger than what is read by it.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_pin_top_level_index_and_filter(true);
    if view == View::Queue {
        // Entries are read by ranges: a filter would be made for each and asked by nobody.
        blocks.set_block_size(QUEUE_BLOCK_BYTES);
    } else {
        blocks.set_bloom_filter(FILTER_BITS, false);
        blocks.set_partition_filters(true);
    }
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(memory.write_bytes / 2);
    options.set_max_write_buffer_number(3);
    options.set_max_bytes_for_level_base(LEVEL_BYTES);
    options.set_target_file_size_base(TABLE_BYTES);
    Ok(options)
}

/// The family that RocksDB insists on. After it ran out of space it goes on only when there is room for the largest
/// write buffer of any family, also of one that is never written, and by default that is 64 MiB.
fn unused_family(memory: RocksMemory) -> ColumnFamilyDescriptor {
    let mut options = Options::default();
    options.set_write_buffer_size(memory.write_bytes / 2);
    ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options)
}

/// Whether there are views, and not all of them. What cannot be read counts as none: opening it tells why.
fn lacks_a_view(dir: &Path) -> bool {
    DB::list_cf(&Options::default(), dir)
        .is_ok_and(|found| !View::ALL.iter().all(|view| found.iter().any(|f| f == view.name())))
}

/// Whether making the views again helps.
fn is_damage(error: &rocksdb::Error) -> bool {
    // A file that is named by another and gone is an error of the disk to RocksDB; the words are the system's.
    let is_gone = || error.as_ref().contains("No such file or directory");
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotFound => true,
        ErrorKind::IOError => is_gone(),
        _ => false,
    }
}

fn failed(
    action: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> ViewError {
    ViewError::Store { action, source: Box::new(source) }
}

fn read_options(keys: &Range<&[u8]>) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(keys.start);
    options.set_iterate_upper_bound(keys.end);
    options
}

fn walk(
    mut entries: DBRawIterator<'_>,
    direction: Direction,
    visit: &mut Visit<'_>,
) -> Result<(), rocksdb::Error> {
    match direction {
        Direction::Forward => entries.seek_to_first(),
        Direction::Backward => entries.seek_to_last(),
    }
    while let Some((key, value)) = entries.item() {
        if visit(key, value) == Step::Stop {
            return Ok(());
        }
        match direction {
            Direction::Forward => entries.next(),
            Direction::Backward => entries.prev(),
        }
    }
    entries.status()
}

impl ViewRead for RocksViews {
    fn get(&self, view: View, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        let value = self.db.get_cf(self.family(view), key);
        value.map_err(|source| self.watch.failed("read", source))
    }

    fn scan(
        &self,
        view: View,
        keys: Range<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ViewError> {
        if keys.start >= keys.end {
            return Ok(());
        }
        let options = read_options(&keys);
        let entries = self.db.raw_iterator_cf_opt(self.family(view), options);
        walk(entries, direction, visit).map_err(|source| self.watch.failed("read", source))
    }
}

struct RocksSnapshot<'a> {
    views: &'a RocksViews,
    snapshot: rocksdb::Snapshot<'a>,
}

impl ViewRead for RocksSnapshot<'_> {
    fn get(&self, view: View, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        let family = self.views.family(view);
        let value = self.snapshot.get_cf(family, key);
        value.map_err(|source| self.views.watch.failed("read", source))
    }

    fn scan(
        &self,
        view: View,
        keys: Range<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ViewError> {
        if keys.start >= keys.end {
            return Ok(());
        }
        let family = self.views.family(view);
        let entries = self.snapshot.raw_iterator_cf_opt(family, read_options(&keys));
        walk(entries, direction, visit).map_err(|source| self.views.watch.failed("read", source))
    }
}

impl ViewStore for RocksViews {
    fn apply(&self, batch: &ViewBatch) -> Result<(), ViewError> {
        let outcome = match self.db.write_opt(self.writes(batch), &self.at_once) {
            Err(error) if error.kind() == ErrorKind::Incomplete => {
                self.wait_for_tables()?;
                self.db.write_opt(self.writes(batch), &self.write)
            }
            outcome => outcome,
        };
        outcome.map_err(|source| self.not_written("write", source))?;
        self.failures.store(self.property(FAILURES)?, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), ViewError> {
        self.flush_all().map_err(|source| self.not_written("flush", source))
    }

    fn snapshot(&self) -> Snapshot<'_> {
        Box::new(RocksSnapshot { views: self, snapshot: self.db.snapshot() })
    }

    fn clear(&self) -> Result<(), ViewError> {
        self.clear_all().map_err(|source| self.watch.failed("clear", source))
    }

    fn scan_once(
        &self,
        view: View,
        keys: Range<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), ViewError> {
        let mut options = read_options(&keys);
        options.fill_cache(false);
        let entries = self.db.raw_iterator_cf_opt(self.family(view), options);
        let outcome = walk(entries, Direction::Forward, visit);
        outcome.map_err(|source| self.watch.failed("read", source))
    }

    fn take_damage(&self) -> Vec<ViewDamage> {
        self.watch.take()
    }

    fn damaged_file(&self) -> Option<&Path> {
        self.watch.marked()
    }

    fn note_log_start(&self, position: PhysicalOffset) {
        self.log_start.fetch_max(position.0, Ordering::AcqRel);
    }

    fn size_bytes(&self) -> u64 {
        let of = |view: &View| {
            let properties = ["rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables"];
            let values = properties.map(|name| {
                self.db.property_int_value_cf(self.family(*view), name).ok().flatten().unwrap_or(0)
            });
            values.iter().sum::<u64>()
        };
        View::ALL.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests;
